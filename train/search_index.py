"""An index of clips to search by speech: one Parquet of embeddings with their times.

A row is a clip, a row group a recording. The index names the recordings as their folder does, so that a hit
can be found again: it is as private as they are, stays with them and is never published. What made it, and
what it was made of, stands in the metadata of the file.
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from datasets_scripts.schema import SPEECH_FRACTION, START_S
from train.nearest import Block

RECORDING = "recording"
END_S = "end_s"
VIDEO_EMBEDDING = "video_embedding"
SPEECH_EMBEDDING = "speech_embedding"
PLANE = "plane"
METADATA_KEY = b"dualrep_search_index"


class SearchError(ValueError):
    """An index, model or query that cannot be searched with; the text says why and what to do."""


@dataclass(frozen=True)
class IndexSettings:
    """What decides the rows of an index.

    Args:
        model: folder of the model or its id on the Hub.
        model_sha256: of its weights.
        embedding_size: numbers of an embedding.
        clips: how recordings are cut, fields of `ClipParameters`.
        plane_model: folder of the classifier that named the planes; None: planes are not named.
        plane_model_sha256: of its weights.
    """

    model: str
    model_sha256: str
    embedding_size: int
    clips: dict[str, Any]
    plane_model: str | None = None
    plane_model_sha256: str | None = None

    def difference(self, other: "IndexSettings") -> str | None:
        """What of another index's settings is not as here, in words; where the models lie does not count."""
        if self.model_sha256 != other.model_sha256:
            return f"it was made by another model, of {other.model}"
        if self.plane_model_sha256 != other.plane_model_sha256:
            return f"its planes were named by {other.plane_model or 'no model'}"
        for name, value in self.clips.items():
            if other.clips[name] != value:
                return f"its {name} is {other.clips[name]}, not {value}"
        return None


@dataclass(frozen=True)
class IndexedRecording:
    """A recording in an index.

    Args:
        name: its path below the folder of recordings.
        fingerprint: of its files, as `fingerprint` gives it.
        clips: rows; 0 for a recording shorter than a clip.
    """

    name: str
    fingerprint: str
    clips: int


@dataclass(frozen=True)
class Moment:
    """A clip that was found, `start_s` to `end_s` of a recording; `plane` is None where none was named."""

    recording: str
    start_s: float
    end_s: float
    speech_fraction: float
    plane: str | None


def index_schema(embedding_size: int) -> pa.Schema:
    """Columns of an index; `speech_embedding` is null where a clip has no speech."""
    embedding = pa.list_(pa.float32(), embedding_size)
    return pa.schema(
        {
            RECORDING: pa.string(),
            START_S: pa.float64(),
            END_S: pa.float64(),
            SPEECH_FRACTION: pa.float32(),
            PLANE: pa.string(),
            VIDEO_EMBEDDING: embedding,
            SPEECH_EMBEDDING: embedding,
        }
    )


def index_table(moments: list[Moment], video: Tensor, speech: Tensor, has_speech: Tensor) -> pa.Table:
    """The rows of one recording.

    Args:
        moments: (clips,) where they lie.
        video, speech: (clips, features) float32.
        has_speech: (clips,) bool; the others' speech embedding is null.

    Raises:
        SearchError: an embedding is no number.
    """
    if not (video.isfinite().all() and speech[has_speech].isfinite().all()):
        raise SearchError("The model gives values that are no numbers: its training must have diverged.")
    schema = index_schema(video.shape[1])
    columns = {
        RECORDING: [moment.recording for moment in moments],
        START_S: [moment.start_s for moment in moments],
        END_S: [moment.end_s for moment in moments],
        SPEECH_FRACTION: [moment.speech_fraction for moment in moments],
        PLANE: [moment.plane for moment in moments],
        VIDEO_EMBEDDING: _embedding_column(video, torch.ones_like(has_speech)),
        SPEECH_EMBEDDING: _embedding_column(speech, has_speech),
    }
    return pa.table(columns, schema=schema)


def _embedding_column(embeds: Tensor, is_there: Tensor) -> pa.FixedSizeListArray:
    values = pa.array(embeds.numpy().astype(np.float32).reshape(-1))
    missing = pa.array(~is_there.numpy())
    return pa.FixedSizeListArray.from_arrays(values, embeds.shape[1], mask=missing)


class SearchIndex:
    """An index file, opened for reading; embeddings stay on the disk.

    Args:
        path: of the Parquet.

    Raises:
        SearchError: there is no such file, or it is no index.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise SearchError(
                f"There is no index {path}. Make one: `python -m train.search index RECORDINGS {path} "
                "--model FOLDER`."
            )
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise SearchError(f"{path} is no index, or is damaged ({error}): make it anew.") from error
        metadata = self._file.metadata.metadata or {}
        if METADATA_KEY not in metadata:
            raise SearchError(
                f"{path} is a Parquet, but no index that `python -m train.search index` wrote: name one."
            )
        told = json.loads(metadata[METADATA_KEY])
        self.settings = IndexSettings(**told["settings"])
        self.recordings = [IndexedRecording(**recording) for recording in told["recordings"]]
        self.state = told["state"]

    @property
    def clips(self) -> int:
        """Rows of the index."""
        return self._file.metadata.num_rows

    def tables(self) -> Iterator[tuple[IndexedRecording, pa.Table]]:
        """The recordings with their rows, one at a time."""
        row_group = 0
        for recording in self.recordings:
            if recording.clips:
                yield recording, self._file.read_row_group(row_group)
                row_group += 1
            else:
                yield recording, index_schema(self.settings.embedding_size).empty_table()

    def blocks(self, column: str) -> Iterator[Block]:
        """The embeddings of a column with their row numbers, a recording at a time; rows without one are left
        out.
        """
        first = 0
        for row_group in range(self._file.num_row_groups):
            # Not by iter_batches, whose memory grows with the file.
            table = self._file.read_row_group(row_group, columns=[column])
            embeddings = table.column(0).combine_chunks()
            rows = first + np.flatnonzero(embeddings.is_valid().to_numpy(zero_copy_only=False))
            first += len(embeddings)
            values = embeddings.drop_null().flatten().to_numpy()
            yield torch.tensor(rows), torch.tensor(values).view(-1, self.settings.embedding_size)

    def moments(self, rows: Iterable[int]) -> list[Moment]:
        """Where these rows lie, in their order."""
        starts = np.cumsum([0, *(recording.clips for recording in self.recordings if recording.clips)])
        columns = [RECORDING, START_S, END_S, SPEECH_FRACTION, PLANE]
        found = []
        for row in rows:
            row_group = int(np.searchsorted(starts, row, side="right")) - 1
            table = self._file.read_row_group(row_group, columns=columns)
            found.append(Moment(**table.slice(row - int(starts[row_group]), 1).to_pylist()[0]))
        return found


def write_index(
    path: Path, settings: IndexSettings, tables: Iterable[tuple[IndexedRecording, pa.Table]]
) -> None:
    """Writes an index aside, a recording in memory at a time, and puts it in its place when it is whole."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    recordings = []
    try:
        with pq.ParquetWriter(aside, index_schema(settings.embedding_size), compression="zstd") as writer:
            for recording, table in tables:
                recordings.append(asdict(recording))
                if len(table):
                    writer.write_table(table, row_group_size=len(table))
            # A new state at every writing: what was derived from the file before is known to be of another.
            told = {"settings": asdict(settings), "recordings": recordings, "state": secrets.token_hex(8)}
            writer.add_key_value_metadata({METADATA_KEY.decode(): json.dumps(told)})
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
