"""Clips with each other's sound: every sound is heard once, beside other pictures; nothing else changes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips_helpers import make_row
from datasets import load_dataset
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.dataset_card import CARD_FILE, add_to_card
from datasets_scripts.schema import (
    AUDIO,
    CLIP_ID,
    SCAN_ID,
    SPEECH_FRACTION,
    SPLITS,
    clips_features,
)
from datasets_scripts.shards import data_hash, read_info, write_info
from datasets_scripts.shuffled_audio import other_clips, shuffle_audio
from datasets_scripts.splits import Splits, read_splits, write_splits

SEED = 5
CLIPS_OF_SCAN = {"large": 5, "medium": 2}
SCANS = {"train": ("a", "b", "c"), "validation": ("d",)}
SHARDS = 2
FINGERPRINT = "0123456789abcdef"


def rows_of(config: str, split: str) -> list[dict]:
    """Every clip has frames, a sound and a `speech_fraction` of its own; the last of a scan has no sound."""
    rows = []
    for scan in SCANS[split]:
        for number in range(CLIPS_OF_SCAN[config]):
            is_last = number == CLIPS_OF_SCAN[config] - 1
            row = make_row(f"{config}_{scan}{number}", scan, float(number), sound=not is_last, stored=2)
            fraction = np.float32((len(rows) + 1) / 100)
            rows.append(row | {SPEECH_FRACTION: 0.0 if is_last else float(fraction)})
    return rows


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "clips"
    schema = clips_features().arrow_schema
    for config in CLIPS_OF_SCAN:
        data = folder / "data" / config
        data.mkdir(parents=True)
        for split in SPLITS:
            rows = rows_of(config, split)
            for shard in range(SHARDS):
                table = pa.Table.from_pylist(rows[shard::SHARDS], schema=schema)
                pq.write_table(table, data / f"{split}-{shard:05d}-of-{SHARDS:05d}.parquet")
        digest = data_hash(folder, config)
        write_info(folder, config, {"config": config, "data_hash": digest})
        patterns = {split: f"data/{config}/{split}-*.parquet" for split in SPLITS}
        add_to_card(folder, config, patterns, digest, FINGERPRINT)
    patients = {split: {f"patient_{scan}": [scan] for scan in scans} for split, scans in SCANS.items()}
    write_splits(Splits(FINGERPRINT, 0, **patients), folder)
    return folder


@pytest.fixture(scope="module")
def shuffled(clips) -> Path:
    output = clips.with_name("shuffled")
    shuffle_audio(clips, output, SEED)
    return output


def stored(folder: Path, config: str, split: str) -> list[dict]:
    """The rows of all shards, one shard after the other."""
    shards = sorted((folder / "data" / config).glob(f"{split}-*.parquet"))
    assert len(shards) == SHARDS
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def sound_of(row: dict) -> tuple[bytes | None, float]:
    return row[AUDIO] and row[AUDIO]["bytes"], row[SPEECH_FRACTION]


@pytest.mark.parametrize("config", CLIPS_OF_SCAN)
def test_every_training_clip_has_the_sound_of_a_clip_of_another_scan(clips, shuffled, config):
    before, after = stored(clips, config, "train"), stored(shuffled, config, "train")
    scans_of_sound: dict[tuple, set[str]] = {}
    for row in before:
        scans_of_sound.setdefault(sound_of(row), set()).add(row[SCAN_ID])
    for row, same in zip(after, before, strict=True):
        if row[AUDIO] is not None:
            assert sound_of(row) != sound_of(same)
            assert scans_of_sound[sound_of(row)] != {row[SCAN_ID]}
    assert Counter(map(sound_of, after)) == Counter(map(sound_of, before))


@pytest.mark.parametrize("config", CLIPS_OF_SCAN)
def test_all_else_of_a_row_and_the_order_stay(clips, shuffled, config):
    before, after = stored(clips, config, "train"), stored(shuffled, config, "train")
    others = [name for name in clips_features() if name not in (AUDIO, SPEECH_FRACTION)]
    assert len(others) == len(clips_features()) - 2
    for name in others:
        assert [row[name] for row in after] == [row[name] for row in before]


@pytest.mark.parametrize("config", CLIPS_OF_SCAN)
def test_the_validation_clips_keep_their_sound(clips, shuffled, config):
    assert stored(shuffled, config, "validation") == stored(clips, config, "validation")


def test_the_same_seed_gives_the_same_set_and_another_seed_another(clips, shuffled, tmp_path):
    shuffle_audio(clips, tmp_path / "again", SEED)
    shuffle_audio(clips, tmp_path / "other", SEED + 1)
    for config in CLIPS_OF_SCAN:
        assert data_hash(tmp_path / "again", config) == data_hash(shuffled, config)
        assert stored(tmp_path / "again", config, "train") == stored(shuffled, config, "train")
    assert stored(tmp_path / "other", "large", "train") != stored(shuffled, "large", "train")


def test_the_set_says_what_it_is(clips, shuffled):
    assert read_splits(shuffled) == read_splits(clips)
    entries = {each["config_name"]: each for each in DatasetCard.load(shuffled / CARD_FILE).data.configs}
    for config in CLIPS_OF_SCAN:
        digest = data_hash(shuffled, config)
        assert digest != data_hash(clips, config)
        wanted = {"config": config, "data_hash": digest, "shuffled_audio_seed": SEED}
        assert read_info(shuffled, config) == wanted
        assert entries[config]["description"] == f"data hash {digest}, key {FINGERPRINT}"


def test_the_set_loads_as_any_other(clips, shuffled, tmp_path):
    for split in SPLITS:
        of_shuffled = load_dataset(str(shuffled), "large", split=split, cache_dir=str(tmp_path))
        assert of_shuffled.features == clips_features()
        assert of_shuffled[CLIP_ID] == [row[CLIP_ID] for row in stored(clips, "large", split)]


def test_a_folder_that_is_there_is_not_written_to(clips, tmp_path):
    with pytest.raises(OSError, match=str(tmp_path)):
        shuffle_audio(clips, tmp_path, SEED)
    assert not list(tmp_path.iterdir())


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(0, 10))
def test_the_order_takes_every_clip_once_and_none_of_the_same_scan(numbers, seed):
    scan_ids = [f"scan_{number}" for number in numbers]
    sources = other_clips(scan_ids, seed)
    assert sorted(sources) == list(range(len(scan_ids)))
    assert all(source != clip for clip, source in enumerate(sources))
    if 2 * max(Counter(scan_ids).values()) <= len(scan_ids):
        assert all(scan_ids[source] != scan_ids[clip] for clip, source in enumerate(sources))
    np.testing.assert_array_equal(other_clips(scan_ids, seed), sources)


def test_the_order_is_drawn_from_all_that_there_are():
    """A clip's sound may come from every clip of another scan, about equally often."""
    scan_ids = [scan for scan in "abcd" for _ in range(3)]
    sources = Counter(int(other_clips(scan_ids, seed)[0]) for seed in range(900))
    assert set(sources) == set(range(3, 12))
    assert min(sources.values()) > 60


def test_one_clip_alone_cannot_get_another_s_sound():
    with pytest.raises(ValueError, match="fewer than two clips"):
        other_clips(["scan"], 0)
