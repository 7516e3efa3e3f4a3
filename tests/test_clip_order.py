"""The order of clips: what a batch may hold, what an epoch shows, what each process reads."""

import warnings
from collections import Counter
from itertools import chain, islice, pairwise
from pathlib import Path

import fsspec.implementations.local
import numpy as np
import pytest
from clips_helpers import make_row, write_clips, write_small_set
from hypothesis import given, settings
from hypothesis import strategies as st

from train.clip_order import (
    ClipsError,
    ScanGroups,
    ScanLimit,
    ScanRoom,
    SeededBatches,
    Share,
    check_scan_limit,
    group_rows,
    plan_batches,
    planned_batches,
)
from train.triples import open_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of 4 scans in 3 shards."""
    return write_small_set(tmp_path_factory.mktemp("clips"))


def order(clips: Path, **options: object) -> SeededBatches:
    return SeededBatches(open_clips(str(clips), "medium", "train"), 24, 5, **{"seed": 0, **options})


def limited(clips: Path, limit: int | None, number: int, batch_size: int, **options: object) -> SeededBatches:
    rows, scan_ids = (open_clips(str(clips), "medium", "train", columns) for columns in (None, ("scan_id",)))
    of_scan = ScanLimit(limit, Counter(row["scan_id"] for row in scan_ids), scan_ids) if limit else None
    return SeededBatches(rows, number, batch_size, **{"seed": 0, "composition": of_scan, **options})


def ids(batches: SeededBatches, count: int, column: str = "clip_id") -> list[list[str]]:
    return [[row[column] for _, row in batch] for batch in islice(batches, count)]


def test_an_epoch_shows_every_clip_at_most_once_and_each_epoch_has_its_own_order(clips: Path) -> None:
    batches = ids(order(clips), 8)
    first, second = list(chain(*batches[:4])), list(chain(*batches[4:]))
    assert len(set(first)) == len(set(second)) == 20
    assert first != second
    assert first != sorted(first)
    assert ids(order(clips), 8) == ids(order(clips), 8)
    assert ids(order(clips), 8) != ids(order(clips, seed=1), 8)


@pytest.mark.parametrize("start", [1, 3, 4, 6, 9])
def test_skipping_goes_on_where_the_undisturbed_order_is(clips: Path, start: int) -> None:
    assert ids(order(clips, start_batch=start), 4) == ids(order(clips), start + 4)[start:]


def test_a_small_shuffle_buffer_resumes_too(clips: Path) -> None:
    options = {"shuffle_buffer_clips": 3}
    assert ids(order(clips, start_batch=5, **options), 3) == ids(order(clips, **options), 8)[5:]


def grouped(clips: Path, together: int, window: int = 1000, **options: object) -> SeededBatches:
    scan_ids = open_clips(str(clips), "medium", "train", ("scan_id",))
    return order(clips, composition=ScanGroups(together, window, scan_ids), **options)


def test_clips_of_a_scan_stand_together(clips: Path) -> None:
    """24 clips of 4 scans: in threes, a batch of 12 has 4 groups, each of one scan."""
    rows = open_clips(str(clips), "medium", "train")
    scan_ids = open_clips(str(clips), "medium", "train", ("scan_id",))
    batches = SeededBatches(rows, 24, 12, seed=0, composition=ScanGroups(3, 1000, scan_ids))
    for batch in ids(batches, 6, "scan_id"):
        assert all(len(set(batch[first : first + 3])) == 1 for first in range(0, 12, 3))
        assert len(set(batch)) > 1


def test_grouped_batches_show_every_clip_once_in_another_order_each_epoch(clips: Path) -> None:
    batches = ids(grouped(clips, 2), 8)
    first, second = list(chain(*batches[:4])), list(chain(*batches[4:]))
    assert len(set(first)) == len(set(second)) == 20 and first != second
    assert ids(grouped(clips, 2), 8) == batches != ids(grouped(clips, 2, seed=1), 8)
    assert ids(grouped(clips, 2, start_batch=5), 3) == batches[5:]
    shares = [list(chain(*ids(grouped(clips, 2, rank=rank, world_size=3), 1))) for rank in range(3)]
    assert len(set(chain(*shares))) == 15, "three processes show different clips"


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(0, 9),
)
def test_groups_are_as_large_as_they_can_be(
    scans: list[int], together: int, batch_size: int, seed: int
) -> None:
    rows = group_rows([str(scan) for scan in scans], together, np.random.default_rng(seed))
    assert sorted(rows) == list(range(len(scans)))
    pairs = sum(scans[a] == scans[b] for a, b in pairwise(rows))
    whole_groups = sum((number // together) * (together - 1) for number in Counter(scans).values())
    rests = sum(max(0, number % together - 1) for number in Counter(scans).values())
    assert pairs >= whole_groups + rests
    share = Share([str(scan) for scan in scans], batch_size, 4, (seed,), 0, 1)
    plan = ScanGroups(together, 7, scan_ids=None).plan(share)
    shown = list(chain(*plan))
    assert [len(batch) for batch in plan] == [batch_size] * 4 and len(set(shown)) == len(shown)
    for first in range(0, len(shown) - len(scans) + 1, len(scans)):
        whole = shown[first : first + len(scans)]
        assert sorted(row - first for row in whole) == list(range(len(scans))), "all before any comes again"


def test_rows_of_a_window_are_all_that_is_kept() -> None:
    share = Share(["a", "b"] * 10, 5, 4, (0,), 0, 1)
    order = list(chain(*ScanGroups(5, 4, scan_ids=None).plan(share)))
    assert all(set(order[first : first + 4]) == set(range(first, first + 4)) for first in range(0, 20, 4))


def test_too_few_clips_for_a_batch_are_counted(clips: Path) -> None:
    with pytest.raises(ClipsError, match="24 training clips, fewer than a batch of 32 on each of 1 process"):
        SeededBatches(open_clips(str(clips), "medium", "train"), 24, 32, seed=0)


def shared_out(scans: list[int], ranks: int, seed: int) -> list[list[str]]:
    """Clips of scans of these sizes, mixed as shards are, dealt out to ranks."""
    mixed = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(scans)), scans))
    return [[f"scan{scan}" for scan in mixed[rank::ranks]] for rank in range(ranks)]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 8), st.integers(1, 8), st.integers()
)
def test_a_plan_keeps_the_limit_and_shows_all_it_can(
    scans: list[int], batch_size: int, limit: int, seed: int
) -> None:
    """Whatever the sizes of the scans: if all clips but the tail fit into batches, none else is left out."""
    ((scan_ids),) = shared_out(scans, 1, abs(seed))
    batches = len(scan_ids) // batch_size
    try:
        check_scan_limit(Counter(scan_ids), batch_size, limit)
    except ClipsError:
        return
    plan = plan_batches(scan_ids, batch_size, batches, ScanRoom(set(scan_ids), limit))
    rows = list(chain(*plan))
    assert len(plan) == batches and {len(batch) for batch in plan} <= {batch_size}
    assert len(set(rows)) == len(rows) and set(rows) <= set(range(len(scan_ids)))
    for batch in plan:
        assert batch == sorted(batch)
        assert max(Counter(scan_ids[row] for row in batch).values()) <= limit


@pytest.mark.parametrize(
    ("ranks", "limit", "scans"), [(1, 3, 12), (2, 3, 12), (3, 4, 9), (4, 1, 64), (4, 6, 14)]
)
def test_all_ranks_together_keep_the_limit(ranks: int, limit: int, scans: int) -> None:
    """Whether or not it is a multiple of the ranks; and each shows all of its clips."""
    shares = shared_out([40] * scans, ranks, seed=1)
    names, batches = {scan for share in shares for scan in share}, len(shares[0]) // 8
    check_scan_limit(Counter(chain(*shares)), 8, limit, ranks)
    plans = [
        plan_batches(share, 8, batches, ScanRoom(names, limit, rank, ranks))
        for rank, share in enumerate(shares)
    ]
    most = 0
    for of_ranks in zip(*plans, strict=True):
        counts = Counter(
            share[row % len(share)] for share, batch in zip(shares, of_ranks, strict=True) for row in batch
        )
        most = max(most, *counts.values())
    assert most == limit
    for plan, share in zip(plans, shares, strict=True):
        shown = list(chain(*plan))
        assert len(set(shown)) == len(shown) and len(share) - len(shown) < 8


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.integers(0, 30))
def test_the_rooms_of_all_ranks_add_up_to_the_limit(ranks: int, limit: int, scans: int, batches: int) -> None:
    names = [f"scan{scan}" for scan in range(scans)]
    rooms = [ScanRoom(names, limit, rank, ranks) for rank in range(ranks)]
    of_a_batch = sum(room.in_first(batches + 1) - room.in_first(batches) for room in rooms)
    assert of_a_batch.tolist() == [limit] * scans


def test_a_share_that_is_too_short_begins_again() -> None:
    plan = plan_batches(["a", "b", "c", "a", "b"], 3, 3, ScanRoom("abc", 2))
    assert sorted(chain(*plan)) == list(range(9))
    for batch in plan:
        assert len({row % 5 for row in batch}) == 3


def test_no_room_for_a_batch_says_which_process() -> None:
    with pytest.raises(
        ClipsError, match=r"is 2, but process 0 of 2 reads clips of 1 scans alone.* leaves 1 "
    ):
        plan_batches(["a"] * 20, 4, 2, ScanRoom("ab", 2, rank=0, world_size=2))


def test_a_limit_that_leaves_clips_out_is_refused_with_one_that_does_not() -> None:
    clips = {"large": 60} | {f"small{number}": 1 for number in range(40)}
    for limit in (2, 5):
        with pytest.raises(ClipsError, match=r"10 clips in .* and 41 scans.*60 of the 100.*set it to 6 or"):
            check_scan_limit(clips, 10, limit)
    check_scan_limit(clips, 10, 6)
    with pytest.raises(ClipsError, match=r"is 3, .*16 clips in a batch of all processes.*set it to 4"):
        check_scan_limit(dict.fromkeys("abcd", 100), 4, 3, world_size=4)


def test_only_what_a_later_batch_takes_is_kept() -> None:
    """Of an endless stream each row is read once, and no row before it is needed."""
    read: list[int] = []

    def rows():
        for number in range(100):
            read.append(number)
            yield {"number": number}

    batches = planned_batches(rows(), [[0, 3], [1, 2], [5, 9]])
    taken = []
    for batch in batches:
        taken.append(([row["number"] for row in batch], len(read)))
    assert taken == [([0, 3], 4), ([1, 2], 4), ([5, 9], 10)]


def test_batches_of_a_set_hold_few_clips_of_a_scan(clips: Path) -> None:
    """As without a limit: every clip once an epoch, another order each epoch, the same with the same seed."""
    batches = limited(clips, 2, 24, 6)
    shown = ids(batches, 8)
    of_scans = ids(limited(clips, 2, 24, 6), 8, "scan_id")
    assert all(max(Counter(batch).values()) <= 2 for batch in of_scans)
    assert any(max(Counter(batch).values()) > 2 for batch in ids(limited(clips, None, 24, 6), 8, "scan_id"))
    assert sorted(chain(*shown[:4])) == sorted(chain(*shown[4:])) and len(set(chain(*shown[:4]))) == 24
    assert shown[:4] != shown[4:]
    assert shown == ids(limited(clips, 2, 24, 6), 8) != ids(limited(clips, 2, 24, 6, seed=1), 8)


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_limited_order_resumes_too(clips: Path, start: int) -> None:
    options = {"shuffle_buffer_clips": 5}
    whole = ids(limited(clips, 2, 24, 6, **options), start + 4)
    assert ids(limited(clips, 2, 24, 6, start_batch=start, **options), 4) == whole[start:]


def test_a_limit_that_changes_nothing_changes_no_batch(clips: Path) -> None:
    free = [sorted(batch) for batch in ids(limited(clips, None, 24, 6), 8)]
    assert [sorted(batch) for batch in ids(limited(clips, 6, 24, 6), 8)] == free


def test_two_ranks_keep_the_limit_together(tmp_path: Path) -> None:
    rows = [make_row(f"clip{i}", f"scan{i % 8}", float(i), sound=False) for i in range(48)]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(48)]
    folder = write_clips(tmp_path / "clips", [shuffled[i::4] for i in range(4)], [rows])
    per_rank = [ids(limited(folder, 1, 48, 4, rank=rank, world_size=2), 6, "scan_id") for rank in range(2)]
    for first, second in zip(*per_rank, strict=True):
        assert max(Counter(first + second).values()) == 1


def opened_by(order: SeededBatches, batches: int, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The shards that reading so many batches opens."""
    opened: set[str] = set()
    open_file = fsspec.implementations.local.LocalFileSystem.open

    def watch(self, path, *arguments, **named):
        opened.add(Path(str(path)).name)
        return open_file(self, path, *arguments, **named)

    import builtins

    plain_open = builtins.open

    def watch_plain(path, *arguments, **named):
        opened.add(Path(str(path)).name)
        return plain_open(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.implementations.local.LocalFileSystem, "open", watch)
        patch.setattr(builtins, "open", watch_plain)
        list(islice(order, batches))
    return {name for name in opened if name.endswith(".parquet")}


@pytest.fixture(scope="module")
def six_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips in 6 shards."""
    rows = [make_row(f"clip{i}", f"scan{i // 6}", float(i), sound=False) for i in range(48)]
    return write_clips(tmp_path_factory.mktemp("six") / "clips", [rows[i::6] for i in range(6)], [rows])


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_each_rank_opens_shards_of_its_own(
    six_shards: Path, world_size: int, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        orders = [
            limited(six_shards, limit, 48, 4, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
    batches = orders[0].batches_per_epoch
    opened = [opened_by(order, batches, monkeypatch) for order in orders]
    assert sorted(chain(*opened)) == [f"train-{shard:05d}-of-00006.parquet" for shard in range(6)]
    shown = [clip_id for order in orders for clip_id in chain(*ids(order, batches))]
    assert len(set(shown)) == len(shown) == 48


def test_with_uneven_shards_they_stay_apart_and_a_warning_says_it(
    six_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match=r"6 shards, no multiple of the 4 processes: .*a shard more"):
        orders = [limited(six_shards, None, 48, 4, rank=rank, world_size=4) for rank in range(4)]
    opened = [opened_by(order, orders[0].batches_per_epoch, monkeypatch) for order in orders]
    assert len(set(chain(*opened))) == len(list(chain(*opened))) == 6
    assert {len(of_rank) for of_rank in opened} == {1, 2}


def test_with_fewer_shards_than_ranks_rows_are_dealt_out_and_a_warning_says_it(clips: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"3 shards, no multiple of the 4 processes: every process reads all.*4 times"
    ):
        orders = [limited(clips, None, 24, 2, rank=rank, world_size=4) for rank in range(4)]
    shown = [clip_id for order in orders for clip_id in chain(*ids(order, 3))]
    assert len(set(shown)) == len(shown) == 24
