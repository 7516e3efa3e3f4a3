"""The card of a data set: its `configs` make `load_dataset(folder, configuration)` find the shards."""

from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

CARD_FILE = "README.md"
CARD_TEXT = """\
# Clips of ultrasound recordings with the sonographer's speech

Made by `python -m datasets_scripts.prepare_clips`. A row is a clip:

| column | what it is |
|---|---|
| `clip_id` | keyed hash of the scan, and the start of the clip in milliseconds |
| `scan_id` | keyed hash of the scan |
| `start_s` | start of the clip in the recording, in seconds |
| `frames` | JPEG images, evenly spaced over the clip by the time stamps of the recording |
| `audio` | 32 kHz mono FLAC of the clip, or null where the recording has no sound |
| `speech_fraction` | estimated share of the clip in which somebody speaks, 0 to 1 |

Each configuration is one clip length; `data/<configuration>/info.json` says how it was cut, how many clips it
has and gives its data hash. `splits.json` holds the splits: they are by patient, were drawn once, and are the
same for all configurations. Patients and scans are named by keyed hashes; the key is not part of the set.
"""


def add_to_card(output_dir: Path, config: str, data_files: dict[str, str]) -> None:
    """Name a configuration's files in the card; the rest of it stays, and without a card one is written.

    Args:
        config: name of the configuration.
        data_files: for each split the pattern of its files, relative to `output_dir`.
    """
    path = Path(output_dir) / CARD_FILE
    if path.exists():
        card = DatasetCard.load(path)
    else:
        data = DatasetCardData(
            pretty_name="Ultrasound clips with speech", tags=["ultrasound", "video", "speech"]
        )
        card = DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{CARD_TEXT}")
    entry = {
        "config_name": config,
        "data_files": [{"split": split, "path": pattern} for split, pattern in data_files.items()],
    }
    others = [each for each in getattr(card.data, "configs", None) or [] if each["config_name"] != config]
    card.data.configs = sorted([*others, entry], key=lambda each: each["config_name"])
    card.save(path)
