"""Recordings as real files: one clock for picture and sound, and a named error for each way of failing."""

import json
import os
from pathlib import Path

import av
import numpy as np
import pydicom
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_recordings import (
    SIZE,
    click,
    even_times,
    number_of,
    numbered_picture,
    tone,
    write_coded,
    write_video,
)

from datasets_scripts import media_streams
from datasets_scripts import recording_errors as errors
from datasets_scripts.media_streams import Frame, SoundWindows, evenly_spaced
from datasets_scripts.recordings import FRAMES_TO_SEARCH, RecordingFiles, find_recordings, open_recording
from datasets_scripts.schema import SAMPLING_RATE_HZ


def opened(path: Path, **others: Path):
    return open_recording(RecordingFiles(path.name, path, **others))


def read_whole(path: Path) -> list[int]:
    return [number_of(frame.read_pixels()) for frame in opened(path).frames()]


def irregular_times(seconds: float, seed: int = 0) -> np.ndarray:
    gaps = np.random.default_rng(seed).uniform(0.02, 0.12, 200)
    times = np.cumsum(gaps) - gaps[0]
    return times[times < seconds]


@pytest.mark.parametrize("start_s", [0.0, 8.333])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("rate", ["constant", "variable"])
def test_flash_and_click_at_one_time_stay_together(tmp_path, start_s, suffix, rate):
    times = even_times(3) if rate == "constant" else irregular_times(3)
    flash = len(times) // 2
    pictures = [np.full((SIZE, SIZE, 3), 255 * (i == flash), dtype=np.uint8) for i in range(len(times))]
    sound_lead_s = 0.25 if start_s else 0.0  # the sound begins before the picture
    path = write_video(
        tmp_path / f"scan.{suffix}",
        times + start_s,
        pictures,
        click(3 + sound_lead_s, times[flash] + sound_lead_s),
        sound_start_s=start_s - sound_lead_s,
    )
    recording = opened(path)
    frames = list(recording.frames())
    brightness = [frame.read_pixels().mean() for frame in frames]
    waveform = recording.sound().window(0.0, 2.5)
    assert frames[0].time_s == 0.0
    assert len(frames) == len(times)
    assert np.argmax(brightness) == flash
    assert frames[flash].time_s == pytest.approx(times[flash], abs=0.002)
    assert np.argmax(np.abs(waveform)) / SAMPLING_RATE_HZ == pytest.approx(times[flash], abs=0.01)


def test_sound_that_starts_late_is_placed_by_its_time_stamp(tmp_path):
    path = write_video(tmp_path / "scan.mp4", even_times(3), None, click(2, 0.5), sound_start_s=1.0)
    waveform = opened(path).sound().window(0.0, 3.0)
    assert np.argmax(np.abs(waveform)) / SAMPLING_RATE_HZ == pytest.approx(1.5, abs=0.01)
    assert np.abs(waveform[: int(0.95 * SAMPLING_RATE_HZ)]).max() < 0.01


def test_a_gap_in_the_sound_does_not_move_what_follows(tmp_path):
    """A track whose time stamps jump by 0.4 s, as after dropped packets."""
    whole = write_video(
        tmp_path / "whole.mkv", even_times(4), None, click(4, 3.0), codecs=("libx264", "flac")
    )
    path = tmp_path / "gap.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as sink:
        streams = {s.index: sink.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            dropped = (
                packet.stream.type == "audio" and packet.pts is not None and 1.0 < packet.pts / 1000 < 1.4
            )
            if packet.dts is not None and not dropped:
                packet.stream = streams[packet.stream.index]
                sink.mux(packet)
    waveform = opened(path).sound().window(0.0, 4.0)
    assert np.argmax(np.abs(waveform)) / SAMPLING_RATE_HZ == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("sampling_rate_hz", [8_000, 44_100, 96_000])
def test_sound_beside_the_video_is_resampled_and_starts_with_it(tmp_path, sampling_rate_hz):
    video = write_video(tmp_path / "scan.mp4", even_times(2, start_s=5.0), None, tone(2), sound_start_s=5.0)
    stereo = np.stack([click(2, 1.0, sampling_rate_hz), np.zeros(2 * sampling_rate_hz)], axis=1)
    soundfile.write(tmp_path / "audio.wav", stereo, sampling_rate_hz)
    waveform = opened(video, sound=tmp_path / "audio.wav").sound().window(0.0, 2.0)
    assert waveform.shape == (2 * SAMPLING_RATE_HZ,)
    assert np.argmax(np.abs(waveform)) / SAMPLING_RATE_HZ == pytest.approx(1.0, abs=0.001)


def test_the_last_samples_of_a_sound_are_kept(tmp_path):
    video = write_video(tmp_path / "scan.mp4", even_times(2))
    soundfile.write(tmp_path / "audio.wav", np.full(2 * 8_000, 0.5), 8_000)
    waveform = opened(video, sound=tmp_path / "audio.wav").sound().window(0.0, 2.0)
    assert waveform[-8:].min() > 0.3


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_may_be_shorter_or_longer_than_the_video(tmp_path, suffix):
    for seconds in (1.0, 3.0):
        path = write_video(tmp_path / f"{seconds}.{suffix}", even_times(2), None, tone(seconds))
        assert len(read_whole(path)) == 60
        sound = opened(path).sound()
        assert sound.window(0.0, 2.0) is not None
        assert (sound.window(2.0, 1.0) is not None) == (seconds == 3.0)


def test_a_repeated_time_stamp_gives_one_frame(tmp_path):
    times = [0.0, 0.1, 0.1, 0.2]
    path = write_video(tmp_path / "scan.mkv", times, codecs=("ffv1", "flac"))
    with av.open(str(path)) as container:
        assert [frame.time for frame in container.decode(video=0)] == times
    assert read_whole(path) == [0, 1, 3]


def test_a_window_with_less_than_half_of_its_sound_is_no_silence(tmp_path):
    sound = opened(write_video(tmp_path / "scan.mp4", even_times(4), None, tone(1.5))).sound()
    assert sound.window(0.0, 1.0) is not None
    half = sound.window(1.0, 1.0)
    assert np.abs(half[:15_000]).max() > 0.05
    assert np.abs(half[18_000:]).max() == 0
    assert sound.window(1.2, 1.0) is None
    assert sound.window(3.0, 1.0) is None


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
    st.lists(st.floats(0, 3), min_size=1, max_size=6).map(sorted),
)
def test_windows_equal_slices_however_the_sound_is_chunked(lengths, starts):
    whole = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    ends = np.cumsum(lengths)
    chunks = ((int(end - n), whole[end - n : end]) for n, end in zip(lengths, ends, strict=True))
    windows = SoundWindows(chunks, sampling_rate_hz=100)
    padded = np.concatenate([whole, np.zeros(1000, dtype=np.float32)])
    for start_s in starts:
        expected = padded[round(start_s * 100) :][:50]
        window = windows.window(start_s, 0.5)
        if np.count_nonzero(expected) >= 25:
            np.testing.assert_array_equal(window, expected)
        else:
            assert window is None


def test_frames_at_gives_the_nearest_frame_until_the_end(tmp_path):
    times = irregular_times(2)
    recording = opened(write_video(tmp_path / "scan.mp4", times))
    wanted = np.arange(0, times[-1], 0.013)
    found = [number_of(frame.read_pixels()) for frame in recording.frames_at(wanted)]
    assert found == [int(np.argmin(np.abs(times - time))) for time in wanted]
    assert list(recording.frames_at([times[-1] + 1.0])) == []


def test_frames_at_knows_how_long_the_last_frame_lasts(tmp_path):
    recording = opened(write_video(tmp_path / "scan.mp4", even_times(2)))
    assert len(list(recording.frames_at([0.0, 2.0]))) == 2
    assert len(list(recording.frames_at([0.0, 2.03]))) == 1


def test_a_last_frame_that_stays_is_there_until_its_end(tmp_path):
    recording = opened(write_video(tmp_path / "scan.mp4", even_times(1)))
    recording.frames = lambda: iter([Frame(0.0, 0.1, None), Frame(0.1, 5.0, None)])
    assert [frame.time_s for frame in recording.frames_at([0.0, 4.9])] == [0.0, 0.1]


@pytest.mark.media
def test_the_default_of_several_streams_is_read(media):
    recording = opened(media / "odd_media" / "nasa_13013.mp4")
    assert (recording.width, recording.height, recording.has_sound) == (480, 270, True)


@pytest.mark.media
def test_odd_real_files_are_read_whole(media):
    shapes = {}
    for name in ("test_non_zero_start.mp4", "testsrc2_odd_height_and_width_444.mp4"):
        frames = list(opened(media / "odd_media" / name).frames())
        shapes[name] = (len(frames), frames[0].time_s, frames[-1].read_pixels().shape)
    assert shapes == {
        "test_non_zero_start.mp4": (12, 0.0, (112, 200, 3)),
        "testsrc2_odd_height_and_width_444.mp4": (25, 0.0, (241, 321, 3)),
    }


@pytest.mark.media
def test_a_dicom_cine_is_read_with_its_frame_times(media):
    frames = list(opened(media / "ultrasound_dicom" / "examples_ybr_color.dcm").frames())
    assert len(frames) == 30
    assert frames[-1].time_s == pytest.approx(29 * 0.033333)
    assert frames[7].read_pixels().shape == (240, 320, 3)
    assert frames[7].read_pixels().std() > 5


@pytest.mark.media
def test_a_dicom_cine_cut_short_is_never_a_short_cine(media, tmp_path):
    whole = (media / "ultrasound_dicom" / "examples_ybr_color.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.TruncatedError, match=r"cut\.dcm.*30 frames"):
        list(opened(tmp_path / "cut.dcm").frames())


def write_cine(path: Path, frames: int = 3, **elements: object) -> Path:
    """A grey, uncompressed cine whose frame i is all 10 * i, or i where it is long."""
    step = 10 if frames <= 25 else 1
    cine = pydicom.Dataset()
    cine.file_meta = pydicom.dataset.FileMetaDataset()
    cine.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    cine.SOPClassUID, cine.SOPInstanceUID = pydicom.uid.UltrasoundMultiFrameImageStorage, "1.2.3"
    cine.PhotometricInterpretation, cine.SamplesPerPixel, cine.NumberOfFrames = "MONOCHROME2", 1, frames
    cine.Rows, cine.Columns, cine.BitsAllocated, cine.BitsStored, cine.HighBit = 4, 6, 8, 8, 7
    cine.PixelRepresentation = 0
    cine.PixelData = b"".join(bytes([step * index] * 24) for index in range(frames))
    for element, value in elements.items():
        setattr(cine, element, value)
    cine.save_as(path, enforce_file_format=True)
    return path


@given(st.integers(0, 400), st.integers(1, 20))
def test_evenly_spaced_items_come_from_all_over(number, count):
    kept = evenly_spaced(range(number), count)
    assert len(kept) == number or count <= len(kept) < 2 * count
    step = kept[1] - kept[0] if len(kept) > 1 else max(number, 1)
    assert kept == list(range(0, number, step))


def sampled_numbers(path: Path) -> list[int]:
    return [number_of(picture) for picture in opened(path).sampled_frames()]


def test_a_sample_is_of_key_frames_where_there_are_enough(tmp_path):
    path = write_video(tmp_path / "scan.mkv", even_times(8), codecs=("msmpeg4", "aac"))
    with av.open(str(path)) as container:
        are_key = [frame.key_frame for frame in container.decode(video=0)]
    assert FRAMES_TO_SEARCH <= sum(are_key) < 2 * FRAMES_TO_SEARCH
    assert sampled_numbers(path) == list(np.flatnonzero(are_key))


def test_of_many_key_frames_those_of_the_sample_alone_are_decoded(tmp_path, monkeypatch):
    """However far apart they are: the third of a three-hour recording is shown after ten minutes."""
    path = write_video(tmp_path / "scan.mkv", 300.0 * np.arange(40), codecs=("mjpeg", "aac"))
    frames_of, given = media_streams._frames, []

    def counted(packets, *rest):
        given.extend(packets)
        return frames_of(packets, *rest)

    recording = opened(path)
    monkeypatch.setattr(media_streams, "_frames", counted)
    numbers = [number_of(picture) for picture in recording.sampled_frames()]
    assert numbers == list(range(0, 40, 2)) and len(given) == len(numbers) + 1
    recording.sampled_frames()
    assert len(given) == len(numbers) + 1, "they are held"


def test_of_large_pictures_fewer_are_sampled(tmp_path, monkeypatch):
    path = write_video(tmp_path / "scan.mkv", even_times(1), codecs=("mjpeg", "aac"))
    monkeypatch.setattr("datasets_scripts.recordings.MOST_SAMPLED_BYTES", 3 * 64 * 64 * 11)
    numbers = sampled_numbers(path)
    assert len(numbers) == 11 and numbers[0] == 0 and numbers[-1] >= 26
    assert min(np.diff(numbers)) >= 2


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_sample_of_frames_that_others_refer_to_is_whole(tmp_path, codec):
    """Without enough key frames, half of the others are left out, and none is torn."""
    options = {"bf": "2", "g": "1000"}
    pictures = {number: numbered_picture(number) for number in range(100)}
    numbers = sampled_numbers(write_coded(tmp_path / "scan.mkv", codec, pictures, options=options))
    assert FRAMES_TO_SEARCH <= len(numbers) < 2 * FRAMES_TO_SEARCH
    assert numbers == sorted(set(numbers)) and max(np.diff(numbers)) <= 9


@pytest.mark.parametrize(("frames", "step"), [(100, 4), (9, 1)])
def test_a_sample_is_of_all_frames_where_key_frames_are_few(tmp_path, frames, step):
    path = write_video(tmp_path / "scan.mp4", even_times(frames / 30))
    assert sampled_numbers(path) == list(range(0, frames, step))


def test_a_sample_of_a_cine_decodes_no_other_frames(tmp_path, monkeypatch):
    cine = opened(write_cine(tmp_path / "long.dcm", 250, FrameTime=40))
    decoded = []
    iter_pixels = pydicom.pixels.iter_pixels

    def counted(path, indices):
        for array in iter_pixels(path, indices=indices):
            decoded.append(array)
            yield array

    monkeypatch.setattr("datasets_scripts.dicom_cine.iter_pixels", counted)
    assert [int(picture[0, 0, 0]) for picture in cine.sampled_frames()] == list(range(0, 250, 16))
    assert len(decoded) < 2 * FRAMES_TO_SEARCH


def test_a_sample_of_a_file_cut_short_tells_so(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", even_times(8)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.TruncatedError, match=r"cut\.mkv"):
        opened(tmp_path / "cut.mkv").sampled_frames()


# What bad input gets.


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory) -> dict[str, bytes]:
    """An mp4 with its index in front, one with its index at the end, and an mkv; 2 s each, with sound."""
    folder = tmp_path_factory.mktemp("good")
    front = {"movflags": "faststart"}
    return {
        "front.mp4": write_video(folder / "a.mp4", even_times(2), None, tone(2), options=front).read_bytes(),
        "end.mp4": write_video(folder / "b.mp4", even_times(2), None, tone(2)).read_bytes(),
        "a.mkv": write_video(folder / "a.mkv", even_times(2), None, tone(2)).read_bytes(),
    }


@pytest.mark.parametrize("name", ["front.mp4", "end.mp4", "a.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_never_a_short_recording(tmp_path, good_bytes, name, share):
    whole = good_bytes[name]
    (tmp_path / name).write_bytes(whole)
    assert len(read_whole(tmp_path / name)) == 60
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(errors.TruncatedError, match=f"{name}.*cut short"):
        read_whole(tmp_path / name)


def test_bytes_overwritten_within_a_file_are_damage(tmp_path, good_bytes):
    damaged = bytearray(good_bytes["front.mp4"])
    middle = len(damaged) // 2
    damaged[middle : middle + 8000] = bytes(8000)
    (tmp_path / "scan.mp4").write_bytes(damaged)
    with pytest.raises(errors.DamagedError, match=r"scan\.mp4"):
        read_whole(tmp_path / "scan.mp4")


def test_noise_within_a_picture_is_damage(tmp_path):
    """The decoder conceals such damage and says so only in a flag of the frame."""
    pictures = list(np.random.default_rng(0).integers(0, 255, (30, SIZE, SIZE, 3), dtype=np.uint8))
    damaged = bytearray(write_video(tmp_path / "scan.mp4", even_times(1), pictures).read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    (tmp_path / "scan.mp4").write_bytes(damaged)
    with pytest.raises(errors.DamagedError, match=r"scan\.mp4"):
        read_whole(tmp_path / "scan.mp4")


def test_a_sound_file_cut_short_is_named(tmp_path, good_bytes):
    video = write_video(tmp_path / "scan.mp4", even_times(2))
    (tmp_path / "audio.m4a").write_bytes(good_bytes["front.mp4"][:-4000])
    with pytest.raises(errors.TruncatedError, match="cut short"):
        opened(video, sound=tmp_path / "audio.m4a").sound().window(0.0, 2.0)


def test_files_that_are_no_recording_are_named(tmp_path):
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 100)
    (tmp_path / "empty.mp4").touch()
    write_video(tmp_path / "sound.mp4", sound=tone(2))
    soundfile.write(tmp_path / "sound.wav", tone(1), 48_000)
    write_video(tmp_path / "cover.mp4", [0.0], sound=tone(2), codecs=("mjpeg", "aac"), is_cover=True)
    expected = {
        "text.mp4": errors.UnreadableError,
        "empty.mp4": errors.EmptyRecordingError,
        "sound.mp4": errors.NoVideoError,
        "sound.wav": errors.NoVideoError,
        "cover.mp4": errors.NoVideoError,
        "absent.mp4": errors.UnreadableError,
    }
    for name, error in expected.items():
        with pytest.raises(error, match=name):
            opened(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    write_video(tmp_path / "scan.mp4", even_times(1)).chmod(0)
    with pytest.raises(errors.UnreadableError, match=r"scan\.mp4.*may read"):
        opened(tmp_path / "scan.mp4")


# The folder and what lies beside a video.


def test_folders_of_scans_and_flat_folders_are_found(tmp_path):
    for name in [
        "b/scan.mp4",
        "b/scan.json",
        "b/other.mp4",
        "b/audio.wav",
        "a/scan.avi",
        "a/gaze.csv",
        "a/planes.csv",
        "flat/2.mkv",
        "flat/1.MP4",
        "flat/voice.wav",
        "flat/readme.txt",
        "flat/.hidden.mp4",
        "deep/er/x.dcm",
        "none/scan.json",
        "two/1.mp4",
        "two/2.mp4",
        "two/gaze.csv",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "void").mkdir()
    found = {files.name: files for files in find_recordings(tmp_path)}
    assert list(found) == sorted(found)
    assert {name: files.video and files.video.name for name, files in found.items()} == {
        "a": "scan.avi",
        "b": "scan.mp4",
        "deep/er/x.dcm": "x.dcm",
        "flat/1.MP4": "1.MP4",
        "flat/2.mkv": "2.mkv",
        "flat/voice.wav": "voice.wav",
        "none": None,
        "two": None,
        "void": None,
    }
    assert found["b"].sound.name == "audio.wav"
    assert (found["a"].gaze.name, found["a"].planes.name, found["b"].notes.name) == (
        "gaze.csv",
        "planes.csv",
        "scan.json",
    )
    for name in ("none", "two", "void"):
        with pytest.raises(errors.NoVideoError, match=name):
            open_recording(found[name])


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError, match="folder"):
        find_recordings(tmp_path / "a")


@pytest.fixture()
def scan(tmp_path) -> Path:
    return write_video(tmp_path / "s" / "scan.mp4", even_times(1)).parent


def test_gaze_planes_and_notes_are_read(scan):
    (scan / "gaze.csv").write_text("\ufefftime_s,x,y\n0.0,0.5,0.25\n0.1,0.6,0.3\n")
    (scan / "planes.csv").write_text("label,start_s,end_s,remark\nfemur,0.2,0.9,\n")
    (scan / "scan.json").write_text(json.dumps({"patient_id": 17, "crop": [0, 2, 60, 64], "depth_cm": 12}))
    (files,) = find_recordings(scan.parent)
    recording = open_recording(files)
    np.testing.assert_array_equal(recording.gaze(), [[0.0, 0.5, 0.25], [0.1, 0.6, 0.3]])
    (scan / "gaze.csv").write_text("time_s,x,y\n0.0,,\n0.1,nan,0.3\n0.2,NaN,NaN\n0.3,0.6,0.3\n")
    blinks = np.isnan(recording.gaze())
    np.testing.assert_array_equal(blinks[:, 0], False)
    np.testing.assert_array_equal(blinks[:, 1], [True, True, True, False])
    np.testing.assert_array_equal(blinks[:, 2], [True, False, True, False])
    (plane,) = recording.planes()
    assert (plane.start_s, plane.end_s, plane.label) == (0.2, 0.9, "femur")
    assert recording.notes.patient_id == "17"
    assert recording.notes.crop == (0, 2, 60, 64)


def test_absent_companions_are_none(scan):
    recording = opened(scan / "scan.mp4")
    assert recording.gaze() is None
    assert recording.planes() is None
    assert recording.sound() is None
    assert recording.notes.patient_id is None


@pytest.mark.parametrize("name", ["gaze.csv", "gaze.tsv", "gaze.txt", "gaze.asc", "gaze.json"])
def test_exports_of_eye_trackers_are_found(scan, name):
    (scan / name).touch()
    (files,) = find_recordings(scan.parent)
    assert (files.gaze, files.ambiguous) == (scan / name, ())


@pytest.mark.parametrize("pair", [("gaze.csv", "gaze.asc"), ("audio.wav", "audio.mp3")])
def test_two_files_in_the_place_of_one_are_named(scan, pair):
    for name in pair:
        (scan / name).touch()
    (files,) = find_recordings(scan.parent)
    with pytest.raises(
        errors.SidecarError, match=rf"s: of {pair[1]} and {pair[0]} only one|s: of {pair[0]} and"
    ):
        open_recording(files)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("scan.json", "{patient", r"scan\.json is no JSON"),
        ("scan.json", "[1]", "one JSON object"),
        ("scan.json", '{"crop": [0, 0, 65, 10]}', "crop.*64 x 64"),
        ("scan.json", '{"crop": [5, 0, 5, 10]}', "crop"),
        ("scan.json", '{"crop": [0, 0.5, 5, 10]}', "whole pixels"),
        ("gaze.csv", "time_s,x\n0,0\n", "lacks the column y"),
        ("gaze.csv", "time_s,x,y\n0,0,0\n1,left,0\n", r"gaze\.csv, line 3: x is 'left'"),
        ("gaze.csv", "", "lacks the column time_s, x, y"),
        ("gaze.csv", "time_s,x,y\n,0,0\n", r"gaze\.csv, line 2: time_s is '', not a number"),
        ("gaze.csv", "time_s,x,y\n0,0,0\nnan,0,0\n", r"gaze\.csv, line 3: time_s is 'nan', not a time"),
        ("gaze.csv", "time_s,x,y\n0,0\n", r"gaze\.csv, line 2: y is None"),
        ("planes.csv", "start_s,end_s,label\n0,1,femurs\n", "line 2: 'femurs'"),
        ("planes.csv", "start_s,end_s,label\n1,1,femur\n", "empty"),
    ],
)
def test_a_companion_that_holds_nonsense_is_named(scan, file, text, message):
    (scan / file).write_text(text)
    (files,) = find_recordings(scan.parent)
    with pytest.raises(errors.SidecarError, match=message) as raised:
        recording = open_recording(files)
        recording.gaze()
        recording.planes()
    assert str(raised.value).startswith("s: ")
