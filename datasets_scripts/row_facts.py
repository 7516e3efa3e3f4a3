"""What staged rows say of themselves beside their pictures and sound."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Features

from datasets_scripts.schema import FIXATIONS, FRAMES, IMAGE, LABEL, SPEECH_FRACTION, START_S, TIME_S

PLAIN_COLUMNS = (START_S, TIME_S, SPEECH_FRACTION, LABEL, FIXATIONS)


@dataclass(frozen=True)
class RowFacts:
    """The rows of one recording, in their order.

    `start_s` is when each was taken and `seconds` how long it lasts (0 for a frame); `speech` (share),
    `labels` (names) and `fixations` (numbers) are empty where rows have none. `picture` is an encoded frame
    of the first.
    """

    start_s: tuple[float, ...]
    seconds: tuple[float, ...]
    speech: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    fixations: tuple[int, ...] = ()
    picture: bytes = b""


def read_row_facts(path: Path, features: Features, seconds: float) -> RowFacts:
    """The facts of the rows that `stage_rows` wrote; of pictures the first row's alone is read.

    Args:
        path: Arrow file of one recording, with a row at least.
        features: of the rows.
        seconds: length of a row; 0 for frames.
    """
    names = list(features)
    wanted = [name for name in PLAIN_COLUMNS if name in names]
    options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in wanted])
    columns: dict[str, list] = {name: [] for name in wanted}
    with pa.OSFile(str(path)) as file:
        rows = pa.ipc.open_file(file, options=options)
        # One after the other: a batch holds the pictures of its row too, though only the others are wanted.
        for number in range(rows.num_record_batches):
            for name, values in rows.get_batch(number).to_pydict().items():
                columns[name] += values
    starts = columns.get(START_S) or columns[TIME_S]
    labels = columns.get(LABEL, [])
    if isinstance(features.get(LABEL), ClassLabel):
        labels = [features[LABEL].int2str(label) for label in labels]
    return RowFacts(
        start_s=tuple(starts),
        seconds=(seconds,) * len(starts),
        speech=tuple(columns.get(SPEECH_FRACTION, ())),
        labels=tuple(labels),
        fixations=tuple(len(each) for each in columns.get(FIXATIONS, ())),
        picture=_first_picture(path, names),
    )


def _first_picture(path: Path, names: list[str]) -> bytes:
    with pa.OSFile(str(path)) as file:
        row = pa.ipc.open_file(file).get_batch(0).to_pylist()[0]
    return row[FRAMES][len(row[FRAMES]) // 2]["bytes"] if FRAMES in names else row[IMAGE]["bytes"]
