"""Small media files for the tests of the preparation, whose pictures carry the number of their frame."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = 64
BITS = 8
CLOCK_HZ = 90_000


def numbered_picture(number: int) -> np.ndarray:
    """(64, 64, 3) uint8: eight upright bars, white where the number has a 1, the lowest bit on the left."""
    bars = [(number >> bit) & 1 for bit in range(BITS)]
    row = np.repeat(np.array(bars, dtype=np.uint8) * 255, SIZE // BITS)
    return np.repeat(np.tile(row, (SIZE, 1))[:, :, None], 3, axis=2)


def number_of(picture: np.ndarray) -> int:
    """The number that `numbered_picture` drew, after any coding and scaling to another square."""
    width = picture.shape[1] // BITS
    bars = [picture[:, bit * width : (bit + 1) * width].mean() > 127 for bit in range(BITS)]
    return sum(int(bar) << bit for bit, bar in enumerate(bars))


def tone(seconds: float, sampling_rate_hz: int = 48_000) -> np.ndarray:
    """(samples,) float32, a quiet 440 Hz tone."""
    times = np.arange(round(seconds * sampling_rate_hz)) / sampling_rate_hz
    return (0.1 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def click(seconds: float, at_s: float, sampling_rate_hz: int = 48_000) -> np.ndarray:
    """(samples,) float32, silence but for 2 ms of 3 kHz around `at_s`."""
    times = np.arange(round(seconds * sampling_rate_hz)) / sampling_rate_hz - at_s
    return (0.9 * np.cos(2 * np.pi * 3000 * times) * (np.abs(times) < 0.001)).astype(np.float32)


def write_video(
    path: Path,
    times_s: np.ndarray | None = None,
    pictures: list[np.ndarray] | None = None,
    sound: np.ndarray | None = None,
    sound_start_s: float = 0.0,
    sampling_rate_hz: int = 48_000,
    codecs: tuple[str, str] = ("libx264", "aac"),
    options: dict[str, str] | None = None,
    is_cover: bool = False,
) -> Path:
    """Write a media file; frames have exactly the time stamps given, sound starts at `sound_start_s`.

    With `is_cover` the picture belongs to the sound, as in music files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        video = None if times_s is None else _video_stream(container, codecs[0], pictures)
        audio = sound if sound is None else container.add_stream(codecs[1], sampling_rate_hz, layout="mono")
        if is_cover:
            video.disposition = av.stream.Disposition.attached_pic
        # Both tracks are written side by side, as a machine writes them: a file cut short loses both.
        for index, time_s in enumerate([] if times_s is None else times_s):
            frame = av.VideoFrame.from_ndarray(pictures[index] if pictures else numbered_picture(index % 256))
            frame.pts, frame.time_base = round(time_s * CLOCK_HZ), Fraction(1, CLOCK_HZ)
            container.mux(video.encode(frame))
        for first in range(0, 0 if sound is None else len(sound), 1024):
            container.mux(audio.encode(_sound_frame(sound, first, sound_start_s, sampling_rate_hz)))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode(None))
    return path


def _video_stream(container, codec: str, pictures: list[np.ndarray] | None) -> av.VideoStream:
    stream = container.add_stream(codec, rate=30)
    stream.height, stream.width = pictures[0].shape[:2] if pictures else (SIZE, SIZE)
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK_HZ)
    if codec == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "10"}
    return stream


def _sound_frame(sound: np.ndarray, first: int, start_s: float, sampling_rate_hz: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(sound[None, first : first + 1024].copy(), format="fltp", layout="mono")
    frame.sample_rate, frame.time_base = sampling_rate_hz, Fraction(1, sampling_rate_hz)
    frame.pts = first + round(start_s * sampling_rate_hz)
    return frame


def even_times(seconds: float, frames_per_second: float = 30, start_s: float = 0.0) -> np.ndarray:
    """Time stamps of a constant rate."""
    return start_s + np.arange(round(seconds * frames_per_second)) / frames_per_second


@contextmanager
def _scheduled_as_before() -> Iterator[None]:
    """SVT-AV1, run by root, leaves its caller at the highest real-time priority: all else would starve."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_coded(
    path: Path,
    codec: str,
    pictures: dict[int, np.ndarray],
    pixel_format: str = "yuv420p",
    rate: Fraction | int = 25,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    sound_start_s: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video by any encoder; picture n stands at n / rate seconds, absent ones are dropped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _scheduled_as_before(), av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate, options=options or {})
        video.height, video.width = next(iter(pictures.values())).shape[:2]
        video.pix_fmt = pixel_format
        audio = None if sound is None else container.add_stream(sound_codec, 48_000, layout="mono")
        for number, picture in pictures.items():
            frame = av.VideoFrame.from_ndarray(picture).reformat(format=pixel_format)
            frame.pts, frame.time_base = number, 1 / Fraction(rate)
            container.mux(video.encode(frame))
        for first in range(0, 0 if sound is None else len(sound), 1024):
            container.mux(audio.encode(_sound_frame(sound, first, sound_start_s, 48_000)))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode(None))
    return path


LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1"}


def write_sound(path: Path, codec: str, rate_hz: int, waveform: np.ndarray) -> Path:
    """Write a sound file; `waveform` is (channels, samples) float32."""
    with av.open(str(path), "w") as container:
        layout = LAYOUTS[len(waveform)]
        stream = container.add_stream(codec, rate_hz, layout=layout)
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(waveform.T.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
