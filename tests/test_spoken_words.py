"""Everyday words: none of the simulator's, said by many voices, at a fixed length."""

import io
import re
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile
from datasets import Audio, load_dataset

from datasets_scripts.schema import PLANES, SAMPLING_RATE_HZ
from datasets_scripts.spoken_words import EVERYDAY_WORDS, main, spoken_words
from datasets_scripts.voices import VARIANTS
from datasets_scripts.wordings import plane_wordings


def log_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Log power in 24 bands up to 6 kHz and frames of 20 ms, of zero mean."""
    frames = waveform[: len(waveform) // 640 * 640].reshape(-1, 640) * np.hanning(640)
    power = np.abs(np.fft.rfft(frames)[:, :120]) ** 2
    bands = np.log(power.reshape(len(frames), 24, 5).mean(2) + 1e-4)
    return bands - bands.mean()


def best_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Highest correlation of two spectrograms over all shifts in time."""
    size = 2 * len(first)
    product = np.fft.rfft(first, size, axis=0).conj() * np.fft.rfft(second, size, axis=0)
    correlation = np.fft.irfft(product.sum(1)).max()
    return correlation / np.linalg.norm(first) / np.linalg.norm(second)


def test_there_are_enough_words_and_none_is_said_of_a_plane():
    assert len(EVERYDAY_WORDS) == len({word.lower() for word in EVERYDAY_WORDS}) >= 128
    said = {
        word
        for plane in PLANES
        for text in plane_wordings(plane)
        for word in re.findall(r"[a-z]+", text.lower())
    }
    assert not said & {word.lower() for word in EVERYDAY_WORDS}


def test_every_word_is_said_as_often_in_random_order_at_a_fixed_length():
    utterances = list(
        spoken_words(words_count=5, utterances_per_word=3, seed=0, sampling_rate_hz=16_000, seconds=0.75)
    )
    indices = [index for _, index in utterances]
    assert Counter(indices) == {index: 3 for index in range(5)}
    assert indices != sorted(indices)
    for waveform, _ in utterances:
        assert waveform.shape == (12_000,)
        assert waveform.dtype == np.float32
        assert 0.01 < np.abs(waveform).max() <= 1.0


def test_every_utterance_has_its_own_voice_and_place(monkeypatch):
    voices = []

    def click(_, voice):
        voices.append(voice)
        return np.ones(50, dtype=np.float32)

    monkeypatch.setattr("datasets_scripts.spoken_words.synthesize", click)
    places = [int(np.argmax(np.abs(waveform))) for waveform, _ in spoken_words(2, 10, voice_group="held_out")]
    assert len(set(voices)) == len(voices) == 20
    assert {voice.variant for voice in voices} <= set(VARIANTS["held_out"])
    assert np.ptp(places) > SAMPLING_RATE_HZ // 2


def test_the_seed_settles_everything():
    first, again, other = (next(iter(spoken_words(8, 2, seed=seed)))[0] for seed in (0, 0, 1))
    assert first.shape == (SAMPLING_RATE_HZ,)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_word_is_heard_through_voices_rooms_and_places():
    utterances = list(spoken_words(words_count=10, utterances_per_word=6, seed=3))
    spectrograms = [log_spectrogram(waveform) for waveform, _ in utterances]
    nearest_is_same = []
    for index, (_, word) in enumerate(utterances):
        others = [position for position in range(len(utterances)) if position != index]
        nearest = max(
            others, key=lambda position: best_correlation(spectrograms[index], spectrograms[position])
        )
        nearest_is_same.append(utterances[nearest][1] == word)
    assert np.mean(nearest_is_same) > 0.5  # chance: 5 of 59


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"words_count": 0}, "words_count is 0"),
        ({"words_count": len(EVERYDAY_WORDS) + 1}, "words_count is"),
        ({"utterances_per_word": 0}, "utterances_per_word is 0"),
        ({"seconds": 0.0}, "seconds is 0"),
        ({"voice_group": "heard"}, "'heard'"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        next(spoken_words(**setting))


def test_the_command_writes_what_load_dataset_reads(tmp_path, monkeypatch):
    options = ["--words-count", "3", "--utterances-per-word", "2"]
    monkeypatch.setattr(sys, "argv", ["spoken_words", str(tmp_path / "words"), *options])
    main()
    rows = load_dataset(str(tmp_path / "words"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["audio"] == Audio(sampling_rate=SAMPLING_RATE_HZ, decode=False)
    assert rows.features["label"].names == list(EVERYDAY_WORDS[:3])
    assert len(rows) == 6
    expected, label = next(spoken_words(3, 2, seed=0))
    samples, rate_hz = soundfile.read(io.BytesIO(rows[0]["audio"]["bytes"]), dtype="float32")
    assert (rate_hz, rows[0]["label"]) == (SAMPLING_RATE_HZ, label)
    np.testing.assert_allclose(samples, expected, atol=2**-15)
