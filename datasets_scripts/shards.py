"""Rows on disk: scan by scan while they are made, then mixed into Parquet shards that stream well."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from datasets_scripts.schema import CLIP_ID, FRAMES, SCAN_ID

SHARDS_AT_LEAST = 8
SHARD_BYTES = 256 * 2**20
CLIPS_A_GROUP, FRAMES_A_GROUP = 8, 64
INFO_FILE = "info.json"
OPEN_FILES = 128
KEYED_COLUMNS = frozenset({CLIP_ID, SCAN_ID})


def config_dir(output_dir: Path, config: str) -> Path:
    """The folder of one configuration of a data set."""
    return Path(output_dir) / "data" / config


def stage_rows(rows: Iterable[dict], path: Path, features: Features) -> int:
    """Write the rows of one scan to an Arrow file, a record batch a row; return their number.

    One row is held at a time.

    Args:
        rows: of `features`, pictures and sound as `{"bytes": ..., "path": None}`.
    """
    schema, number = features.arrow_schema, 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for row in rows:
            writer.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))
            number += 1
    return number


def write_shards(
    staged: list[tuple[Path, int]], directory: Path, split: str, seed: int, features: Features
) -> int:
    """Mix the rows of the staged scans into the Parquet shards of one split; return the number of shards.

    The rows are shuffled over all scans, so that a stream read from the front, even with a small shuffle
    buffer, mixes scans. There are eight shards or more, for the workers of many processes, unless there are
    fewer scans.

    Args:
        staged: Arrow file and number of rows of each scan, as `stage_rows` wrote them.
        directory: an existing folder; the shards are `<split>-<shard>-of-<shards>.parquet` in it.
    """
    if not staged:
        return 0
    rows = np.array([(scan, row) for scan, (_, number) in enumerate(staged) for row in range(number)])
    rows = np.random.default_rng(seed).permutation(rows)
    size = sum(path.stat().st_size for path, _ in staged)
    number = min(len(staged), max(SHARDS_AT_LEAST, -(-size // SHARD_BYTES)))
    # Files, not memory maps: what was read of these would count as memory of the process.
    opened = lru_cache(OPEN_FILES)(lambda scan: pa.ipc.open_file(pa.OSFile(str(staged[scan][0]))))
    rows_a_group = CLIPS_A_GROUP if FRAMES in features else FRAMES_A_GROUP
    for shard in range(number):
        path = directory / f"{split}-{shard:05d}-of-{number:05d}.parquet"
        # JPEG and FLAC do not compress, and their extremes tell nothing.
        with pq.ParquetWriter(
            path, features.arrow_schema, compression="none", use_dictionary=False, write_statistics=False
        ) as writer:
            of_shard = rows[shard::number].tolist()
            for first in range(0, len(of_shard), rows_a_group):
                group = of_shard[first : first + rows_a_group]
                writer.write_table(
                    pa.Table.from_batches([opened(scan).get_batch(row) for scan, row in group])
                )
    return number


def data_hash(output_dir: Path, config: str) -> str:
    """SHA-256 of the rows of a configuration, read from its shards.

    It covers what is learnt from, split by split: every column but the keyed identifiers. The order of the
    rows, their shards and the identifiers do not change it, so the same recordings have the same hash under
    any key.
    """
    shards_of_split: dict[str, list[Path]] = {}
    for path in sorted(config_dir(output_dir, config).glob("*-*-of-*.parquet")):
        shards_of_split.setdefault(path.name.rsplit("-", 3)[0], []).append(path)
    whole = hashlib.sha256()
    for split, shards in sorted(shards_of_split.items()):
        for digest in sorted(digest for path in shards for digest in _row_digests(path)):
            whole.update(f"{split} {digest}\n".encode())
    return whole.hexdigest()


def _row_digests(path: Path) -> Iterator[str]:
    file = pq.ParquetFile(path)
    fields = [field for field in file.schema_arrow if field.name not in KEYED_COLUMNS]
    encoded = [field.name for field in fields if _holds_files(field.type)]
    plain = [field.name for field in fields if field.name not in encoded]
    # Not iter_batches, which reads the whole file ahead.
    for group in range(file.num_row_groups):
        for row in file.read_row_group(group, columns=[*plain, *encoded]).to_pylist():
            yield _row_digest([row[name] for name in plain], [row[name] for name in encoded])


def _holds_files(kind: pa.DataType) -> bool:
    """Whether a column holds pictures or sound: structs of `bytes` and `path`, or lists of them."""
    return pa.types.is_struct(kind) or (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type))


def _row_digest(plain: list, encoded: list) -> str:
    digest = hashlib.sha256(" ".join(map(repr, plain)).encode())
    for value in encoded:
        for file in value if isinstance(value, list) else [value]:
            part = b"" if file is None else file["bytes"]
            digest.update(f" {len(part)} ".encode() + part)
    return digest.hexdigest()


def write_info(output_dir: Path, config: str, info: dict) -> None:
    """Write `info.json` beside the shards: how the rows were made, their numbers and `data_hash`."""
    path = config_dir(output_dir, config) / INFO_FILE
    path.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def read_info(output_dir: Path, config: str) -> dict:
    """What `write_info` wrote."""
    return json.loads((config_dir(output_dir, config) / INFO_FILE).read_text(encoding="utf-8"))
