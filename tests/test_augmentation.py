"""Varied frames: sizes, repeatability, and what must not happen to ultrasound."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional
from transformers.image_utils import SizeDict

from modeling_dualrep.image_processing_dualrep import pad_to_shape_of
from train.arguments import ArgumentsError, AugmentationArguments
from train.augmentation import Shadow, augment_frames, draw_view

NOTHING = AugmentationArguments(crop_scale=1.0, brightness=0.0, gamma=0.0)
EVERYTHING = AugmentationArguments(horizontal_flip=0.5, rotation_degrees=30, speckle=0.1, shadow=1.0)


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


@given(st.integers(1, 9), st.integers(0, 50))
def test_each_frame_of_a_clip_comes_out_as_it_would_alone(count: int, seed: int) -> None:
    clip = torch.randint(0, 256, (count, 1, 24, 20), generator=torch.Generator().manual_seed(seed)).byte()
    together = augment_frames(clip, 16, AugmentationArguments(), random.Random(seed))
    alone = [
        augment_frames(clip[i : i + 1], 16, AugmentationArguments(), random.Random(seed))
        for i in range(count)
    ]
    assert torch.equal(together, torch.cat(alone))


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


def padded_cropped_and_toned(
    pixels: torch.Tensor, size: int, arguments: AugmentationArguments, draw: random.Random
) -> torch.Tensor:
    """What pretraining's views are, draw after draw."""
    pixels = pad_to_shape_of(pixels, SizeDict(height=size, width=size))
    height, width = pixels.shape[-2:]
    side = draw.uniform(arguments.crop_scale, 1.0) ** 0.5
    crop_height, crop_width = max(1, round(height * side)), max(1, round(width * side))
    top, left = draw.randint(0, height - crop_height), draw.randint(0, width - crop_width)
    view = functional.resized_crop(pixels, top, left, crop_height, crop_width, [size, size], antialias=True)
    if draw.random() < arguments.horizontal_flip:
        view = functional.horizontal_flip(view)
    gain = draw.uniform(1 - arguments.brightness, 1 + arguments.brightness)
    gamma = (1 + arguments.gamma) ** draw.uniform(-1, 1)
    tones = (gain * torch.linspace(0, 1, 256) ** gamma).clamp(0, 1).mul(255).round().to(torch.uint8)
    return tones[view.long()]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 32), st.floats(0.1, 1), st.integers(0, 2**32))
def test_what_is_off_changes_neither_the_view_nor_what_is_drawn_next(
    height: int, width: int, size: int, crop_scale: float, seed: int
) -> None:
    arguments = AugmentationArguments(crop_scale=crop_scale, horizontal_flip=0.5)
    one, other = random.Random(seed), random.Random(seed)
    pixels = frames(2, height, width)
    expected = padded_cropped_and_toned(pixels, size, arguments, one)
    assert torch.equal(augment_frames(pixels, size, arguments, other), expected)
    assert one.getstate() == other.getstate()


@given(
    st.sampled_from([(96, 96, 96), (96, 128, 64), (81, 60, 100), (64, 64, 160)]),
    st.floats(0.3, 0.7),
    st.floats(0.3, 0.7),
    st.integers(0, 2**32),
)
def test_points_move_with_what_they_mark(sizes: tuple[int, int, int], x: float, y: float, seed: int) -> None:
    height, width, size = sizes
    column, row = int(x * width), int(y * height)
    dot = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    dot[..., row - 1 : row + 2, column - 1 : column + 2] = 220
    view = draw_view(height, width, size, EVERYTHING, random.Random(seed))
    bright = view.apply(dot)[0, 0].double()
    ((moved_x, moved_y),) = (
        view.move_points(np.array([[(column + 0.5) / width, (row + 0.5) / height]])) * size
    )
    if not (4 < moved_x < size - 4 and 4 < moved_y < size - 4):
        return
    places = torch.arange(size) + 0.5
    centre_x = (bright.sum(dim=0) * places).sum() / bright.sum()
    centre_y = (bright.sum(dim=1) * places).sum() / bright.sum()
    pixel = max(1, size / max(height, width))
    assert abs(centre_x - moved_x) < pixel and abs(centre_y - moved_y) < pixel


def test_points_keep_their_places_where_nothing_is_varied_and_follow_the_padding() -> None:
    points = np.random.default_rng(0).random((5, 2))
    assert draw_view(24, 24, 16, NOTHING, random.Random(0)).move_points(points) == pytest.approx(points)
    padded = draw_view(20, 40, 16, NOTHING, random.Random(0)).move_points([[0, 0], [1, 1]])
    assert padded == pytest.approx(np.array([[0, 0.25], [1, 0.75]]))
    assert draw_view(24, 24, 16, NOTHING, random.Random(0)).move_points(np.empty((0, 2))).shape == (0, 2)


def test_points_that_the_view_leaves_out_lie_outside() -> None:
    view = replace(
        draw_view(40, 40, 20, NOTHING, random.Random(0)),
        crop_left=20,
        crop_top=10,
        crop_width=20,
        crop_height=20,
    )
    moved = view.move_points([[0.25, 0.5], [0.75, 0.5], [0.75, 0.1], [0.75, 0.9]])
    assert moved == pytest.approx(np.array([[-0.5, 0.5], [0.5, 0.5], [0.5, -0.3], [0.5, 1.3]]))


def test_frames_are_turned_both_ways_by_no_more_than_told() -> None:
    angles = [draw_view(24, 24, 24, EVERYTHING, random.Random(seed)).rotation_degrees for seed in range(100)]
    assert -30 <= min(angles) < -25 and 25 < max(angles) <= 30


def test_up_stays_up_with_everything_on() -> None:
    upright = torch.linspace(20, 235, 48).byte()[:, None].expand(1, 1, 48, 48)
    brighter_below = replace(EVERYTHING, shadow=0.0)
    for seed in range(40):
        middle = augment_frames(upright, 48, brighter_below, random.Random(seed))[0, 0, 8:-8, 16:32].float()
        assert middle[-8:].mean() > middle[:8].mean()


def test_the_whole_clip_is_seen_alike_each_time_and_black_stays_black() -> None:
    clip = frames(1, 32, 32).expand(3, -1, -1, -1)
    view = draw_view(32, 32, 32, EVERYTHING, random.Random(3))
    seen = view.apply(clip)
    assert (seen == seen[:1]).all() and torch.equal(view.apply(clip), seen)
    assert not view.apply(torch.zeros_like(clip)).any()


def test_speckle_multiplies_by_noise_of_the_strength_drawn() -> None:
    arguments = replace(NOTHING, speckle=0.3)
    strengths = []
    for seed in range(50):
        view = draw_view(64, 64, 64, arguments, random.Random(seed))
        strengths.append(view.speckle)
        dark, bright = (
            view.apply(torch.full((1, 1, 64, 64), grey).byte())[0, 0].float() for grey in (40, 80)
        )
        assert bright.mean() / 80 == pytest.approx(1, abs=0.02)
        assert bright.std() / 80 == pytest.approx(view.speckle, rel=0.1, abs=0.005)
        assert (bright - 2 * dark).abs().max() <= 1.5
    assert min(strengths) < 0.05 and 0.25 < max(strengths) <= 0.3
    other = replace(view, speckle_seed=view.speckle_seed + 1)
    assert not torch.equal(other.apply(frames(1, 64, 64)), view.apply(frames(1, 64, 64)))


def test_a_shadow_widens_from_the_probe_downwards_with_soft_edges() -> None:
    for seed in range(30):
        view = draw_view(100, 100, 100, replace(NOTHING, shadow=1.0), random.Random(seed))
        view = replace(view, shadow=replace(view.shadow, angle=view.shadow.angle / 3))
        seen = view.apply(torch.full((1, 1, 100, 100), 200).byte())[0, 0].float() / 200
        begins = round(100 * view.shadow.depth)
        assert (seen[:begins] == 1).all() and seen.max() == 1
        assert seen.min() == pytest.approx(view.shadow.light, abs=0.01)
        halfway = (1 + view.shadow.light) / 2
        widths = (seen < halfway).sum(dim=1)[begins + 8 :]
        assert widths[-1] > widths[0] > 0 and (widths.diff() >= -1).all()
        assert len(seen[-1].unique()) > 2


def test_a_slanting_shadow_points_at_the_probe() -> None:
    right = Shadow(angle=0.4, half_width=0.1, depth=0.0, light=0.2).factors(100, 100)
    places = torch.arange(100.0)
    upper, lower = (((1 - row) * places).sum() / (1 - row).sum() for row in (right[20], right[80]))
    assert lower > upper > 50


def test_shadows_are_as_likely_as_told() -> None:
    def share(probability: float) -> float:
        arguments = replace(NOTHING, shadow=probability)
        drawn = [draw_view(8, 8, 8, arguments, random.Random(seed)).shadow for seed in range(400)]
        return sum(shadow is not None for shadow in drawn) / len(drawn)

    assert share(0) == 0 and share(1) == 1 and share(0.3) == pytest.approx(0.3, abs=0.06)


def test_shadows_fall_on_either_side() -> None:
    drawn = [draw_view(8, 8, 8, EVERYTHING, random.Random(seed)).shadow.angle for seed in range(50)]
    assert min(drawn) < -0.3 and max(drawn) > 0.3


@pytest.mark.parametrize(
    ("field", "value"), [("rotation_degrees", -1), ("rotation_degrees", 90), ("speckle", 2), ("shadow", 1.5)]
)
def test_what_is_no_augmentation_is_refused(field: str, value: float) -> None:
    with pytest.raises(ArgumentsError, match=f"^{field} is {value}, but must be between"):
        AugmentationArguments(**{field: value})
