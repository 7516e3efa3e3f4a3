"""Paired differences between two rows of the tables, with intervals from a bootstrap over scans and seeds.

Scans and seeds are crossed: every run is tested on all scans. Neither other scans nor other seeds would give
the same numbers, so each resample draws both anew, with replacement (Owen, The pigeonhole bootstrap, Annals
of Applied Statistics 1, 2007). A scan is drawn with all its frames in all splits, because frames of one scan
are alike. Of P pairs of runs P - 1 are drawn, one at least: with a handful of seeds, drawing P would take the
variance of their mean for (P - 1) / P of what it is (Rao and Wu, Journal of the American Statistical
Association 83, 1988). What the scans trained on add stays out of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_scripts.schema import LABEL, SCAN_ID, TIME_S
from train.plane_results import PREDICTED, SPLIT

CONFIDENCE = 0.95
# Of as many at a time is kept how often each scan is drawn: a set may have a scan a picture.
RESAMPLES_AT_A_TIME = 100


class DifferenceError(ValueError):
    """Predictions that cannot be read, paired or scored; the text says which, and what to do."""


@dataclass(frozen=True, eq=False)
class Frames:
    """What one fine-tuning said of the test frames of all its splits.

    Args:
        splits: (frames,) int, the split that tests the frame.
        scan_ids: (frames,) str, its scan.
        times_s: (frames,) its time in the scan; NaN where unknown.
        values: by column name (frames,): `label` and `predicted`, names of classes; or the scores of
            saliency maps, NaN where a frame has none.
        draw: of the data; the same scan id in another draw is another scan.
        source: the file, for messages.
    """

    splits: np.ndarray
    scan_ids: np.ndarray
    times_s: np.ndarray
    values: Mapping[str, np.ndarray]
    draw: int = 0
    source: str = "the frames"


@dataclass(frozen=True)
class Difference:
    """A mean difference and how sure it is.

    Args:
        mean: over the pairs of runs, first minus second.
        low, high: the ends of the 95% percentile interval.
        p_value: two-sided, see `bootstrap_p_value`.
        seeds: number of pairs of runs, of all draws.
        scans: number of scans, of all draws.
    """

    mean: float
    low: float
    high: float
    p_value: float
    seeds: int
    scans: int


class Statistic(Protocol):
    """A score of a run: the mean over its splits of what the sums over a split's frames give.

    As sums are linear in how often a scan is drawn, a resample never looks at frames again.
    """

    columns: tuple[str, ...]

    def summands(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(frames, summands) float64, of the columns."""

    def scores(self, sums: np.ndarray) -> np.ndarray:
        """(splits, resamples) from the sums (splits, summands, resamples); NaN where there is no score."""


class MacroF1:
    """Macro F1 over the classes that have test frames, as train/metrics/standard_plane defines it."""

    columns = (LABEL, PREDICTED)

    def summands(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(frames, 3 classes): for each class whether the frame is found, taken for it, of it."""
        classes = np.unique(values[LABEL])
        is_of, is_taken = (values[name][:, None] == classes for name in self.columns)
        return np.concatenate([is_of & is_taken, is_taken, is_of], axis=1).astype(np.float64)

    def scores(self, sums: np.ndarray) -> np.ndarray:
        """The mean of 2 tp / (predicted + labelled) over the classes with labelled frames."""
        found, predicted, labelled = np.split(sums, 3, axis=1)
        is_present = labelled > 0
        f1 = np.where(is_present, _ratio(2 * found, predicted + labelled), 0.0)
        return _ratio(f1.sum(axis=1), is_present.sum(axis=1))


@dataclass(frozen=True)
class MeanOverFrames:
    """The mean of a column over the frames that have a value."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The one that it reads."""
        return (self.column,)

    def summands(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(frames, 2): the value, and whether there is one."""
        has_value = np.isfinite(values[self.column])
        return np.stack([np.where(has_value, values[self.column], 0.0), has_value], axis=1)

    def scores(self, sums: np.ndarray) -> np.ndarray:
        """Sum over count."""
        return _ratio(sums[:, 0], sums[:, 1])


macro_f1, mean_kld, mean_nss = MacroF1(), MeanOverFrames("kld"), MeanOverFrames("nss")


def read_frames(path: Path, columns: Sequence[str], draw: int = 0) -> Frames:
    """What a fine-tuning's predictions.parquet says of its test frames.

    Args:
        path: the file.
        columns: those that a statistic needs.
        draw: of the data that it was tested on.

    Raises:
        DifferenceError: there is no such file, or it lacks a column or has no rows.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DifferenceError(f"There is no file {path}: a fine-tuning writes it. Run it again.") from error
    except pa.ArrowInvalid as error:
        raise DifferenceError(f"{path} is not Parquet: {error} Run its fine-tuning again.") from error
    missing = [name for name in (SPLIT, SCAN_ID, TIME_S, *columns) if name not in table.column_names]
    if missing:
        raise DifferenceError(f"{path} has no column {', '.join(missing)}: it is not of such a task.")
    if not table.num_rows:
        raise DifferenceError(f"{path} has no test frames: there is nothing to compare.")
    splits, times_s, *values = (_array(table, name) for name in (SPLIT, TIME_S, *columns))
    scan_ids = _array(table, SCAN_ID)
    return Frames(splits, scan_ids, times_s, dict(zip(columns, values, strict=True)), draw, str(path))


def run_score(frames: Frames, statistic: Statistic) -> float:
    """A run's score as its metrics.json has it, `test/<name>`; NaN where no frame has one."""
    units = _scan_numbers([frames])
    return float(_scores(frames, statistic, units, np.ones((len(units), 1)))[0])


def run_intervals(
    frames: Frames, statistics: Mapping[str, Statistic], resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The ends of the 95% percentile interval of each of a run's scores, over other scans to test on.

    Every resample draws as many scans as there are, the same for all scores; one without a score is left out.
    Of other scans to train on, and of other seeds, the interval says nothing.

    Args:
        frames: what the run said.
        statistics: by name.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        by name; a score that no frame has is absent, and with fewer than two scans all are.
    """
    units = _scan_numbers([frames])
    if len(units) < 2:
        return {}
    sums = {name: _sums(frames, statistic, units) for name, statistic in statistics.items()}
    resampled: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, RESAMPLES_AT_A_TIME):
        drawn = multiplicities(len(units), len(units), min(RESAMPLES_AT_A_TIME, resamples - start), generator)
        for name, statistic in statistics.items():
            resampled[name].append(_mean_over_splits(statistic, sums[name], drawn))
    intervals = {name: _interval(np.concatenate(scores)) for name, scores in resampled.items()}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def paired_difference(
    first: Sequence[Frames],
    second: Sequence[Frames],
    statistic: Statistic,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """How much higher the first row scores than the second, over the same test frames.

    A resample draws the scans of each draw of the data as often as there are, and the pairs of runs of all
    draws. A split or class that has no frame in it is left out of its means; a resample in which nothing has
    a score, as only few scans can give, is left out of the interval. With one pair of runs the interval says
    nothing about other seeds.

    Args:
        first, second: a run each; first[i] and second[i] are of the same draw and pretraining seed.
        statistic: what is compared.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DifferenceError: no runs, more of one than of the other, a pair with different test frames, or a run
            without any score.
    """
    _check_pairs(first, second, statistic)
    draws = sorted({frames.draw for frames in first})
    units = {draw: _scan_numbers([run for run in first if run.draw == draw]) for draw in draws}
    generator = np.random.default_rng(seed)
    scans_drawn = {
        draw: multiplicities(len(units[draw]), len(units[draw]), resamples, generator) for draw in draws
    }
    pairs_drawn = multiplicities(len(first), max(1, len(first) - 1), resamples, generator)

    def scores(run: Frames) -> np.ndarray:
        return _scores(run, statistic, units[run.draw], scans_drawn[run.draw])

    by_pair = np.stack([scores(one) - scores(other) for one, other in zip(first, second, strict=True)])
    resampled = _means_over_pairs(by_pair, pairs_drawn)
    low, high = _interval(resampled)
    observed = [
        run_score(one, statistic) - run_score(other, statistic)
        for one, other in zip(first, second, strict=True)
    ]
    scans = sum(map(len, units.values()))
    p_value = bootstrap_p_value(resampled)
    return Difference(mean(observed), low, high, p_value, len(first), scans)


def multiplicities(units: int, drawn: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """(units, resamples) how often each is among `drawn` draws with replacement."""
    return generator.multinomial(drawn, np.full(units, 1 / units), size=resamples).T


def bootstrap_p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of no difference: the level at which the percentile interval would reach zero.

    2 min((1 + #(d <= 0)) / (R + 1), (1 + #(d >= 0)) / (R + 1)), at most 1, over R resampled differences d;
    the added 1 keeps it above zero (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    chapter 4).
    """
    below, above = (differences <= 0).sum(), (differences >= 0).sum()
    return min(1.0, 2 * float(1 + min(below, above)) / (len(differences) + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Step-down adjusted p-values (Holm, Scandinavian Journal of Statistics 6, 1979), in the order given.

    Of m p-values, the k-th smallest becomes the largest of (m - j + 1) p_(j) over j up to k, at most 1.
    """
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _array(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].to_numpy()
    return column.astype(str) if column.dtype == object else column


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _check_pairs(first: Sequence[Frames], second: Sequence[Frames], statistic: Statistic) -> None:
    if len(first) != len(second) or not first:
        raise DifferenceError(
            f"There are {len(first)} runs of the first row and {len(second)} of the second: give as many of "
            "each, one at least."
        )
    for one, other in zip(first, second, strict=True):
        if one.draw != other.draw or not _same_test_frames(one, other):
            raise DifferenceError(
                f"{one.source} (draw {one.draw}) and {other.source} (draw {other.draw}) do not have the same "
                "test frames: compare runs on the same data and splits."
            )
        for run in (one, other):
            if np.isnan(run_score(run, statistic)):
                raise DifferenceError(
                    f"{run.source} has no test frame with {', '.join(statistic.columns)}: there is nothing "
                    "to compare."
                )


def _same_test_frames(one: Frames, other: Frames) -> bool:
    """Whether both have the same frames, in whichever order; where labels are known, these as well."""
    known = [
        [run.splits, run.scan_ids, run.times_s, *([run.values[LABEL]] if LABEL in run.values else [])]
        for run in (one, other)
    ]
    orders = [np.lexsort(columns[::-1]) for columns in known]
    return all(
        np.array_equal(mine[orders[0]], theirs[orders[1]], equal_nan=mine.dtype.kind == "f")
        for mine, theirs in zip(*known, strict=True)
    )


def _scan_numbers(runs: Sequence[Frames]) -> dict[str, int]:
    """A number from 0 for every scan that is tested in any split of any of the runs, in order of its id."""
    scan_ids = np.unique(np.concatenate([run.scan_ids for run in runs]))
    return {scan_id: number for number, scan_id in enumerate(scan_ids.tolist())}


def _scores(
    frames: Frames, statistic: Statistic, scan_numbers: Mapping[str, int], times_drawn: np.ndarray
) -> np.ndarray:
    """(resamples,) the run's score with each scan as often as it is drawn: (scans, resamples)."""
    return _mean_over_splits(statistic, _sums(frames, statistic, scan_numbers), times_drawn)


def _sums(frames: Frames, statistic: Statistic, scan_numbers: Mapping[str, int]) -> np.ndarray:
    """(splits, scans, summands) the sums over each scan's frames in each split."""
    summands = statistic.summands(frames.values)
    split_ids, split_of = np.unique(frames.splits, return_inverse=True)
    scan_of = np.array([scan_numbers[scan_id] for scan_id in frames.scan_ids.tolist()])
    sums = np.zeros((len(split_ids), len(scan_numbers), summands.shape[1]))
    np.add.at(sums, (split_of, scan_of), summands)
    return sums


def _mean_over_splits(statistic: Statistic, sums: np.ndarray, times_drawn: np.ndarray) -> np.ndarray:
    """(resamples,) the mean over the splits that have a score, each scan as often: (scans, resamples)."""
    # (splits, summands, scans) @ (scans, resamples), linear in how often each scan is drawn.
    of_splits = statistic.scores(sums.swapaxes(1, 2) @ times_drawn.astype(np.float64))
    has_score = np.isfinite(of_splits)
    return _ratio(np.where(has_score, of_splits, 0.0).sum(axis=0), has_score.sum(axis=0))


def _interval(resampled: np.ndarray) -> tuple[float, float] | None:
    """The ends of the 95% percentile interval, over the resamples that have a score; None where none has."""
    scored = resampled[np.isfinite(resampled)]
    if not len(scored):
        return None
    low, high = np.quantile(scored, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _means_over_pairs(differences: np.ndarray, times_drawn: np.ndarray) -> np.ndarray:
    """The mean difference of each resample, over the pairs as often as they are drawn: (pairs, resamples).

    Without the resamples in which a pair has no score.
    """
    has_score = np.isfinite(differences).all(axis=0)
    return np.average(differences[:, has_score], axis=0, weights=times_drawn[:, has_score])
