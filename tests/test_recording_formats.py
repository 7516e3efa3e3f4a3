"""Videos and sounds as machines write them: every container, coding and clock that FFmpeg writes here."""

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny_recordings import (
    LAYOUTS,
    SIZE,
    click,
    number_of,
    numbered_picture,
    tone,
    write_coded,
    write_sound,
    write_video,
)

from datasets_scripts import recording_errors as errors
from datasets_scripts.clips import ClipParameters, cut_clips
from datasets_scripts.recordings import RecordingFiles, open_recording
from datasets_scripts.schema import AUDIO, FRAMES, SAMPLING_RATE_HZ, START_S

FRAMES_WRITTEN = 20


def opened(path: Path, **others: Path):
    return open_recording(RecordingFiles(path.name, path, **others))


def needs_encoder(*codecs: str) -> None:
    for codec in codecs:
        try:
            av.Codec(codec, "w")
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this build of FFmpeg has no encoder {codec}")


def numbered(numbers=range(FRAMES_WRITTEN)) -> dict[int, np.ndarray]:
    return {number: numbered_picture(number) for number in numbers}


# Containers and codings.

FAST_AV1 = {"preset": "12", "svtav1-params": "lp=1"}
CODINGS = [
    ("mp4", "libx264", "yuv420p", {"bf": "2"}),
    ("mp4", "libx264", "yuv422p10le", {}),
    ("mp4", "libx264", "yuv444p", {}),
    ("mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:pools=1"}),
    ("mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=none:pools=1"}),
    ("mp4", "libx265", "yuv420p12le", {"x265-params": "log-level=none:pools=1"}),
    ("mp4", "mpeg4", "yuv420p", {"bf": "2"}),
    ("mp4", "mpeg2video", "yuv420p", {"bf": "2"}),
    ("mp4", "libsvtav1", "yuv420p", FAST_AV1),
    ("mp4", "libsvtav1", "yuv420p10le", FAST_AV1),
    ("mp4", "libaom-av1", "yuv420p", {"cpu-used": "8"}),
    ("mp4", "libvpx-vp9", "yuv420p", {}),
    ("mov", "libx264", "yuv420p", {"bf": "2"}),
    ("mov", "mjpeg", "yuvj422p", {}),
    ("mov", "prores_ks", "yuv422p10le", {}),
    ("mov", "qtrle", "rgb24", {}),
    ("avi", "libx264", "yuv420p", {"bf": "2"}),
    ("avi", "mpeg4", "yuv420p", {}),
    ("avi", "mpeg4", "yuv420p", {"bf": "2"}),
    ("avi", "msmpeg4", "yuv420p", {}),
    ("avi", "mjpeg", "yuvj420p", {}),
    ("avi", "huffyuv", "rgb24", {}),
    ("avi", "utvideo", "yuv420p", {}),
    ("avi", "rawvideo", "bgr24", {}),
    ("mkv", "libx264", "yuv420p", {"bf": "2"}),
    ("mkv", "libx265", "yuv420p", {"x265-params": "log-level=none:pools=1"}),
    ("mkv", "ffv1", "gray", {}),
    ("mkv", "ffv1", "gray10le", {}),
    ("mkv", "ffv1", "gray12le", {}),
    ("mkv", "ffv1", "yuv420p16le", {}),
    ("mkv", "mpeg2video", "yuv422p", {}),
    ("mkv", "mjpeg", "yuvj444p", {}),
    ("mpg", "mpeg1video", "yuv420p", {"bf": "2"}),
    ("mpg", "mpeg2video", "yuv420p", {"bf": "2"}),
    ("ts", "libx264", "yuv420p", {"bf": "2"}),
    ("ts", "mpeg2video", "yuv420p", {"bf": "2"}),
    ("webm", "libvpx", "yuv420p", {}),
    ("webm", "libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    ("webm", "libvpx-vp9", "yuv420p", {}),
    ("webm", "libsvtav1", "yuv420p", FAST_AV1),
    ("gif", "gif", "gray", {}),
    ("gif", "gif", "rgb8", {}),
    ("wmv", "wmv2", "yuv420p", {}),
    ("flv", "flv", "yuv420p", {}),
    ("flv", "libx264", "yuv420p", {"bf": "2"}),
    ("vob", "mpeg2video", "yuv420p", {"bf": "2"}),
    ("mxf", "mpeg2video", "yuv422p", {}),
    ("m2ts", "libx264", "yuv420p", {"bf": "2"}),
    ("3gp", "mpeg4", "yuv420p", {}),
    ("f4v", "libx264", "yuv420p", {"bf": "2"}),
    ("nut", "ffv1", "gray", {}),
]


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format", "options"),
    CODINGS,
    ids=["-".join([*coding[:3], *coding[3]][:4]) for coding in CODINGS],
)
def test_every_frame_of_every_coding_comes_at_its_time(tmp_path, suffix, codec, pixel_format, options):
    needs_encoder(codec)
    path = write_coded(
        tmp_path / f"scan.{suffix}", codec, numbered(), pixel_format, options={"qscale": "2"} | options
    )
    recording = opened(path)
    frames = list(recording.frames())
    pictures = [frame.read_pixels() for frame in frames]
    assert {(picture.shape, picture.dtype.name) for picture in pictures} == {((SIZE, SIZE, 3), "uint8")}
    assert [number_of(picture) for picture in pictures] == list(range(FRAMES_WRITTEN))
    # Containers keep whole milliseconds or hundredths at worst.
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(FRAMES_WRITTEN) / 25, atol=0.005)
    assert (recording.width, recording.height, recording.has_sound) == (SIZE, SIZE, False)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system tells no scheduling policy")
def test_encoding_leaves_the_tests_no_real_time_process(tmp_path):
    needs_encoder("libsvtav1")
    before = os.sched_getscheduler(0)
    write_coded(tmp_path / "scan.mp4", "libsvtav1", numbered(range(3)), options=FAST_AV1)
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        ("mp4", "libx264", "yuv444p"),
        ("mov", "qtrle", "rgb24"),
        ("avi", "mjpeg", "yuvj444p"),
        ("mkv", "ffv1", "gray12le"),
    ],
)
def test_colours_and_shades_come_out_as_they_went_in(tmp_path, suffix, codec, pixel_format):
    down, right = np.mgrid[0:SIZE, 0:SIZE]
    picture = np.stack([40 + 3 * right, 220 - 2 * down, 60 + right + down], axis=-1).astype(np.uint8)
    if pixel_format.startswith("gray"):
        picture = np.repeat(picture[..., :1], 3, axis=-1)
    path = write_coded(
        tmp_path / f"scan.{suffix}",
        codec,
        {0: picture, 1: picture},
        pixel_format,
        options={"crf": "1"} if codec == "libx264" else {"qscale": "1"},
    )
    found = next(opened(path).frames()).read_pixels().astype(int)
    assert np.abs(found - picture).max() <= 8


@pytest.mark.parametrize(
    ("codec", "pixel_format"), [("libx264", "yuv444p"), ("mjpeg", "yuvj420p"), ("ffv1", "gray")]
)
def test_odd_sizes_are_kept(tmp_path, codec, pixel_format):
    picture = np.full((37, 51, 3), 90, dtype=np.uint8)
    path = write_coded(tmp_path / "scan.mkv", codec, {0: picture, 1: picture}, pixel_format)
    recording = opened(path)
    assert (recording.width, recording.height) == (51, 37)
    assert [frame.read_pixels().shape for frame in recording.frames()] == [(37, 51, 3)] * 2


# a, b, c, d of the matrix in the header of a track, and what it does to a picture.
TURNS = {
    "upright": ((1, 0, 0, 1), lambda picture: picture),
    "clockwise": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "half": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "anticlockwise": ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
}


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("turn", TURNS)
def test_frames_come_out_upright(tmp_path, suffix, turn):
    matrix, turned = TURNS[turn]
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    picture[:16, :24], picture[16:, :24], picture[:16, 24:] = 250, 160, 80
    path = write_coded(tmp_path / f"scan.{suffix}", "libx264", {0: picture, 1: picture}, "yuv444p")
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 44  # of a track header of version 0
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[header + place : header + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    recording, expected = opened(path), turned(picture)
    found = next(recording.frames()).read_pixels()
    assert (recording.height, recording.width) == expected.shape[:2] == found.shape[:2]
    assert np.abs(found.astype(int) - expected)[4:-4, 4:-4].mean() < 5


def write_streams(path: Path, sizes: list[int], tones_hz: list[int], default_sound: int | None) -> Path:
    """A file with a grey video of each size, its brightness its place, and a tone of each frequency."""
    with av.open(str(path), "w") as container:
        videos = [
            container.add_stream("ffv1", rate=25, width=size, height=size, pix_fmt="gray") for size in sizes
        ]
        sounds = [container.add_stream("flac", 48_000, layout="mono") for _ in tones_hz]
        for index, sound in enumerate(sounds):
            sound.disposition = av.stream.Disposition.default if index == default_sound else 0
        for number in range(25):
            for index, video in enumerate(videos):
                grey = np.full((sizes[index], sizes[index]), 50 * (index + 1), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="gray")
                frame.pts = number
                container.mux(video.encode(frame))
        for hz, sound in zip(tones_hz, sounds, strict=True):
            wave = (8000 * np.sin(2 * np.pi * hz * np.arange(48_000) / 48_000)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            for part in [*sound.encode(frame), *sound.encode(None)]:
                container.mux(part)
        for video in videos:
            container.mux(video.encode(None))
    return path


@pytest.mark.parametrize(("default_sound", "heard_hz"), [(None, 400), (0, 400), (1, 900)])
def test_the_largest_video_and_the_default_sound_are_taken(tmp_path, default_sound, heard_hz):
    recording = opened(write_streams(tmp_path / "scan.mkv", [32, 64, 48], [400, 900], default_sound))
    assert (recording.width, recording.height) == (64, 64)
    assert abs(next(recording.frames()).read_pixels().mean() - 100) < 2
    spectrum = np.abs(np.fft.rfft(recording.sound().window(0.0, 1.0)))
    assert np.argmax(spectrum) == pytest.approx(heard_hz, abs=2)


def mjpeg_packet(size: int) -> av.Packet:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.zeros((size, size, 3), np.uint8)).reformat(format="yuvj420p")
    frame.pts = 0
    return [*encoder.encode(frame), *encoder.encode(None)][0]


def test_a_video_that_changes_its_size_is_named(tmp_path):
    path = tmp_path / "scan.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, width=64, height=64, pix_fmt="yuvj420p")
        for number, size in enumerate([64] * 5 + [96] * 5):
            packet = mjpeg_packet(size)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), number, number
            container.mux(packet)
    with pytest.raises(errors.DamagedError, match=r"scan\.mkv.*change their size near 0\.2"):
        list(opened(path).frames())


def test_a_clock_that_jumps_is_named(tmp_path):
    """Recordings joined end to end, whose clocks do not go on."""
    first = write_coded(tmp_path / "first.mpg", "mpeg2video", numbered())
    for start in (0, 3000 * 25):
        numbers = range(start, start + FRAMES_WRITTEN)
        pictures = {number: numbered_picture(number % 256) for number in numbers}
        second = write_coded(tmp_path / "second.mpg", "mpeg2video", pictures)
        joined = tmp_path / "joined.mpg"
        joined.write_bytes(first.read_bytes() + second.read_bytes())
        with pytest.raises(errors.DamagedError, match=r"joined\.mpg.*clock jumps"):
            list(opened(joined).frames())


# Sound beside the video.

SOUNDS = [
    ("wav", "pcm_s16le", 8_000),
    ("wav", "pcm_s24le", 96_000),
    ("wav", "pcm_f32le", 44_100),
    ("wav", "pcm_u8", 11_025),
    ("flac", "flac", 44_100),
    ("mp3", "libmp3lame", 44_100),
    ("mp3", "libmp3lame", 22_050),
    ("opus", "libopus", 48_000),
    ("ogg", "libopus", 16_000),
    ("m4a", "aac", 44_100),
    ("m4a", "alac", 48_000),
    ("aac", "aac", 48_000),
]


@pytest.fixture(scope="module")
def silent_video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "scan.mkv", np.arange(0, 2, 0.04))


def heard_at_s(recording, seconds: float = 2.0) -> float:
    return int(np.argmax(np.abs(recording.sound().window(0.0, seconds)))) / SAMPLING_RATE_HZ


@pytest.mark.parametrize(("suffix", "codec", "rate_hz"), SOUNDS, ids=[f"{s}-{c}-{r}" for s, c, r in SOUNDS])
def test_a_click_in_a_sound_file_is_heard_at_its_time(tmp_path, silent_video, suffix, codec, rate_hz):
    needs_encoder(codec)
    sound = write_sound(tmp_path / f"audio.{suffix}", codec, rate_hz, click(2, 1.2, rate_hz)[None])
    # Bare AAC has no place for its 1024 samples of priming: 21 ms at 48 kHz that no reader can know of.
    tolerance_s = 0.025 if suffix == "aac" else 0.005
    assert heard_at_s(opened(silent_video, sound=sound)) == pytest.approx(1.2, abs=tolerance_s)


@pytest.mark.parametrize(
    ("suffix", "codec", "rate_hz"), SOUNDS[:1] + SOUNDS[4:8], ids=["wav", "flac", "mp3", "mp3_22k", "opus"]
)
def test_a_sound_file_cut_short_is_named(tmp_path, silent_video, suffix, codec, rate_hz):
    sound = write_sound(tmp_path / f"audio.{suffix}", codec, rate_hz, tone(2, rate_hz)[None])
    sound.write_bytes(sound.read_bytes()[: sound.stat().st_size * 3 // 5])
    with pytest.raises((errors.TruncatedError, errors.DamagedError), match=r"scan\.mkv: .*copy it again"):
        opened(silent_video, sound=sound).sound().window(0.0, 2.0)


@pytest.mark.parametrize("channels", LAYOUTS)
@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("opus", "libopus")])
def test_any_number_of_channels_is_heard(tmp_path, silent_video, channels, suffix, codec):
    if (suffix, channels) == ("opus", 3):
        pytest.skip("Opus has no layout of this kind")
    waveform = np.repeat(click(2, 0.7)[None], channels, axis=0)
    sound = write_sound(tmp_path / f"audio.{suffix}", codec, 48_000, waveform)
    assert heard_at_s(opened(silent_video, sound=sound)) == pytest.approx(0.7, abs=0.005)


def test_channels_without_a_layout_are_heard(tmp_path, silent_video):
    soundfile.write(tmp_path / "audio.wav", np.repeat(click(2, 0.7)[:, None], 5, axis=1), 48_000)
    assert heard_at_s(opened(silent_video, sound=tmp_path / "audio.wav")) == pytest.approx(0.7, abs=0.005)


# One clock for picture and sound.

PERIOD_S = 1.0
SYNCHRONY_S = 0.02


def flashes_and_clicks(rate: Fraction, numbers: list[int], first: int, sound_start_s: float, seconds: float):
    """Pictures that are white for the fifth of a second after each whole second, a click at each of them."""
    times = {number: float((number - first) / rate) for number in numbers}
    pictures = {
        number: np.full((SIZE, SIZE, 3), 255 * (time_s % PERIOD_S < 0.2 and time_s > 0.5), dtype=np.uint8)
        for number, time_s in times.items()
    }
    are_white = [picture[0, 0, 0] > 0 for picture in pictures.values()]
    onsets_s = [
        time_s
        for time_s, is_white, was_white in zip(times.values(), are_white, [False, *are_white], strict=False)
        if is_white and not was_white
    ]
    start_s = float(first / rate)
    sound = sum(click(seconds, onset_s + start_s - sound_start_s) for onset_s in onsets_s)
    return pictures, onsets_s, sound


SYNCHRONY = [
    ("mp4", "libx264", "aac", {"bf": "3"}),
    ("mov", "libx264", "pcm_s16le", {"bf": "3"}),
    ("mov", "mjpeg", "aac", {}),
    ("mkv", "libx264", "libopus", {"bf": "3"}),
    ("mkv", "libx264", "aac", {}),
    ("mkv", "libx265", "flac", {"x265-params": "log-level=none:pools=1"}),
    ("mkv", "mpeg2video", "libmp3lame", {"bf": "2"}),
    ("ts", "libx264", "aac", {"bf": "3"}),
    ("ts", "mpeg2video", "mp2", {"bf": "2"}),
    ("mpg", "mpeg2video", "mp2", {"bf": "2"}),
    ("webm", "libvpx-vp9", "libopus", {"deadline": "realtime", "cpu-used": "8"}),
    ("webm", "libvpx", "libopus", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
    ("avi", "mpeg4", "ac3", {}),
    ("avi", "mpeg4", "pcm_s16le", {"bf": "2"}),
    ("flv", "libx264", "aac", {"bf": "3"}),
]
# Rate of the frames, start of the video in seconds, start of the sound after it, whether frames are dropped.
CLOCKS = {
    "25": (Fraction(25), 0.0, 0.0, False),
    "29.97": (Fraction(30_000, 1001), 0.0, 0.0, False),
    "23.976_starts_late": (Fraction(24_000, 1001), 7.3, 0.0, False),
    "sound_later": (Fraction(25), 0.0, 0.45, False),
    "sound_earlier": (Fraction(25), 3.0, -0.3, False),
    "dropped": (Fraction(30_000, 1001), 0.0, 0.0, True),
    "dropped_late_sound_later": (Fraction(30_000, 1001), 7.3, 0.45, True),
}
QUICK_CLOCKS = ("29.97", "sound_earlier", "dropped_late_sound_later")
# AVI knows a rate and no time stamps; MPEG-PS stamps blocks of bytes, in which small frames lie together.
CLOCKS_OF = {"avi": ("25", "29.97"), "mpg": tuple(clock for clock in CLOCKS if "dropped" not in clock)}


@pytest.mark.parametrize(
    ("suffix", "codec", "sound_codec", "options"), SYNCHRONY, ids=["-".join(s[:3]) for s in SYNCHRONY]
)
@pytest.mark.parametrize(
    "clock",
    [pytest.param(clock, marks=() if clock in QUICK_CLOCKS else pytest.mark.slow) for clock in CLOCKS],
)
def test_the_sound_under_a_clip_is_the_sound_of_that_clip(
    tmp_path, suffix, codec, sound_codec, options, clock
):
    needs_encoder(codec, sound_codec)
    rate, start_s, sound_after_s, is_dropping = CLOCKS[clock]
    if clock not in CLOCKS_OF.get(suffix, CLOCKS):
        pytest.skip(f"{suffix} cannot hold such a clock")
    if codec.startswith("mpeg4") and clock == "29.97":
        options = options | {"strict": "-1"}
    first = round(start_s * rate)
    numbers = list(range(first, first + int(4.2 * rate)))
    if is_dropping:
        lost = np.random.default_rng(0).random(len(numbers)) < 0.3
        numbers = (
            numbers[:1] + [number for number, is_lost in zip(numbers, lost, strict=True) if not is_lost][1:]
        )
    sound_start_s = float(first / rate) + sound_after_s
    pictures, onsets_s, sound = flashes_and_clicks(rate, numbers, first, sound_start_s, 4.2 - sound_after_s)
    path = write_coded(
        tmp_path / f"scan.{suffix}",
        codec,
        pictures,
        "yuvj420p" if codec == "mjpeg" else "yuv420p",
        rate,
        sound,
        sound_codec,
        sound_start_s,
        options,
    )
    times_s = np.array([float((number - first) / rate) for number in numbers])
    is_white = np.array([picture[0, 0, 0] > 127 for picture in pictures.values()])
    parameters = ClipParameters(
        clip_seconds=1.0, stride_seconds=0.5, frames_per_clip=50, frame_size=32, sector="whole"
    )
    heard = 0
    for clip in cut_clips(opened(path), "scan", parameters):
        moments_s = clip[START_S] + np.arange(50) / 50
        shown = [np.asarray(Image.open(io.BytesIO(frame["bytes"]))).mean() > 127 for frame in clip[FRAMES]]
        nearest = [is_white[np.argmin(np.abs(times_s - moment_s))] for moment_s in moments_s]
        # Where a moment lies between two frames either will do.
        assert sum(a != b for a, b in zip(shown, nearest, strict=True)) <= 4
        heard += _clicks_are_where_they_belong(clip, onsets_s)
    assert heard >= 3


def _clicks_are_where_they_belong(clip: dict, onsets_s: list[float]) -> int:
    """How many clicks lie well within a clip, each within 20 ms of its flash."""
    waveform, _ = soundfile.read(io.BytesIO(clip[AUDIO]["bytes"]))
    envelope = np.abs(waveform)
    expected = [onset_s - clip[START_S] for onset_s in onsets_s if 0.03 < onset_s - clip[START_S] < 0.97]
    for onset_s in expected:
        loudest = int(np.argmax(envelope)) / SAMPLING_RATE_HZ
        assert loudest == pytest.approx(onset_s, abs=SYNCHRONY_S)
    return len(expected)


def test_the_offset_of_the_notes_moves_the_sound(tmp_path):
    path = write_video(tmp_path / "scan.mp4", np.arange(0, 3, 0.04), None, click(3, 1.0))
    notes = tmp_path / "scan.json"
    for offset_s in (0.0, 0.35, -0.4):
        notes.write_text(f'{{"sound_offset_s": {offset_s}}}')
        recording = opened(path, notes=notes)
        assert heard_at_s(recording) == pytest.approx(1.0 + offset_s, abs=0.003)
    sound = write_sound(tmp_path / "audio.wav", "pcm_s16le", 48_000, click(3, 0.5)[None])
    notes.write_text('{"sound_offset_s": 0.25}')
    assert heard_at_s(opened(path, notes=notes, sound=sound)) == pytest.approx(0.75, abs=0.003)


def test_a_tone_in_the_track_gives_way_to_the_file_beside_it(tmp_path):
    path = write_video(tmp_path / "scan.mp4", np.arange(0, 2, 0.04), None, tone(2))
    sound = write_sound(tmp_path / "audio.wav", "pcm_s16le", 48_000, click(2, 0.5)[None])
    assert heard_at_s(opened(path, sound=sound)) == pytest.approx(0.5, abs=0.003)
