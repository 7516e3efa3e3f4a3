"""Cut one recording into clips: evenly spaced frames as JPEG, sound as FLAC, and how much of it is speech."""

import heapq
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, tee
from typing import NamedTuple

import av
import numpy as np
import soundfile
from PIL import Image

from datasets_scripts.clip_sound import measure_sound, sound_windows
from datasets_scripts.loudness import LOUDEST_LUFS, QUIETEST_LUFS
from datasets_scripts.media_streams import Frame
from datasets_scripts.recordings import Area, Recording
from datasets_scripts.reduced_pictures import PictureReducer
from datasets_scripts.schema import (
    AUDIO,
    CLIP_ID,
    FRAMES,
    SAMPLING_RATE_HZ,
    SCAN_ID,
    SPEECH_FRACTION,
    START_S,
)
from datasets_scripts.sector import Sector, crop_to_sector
from datasets_scripts.set_parameters import (
    SetParameters,
    require,
    require_choice,
    require_seconds,
    require_share,
)
from datasets_scripts.speech_activity import LOUDNESS, SPEECH_DETECTORS, SpeechSegments, speech_fraction

JPEG_QUALITY = 90


@dataclass(frozen=True)
class ClipParameters(SetParameters):
    """What decides the content of a set of clips; the picture size and the split are those of every set.

    Args:
        clip_seconds: length of a clip.
        stride_seconds: from the start of one clip to the start of the next; None means `clip_seconds`.
        frames_per_clip: frames kept of a clip, evenly spaced over it by time.
        minimum_speech_fraction: clips with less speech are left out.
        speech_detector: silero tells speech from music, hum and Doppler sounds; loudness takes for speech
            what is louder than the rest of the clip.
        loudness_lufs: integrated loudness (EBU R 128) that the speech of each recording is brought to; None
            leaves the sound as recorded.

    Raises:
        ValueError: a value out of its range.
    """

    clip_seconds: float = 6.0
    stride_seconds: float | None = None
    frames_per_clip: int = 28
    minimum_speech_fraction: float = 0.0
    speech_detector: str = LOUDNESS
    loudness_lufs: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_seconds("clip_seconds", self.clip_seconds, 0.1)
        require_seconds("stride_seconds", self.step_seconds, 0.01)
        require(self.frames_per_clip >= 1, "frames_per_clip", self.frames_per_clip, "1 or more")
        require_share("minimum_speech_fraction", self.minimum_speech_fraction)
        require_choice("speech_detector", self.speech_detector, SPEECH_DETECTORS)
        if self.loudness_lufs is not None:
            in_range = QUIETEST_LUFS <= self.loudness_lufs <= LOUDEST_LUFS
            require(in_range, "loudness_lufs", self.loudness_lufs, f"{QUIETEST_LUFS:g} to {LOUDEST_LUFS:g}")

    @property
    def step_seconds(self) -> float:
        """From the start of one clip to the start of the next."""
        return self.clip_seconds if self.stride_seconds is None else self.stride_seconds

    def info(self) -> dict:
        """As of every set, with the stride as it was taken and the rate of the sound."""
        return super().info() | {"stride_seconds": self.step_seconds, "sampling_rate_hz": SAMPLING_RATE_HZ}


def cut_clips(
    recording: Recording, scan_id: str, parameters: ClipParameters, counts: Counter[str] | None = None
) -> Iterator[dict]:
    """The clips of a recording as rows of `clips_features()`, in the order of time, in one pass over its
    frames. Its sound is measured as a whole before.

    Frame i of n shows the moment `start_s + i * clip_seconds / n`: the frame whose time stamp is nearest. A
    clip must lie within the recording as a whole. Clips with too little speech are among the rows.

    Args:
        counts: after the last row it also holds what is wrong with the sound, as `SoundFaults.counts` says.

    Raises:
        RecordingError: the recording is cut short or damaged.
    """
    counts = Counter() if counts is None else counts
    starts_s = (clip * parameters.step_seconds for clip in count())
    encode = FrameEncoder(recording.area(parameters.sector), parameters.frame_size)
    measures = measure_sound(recording, parameters.speech_detector, parameters.loudness_lufs)
    sound = None if measures is None else sound_windows(recording, measures.gain)
    for clip in frames_of_clips(
        recording, starts_s, parameters.clip_seconds, parameters.frames_per_clip, encode
    ):
        start_s = round(clip.start_s, 6)
        waveform = None if sound is None else sound.window(start_s, parameters.clip_seconds)
        yield {
            CLIP_ID: f"{scan_id}_{round(start_s * 1000):07d}",
            SCAN_ID: scan_id,
            START_S: start_s,
            FRAMES: [{"bytes": jpeg, "path": None} for jpeg in clip.jpegs],
            AUDIO: None if waveform is None else {"bytes": encode_flac(waveform), "path": None},
            SPEECH_FRACTION: 0.0 if waveform is None else _speech_share(waveform, start_s, measures.speech),
        }
    if measures is not None:
        counts.update(measures.faults.counts(encode.last_time_s))


def _speech_share(waveform: np.ndarray, start_s: float, speech: SpeechSegments | None) -> float:
    """By the segments of the recording's speech, or, without them, by the energy of the waveform."""
    if speech is None:
        return speech_fraction(waveform)
    return float(speech.share(start_s, len(waveform) / SAMPLING_RATE_HZ))


class ClipFrames(NamedTuple):
    """Number of a clip in the order of the starts, its start in seconds, its encoded frames."""

    number: int
    start_s: float
    jpegs: list[bytes]


def frames_of_clips(
    recording: Recording,
    starts_s: Iterable[float],
    clip_seconds: float,
    frames_per_clip: int,
    encode: "FrameEncoder",
) -> Iterator[ClipFrames]:
    """The frames of clips of one length, in one pass; clips beyond the recording's end are left out.

    Args:
        starts_s: where the clips start, ascending; it may be without end, and clips may overlap.

    Raises:
        RecordingError: the recording is cut short or damaged.
    """
    targets, times = tee(_target_times(starts_s, clip_seconds, frames_per_clip))
    waiting: dict[int, list[bytes]] = defaultdict(list)
    frames = recording.frames_at(target.time_s for target in times)
    for target, frame in zip(targets, frames, strict=False):
        if len(waiting[target.clip]) < frames_per_clip:
            waiting[target.clip].append(encode(frame))
        else:
            yield ClipFrames(target.clip, target.start_s, waiting.pop(target.clip))


class _Target(NamedTuple):
    time_s: float
    clip: int
    start_s: float


def _target_times(starts_s: Iterable[float], clip_seconds: float, frames_per_clip: int) -> Iterator[_Target]:
    """What is wanted of the recording, in the order of time, however the clips overlap.

    A clip's last target is its end: reaching it tells that the recording holds the clip as a whole.
    """
    spacing_s = clip_seconds / frames_per_clip
    waiting: list[_Target] = []
    for clip, start_s in enumerate(starts_s):
        while waiting and waiting[0] < (start_s, clip):
            yield heapq.heappop(waiting)
        for index in range(frames_per_clip):
            heapq.heappush(waiting, _Target(start_s + index * spacing_s, clip, start_s))
        heapq.heappush(waiting, _Target(start_s + clip_seconds, clip, start_s))
    while waiting:
        yield heapq.heappop(waiting)


class FrameEncoder:
    """Crops a frame, scales its longer side to `frame_size`, pads it to a square, encodes it as JPEG.

    What lies outside a sector is blanked before the scaling, so that none of it is mixed into what is kept.
    Frames of a video that are made smaller are reduced by FFmpeg, which is the quicker by far; all others by
    Pillow, by as good as the same filter.

    A frame without any colour is encoded as a grey one, which has the same pixels and takes half the time to
    decode.
    """

    def __init__(self, area: Area, frame_size: int):
        self._area, self._frame_size = area, frame_size
        self._reducer: Callable[[av.VideoFrame], np.ndarray | None] | None = None
        self._last_frame: Frame | None = None
        self._last_jpeg = b""

    @property
    def last_time_s(self) -> float:
        """The time stamp of the last frame that was encoded."""
        return self._last_frame.time_s

    def __call__(self, frame: Frame) -> bytes:
        """JPEG bytes; the same frame again, where time stamps lie far apart, is not encoded again."""
        if frame is not self._last_frame:
            self._last_frame, self._last_jpeg = frame, self._encode(frame)
        return self._last_jpeg

    def _encode(self, frame: Frame) -> bytes:
        reduced = self._reduced(frame)
        picture = self._kept(frame.read_pixels()) if reduced is None else Image.fromarray(reduced)
        image = resize_to_square(picture, self._frame_size)
        buffer = io.BytesIO()
        (image if has_colour(image) else image.convert("L")).save(buffer, format="JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()

    def _reduced(self, frame: Frame) -> np.ndarray | None:
        """What is kept of a frame in the size that it is stored in; None where that is no reduction of what
        FFmpeg decoded."""
        if frame.decoded is None:
            return None
        if self._reducer is None:
            self._reducer = self._new_reducer(frame.decoded)
        return self._reducer(frame.decoded)

    def _new_reducer(self, decoded: av.VideoFrame) -> Callable[[av.VideoFrame], np.ndarray | None]:
        mask = self._area.mask if isinstance(self._area, Sector) else None
        box = self._area.box if isinstance(self._area, Sector) else self._area
        left, top, right, bottom = box or (0, 0, decoded.width, decoded.height)
        if max(right - left, bottom - top) <= self._frame_size or (
            mask is not None and mask.shape != (decoded.height, decoded.width)
        ):
            return lambda _: None
        place = place_in_square(right - left, bottom - top, self._frame_size)
        return PictureReducer((left, top, right, bottom), mask, (place.width, place.height))

    def _kept(self, pixels: np.ndarray) -> Image.Image:
        if isinstance(self._area, Sector):
            return Image.fromarray(crop_to_sector(pixels, self._area))
        image = Image.fromarray(pixels)
        return image if self._area is None else image.crop(self._area)


def has_colour(image: Image.Image) -> bool:
    """Whether any pixel's channels differ."""
    pixels = np.asarray(image)
    return pixels.ndim == 3 and bool((pixels != pixels[..., :1]).any())


class Placement(NamedTuple):
    """Where a picture lies in the square that it is padded to, in pixels of the square."""

    left: int
    top: int
    width: int
    height: int


def place_in_square(width: int, height: int, size: int) -> Placement:
    """The longer side fills the square of `size` pixels, the aspect is kept, the rest is on both sides."""
    scale = size / max(width, height)
    width, height = (max(1, round(side * scale)) for side in (width, height))
    return Placement((size - width) // 2, (size - height) // 2, width, height)


def resize_to_square(image: Image.Image, size: int) -> Image.Image:
    """(size, size) with the image as `place_in_square` places it: the rest is black."""
    left, top, width, height = place_in_square(*image.size, size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if (width, height) == (size, size):
        return image
    square = Image.new("RGB", (size, size))
    square.paste(image, (left, top))
    return square


def encode_flac(waveform: np.ndarray) -> bytes:
    """FLAC of 16 bit mono at 32 kHz for a (samples,) float waveform in -1..1."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLING_RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
