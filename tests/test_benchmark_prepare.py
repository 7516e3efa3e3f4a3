"""Preparing clips against bare decoding: what is timed; how long it takes is not tested."""

from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from datasets_scripts.clips import ClipParameters
from train import benchmark_prepare as timed
from train.arguments import ArgumentsError
from train.benchmark_prepare import PrepareArguments, benchmark_prepare, decode_and_resize, write_recordings

TINY = PrepareArguments(minutes=0.2, short_seconds=2.0, height=144, clip_seconds=2.0)


def test_the_ratio_is_measured_and_what_comes_on_top_is_told() -> None:
    result = benchmark_prepare(TINY)
    (ratio,) = result.ratios
    assert ratio.value > 0 and ratio.bar == 1.3 and ratio.is_at_most
    for name in ("cpu_seconds", "cpu_seconds_of_short"):
        seconds = result.details[name]
        assert {task: len(values) for task, values in seconds.items()} == {"preparation": 1, "bare": 1}
    assert all(value > 0 for value in result.details["cpu_seconds_of_sound"].values())
    recording = result.details["recording"]
    assert (recording["seconds"], recording["size"], recording["frames_per_second"]) == (12.0, [256, 144], 30)
    assert result.details["notes"].startswith("prepare: a recording of 12 s.")
    assert "FLAC" in result.details["notes"] and "one of 2 s has the ratio" in result.details["notes"]


def test_both_take_the_same_frames_of_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    prepare = timed.prepare_clips

    def keep(recordings: Path, output: Path, parameters: ClipParameters, **run: object) -> None:
        prepare(recordings, output, parameters, **run)
        shards = sorted(output.rglob("*.parquet"))
        made.append([row for shard in shards for row in pq.read_table(shard).to_pylist()])
        assert parameters.sector == "found" and parameters.text == "blank" and run["workers"] == 1

    monkeypatch.setattr(timed, "prepare_clips", keep)
    write_recordings(tmp_path, TINY)
    parameters = ClipParameters(TINY.clip_seconds, sector="found", text="blank", validation_fraction=0)
    timed._prepare(tmp_path, "long", parameters)
    assert len(made[0]) == 6 and all(row["audio"] is None for row in made[0])
    kept = sum(len(row["frames"]) for row in made[0])
    assert decode_and_resize(tmp_path / "long" / "scan.mp4", parameters) == kept == 6 * 28


def test_the_long_recording_repeats_the_short_one(tmp_path: Path) -> None:
    write_recordings(tmp_path, TINY)
    times_s = {}
    for length in ("short", "long"):
        with av.open(str(tmp_path / length / "scan.mp4")) as container:
            times_s[length] = [frame.time for frame in container.decode(video=0)]
    assert len(times_s["long"]) == 6 * len(times_s["short"]) == 6 * 60
    assert times_s["long"] == pytest.approx([number / 30 for number in range(360)], abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"height": 700}, "height"),
        ({"rounds": 0}, "rounds"),
        ({"clip_seconds": 20.0}, "clip_seconds"),
        ({"minutes": 0.1}, "minutes"),
    ],
)
def test_what_cannot_be_timed_is_refused(fields: dict, says: str) -> None:
    with pytest.raises(ArgumentsError, match=says):
        PrepareArguments(**fields)
