"""Cut one recording into clips: evenly spaced frames as JPEG, sound as FLAC, and how much of it is speech."""

import heapq
import io
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, tee

import numpy as np
import soundfile
from PIL import Image

from datasets_scripts.media_streams import Frame
from datasets_scripts.recordings import Recording
from datasets_scripts.schema import (
    AUDIO,
    CLIP_ID,
    FRAMES,
    SAMPLING_RATE_HZ,
    SCAN_ID,
    SPEECH_FRACTION,
    START_S,
)

JPEG_QUALITY = 90
SPEECH_WINDOW_S = 0.03
SPEECH_ABOVE_FLOOR_DB = 12.0
SILENCE_DB = -60.0


@dataclass(frozen=True)
class ClipParameters:
    """What decides the content of a set of clips.

    Args:
        clip_seconds: length of a clip.
        stride_seconds: from the start of one clip to the start of the next; None means `clip_seconds`.
        frames_per_clip: frames kept of a clip, evenly spaced over it by time.
        frame_size: width and height of a kept frame in pixels.
        validation_fraction: share of the patients that is held out.
        seed: of the split and of the order of the clips.
        minimum_speech_fraction: clips with less speech are left out.

    Raises:
        ValueError: a value out of its range.
    """

    clip_seconds: float = 6.0
    stride_seconds: float | None = None
    frames_per_clip: int = 28
    frame_size: int = 160
    validation_fraction: float = 0.2
    seed: int = 0
    minimum_speech_fraction: float = 0.0

    def __post_init__(self) -> None:
        _require(0.1 <= self.clip_seconds < math.inf, "clip_seconds", self.clip_seconds, "0.1 or more")
        _require(0.01 <= self.step_seconds < math.inf, "stride_seconds", self.stride_seconds, "0.01 or more")
        _require(self.frames_per_clip >= 1, "frames_per_clip", self.frames_per_clip, "1 or more")
        _require(self.frame_size >= 16, "frame_size", self.frame_size, "16 or more")
        for field in ("validation_fraction", "minimum_speech_fraction"):
            value = getattr(self, field)
            _require(0 <= value < 1, field, value, "at least 0 and less than 1")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")

    @property
    def step_seconds(self) -> float:
        """From the start of one clip to the start of the next."""
        return self.clip_seconds if self.stride_seconds is None else self.stride_seconds


def _require(holds: bool, field: str, value: object, range_in_words: str) -> None:
    if not holds:
        raise ValueError(f"{field} is {value}; it must be {range_in_words}.")


def cut_clips(recording: Recording, scan_id: str, parameters: ClipParameters) -> Iterator[dict]:
    """The clips of a recording as rows of `clips_features()`, in the order of time, in one pass over it.

    Frame i of n shows the moment `start_s + i * clip_seconds / n`: the frame whose time stamp is nearest. A
    clip must lie within the recording as a whole. Clips with too little speech are among the rows.

    Raises:
        RecordingError: the recording is cut short or damaged.
    """
    targets, times = tee(_target_times(parameters))
    encode = FrameEncoder(recording.notes.crop, parameters.frame_size)
    sound = recording.sound()
    frames_of_clip: dict[int, list[bytes]] = defaultdict(list)
    for (_, clip), frame in zip(targets, recording.frames_at(time_s for time_s, _ in times), strict=False):
        if len(frames_of_clip[clip]) < parameters.frames_per_clip:
            frames_of_clip[clip].append(encode(frame))
            continue
        start_s = round(clip * parameters.step_seconds, 6)
        waveform = None if sound is None else sound.window(start_s, parameters.clip_seconds)
        yield {
            CLIP_ID: f"{scan_id}_{round(start_s * 1000):07d}",
            SCAN_ID: scan_id,
            START_S: start_s,
            FRAMES: [{"bytes": jpeg, "path": None} for jpeg in frames_of_clip.pop(clip)],
            AUDIO: None if waveform is None else {"bytes": encode_flac(waveform), "path": None},
            SPEECH_FRACTION: 0.0 if waveform is None else speech_fraction(waveform),
        }


def _target_times(parameters: ClipParameters) -> Iterator[tuple[float, int]]:
    """(time in seconds, number of the clip) without end, in the order of time, however the clips overlap.

    A clip's last target is its end: reaching it tells that the recording holds the clip as a whole.
    """
    spacing_s = parameters.clip_seconds / parameters.frames_per_clip
    waiting: list[tuple[float, int]] = []
    for clip in count():
        start_s = clip * parameters.step_seconds
        while waiting and waiting[0] < (start_s, clip):
            yield heapq.heappop(waiting)
        for index in range(parameters.frames_per_clip):
            heapq.heappush(waiting, (start_s + index * spacing_s, clip))
        heapq.heappush(waiting, (start_s + parameters.clip_seconds, clip))


class FrameEncoder:
    """Crops a frame, scales its longer side to `frame_size`, pads it to a square, encodes it as JPEG."""

    def __init__(self, crop: tuple[int, int, int, int] | None, frame_size: int):
        self._crop, self._frame_size = crop, frame_size
        self._last_frame: Frame | None = None
        self._last_jpeg = b""

    def __call__(self, frame: Frame) -> bytes:
        """JPEG bytes; the same frame again, where time stamps lie far apart, is not encoded again."""
        if frame is not self._last_frame:
            self._last_frame, self._last_jpeg = frame, self._encode(frame)
        return self._last_jpeg

    def _encode(self, frame: Frame) -> bytes:
        image = Image.fromarray(frame.read_pixels())
        if self._crop is not None:
            image = image.crop(self._crop)
        buffer = io.BytesIO()
        resize_to_square(image, self._frame_size).save(buffer, format="JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()


def resize_to_square(image: Image.Image, size: int) -> Image.Image:
    """(size, size) with the aspect of the image kept: the rest, on both sides alike, is black."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if (width, height) == (size, size):
        return image
    square = Image.new("RGB", (size, size))
    square.paste(image, ((size - width) // 2, (size - height) // 2))
    return square


def encode_flac(waveform: np.ndarray) -> bytes:
    """FLAC of 16 bit mono at 32 kHz for a (samples,) float waveform in -1..1."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLING_RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def speech_fraction(waveform: np.ndarray) -> float:
    """A simple estimate of the share of a waveform that is speech, by energy alone.

    The share of 30 ms windows whose level is more than 12 dB above the noise floor, which is the tenth
    percentile of the levels, but no lower than -60 dB of full scale. Any loud sound that comes and goes
    counts: this tells talking from silence, not talking from music.

    Args:
        waveform: (samples,) float in -1..1 at 32 kHz.
    """
    length = round(SPEECH_WINDOW_S * SAMPLING_RATE_HZ)
    windows = waveform[: len(waveform) // length * length].reshape(-1, length).astype(np.float64)
    levels_db = 10 * np.log10(np.mean(windows**2, axis=1) + 1e-12)
    floor_db = max(float(np.percentile(levels_db, 10)), SILENCE_DB)
    return float(np.mean(levels_db > floor_db + SPEECH_ABOVE_FLOOR_DB))
