"""Runs a fine-tuned classifier along a whole recording: planes over time, and the best frame of each.

python -m train.timeline SCAN.mp4 --model RUN_FOLDER_OR_HUB_ID [--output_dir OUT] [--frames_per_second 5]

SCAN is a video, a DICOM cine, a picture, or the folder of one recording. What is written holds pictures of
the recording, and is as private as it is.
"""

import csv
import itertools
import math
import os
import re
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import (
    GAZE_FILES,
    NOTES_FILE,
    PLANES_FILE,
    PlaneInterval,
    Recording,
    RecordingFiles,
    find_recordings,
    open_recording,
)
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.modeling_dualrep import DualRepForImageClassification, DualRepForVideoClassification
from modeling_dualrep.video_processing_dualrep import DualRepVideoProcessor
from train.arguments import COMMAND_LINE, ArgumentsError, build, help_text, read_flags, require
from train.timeline_picture import save_timeline_picture

TABLE, BEST_TABLE, BEST_FRAMES, PICTURE = "timeline.csv", "best_frames.csv", "best_frames", "timeline.png"
CLASSIFIERS = {
    "DualRepForImageClassification": (DualRepForImageClassification, DualRepImageProcessor),
    "DualRepForVideoClassification": (DualRepForVideoClassification, DualRepVideoProcessor),
}


class TimelineError(ValueError):
    """A recording or model that gives no timeline; the text says why and what to do."""


@dataclass(frozen=True)
class TimelineArguments:
    """One timeline.

    Args:
        model: folder of a fine-tuned classifier, or its id on the Hub.
        output_dir: folder for timeline.csv, timeline.png, best_frames.csv and best_frames/.
        overwrite_output_dir: replace a timeline that output_dir holds.
        frames_per_second: pictures classified a second, at most those that the recording has.
        batch_size: pictures or clips in one forward pass.
        smoothing_seconds: probabilities are averaged over a window of this length around each picture; 0
            leaves them as they are.
        clip_seconds: length of the clips that a video model is given, as in the set that it learnt from.
    """

    model: str
    output_dir: str = "runs/timeline"
    overwrite_output_dir: bool = False
    frames_per_second: float = 5.0
    batch_size: int = 32
    smoothing_seconds: float = 0.0
    clip_seconds: float = 2.0

    def __post_init__(self) -> None:
        rates = 0 < self.frames_per_second <= 1000
        require(self, "frames_per_second", rates, "above 0 and at most 1000")
        require(self, "batch_size", self.batch_size >= 1, "at least 1")
        require(self, "smoothing_seconds", 0 <= self.smoothing_seconds < math.inf, "at least 0")
        require(self, "clip_seconds", 0 < self.clip_seconds < math.inf, "above 0")


@dataclass(frozen=True)
class BestFrame:
    """The picture in which a plane is likeliest, (height, width, 3) uint8 at the recording's resolution."""

    plane: str
    time_s: float
    probability: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Timeline:
    """What a model says along a recording.

    Args:
        planes: the model's classes in the order of its id2label.
        times_s: (rows,) float64, time stamps of the pictures that were classified (of a clip: its middle).
        probabilities: (rows, planes) float64; each row adds up to 1.
        best_frames: for each plane that is predicted anywhere, in the order of `planes`, the frame where it
            is likeliest among those where it is predicted.
        intervals: what the recording's planes.csv says; None without the file.
    """

    planes: tuple[str, ...]
    times_s: np.ndarray
    probabilities: np.ndarray
    best_frames: tuple[BestFrame, ...]
    intervals: tuple[PlaneInterval, ...] | None

    @property
    def predicted(self) -> np.ndarray:
        """(rows,) int64, number of the likeliest plane of each row."""
        return self.probabilities.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of the recording, (height, width, 3) uint8, cropped, with its time stamp."""

    time_s: float
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class Row:
    """One picture and its (planes,) probabilities."""

    picture: Picture
    probabilities: np.ndarray

    @property
    def time_s(self) -> float:
        """The time of the picture in the recording."""
        return self.picture.time_s


def main(command_line: list[str] | None = None) -> int:
    """The command; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\n{help_text(TimelineArguments)}")
        return 0
    logging.disable_progress_bar()
    try:
        if not words or words[0].startswith("--"):
            raise ArgumentsError(
                "Name the recording first: `python -m train.timeline SCAN.mp4 --model FOLDER`."
            )
        arguments = build(TimelineArguments, read_flags(words[1:]), COMMAND_LINE)
        timeline = timeline_of(Path(words[0]), arguments)
    except (ArgumentsError, RecordingError, TimelineError) as error:
        print(f"timeline.py: {error}", file=sys.stderr)
        return 2
    print(summary(timeline))
    print(f"Table, picture and best frames, as private as the recording: {arguments.output_dir}")
    return 0


def timeline_of(scan: Path, arguments: TimelineArguments) -> Timeline:
    """Runs the model along the recording and writes what it says; nothing is written before the end."""
    output_dir = Path(arguments.output_dir)
    check_output_dir(output_dir, arguments.overwrite_output_dir)
    recording = open_scan(scan)
    model, processor = load_classifier(arguments.model)
    timeline = run_timeline(
        recording,
        model.to("cuda" if torch.cuda.is_available() else "cpu"),
        processor,
        arguments.frames_per_second,
        batch_size=arguments.batch_size,
        smoothing_seconds=arguments.smoothing_seconds,
        clip_seconds=arguments.clip_seconds,
    )
    write_timeline(timeline, output_dir)
    return timeline


def check_output_dir(folder: Path, overwrite: bool) -> None:
    """Refuses a folder with foreign files, and one with a timeline unless that is to be replaced.

    Raises:
        ArgumentsError: says which of the two it is.
    """
    if folder.exists() and not folder.is_dir():
        raise ArgumentsError(f"output_dir {folder} is a file: name a folder.")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if names - {TABLE, BEST_TABLE, BEST_FRAMES, PICTURE}:
        raise ArgumentsError(f"output_dir {folder} holds files that no timeline wrote. Choose another one.")
    if names and not overwrite:
        raise ArgumentsError(
            f"output_dir {folder} holds a timeline. Choose another one, or pass --overwrite_output_dir true."
        )


def open_scan(path: Path) -> Recording:
    """The recording in a file or folder; companions (scan.json, ...) beside a file are taken along.

    Raises:
        TimelineError: there is no such file, or the folder holds no recording, or several.
        RecordingError: it cannot be read.
    """
    if path.is_dir():
        found = find_recordings(path)
        if len(found) != 1:
            raise TimelineError(
                f"{path} holds {len(found)} recordings: name the video of one, or its folder."
            )
        return open_recording(replace(found[0], name=path.name))
    if not path.is_file():
        raise TimelineError(f"There is no recording {path}. Give the path of a video or DICOM file.")
    has_companions = any((path.parent / name).is_file() for name in {PLANES_FILE, NOTES_FILE} | GAZE_FILES)
    beside = find_recordings(path.parent) if has_companions else []
    files = next((files for files in beside if files.video == path), RecordingFiles(path.name, video=path))
    return open_recording(replace(files, name=path.name))


def load_classifier(source: str) -> tuple[PreTrainedModel, Any]:
    """The fine-tuned model in a folder or on the Hub, in evaluation mode, and its processor.

    Raises:
        TimelineError: there is no such model, it is no classifier, or its files cannot be loaded.
    """
    try:
        config, _ = PretrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        raise TimelineError(
            f"{source} is no folder with a model, and no model of that name could be fetched from the Hub. "
            "Give the folder that a fine-tuning run wrote."
        ) from error
    architecture = next(iter(config.get("architectures") or ()), "model without a name")
    if architecture not in CLASSIFIERS:
        raise TimelineError(
            f"{source} holds a {architecture}, which tells no planes apart. Give the folder of a "
            f"{' or '.join(CLASSIFIERS)}: train/finetune_planes.py makes one of a pretraining folder."
        )
    model_class, processor_class = CLASSIFIERS[architecture]
    try:
        return model_class.from_pretrained(source), processor_class.from_pretrained(source)
    except (OSError, RuntimeError, ValueError) as error:
        raise TimelineError(f"The model in {source} cannot be loaded: {error}") from error


def run_timeline(
    recording: Recording,
    model: PreTrainedModel,
    processor: Any,
    frames_per_second: float = 5.0,
    *,
    batch_size: int = 32,
    smoothing_seconds: float = 0.0,
    clip_seconds: float = 2.0,
) -> Timeline:
    """Runs a classifier along a recording of any length, in one pass that holds a batch of pictures.

    A picture that the recording shows at several of the asked times is classified once. An image model sees
    single pictures, cropped as scan.json says. A video model sees clips of `clip_seconds` with evenly spaced
    frames; one begins at every n-th of these, n the nearest to `frames_per_second`.

    Args:
        recording: see `open_scan`.
        model: DualRepForImageClassification or DualRepForVideoClassification, in evaluation mode.
        processor: the model's DualRepImageProcessor or DualRepVideoProcessor.
        frames_per_second, batch_size, smoothing_seconds, clip_seconds: see TimelineArguments.

    Raises:
        TimelineError: the recording is shorter than one clip, the model gives no numbers, or its classes have
            names that files cannot have.
        RecordingError: the recording is cut short or damaged.
    """
    planes, intervals = plane_names(model.config), recording.planes()
    if isinstance(model, DualRepForVideoClassification):
        views = _clips(recording, model.config.num_frames, clip_seconds, frames_per_second)
    else:
        views = ((picture, picture.pixels) for picture in _pictures(recording, frames_per_second))
    rows = smoothed(_classified(_each_once(views), model, processor, batch_size), smoothing_seconds)
    times_s, probabilities, best = [], [], {}
    for row in rows:
        times_s.append(row.time_s)
        probabilities.append(row.probabilities)
        plane = int(row.probabilities.argmax())
        if plane not in best or row.probabilities[plane] > best[plane].probabilities[plane]:
            best[plane] = row
    if not times_s:
        raise TimelineError(
            f"{recording.name}: the recording is shorter than one clip of {clip_seconds:g} s."
        )
    best_frames = (
        BestFrame(planes[plane], row.time_s, float(row.probabilities[plane]), row.picture.pixels)
        for plane, row in sorted(best.items())
    )
    return Timeline(
        planes,
        np.array(times_s),
        np.stack(probabilities),
        tuple(best_frames),
        None if intervals is None else tuple(intervals),
    )


def plane_names(config: PretrainedConfig) -> tuple[str, ...]:
    """The model's classes in the order of its outputs.

    Raises:
        TimelineError: two have one name, or a name cannot be that of a file.
    """
    names = tuple(config.id2label[number] for number in range(config.num_labels))
    if len(set(names)) < len(names):
        raise TimelineError("The model has two classes of one name: correct id2label in its config.json.")
    for name in names:
        if not re.fullmatch(r"\w[\w .,()+-]*", name):
            raise TimelineError(
                f"The model's class {name!r} cannot name a file: correct id2label in its config.json."
            )
    return names


def _pictures(recording: Recording, per_second: float) -> Iterator[Picture]:
    """The picture at each of the times; where several times have one frame, the same object each time."""
    last = None
    for frame in recording.frames_at(number / per_second for number in itertools.count()):
        if last is None or frame.time_s != last.time_s:
            last = Picture(frame.time_s, _cropped(frame.read_pixels(), recording.notes.crop))
        yield last


def _cropped(pixels: np.ndarray, crop: tuple[int, int, int, int] | None) -> np.ndarray:
    if crop is None:
        return pixels
    left, top, right, bottom = crop
    return pixels[top:bottom, left:right]


def _clips(
    recording: Recording, num_frames: int, clip_seconds: float, clips_per_second: float
) -> Iterator[tuple[Picture, list[np.ndarray]]]:
    """Overlapping clips of `num_frames` pictures, each with the picture in its middle."""
    per_second = num_frames / clip_seconds
    stride = max(1, round(per_second / clips_per_second))
    held: deque[Picture] = deque(maxlen=num_frames)
    for number, picture in enumerate(_pictures(recording, per_second)):
        held.append(picture)
        if len(held) == num_frames and (number + 1 - num_frames) % stride == 0:
            yield held[num_frames // 2], [each.pixels for each in held]


def _each_once(views: Iterable[tuple[Picture, Any]]) -> Iterator[tuple[Picture, Any]]:
    last = None
    for picture, view in views:
        if picture is not last:
            yield picture, view
        last = picture


def _classified(
    views: Iterator[tuple[Picture, Any]], model: PreTrainedModel, processor: Any, batch_size: int
) -> Iterator[Row]:
    while batch := list(itertools.islice(views, batch_size)):
        # One at a time: pictures of full size, stacked for a batch of clips, would fill the memory.
        inputs = [processor(view, return_tensors="pt")[model.main_input_name] for _, view in batch]
        with torch.inference_mode():
            logits = model(torch.cat(inputs).to(model.device, model.dtype)).logits
        probabilities = logits.double().softmax(dim=1).cpu().numpy()
        if not np.isfinite(probabilities).all():
            raise TimelineError(
                "The model gives values that are no numbers: its training must have diverged."
            )
        for (picture, _), row in zip(batch, probabilities, strict=True):
            yield Row(picture, row)


def smoothed(rows: Iterable[Row], window_seconds: float) -> Iterator[Row]:
    """Each row with the mean of the probabilities that lie within half a window before and after it.

    Rows come and go in the order of time; no more of them are held than lie within one window.
    """
    held: deque[Row] = deque()
    done = 0
    for row in itertools.chain(rows, [None]):
        while done < len(held) and (row is None or row.time_s - held[done].time_s > window_seconds / 2):
            middle = held[done]
            while middle.time_s - held[0].time_s > window_seconds / 2:
                held.popleft()
                done -= 1
            yield replace(middle, probabilities=np.mean([each.probabilities for each in held], axis=0))
            done += 1
        if row is not None:
            held.append(row)


def write_timeline(timeline: Timeline, output_dir: Path) -> None:
    """Writes timeline.csv, best_frames.csv, best_frames/<plane>.png and timeline.png.

    All is made aside and then put in its place, over an older timeline where there is one.
    """
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.", dir=output_dir.parent))
    try:
        _write_tables(timeline, aside)
        (aside / BEST_FRAMES).mkdir()
        for best in timeline.best_frames:
            Image.fromarray(np.ascontiguousarray(best.pixels)).save(aside / BEST_FRAMES / f"{best.plane}.png")
        save_timeline_picture(timeline, aside / PICTURE)
        output_dir.mkdir(exist_ok=True)
        shutil.rmtree(output_dir / BEST_FRAMES, ignore_errors=True)
        for entry in aside.iterdir():
            os.replace(entry, output_dir / entry.name)
    finally:
        shutil.rmtree(aside)


def _write_tables(timeline: Timeline, folder: Path) -> None:
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["time_s", "predicted", *timeline.planes])
        rows = zip(timeline.times_s, timeline.predicted, timeline.probabilities, strict=True)
        for time_s, plane, probabilities in rows:
            shown = [f"{probability:.6f}" for probability in probabilities]
            table.writerow([f"{time_s:.3f}", timeline.planes[plane], *shown])
    with (folder / BEST_TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["plane", "time_s", "probability"])
        for best in timeline.best_frames:
            table.writerow([best.plane, f"{best.time_s:.3f}", f"{best.probability:.6f}"])


def summary(timeline: Timeline) -> str:
    """The best frame of each plane, as a table for people."""
    rows = len(timeline.times_s)
    lines = [f"{rows} pictures from {timeline.times_s[0]:.1f} to {timeline.times_s[-1]:.1f} s."]
    lines.append(f"{'plane':30}{'best at':>10}{'probability':>14}{'predicted in':>14}")
    for best in timeline.best_frames:
        share = np.mean(timeline.predicted == timeline.planes.index(best.plane))
        lines.append(f"{best.plane:30}{best.time_s:>8.1f} s{best.probability:>14.2f}{share:>14.0%}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
