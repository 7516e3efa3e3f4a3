"""Memory of a preparation as the command does it by default, whatever the length of the recording."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from tiny_recordings import tone

from datasets_scripts.simulated_anatomy import draw_patient
from datasets_scripts.simulated_probe import ProbePath, holds_of
from datasets_scripts.simulated_ultrasound import Renderer, draw_style
from datasets_scripts.simulated_visits import plan_visits

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, FRAMES_PER_SECOND, SOUND_HZ, SHORT_SECONDS = 1920, 1080, 2, 16_000, 60
PICTURE, LEFT, TOP = 960, 480, 60  # where the ultrasound lies on the screen
# Fewer, where ninety minutes of video take too long to decode.
MINUTES = int(os.environ.get("DUALREP_TEST_MINUTES", "90"))
MOST_MEMORY_BYTES = 10**9
# The peak of a child that has ended is that of the one started here: nothing else is its child.
PEAK_OF_CHILD = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(status)
"""


def screens() -> Iterator[np.ndarray]:
    """A simulated scan on the screen of a machine, with a name above it and a clock that goes on."""
    rng = np.random.default_rng(3)
    renderer, visits = Renderer(draw_style(rng), PICTURE, rng), plan_visits(SHORT_SECONDS, rng)
    path = ProbePath(holds_of(visits, SHORT_SECONDS, draw_patient(rng), rng), rng)
    font = ImageFont.load_default(28)
    for number in range(SHORT_SECONDS * FRAMES_PER_SECOND):
        screen = Image.new("L", (WIDTH, HEIGHT))
        draw = ImageDraw.Draw(screen)
        draw.text((20, 8), "EXAMPLE, PATIENT  1990-01-31", 255, font)
        draw.text((WIDTH - 240, 8), f"10:19:{number // FRAMES_PER_SECOND:02d}", 255, font)
        hold, pose, other, share = path.at(number / FRAMES_PER_SECOND)
        screen.paste(Image.fromarray(renderer.picture(hold.tissue, pose, other.tissue, share)), (LEFT, TOP))
        yield np.asarray(screen.convert("RGB"))


def write_short(path: Path) -> Path:
    """A minute of ultrasound, and a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "30", "bf": "0"}
        audio = container.add_stream("aac", SOUND_HZ, layout="mono")
        for number, screen in enumerate(screens()):
            frame = av.VideoFrame.from_ndarray(screen)
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        sound = tone(SHORT_SECONDS, SOUND_HZ)
        for first in range(0, len(sound), 1024):
            part = sound[None, first : first + 1024].copy()
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, first, Fraction(1, SOUND_HZ)
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return path


def repeat_packets(source: Path, target: Path, times: int) -> None:
    """The packets of a file again and again, one after the other in time, without coding them anew."""
    with av.open(str(source)) as short, av.open(str(target), "w") as long:
        streams = [long.add_stream_from_template(stream) for stream in short.streams]
        packets = [packet for packet in short.demux() if packet.size]
        ends = [0] * len(streams)
        for _ in range(times):
            for packet in packets:
                index = packet.stream.index
                again = av.Packet(bytes(packet))
                again.time_base, again.duration = packet.time_base, packet.duration
                again.pts = again.dts = ends[index]
                again.is_keyframe, again.stream = packet.is_keyframe, streams[index]
                ends[index] += packet.duration
                long.mux(again)


@pytest.mark.slow
def test_a_long_recording_takes_no_more_than_a_gigabyte(tmp_path):
    """Sector, text, speech and loudness as the command treats them unless it is told otherwise."""
    (tmp_path / "in").mkdir()
    repeat_packets(write_short(tmp_path / "short.mp4"), tmp_path / "in" / "long.mp4", MINUTES)
    command = [sys.executable, "-m", "datasets_scripts.prepare_clips", tmp_path / "in", tmp_path / "set"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_CHILD, *command, "--workers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert f"{10 * MINUTES} clips" in done.stdout or f"{10 * MINUTES - 1} clips" in done.stdout
    (info,) = (json.loads(file.read_text()) for file in (tmp_path / "set").rglob("info.json"))
    chosen = ("sector", "text", "speech_detector", "loudness_lufs")
    assert [info[name] for name in chosen] == ["found", "blank", "silero", -23.0]
    assert int(done.stdout.split()[-1]) < MOST_MEMORY_BYTES
