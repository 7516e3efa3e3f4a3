"""Labelled frames in training and in testing: pixels, order, balance, and independence of workers."""

import numpy as np
import pytest
import torch
from frame_set_helpers import FRAME_SIZE, TINY_CONFIG, frame_set, picture
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modeling_dualrep import (
    DualRepConfig,
    DualRepForImageClassification,
    DualRepForVideoClassification,
    DualRepImageProcessor,
    DualRepVideoProcessor,
)
from train.arguments import AugmentationArguments
from train.frame_sets import FrameSet
from train.pixels import PixelStatistics
from train.plane_frames import PlaneFrames, class_weights, evenly_spaced, predict
from train.row_order import RowOrder

NOTHING = AugmentationArguments(crop_scale=1.0, brightness=0.0, gamma=0.0)
STRONG = AugmentationArguments(rotation_degrees=10, speckle=0.2, shadow=0.5, horizontal_flip=0.5)
SIZE = {"height": FRAME_SIZE, "width": FRAME_SIZE}
PROCESSOR = DualRepImageProcessor(size=SIZE)
STATISTICS = PixelStatistics(PROCESSOR.image_mean, PROCESSOR.image_std)


def clip_set(clips: int = 4, stored: int = 7) -> FrameSet:
    pixels = np.stack(
        [[picture(clip % 3, 10 * clip + frame) for frame in range(stored)] for clip in range(clips)]
    )
    labels = [clip % 3 for clip in range(clips)]
    return frame_set(labels, [f"s{clip}" for clip in range(clips)], frames=pixels)


def test_without_variation_a_frame_is_what_is_stored() -> None:
    labelled = frame_set([0, 1, 2], ["a", "b", "c"])
    pixels, label = PlaneFrames(labelled, 0, NOTHING)[5, 1]
    assert label == 1 and torch.equal(pixels, torch.from_numpy(labelled.frames[1]).permute(2, 0, 1))


def test_variation_follows_seed_draw_and_row_alone() -> None:
    labelled = frame_set([0, 0, 0], ["a", "b", "c"])
    first, again = PlaneFrames(labelled, 0, STRONG), PlaneFrames(labelled, 0, STRONG)
    _ = first[1, 0], first[2, 1]
    assert torch.equal(first[7, 2][0], again[7, 2][0])
    assert not torch.equal(first[8, 2][0], again[7, 2][0])
    assert not torch.equal(PlaneFrames(labelled, 1, STRONG)[7, 2][0], again[7, 2][0])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    labelled = frame_set([0, 1, 2] * 4, [f"s{row}" for row in range(12)])

    def epoch(workers: int) -> list[torch.Tensor]:
        frames = PlaneFrames(labelled, 0, STRONG)
        order = RowOrder(np.arange(12), seed=0)
        return [pixels for pixels, _ in DataLoader(frames, 4, sampler=order, num_workers=workers)]

    for one, other in zip(epoch(0), epoch(workers), strict=True):
        assert torch.equal(one, other)


def test_clips_give_evenly_spaced_frames_from_a_start_that_varies() -> None:
    clips = clip_set()
    stored = torch.from_numpy(clips.frames[1]).permute(0, 3, 1, 2)
    seen = set()
    for draw in range(20):
        pixels, label = PlaneFrames(clips, 0, NOTHING, num_frames=3)[draw, 1]
        assert label == 1 and pixels.shape == (3, 3, FRAME_SIZE, FRAME_SIZE)
        seen.add(tuple(int((frame == stored).flatten(1).all(1).nonzero()) for frame in pixels))
    assert seen == {(0, 2, 4), (1, 3, 5)}
    few, _ = PlaneFrames(clip_set(stored=2), 0, NOTHING, num_frames=3)[0, 0]
    assert torch.equal(few[0], few[1]) and not torch.equal(few[1], few[2])


@given(st.integers(1, 40), st.integers(1, 20))
def test_frames_are_taken_as_the_video_processor_takes_them(stored: int, wanted: int) -> None:
    clip = np.broadcast_to(np.arange(stored, dtype=np.uint8)[:, None, None, None], (stored, 4, 4, 3))
    processor = DualRepVideoProcessor(
        num_frames=wanted, do_resize=False, do_rescale=False, do_normalize=False
    )
    taken = processor([clip], return_tensors="pt")["pixel_values_videos"][0, :, 0, 0, 0]
    assert evenly_spaced(stored, wanted).tolist() == taken.tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_class_weights_are_inverse_frequencies_of_mean_one(labels: list[int]) -> None:
    weights = class_weights(np.array(labels), 6)
    counts = np.bincount(labels, minlength=6)
    assert (weights[counts == 0] == 0).all()
    totals = (weights * counts)[counts > 0]
    np.testing.assert_allclose(totals, totals[0])
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_predictions_are_the_model_s_on_the_processor_s_pixels(batch_size: int) -> None:
    labelled = frame_set([0, 1, 2, 0, 1], list("abcde"))
    torch.manual_seed(0)
    model = DualRepForImageClassification(DualRepConfig(**TINY_CONFIG, num_labels=3)).eval()
    rows = np.array([4, 0, 3, 1])
    probabilities = predict(model, labelled, rows, STATISTICS, batch_size)
    with torch.no_grad():
        logits = model(**PROCESSOR([labelled.frames[row] for row in rows], return_tensors="pt")).logits
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-6)
    assert probabilities.dtype == np.float32


def test_predictions_of_clips_are_those_of_the_video_processor_s_frames() -> None:
    clips = clip_set()
    torch.manual_seed(0)
    model = DualRepForVideoClassification(DualRepConfig(**TINY_CONFIG, num_labels=3)).eval()
    processor = DualRepVideoProcessor(size=SIZE, num_frames=3)
    probabilities = predict(model, clips, np.array([2, 1]), STATISTICS, 2, num_frames=3)
    with torch.no_grad():
        inputs = processor([clips.frames[2], clips.frames[1]], return_tensors="pt")
        expected = model(**inputs).logits.softmax(1)
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-6)
