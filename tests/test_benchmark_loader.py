"""The loader against a bare loop and video files: what is timed; how long it takes is not tested."""

from itertools import islice

import numpy as np
import pytest
import torch
from benchmark_helpers import TINY_MODEL

from train import benchmark_loader
from train.arguments import ArgumentsError
from train.benchmark_loader import (
    LoadedSet,
    LoaderArguments,
    bare_clips,
    clips_of_video_files,
    loader_ratios,
    make_set,
    stored_bytes_per_clip,
)
from train.pretrain import build_triples
from train.triples import open_clips

TINY = LoaderArguments(
    scans=4,
    scan_seconds=6,
    clip_seconds=2,
    image_size=32,
    batch_size=3,
    batches=2,
    rounds=1,
    model=TINY_MODEL,
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedSet:
    return make_set(TINY, tmp_path_factory.mktemp("loader"))


@pytest.mark.parametrize("cores", [2, 3])
def test_rates_are_measured_and_compared(
    loaded: LoadedSet, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(benchmark_loader, "make_set", lambda *told: loaded)
    monkeypatch.setattr(benchmark_loader, "available_cores", lambda: cores)
    result = benchmark_loader.benchmark_loader(TINY)
    assert [(ratio.name, ratio.bar, ratio.is_at_most) for ratio in result.ratios] == [
        ("loader / bare loop, clips a second", 0.8, False),
        ("loader / decoding from mp4, clips a second", 8.0, False),
        ("2 workers / 2 times one" if cores == 3 else "N workers / N times one", 0.85, False),
    ]
    assert [ratio.value is None or ratio.value > 0 for ratio in result.ratios] == [True] * 3
    assert result.ratios[-1].skipped == (None if cores == 3 else "needs 3 cores")
    assert result.details["clips_per_second"] > 0 and set(result.details["seconds"]) == {
        "loader",
        "bare",
        "video_files",
    }


def test_more_seconds_of_the_others_are_a_faster_loader() -> None:
    seconds = {"loader": [2.0, 2.0], "bare": [1.0, 1.0], "video_files": [20.0, 20.0]}
    bare, video, workers = loader_ratios(seconds, {1: 10.0, 3: 27.0})
    assert (bare.value, bare.holds) == (0.5, False)
    assert (video.value, video.holds) == (10.0, True)
    assert workers.value == pytest.approx(0.9) and workers.name.startswith("3 workers")


def test_without_cores_for_several_workers_their_ratio_is_skipped_by_name() -> None:
    seconds = {"loader": [2.0], "bare": [1.0], "video_files": [20.0]}
    *_, workers = loader_ratios(seconds, {})
    assert (workers.name, workers.bar) == ("N workers / N times one", 0.85)
    assert (workers.value, workers.holds, workers.skipped) == (None, None, "needs 3 cores")


def test_the_bare_loop_reads_what_the_loader_reads(loaded: LoadedSet) -> None:
    triples = build_triples(loaded.run, loaded.run.model_config(), loaded.processor, augmented=False)
    rows = open_clips(str(loaded.clips), loaded.config, "train")
    for row, (frames, log_mel) in zip(islice(rows, 5), bare_clips(loaded), strict=False):
        triple = triples[0, row]
        assert torch.equal(frames, triple["video"])
        assert torch.equal(log_mel, triple["input_features"])


def test_video_files_give_the_same_clips(loaded: LoadedSet) -> None:
    """As near as the lossy sound and picture of a file are to what was cut from it."""
    rows = {row["clip_id"]: row for row in open_clips(str(loaded.clips), loaded.config, "train")}
    frames, log_mel = next(clips_of_video_files(loaded, TINY))
    bare_frames, bare_log_mel = next(bare_clips(loaded))
    assert frames.shape == bare_frames.shape
    correlation = np.corrcoef(frames.flatten(), bare_frames.float().flatten())[0, 1]
    assert correlation > 0.9 and len(rows) > 1
    assert abs(log_mel.shape[0] - bare_log_mel.shape[0]) <= 2


def test_the_size_of_a_clip_is_that_of_the_shards(loaded: LoadedSet) -> None:
    stored = sum(shard.stat().st_size for shard in loaded.clips.rglob("train-*.parquet"))
    clips = sum(1 for _ in open_clips(str(loaded.clips), loaded.config, "train"))
    assert stored_bytes_per_clip(loaded) == stored / clips


def test_a_recording_is_no_shorter_than_a_clip() -> None:
    with pytest.raises(ArgumentsError, match="scan_seconds is 1"):
        LoaderArguments(scan_seconds=1, clip_seconds=2)
    with pytest.raises(ArgumentsError, match="rounds is 0"):
        LoaderArguments(rounds=0)
