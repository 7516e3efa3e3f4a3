"""Clips of noise as they are stored: the loader takes them as it takes those of `prepare_clips`."""

from itertools import islice

import pyarrow as pa
import pytest
import torch
from benchmark_helpers import TINY_MODEL
from datasets import Dataset

from datasets_scripts.schema import clips_features
from train.benchmark_step import pretraining
from train.random_clips import STORED_FRAMES, RepeatedRows, random_clip_batches, random_row


def test_a_row_is_one_of_the_schema_s() -> None:
    row = random_row(3, clip_seconds=0.5)
    features = clips_features()
    assert sorted(row) == sorted(features) and len(row["frames"]) == STORED_FRAMES
    table = pa.Table.from_pylist([row], schema=features.arrow_schema)
    stored = Dataset(table)[0]
    assert stored["frames"][0].size == (160, 160) and stored["frames"][0].mode == "L"
    assert random_row(3, clip_seconds=0.5) == row != random_row(4, clip_seconds=0.5)


def test_a_frame_takes_as_many_bytes_as_a_picture_does() -> None:
    sizes = [len(frame["bytes"]) for frame in random_row(0, clip_seconds=0.1)["frames"]]
    assert min(sizes) > 3_000 and max(sizes) < 20_000


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_without_end_and_are_what_the_model_takes(workers: int) -> None:
    arguments = pretraining(TINY_MODEL, None, 0, compiled=False)
    endless = random_clip_batches(arguments, 3, clip_seconds=0.5, workers=workers, device=torch.device("cpu"))
    batches = list(islice(endless, 3))
    for clip_ids, batch in batches:
        assert clip_ids == ["clip0", "clip1", "clip2"]
        assert batch["pixel_values_videos"].shape == (3, 4, 3, 16, 16)
        assert batch["pixel_values_videos"].dtype == torch.float32
        assert batch["input_features"].shape == (3, 51, 8) and batch["audio_mask"].all()
    first, second = (batch["pixel_values_videos"] for _, batch in batches[:2])
    assert not torch.equal(first, second), "varied anew in every epoch"


def test_every_row_comes_once_an_epoch() -> None:
    rows = [{"clip_id": number} for number in range(5)]
    drawn = list(islice(iter(RepeatedRows(rows, 2)), 4))
    assert [[(epoch, row["clip_id"]) for epoch, row in batch] for batch in drawn] == [
        [(0, 0), (0, 1)],
        [(0, 2), (0, 3)],
        [(1, 0), (1, 1)],
        [(1, 2), (1, 3)],
    ]
