"""Varying a log-mel: what each part does, and that what is off changes nothing."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.arguments import ArgumentsError, SpeechAugmentationArguments
from train.speech_augmentation import shift_pitch, stretch_time, vary_log_mel


def test_nothing_is_changed_or_drawn_where_all_is_off() -> None:
    features, draw = torch.randn(30, 8), random.Random(0)
    state = draw.getstate()
    assert vary_log_mel(features, SpeechAugmentationArguments(), draw) is features
    assert draw.getstate() == state


@given(st.integers(8, 700), st.integers(0, 99))
def test_the_length_changes_by_the_share_that_is_told_at_most(frames: int, seed: int) -> None:
    varied = vary_log_mel(
        torch.zeros(frames, 8), SpeechAugmentationArguments(stretch=0.25), random.Random(seed)
    )
    assert frames / 1.25 - 1 <= len(varied) <= frames * 1.25 + 1 and varied.shape[1] == 8


def test_slower_speech_has_the_same_course() -> None:
    course = torch.linspace(-1, 1, 100)[:, None].expand(-1, 4)
    slower = stretch_time(course, 1.5)
    assert slower.shape == (150, 4)
    assert torch.allclose(slower[:, 0], torch.linspace(-1, 1, 150), atol=0.02)


def test_pitch_moves_by_whole_bins_and_repeats_the_edge() -> None:
    features = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert shift_pitch(features, 1).tolist() == [[1, 2, 3, 3]]
    assert shift_pitch(features, -2).tolist() == [[0, 0, 0, 1]]
    assert shift_pitch(features, 0).tolist() == features.tolist()


def test_gain_is_one_number_of_decibels() -> None:
    features = torch.randn(20, 8)
    gains = [
        vary_log_mel(features, SpeechAugmentationArguments(gain_db=6.0), random.Random(seed)) - features
        for seed in range(20)
    ]
    assert all((gain - gain[0, 0]).abs().max() < 1e-5 and gain.abs().max() <= 6.001 for gain in gains)
    assert max(gain[0, 0] for gain in gains) > 2 and min(gain[0, 0] for gain in gains) < -2


def test_masks_are_bands_and_spans_of_the_mean_and_leave_the_clip_as_it_was() -> None:
    features = torch.randn(200, 64) + 5
    before = features.clone()
    masked = vary_log_mel(features, SpeechAugmentationArguments(masks=1), random.Random(3))
    assert torch.equal(features, before)
    changed = masked != features
    spans, bands = changed.all(dim=1), changed.all(dim=0)
    assert torch.equal(changed, spans[:, None] | bands[None])
    assert 0 < spans.sum() <= 50 and 0 < bands.sum() <= 8
    assert torch.unique(masked[changed]).tolist() == pytest.approx([features.mean().item()])
    twice = vary_log_mel(features, SpeechAugmentationArguments(masks=1), random.Random(3))
    assert torch.equal(masked, twice)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ArgumentsError, match="masks is -1"):
        SpeechAugmentationArguments(masks=-1)
