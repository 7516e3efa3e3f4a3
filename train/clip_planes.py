"""Which plane a clip shows, from the planes.csv of the recording it was cut from; for pictures and checks
alone.

Clips do not carry their plane: nothing that trains on them may know it.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from datasets_scripts.recordings import PlaneInterval, RecordingFiles, find_recordings, open_recording
from datasets_scripts.schema import BACKGROUND
from train.triples import ClipKey


def planes_of_clips(
    keys: Iterable[ClipKey], recordings_dir: Path, dataset: Path, config: str, clip_seconds: float
) -> dict[str, str]:
    """The plane of each clip by its id; clips of recordings without planes.csv are left out.

    Args:
        keys: the clips.
        recordings_dir: the recordings they were cut from.
        dataset: what `prepare_clips` wrote; its report stands beside it and knows the recordings' names.
        config: medium, large, ...
        clip_seconds: length of a clip.
    """
    files = recording_of_scan(recordings_dir, dataset, config)
    intervals_of_scan: dict[str, list[PlaneInterval] | None] = {}
    planes = {}
    for key in keys:
        if key.scan_id not in intervals_of_scan:
            intervals_of_scan[key.scan_id] = open_recording(files[key.scan_id]).planes()
        intervals = intervals_of_scan[key.scan_id]
        if intervals is not None:
            planes[key.clip_id] = longest_plane(intervals, key.start_s, key.start_s + clip_seconds)
    return planes


def recording_of_scan(recordings_dir: Path, dataset: Path, config: str) -> dict[str, RecordingFiles]:
    """The recording of each scan id, by the report that `prepare_clips` left beside the set."""
    report = json.loads(dataset.with_name(f"{dataset.name}.{config}.report.json").read_text(encoding="utf-8"))
    files_of_name = {files.name: files for files in find_recordings(recordings_dir)}
    return {outcome["scan_id"]: files_of_name[outcome["name"]] for outcome in report["recordings"]}


def longest_plane(intervals: Iterable[PlaneInterval], start_s: float, end_s: float) -> str:
    """The plane that fills most of the time from start to end; background where that is none."""
    seconds: dict[str, float] = {BACKGROUND: 0.0}
    for interval in intervals:
        overlap_s = min(end_s, interval.end_s) - max(start_s, interval.start_s)
        seconds[interval.label] = seconds.get(interval.label, 0.0) + max(0.0, overlap_s)
    named_s = sum(seconds.values())
    seconds[BACKGROUND] += end_s - start_s - named_s
    return max(seconds, key=lambda label: seconds[label])
