"""Faults of a sound are counted as they were planted, however the sound comes in pieces."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_helpers import at_level, silence, speech, white_noise

from datasets_scripts.schema import SAMPLING_RATE_HZ
from datasets_scripts.sound_faults import LEAST_CLIPPED_SAMPLES, SoundFaults, finite

SECOND = SAMPLING_RATE_HZ


def counted(sound: np.ndarray, end_s: float | None = None, pieces: tuple[int, ...] = ()) -> Counter[str]:
    faults = SoundFaults()
    for piece in np.split(sound, pieces):
        faults.hear(piece)
    return faults.counts(len(sound) / SAMPLING_RATE_HZ if end_s is None else end_s)


def noise(seconds: float) -> np.ndarray:
    return at_level(white_noise(seconds), -40)


def test_a_good_sound_has_only_a_length():
    assert counted(np.concatenate([noise(2), at_level(speech(2.5), -25)])) == {"sound_ms": 4500}


def test_nothing_heard_in_a_recording_is_a_silent_track():
    assert counted(silence(0), end_s=5) == {"silent_tracks": 1}
    assert counted(silence(5), end_s=5) == {"silent_tracks": 1, "sound_ms": 5000}
    assert counted(silence(8), end_s=5) == {"silent_tracks": 1, "sound_ms": 8000}


def test_dropped_tracks_are_told_by_where_they_drop():
    sound = np.concatenate(
        [silence(1.5), noise(2), silence(2), noise(1), silence(0.9), noise(1), silence(1.2)]
    )
    assert counted(sound) == {
        "sound_ms": 9600,
        "sound_begins_late_ms": 1500,
        "sound_gaps": 1,
        "sound_gaps_ms": 2000,
        "sound_ends_early_ms": 1200,
    }


def test_sound_that_ends_before_its_recording_ends_early():
    assert counted(noise(3), end_s=7) == {"sound_ms": 3000, "sound_ends_early_ms": 4000}
    assert counted(noise(3), end_s=3.8) == {"sound_ms": 3000}
    late = np.concatenate([noise(3), silence(0.6)])
    assert counted(late, end_s=5)["sound_ends_early_ms"] == 2000


def test_what_comes_after_the_recording_is_no_fault_of_it():
    assert counted(np.concatenate([noise(3), silence(5), noise(1)]), end_s=2.5) == {"sound_ms": 9000}
    assert counted(np.concatenate([noise(3), silence(5), noise(1)]), end_s=5)["sound_ends_early_ms"] == 2000


def test_quieter_than_half_a_step_is_silence_and_a_step_is_not():
    step = np.float32(2**-15)
    assert "sound_gaps" in counted(np.concatenate([noise(1), silence(2) + step / 4, noise(1)]))
    assert "sound_gaps" not in counted(np.concatenate([noise(1), silence(2) + step, noise(1)]))


def test_what_is_no_number_is_counted_and_taken_for_zero():
    sound = noise(4)
    sound[100], sound[200:203], sound[300] = np.nan, np.inf, -np.inf
    assert counted(sound, pieces=(201,)) == {"sound_ms": 4000, "nonfinite_samples": 5}
    sound[SECOND : 3 * SECOND] = np.nan
    assert counted(sound)["sound_gaps_ms"] == 2000
    assert finite(sound[100:301]).tolist() == [
        *np.where(np.isfinite(sound[100:301]), sound[100:301], 0).tolist()
    ]


@pytest.mark.parametrize(("length", "clipped"), [(1, 0), (2, 0), (3, 3), (7, 7)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_three_samples_at_full_scale_are_clipped_and_two_are_a_loud_moment(length, clipped, sign):
    sound = noise(1)
    for start in (0, 5000, len(sound) - length):
        sound[start : start + length] = sign
    assert counted(sound)["clipped_samples"] == 3 * clipped


def test_clipped_speech_is_found_and_loud_speech_is_not():
    talk = speech(4)
    loud = talk / np.abs(talk).max() * 0.98
    assert counted(loud)["clipped_samples"] == 0
    share = counted(np.clip(10 * loud, -1, 1))["clipped_samples"] / len(loud)
    assert share == pytest.approx(np.mean(np.abs(10 * loud) >= 1), rel=0.1)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 7)), max_size=12),
    st.lists(st.integers(0, 40), max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_the_pieces_do_not_matter_to_clipping(parts, cuts):
    """Against a loop over the runs; the zeros are too few for a dropout."""
    sound = np.concatenate([np.zeros(0), *(np.full(length, value) for value, length in parts)]).astype(
        np.float32
    )
    text = "".join("x" if value == 1 else " " for value in sound)
    expected = sum(len(run) for run in text.split() if len(run) >= LEAST_CLIPPED_SAMPLES)
    assert (
        counted(sound, 0.0, tuple(sorted(min(cut, len(sound)) for cut in cuts)))["clipped_samples"]
        == expected
    )


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.4, 0.7, 1.3])), min_size=1, max_size=6),
    st.lists(st.integers(0, 8 * SECOND), max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_the_pieces_do_not_matter_to_dropouts(parts, cuts):
    sound = np.concatenate([(silence if is_silent else noise)(seconds) for is_silent, seconds in parts])
    assert counted(sound, pieces=tuple(sorted(min(cut, len(sound)) for cut in cuts))) == counted(sound)
