"""Writes small sets of clips as `prepare_clips` does, for the tests of training."""

import io
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image

from datasets_scripts.schema import SAMPLING_RATE_HZ, clips_features
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.processing_dualrep import DualRepProcessor
from modeling_dualrep.video_processing_dualrep import DualRepVideoProcessor

FRAMES_STORED = 28
FRAME_SIZE = 16
TINY_MODEL = {
    "video_config": {
        "image_size": FRAME_SIZE,
        "stem_hidden_size": 4,
        "hidden_sizes": [4, 8],
        "depths": [1, 1],
        "num_frames": 14,
    },
    "audio_config": {"hidden_sizes": [8, 8]},
    "image_config": {
        "image_size": FRAME_SIZE,
        "embedding_size": 4,
        "hidden_sizes": [4, 8],
        "depths": [1, 1],
    },
    "projection_dim": 8,
}

CARD = """---
configs:
- config_name: medium
  data_files:
  - split: train
    path: data/medium/train-*
  - split: validation
    path: data/medium/validation-*
---
"""


def make_row(
    clip_id: str, scan_id: str, start_s: float, *, sound: bool = True, stored: int = FRAMES_STORED
) -> dict:
    """A clip row; frame i is of the one grey value 5 * i + 20, so that tests can tell which was taken."""
    chance = np.random.default_rng(zlib.crc32(clip_id.encode()))
    audio = {"bytes": flac(chance.standard_normal(6400) * 0.05), "path": None} if sound else None
    return {
        "clip_id": clip_id,
        "scan_id": scan_id,
        "start_s": start_s,
        "frames": [{"bytes": flat_frame(5 * index + 20), "path": None} for index in range(stored)],
        "audio": audio,
        "speech_fraction": 0.5 if sound else 0.0,
    }


def flat_frame(grey: int) -> bytes:
    """A PNG of one grey value."""
    encoded = io.BytesIO()
    Image.new("L", (FRAME_SIZE, FRAME_SIZE), grey).save(encoded, "PNG")
    return encoded.getvalue()


def flac(waveform: np.ndarray, sampling_rate_hz: int = SAMPLING_RATE_HZ) -> bytes:
    """A FLAC file of the waveform (samples,) or (samples, channels)."""
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform.astype(np.float32), sampling_rate_hz, format="FLAC")
    return encoded.getvalue()


def write_clips(folder: Path, training: list[list[dict]], held_out: list[list[dict]]) -> Path:
    """Writes one Parquet file a list of rows, and the card; returns the folder."""
    data = folder / "data" / "medium"
    data.mkdir(parents=True)
    for split, shards in (("train", training), ("validation", held_out)):
        for number, rows in enumerate(shards):
            table = pa.Table.from_pylist(rows, schema=clips_features().arrow_schema)
            pq.write_table(table, data / f"{split}-{number:05d}-of-{len(shards):05d}.parquet")
    (folder / "README.md").write_text(CARD)
    return folder


def write_small_set(folder: Path, clips: int = 24, held_out: int = 8, scans: int = 4) -> Path:
    """Clips of a few scans in three shards, every fifth without sound; returns the folder."""

    def rows(split: str, count: int) -> list[dict]:
        return [
            make_row(f"{split}{index}", f"{split}_scan{index % scans}", float(index), sound=index % 5 != 4)
            for index in range(count)
        ]

    training = rows("train", clips)
    return write_clips(folder, [training[i::3] for i in range(3)], [rows("validation", held_out)])


def tiny_processor() -> DualRepProcessor:
    """The processor of TINY_MODEL."""
    size = {"height": FRAME_SIZE, "width": FRAME_SIZE}
    return DualRepProcessor(
        DualRepFeatureExtractor(), DualRepImageProcessor(size=size), DualRepVideoProcessor(size=size)
    )
