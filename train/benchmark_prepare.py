"""Preparing clips against the bare decoding and resizing of the same frames, in CPU time."""

import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageDraw, ImageFont

from datasets_scripts.clip_sound import measure_sound, sound_windows
from datasets_scripts.clips import ClipParameters, encode_flac
from datasets_scripts.loudness import EBU_R128_LUFS
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.recordings import Recording, RecordingFiles, open_recording
from datasets_scripts.set_parameters import BLANK, FOUND
from datasets_scripts.simulated_anatomy import draw_patient
from datasets_scripts.simulated_probe import ProbePath, holds_of
from datasets_scripts.simulated_ultrasound import Renderer, draw_style
from datasets_scripts.simulated_visits import plan_visits
from datasets_scripts.speech_activity import SILERO
from train.arguments import require
from train.timing import BenchmarkResult, Ratio, median_ratio, median_seconds

BAR = 1.3
FRAMES_PER_SECOND, SOUND_HZ = 30, 48_000
NAME, SHORT, LONG = "scan.mp4", "short", "long"


@dataclass(frozen=True)
class PrepareArguments:
    """Preparing clips against bare decoding and resizing.

    Args:
        minutes: of the recording. What looks for the sector and for text costs as much for a short one.
        short_seconds: of the recording whose packets are repeated to make it.
        height: of its pictures in pixels; they are 16 to 9.
        rounds: how often each of the two is timed, in turns; they are run on the short one before that.
        clip_seconds: of a clip; 28 frames of it are kept.
        seed: of what is simulated.
    """

    minutes: float = 10.0
    short_seconds: float = 10.0
    height: int = 720
    rounds: int = 1
    clip_seconds: float = 6.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, "rounds", self.rounds >= 1, "at least 1")
        is_even = self.height >= 144 and self.height % 18 == 0
        require(self, "height", is_even, "at least 144 and a multiple of 18")
        is_clip = 0.1 <= self.clip_seconds <= self.short_seconds
        require(self, "clip_seconds", is_clip, "at least 0.1 and at most short_seconds")
        require(self, "minutes", self.minutes * 60 >= self.short_seconds, "at least as long as short_seconds")

    @property
    def repetitions(self) -> int:
        """How often the short recording makes the long one."""
        return round(self.minutes * 60 / self.short_seconds)


def benchmark_prepare(arguments: PrepareArguments) -> BenchmarkResult:
    """Preparing clips from one recording to a finished set, as the command does it by default but without
    sound, against FFmpeg's decoder and scaler on the very frames that are kept.

    Both are of one thread. Ours looks for the sector and for text as well, blanks, encodes JPEG and writes
    shards and report; the bare one decodes all frames and scales those of the clips to the size stored.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder, arguments)
        parameters = ClipParameters(arguments.clip_seconds, sector=FOUND, text=BLANK, validation_fraction=0)
        short, long = (
            {
                "preparation": partial(_prepare, folder, length, parameters),
                "bare": partial(decode_and_resize, folder / length / NAME, parameters),
            }
            for length in (SHORT, LONG)
        )
        for task in short.values():  # loads models and libraries
            task()
        details = {
            "cpu_seconds": _alternating_cpu_rounds(long, arguments.rounds),
            "cpu_seconds_of_short": _alternating_cpu_rounds(short, arguments.rounds),
            **_details(folder, arguments),
        }
    ratio = median_ratio(details["cpu_seconds"], "preparation", "bare")
    name = "preparing clips / FFmpeg's decoding and resizing of their frames, CPU time"
    return BenchmarkResult([Ratio(name, ratio, BAR, is_at_most=True)], details | {"notes": _notes(details)})


def _prepare(folder: Path, length: str, parameters: ClipParameters) -> None:
    with redirect_stderr(StringIO()):  # the bar of its progress
        prepare_clips(folder / length, folder / "sets" / length, parameters, workers=1, overwrite=True)


def _notes(details: dict[str, Any]) -> str:
    """What comes on top, and what short recordings cost."""
    bare_s = median_seconds(details["cpu_seconds"])["bare"]
    shares = {name: seconds / bare_s for name, seconds in details["cpu_seconds_of_sound"].items()}
    recording = details["recording"]
    ratio_of_short = median_ratio(details["cpu_seconds_of_short"], "preparation", "bare")
    return (
        f"prepare: a recording of {recording['seconds']:g} s. In the CPU time of the bare decoding and "
        f"resizing, finding speech and measuring loudness takes {shares['speech_and_loudness']:.3f} more, "
        f"and FLAC {shares['flac']:.3f}. Looking for the sector and for text costs as much for any "
        f"recording: one of {recording['short_seconds']:g} s has the ratio {ratio_of_short:.2f}."
    )


def decode_and_resize(path: Path, parameters: ClipParameters) -> int:
    """What FFmpeg's libraries alone need: every frame decoded, those of the clips scaled to RGB.

    Returns:
        How many were scaled.
    """
    scaler, scaled = VideoReformatter(), 0
    step_s = parameters.clip_seconds / parameters.frames_per_clip
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            if frame.time >= scaled * step_s - 0.5 / FRAMES_PER_SECOND:
                width, height = (
                    parameters.frame_size,
                    round(parameters.frame_size * frame.height / frame.width),
                )
                scaler.reformat(frame, width, height, "rgb24", interpolation="BICUBIC", threads=1)
                scaled += 1
    return scaled


def _alternating_cpu_rounds(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of this process, with the threads of FFmpeg, for each task in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for _ in range(rounds):
        for name in names:
            seconds[name].append(_cpu_seconds(tasks[name]))
        names.reverse()
    return seconds


def _cpu_seconds(task: Callable[[], Any]) -> float:
    start_s = time.process_time()
    task()
    return time.process_time() - start_s


def _details(folder: Path, arguments: PrepareArguments) -> dict[str, Any]:
    """The recording, and what its sound costs beside its pictures."""
    recording = open_recording(RecordingFiles(NAME, folder / LONG / NAME, sound=folder / "audio.flac"))
    measuring_s = _cpu_seconds(lambda: measure_sound(recording, SILERO, EBU_R128_LUFS))
    flac_s = _cpu_seconds(lambda: _encode_windows(recording, arguments))
    return {
        "cpu_seconds_of_sound": {"speech_and_loudness": measuring_s, "flac": flac_s},
        "recording": {
            "seconds": arguments.repetitions * arguments.short_seconds,
            "short_seconds": arguments.short_seconds,
            "size": [recording.width, recording.height],
            "frames_per_second": FRAMES_PER_SECOND,
            "bytes": recording.files.video.stat().st_size,
        },
    }


def _encode_windows(recording: Recording, arguments: PrepareArguments) -> None:
    windows, start_s = sound_windows(recording, 1.0), 0.0
    while (waveform := windows.window(start_s, arguments.clip_seconds)) is not None:
        encode_flac(waveform)
        start_s += arguments.clip_seconds


def write_recordings(folder: Path, arguments: PrepareArguments) -> None:
    """`short/scan.mp4`, `long/scan.mp4`, which repeats it, and `audio.flac`, a sound as long as that."""
    for length in (SHORT, LONG):
        (folder / length).mkdir()
    _write_short(folder / SHORT / NAME, arguments)
    repeat_packets(folder / SHORT / NAME, folder / LONG / NAME, arguments.repetitions)
    _write_sound(folder / "audio.flac", arguments.repetitions * arguments.short_seconds, arguments.seed)


def _write_short(path: Path, arguments: PrepareArguments) -> None:
    """H.264 as FFmpeg codes it by default, with a key frame every two seconds."""
    width, height = arguments.height * 16 // 9, arguments.height
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"g": "60", "threads": "1"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number, screen in enumerate(_screens(arguments, width, height)):
            frame = av.VideoFrame.from_ndarray(screen, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


def _screens(arguments: PrepareArguments, width: int, height: int) -> Iterator[np.ndarray]:
    """A simulated scan on the screen of a machine, with what is written around it: uint8 greys."""
    rng, seconds = np.random.default_rng(arguments.seed), arguments.short_seconds
    size = height * 8 // 9 // 2 * 2
    renderer = Renderer(draw_style(rng), size, rng)
    path = ProbePath(holds_of(plan_visits(seconds, rng), seconds, draw_patient(rng), rng), rng)
    font = ImageFont.load_default(height // 30)
    for number in range(round(seconds * FRAMES_PER_SECOND)):
        screen = Image.new("L", (width, height))
        draw, corner = ImageDraw.Draw(screen), ((width - size) // 2, height - size)
        draw.text((8, 4), "EXAMPLE, PATIENT  1990-01-31", 255, font)
        draw.text((width - height // 5, 4), f"10:19:{number // FRAMES_PER_SECOND:02d}", 255, font)
        hold, pose, other, share = path.at(number / FRAMES_PER_SECOND)
        screen.paste(Image.fromarray(renderer.picture(hold.tissue, pose, other.tissue, share)), corner)
        yield np.asarray(screen)


def repeat_packets(source: Path, target: Path, times: int) -> None:
    """The packets of a video again and again, one after the other in time, without coding them anew."""
    with av.open(str(source)) as short, av.open(str(target), "w") as long:
        stream = long.add_stream_from_template(short.streams.video[0])
        packets = [packet for packet in short.demux() if packet.size]
        length = sum(packet.duration for packet in packets)
        for repetition in range(times):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.time_base, again.duration = packet.time_base, packet.duration
                again.pts, again.dts = (each + repetition * length for each in (packet.pts, packet.dts))
                again.is_keyframe, again.stream = packet.is_keyframe, stream
                long.mux(again)


def _write_sound(path: Path, seconds: float, seed: int) -> None:
    """Noise that comes and goes four times a second, as syllables do: silero takes as long for it as for
    words."""
    chance = np.random.default_rng(seed)
    times = np.arange(SOUND_HZ) / SOUND_HZ
    swelling = (np.sin(2 * np.pi * 4 * times) > 0) * 0.1
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", SOUND_HZ, layout="mono", format="s16")
        for second in range(round(seconds)):
            noise = chance.standard_normal(SOUND_HZ) * swelling * 32767
            frame = av.AudioFrame.from_ndarray(
                noise.clip(-32768, 32767).astype(np.int16)[None], "s16", "mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, second * SOUND_HZ, Fraction(1, SOUND_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
