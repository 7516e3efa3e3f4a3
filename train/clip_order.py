"""The order in which a run sees the clips of a set, batch by batch, as the seed decides."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Sampler

from datasets_scripts.schema import SCAN_ID
from train.stored_rows import Row, StoredRowsError

# Which rows of a share each batch takes, counted from the front of the share.
Plan = list[list[int]]


class ClipsError(StoredRowsError):
    """Clips that cannot be trained on; the text says which, and what to do."""


@dataclass(frozen=True)
class Share:
    """What one process reads of an epoch.

    Args:
        scan_ids: of its rows, in their order.
        batch_size: clips a batch, on this process.
        batches: of the epoch.
        seed: of the epoch.
        rank, world_size: this process and how many there are.
    """

    scan_ids: Sequence[str]
    batch_size: int
    batches: int
    seed: Sequence[int]
    rank: int
    world_size: int


@dataclass(frozen=True)
class ScanLimit:
    """How many clips of one scan a batch may hold.

    Args:
        clips: of a scan, over the batches of all processes together.
        clips_of_scans: how many clips each scan has in the whole split.
        scan_ids: stream of the split's rows with the scan's column alone.
    """

    clips: int
    clips_of_scans: Mapping[str, int]
    scan_ids: IterableDataset

    def check(self, batch_size: int, world_size: int) -> None:
        """Raises ClipsError where such batches cannot show all clips of an epoch."""
        check_scan_limit(self.clips_of_scans, batch_size, self.clips, world_size)

    def plan(self, share: Share) -> Plan:
        """See `plan_batches`."""
        room = ScanRoom(self.clips_of_scans, self.clips, share.rank, share.world_size)
        return plan_batches(share.scan_ids, share.batch_size, share.batches, room)


@dataclass(frozen=True)
class ScanGroups:
    """Clips of one scan stand together, so that many negatives of a clip are of its own scan.

    What tells scans apart, voice and room, patient and machine, then does not tell those.

    Args:
        clips: of a scan that stand together.
        window_clips: clips of the shuffled order among which those of a scan are sought; so many at most are
            kept, undecoded.
        scan_ids: stream of the split's rows with the scan's column alone.
    """

    clips: int
    window_clips: int
    scan_ids: IterableDataset

    def check(self, batch_size: int, world_size: int) -> None:
        """Any batch can be made up."""

    def plan(self, share: Share) -> Plan:
        """Batches of the groups in random order; where all rows have been shown, they begin again."""
        chance, number = np.random.default_rng(share.seed), len(share.scan_ids)
        order: list[int] = []
        while len(order) < share.batches * share.batch_size:
            first = len(order)
            for start in range(0, number, self.window_clips):
                window = share.scan_ids[start : start + self.window_clips]
                order += [first + start + row for row in group_rows(window, self.clips, chance)]
        starts = range(0, share.batches * share.batch_size, share.batch_size)
        return [order[start : start + share.batch_size] for start in starts]


def group_rows(scan_ids: Sequence[str], clips: int, chance: np.random.Generator) -> list[int]:
    """All rows, so many of a scan together as there are, up to `clips`; the groups in random order."""
    of_scan: dict[str, list[int]] = {}
    for row, scan_id in enumerate(scan_ids):
        of_scan.setdefault(scan_id, []).append(row)
    groups = [
        rows[first : first + clips] for rows in of_scan.values() for first in range(0, len(rows), clips)
    ]
    return [row for group in chance.permutation(len(groups)) for row in groups[group]]


class SeededBatches(Sampler):
    """Endless batches of (epoch, undecoded row) in an order that the seed alone decides.

    An epoch has `clips // (batch_size * world_size)` batches on every rank; the rest is left out, and since
    each epoch has another order, it is another rest each time. With as many shards as ranks, or a multiple,
    each rank reads shards of its own, others in each epoch.

    Args:
        rows: the split's stream.
        clips: number of its clips.
        batch_size: clips a batch, on this rank.
        seed: of the order.
        start_batch: batches to skip, counted from the beginning of training.
        shuffle_buffer_clips: clips from which the next is drawn.
        rank, world_size: this process and how many there are; each reads its own share.
        composition: of which scans a batch is made up; None: as the rows come.

    Raises:
        ClipsError: there are fewer clips than a batch takes, or too few scans for the limit.
    """

    def __init__(
        self,
        rows: IterableDataset,
        clips: int,
        batch_size: int,
        seed: int,
        start_batch: int = 0,
        shuffle_buffer_clips: int = 1000,
        rank: int = 0,
        world_size: int = 1,
        composition: ScanLimit | ScanGroups | None = None,
    ) -> None:
        self.batches_per_epoch = clips // (batch_size * world_size)
        if self.batches_per_epoch == 0:
            raise ClipsError(
                f"There are {clips} training clips, fewer than a batch of {batch_size} on each of "
                f"{world_size} process(es): "
                "lower per_device_train_batch_size or cut more clips."
            )
        if composition is not None:
            composition.check(batch_size, world_size)
        if rank == 0:
            warn_of_uneven_shards(rows.num_shards, world_size)

        def share(stream: IterableDataset) -> IterableDataset:
            return _share(stream, seed, shuffle_buffer_clips, rank, world_size)

        self.rows = share(rows)
        self.scan_ids = share(composition.scan_ids) if composition else None
        self.composition = composition
        self.batch_size = batch_size
        self.seed = seed
        self.start_batch = start_batch
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, Row]]]:
        epoch, skipped_batches = divmod(self.start_batch, self.batches_per_epoch)
        while True:
            for batch in self._batches_of_epoch(epoch, skipped_batches):
                yield [(epoch, row) for row in batch]
            epoch, skipped_batches = epoch + 1, 0

    def _batches_of_epoch(self, epoch: int, skipped_batches: int) -> Iterator[list[Row]]:
        self.rows.set_epoch(epoch)
        if self.composition is not None:
            yield from planned_batches(_again_and_again(self.rows), self._plan(epoch)[skipped_batches:])
            return
        rows = islice(_again_and_again(self.rows), skipped_batches * self.batch_size, None)
        for _ in range(self.batches_per_epoch - skipped_batches):
            yield list(islice(rows, self.batch_size))

    def _plan(self, epoch: int) -> Plan:
        self.scan_ids.set_epoch(epoch)
        share = Share(
            [row[SCAN_ID] for row in self.scan_ids],
            self.batch_size,
            self.batches_per_epoch,
            (self.seed, epoch, self.rank),
            self.rank,
            self.world_size,
        )
        return self.composition.plan(share)


def _share(
    stream: IterableDataset, seed: int, shuffle_buffer_clips: int, rank: int, world_size: int
) -> IterableDataset:
    """A rank's rows in the order of the seed; the same rows of every stream of a split."""
    # Filling the buffer from several shards at a time would sleep 5 s at the end of every epoch (datasets
    # 5.2).
    shuffled = stream.shuffle(seed=seed, buffer_size=shuffle_buffer_clips, max_buffer_input_shards=1)
    strategy = "shards" if stream.num_shards >= world_size else "examples"
    return split_dataset_by_node(shuffled, rank, world_size, strategy)


def _again_and_again(rows: IterableDataset) -> Iterator[Row]:
    # Shards are not equally long: a rank whose share is short of a whole epoch begins it again.
    while True:
        yield from rows


def warn_of_uneven_shards(shards: int, world_size: int) -> None:
    """Warns where the shards cannot be dealt out evenly to the processes, and says what happens then."""
    if shards % world_size == 0:
        return
    if shards < world_size:
        what = f"every process reads all of them and skips the others' rows, {world_size} times the reading"
    else:
        what = (
            "in each epoch some processes read a shard more than others and leave some of its clips out, "
            "while the others show some of theirs twice, other clips in each epoch"
        )
    warnings.warn(
        f"The training clips lie in {shards} shards, no multiple of the {world_size} processes: {what}. "
        "Train with a number of processes that divides theirs, or write the set in more shards.",
        stacklevel=2,
    )


def planned_batches(rows: Iterator[Row], plan: Plan) -> Iterator[list[Row]]:
    """The batches of a plan out of a stream, which is read once; only what a later batch takes is kept."""
    wanted = {number for batch in plan for number in batch}
    kept: dict[int, Row] = {}
    stream = enumerate(rows)
    for batch in plan:
        while not all(number in kept for number in batch):
            number, row = next(stream)
            if number in wanted:
                kept[number] = row
        yield [kept.pop(number) for number in batch]


class ScanRoom:
    """How many clips of each scan the batches of one rank may hold, so that all ranks keep the limit.

    n batches of a rank may hold `(n * limit + r) // world_size` clips of a scan, where r is another one of
    0..world_size - 1 on each rank. Over the ranks that adds up to n * limit (Hermite's identity), so a batch
    of all ranks together holds `limit` of a scan at most, be that a multiple of the ranks or not. The scans
    take turns with r, so that a rank has room for about as many clips in every batch.

    Args:
        scans: all scans of the split.
        limit: clips of one scan in a batch, over all ranks.
        rank, world_size: this process and how many there are.
    """

    def __init__(self, scans: Iterable[str], limit: int, rank: int = 0, world_size: int = 1) -> None:
        self.scans = np.array(sorted(scans))
        self.limit = limit
        self.rank, self.world_size = rank, world_size
        self._remainders = (np.arange(len(self.scans)) + rank) % world_size

    def in_first(self, batches: int) -> np.ndarray:
        """(scans,) int64: clips of each scan that the first so many batches may hold."""
        return (batches * self.limit + self._remainders) // self.world_size


def plan_batches(scan_ids: Sequence[str], batch_size: int, batches: int, room: ScanRoom) -> Plan:
    """Which rows of a rank's share each of its batches takes, so that there is room for their scans.

    A batch takes the first rows that there is room for, and before them those that would find none in the
    batches after it; so no row is left out that need not be. Where none fits, the share begins again: row
    `len(scan_ids)` is row 0.

    Args:
        scan_ids: of the rows of the share, in their order.
        batch_size: clips a batch, on this rank.
        batches: of the epoch.
        room: that this rank's batches have.

    Returns:
        The numbers of the rows of each batch, ascending.

    Raises:
        ClipsError: there is no room for a whole batch.
    """
    scan_of_row = np.searchsorted(room.scans, scan_ids)
    counts = np.bincount(scan_of_row, minlength=len(room.scans))
    rows_by_scan, first = np.argsort(scan_of_row, kind="stable"), np.cumsum(counts) - counts
    taken = np.zeros_like(counts)
    plan = []
    for batch in range(batches):
        until_here, with_this = room.in_first(batch), room.in_first(batch + 1)
        allowed = np.minimum(with_this - until_here, counts)
        pressing = counts - taken - (room.in_first(batches) - with_this)
        scan = np.repeat(np.arange(len(counts)), allowed)
        turn = np.arange(len(scan)) - np.repeat(np.cumsum(allowed) - allowed, allowed)
        again, place = np.divmod(taken[scan] + turn, counts[scan])
        row = rows_by_scan[first[scan] + place] + again * len(scan_ids)
        chosen = np.lexsort((row, turn >= pressing[scan]))[:batch_size]
        if len(chosen) < batch_size:
            raise ClipsError(
                f"max_clips_of_scan is {room.limit}, but process {room.rank} of {room.world_size} reads "
                f"clips of {np.count_nonzero(counts)} scans alone, which leaves {len(chosen)} for a batch of "
                f"{batch_size}: raise it, or lower per_device_train_batch_size."
            )
        plan.append(np.sort(row[chosen]).tolist())
        taken += np.bincount(scan[chosen], minlength=len(counts))
    return plan


def check_scan_limit(
    clips_of_scans: Mapping[str, int], batch_size: int, limit: int, world_size: int = 1
) -> None:
    """Raises ClipsError where batches with at most `limit` clips of a scan cannot show all clips of an epoch.

    Args:
        clips_of_scans: how many clips each scan has.
        batch_size: clips a batch, on each rank.
        limit: clips of one scan in a batch, over all ranks.
        world_size: ranks.
    """
    counts, clips_a_batch = np.array(list(clips_of_scans.values())), batch_size * world_size
    batches = counts.sum() // clips_a_batch

    def is_enough(limit: int) -> bool:
        rooms = [ScanRoom(clips_of_scans, limit, rank, world_size).in_first(1) for rank in range(world_size)]
        shown = np.minimum(counts, batches * limit).sum()
        return shown >= batches * clips_a_batch and min(room.sum() for room in rooms) >= batch_size

    if is_enough(limit):
        return
    enough = next(more for more in range(limit + 1, clips_a_batch + 1) if is_enough(more))
    raise ClipsError(
        f"max_clips_of_scan is {limit}, but with {clips_a_batch} clips in a batch of all processes and "
        f"{len(counts)} scans, of which the largest has {counts.max()} of the {counts.sum()} clips, a batch "
        f"must hold {enough} of a scan: set it to {enough} or more, or lower per_device_train_batch_size."
    )
