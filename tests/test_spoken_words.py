"""Everyday words: none of those said of planes, read by many voices, each word where it is said to be."""

import io
import re
import sys

import numpy as np
import pytest
import soundfile
from datasets import Audio, load_dataset

from datasets_scripts.schema import PLANES, SAMPLING_RATE_HZ
from datasets_scripts.spoken_words import EVERYDAY_WORDS, main, read_aloud
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


def test_every_reader_says_every_word_once_in_an_order_of_their_own(monkeypatch):
    voices = []

    def click(_, voice):
        voices.append(voice)
        return np.ones(400, dtype=np.float32)

    monkeypatch.setattr("datasets_scripts.spoken_words.synthesize", click)
    readings = list(read_aloud(words_count=40, readers=3, voice_group="held_out"))
    assert [sorted(reading.words) for reading in readings] == [list(range(40))] * 3
    assert len({tuple(reading.words) for reading in readings}) == 3
    assert len(set(voices)) == 3 and {voice.variant for voice in voices} <= set(VARIANTS["held_out"])
    for reading in readings:
        assert (reading.start_s[1:] >= reading.end_s[:-1]).all() and (reading.end_s > reading.start_s).all()
        assert reading.end_s[-1] <= len(reading.waveform) / SAMPLING_RATE_HZ


def test_words_are_where_they_are_said_to_be():
    [reading] = read_aloud(words_count=6, readers=1, seed=1)
    assert reading.waveform.dtype == np.float32 and 0.01 < np.abs(reading.waveform).max() <= 1.0
    said = np.zeros(len(reading.waveform), dtype=bool)
    for start_s, end_s in zip(reading.start_s, reading.end_s, strict=True):
        said[round(start_s * SAMPLING_RATE_HZ) : round(end_s * SAMPLING_RATE_HZ)] = True
        assert 0.15 < end_s - start_s < 1.2
    power = reading.waveform.astype(np.float64) ** 2
    assert power[said].mean() > 20 * power[~said].mean()


def test_the_seed_settles_everything_and_readers_do_not_depend_on_their_number():
    [first], [again], [other] = (list(read_aloud(4, 1, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert first.waveform.shape != other.waveform.shape
    np.testing.assert_array_equal(next(read_aloud(4, 2, seed=0)).waveform, first.waveform)


def test_the_word_is_heard_through_voices_and_rooms():
    spectrograms, words = [], []
    for reading in read_aloud(words_count=10, readers=6, seed=3):
        for start_s, word in zip(reading.start_s, reading.words, strict=True):
            samples = reading.waveform[round(start_s * SAMPLING_RATE_HZ) :][: SAMPLING_RATE_HZ // 2]
            spectrograms.append(log_spectrogram(np.pad(samples, (0, SAMPLING_RATE_HZ // 2 - len(samples)))))
            words.append(word)
    nearest_is_same = []
    for index, word in enumerate(words):
        others = [position for position in range(len(words)) if position != index]
        nearest = max(
            others, key=lambda position: best_correlation(spectrograms[index], spectrograms[position])
        )
        nearest_is_same.append(words[nearest] == word)
    assert np.mean(nearest_is_same) > 0.4  # chance: 5 of 59


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"words_count": 0}, "words_count is 0"),
        ({"words_count": len(EVERYDAY_WORDS) + 1}, "words_count is"),
        ({"readers": 0}, "readers is 0"),
        ({"voice_group": "heard"}, "'heard'"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        next(read_aloud(**setting))


def test_the_command_writes_what_load_dataset_reads(tmp_path, monkeypatch):
    options = ["--words-count", "3", "--readers", "2"]
    monkeypatch.setattr(sys, "argv", ["spoken_words", str(tmp_path / "words"), *options])
    main()
    rows = load_dataset(str(tmp_path / "words"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["audio"] == Audio(sampling_rate=SAMPLING_RATE_HZ, decode=False)
    assert rows.features["label"].feature.names == list(EVERYDAY_WORDS[:3])
    assert len(rows) == 2
    expected = next(read_aloud(3, 2, seed=0))
    samples, rate_hz = soundfile.read(io.BytesIO(rows[0]["audio"]["bytes"]), dtype="float32")
    assert (rate_hz, rows[0]["label"]) == (SAMPLING_RATE_HZ, expected.words.tolist())
    assert rows[0]["start_s"] == expected.start_s.tolist() and rows[0]["end_s"] == expected.end_s.tolist()
    np.testing.assert_allclose(samples, expected.waveform, atol=2**-15)
