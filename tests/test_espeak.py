"""espeak-ng through ctypes: what it says depends on text and voice, and on nothing else."""

import subprocess
import sys
import time

import numpy as np
import pytest

from datasets_scripts.espeak import SAMPLING_RATE_HZ, Voice, synthesize
from datasets_scripts.voices import ACCENTS, VARIANTS, draw_voice

TEXT = "Here is the four chamber view."


def fundamental_hz(samples: np.ndarray) -> float:
    """The lag of the highest autocorrelation between 60 and 400 Hz, as a frequency."""
    spectrum = np.fft.rfft(samples, 2 * len(samples))
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2)
    shortest, longest = SAMPLING_RATE_HZ // 400, SAMPLING_RATE_HZ // 60
    return SAMPLING_RATE_HZ / (shortest + int(np.argmax(autocorrelation[shortest:longest])))


def test_speech_is_float_within_full_scale_and_of_a_plausible_length():
    samples = synthesize(TEXT, Voice())
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert 0.1 < np.abs(samples).max() < 1.0
    assert 1.0 < len(samples) / SAMPLING_RATE_HZ < 3.0


def test_same_text_and_voice_give_the_same_samples_after_others_spoke():
    voice = Voice("en", "m7")
    first = synthesize(TEXT, voice)
    for other in (Voice("en-us", "f2", rate_words_per_minute=140, pitch=70), Voice("en-gb-scotland", "f5")):
        synthesize("The weather is dreadful, isn't it?", other)
        np.testing.assert_array_equal(synthesize(TEXT, voice), first)


def test_the_breath_in_a_voice_does_not_follow_the_clock():
    breathy = Voice("en", "f3")
    first = synthesize(TEXT, breathy)
    time.sleep(1.1)  # left to itself, espeak-ng seeds its noise with the time in seconds
    np.testing.assert_array_equal(synthesize(TEXT, breathy), first)


def test_another_process_gives_the_same_samples():
    code = (
        "import hashlib; from datasets_scripts.espeak import Voice, synthesize\n"
        f"print(hashlib.sha256(synthesize({TEXT!r}, Voice('en-us', 'm2')).tobytes()).hexdigest())"
    )
    hashes = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1


def test_every_accent_and_variant_is_a_voice_of_its_own():
    voices = [Voice(accent=accent) for accent in ACCENTS]
    voices += [Voice(variant=variant) for group in VARIANTS.values() for variant in group if variant]
    assert len({synthesize("Hello there.", voice).tobytes() for voice in voices}) == len(voices)


def test_the_loudest_voices_do_not_clip():
    loudest = (Voice("en-gb-scotland", "m1"), Voice("en-gb-x-gbclan", "m6"), Voice("en-gb-scotland", "f1"))
    for voice in loudest:
        samples = synthesize("Here is the four chamber view of the heart, beating away nicely.", voice)
        assert np.abs(samples).max() < 0.9


def test_rate_sets_the_length():
    slow, fast = (len(synthesize(TEXT, Voice(rate_words_per_minute=rate))) for rate in (120, 240))
    assert 1.6 < slow / fast < 2.4


def test_pitch_and_its_range_are_heard():
    low, high = (fundamental_hz(synthesize("Mmm.", Voice(pitch=pitch, pitch_range=0))) for pitch in (35, 80))
    assert high > 1.3 * low
    monotone, lively = (synthesize(TEXT, Voice(pitch_range=pitch_range)) for pitch_range in (0, 90))
    assert monotone.tobytes() != lively.tobytes()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rate_words_per_minute": 79}, "rate_words_per_minute is 79"),
        ({"rate_words_per_minute": 451}, "rate_words_per_minute is 451"),
        ({"pitch": 101}, "pitch is 101"),
        ({"pitch_range": -1}, "pitch_range is -1"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Voice(**setting)


@pytest.mark.parametrize("voice", [Voice(accent="nonsense"), Voice(variant="nonsense")])
def test_an_unknown_voice_is_refused_and_the_next_one_speaks(voice):
    with pytest.raises(ValueError, match="nonsense"):
        synthesize(TEXT, voice)
    assert len(synthesize(TEXT, Voice())) > 0


@pytest.mark.parametrize("text", ["", " ", "..."])
def test_nothing_to_say_is_refused(text):
    with pytest.raises(ValueError, match="nothing to say"):
        synthesize(text, Voice())


def test_a_missing_espeakng_loader_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match="uv sync --group dev"):
        synthesize(TEXT, Voice())


def test_voices_that_are_not_there_are_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("espeakng_loader.get_data_path", lambda: str(tmp_path))
    with pytest.raises(RuntimeError, match=f"did not start with the voices in {tmp_path}"):
        synthesize(TEXT, Voice())
    monkeypatch.undo()
    assert len(synthesize(TEXT, Voice())) > 0


def test_drawn_voices_keep_to_their_group():
    for group, others in (("seen", VARIANTS["held_out"]), ("held_out", VARIANTS["seen"])):
        rng = np.random.default_rng(0)
        variants = {draw_voice(rng, group).variant for _ in range(200)}
        assert variants == set(VARIANTS[group])
        assert not variants & set(others)
    with pytest.raises(ValueError, match="'heard'"):
        draw_voice(np.random.default_rng(0), "heard")
