"""Frames and sound of a media file on one clock, read in one pass with the FFmpeg libraries that PyAV brings.

Times here are those of the container (`pts * time_base`); `recordings` shifts them so that the first frame
of the video is at zero. Nothing holds more of a file than a few frames or the sound of one clip.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TypeVar

import av
import numpy as np

from datasets_scripts.container_structure import check_structure
from datasets_scripts.recording_errors import (
    DamagedError,
    EmptyRecordingError,
    NoVideoError,
    RecordingError,
    TruncatedError,
    UnreadableError,
)

# A header may round its duration; more than this missing at the end is a file cut short.
DURATION_TOLERANCE_S = 0.1
# A picture of a screen recording may well stay for minutes; beyond this the clock of the file is damaged.
LONGEST_FRAME_S = 600.0
# AVI keeps no time of display, only an order of coding at a constant rate.
WITHOUT_DISPLAY_TIMES = frozenset({"avi"})
# Time stamps of sound are rounded to milliseconds in some containers; beyond this the sound did jump.
SOUND_JUMP_S = 0.01
# What a decoder may leave out, by FFmpeg's names.
NOT_KEY, NOT_REFERRED_TO = "NONKEY", "NONREF"
# More than any machine records; a damaged header may promise billions.
MOST_PIXELS = 8192 * 8192

Item = TypeVar("Item")


@dataclass(frozen=True)
class Frame:
    """One picture of a recording.

    `time_s` is its time stamp, `duration_s` how long it stays (0 where the file does not say), and
    `read_pixels()` converts it to (height, width, 3) uint8 RGB: only frames that are kept are converted.
    `decoded` is what FFmpeg made of it, where the picture needs no turning; None otherwise.
    """

    time_s: float
    duration_s: float
    read_pixels: Callable[[], np.ndarray]
    decoded: av.VideoFrame | None = None


@dataclass(frozen=True)
class VideoStart:
    """What the first frame of a video tells: its time on the container's clock, its size in pixels.

    `pixel_spacing_mm` is from row to row and from column to column, None where the file does not say.
    """

    time_s: float
    width: int
    height: int
    pixel_spacing_mm: tuple[float, float] | None = None


@contextmanager
def _opened(path: Path, name: str) -> Iterator[av.container.InputContainer]:
    """The opened container; whatever fails on the bytes of the file leaves as a RecordingError."""
    try:
        # Titles and names in other encodings are of no interest, and must not stop the reading.
        container = av.open(str(path), metadata_errors="ignore")
    except Exception as error:
        raise _opening_error(path, name) from error
    with container:
        try:
            yield container
        except RecordingError:
            raise
        except Exception as error:  # the bytes are foreign and so are the decoders: any failure is the file's
            raise DamagedError(
                f"{name}: bytes inside the file cannot be decoded; copy it again from the machine."
            ) from error


def _opening_error(path: Path, name: str) -> RecordingError:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return TruncatedError(
            f"{name}: the file is cut short: its index (moov), at the end of an mp4, is missing; "
            "copy it again from the machine."
        )
    return UnreadableError(
        f"{name}: this is no video that FFmpeg reads, whatever its name ends in; export it again as mp4."
    )


def _video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """The largest of the video streams, the first of several as large; a cover or thumbnail is none."""
    pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not videos:
        raise NoVideoError(
            f"{name}: the file holds no video, at most sound; put the video of the scan beside it."
        )
    stream = max(videos, key=lambda video: video.width * video.height)
    if stream.codec_context is None:
        raise UnreadableError(f"{name}: FFmpeg has no decoder for its video; export it again as mp4.")
    stream.codec_context.thread_count = 1  # recordings are read side by side, one a process
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return stream


def _sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The sound stream that the file marks as its default, or else the first."""
    sounds = [stream for stream in container.streams.audio if stream.codec_context is not None]
    marked = [stream for stream in sounds if stream.disposition & av.stream.Disposition.default]
    return next(iter(marked or sounds), None)


def video_start(path: Path, name: str) -> VideoStart:
    """Read as far as the first frame, and look at the structure of the file.

    Raises:
        RecordingError: the file is no video, holds none, lacks a piece, or its first frame cannot be decoded.
    """
    check_structure(path, name)
    frame = next(video_frames(path, name))
    height, width = frame.read_pixels().shape[:2]
    return VideoStart(frame.time_s, width, height)


def has_sound(path: Path, name: str) -> bool:
    """Whether the file has a sound track."""
    with _opened(path, name) as container:
        return _sound_stream(container) is not None


def promised_end_s(path: Path, name: str) -> float:
    """When the video ends by the file's header, on the container's clock; 0 where it does not say."""
    with _opened(path, name) as container:
        return _promised_end_s(container, _video_stream(container, name))


def video_frames(path: Path, name: str, with_all: bool = True) -> Iterator[Frame]:
    """Every frame of the largest video stream, upright and in the order of time.

    Times are those of the container.

    Args:
        with_all: False leaves out frames that no other frame needs, where that is safe.

    Raises:
        TruncatedError: the file ends before its header says so (raised after the frames that are there).
        DamagedError: a frame cannot be decoded, or only in part.
        EmptyRecordingError: there is no frame at all.
    """
    with _opened(path, name) as container:
        stream = _video_stream(container, name)
        is_in_order_of_coding = container.format.name in WITHOUT_DISPLAY_TIMES
        if not (with_all or is_in_order_of_coding):
            stream.codec_context.skip_frame = NOT_REFERRED_TO
        clock, is_empty = _FrameClock(is_in_order_of_coding, name), True
        packets = _Packets(container, stream, name)
        for frame in _frames(packets, clock, name):
            is_empty = False
            yield frame
        if is_empty:
            raise EmptyRecordingError(f"{name}: the file holds no picture that can be decoded; leave it out.")
        packets.check_end()


def _frames(packets: Iterable[av.Packet], clock: "_FrameClock", name: str) -> Iterator[Frame]:
    """What the packets of a video decode to."""
    first_size, matrix = None, None
    for packet in packets:
        clock.note(packet)
        for frame in packet.decode():
            if first_size is None:
                first_size, matrix = (frame.width, frame.height), _display_matrix(frame)
            time_s = clock.time_s(frame)
            _check_frame(frame, first_size, name)
            if time_s is not None:
                yield _frame(time_s, frame, matrix)


def _frame(time_s: float, frame: av.VideoFrame, matrix: tuple[int, ...] | None) -> Frame:
    duration_s = _seconds(frame.duration, frame.time_base)
    return Frame(time_s, duration_s, partial(_upright_rgb, frame, matrix), None if matrix else frame)


def sampled_video_frames(path: Path, name: str, count: int) -> list[Frame]:
    """Frames from all over a video: `count` to `2 * count - 1`, or all where there are fewer.

    They are key frames, which are cheap, where there are enough, or else those that others refer to.

    Raises:
        RecordingError: as `video_frames`.
    """
    frames = _sampled_key_frames(path, name, count)
    for with_all in (False, True):
        if len(frames) < count:
            frames = evenly_spaced(video_frames(path, name, with_all), count)
    return frames


def _sampled_key_frames(path: Path, name: str, count: int) -> list[Frame]:
    """Key frames from all over a video, of which only those are decoded; the file is read as a whole."""
    with _opened(path, name) as container:
        stream = _video_stream(container, name)
        stream.codec_context.skip_frame = NOT_KEY
        packets = _Packets(container, stream, name)
        sample = evenly_spaced((packet for packet in packets if packet.is_keyframe and packet.size), count)
        packets.check_end()
        clock = _FrameClock(False, name, longest_frame_s=math.inf)
        # The last packet is empty, and brings out what the decoder still holds.
        return list(_frames([*sample, packets.last], clock, name)) if sample else []


def evenly_spaced(items: Iterable[Item], count: int) -> list[Item]:
    """`count` to `2 * count - 1` of the items, or all where there are fewer, in one pass that holds no more
    than twice `count`."""
    kept, step = [], 1
    for number, item in enumerate(items):
        if number % step == 0:
            kept.append(item)
        if len(kept) == 2 * count:
            kept, step = kept[::2], 2 * step
    return kept


class _Packets:
    """The packets of a video stream in one pass, `last` being the one that came last."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream, name: str):
        self._container, self._stream, self._name = container, stream, name
        self._read_to_s = 0.0
        self.last: av.Packet | None = None

    def __iter__(self) -> Iterator[av.Packet]:
        watched = _streams_to_watch(self._container, self._stream)
        for packet in self._container.demux(watched):
            self._read_to_s = max(self._read_to_s, _packet_end_s(packet, self._name))
            if packet.stream.index == self._stream.index:
                self.last = packet
                yield packet

    def check_end(self) -> None:
        """To be asked at the end: raises TruncatedError where the header promises more."""
        _check_end(_promised_end_s(self._container, self._stream), self._read_to_s, self._name)


def _streams_to_watch(
    container: av.container.InputContainer, stream: av.VideoStream
) -> list[av.stream.Stream]:
    """The streams whose packets tell whether the file is whole: all, where only the file has a duration."""
    return [stream] if stream.duration is not None else [*container.streams]


def _packet_end_s(packet: av.Packet, name: str) -> float:
    if packet.is_corrupt:
        raise TruncatedError(
            f"{name}: the file is cut short in the middle of a packet; copy it again from the machine."
        )
    start = packet.dts if packet.pts is None else packet.pts
    return 0.0 if start is None else _seconds(start + (packet.duration or 0), packet.time_base)


class _FrameClock:
    """The times of the frames of a video, which must not go back."""

    def __init__(self, is_in_order_of_coding: bool, name: str, longest_frame_s: float = LONGEST_FRAME_S):
        self._coded_s: deque[float] | None = deque() if is_in_order_of_coding else None
        self._longest_frame_s = longest_frame_s
        self._last_s: float | None = None
        self._name = name

    def note(self, packet: av.Packet) -> None:
        """Must see every packet before it is decoded."""
        if self._coded_s is not None and packet.size and packet.dts is not None:
            self._coded_s.append(_seconds(packet.dts, packet.time_base))

    def time_s(self, frame: av.VideoFrame) -> float | None:
        """When the frame is shown; None where that is the time of the one before, and it adds nothing.

        Raises:
            DamagedError: the time is missing, goes back, or goes too far on.
        """
        if self._coded_s:
            # Frames leave the decoder in the order of display, one for each packet.
            time_s = self._coded_s.popleft()
        elif frame.pts is not None:
            time_s = _seconds(frame.pts, frame.time_base)
        else:
            raise DamagedError(f"{self._name}: its frames have no time stamps; export it again as mp4.")
        step_s = 1.0 if self._last_s is None else time_s - self._last_s
        if not 0 <= step_s <= self._longest_frame_s:
            raise DamagedError(
                f"{self._name}: its clock jumps from {self._last_s:.2f} s to {time_s:.2f} s; "
                "cut the recording there."
            )
        if step_s == 0:
            return None
        self._last_s = time_s
        return time_s


def _check_frame(frame: av.VideoFrame, size: tuple[int, int], name: str) -> None:
    if frame.is_corrupt:
        raise DamagedError(
            f"{name}: a frame near {frame.time} s is damaged; copy the file again from the machine."
        )
    if (frame.width, frame.height) != size:
        raise DamagedError(f"{name}: its pictures change their size near {frame.time} s; cut it there.")


def _seconds(ticks: int, time_base: Fraction) -> float:
    """What `float(ticks * time_base)` is, in a fraction of the time."""
    return ticks * time_base.numerator / time_base.denominator


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """How the pictures are to be turned or mirrored.

    To be asked of one frame only: it then refers to itself, and its memory stays until the garbage collector
    comes by.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else tuple(np.frombuffer(matrix, dtype=np.int32)[:5].tolist())


def _upright_rgb(frame: av.VideoFrame, matrix: tuple[int, ...] | None) -> np.ndarray:
    """(height, width, 3) uint8, turned and mirrored as the file says it is to be shown."""
    pixels = frame.to_ndarray(format="rgb24")
    if matrix is None:
        return pixels
    # A place (x, y) is shown at (a x + c y, b x + d y): ISO/IEC 14496-12, section 6.2.2.
    a, b, _, c, d = matrix
    if abs(a) < abs(b):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _promised_end_s(container: av.container.InputContainer, stream: av.stream.Stream) -> float:
    """The end of the stream by the header, or that of the whole file; what was sent live promises nothing."""
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    return (container.duration or 0) / av.time_base


def _check_end(promised_s: float, read_to_s: float, name: str) -> None:
    if read_to_s < promised_s - DURATION_TOLERANCE_S:
        raise TruncatedError(
            f"{name}: the file is cut short: its header promises {promised_s:.1f} s and "
            f"{read_to_s:.1f} s can be read; copy it again from the machine."
        )


def sound_chunks(
    path: Path, name: str, origin_s: float | None, sampling_rate_hz: int, offset_s: float = 0.0
) -> Iterator[tuple[int, np.ndarray]]:
    """The default sound track, mono and resampled, piece by piece.

    Args:
        origin_s: the time on the container's clock that is to be sample 0; None: where the sound starts.
        offset_s: how much later all of it is placed.

    Yields:
        (index of the first sample, float32 samples). The index follows the time stamps: sound that starts
        late or jumps is placed where it belongs, and what is missing is simply not yielded.

    Raises:
        TruncatedError, DamagedError: as `video_frames` does.
    """
    with _opened(path, name) as container:
        stream = _sound_stream(container)
        if stream is None:
            raise UnreadableError(f"{name}: {path.name} holds no sound that FFmpeg reads; export it as wav.")
        stream.codec_context.thread_count = 1
        if origin_s is None:
            # Encoders lead in with silence, which is cut off: an MP3 file starts after zero by that.
            origin_s = float((stream.start_time or 0) * stream.time_base)
        run, read_to_s = None, 0.0
        for packet in container.demux(stream):
            read_to_s = max(read_to_s, _packet_end_s(packet, name))
            for frame in packet.decode():
                if run is None or not run.goes_on_with(frame):
                    if run is not None:
                        yield from run.resampled(None)
                    run = _SoundRun(frame, origin_s - offset_s, sampling_rate_hz)
                yield from run.resampled(frame)
        if run is not None:
            yield from run.resampled(None)
        if stream.duration is not None:  # the end of the whole file may be that of the video
            _check_end(_promised_end_s(container, stream), read_to_s, name)


class _SoundRun:
    """Sound without a jump in its time stamps, resampled as one so that no click arises between frames."""

    def __init__(self, frame: av.AudioFrame, origin_s: float, sampling_rate_hz: int):
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=sampling_rate_hz)
        self._end_s = 0.0 if frame.time is None else frame.time
        self._next_sample = round((self._end_s - origin_s) * sampling_rate_hz)

    def goes_on_with(self, frame: av.AudioFrame) -> bool:
        return frame.time is None or abs(frame.time - self._end_s) < SOUND_JUMP_S

    def resampled(self, frame: av.AudioFrame | None) -> Iterator[tuple[int, np.ndarray]]:
        """What the resampler gives for this frame; None flushes it."""
        if frame is not None:
            self._end_s += frame.samples / frame.sample_rate
        for part in self._resampler.resample(frame):
            samples = part.to_ndarray()[0]
            yield self._next_sample, samples
            self._next_sample += len(samples)


class SoundWindows:
    """Windows of a sound in the order of time, cut out of its chunks in one pass."""

    def __init__(self, chunks: Iterator[tuple[int, np.ndarray]], sampling_rate_hz: int):
        self._chunks = chunks
        self._held: deque[tuple[int, np.ndarray]] = deque()
        self._sampling_rate_hz = sampling_rate_hz

    def window(self, start_s: float, seconds: float) -> np.ndarray | None:
        """The samples of `start_s` to `start_s + seconds`; calls must come in the order of `start_s`.

        Returns:
            (round(seconds * rate),) float32, zero where the track has a gap; None where less than half of the
            window has sound: silence that nobody recorded must not pass for a sonographer who is silent.
        """
        first, length = round(start_s * self._sampling_rate_hz), round(seconds * self._sampling_rate_hz)
        self._hold(first, first + length)
        window, covered = np.zeros(length, dtype=np.float32), 0
        for begin, samples in self._held:
            left, right = max(begin, first), min(begin + len(samples), first + length)
            if left < right:
                window[left - first : right - first] = samples[left - begin : right - begin]
                covered += right - left
        return window if 2 * covered >= length else None

    def _hold(self, first: int, last: int) -> None:
        while self._held and self._held[0][0] + len(self._held[0][1]) <= first:
            self._held.popleft()
        while not self._held or self._held[-1][0] + len(self._held[-1][1]) < last:
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            if chunk[0] + len(chunk[1]) > first:
                self._held.append(chunk)
