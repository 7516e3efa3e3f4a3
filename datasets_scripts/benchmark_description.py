"""What the benchmark's sets hold, in numbers and as a sheet of frames: it checks the data, not a method."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .benchmark_spec import CLIPS, FRAMES, RECORDINGS
from .schema import (
    FIXATIONS,
    GAZE_CONFIG,
    LABEL,
    PLANE_CLIPS_CONFIG,
    PLANES,
    PLANES_CONFIG,
    SCAN_ID,
    SPEECH_FRACTION,
    SPLITS,
    START_S,
)
from .shards import config_dir, read_info
from .simulated_speech import Remark
from .simulation_preview import write_preview

DESCRIPTION_FILE, SHEET_FILE = "description.json", "sheet.png"
SILENT_BELOW = 0.05  # what `speech_fraction`, an estimate by energy, calls silent in practice
PLANE_REMARK = "plane"
# The best that a clip holds.
WHOLE, PART = "a whole remark about the picture", "a part of one"
BESIDE, NOTHING = "other speech alone", "no remark"


def describe(folder: Path) -> str:
    """Describes a set of the benchmark; returns the text, which is kept in `description.json` beside it.

    Args:
        folder: of one kind of set, as `benchmark_sets` made it; where it has recordings, a sheet of the
            planes of its first scans is written to `sheet.png`.
    """
    description: dict[str, Any] = {}
    recordings = folder / RECORDINGS
    if recordings.is_dir():
        scans = sorted(path.parent for path in recordings.rglob("remarks.csv"))
        write_preview(scans, folder / SHEET_FILE)
        parts: dict[str, list[Path]] = {}
        for scan in scans:
            part = folder.name if scan.parent == recordings else scan.parent.name
            parts.setdefault(part, []).append(scan)
        description[RECORDINGS] = {part: describe_recordings(of_part) for part, of_part in parts.items()}
    if (folder / CLIPS).is_dir():
        configs = sorted(path.name for path in (folder / CLIPS / "data").iterdir())
        description[CLIPS] = {config: describe_clips(folder, config) for config in configs}
    if (folder / FRAMES).is_dir():
        description[FRAMES] = describe_frames(folder / FRAMES)
    text = json.dumps(description, indent=1)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    return f"{folder}\n{text}"


def describe_recordings(scans: Sequence[Path]) -> dict[str, Any]:
    """How long the scans are, which planes they visit, and what is said in them, by kind of remark."""
    remarks = [remark for scan in scans for remark in read_remarks(scan)]
    visits = Counter(row["label"] for scan in scans for row in _rows(scan / "planes.csv"))
    notes = [json.loads((scan / "scan.json").read_text(encoding="utf-8")) for scan in scans]
    seconds = sum(note["simulation"]["scan_seconds"] for note in notes)
    kinds = {kind: [each for each in remarks if each.kind == kind] for kind in ("plane", "wrong", "chat")}
    return {
        "scans": len(scans),
        "seconds": seconds,
        "visits": {plane: visits[plane] for plane in PLANES if visits[plane]},
        "remarks": {kind: _describe_remarks(of_kind, seconds) for kind, of_kind in kinds.items()},
        "different_wordings": len({remark.text for remark in remarks}),
    }


def _describe_remarks(remarks: Sequence[Remark], seconds: float) -> dict[str, float]:
    spoken = [remark.end_s - remark.start_s for remark in remarks]
    return {
        "number": len(remarks),
        "share_of_the_time": _round(sum(spoken) / seconds),
        "mean_seconds": _mean(spoken),
        "mean_words": _mean([len(remark.text.split()) for remark in remarks]),
    }


def describe_clips(folder: Path, config: str) -> dict[str, Any]:
    """By split: how many clips, how much of each is speech and, where the recordings are at hand, how much of
    a remark about the picture the clips hold.

    Args:
        folder: of one kind of set, its clips and recordings in folders below.
        config: `large` or `medium`.
    """
    clips, report = folder / CLIPS, folder / f"{CLIPS}.{config}.report.json"
    remarks: dict[str, list[Remark]] = {}
    if report.is_file():
        outcomes = json.loads(report.read_text(encoding="utf-8"))["recordings"]
        remarks = {each["scan_id"]: read_remarks(folder / RECORDINGS / each["name"]) for each in outcomes}
    seconds = read_info(clips, config)["clip_seconds"]
    described: dict[str, Any] = {}
    for split in SPLITS:
        rows = _read(clips, config, split, (SCAN_ID, START_S, SPEECH_FRACTION)).to_pylist()
        if not rows:
            continue
        described[split] = {
            "clips": len(rows),
            "scans": len({row[SCAN_ID] for row in rows}),
            "speech_fraction": _describe_speech([row[SPEECH_FRACTION] for row in rows]),
        }
        if remarks:
            clips_of_split = [(remarks[row[SCAN_ID]], row[START_S], row[START_S] + seconds) for row in rows]
            described[split] |= _describe_contents(clips_of_split)
    return described


def _describe_speech(fractions: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": _mean(fractions),
        "quartiles": [_round(each) for each in np.quantile(fractions, (0.25, 0.5, 0.75))],
        "silent": _mean([fraction < SILENT_BELOW for fraction in fractions]),
    }


def _describe_contents(clips: Sequence[tuple[list[Remark], float, float]]) -> dict[str, Any]:
    """Of clips, each given as the remarks of its scan, its start and its end in seconds."""
    kinds = Counter(speech_of(*clip) for clip in clips)
    words = [sum(len(remark.text.split()) for remark in whole_remarks(*clip)) for clip in clips]
    return {
        "share_of_clips": {kind: _round(kinds[kind] / len(clips)) for kind in (WHOLE, PART, BESIDE, NOTHING)},
        "mean_words_of_whole_remarks": _mean(words),
    }


def speech_of(remarks: Sequence[Remark], start_s: float, end_s: float) -> str:
    """The best that a clip from start to end holds: WHOLE, PART, BESIDE or NOTHING.

    Whether a remark is about the picture is a matter of its own time: a clip may begin when that has passed.
    """
    inside = [remark for remark in remarks if remark.start_s < end_s and remark.end_s > start_s]
    if any(remark.kind == PLANE_REMARK for remark in whole_remarks(inside, start_s, end_s)):
        return WHOLE
    if any(remark.kind == PLANE_REMARK for remark in inside):
        return PART
    return BESIDE if inside else NOTHING


def whole_remarks(remarks: Sequence[Remark], start_s: float, end_s: float) -> list[Remark]:
    """Those that begin and end between start and end."""
    return [remark for remark in remarks if start_s <= remark.start_s and remark.end_s <= end_s]


def describe_frames(frames: Path) -> dict[str, Any]:
    """By configuration and split: scans and rows, the rows of each class, the fixations of a frame."""
    described: dict[str, Any] = {}
    for config, column in ((PLANES_CONFIG, LABEL), (PLANE_CLIPS_CONFIG, LABEL), (GAZE_CONFIG, FIXATIONS)):
        for split in SPLITS:
            rows = _read(frames, config, split, (SCAN_ID, column)).to_pylist()
            if not rows:
                continue
            about: dict[str, Any] = {"scans": len({row[SCAN_ID] for row in rows}), "rows": len(rows)}
            if column == LABEL:
                classes = Counter(row[LABEL] for row in rows)
                about["classes"] = {plane: classes[number] for number, plane in enumerate(PLANES)}
            else:
                about["mean_fixations"] = _mean([len(row[FIXATIONS]) for row in rows])
            described.setdefault(config, {})[split] = about
    return described


def read_remarks(scan: Path) -> list[Remark]:
    """What is said in a simulated scan."""
    return [
        Remark(float(row["start_s"]), float(row["end_s"]), row["kind"], row["label"], row["text"])
        for row in _rows(scan / "remarks.csv")
    ]


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _read(dataset: Path, config: str, split: str, columns: Sequence[str]) -> pa.Table:
    shards = sorted(config_dir(dataset, config).glob(f"{split}-*.parquet"))
    if not shards:
        return pa.table({column: [] for column in columns})
    return pa.concat_tables(pq.read_table(shard, columns=list(columns)) for shard in shards)


def _mean(values: Sequence[float]) -> float:
    return _round(float(np.mean(values))) if len(values) else 0.0


def _round(value: float) -> float:
    return round(float(value), 3)
