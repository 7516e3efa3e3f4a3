"""A set of clips in which every training clip has the sound of another one: the control that tells speech
from luck.

What a pretraining gains over it comes of what is said, for all else is the same: pictures, sound, how much of
it is speech, and how often each clip is met.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .dataset_card import CARD_FILE, add_to_card
from .schema import AUDIO, SCAN_ID, SPEECH_FRACTION
from .shards import CLIPS_A_GROUP, config_dir, data_hash, read_info, write_info
from .splits import SPLITS_FILE, TRAIN, read_splits


def shuffle_audio(clips: Path, output: Path, seed: int) -> None:
    """Copies a set of clips, all its configurations, with the sound of the training clips shuffled.

    A clip's `speech_fraction` goes with its sound. No clip keeps its own sound, nor gets one of its own scan,
    unless a scan has more than half of all clips. Other splits are copied as they are.

    Args:
        clips: what `prepare_clips` wrote.
        output: a new folder.
        seed: of the order.

    Raises:
        ValueError: fewer than two training clips.
        OSError: the set cannot be read, or the folder is there already.
    """
    output.mkdir(parents=True)
    for name in (CARD_FILE, SPLITS_FILE):
        shutil.copy(clips / name, output / name)
    fingerprint = read_splits(clips).key_fingerprint
    for folder in sorted((clips / "data").iterdir()):
        config = folder.name
        target = config_dir(output, config)
        target.mkdir(parents=True)
        shards = sorted(folder.glob("*.parquet"))
        training = [shard for shard in shards if shard.name.startswith(f"{TRAIN}-")]
        for shard in set(shards) - set(training):
            shutil.copy(shard, target / shard.name)
        _shuffle_shards(training, target, seed)
        digest = data_hash(output, config)
        write_info(
            output, config, read_info(clips, config) | {"shuffled_audio_seed": seed, "data_hash": digest}
        )
        splits = sorted({shard.name.split("-")[0] for shard in shards})
        patterns = {split: f"data/{config}/{split}-*.parquet" for split in splits}
        add_to_card(output, config, patterns, digest, fingerprint)


def _shuffle_shards(shards: Sequence[Path], target: Path, seed: int) -> None:
    """Writes the rows of all shards, in their order, with the sound of other rows."""
    sound = pa.concat_tables(
        [pq.read_table(shard, columns=[SCAN_ID, AUDIO, SPEECH_FRACTION]) for shard in shards]
    )
    sources = other_clips(sound[SCAN_ID].to_pylist(), seed)
    first = 0
    for shard in shards:
        table = pq.read_table(shard)
        rows = sources[first : first + len(table)]
        first += len(table)
        for name in (AUDIO, SPEECH_FRACTION):
            number = table.schema.get_field_index(name)
            table = table.set_column(number, table.schema.field(name), sound[name].take(pa.array(rows)))
        # As the shards that are copied: JPEG and FLAC do not compress.
        with pq.ParquetWriter(
            target / shard.name,
            table.schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        ) as writer:
            writer.write_table(table, row_group_size=CLIPS_A_GROUP)


def other_clips(scan_ids: Sequence[str], seed: int) -> np.ndarray:
    """(clips,) the clip whose sound each clip gets: every clip is taken once, none by its own scan.

    A random order in which those that clash change places with others, drawn at random. Where a scan has more
    than half of the clips, clips of one scan may get each other's sound, but none its own.

    Raises:
        ValueError: fewer than two clips.
    """
    if len(scan_ids) < 2:
        raise ValueError("There are fewer than two clips, so none can get the sound of another.")
    _, scans, clips_of_scan = np.unique(scan_ids, return_inverse=True, return_counts=True)
    if 2 * clips_of_scan.max() > len(scan_ids):
        scans = np.arange(len(scan_ids))
    chance = np.random.default_rng(seed)
    sources = chance.permutation(len(scans))
    for clip in np.flatnonzero(scans[sources] == scans):
        if scans[sources[clip]] != scans[clip]:
            continue  # An earlier exchange has settled it.
        fits = (scans != scans[clip]) & (scans[sources] != scans[clip])
        partner = chance.choice(np.flatnonzero(fits))
        sources[[clip, partner]] = sources[[partner, clip]]
    return sources
