"""Evaluating frames against the bare tower: what is timed; how long it takes is not tested."""

import numpy as np
import pytest
from tiny_models import SIZE

from modeling_dualrep import DualRepConfig, DualRepImageModel
from train.benchmark_planes import PlanesArguments, benchmark_planes, evaluation_of_random_frames

TINY_TOWER = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "image_size": SIZE}


def test_the_ratio_and_the_rate_are_measured() -> None:
    result = benchmark_planes(PlanesArguments(frames=7, rounds=2, batch_size=3, image_config=TINY_TOWER))
    (ratio,) = result.ratios
    assert ratio.value > 0 and ratio.bar == 1.15 and ratio.is_at_most
    assert result.details["frames_per_second"] > 0
    seconds = result.details["seconds"]
    assert {name: len(values) for name, values in seconds.items()} == {"evaluation": 2, "bare_tower": 2}


def test_the_bare_tower_is_given_what_the_evaluation_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values in the same memory layout, batch by batch; every frame is evaluated."""
    given = []
    forward = DualRepImageModel.forward

    def keep(self, pixel_values, *arguments, **named):
        given.append((pixel_values.detach().clone(), pixel_values.stride(), pixel_values.dtype))
        return forward(self, pixel_values, *arguments, **named)

    monkeypatch.setattr(DualRepImageModel, "forward", keep)
    benchmark_planes(PlanesArguments(frames=7, rounds=1, batch_size=3, image_config=TINY_TOWER))
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
