"""Scores of saliency maps: a frame, a split, all splits; the table, and the predictions kept in Parquet."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_scripts.schema import SCAN_ID, TIME_S
from train.fixation_maps import GaussianArguments, density_map
from train.metrics.saliency.saliency import image_scores

# Name in metrics.json: what stands above the column; the arrow tells which way is better.
COLUMNS = {
    "kld": "KLD ↓",
    "sim": "SIM ↑",
    "sim_plain": "plain SIM ↑",
    "nss": "NSS ↑",
    "cc": "CC ↑",
    "auc_judd": "AUC-Judd ↑",
    "shuffled_auc": "shuffled AUC ↑",
    "information_gain": "info. gain ↑",
}
Scores = dict[str, float]


class ScoreError(ValueError):
    """A map that cannot be scored."""


@dataclass(frozen=True)
class SeenFrames:
    """Where people looked in the frames that maps are scored on.

    Args:
        scan_ids: (frames,) the scan of each frame.
        times_s: (frames,) its time in the scan.
        fixations: (frames,) each (n, 2) x, y in 0..1, at least one.
        gaussian: what makes a fixation map of them.
        center_prior: (height, width), of the training split.
    """

    scan_ids: Sequence[str]
    times_s: Sequence[float]
    fixations: Sequence[np.ndarray]
    gaussian: GaussianArguments
    center_prior: np.ndarray

    def on_other_scans(self) -> dict[str, np.ndarray]:
        """Of each scan the fixations (n, 2) on all the others' frames."""
        joined = np.concatenate(self.fixations)
        scan_of = np.repeat(np.array(self.scan_ids), [len(places) for places in self.fixations])
        return {scan: joined[scan_of != scan] for scan in set(self.scan_ids)}


@dataclass(frozen=True)
class FrameScores:
    """The scores of some frames, as `score_frames` gives them.

    Args:
        frames: (frames,) the scores of each; one without a value is absent.
        left_out: how many frames lack which score for which reason.
    """

    frames: list[Scores]
    left_out: Counter[str]

    def means(self) -> Scores:
        """The mean of each score over the frames that have it; a score that no frame has is absent."""
        values = {name: [frame[name] for frame in self.frames if name in frame] for name in COLUMNS}
        return {name: mean(of_frames) for name, of_frames in values.items() if of_frames}


def score_frames(maps: Iterable[np.ndarray], seen: SeenFrames) -> FrameScores:
    """Scores maps one at a time, against the fixation maps at their own resolution.

    The negatives of shuffled AUC are the fixations on frames of other scans: without a second scan there is
    none.

    Args:
        maps: (height, width) of each frame, in the frames' order.
        seen: the frames.

    Raises:
        ScoreError: a map that is not finite.
    """
    elsewhere, frames, left_out = seen.on_other_scans(), [], Counter()
    for index, saliency in enumerate(maps):
        if not np.isfinite(saliency).all():
            raise ScoreError(
                f"The map of the frame at {seen.times_s[index]:g} s of scan {seen.scan_ids[index]} is not "
                "finite: the training has diverged. Take a lower learning_rate."
            )
        fixations = seen.fixations[index]
        target = density_map(fixations, *saliency.shape, seen.gaussian)
        others = elsewhere[seen.scan_ids[index]]
        scores, reasons = image_scores(saliency, target, fixations, others, seen.center_prior)
        frames.append(scores)
        left_out.update(f"{COLUMNS[name][:-2]}: {reason}" for name, reason in reasons.items())
    return FrameScores(frames, left_out)


def over_splits(group: str, splits: Sequence[Scores]) -> dict[str, float]:
    """`group/name`, the mean over the splits that have the score, and `group/name_std`.

    The latter is their sample standard deviation, absent for a single value.
    """
    metrics = {}
    for name in COLUMNS:
        values = [scores[name] for scores in splits if name in scores]
        if values:
            metrics[f"{group}/{name}"] = mean(values)
        if len(values) > 1:
            metrics[f"{group}/{name}_std"] = stdev(values)
    return metrics


def results_table(metrics: dict[str, float], groups: dict[str, str]) -> str:
    """The scores as the paper's Table 2 has them: a row a group, mean (standard deviation) over the splits.

    Args:
        metrics: as metrics.json holds them.
        groups: first part of the metrics' names to the title of its row; groups that were not measured are
            left out.
    """
    names = [name for name in COLUMNS if any(f"{group}/{name}" in metrics for group in groups)]
    lines = [f"{'':24}" + "".join(f"{COLUMNS[name]:>17}" for name in names)]
    for group, title in groups.items():
        cells = [_cell(metrics, f"{group}/{name}") for name in names]
        if any(cells):
            lines.append(f"{title:24}" + "".join(f"{cell:>17}" for cell in cells))
    return "\n".join(lines)


def write_predictions(rows: Sequence[dict], path: Path) -> None:
    """Writes the scores of every test frame as Parquet.

    Args:
        rows: `split` (from 1), `scan_id`, `time_s` (NaN where unknown) and the scores; what is unknown, or a
            score that a row lacks, becomes null.
        path: the file.
    """
    fields = [("split", pa.int32()), (SCAN_ID, pa.string()), (TIME_S, pa.float64())]
    schema = pa.schema(fields + [(name, pa.float64()) for name in COLUMNS])
    columns = [
        pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True) for field in schema
    ]
    pq.write_table(pa.table(columns, schema=schema), path)


def _cell(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    deviation = f" ({metrics[f'{name}_std']:.2f})" if f"{name}_std" in metrics else ""
    return f"{metrics[name]:.2f}{deviation}"
