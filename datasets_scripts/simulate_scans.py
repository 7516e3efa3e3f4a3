"""Recordings made from nothing, as real files, since no fetal recording with speech is public.

    python -m datasets_scripts.simulate_scans OUT --scans 8 --seed 0 --preview sheet.png

Each scan is a folder: `scan.mp4` (H.264 and AAC), `planes.csv`, `gaze.csv`, `remarks.csv` (what is said, for
checks; nothing trains on it) and `scan.json`. The same seed gives the same recordings on any number of
workers, and to the byte on processors with the same instructions. What a scan shows, how it looks, how the
probe moves, who speaks and what is said are drawn apart, so that the voice tells nothing of the pictures, and
other shares of speech change no picture, voice or time.
"""

import argparse
import csv
import dataclasses
import inspect
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from tqdm import tqdm

from .simulated_anatomy import draw_patient
from .simulated_gaze import simulate_gaze
from .simulated_probe import ProbePath, holds_of
from .simulated_speech import Narration, SpeechParameters, narrate
from .simulated_ultrasound import Renderer, draw_style
from .simulated_visits import Visit, plan_visits

AUDIO_BIT_RATE = 64_000


@dataclass(frozen=True)
class SimulationParameters:
    """What is simulated.

    Args:
        scans: how many scans.
        seed: of everything; scan number n is the same whatever `scans` is.
        scan_seconds: length of a scan.
        image_size: height and width of the picture in pixels, an even number.
        frames_per_second: how many pictures of the video make a second.
        hold_seconds: range of the time that the probe holds a plane.
        search_seconds: range of the time from one plane to the next.
        repeat_share: share of the scans that are of the same patient as the scan before.
        speech: how the scans are narrated.

    Raises:
        ValueError: a value is out of its range.
    """

    scans: int = 8
    seed: int = 0
    scan_seconds: float = 60.0
    image_size: int = 128
    frames_per_second: int = 30
    hold_seconds: tuple[float, float] = (4.0, 7.0)
    search_seconds: tuple[float, float] = (1.0, 2.0)
    repeat_share: float = 0.05
    speech: SpeechParameters = field(default_factory=SpeechParameters)

    def __post_init__(self) -> None:
        self._require("scans", self.scans >= 1, "1 or more")
        self._require("seed", self.seed >= 0, "0 or more")
        self._require("scan_seconds", self.scan_seconds >= 1, "1 or more")
        self._require(
            "image_size", self.image_size >= 32 and self.image_size % 2 == 0, "an even number from 32"
        )
        self._require("frames_per_second", self.frames_per_second >= 1, "1 or more")
        self._require("repeat_share", 0 <= self.repeat_share < 1, "at least 0 and below 1")
        for name in ("hold_seconds", "search_seconds"):
            low, high = getattr(self, name)
            self._require(name, 0 < low <= high, "two positive numbers, the lower first")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"SimulationParameters.{name} is {getattr(self, name)}; give {what}.")


class SimulationError(Exception):
    """Nothing was simulated, for the reason that the message gives."""


class _Streams(NamedTuple):
    """Generators of one scan, drawn apart so that none depends on what another was used for."""

    look: np.random.Generator
    visits: np.random.Generator
    anatomy: np.random.Generator
    motion: np.random.Generator
    noise: np.random.Generator
    gaze: np.random.Generator
    voice: np.random.Generator
    wording: np.random.Generator


def simulate_scans(
    output_dir: str | Path,
    parameters: SimulationParameters,
    indices: Sequence[int] | None = None,
    workers: int | None = None,
) -> list[Path]:
    """Writes scans.

    Args:
        output_dir: a folder that is not there yet, or is empty.
        indices: numbers of the scans to write, each below `parameters.scans`; None writes all of them.
        workers: processes; None takes one a core.

    Returns:
        The folders of the scans, in order.

    Raises:
        SimulationError: the folder holds something already, an index is none of the scans or comes twice, or
            there are no workers.
    """
    output_dir = Path(output_dir)
    wanted = range(parameters.scans) if indices is None else indices
    workers = multiprocessing.cpu_count() if workers is None else workers
    _check(output_dir, wanted, parameters.scans, workers)
    output_dir.mkdir(parents=True, exist_ok=True)
    workers = min(workers, max(1, len(wanted)))
    patients = _patient_numbers(parameters)
    jobs = [(output_dir, parameters, index, patients[index]) for index in wanted]
    folders: list[Path] = []
    with tqdm(total=len(jobs), desc="simulating scans", unit="scan") as bar:
        for folder in _run(simulate_scan, jobs, workers):
            folders.append(folder)
            bar.update()
    return sorted(folders)


def _check(output_dir: Path, indices: Sequence[int], scans: int, workers: int) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise SimulationError(f"{output_dir} is a file: give the name of a new folder.")
    if output_dir.exists() and any(output_dir.iterdir()):
        raise SimulationError(f"The folder {output_dir} is not empty: give another, or remove it first.")
    if len(set(indices)) != len(indices) or not set(indices) <= set(range(scans)):
        raise SimulationError(
            f"indices is {list(indices)}: give numbers from 0 to {scans - 1}, each at most once."
        )
    if workers < 1:
        raise SimulationError(f"workers is {workers}: give 1 or more.")


def _run(function: Callable[..., Path], jobs: Sequence[tuple], workers: int) -> Iterator[Path]:
    with _one_thread_a_process(), ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(function, *job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # or an error would be told only after all the other scans


@contextmanager
def _one_thread_a_process() -> Iterator[None]:
    """Processes started within it compute with one thread.

    Their products of matrices are small, and the threads of several processes that wait for each other on few
    cores cost a hundredfold.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def simulate_scan(
    output_dir: Path, parameters: SimulationParameters, index: int, patient_number: int
) -> Path:
    """Writes scan number `index`, whole or not at all; returns its folder."""
    streams = _streams(parameters.seed, index)
    duration_s = parameters.scan_seconds
    visits = plan_visits(duration_s, streams.visits, parameters.hold_seconds, parameters.search_seconds)
    renderer = Renderer(draw_style(streams.look), parameters.image_size, streams.noise)
    patient = draw_patient(_generator(parameters.seed, 1, patient_number))
    path = ProbePath(holds_of(visits, duration_s, patient, streams.anatomy), streams.motion)
    narration = narrate(visits, duration_s, streams.voice, streams.wording, parameters.speech)
    folder = output_dir / f"scan_{index:05d}"
    unfinished = output_dir / f".{folder.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write_recording(unfinished / "scan.mp4", _pictures(renderer, path, parameters), parameters, narration)
    _write_tables(unfinished, visits, narration)
    _write_gaze(unfinished / "gaze.csv", duration_s, renderer, path, streams.gaze)
    about = {
        "patient_id": f"patient_{patient_number:05d}",
        "simulation": dataclasses.asdict(parameters),
        "index": index,
    }
    (unfinished / "scan.json").write_text(json.dumps(about, indent=2))
    return unfinished.rename(folder)


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _streams(seed: int, index: int) -> _Streams:
    return _Streams(*(_generator(seed, 0, index, number) for number in range(len(_Streams._fields))))


def _patient_numbers(parameters: SimulationParameters) -> list[int]:
    """Whose scan each one is; a patient's scans follow each other."""
    numbers: list[int] = []
    for index in range(parameters.scans):
        repeated = index > 0 and _generator(parameters.seed, 2, index).random() < parameters.repeat_share
        numbers.append(numbers[-1] if repeated else index)
    return numbers


def _pictures(renderer: Renderer, path: ProbePath, parameters: SimulationParameters) -> Iterator[np.ndarray]:
    for number in range(round(parameters.scan_seconds * parameters.frames_per_second)):
        hold, pose, other, share = path.at(number / parameters.frames_per_second)
        yield renderer.picture(hold.tissue, pose, other.tissue, share)


def write_recording(
    file: Path, pictures: Iterable[np.ndarray], parameters: SimulationParameters, narration: Narration
) -> None:
    """Writes an mp4 with H.264 video of uint8 (height, width) pictures and AAC sound."""
    size, rate = parameters.image_size, parameters.frames_per_second
    with av.open(str(file), "w") as container:
        video = container.add_stream("libx264", rate=rate, width=size, height=size, pix_fmt="yuv420p")
        video.options = {"preset": "ultrafast", "crf": "20", "threads": "1"}
        audio = container.add_stream(
            "aac", rate=narration.sampling_rate_hz, layout="mono", bit_rate=AUDIO_BIT_RATE
        )
        chroma = np.full((size // 2, size), 128, dtype=np.uint8)
        for picture in pictures:
            planes = np.concatenate([_video_range(picture), chroma])
            container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(narration.waveform[None], format="fltp", layout="mono")
        sound.sample_rate = narration.sampling_rate_hz
        sound.time_base = Fraction(1, narration.sampling_rate_hz)
        sound.pts = 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def _video_range(picture: np.ndarray) -> np.ndarray:
    """Grey 0..255 as luma 16..235, the range of video."""
    return (16 + picture.astype(np.uint16) * 219 // 255).astype(np.uint8)


def _write_tables(folder: Path, visits: Sequence[Visit], narration: Narration) -> None:
    planes = [(f"{visit.start_s:.3f}", f"{visit.end_s:.3f}", visit.label) for visit in visits]
    _write_csv(folder / "planes.csv", ("start_s", "end_s", "label"), planes)
    remarks = [(f"{r.start_s:.3f}", f"{r.end_s:.3f}", r.kind, r.label, r.text) for r in narration.remarks]
    _write_csv(folder / "remarks.csv", ("start_s", "end_s", "kind", "label", "text"), remarks)


def _write_gaze(
    file: Path, duration_s: float, renderer: Renderer, path: ProbePath, rng: np.random.Generator
) -> None:
    def landmarks_at(time_s: float) -> np.ndarray:
        hold, pose, _, _ = path.at(time_s)
        return renderer.to_picture(hold.tissue.anatomy.landmarks_cm, pose)

    gaze = simulate_gaze(duration_s, landmarks_at, rng)
    rows = [(f"{t:.4f}", f"{x:.4f}", f"{y:.4f}") for t, (x, y) in zip(gaze.times_s, gaze.places, strict=True)]
    _write_csv(file, ("time_s", "x", "y"), rows)


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(command_line)
    if arguments.preview and arguments.preview.suffix.lower() != ".png":
        print(f"--preview is {arguments.preview}: give a name that ends in .png.", file=sys.stderr)
        return 2
    try:
        parameters = _parameters(arguments)
        folders = simulate_scans(arguments.output_dir, parameters, workers=arguments.workers)
    except (SimulationError, ValueError, ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(folders)} scans of {parameters.scan_seconds:g} s lie in {arguments.output_dir}.")
    if arguments.preview:
        from .simulation_preview import write_preview

        write_preview(folders, arguments.preview)
        print(f"A sheet of their planes: {arguments.preview}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulate_scans", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("output_dir", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--workers", type=int, help="processes; left out: one a core")
    parser.add_argument(
        "--preview", type=Path, metavar="FILE.png", help="write a sheet of all planes of the scans"
    )
    for cls in (SimulationParameters, SpeechParameters):
        meanings = _meanings(cls)
        for each in dataclasses.fields(cls):
            flag = f"--{each.name.replace('_', '-')}"
            if isinstance(each.default, int | float | str):
                text = f"{meanings[each.name]} Default: {each.default}."
                parser.add_argument(flag, type=type(each.default), default=each.default, help=text)
            elif isinstance(each.default, tuple):
                low, high = each.default
                parser.add_argument(
                    flag,
                    type=float,
                    nargs=2,
                    default=each.default,
                    metavar=("LOW", "HIGH"),
                    help=f"{meanings[each.name]} Default: {low} {high}.",
                )
    return parser


def _meanings(cls: type) -> dict[str, str]:
    """What the docstring of a class says of each argument."""
    arguments = inspect.getdoc(cls).partition("Args:\n")[2].partition("\n\n")[0]
    meanings: dict[str, str] = {}
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE):
        meanings |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return meanings


def _parameters(arguments: argparse.Namespace) -> SimulationParameters:
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()
    }
    speech = SpeechParameters(**_fields_of(SpeechParameters, given))
    return SimulationParameters(**_fields_of(SimulationParameters, given), speech=speech)


def _fields_of(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    return {each.name: given[each.name] for each in dataclasses.fields(cls) if each.name in given}


if __name__ == "__main__":
    sys.exit(main())
