"""Clips on disk: scan by scan while they are cut, then mixed into Parquet shards that stream well."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_scripts.schema import AUDIO, FRAMES, SPEECH_FRACTION, SPLITS, START_S, clips_features

SHARDS_AT_LEAST = 8
SHARD_BYTES = 256 * 2**20
ROWS_A_GROUP = 8
INFO_FILE = "info.json"
OPEN_FILES = 128


def config_dir(output_dir: Path, config: str) -> Path:
    """The folder of one configuration of a data set."""
    return Path(output_dir) / "data" / config


def stage_clips(rows: Iterable[dict], path: Path) -> int:
    """Write the clips of one scan to an Arrow file, a record batch a clip; return their number."""
    schema, number = clips_features().arrow_schema, 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for row in rows:
            writer.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))
            number += 1
    return number


def write_shards(staged: list[tuple[Path, int]], directory: Path, split: str, seed: int) -> int:
    """Mix the clips of the staged scans into the Parquet shards of one split; return the number of shards.

    The clips are shuffled over all scans, so that a stream read from the front, even with a small shuffle
    buffer, mixes scans. There are eight shards or more, for the workers of many processes, unless there are
    fewer scans.

    Args:
        staged: Arrow file and number of clips of each scan, as `stage_clips` wrote them.
    """
    if not staged:
        return 0
    rows = np.array([(scan, clip) for scan, (_, clips) in enumerate(staged) for clip in range(clips)])
    rows = np.random.default_rng(seed).permutation(rows)
    size = sum(path.stat().st_size for path, _ in staged)
    number = min(len(staged), max(SHARDS_AT_LEAST, -(-size // SHARD_BYTES)))
    opened = lru_cache(OPEN_FILES)(lambda scan: pa.ipc.open_file(pa.memory_map(str(staged[scan][0]))))
    schema = clips_features().arrow_schema
    for shard in range(number):
        path = directory / f"{split}-{shard:05d}-of-{number:05d}.parquet"
        # JPEG and FLAC do not compress, and their extremes tell nothing.
        with pq.ParquetWriter(
            path, schema, compression="none", use_dictionary=False, write_statistics=False
        ) as writer:
            of_shard = rows[shard::number].tolist()
            for first in range(0, len(of_shard), ROWS_A_GROUP):
                group = of_shard[first : first + ROWS_A_GROUP]
                clips = [opened(scan).get_batch(clip) for scan, clip in group]
                writer.write_table(pa.Table.from_batches(clips))
    return number


def data_hash(output_dir: Path, config: str) -> str:
    """SHA-256 of the clips of a configuration, read from its shards.

    It covers what is learnt from, split by split: start, frames, sound and speech share of every clip. The
    order of the clips, their shards and the keyed identifiers do not change it, so the same recordings have
    the same hash under any key.
    """
    whole = hashlib.sha256()
    for split in SPLITS:
        for digest in sorted(_row_digests(config_dir(output_dir, config), split)):
            whole.update(f"{split} {digest}\n".encode())
    return whole.hexdigest()


def _row_digests(directory: Path, split: str) -> Iterator[str]:
    columns = [START_S, FRAMES, AUDIO, SPEECH_FRACTION]
    for path in sorted(directory.glob(f"{split}-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=ROWS_A_GROUP, columns=columns):
            yield from map(_row_digest, batch.to_pylist())


def _row_digest(row: dict) -> str:
    digest = hashlib.sha256(f"{row[START_S]!r} {row[SPEECH_FRACTION]!r}".encode())
    for encoded in [*row[FRAMES], row[AUDIO]]:
        part = b"" if encoded is None else encoded["bytes"]
        digest.update(f" {len(part)} ".encode() + part)
    return digest.hexdigest()


def write_info(output_dir: Path, config: str, info: dict) -> None:
    """Write `info.json` beside the shards: how the clips were cut, their numbers and `data_hash`."""
    path = config_dir(output_dir, config) / INFO_FILE
    path.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def read_info(output_dir: Path, config: str) -> dict:
    """What `write_info` wrote."""
    return json.loads((config_dir(output_dir, config) / INFO_FILE).read_text(encoding="utf-8"))
