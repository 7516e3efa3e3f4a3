"""The log-mel spectrogram equals its definition, whatever the rate, channels and length of a waveform."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_dualrep import feature_extraction_dualrep
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor

RATE = 32000
HOP = 320


def slaney_mel(frequency_hz: np.ndarray) -> np.ndarray:
    """Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, then 27 steps to a factor of 6.4."""
    linear = np.asarray(frequency_hz) * 3 / 200
    return np.where(linear < 15, linear, 15 + 27 * np.log(np.maximum(frequency_hz, 1) / 1000) / np.log(6.4))


def slaney_frequency_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def reference_log_mel(waveform: np.ndarray) -> np.ndarray:
    """The definition in float64, in numpy alone: (time, 64) in dB."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    padded = np.pad(waveform.astype(np.float64), 512, mode="reflect")
    starts = np.arange(0, len(padded) - 1023, HOP)
    power = np.abs(np.fft.rfft(np.stack([padded[start : start + 1024] * window for start in starts]))) ** 2
    edges = slaney_frequency_hz(np.linspace(*slaney_mel(np.array([50.0, 14000.0])), 66))
    frequency = np.arange(513) * RATE / 1024
    filters = np.zeros((513, 64))
    for mel_bin, (low, centre, high) in enumerate(zip(edges[:-2], edges[1:-1], edges[2:], strict=True)):
        rising, falling = (frequency - low) / (centre - low), (high - frequency) / (high - centre)
        filters[:, mel_bin] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return 10 * np.log10(np.maximum(power @ filters, 1e-10))


def tone(frequency_hz: float, rate_hz: int, seconds: float = 0.5, amplitude: float = 0.5) -> np.ndarray:
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def noise(samples: int = RATE // 4, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def log_mel(waveform: object, sampling_rate: int = RATE, **options: object) -> np.ndarray:
    """Features of one waveform, (time, 64)."""
    options = {"sampling_rate": sampling_rate, "return_tensors": "np", **options}
    return DualRepFeatureExtractor()(waveform, **options)["input_features"][0]


SIGNALS = {
    "noise": noise(RATE),
    "odd_length": noise(12345),
    "tone": tone(1000, RATE),
    "lowest_bin": tone(62.5, RATE),
    "weak_beside_strong": tone(500, RATE) + tone(6000, RATE, amplitude=0.5 * 10 ** (-70 / 20)),
    "chirp": np.sin(2 * np.pi * np.linspace(50, 7000, RATE) * np.arange(RATE) / RATE).astype(np.float32),
    "faint": 1e-4 * noise(RATE),
}


@pytest.mark.parametrize("signal", SIGNALS)
def test_log_mel_equals_its_definition_in_float64(signal):
    expected = reference_log_mel(SIGNALS[signal])
    features = log_mel(SIGNALS[signal])
    assert features.shape == expected.shape == (len(SIGNALS[signal]) // HOP + 1, 64)
    assert features.dtype == np.float32
    audible = expected > expected.max() - 80
    # 1e-3 dB is promised; a float32 transform reaches that for most signals, but not for all.
    assert np.abs(features - expected)[audible].max() < 1e-4
    assert features.min() >= -100


def test_log_mel_of_a_real_voice_equals_its_definition(media):
    av = pytest.importorskip("av")
    recording = sorted((media / "ultrasound_with_speech").rglob("*.mp4"))[0]
    with av.open(str(recording)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    waveform = np.concatenate([frame.to_ndarray()[0] for frame in frames])[: 6 * RATE]
    expected = reference_log_mel(waveform)
    audible = expected > expected.max() - 80
    assert np.abs(log_mel(waveform) - expected)[audible].max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(rate_hz=st.sampled_from([16000, 22050, 44100, 48000]), share_of_rate=st.floats(0.01, 0.33))
def test_resampling_keeps_pitch_and_level_of_a_tone(rate_hz, share_of_rate):
    frequency_hz = min(share_of_rate * rate_hz, 10000)
    resampled, direct = log_mel(tone(frequency_hz, rate_hz), rate_hz), log_mel(tone(frequency_hz, RATE))
    assert resampled.shape == direct.shape
    # Away from the ends, where the resampling filter reaches beyond the waveform.
    resampled, direct = resampled[10:-10], direct[10:-10]
    assert np.array_equal(resampled.argmax(axis=1), direct.argmax(axis=1))
    assert np.abs(resampled.max(axis=1) - direct.max(axis=1)).max() < 0.1


@given(time_s=st.floats(0.05, 0.4))
@settings(max_examples=20, deadline=None)
def test_a_click_lands_in_the_frame_of_its_time(time_s):
    waveform = np.zeros(RATE // 2, dtype=np.float32)
    waveform[round(time_s * RATE)] = 1
    assert abs(log_mel(waveform).sum(axis=1).argmax() - time_s * RATE / HOP) <= 0.51


def test_channels_are_averaged_in_either_layout():
    left, right = noise(seed=1), noise(seed=2)
    mixed = log_mel((left + right) / 2)
    np.testing.assert_allclose(log_mel(np.stack([left, right])), mixed, atol=1e-3)
    assert np.array_equal(log_mel(np.stack([left, right])), log_mel(np.stack([left, right], axis=1)))
    assert np.array_equal(log_mel(np.stack([left] * 6)), log_mel(left))


def test_kinds_of_waveforms_are_equal():
    waveform = (noise(2000) * 32768).round().astype(np.int16)
    as_floats = waveform.astype(np.float32) / 32768
    kinds = [
        waveform,
        waveform.astype(np.int32) * 65536,
        torch.from_numpy(waveform),
        torch.from_numpy(as_floats),
    ]
    kinds += [as_floats.tolist(), [as_floats], [as_floats.tolist()], as_floats[None], as_floats[None, None]]
    for kind in kinds:
        assert np.array_equal(log_mel(kind), log_mel(as_floats))


def test_a_row_does_not_depend_on_its_batch():
    waveforms = [noise(seed=seed) for seed in range(3)]
    batch = DualRepFeatureExtractor()(waveforms, sampling_rate=RATE, return_tensors="pt")
    assert batch["audio_mask"].tolist() == [True, True, True]
    for row, waveform in zip(batch["input_features"], waveforms, strict=True):
        assert np.array_equal(row, log_mel(waveform))


def test_a_clip_without_sound_is_masked_and_zero():
    silent = np.zeros(5000, dtype=np.float32)
    batch = DualRepFeatureExtractor()([None, noise(), silent], sampling_rate=RATE, return_tensors="pt")
    assert batch["audio_mask"].dtype == torch.bool
    assert batch["audio_mask"].tolist() == [False, True, False]
    assert batch["input_features"].shape == (3, 26, 64)
    assert not batch["input_features"][[0, 2]].any()
    assert np.array_equal(batch["input_features"][1], log_mel(noise()))


def test_a_faint_sound_is_sound_and_an_offset_is_none():
    clips = [1e-4 * noise(), np.full(8000, 0.3, dtype=np.float32)]
    batch = DualRepFeatureExtractor()(clips, sampling_rate=RATE, return_tensors="np")
    assert batch["audio_mask"].tolist() == [True, False]
    assert batch["input_features"][0].all()
    assert not batch["input_features"][1].any()


@pytest.mark.parametrize(
    ("options", "frames"),
    [({}, 101), ({"padding": "max_length", "max_length": 6 * RATE}, 601), ({"max_length": 6400}, 21)],
)
def test_a_batch_without_any_sound_has_a_length(options, frames):
    batch = DualRepFeatureExtractor()([None, None], return_tensors="pt", **options)
    assert batch["input_features"].shape == (2, frames, 64)
    assert not batch["audio_mask"].any()


def test_shorter_waveforms_end_in_silence():
    short, long = noise(10 * HOP), noise(40 * HOP)
    batch = DualRepFeatureExtractor()([short, long], sampling_rate=RATE, return_tensors="np")[
        "input_features"
    ]
    assert batch.shape == (2, 41, 64)
    assert np.array_equal(batch[0], log_mel(np.pad(short, (0, 30 * HOP))))
    assert (batch[0, 12:] == -100).all()
    on_the_left = DualRepFeatureExtractor(padding_side="left")
    batch = on_the_left([short, long], sampling_rate=RATE, return_tensors="np")["input_features"]
    assert np.array_equal(batch[0], log_mel(np.pad(short, (30 * HOP, 0))))


def test_pad_appends_the_features_of_silence():
    features = DualRepFeatureExtractor()(noise(10 * HOP), sampling_rate=RATE)
    padded = DualRepFeatureExtractor().pad(features, padding="max_length", max_length=20)["input_features"]
    assert padded.shape == (1, 20, 64)
    assert (padded[0, 11:] == -100).all()


def test_lengths_follow_the_options():
    waveforms = [noise(10 * HOP), noise(40 * HOP)]
    extractor = DualRepFeatureExtractor()

    def lengths(**options):
        return [len(row) for row in extractor(waveforms, sampling_rate=RATE, **options)["input_features"]]

    assert lengths() == [41, 41]
    assert lengths(padding=False) == [11, 41]
    assert lengths(padding="max_length", max_length=50 * HOP) == [51, 51]
    assert lengths(padding="max_length", max_length=20 * HOP, truncation=True) == [21, 21]
    with pytest.raises(ValueError, match="differ in length"):
        lengths(padding=False, return_tensors="pt")
    with pytest.raises(ValueError, match="needs max_length"):
        lengths(truncation=True)


def test_a_waveform_shorter_than_a_frame_is_padded_to_one():
    assert np.array_equal(log_mel(np.ones(3)), log_mel(np.pad(np.ones(3), (0, 1021))))


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        ([noise(), np.zeros(0)], "Waveform 1 of audio is empty"),
        ([noise(), np.array([0.1, np.nan, 0.1])], "Waveform 1 of audio has samples that are not finite"),
        ([np.array([0.1, np.inf])], "Waveform 0 of audio has samples that are not finite"),
        (np.arange(10, dtype=np.uint8), "type uint8"),
        (np.zeros((1, 1, 1, 5)), "shape"),
        ("speech.wav", "type <U"),
        ([], "empty list"),
    ],
)
def test_bad_waveforms_are_refused(waveforms, message):
    with pytest.raises(ValueError, match=message):
        DualRepFeatureExtractor()(waveforms, sampling_rate=RATE)


@pytest.mark.parametrize("sampling_rate", [None, 0, -1, 44100.5])
def test_the_sampling_rate_is_asked_for(sampling_rate):
    with pytest.raises(ValueError, match="pass sampling_rate together with audio"):
        DualRepFeatureExtractor()(noise(), sampling_rate=sampling_rate)


def test_without_torchaudio_only_32_khz_is_taken(monkeypatch):
    expected = log_mel(noise())
    monkeypatch.setattr(feature_extraction_dualrep, "torchaudio", None)
    assert np.array_equal(log_mel(noise()), expected)
    with pytest.raises(ValueError, match=r"44100 Hz.*install the torchaudio"):
        log_mel(noise(), 44100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hop_lenght": 160}, "no field 'hop_lenght'"),
        ({"max_frequency_hz": 20000}, "half the sampling_rate"),
        ({"min_frequency_hz": 15000}, "min_frequency_hz is 15000"),
        ({"padding_side": "middle"}, "padding_side is 'middle'"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DualRepFeatureExtractor(**fields)


def test_saved_and_loaded_alike(tmp_path):
    extractor = DualRepFeatureExtractor(feature_size=32, hop_length=160)
    extractor.not_a_field = 1
    extractor.save_pretrained(tmp_path)
    loaded = DualRepFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    assert "not_a_field" not in loaded.to_dict()
    features = [part(noise(), sampling_rate=16000)["input_features"][0] for part in (extractor, loaded)]
    assert features[0].shape[1] == 32
    assert np.array_equal(*features)


def test_a_misspelt_field_in_a_saved_file_is_refused(tmp_path):
    DualRepFeatureExtractor().save_pretrained(tmp_path)
    saved = tmp_path / "preprocessor_config.json"
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"hop_lenght": 160}))
    with pytest.raises(ValueError, match="no field 'hop_lenght'"):
        DualRepFeatureExtractor.from_pretrained(tmp_path)
