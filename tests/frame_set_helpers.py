"""Writes small sets of labelled frames, plane clips and gaze, for the tests of fine-tuning."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from PIL import Image

from datasets_scripts.schema import planes_features
from train.frame_sets import FrameSet

FRAME_SIZE = 16
TINY_CONFIG = {
    "image_config": {
        "image_size": FRAME_SIZE,
        "embedding_size": 4,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
    },
    "video_config": {
        "image_size": FRAME_SIZE,
        "stem_hidden_size": 4,
        "hidden_sizes": [4, 8],
        "depths": [1, 1],
        "num_frames": 3,
    },
    "audio_config": {"hidden_sizes": [4, 8]},
    "projection_dim": 8,
}
CARD = """---
configs:
- config_name: {config}
  data_files:
{files}
---
"""


def png(pixels: np.ndarray) -> dict:
    """An encoded picture, without loss, as a row holds it."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return {"bytes": encoded.getvalue(), "path": None}


def picture(label: int, seed: int, size: int = FRAME_SIZE) -> np.ndarray:
    """uint8 (size, size, 3) of noise with a bright bar whose place tells the label, for up to four labels."""
    pixels = np.random.default_rng([label, seed]).integers(0, 60, (size, size, 3), dtype=np.uint8)
    quarter, wide = size // 4, label % 2
    first = quarter if label < 2 else 2 * quarter
    bar = (
        (slice(None), slice(first, first + quarter)) if wide else (slice(first, first + quarter), slice(None))
    )
    pixels[bar] += 150
    return pixels


def frame_rows(
    scans: int, classes: int = 3, frames_a_class: int = 2, size: int = FRAME_SIZE, first_scan: int = 0
) -> list[dict]:
    """Rows of `planes`, each scan with frames of each class."""
    return [
        {
            "image": png(picture(label, 1000 * scan + number, size)),
            "label": label,
            "scan_id": f"scan{scan:02d}",
            "time_s": 0.5 * (frames_a_class * label + number),
        }
        for scan in range(first_scan, first_scan + scans)
        for label in range(classes)
        for number in range(frames_a_class)
    ]


def write_set(
    folder: Path,
    rows_of_splits: dict[str, Sequence[dict]],
    config: str = "planes",
    features: Features | None = None,
    patients: dict[str, dict[str, list[str]]] | None = None,
) -> Path:
    """Writes one Parquet file a split, the card, splits.json if patients are given; returns the folder."""
    data = folder / "data" / config
    data.mkdir(parents=True)
    schema = (features or planes_features()).arrow_schema
    for split, rows in rows_of_splits.items():
        table = pa.Table.from_pylist(list(rows), schema=schema)
        pq.write_table(table, data / f"{split}-00000-of-00001.parquet")
    files = "\n".join(
        f"  - split: {split}\n    path: data/{config}/{split}-*.parquet" for split in rows_of_splits
    )
    (folder / "README.md").write_text(CARD.format(config=config, files=files))
    if patients is not None:
        contents = {"key_fingerprint": "0", "seed": 0, **patients}
        (folder / "splits.json").write_text(json.dumps(contents))
    return folder


def frame_set(shown: Sequence[int], scan_ids: Sequence[str], **fields: object) -> FrameSet:
    """A set in memory, of pictures that show their labels; `fields` as FrameSet takes them."""
    defaults = {
        "frames": np.stack([picture(max(label, 0), seed) for seed, label in enumerate(shown)]),
        "scan_ids": list(scan_ids),
        "patients": list(scan_ids),
        "times_s": np.arange(len(shown), dtype=np.float64),
        "splits": ["train"] * len(shown),
        "labels": np.array(shown),
        "class_names": ("first", "second", "third"),
    }
    return FrameSet(**{**defaults, **fields})
