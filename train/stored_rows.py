"""Rows of a prepared set as a stream, whatever its configuration: clips, planes, plane clips, gaze."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import IterableDataset, get_dataset_split_names, load_dataset
from huggingface_hub import dataset_info

from train.remote_sets import (
    UNREADABLE,
    find_text,
    id_and_revision,
    is_on_hub,
    is_url,
    load_arguments,
    shard_sizes,
    splits_at,
)

INFO_FILE = "info.json"

Row = dict[str, Any]


class StoredRowsError(ValueError):
    """A set that cannot be read; the text says which, and what to do."""


def open_rows(
    dataset: str, config: str, split: str, columns: Sequence[str], select: bool = False
) -> IterableDataset:
    """One split's rows as a stream, images and sound left encoded.

    Args:
        dataset: folder that a `prepare_*` wrote, its URL, or id of a dataset on the Hub.
        config: medium, large, planes, plane_clips, gaze, ...
        split: train, validation, test.
        columns: that the rows must have.
        select: read these columns alone.

    Raises:
        StoredRowsError: no such dataset, configuration, split or column, with what there is.
    """
    with _told(dataset, f"configuration {config!r} and split {split!r}"):
        rows = load_dataset(
            **load_arguments(dataset, config, split),
            split=split,
            streaming=True,
            columns=list(columns) if select else None,
        )
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
    with _told(dataset, f"configuration {config!r}"):
        if is_url(dataset):
            return splits_at(dataset, config)
        folder_or_id, revision = id_and_revision(dataset)
        return list(get_dataset_split_names(folder_or_id, config, revision=revision))


def data_hash(dataset: str, config: str) -> str:
    """What tells this set from any other: the hash that its preparation wrote, or the Hub's revision.

    Raises:
        StoredRowsError: no such dataset.
    """
    with _told(dataset, f"configuration {config!r}"):
        if is_on_hub(dataset):
            repository, revision = id_and_revision(dataset)
            return dataset_info(repository, revision=revision).sha
        info = find_text(dataset, f"data/{config}/{INFO_FILE}")
        if info is not None:
            return json.loads(info)["data_hash"]
        return hashlib.sha256(repr(shard_sizes(dataset)).encode()).hexdigest()


def read_text(dataset: str, path: str) -> str | None:
    """A text file that lies with the rows; None where the set has no such file.

    Args:
        dataset: folder that a `prepare_*` wrote, its URL, or id of a dataset on the Hub.
        path: of the file in the set.

    Raises:
        StoredRowsError: the set cannot be reached, so that nobody knows whether it has the file.
    """
    with _told(dataset, f"a file {path!r}"):
        return find_text(dataset, path)


@contextmanager
def _told(dataset: str, what: str) -> Iterator[None]:
    """Turns what is raised where a set cannot be read into a sentence."""
    try:
        yield
    except UNREADABLE as error:
        raise StoredRowsError(_not_there(dataset, what, error)) from error


def _not_there(dataset: str, what: str, error: Exception) -> str:
    reason = f"{str(error).rstrip('. ')}."
    if isinstance(error, ImportError):
        return f"To read {dataset!r} takes a package that is not installed here: {reason}"
    if "://" in dataset:
        where = "set"
    else:
        where = "folder" if Path(dataset).exists() else "folder here, nor a dataset on the Hub,"
    return (
        f"There is no {where} {dataset!r} with {what}: {reason} Give the folder that "
        "`python -m datasets_scripts.prepare_clips RECORDINGS OUT`, prepare_planes, prepare_gaze or "
        "public_sets wrote, its URL (s3://BUCKET/OUT), or a Hub id."
    )
