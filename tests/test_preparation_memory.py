"""Memory of a preparation, whatever the length of the recording."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_recordings import tone

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, FRAMES_PER_SECOND, SOUND_HZ, SHORT_SECONDS = 1920, 1080, 2, 16_000, 60
# Fewer, where ninety minutes of video take too long to decode.
MINUTES = int(os.environ.get("DUALREP_TEST_MINUTES", "90"))
MOST_MEMORY_BYTES = 10**9
OPTIONS = "--workers 1 --frames-per-clip 2 --frame-size 64 --sector whole --speech-detector loudness"
# The network that reads text on whole frames of this size takes some hundreds of megabytes more.
OPTIONS += " --text ignore"
# The peak of a child that has ended is that of the one started here: nothing else is its child.
PEAK_OF_CHILD = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(status)
"""


def write_short(path: Path) -> Path:
    """A minute of blocks that move, and a tone."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "40", "bf": "0"}
        audio = container.add_stream("aac", SOUND_HZ, layout="mono")
        for number in range(SHORT_SECONDS * FRAMES_PER_SECOND):
            blocks = np.kron(
                rng.integers(0, 160, (9, 16, 3), dtype=np.uint8), np.ones((120, 120, 1), np.uint8)
            )
            frame = av.VideoFrame.from_ndarray(blocks)
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
    (tmp_path / "in").mkdir()
    repeat_packets(write_short(tmp_path / "short.mp4"), tmp_path / "in" / "long.mp4", MINUTES)
    command = [sys.executable, "-m", "datasets_scripts.prepare_clips", tmp_path / "in", tmp_path / "set"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_CHILD, *command, *OPTIONS.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert f"{10 * MINUTES} clips" in done.stdout or f"{10 * MINUTES - 1} clips" in done.stdout
    assert int(done.stdout.split()[-1]) < MOST_MEMORY_BYTES
