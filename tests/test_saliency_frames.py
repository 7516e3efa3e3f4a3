"""Frames with fixations: what is dropped, how fixations move with the picture, what a model sees."""

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_config

from modeling_dualrep import DualRepForSaliencyPrediction, DualRepImageProcessor
from train.arguments import AugmentationArguments
from train.fixation_maps import FixationError, GaussianArguments, density_map, fixation_counts
from train.frame_sets import FrameSet
from train.pixels import PixelStatistics
from train.saliency_frames import SaliencyFrames, keep_fixations_inside, predict_maps

SIZE = 32
GAUSSIAN = GaussianArguments(sigma_share=0.06)
PROCESSOR = DualRepImageProcessor(size={"height": SIZE, "width": SIZE})
STATISTICS = PixelStatistics(PROCESSOR.image_mean, PROCESSOR.image_std)
AS_THEY_ARE = AugmentationArguments(crop_scale=1.0, brightness=0.0, gamma=0.0)


def frame_set(frames: np.ndarray, fixations: list[np.ndarray]) -> FrameSet:
    names = [f"scan{row}" for row in range(len(frames))]
    times_s = np.zeros(len(frames))
    return FrameSet(frames, names, names, times_s, ["train"] * len(frames), fixations=fixations)


def noise(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, SIZE, SIZE, 3), dtype=np.uint8)


def test_fixations_outside_and_frames_without_any_are_dropped_and_counted() -> None:
    fixations = [
        np.array([[0.2, 0.3], [1.1, 0.5]]),
        np.array([[-0.1, 0.5]]),
        np.zeros((0, 2)),
        np.array([[0.5, 0.5], [math.nan, 0.1]]),
    ]
    kept = keep_fixations_inside(fixations)
    assert kept.rows.tolist() == [0, 3] and kept.dropped_fixations == 3
    assert [places.tolist() for places in kept.fixations] == [[[0.2, 0.3]], [], [], [[0.5, 0.5]]]
    assert "Dropped 3 fixations" in kept.report() and "2 of 4 frames" in kept.report()


def test_where_nothing_is_dropped_nothing_is_said() -> None:
    assert keep_fixations_inside([np.array([[0.0, 1.0]])]).report() is None


def test_a_set_without_any_fixation_inside_is_an_error() -> None:
    with pytest.raises(FixationError, match=r"No frame of the set has a fixation in 0\.\.1"):
        keep_fixations_inside([np.array([[40.0, 61.0]]), np.zeros((0, 2))])


def test_without_variation_an_item_is_what_the_processor_and_the_maps_give() -> None:
    places = np.array([[0.2, 0.7], [0.21, 0.71]])
    data = frame_set(noise(2), [np.zeros((0, 2)), places])
    item = SaliencyFrames(data, 0, AS_THEY_ARE, GAUSSIAN, STATISTICS)[5, 1]
    pixels = PROCESSOR(data.frames[1], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(item["pixel_values"], pixels, rtol=0, atol=1e-6)
    np.testing.assert_allclose(item["labels"], density_map(places, SIZE, SIZE, GAUSSIAN), atol=1e-7)
    np.testing.assert_array_equal(item["fixation_counts"], fixation_counts(places, SIZE, SIZE))
    assert {value.dtype for value in item.values()} == {torch.float32}


def test_fixations_move_with_what_they_lie_on() -> None:
    """The brightest place of a varied frame is where its map is highest."""
    wild = AugmentationArguments(crop_scale=0.5, rotation_degrees=40, horizontal_flip=0.5)
    place = np.array([0.62, 0.4])
    frame = density_map(place[None], SIZE, SIZE, GAUSSIAN)
    frame = (255 * frame / frame.max()).astype(np.uint8)[..., None].repeat(3, axis=2)
    items = SaliencyFrames(frame_set(frame[None], [place[None]]), 0, wild, GAUSSIAN, STATISTICS)
    highest = []
    for number in range(40):
        item = items[number, 0]
        brightness = item["pixel_values"].sum(0) - item["pixel_values"].sum(0).min()
        grid = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij"))
        centre = (brightness * grid).sum((1, 2)) / brightness.sum()
        of_map = (item["labels"] * grid).sum((1, 2))
        assert (centre - of_map).norm() < 2, number
        highest.append(tuple(of_map.round().tolist()))
    assert len(set(highest)) > 20, "the views do not differ"


def test_a_view_that_lost_all_fixations_is_not_taken() -> None:
    data = frame_set(noise(1), [np.array([[0.0, 0.0]])])
    narrow = AugmentationArguments(crop_scale=0.05, brightness=0.0, gamma=0.0)
    items = SaliencyFrames(data, 0, narrow, GAUSSIAN, STATISTICS)
    plain = SaliencyFrames(data, 0, AS_THEY_ARE, GAUSSIAN, STATISTICS)[0, 0]
    same = [torch.equal(items[number, 0]["pixel_values"], plain["pixel_values"]) for number in range(20)]
    assert any(same)
    assert torch.equal(items[same.index(True), 0]["labels"], plain["labels"])
    for number in range(20):
        assert items[number, 0]["labels"].sum() == pytest.approx(1, abs=1e-5)


def test_the_same_key_gives_the_same_view() -> None:
    data = frame_set(noise(1), [np.array([[0.5, 0.5]])])
    items = SaliencyFrames(data, 3, AugmentationArguments(), GAUSSIAN, STATISTICS)
    assert torch.equal(items[7, 0]["pixel_values"], items[7, 0]["pixel_values"])
    assert not torch.equal(items[7, 0]["pixel_values"], items[8, 0]["pixel_values"])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_predictions_are_those_of_the_processor_and_the_model(batch_size: int) -> None:
    model = DualRepForSaliencyPrediction(tiny_config()).eval()
    data = frame_set(noise(6), [np.zeros((0, 2))] * 6)
    rows = np.array([4, 0, 3, 5, 1])
    maps = predict_maps(model, data, rows, STATISTICS, batch_size)
    pixels = PROCESSOR(list(data.frames[rows]), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixels).saliency_maps
    maps = np.stack(list(maps))
    assert maps.dtype == np.float64 and maps.shape == (5, SIZE, SIZE)
    np.testing.assert_allclose(maps, expected, atol=1e-7)


def test_maps_are_predicted_as_they_are_asked_for() -> None:
    model = DualRepForSaliencyPrediction(tiny_config()).eval()
    batches = []
    model.register_forward_hook(lambda *_: batches.append(1))
    maps = predict_maps(model, frame_set(noise(6), []), np.arange(6), STATISTICS, batch_size=2)
    next(maps)
    assert len(batches) == 1
