"""How a voice sounds in an examination room: reverberation, a noise floor and the hum of the machine."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter, oaconvolve

MAINS_HZ: tuple[int, ...] = (50, 60)


@dataclass(frozen=True)
class RoomParameters:
    """The ranges, (low, high), from which a room is drawn; levels are those of the root mean square.

    Args:
        noise_level_db: noise floor, in dB of full scale.
        hum_level_db: hum of the machine's fans and mains, in dB of full scale.
        reverberation_seconds: time in which the echo falls by 60 dB.
        reverberation_level_db: energy of the echo against that of the direct sound.

    Raises:
        ValueError: a range is not two numbers, the lower first, or a reverberation time is not positive.
    """

    noise_level_db: tuple[float, float] = (-62.0, -50.0)
    hum_level_db: tuple[float, float] = (-70.0, -56.0)
    reverberation_seconds: tuple[float, float] = (0.1, 0.35)
    reverberation_level_db: tuple[float, float] = (-25.0, -12.0)

    def __post_init__(self) -> None:
        for field in self.__dataclass_fields__:
            require_range(getattr(self, field), f"RoomParameters.{field}")
        if self.reverberation_seconds[0] <= 0:
            raise ValueError(
                f"RoomParameters.reverberation_seconds is {self.reverberation_seconds}; give positive times."
            )


def require_range(bounds: tuple[float, float], field: str) -> None:
    """Raises ValueError, naming `field`, unless `bounds` are two finite numbers, the lower first."""
    if len(bounds) != 2 or not np.isfinite(bounds).all() or bounds[0] > bounds[1]:
        raise ValueError(f"{field} is {bounds}; give two numbers, the lower first.")


def amplitude(level_db: float) -> float:
    """The factor that `level_db` decibels stand for."""
    return 10.0 ** (level_db / 20.0)


def in_room(
    speech: np.ndarray, sampling_rate_hz: int, rng: np.random.Generator, parameters: RoomParameters
) -> np.ndarray:
    """`speech` as a microphone in a room drawn from `rng` hears it.

    The room and its noise depend on `rng` and the number of samples alone, never on what is said.

    Args:
        speech: mono float32 samples in -1..1.

    Returns:
        As many samples, float32.
    """
    noise_db, hum_db, echo_seconds, echo_db = (
        rng.uniform(*bounds)
        for bounds in (
            parameters.noise_level_db,
            parameters.hum_level_db,
            parameters.reverberation_seconds,
            parameters.reverberation_level_db,
        )
    )
    echo = _echo(echo_seconds, sampling_rate_hz, rng) * amplitude(echo_db)
    noise = _noise_floor(len(speech), rng) * amplitude(noise_db)
    hum = _hum(len(speech), sampling_rate_hz, rng) * amplitude(hum_db)
    heard = speech + oaconvolve(speech, echo)[: len(speech)] + noise + hum
    return heard.astype(np.float32)


def _echo(seconds: float, sampling_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Impulse response of unit energy: noise that decays by 60 dB in `seconds` (Moorer, 1979)."""
    times = np.arange(round(seconds * sampling_rate_hz)) / sampling_rate_hz
    response = rng.standard_normal(len(times), dtype=np.float32) * amplitude(-60.0 * times / seconds)
    return (response / np.linalg.norm(response)).astype(np.float32)


def _noise_floor(samples_count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit root mean square, falling towards high frequencies as that of air and fans does."""
    correlation = 0.9
    white = rng.standard_normal(samples_count, dtype=np.float32)
    scale = np.float32(np.sqrt(1.0 - correlation**2))
    return lfilter(np.array([scale]), np.array([1.0, -correlation], dtype=np.float32), white)


def _hum(samples_count: int, sampling_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Even harmonics of the mains, of unit root mean square."""
    mains_hz = MAINS_HZ[rng.integers(len(MAINS_HZ))]
    harmonics = np.array([2, 4, 6])
    weights = rng.uniform(0.2, 1.0, size=len(harmonics))
    phases = rng.uniform(0.0, 2.0 * np.pi, size=len(harmonics))
    one_second = (
        np.arange(sampling_rate_hz) / sampling_rate_hz
    )  # a whole number of periods, so it can be repeated
    angles = 2.0 * np.pi * mains_hz * np.outer(harmonics, one_second) + phases[:, None]
    wave = weights @ np.sin(angles) / np.sqrt(np.sum(weights**2) / 2.0)
    return np.resize(wave.astype(np.float32), samples_count)
