"""Clips of noise as they are stored, for timing what loads them."""

import io
from collections.abc import Iterator
from itertools import count

import numpy as np
import soundfile
import torch
from torch.nn.functional import interpolate
from torch.utils.data import Sampler
from torchvision.io import encode_jpeg
from transformers import BatchFeature

from datasets_scripts.schema import (
    AUDIO,
    CLIP_ID,
    FRAMES,
    SAMPLING_RATE_HZ,
    SCAN_ID,
    SPEECH_FRACTION,
    START_S,
)
from train.arguments import PretrainArguments
from train.pretrain import build_processor, build_triples
from train.triples import Row, normalised_batches, training_batches

STORED_FRAMES = 28
FRAME_SIZE = 160
SPECKLE_SIZE = 4  # pixels: noise of single pixels would make JPEGs far larger than pictures do
JPEG_QUALITY = 90
DISTINCT_CLIPS = 16


class RepeatedRows(Sampler):
    """Endless batches of (epoch, undecoded row), the same rows in every epoch.

    Args:
        rows: at least one batch of them.
        batch_size: clips a batch.
    """

    def __init__(self, rows: list[Row], batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[tuple[int, Row]]]:
        for epoch in count():
            for start in range(0, len(self.rows) - self.batch_size + 1, self.batch_size):
                yield [(epoch, row) for row in self.rows[start : start + self.batch_size]]


def random_clip_batches(
    arguments: PretrainArguments, batch_size: int, clip_seconds: float, workers: int, device: torch.device
) -> Iterator[tuple[list[str], BatchFeature]]:
    """Endless batches of random clips, decoded, varied and prepared as a run of pretrain.py does it."""
    config = arguments.model_config()
    triples = build_triples(arguments, config, build_processor(config), augmented=True)
    distinct = [random_row(number, clip_seconds) for number in range(DISTINCT_CLIPS)]
    rows = [distinct[number % DISTINCT_CLIPS] | {CLIP_ID: f"clip{number}"} for number in range(batch_size)]
    order = RepeatedRows(rows, batch_size)
    loader = training_batches(triples, order, workers, pin_memory=device.type == "cuda")
    return normalised_batches(loader, triples.statistics, device)


def random_row(seed: int, clip_seconds: float) -> Row:
    """A clip row of speckle and noise, encoded as `prepare_clips` does."""
    chance = torch.Generator().manual_seed(seed)
    size = FRAME_SIZE // SPECKLE_SIZE
    speckle = torch.rand(STORED_FRAMES, 1, size, size, generator=chance)
    frames = (255 * interpolate(speckle, size=(FRAME_SIZE, FRAME_SIZE), mode="bilinear")).to(torch.uint8)
    waveform = 0.1 * torch.randn(int(clip_seconds * SAMPLING_RATE_HZ), generator=chance)
    flac = io.BytesIO()
    soundfile.write(flac, waveform.numpy(), SAMPLING_RATE_HZ, format="FLAC")
    return {
        CLIP_ID: f"clip{seed}",
        SCAN_ID: f"scan{seed}",
        START_S: 0.0,
        FRAMES: [{"bytes": bytes_of(encode_jpeg(frame, JPEG_QUALITY)), "path": None} for frame in frames],
        AUDIO: {"bytes": flac.getvalue(), "path": None},
        SPEECH_FRACTION: 1.0,
    }


def bytes_of(encoded: torch.Tensor) -> bytes:
    """A one-dimensional tensor of bytes as bytes."""
    return np.asarray(encoded).tobytes()
