"""Where a prepared set lies: in a folder here, on the Hub, or behind a URL that fsspec reads.

On the Hub it is `OWNER/NAME`, `hf://datasets/OWNER/NAME` or `hf://datasets/OWNER/NAME@REVISION`. Any other
URL (`s3://BUCKET/CLIPS`, `gs://`, `file://`, ...) is that of a folder as the preparations write it; its card
is not read, the files `data/<configuration>/<split>-*.parquet` are a configuration's shards.
"""

from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from huggingface_hub import parse_hf_uri

HUB_PROTOCOL = "hf://"
# The order in which the preparations name the splits in a set's card.
SPLIT_ORDER = ("train", "validation", "test")
# What datasets, the Hub and fsspec raise where a set, a protocol or the package for it is missing.
UNREADABLE = (OSError, ValueError, ImportError)


def is_url(dataset: str) -> bool:
    """Whether a set lies behind a URL, other than the Hub's."""
    return "://" in dataset and not dataset.startswith(HUB_PROTOCOL)


def is_on_hub(dataset: str) -> bool:
    """Whether a set is taken from the Hub, since it is neither a URL nor a folder here."""
    return not is_url(dataset) and not Path(dataset).exists()


def load_arguments(dataset: str, config: str, split: str) -> dict[str, Any]:
    """The arguments by which `load_dataset` finds the rows of a split.

    Raises:
        OSError, ValueError, ImportError: as `UNREADABLE` says.
    """
    if not is_url(dataset):
        folder_or_id, revision = id_and_revision(dataset)
        return {"path": folder_or_id, "name": config, "revision": revision}
    splits = splits_at(dataset, config)
    if split not in splits:
        raise FileNotFoundError(f"its splits are {', '.join(splits)}")
    shards = f"{dataset.rstrip('/')}/data/{config}/{split}-*.parquet"
    return {"path": "parquet", "data_files": {split: shards}}


def id_and_revision(dataset: str) -> tuple[str, str | None]:
    """The id of a dataset on the Hub and its revision, None for the newest; a folder comes back as it is.

    Raises:
        ValueError: an `hf://` address of no dataset.
    """
    if not dataset.startswith(HUB_PROTOCOL):
        return dataset, None
    uri = parse_hf_uri(dataset)
    if uri.type != "dataset" or uri.path_in_repo:
        form = "hf://datasets/OWNER/NAME or hf://datasets/OWNER/NAME@REVISION"
        raise ValueError(f"a dataset on the Hub is {form}")
    if Path(uri.id).exists():
        raise ValueError(f"the folder {uri.id} here would be read in its place: run from another folder")
    return uri.id, uri.revision


def splits_at(url: str, config: str) -> list[str]:
    """The splits that the shards behind a URL are named for.

    Raises:
        OSError, ValueError, ImportError: as `UNREADABLE` says.
    """
    files, folder = open_folder(url)
    try:
        shards = files.glob(f"{folder}/data/{config}/*-*.parquet")
    except Exception as error:  # of the protocol's own package: missing credentials have no common class
        raise OSError(f"{type(error).__name__}: {error}") from error
    splits = {shard.rsplit("/", 1)[-1].split("-", 1)[0] for shard in shards}
    if not splits:
        raise FileNotFoundError(f"no file data/{config}/<split>-*.parquet lies there")
    known = [split for split in SPLIT_ORDER if split in splits]
    return known + sorted(splits.difference(known))


def find_text(dataset: str, path: str) -> str | None:
    """A text file of a set; None where the set has no such file.

    Raises:
        OSError, ValueError, ImportError: as `UNREADABLE` says.
    """
    files, folder = open_folder(dataset)
    try:
        return files.read_text(f"{folder}/{path}", encoding="utf-8")
    except FileNotFoundError:
        return None


def shard_sizes(dataset: str) -> list[tuple[str, int]]:
    """Name and bytes of all Parquet files of a set, sorted.

    Raises:
        OSError, ValueError, ImportError: as `UNREADABLE` says.
    """
    files, folder = open_folder(dataset)
    found = files.find(folder, detail=True).items()
    sizes = sorted((Path(path).name, file["size"]) for path, file in found if path.endswith(".parquet"))
    if not sizes:
        raise FileNotFoundError("no Parquet file lies there")
    return sizes


def open_folder(dataset: str) -> tuple[AbstractFileSystem, str]:
    """The file system that a set lies in, and the set's path in it.

    Raises:
        ValueError, ImportError: fsspec does not know the protocol, or lacks the package for it.
    """
    is_plain_id = is_on_hub(dataset) and not dataset.startswith(HUB_PROTOCOL)
    filesystem, folder = url_to_fs(f"{HUB_PROTOCOL}datasets/{dataset}" if is_plain_id else dataset)
    return filesystem, folder.rstrip("/")
