"""Search by FAISS (Johnson et al., 2019, arXiv:1702.08734), for indices of a million clips and more.

What FAISS needs lies in a file of its own beside the index, made at the first search. `flat` compares with
all clips, as the exact search does; `ivf` looks into the nearest of many cells alone, and may miss some.
"""

import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.nearest import unit_rows
from train.search_index import SearchError, SearchIndex

FLAT, IVF = KINDS = ("flat", "ivf")
SEARCHED_SHARE_OF_CELLS = 1 / 16
LEAST_SEARCHED_CELLS = 32
TRAINING_ROWS_PER_CELL = 64


def nearest_by_faiss(
    query: Tensor, index: SearchIndex, column: str, top: int, kind: str
) -> tuple[Tensor, Tensor]:
    """As `train.nearest.nearest`, with similarities in float32.

    Args:
        query: (features,).
        index: whose rows are searched.
        column: of the embeddings.
        top: rows wanted.
        kind: flat or ivf.

    Raises:
        SearchError: FAISS is not installed.
    """
    faiss = import_faiss()
    path = faiss_path(index, column, kind)
    if not path.is_file():
        _remove_older(index, column, kind)
        _write(faiss, _built(faiss, index, column, kind), path)
    searched = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    if kind == IVF:
        searched.nprobe = max(LEAST_SEARCHED_CELLS, round(SEARCHED_SHARE_OF_CELLS * searched.nlist))
    similarity, rows = searched.search(unit_rows(query[None]).float().numpy(), top)
    is_there = rows[0] >= 0  # FAISS fills up with -1
    return torch.from_numpy(rows[0][is_there]), torch.from_numpy(similarity[0][is_there]).double()


def import_faiss() -> ModuleType:
    """faiss, which is no dependency of the project.

    Raises:
        SearchError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise SearchError(
            "Search by FAISS needs the package faiss-cpu: run `uv sync --group search`."
        ) from error
    return faiss


def faiss_path(index: SearchIndex, column: str, kind: str) -> Path:
    """Beside the index; the name tells of which state of the index it is."""
    return index.path.with_name(f".{index.path.name}.{column}.{kind}.{index.state}.faiss")


def _remove_older(index: SearchIndex, column: str, kind: str) -> None:
    for older in index.path.parent.glob(f".{index.path.name}.{column}.{kind}.*.faiss"):
        older.unlink()


def _built(faiss: ModuleType, index: SearchIndex, column: str, kind: str) -> Any:
    """All rows of the column by their numbers, scaled to length 1: their inner product is the cosine."""
    size = index.settings.embedding_size
    if kind == FLAT:
        built = faiss.IndexIDMap2(faiss.IndexFlatIP(size))
    else:
        wanted = round(4 * math.sqrt(index.clips))  # the rule of thumb of FAISS's documentation
        sample = _sample(index, column, wanted * TRAINING_ROWS_PER_CELL)
        cells = max(1, min(wanted, len(sample) // TRAINING_ROWS_PER_CELL))
        built = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, cells, faiss.METRIC_INNER_PRODUCT)
        built.train(sample)
    for rows, embeds in index.blocks(column):
        if len(rows):
            built.add_with_ids(unit_rows(embeds).float().numpy(), rows.numpy())
    return built


def _sample(index: SearchIndex, column: str, rows: int) -> np.ndarray:
    """About so many rows from all over the index, to find the cells by."""
    draw = torch.Generator().manual_seed(0)
    share = min(1.0, rows / max(1, index.clips))
    samples = [
        unit_rows(embeds[torch.rand(len(embeds), generator=draw) < share]).float()
        for _, embeds in index.blocks(column)
    ]
    # A row of zeros, so that there is one to find a cell by where no clip has an embedding.
    return torch.cat([torch.zeros(1, index.settings.embedding_size), *samples]).numpy()


def _write(faiss: ModuleType, built: Any, path: Path) -> None:
    aside = path.with_suffix(".partial")
    faiss.write_index(built, str(aside))
    os.replace(aside, path)
