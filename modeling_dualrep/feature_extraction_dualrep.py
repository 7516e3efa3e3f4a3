"""Waveforms to log-mel spectrograms as PANNs computes them (Kong et al., 2020, arXiv:1912.10211)."""

from collections.abc import Sequence
from functools import lru_cache
from numbers import Number
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.utils import PaddingStrategy, TensorType

try:
    import torchaudio
except (ImportError, OSError, RuntimeError):  # absent, or built against another torch
    torchaudio = None

POWER_FLOOR = 1e-10
SILENCE_DB = -100.0  # 10 * log10(POWER_FLOOR)

FIELDS = frozenset(
    {
        "feature_size",
        "hop_length",
        "max_frequency_hz",
        "min_frequency_hz",
        "n_fft",
        "padding_side",
        "padding_value",
        "return_attention_mask",
        "sampling_rate",
    }
)
# What transformers writes into a saved file beside the fields, and passes back when it loads the file.
SAVED_BESIDE_FIELDS = frozenset({"auto_map", "feature_extractor_type", "processor_class"})

Waveform = np.ndarray | torch.Tensor | Sequence[float] | Sequence[Sequence[float]]


class DualRepFeatureExtractor(SequenceFeatureExtractor):
    """Turns waveforms of any rate and channel count into log-mel spectrograms in dB.

    The channels are averaged and the waveform is resampled to `sampling_rate` (torchaudio). The power of its
    short-time Fourier transform (periodic Hann window, centred frames, reflected ends) is summed by Slaney's
    mel filters of unit area and becomes `10 * log10(max(power, 1e-10))`, with no limit below the peak.

    Args:
        feature_size: mel bins.
        sampling_rate: rate in Hz that every waveform is resampled to.
        n_fft: samples of a frame.
        hop_length: samples from one frame to the next.
        min_frequency_hz, max_frequency_hz: where the first mel filter begins and the last one ends.
        padding_value: features of silence in dB, which `pad` appends.
        padding_side: "right" or "left", where shorter waveforms (and, by `pad`, shorter features) are padded.
        return_attention_mask: whether `pad` returns an attention mask by default.

    Raises:
        ValueError: for a field it does not know, or a value that makes no sense.
    """

    model_input_names: ClassVar[list[str]] = ["input_features", "audio_mask"]
    _auto_class = "AutoFeatureExtractor"

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 32000,
        n_fft: int = 1024,
        hop_length: int = 320,
        min_frequency_hz: float = 50.0,
        max_frequency_hz: float = 14000.0,
        padding_value: float = SILENCE_DB,
        padding_side: str = "right",
        return_attention_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        unknown = sorted(set(kwargs) - SAVED_BESIDE_FIELDS)
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no field {', '.join(map(repr, unknown))}. "
                f"Its fields are: {', '.join(sorted(FIELDS))}."
            )
        if not 0 <= min_frequency_hz < max_frequency_hz <= sampling_rate / 2:
            raise ValueError(
                f"min_frequency_hz is {min_frequency_hz} and max_frequency_hz {max_frequency_hz}, but they "
                f"must rise from 0 to at most half the sampling_rate of {sampling_rate} Hz."
            )
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is {padding_side!r}, but must be 'left' or 'right'.")
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
            **kwargs,
        )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.min_frequency_hz = min_frequency_hz
        self.max_frequency_hz = max_frequency_hz

    def __call__(
        self,
        raw_speech: Waveform | Sequence[Waveform | None] | None,
        sampling_rate: int | None = None,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        truncation: bool = False,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Computes the log-mel spectrograms of a waveform or of a batch of them.

        Args:
            raw_speech: one waveform or a list of them, None standing for a clip without usable sound. A
                waveform is (samples,), or has channels too: its shorter axis is theirs, whichever comes
                first. An array of three axes is a batch. Floats lie in -1..1; 16- and 32-bit integers are
                scaled to that.
            sampling_rate: rate in Hz of the waveforms given, the same for all of them.
            padding: True or "longest" pads with silence to the longest waveform, "max_length" to
                `max_length`, False leaves every length as it is.
            max_length: samples at 32 kHz (the extractor's own `sampling_rate`).
            truncation: cut what is longer than `max_length`.
            return_tensors: "pt" or "np"; None returns a list of arrays.

        Returns:
            `input_features` (batch, time, mel) in dB, float32, and `audio_mask` (batch,) bool: False, with
            features of zeros, where there was None or nothing rises above -100 dB. A batch of None alone is
            as long as `max_length`, or else one second.

        Raises:
            ValueError: the sampling rate is missing; a waveform is empty or not finite; torchaudio is needed
                and missing; lengths differ that are to become one tensor.
        """
        waveforms = [
            None if item is None else self._load(item, index, sampling_rate)
            for index, item in enumerate(_as_batch(raw_speech))
        ]
        waveforms = self._with_lengths(waveforms, padding, max_length, truncation)
        # One by one is five times as fast as all at once: the transform of one clip stays in the cache.
        mel_powers = [self._mel_power(waveform) for waveform in waveforms]
        audio_mask = np.array([bool((power > POWER_FLOOR).any()) for power in mel_powers])
        log_mels = [
            (power.clamp(min=POWER_FLOOR).log10() * 10 if sounds else torch.zeros_like(power)).numpy()
            for power, sounds in zip(mel_powers, audio_mask, strict=True)
        ]
        if return_tensors is not None and len({len(log_mel) for log_mel in log_mels}) > 1:
            raise ValueError(
                "The waveforms of audio differ in length: pad them, or leave return_tensors out."
            )
        return BatchFeature(
            {"input_features": log_mels, "audio_mask": audio_mask}, tensor_type=return_tensors
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields, and nothing else that was set on the instance."""
        values = super().to_dict()
        return {name: values[name] for name in values if name in FIELDS | SAVED_BESIDE_FIELDS}

    def _load(self, waveform: Waveform, index: int, sampling_rate: int | None) -> torch.Tensor:
        """Checks one waveform; returns it as (samples,) in float64, mixed to mono and resampled."""
        if not sampling_rate or sampling_rate < 1 or sampling_rate != int(sampling_rate):
            raise ValueError(
                f"sampling_rate is {sampling_rate!r}, but must be the rate in Hz at which the audio was "
                "recorded, a positive integer: pass sampling_rate together with audio."
            )
        mono = _to_mono(waveform, index)
        if sampling_rate == self.sampling_rate:
            return mono
        if torchaudio is None:
            raise ValueError(
                f"The audio has {sampling_rate} Hz, and torchaudio, which resamples it, cannot be imported: "
                "install the torchaudio that belongs to this torch, or pass audio of "
                f"{self.sampling_rate} Hz."
            )
        return _resampler(int(sampling_rate), self.sampling_rate)(mono)

    def _with_lengths(
        self,
        waveforms: list[torch.Tensor | None],
        padding: bool | str | PaddingStrategy,
        max_length: int | None,
        truncation: bool,
    ) -> list[torch.Tensor]:
        """Cuts, and pads with silence, as the options say; None becomes silence of the batch's length."""
        strategy = self._get_padding_strategies(padding=padding, max_length=max_length)
        if truncation and max_length is None:
            raise ValueError("truncation needs max_length, the number of samples to keep.")
        if truncation:
            waveforms = [None if waveform is None else waveform[:max_length] for waveform in waveforms]
        lengths = [len(waveform) for waveform in waveforms if waveform is not None]
        batch_length = max(lengths, default=max_length or self.sampling_rate)
        if strategy == PaddingStrategy.MAX_LENGTH:
            batch_length = max_length
        padded = []
        for waveform in waveforms:
            as_it_is = waveform is not None and strategy == PaddingStrategy.DO_NOT_PAD
            # Reflecting half a frame at either end needs that much of a waveform.
            wanted = max(self.n_fft, 0 if as_it_is else batch_length)
            samples = torch.zeros(0, dtype=torch.float64) if waveform is None else waveform
            missing = max(0, wanted - len(samples))
            sides = (0, missing) if self.padding_side == "right" else (missing, 0)
            padded.append(torch.nn.functional.pad(samples, sides))
        return padded

    def _mel_power(self, waveform: torch.Tensor) -> torch.Tensor:
        """Power in each mel filter, (time, mel), of a waveform (samples,)."""
        # float64 for the transform: in float32 a weak bin beside a strong one is lost in rounding. Powers are
        # all positive, so their sum needs no more than float32.
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            window=_window(self.n_fft),
            pad_mode="reflect",
            return_complex=True,
        )
        power = (spectrum.real.square() + spectrum.imag.square()).float()
        return power.T @ _mel_filters(
            self.n_fft, self.feature_size, self.min_frequency_hz, self.max_frequency_hz, self.sampling_rate
        )


def _as_batch(raw_speech: Any) -> list[Any]:
    """A list of waveforms, whatever way one or several were given."""
    if raw_speech is None:
        return [None]
    if isinstance(raw_speech, np.ndarray | torch.Tensor):
        return list(raw_speech) if raw_speech.ndim == 3 else [raw_speech]
    if len(raw_speech) == 0:
        raise ValueError("audio is an empty list: pass one waveform, or None, for each clip.")
    return [raw_speech] if isinstance(raw_speech[0], Number) else list(raw_speech)


def _to_mono(waveform: Waveform, index: int) -> torch.Tensor:
    """One waveform as (samples,) in float64, its channels averaged."""
    samples = waveform.detach().cpu().numpy() if isinstance(waveform, torch.Tensor) else np.asarray(waveform)
    if samples.size == 0:
        raise ValueError(f"Waveform {index} of audio is empty: pass None for a clip without sound.")
    if samples.dtype in (np.int16, np.int32):
        samples = samples / (np.iinfo(samples.dtype).max + 1)
    if not np.issubdtype(samples.dtype, np.floating) or samples.ndim not in (1, 2):
        raise ValueError(
            f"Waveform {index} of audio has the shape {samples.shape} and the type {samples.dtype}, but must "
            "be (samples,) or (channels, samples), of floats or of 16- or 32-bit integers."
        )
    if not np.isfinite(samples).all():
        raise ValueError(
            f"Waveform {index} of audio has samples that are not finite: repair it, or pass None."
        )
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)), dtype=np.float64)
    return torch.from_numpy(samples.astype(np.float64))


@lru_cache(maxsize=16)
def _window(n_fft: int) -> torch.Tensor:
    return torch.hann_window(n_fft, dtype=torch.float64)


@lru_cache(maxsize=16)
def _resampler(from_hz: int, to_hz: int) -> torch.nn.Module:
    return torchaudio.transforms.Resample(from_hz, to_hz, dtype=torch.float64)


@lru_cache(maxsize=4)
def _mel_filters(
    n_fft: int, num_mel_bins: int, from_hz: float, to_hz: float, sampling_rate: int
) -> torch.Tensor:
    """Slaney's mel filters of unit area, (frequency, mel)."""
    filters = mel_filter_bank(
        n_fft // 2 + 1, num_mel_bins, from_hz, to_hz, sampling_rate, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters).float()


__all__ = ["DualRepFeatureExtractor"]
