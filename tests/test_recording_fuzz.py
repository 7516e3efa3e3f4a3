"""Damaged files: each is read or refused with a sentence; none crashes, hangs or is silently cut."""

import multiprocessing
import os
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from tiny_cines import header, jpeg, jpeg_2000, write, write_coded
from tiny_recordings import SIZE, numbered_picture, tone, write_sound
from tiny_recordings import write_coded as write_video

from datasets_scripts import sound_faults
from datasets_scripts.clip_sound import _pieces
from datasets_scripts.prepare_clips import WITHOUT_SOUND
from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import Recording, RecordingFiles, open_recording
from datasets_scripts.sound_faults import SoundFaults, finite

FRAMES = 25
LIMIT_S = 10
MEMORY_BYTES = 2 << 30
FEW, MANY = 68, 2_000
# What no reader can miss, see `container_structure`: frames and sound of these, which count none; but GIF has
# an end.
UNCOUNTED, ENDLESS = {"scan.mpg", "scan.gif"}, {"scan.mpg"}
# A frame whose own header was hit, and the tenth of a second that a header may round away.
FRAMES_HIT = 3
# The same of the sound.
WHOLE_MS, MS_HIT = 1000, 150
WINDOW = 320  # samples of 10 ms
# Sound is missed by the report from a second on; in files of one second a tenth stands for it.
LEAST_DROPOUT_S = 0.1

VIDEOS = {
    "scan.mp4": ("libx264", "aac", {"bf": "2"}),
    "scan.mov": ("mjpeg", "pcm_s16le", {}),
    "scan.mkv": ("libx264", "flac", {}),
    "scan.webm": ("libvpx", "libopus", {"deadline": "realtime"}),
    "scan.avi": ("mpeg4", "ac3", {}),
    "scan.mpg": ("mpeg2video", "mp2", {"bf": "2"}),
    "scan.ts": ("libx264", "aac", {}),
    "scan.gif": ("gif", None, {}),
}
SOUNDS = {"audio.wav": "pcm_s16le", "audio.flac": "flac", "audio.mp3": "libmp3lame", "audio.opus": "libopus"}
DICOM = ("plain.dcm", "jpeg.dcm", "jpeg_2000.dcm", "rle.dcm", "deflated.dcm")


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `read` with what was found, `refused` with a sentence, or a failure.

    `frames` is their number, `heard_ms` how long the tone of the sound is heard, and `faults` are those that
    the report would tell of the sound, by name.
    """

    kind: str
    frames: int = 0
    text: str = ""
    heard_ms: int = 0
    faults: tuple[str, ...] = ()


def write_dicom(path: Path) -> Path:
    """A cine of `FRAMES` pictures in the form that the file's name says."""
    pictures = [numbered_picture(number)[..., 0] for number in range(FRAMES)]
    syntax, encode = {
        "jpeg": (uid.JPEGBaseline8Bit, jpeg),
        "jpeg_2000": (uid.JPEG2000Lossless, jpeg_2000),
        "deflated": (uid.DeflatedExplicitVRLittleEndian, None),
    }.get(path.stem, (uid.ExplicitVRLittleEndian, None))
    cine = header(syntax, "MONOCHROME2", frames=FRAMES, Rows=SIZE, Columns=SIZE, PatientName="A^B")
    if encode is not None:
        return write_coded(path, cine, [encode(picture) for picture in pictures])
    write(path, cine, np.stack(pictures).tobytes())
    if path.stem == "rle":
        cine.compress(uid.RLELossless)
        cine.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of one small file of each container and of each form of DICOM, by name."""
    folder = tmp_path_factory.mktemp("whole")
    pictures = {number: numbered_picture(number) for number in range(FRAMES)}
    paths = [write_dicom(folder / name) for name in DICOM]
    for name, (codec, sound_codec, options) in VIDEOS.items():
        pixel_format = {"mjpeg": "yuvj420p", "gif": "gray"}.get(codec, "yuv420p")
        sound = None if sound_codec is None else tone(FRAMES / 25)
        paths.append(
            write_video(
                folder / name,
                codec,
                pictures,
                pixel_format,
                sound=sound,
                sound_codec=sound_codec,
                options=options,
            )
        )
    for name, codec in SOUNDS.items():
        paths.append(write_sound(folder / name, codec, 48_000, tone(FRAMES / 25)[None]))
    return {path.name: path.read_bytes() for path in paths}


def damaged(files: dict[str, bytes], case: int) -> tuple[str, str, str, bytes]:
    """Name of the file, kind of damage, name of the file that a piece is taken of, and the damaged bytes of a
    case; the same in every run."""
    generator = np.random.default_rng(case)
    names = sorted(files)
    name = names[case % len(names)]
    whole = files[name]
    damages = {
        "bits": _flip,
        "cut": _cut,
        "header": _splice_header,
        "inside": _splice_inside,
        "lost": _lose,
        "zeros": _zero,
    }
    kind = list(damages)[case // len(names) % len(damages)]
    other = names[int(generator.integers(len(names)))]
    return name, kind, other, damages[kind](whole, files[other], generator)


def _flip(whole: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Up to 16 bits turned over, half of the time within the first kilobyte, where headers are."""
    data = bytearray(whole)
    reach = min(len(data), 1024) if generator.random() < 0.5 else len(data)
    for _ in range(generator.integers(1, 17)):
        data[generator.integers(reach)] ^= 1 << int(generator.integers(8))
    return bytes(data)


def _cut(whole: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    return whole[: generator.integers(len(whole))]


def _splice_header(whole: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    length = int(generator.integers(1, 2048))
    return other[:length] + whole[length:]


def _splice_inside(whole: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    length = int(generator.integers(1, 2048))
    at, source = (int(generator.integers(max(1, len(data) - length))) for data in (whole, other))
    return whole[:at] + other[source : source + length] + whole[at + length :]


def _lose(whole: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    at = int(generator.integers(len(whole)))
    return whole[:at] + whole[at + int(generator.integers(1, 2048)) :]


def _zero(whole: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    at, length = int(generator.integers(len(whole))), int(generator.integers(1, 2048))
    return whole[:at] + bytes(len(whole[at : at + length])) + whole[at + length :]


def read_all(path: Path) -> Outcome:
    """Everything the preparation asks of a recording."""
    if path.name in SOUNDS:
        files = RecordingFiles(path.name, path.with_name("scan.mp4"), sound=path)
    else:
        files = RecordingFiles(path.name, path)
    recording = open_recording(files)
    frames = sum(frame.read_pixels().size > 0 for frame in recording.frames())
    recording.sampled_frames()
    for _ in recording.frames_at(0.1 * number for number in range(100_000)):
        pass
    if not recording.has_sound:
        return Outcome("read", frames, faults=(WITHOUT_SOUND,))
    windows = recording.sound()
    for second in range(3):
        windows.window(float(second), 1.0)
    heard_ms, faults = heard(recording)
    return Outcome("read", frames, heard_ms=heard_ms, faults=faults)


def heard(recording: Recording) -> tuple[int, tuple[str, ...]]:
    """For how long the tone is heard, in windows of 10 ms, and the faults that are told."""
    faults, samples = SoundFaults(), [np.zeros(0, np.float32)]
    for piece in _pieces(recording):
        faults.hear(piece)
        samples.append(finite(piece))
    sound = np.concatenate(samples)
    windows = sound[: len(sound) // WINDOW * WINDOW].reshape(-1, WINDOW)
    told = set(faults.counts(FRAMES / 25)) - {"sound_ms", "clipped_samples"}
    return int(10 * (np.abs(windows).max(axis=1) > 0.01).sum()), tuple(sorted(told))


def _child(path: Path, pipe) -> None:
    sound_faults.LEAST_DROPOUT_S = LEAST_DROPOUT_S
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES + _address_space_bytes(), resource.RLIM_INFINITY))
    try:
        outcome = read_all(path)
    except RecordingError as error:
        outcome = Outcome("refused", text=str(error))
    except BaseException:
        outcome = Outcome("crash", text=traceback.format_exc()[-1500:])
    pipe.send(outcome)


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def outcome_of(path: Path) -> Outcome:
    """Read a file in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(path, sender))
    child.start()
    sender.close()
    try:
        outcome = receiver.recv() if receiver.poll(LIMIT_S) else Outcome("hang")
    except EOFError:
        outcome = None
    if outcome is not None and outcome.kind == "hang":
        child.kill()
    child.join()
    return outcome or Outcome("crash", text=f"ended by {signal.Signals(-child.exitcode).name}")


def complaint(files: dict[str, bytes], folder: Path, case: int) -> str | None:
    """What is wrong with how a case was taken; None where all is well."""
    name, kind, other, data = damaged(files, case)
    folder = folder / str(case)
    folder.mkdir()
    (folder / "scan.mp4").write_bytes(files["scan.mp4"])
    (folder / name).write_bytes(data)
    outcome = outcome_of(folder / name)
    shutil.rmtree(folder)
    where = f"case {case}, {kind} of {name}"
    if outcome.kind in ("crash", "hang"):
        return f"{where}: {outcome.kind} {outcome.text}"
    if outcome.kind == "refused":
        is_sentence = outcome.text.startswith(f"{name}: ") and outcome.text.endswith(".")
        return None if is_sentence else f"{where}: no sentence: {outcome.text!r}"
    # Another file's header makes it that file, which has other pictures and other sound.
    containers = {name, other} if kind == "header" else {name}
    return next((f"{where} ({other}): {lost}" for lost in _silently_lost(outcome, kind, containers)), None)


def _silently_lost(outcome: Outcome, kind: str, containers: set[str]) -> Iterator[str]:
    is_cut = kind == "cut"
    unseen = (ENDLESS if is_cut else UNCOUNTED) & containers
    has_frames = not containers & {*SOUNDS} or not containers - {*SOUNDS}
    if outcome.frames < FRAMES - (0 if is_cut else FRAMES_HIT) and not unseen and has_frames:
        yield f"{FRAMES - outcome.frames} of {FRAMES} frames silently dropped"
    has_sound = all(name in SOUNDS or VIDEOS.get(name, (None, None))[1] for name in containers)
    if has_sound and outcome.heard_ms < WHOLE_MS - MS_HIT and not (outcome.faults or unseen):
        yield f"{WHOLE_MS - outcome.heard_ms} of {WHOLE_MS} ms of sound silently dropped"


def complaints(files: dict[str, bytes], folder: Path, cases: range) -> list[str]:
    """In two processes side by side, each of which starts one for each case."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = pool.map(partial(complaint, files, folder), cases, chunksize=5)
        return [one for one in found if one is not None]


def test_whole_files_are_read(whole_files, tmp_path):
    for name, data in whole_files.items():
        (tmp_path / name).write_bytes(data)
        outcome = outcome_of(tmp_path / name)
        has_sound = name in SOUNDS or VIDEOS.get(name, (None, None))[1] is not None
        told = () if has_sound else (WITHOUT_SOUND,)
        assert (outcome.kind, outcome.frames, outcome.faults) == ("read", FRAMES, told), name
        assert outcome.heard_ms == pytest.approx(WHOLE_MS * has_sound, abs=50), name


def test_damaged_files_are_read_or_refused(whole_files, tmp_path):
    assert complaints(whole_files, tmp_path, range(FEW)) == []


@pytest.mark.slow
def test_two_thousand_damaged_files_are_read_or_refused(whole_files, tmp_path):
    assert complaints(whole_files, tmp_path, range(FEW, MANY)) == []


@pytest.mark.parametrize("claimed_bytes", [0, 200])
def test_a_sound_file_that_says_it_is_empty_is_told(whole_files, tmp_path, claimed_bytes):
    data = bytearray(whole_files["audio.wav"])
    at = data.index(b"data") + 4
    data[at : at + 4] = claimed_bytes.to_bytes(4, "little")
    (tmp_path / "scan.mp4").write_bytes(whole_files["scan.mp4"])
    (tmp_path / "audio.wav").write_bytes(data)
    outcome = outcome_of(tmp_path / "audio.wav")
    assert outcome.kind == "refused" or outcome.heard_ms > WHOLE_MS - MS_HIT or outcome.faults, outcome


def test_packets_that_a_transport_stream_has_lost_are_missed(whole_files, tmp_path):
    whole, path = whole_files["scan.ts"], tmp_path / "scan.ts"
    for first in range(20, len(whole) // 188 - 20, 7):
        path.write_bytes(whole[: 188 * first] + whole[188 * (first + 9) :])
        outcome = outcome_of(path)
        assert outcome.kind == "refused", first


def test_the_harness_sees_a_crash_a_hang_and_a_loss(whole_files, tmp_path, monkeypatch):
    def failing(path: Path) -> Outcome:
        return {"crash": lambda: os.kill(os.getpid(), signal.SIGKILL), "hang": lambda: time.sleep(60)}.get(
            path.stem, lambda: 1 / 0
        )()

    monkeypatch.setattr(f"{__name__}.read_all", failing)
    monkeypatch.setattr(f"{__name__}.LIMIT_S", 0.5)
    assert outcome_of(tmp_path / "crash.mp4").text == "ended by SIGKILL"
    assert outcome_of(tmp_path / "hang.mp4").kind == "hang"
    assert "ZeroDivisionError" in outcome_of(tmp_path / "error.mp4").text
    monkeypatch.setattr(f"{__name__}.read_all", lambda path: Outcome("read", FRAMES - 5, heard_ms=WHOLE_MS))
    assert any("frames silently dropped" in str(complaint(whole_files, tmp_path, case)) for case in range(5))
    monkeypatch.setattr(f"{__name__}.read_all", lambda path: Outcome("read", FRAMES, heard_ms=WHOLE_MS // 2))
    assert any("sound silently dropped" in str(complaint(whole_files, tmp_path, case)) for case in range(5))
