"""data.json: what a set says of itself, kept beside the model that saw it, for the model's card."""

from pathlib import Path

from train.stored_rows import INFO_FILE, read_text

DATA_FILE = "data.json"


def write_data_facts(folder: Path, dataset: str, config: str) -> None:
    """Copies the info.json of a configuration into a model folder; a set without one leaves no file.

    Args:
        folder: that the model is written to.
        dataset, config: as `read_text` and the recipe take them.

    Raises:
        StoredRowsError: the set cannot be reached.
    """
    info = read_text(dataset, f"data/{config}/{INFO_FILE}")
    if info is not None:
        (folder / DATA_FILE).write_text(info, encoding="utf-8")
