"""Makes an index of a folder of recordings, and brings it up to date.

Each recording's rows are kept in a file of their own until all are there: a run that was ended takes up where
it stopped. Rows of recordings that have not changed are taken from the index that there is.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from datasets_scripts.clips import ClipParameters, cut_clips
from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import Recording, RecordingFiles, find_recordings, open_recording
from datasets_scripts.schema import SPEECH_FRACTION, START_S
from datasets_scripts.sector import NoSectorError
from modeling_dualrep.modeling_dualrep import DualRepForImageClassification
from train.arguments import require
from train.search_index import (
    IndexedRecording,
    IndexSettings,
    Moment,
    SearchError,
    SearchIndex,
    index_schema,
    index_table,
    write_index,
)
from train.search_model import SearchModel, clip_parameters, load_search_model
from train.stored_sound import tower_sha256
from train.timeline import TimelineError, load_classifier, plane_names


@dataclass(frozen=True)
class IndexArguments:
    """An index of a folder of recordings.

    Args:
        model: folder that pretraining wrote, or its id on the Hub.
        clips: how recordings are cut, over what the model's recipe says: clip_seconds, stride_seconds (by
            default half a clip), sector, speech_detector, loudness_lufs, minimum_speech_fraction (clips with
            less speech are found by what they show alone), ...; see `python -m
            datasets_scripts.prepare_clips --help`.
        plane_model: folder of a fine-tuned plane classifier, which names the plane of each clip.
        batch_size: clips in one forward pass.
    """

    model: str
    clips: dict = field(default_factory=dict)
    plane_model: str | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        require(self, "batch_size", self.batch_size >= 1, "at least 1")


@dataclass(frozen=True)
class IndexReport:
    """What an update of an index did: names of recordings, and a sentence for each that was left out."""

    clips: int
    added: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    left_out: tuple[str, ...]

    def summary(self) -> str:
        """For people, a line a fact."""
        counts = f"{len(self.added)} recordings added or renewed, {len(self.kept)} kept"
        lines = [*self.left_out, f"{counts}, {len(self.removed)} removed, {len(self.left_out)} left out."]
        return "\n".join([*lines, f"{self.clips} clips can be searched."])


@dataclass(frozen=True)
class Indexer:
    """What makes the rows of a recording."""

    searcher: SearchModel
    parameters: ClipParameters
    batch_size: int
    plane_namer: "PlaneNamer | None" = None

    def table(self, recording: Recording) -> pa.Table:
        """The clips of a recording as rows of the index.

        Raises:
            RecordingError, NoSectorError: the recording is damaged, or shows no ultrasound.
            SearchError: the model gives values that are no numbers.
        """
        triples = self.searcher.triples(self.parameters.minimum_speech_fraction)
        rows = cut_clips(recording, recording.name, self.parameters)
        moments: list[Moment] = []

        def batches() -> Iterator:
            while some := list(islice(rows, self.batch_size)):
                decoded = [triples[0, row] for row in some]
                videos = [triple["video"] for triple in decoded]
                planes = self.plane_namer(videos) if self.plane_namer else [None] * len(some)
                for row, plane in zip(some, planes, strict=True):
                    end_s = round(row[START_S] + self.parameters.clip_seconds, 6)
                    moments.append(Moment(recording.name, row[START_S], end_s, row[SPEECH_FRACTION], plane))
                yield triples.collate(decoded)

        embedded = self.searcher.embed(batches())
        if not moments:
            return index_schema(self.searcher.model.config.projection_dim).empty_table()
        return index_table(moments, embedded.video, embedded.audio, embedded.has_sound)


class PlaneNamer:
    """Names the plane of clips by a fine-tuned classifier; an image model's probabilities are averaged."""

    def __init__(self, source: str, num_frames: int) -> None:
        self.model, self.processor = _load_plane_model(source)
        self.source = str(Path(source).resolve()) if Path(source).is_dir() else source
        self.sha256 = tower_sha256(self.model)
        self.names = plane_names(self.model.config)
        self.sees_pictures = isinstance(self.model, DualRepForImageClassification)
        if not self.sees_pictures and self.model.config.num_frames != num_frames:
            raise SearchError(
                f"The plane model in {source} sees clips of {self.model.config.num_frames} frames, the model "
                f"of the index {num_frames}: give a classifier of pictures, or one of as many frames."
            )
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.inference_mode()
    def __call__(self, videos: list[Tensor]) -> list[str]:
        """The plane of each clip of uint8 frames, (frames, channels, height, width)."""
        return [self.names[self._probabilities(video).argmax()] for video in videos]

    def _probabilities(self, video: Tensor) -> Tensor:
        views = list(video) if self.sees_pictures else [video]
        inputs = self.processor(views, return_tensors="pt")[self.model.main_input_name]
        return self.model(inputs.to(self.model.device)).logits.double().softmax(dim=1).mean(dim=0)


def _load_plane_model(source: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    try:
        return load_classifier(source)
    except TimelineError as error:
        raise SearchError(str(error)) from error


def index_recordings(recordings_dir: Path, path: Path, arguments: IndexArguments) -> IndexReport:
    """Makes the index `path` of all recordings below a folder, or brings it up to date.

    Raises:
        SearchError: no model, no recordings, or `path` is another index.
        ArgumentsError: clips that cannot be cut so.
    """
    found = _found(recordings_dir)
    _check_place(path, recordings_dir)
    searcher = load_search_model(arguments.model)
    parameters = clip_parameters(searcher, arguments.clips)
    namer = None
    if arguments.plane_model:
        namer = PlaneNamer(arguments.plane_model, searcher.model.config.num_frames)
    field_names = {field.name for field in fields(ClipParameters)}
    settings = IndexSettings(
        searcher.source,
        searcher.sha256,
        searcher.model.config.projection_dim,
        {name: value for name, value in parameters.info().items() if name in field_names},
        namer and namer.source,
        namer and namer.sha256,
    )
    return update_index(found, path, settings, Indexer(searcher, parameters, arguments.batch_size, namer))


def _found(recordings_dir: Path) -> list[RecordingFiles]:
    try:
        found = find_recordings(recordings_dir)
    except NotADirectoryError as error:
        raise SearchError(str(error)) from error
    if not found:
        raise SearchError(
            f"{recordings_dir} holds no recordings: name the folder that holds videos of scans."
        )
    return found


def _check_place(path: Path, recordings_dir: Path) -> None:
    if path.is_dir():
        raise SearchError(f"{path} is a folder: name a file for the index, such as {recordings_dir}.parquet.")
    if not path.parent.is_dir():
        raise SearchError(f"There is no folder {path.parent} to write the index to: make it first.")


def update_index(
    found: list[RecordingFiles], path: Path, settings: IndexSettings, indexer: Indexer
) -> IndexReport:
    """Embeds what is new or has changed, keeps the rest, drops what is gone, and writes all anew.

    Raises:
        SearchError: the index that there is was made in another way, or nothing at all can be indexed.
    """
    there = SearchIndex(path) if path.exists() else None
    difference = there and settings.difference(there.settings)
    if difference:
        raise SearchError(f"{path} cannot be added to: {difference}. Name another file, or remove this one.")
    known = {(each.name, each.fingerprint): each for each in there.recordings} if there else {}
    parts = Parts(path, settings)
    kept, added, left_out = {}, {}, []
    for files in found:
        key = (files.name, fingerprint(files)) if files.video else None
        if key in known:
            kept[files.name] = known[key]
            continue
        try:
            added[files.name] = parts.keep(files, key, indexer)
        except (RecordingError, NoSectorError) as error:
            left_out.append(_sentence(files.name, error))
    if not kept and not added:
        raise SearchError(f"No recording can be indexed. {' '.join(left_out)}")
    write_index(path, settings, _in_order(there, kept, added, parts))
    parts.remove()
    before = {each.name for each in there.recordings} if there else set()
    removed = sorted(before - {files.name for files in found})
    return IndexReport(
        SearchIndex(path).clips, tuple(sorted(added)), tuple(sorted(kept)), tuple(removed), tuple(left_out)
    )


def _sentence(name: str, error: Exception) -> str:
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


def _in_order(
    there: SearchIndex | None,
    kept: dict[str, IndexedRecording],
    added: dict[str, IndexedRecording],
    parts: "Parts",
) -> Iterator[tuple[IndexedRecording, pa.Table]]:
    """What was kept, in the order in which it was, then what is new."""
    for recording, table in there.tables() if there else ():
        if kept.get(recording.name) == recording:
            yield recording, table
    for recording in added.values():
        yield recording, parts.read(recording)


class Parts:
    """Rows of recordings that no whole index holds yet: a file each, in a hidden folder beside the index."""

    def __init__(self, path: Path, settings: IndexSettings) -> None:
        self.folder = path.with_name(f".{path.name}.parts")
        self._settings = json.dumps(
            [settings.model_sha256, settings.plane_model_sha256, settings.clips], sort_keys=True
        )

    def keep(self, files: RecordingFiles, key: tuple[str, str], indexer: Indexer) -> IndexedRecording:
        """Embeds a recording, unless a run that was ended has done so."""
        recording = open_recording(files)
        file = self._file(*key)
        if not file.is_file():
            table = indexer.table(recording)
            self.folder.mkdir(exist_ok=True)
            aside = file.with_suffix(".partial")
            pq.write_table(table, aside)
            os.replace(aside, file)
        return IndexedRecording(*key, clips=pq.read_metadata(file).num_rows)

    def read(self, recording: IndexedRecording) -> pa.Table:
        """The rows of a recording that was kept."""
        return pq.read_table(self._file(recording.name, recording.fingerprint))

    def remove(self) -> None:
        """All of them, once the index holds their rows."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, name: str, fingerprint: str) -> Path:
        digest = hashlib.sha256("\n".join([self._settings, name, fingerprint]).encode())
        return self.folder / f"{digest.hexdigest()[:32]}.parquet"


def fingerprint(files: RecordingFiles) -> str:
    """Of the files that decide a recording's clips, by their names, sizes and times of change."""
    told = []
    for path in (files.video, files.sound, files.notes):
        if path is not None:
            status = path.stat()
            told.append((path.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
