"""Varied frames: sizes, repeatability, and what must not happen to ultrasound."""

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.arguments import AugmentationArguments
from train.augmentation import augment_frames

NOTHING = AugmentationArguments(crop_scale=1.0, brightness=0.0, gamma=0.0)


def frames(count: int = 3, height: int = 24, width: int = 24, channels: int = 1) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, channels, height, width), generator=torch.Generator().manual_seed(0)
    ).byte()


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers())
def test_the_result_has_the_size_asked_for(height: int, width: int, channels: int, seed: int) -> None:
    view = augment_frames(
        frames(2, height, width, channels), 16, AugmentationArguments(), random.Random(seed)
    )
    assert view.shape == (2, channels, 16, 16) and view.dtype == torch.uint8


def test_without_variation_frames_stay_as_they_are() -> None:
    assert torch.equal(augment_frames(frames(), 24, NOTHING, random.Random(0)), frames())


def test_the_same_chance_gives_the_same_view_and_another_one_another() -> None:
    first, again, other = (
        augment_frames(frames(), 16, AugmentationArguments(), random.Random(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_all_frames_of_a_clip_get_the_same_view() -> None:
    still = frames(1).expand(5, -1, -1, -1)
    view = augment_frames(still, 16, AugmentationArguments(), random.Random(0))
    assert (view == view[:1]).all()


def test_anatomy_is_padded_not_stretched() -> None:
    wide = torch.full((1, 1, 10, 20), 200, dtype=torch.uint8)
    view = augment_frames(wide, 20, NOTHING, random.Random(0))[0, 0]
    assert (view[:5] == 0).all() and (view[5:15] == 200).all() and (view[15:] == 0).all()


def test_up_stays_up_and_flips_are_as_likely_as_told() -> None:
    gradient = torch.arange(24, dtype=torch.uint8).mul(10)
    upright = gradient[:, None].expand(24, 24)[None, None]
    sideways = gradient.expand(24, 24)[None, None]
    always = AugmentationArguments(horizontal_flip=1.0, brightness=0.0, gamma=0.0)
    for seed in range(20):
        view = augment_frames(upright, 24, always, random.Random(seed))[0, 0].float()
        assert view[-4:].mean() > view[:4].mean()
        mirrored = augment_frames(sideways, 24, always, random.Random(seed))[0, 0].float()
        assert mirrored[:, -4:].mean() < mirrored[:, :4].mean()
        kept = augment_frames(sideways, 24, AugmentationArguments(), random.Random(seed))[0, 0].float()
        assert kept[:, -4:].mean() > kept[:, :4].mean()


def test_grey_values_keep_their_order_and_black_stays_black() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    strong = AugmentationArguments(crop_scale=1.0, brightness=0.5, gamma=1.0)
    for seed in range(20):
        varied = augment_frames(ramp, 16, strong, random.Random(seed)).flatten().int()
        assert varied[0] == 0 and (varied.diff() >= 0).all()


def test_a_crop_keeps_at_least_the_share_asked_for() -> None:
    position = torch.arange(100, dtype=torch.uint8).expand(1, 1, 100, 100)
    cropping = AugmentationArguments(crop_scale=0.25, brightness=0.0, gamma=0.0)
    spans = []
    for seed in range(50):
        view = augment_frames(position, 100, cropping, random.Random(seed)).int()
        spans.append((view.max() - view.min()).item() + 1)
    assert min(spans) >= 48 and min(spans) < 65 and max(spans) > 90
