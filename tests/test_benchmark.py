"""What a benchmark writes, on sizes that take no time; how long anything takes is not tested."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import SIZE

from modeling_dualrep import DualRepConfig, DualRepImageModel
from train import benchmark
from train.benchmark import (
    PlanesArguments,
    alternating_rounds,
    comparison,
    evaluation_of_random_frames,
    main,
)

TINY_TOWER = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "image_size": SIZE}
TINY = [
    "planes",
    "--frames",
    "7",
    "--batch_size",
    "3",
    "--rounds",
    "2",
    "--image_config",
    json.dumps(TINY_TOWER),
]


def test_rounds_take_turns_after_one_run_of_each() -> None:
    runs: list[str] = []
    tasks = {name: lambda name=name: runs.append(name) for name in ("a", "b")}
    seconds = alternating_rounds(tasks, rounds=3)
    assert "".join(runs) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_each_task_is_given_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(benchmark, "_now_s", lambda: clock[0])

    def takes(seconds: float):
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    assert alternating_rounds({"a": takes(2.0), "b": takes(3.0)}, 2) == {"a": [2.0, 2.0], "b": [3.0, 3.0]}


def test_the_ratio_is_that_of_the_middle_round() -> None:
    compared = comparison({"all": [2.0, 9.0, 12.0], "bare": [1.0, 3.0, 10.0]}, "all", "bare")
    assert compared["median_seconds"] == {"all": 9.0, "bare": 3.0}
    assert compared["ratios"] == [2.0, 3.0, 1.2] and compared["ratio"] == 2.0


def test_the_result_says_what_was_timed_and_on_what(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TINY, "--output", str(tmp_path / "planes.json")]) == 0
    result = json.loads((tmp_path / "planes.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == result
    assert result["benchmark"] == "planes" and result["ratio"] > 0 and result["frames_per_second"] > 0
    assert {name: len(values) for name, values in result["seconds"].items()} == {
        "evaluation": 2,
        "bare_tower": 2,
    }
    settings = result["settings"]
    assert (settings["frames"], settings["batch_size"], settings["image_config"]) == (7, 3, TINY_TOWER)
    assert settings["threads"] >= 1 and "cores" in result["machine"] and result["code_version"]
    assert str(tmp_path) not in json.dumps(result)


def test_the_bare_tower_is_given_what_the_evaluation_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values in the same memory layout, batch by batch; every frame is evaluated."""
    given = []
    forward = DualRepImageModel.forward

    def keep(self, pixel_values, *arguments, **named):
        given.append((pixel_values.detach().clone(), pixel_values.stride(), pixel_values.dtype))
        return forward(self, pixel_values, *arguments, **named)

    monkeypatch.setattr(DualRepImageModel, "forward", keep)
    assert main([*TINY[:-4], "--rounds", "1", *TINY[-2:]]) == 0
    evaluated, bare = given[:3], given[3:6]  # the untimed runs
    assert [len(pixels) for pixels, *_ in evaluated] == [3, 3, 1]
    for (pixels, *layout), (other_pixels, *other_layout) in zip(evaluated, bare, strict=True):
        np.testing.assert_array_equal(pixels.numpy(), other_pixels.numpy())
        assert layout == other_layout


def test_the_frames_are_all_evaluated_by_the_code_of_fine_tuning() -> None:
    arguments = PlanesArguments(frames=50, batch_size=4, image_config=TINY_TOWER, seed=1)
    task = evaluation_of_random_frames(arguments, DualRepConfig(image_config=TINY_TOWER))
    frames = task.frame_set.frames
    assert frames.shape == (50, SIZE, SIZE, 3) and frames.dtype == np.uint8 and frames.std() > 50
    assert task.frame_set.rows_of(task.splits[0].test).tolist() == list(range(50))
    assert task.arguments.per_device_eval_batch_size == 4


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([], "Name the benchmark first: planes"),
        (["plane"], "Name the benchmark first: planes"),
        (["planes", "--frames", "0"], "frames is 0"),
        (["planes", "--frame", "5"], "Did you mean frames"),
        (["planes", "--image_config", "{depth: [1]}"], "image_config"),
        (["planes", "--output", "/nowhere/at/all.json"], "output"),
    ],
)
def test_what_cannot_be_timed_is_refused(
    command: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(command) == 2
    message = capsys.readouterr().err
    assert message.startswith("benchmark.py: ") and says in message


def test_help_names_the_fields(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0 and "--frames 10000" in capsys.readouterr().out
