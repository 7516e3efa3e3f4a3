"""Rows of a prepared set as a stream, whatever its configuration: clips, planes, plane clips, gaze."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import IterableDataset, get_dataset_split_names, load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import dataset_info

INFO_FILE = "info.json"

Row = dict[str, Any]


class StoredRowsError(ValueError):
    """A set that cannot be read; the text says which, and what to do."""


def open_rows(
    dataset: str, config: str, split: str, columns: Sequence[str], select: bool = False
) -> IterableDataset:
    """One split's rows as a stream, images and sound left encoded.

    Args:
        dataset: folder that a `prepare_*` wrote, or id of a dataset on the Hub.
        config: medium, large, planes, plane_clips, gaze, ...
        split: train, validation, test.
        columns: that the rows must have.
        select: read these columns alone.

    Raises:
        StoredRowsError: no such dataset, configuration, split or column, with what there is.
    """
    try:
        rows = load_dataset(
            dataset, config, split=split, streaming=True, columns=list(columns) if select else None
        )
    except (FileNotFoundError, DatasetNotFoundError, ValueError, ConnectionError) as error:
        raise StoredRowsError(
            _not_there(dataset, f"configuration {config!r} and split {split!r}", error)
        ) from error
    missing = [name for name in columns if name not in (rows.features or {})]
    if missing:
        raise StoredRowsError(
            f"The rows of {config!r} in {dataset!r} have no column {missing[0]!r}: write them with "
            "`python -m datasets_scripts.prepare_clips`, prepare_planes, prepare_gaze or public_sets."
        )
    return rows.decode(False)


def split_names(dataset: str, config: str) -> list[str]:
    """The splits that the configuration has.

    Raises:
        StoredRowsError: no such dataset or configuration.
    """
    try:
        return list(get_dataset_split_names(dataset, config))
    except (FileNotFoundError, DatasetNotFoundError, ValueError, ConnectionError) as error:
        raise StoredRowsError(_not_there(dataset, f"configuration {config!r}", error)) from error


def data_hash(dataset: str, config: str) -> str:
    """What tells this set from any other: the hash that its preparation wrote, or the Hub's revision."""
    info = Path(dataset) / "data" / config / INFO_FILE
    if info.is_file():
        return json.loads(info.read_text(encoding="utf-8"))["data_hash"]
    if Path(dataset).exists():
        files = sorted((file.name, file.stat().st_size) for file in Path(dataset).rglob("*.parquet"))
        return hashlib.sha256(repr(files).encode()).hexdigest()
    return dataset_info(dataset).sha


def _not_there(dataset: str, what: str, error: Exception) -> str:
    where = "folder" if Path(dataset).exists() else "folder here, nor a dataset on the Hub,"
    return (
        f"There is no {where} {dataset!r} with {what}: {error} Give the folder that "
        "`python -m datasets_scripts.prepare_clips RECORDINGS OUT`, prepare_planes, prepare_gaze or "
        "public_sets wrote, or a Hub id."
    )
