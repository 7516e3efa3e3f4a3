"""What a preparation tells: what became of each recording, the sums, and why nothing was written."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets_scripts.durable_files import written_aside
from datasets_scripts.schema import SPLITS


class PrepareError(Exception):
    """Nothing was written, for the reason that the message gives."""


class StrictError(PrepareError):
    """A recording cannot be used, and `strict` forbids to leave it out."""


@dataclass(frozen=True)
class RecordingOutcome:
    """What became of one recording.

    `counts` is what its rows hold and what was dropped, by name. `left_out` says why none of it was kept, and
    `error` is the class of that error. `texts` were read on what is kept of its pictures, and
    `origin` is the keyed hashes of its site and machine. `duration_s`, `planes` and `gaze` are those of
    `Coverage`; nothing is known of them where it was left out.
    """

    name: str
    scan_id: str
    patient: str
    rows: int
    counts: dict[str, int]
    left_out: str | None = None
    error: str | None = None
    texts: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    duration_s: float | None = None
    planes: tuple[tuple[float, float, str], ...] = ()
    gaze: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("texts", "origin"):  # JSON has no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("planes", "gaze"):
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))


def covered_seconds(intervals: Sequence[tuple]) -> float:
    """How long it is that any of the intervals lasts, which are in the order of their starts."""
    total_s = reached_s = 0.0
    for start_s, end_s, *_ in intervals:
        total_s += max(0.0, end_s - max(start_s, reached_s))
        reached_s = max(reached_s, end_s)
    return total_s


def coverage_in_words(outcomes: Sequence[RecordingOutcome]) -> str:
    """How much was recorded, and the shares of it with planes and with gaze, where there are any; empty where
    no length is known."""
    known = [outcome for outcome in outcomes if outcome.duration_s]
    recorded_s = sum(outcome.duration_s for outcome in known)
    words = [f"{recorded_s:.0f} s recorded"] if recorded_s < 600 else [f"{recorded_s / 60:.0f} min recorded"]
    for name in ("planes", "gaze"):
        seconds = sum(covered_seconds(getattr(outcome, name)) for outcome in known)
        if seconds:
            words.append(f"{name} {seconds / recorded_s:.0%}")
    return ", ".join(words) if known else ""


@dataclass(frozen=True)
class PreparationReport:
    """What was kept and what was left out. It names files, so it is kept beside the data set, not in it.

    `rows`, `scans` and `counts` (sums over the recordings that were kept) are by split.
    """

    config: str
    row: str
    data_hash: str
    rows: dict[str, int]
    scans: dict[str, int]
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    recordings: tuple[RecordingOutcome, ...]

    def summary(self) -> str:
        """A few lines for people."""
        kept = [f"{self.rows[split]} {self.row}s of {self.scans[split]} scans to {split}" for split in SPLITS]
        lines = [f"{self.config}: {', '.join(kept)}.", *self.notes]
        for split, counts in self.counts.items():
            if counts:
                lines.append(
                    f"  {split}: " + ", ".join(f"{name} {number}" for name, number in counts.items())
                )
        if covered := coverage_in_words(self.recordings):
            lines.append(f"Of what was kept: {covered}.")
        left_out = [outcome.left_out for outcome in self.recordings if outcome.left_out]
        if left_out:
            lines += [f"{len(left_out)} of {len(self.recordings)} recordings were left out:"]
            lines += [f"  {reason}" for reason in left_out]
        return "\n".join(lines)


def write_report(report: PreparationReport, path: Path) -> None:
    """The report as JSON, whole or not at all."""
    with written_aside(path) as aside:
        text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
        aside.write_text(text + "\n", encoding="utf-8")


def read_report(path: Path) -> PreparationReport:
    """What `write_report` wrote."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    recordings = tuple(RecordingOutcome(**each) for each in fields.pop("recordings"))
    return PreparationReport(**fields | {"notes": tuple(fields["notes"])}, recordings=recordings)
