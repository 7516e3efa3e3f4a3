"""What a preparation tells: what became of each recording, the sums, and why nothing was written."""

import json
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
    `origin` is the keyed hashes of its site and machine.
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

    def __post_init__(self) -> None:
        for name in ("texts", "origin"):  # JSON has no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))


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
