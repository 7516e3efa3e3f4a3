"""A set of frames, or of clips without sound, decoded once into one array: what fine-tuning reads."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Features
from datasets import Image as ImageFeature
from PIL.Image import Image

from datasets_scripts.schema import FIXATIONS, FRAMES, IMAGE, LABEL, SCAN_ID, START_S, TIME_S, UNLABELLED
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from train.stored_rows import StoredRowsError, open_rows, read_text, split_names

SPLITS_FILE = "splits.json"
ROWS_AT_ONCE = 64


class FrameSetError(ValueError):
    """A set of frames that cannot be used; the text says why and what to do."""


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Every frame of a set with what is known of it; row i of each field belongs to row i of the others.

    Args:
        frames: uint8 (rows, size, size, 3), or (rows, frames, size, size, 3) for clips; an array, or the map
            of a file.
        scan_ids: the scan of each row.
        patients: whom splits are made by: the patient of each row where the set tells it, else its scan.
        times_s: (rows,) float64, the time of a frame, or the start of a clip, in its scan; NaN where unknown.
        splits: the split that each row is stored in.
        labels: (rows,) int64, UNLABELLED (-1) where a row has none; None for a set without classes.
        class_names: of the labels, in their order.
        fixations: of each row float64 (n, 2), x, y in 0..1; None for a set without gaze.
    """

    frames: np.ndarray
    scan_ids: list[str]
    patients: list[str]
    times_s: np.ndarray
    splits: list[str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    fixations: list[np.ndarray] | None = None

    @property
    def patients_of_scans(self) -> dict[str, str]:
        """The patient of each scan."""
        return dict(zip(self.scan_ids, self.patients, strict=True))

    def rows_of(self, scan_ids: Iterable[str]) -> np.ndarray:
        """(n,) int64, the rows of these scans, in the set's order; unlabelled ones are left out."""
        wanted = np.isin(self.scan_ids, list(scan_ids))
        if self.labels is not None:
            wanted &= self.labels != UNLABELLED
        return np.flatnonzero(wanted)


def read_frames(dataset: str, config: str, frame_size: int, memory_map: Path | None = None) -> FrameSet:
    """Reads all splits of a configuration; pictures are padded and resized by the image processor.

    So `(frames / 255 - mean) / std` are the processor's `pixel_values`.

    Args:
        dataset: folder that `prepare_planes`, `prepare_gaze` or `public_sets` wrote, its URL (`s3://...`,
            read by fsspec), or the id of a set on the Hub (`OWNER/NAME`, `hf://datasets/OWNER/NAME@REVISION`).
        config: planes, plane_clips, gaze, or another with their columns.
        frame_size: height and width of the decoded frames in pixels.
        memory_map: file to keep the frames in, where a set does not fit into memory; None keeps them there.

    Raises:
        FrameSetError: no such set, no rows, a column missing, a picture that cannot be read, labels that are
            no class, clips of unequal length, or scans that the set's splits.json does not know.
    """
    place = f"{config!r} of {dataset!r}"
    try:
        names = split_names(dataset, config)
        features = open_rows(dataset, config, names[0], (SCAN_ID,)).features
        pictures = _column_of_pictures(features, place)
        known = [SCAN_ID, *(name for name in (LABEL, TIME_S, START_S, FIXATIONS) if name in features)]
        keys = [(split, row) for split in names for row in _rows(dataset, config, split, known)]
        stored = chain.from_iterable(_rows(dataset, config, split, (SCAN_ID, pictures)) for split in names)
        frames = _frames(stored, pictures, len(keys), frame_size, memory_map, place)
        scan_ids = [row[SCAN_ID] for _, row in keys]
        patients = _patients(dataset, scan_ids)
    except StoredRowsError as error:
        raise FrameSetError(str(error)) from error
    rows = [row for _, row in keys]
    return FrameSet(
        frames=frames,
        scan_ids=scan_ids,
        patients=patients,
        times_s=_times(rows),
        splits=[split for split, _ in keys],
        labels=_labels(rows, features, place) if LABEL in features else None,
        class_names=tuple(features[LABEL].names) if LABEL in features else None,
        fixations=[_points(row[FIXATIONS]) for row in rows] if FIXATIONS in features else None,
    )


def patients_of_scans(dataset: str, config: str) -> dict[str, str]:
    """The patient of each scan of a configuration, or the scan itself where the set does not tell.

    Raises:
        FrameSetError: no such set, or scans that the set's splits.json does not know.
    """
    try:
        names = split_names(dataset, config)
        scan_ids = [row[SCAN_ID] for split in names for row in _rows(dataset, config, split, (SCAN_ID,))]
        return dict(zip(scan_ids, _patients(dataset, scan_ids), strict=True))
    except StoredRowsError as error:
        raise FrameSetError(str(error)) from error


def labels_of_scans(dataset: str, config: str) -> dict[str, set[int]]:
    """The classes that each scan of a configuration shows; none where the set has no classes.

    Raises:
        FrameSetError: no such set.
    """
    labels: dict[str, set[int]] = {}
    try:
        for split in split_names(dataset, config):
            features = open_rows(dataset, config, split, (SCAN_ID,)).features
            columns = [name for name in (SCAN_ID, LABEL) if name in features]
            for row in _rows(dataset, config, split, columns):
                shown = {row[LABEL]} - {None, UNLABELLED} if LABEL in row else set()
                labels.setdefault(row[SCAN_ID], set()).update(shown)
    except StoredRowsError as error:
        raise FrameSetError(str(error)) from error
    return labels


def _rows(dataset: str, config: str, split: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    rows = open_rows(dataset, config, split, columns, select=True)
    try:
        yield from rows
    except ValueError as error:  # of a label beyond the classes, or of a damaged file
        raise FrameSetError(
            f"{config!r} of {dataset!r} cannot be read: {error}. Prepare the set anew."
        ) from error


def _column_of_pictures(features: Features, place: str) -> str:
    for name in (IMAGE, FRAMES):
        if name in features:
            return name
    raise FrameSetError(
        f"{place} has no pictures: neither a column {IMAGE!r} nor {FRAMES!r}, but {', '.join(features)}. "
        "Prepare it with `python -m datasets_scripts.prepare_planes`, prepare_gaze or public_sets."
    )


def _frames(
    stored: Iterable[dict[str, Any]],
    column: str,
    number: int,
    frame_size: int,
    memory_map: Path | None,
    place: str,
) -> np.ndarray:
    """uint8 (number, frame_size, frame_size, 3), with an axis of frames after the first for clips."""
    if number == 0:
        raise FrameSetError(f"{place} has no rows: prepare it anew.")
    resize = DualRepImageProcessor(
        size={"height": frame_size, "width": frame_size}, do_rescale=False, do_normalize=False
    )
    frames, done, stored = None, 0, iter(stored)
    while rows := list(islice(stored, ROWS_AT_ONCE)):
        images = [_decoded(row, column, place) for row in rows]
        if frames is None:
            clip_axis = (len(images[0]),) if column == FRAMES else ()
            frames = _empty((number, *clip_axis, frame_size, frame_size, 3), memory_map)
            frames_a_row = len(images[0])
        _check_lengths(images, frames_a_row, place)
        pixels = resize(list(chain.from_iterable(images)), return_tensors="np")["pixel_values"]
        frames[done : done + len(rows)] = pixels.transpose(0, 2, 3, 1).reshape(-1, *frames.shape[1:])
        done += len(rows)
    return frames


def _decoded(row: dict[str, Any], column: str, place: str) -> list[Image]:
    """The pictures of a row, one for a frame."""
    encoded = row[column] if column == FRAMES else [row[column]]
    try:
        if not encoded or None in encoded:
            raise ValueError("the row has none")
        return [ImageFeature().decode_example(picture).convert("RGB") for picture in encoded]
    except (OSError, TypeError, ValueError) as error:
        raise FrameSetError(
            f"{place}: a picture of scan {row[SCAN_ID]} cannot be read ({error}). Prepare the set anew."
        ) from error


def _check_lengths(clips: Sequence[Sequence[Image]], frames_a_clip: int, place: str) -> None:
    lengths = {len(clip) for clip in clips} | {frames_a_clip}
    if len(lengths) > 1:
        found = " and of ".join(map(str, sorted(lengths)))
        raise FrameSetError(
            f"{place} has clips of {found} frames: prepare them all with the same frames_per_clip."
        )


def _empty(shape: tuple[int, ...], memory_map: Path | None) -> np.ndarray:
    if memory_map is None:
        return np.empty(shape, np.uint8)
    memory_map.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(memory_map, "w+", np.uint8, shape)


def _labels(rows: Sequence[dict[str, Any]], features: Features, place: str) -> np.ndarray:
    if not isinstance(features[LABEL], ClassLabel):
        raise FrameSetError(
            f"{place}: the column {LABEL!r} does not name its classes (it is no ClassLabel). Write the set "
            "with `python -m datasets_scripts.prepare_planes` or public_sets."
        )
    labels = np.array([UNLABELLED if row[LABEL] is None else row[LABEL] for row in rows], dtype=np.int64)
    classes = features[LABEL].num_classes
    beyond = np.flatnonzero((labels < UNLABELLED) | (labels >= classes))
    if len(beyond):
        raise FrameSetError(
            f"{place}: {len(beyond)} rows have a label beyond the {classes} classes, the first "
            f"{labels[beyond[0]]} in scan {rows[beyond[0]][SCAN_ID]}: they are 0 to {classes - 1}, "
            f"or {UNLABELLED} for none."
        )
    return labels


def _patients(dataset: str, scan_ids: Sequence[str]) -> list[str]:
    """The patient of each scan by the set's own splits; without that file, the scan itself."""
    splits = read_text(dataset, SPLITS_FILE)
    if splits is None:
        return list(scan_ids)
    sides = json.loads(splits).values()
    patients = [item for side in sides if isinstance(side, dict) for item in side.items()]
    patient_of = {scan_id: patient for patient, scans in patients for scan_id in scans}
    unknown = sorted(set(scan_ids) - set(patient_of))
    if unknown:
        raise FrameSetError(
            f"{SPLITS_FILE} of {dataset!r} does not know {len(unknown)} scans of the set, {unknown[0]} "
            "among them, so their patients are unknown. Restore the file that the set was written with."
        )
    return [patient_of[scan_id] for scan_id in scan_ids]


def _times(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    names = [name for name in (TIME_S, START_S) if name in rows[0]]
    values = [row[names[0]] if names else None for row in rows]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _points(fixations: Sequence[Sequence[float]] | None) -> np.ndarray:
    return np.array(fixations or [], dtype=np.float64).reshape(-1, 2)
