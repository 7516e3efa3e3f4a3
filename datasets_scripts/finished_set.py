"""A configuration that is written aside as a whole, then put into the data set.

All of it is made in `OUT.partial/set` and synced. From the moment its mark is written, the set is to be had:
should the process end while it puts one after the other in its place, the next run does what is missing. What
is still aside tells what that is, so that it may be done again at any moment.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets_scripts.dataset_card import CARD_FILE
from datasets_scripts.durable_files import put_folder, sync, sync_tree, written_aside
from datasets_scripts.shards import config_dir
from datasets_scripts.splits import SPLITS_FILE
from datasets_scripts.staged_scans import clear

SET_FOLDER, MARK_FILE, REPORT_FILE, PAGE_FILE = "set", "finished.json", "report.json", "report.html"


def beside(output_dir: Path, suffix: str) -> Path:
    """`OUT.suffix`, a file or folder that belongs to a data set and is not published with it."""
    return output_dir.with_name(f"{output_dir.name}.{suffix}")


def report_path(output_dir: Path, config: str) -> Path:
    """The report of a configuration, beside the data set, since it names files."""
    return beside(output_dir, f"{config}.report.json")


def page_path(output_dir: Path, config: str) -> Path:
    """The same as a page."""
    return beside(output_dir, f"{config}.report.html")


@dataclass(frozen=True)
class FinishedSet:
    """What is about to be put in its place: the `config`, made by a `command` (its fingerprint).

    `files` are the name, size and time of change of what the configuration's folder holds.
    """

    command: str
    config: str
    files: list[list[str | int]]


def mark_finished(staging: Path, command: str, config: str) -> None:
    """Declare what is in `staging/set` whole: card, splits, report and the configuration's folder."""
    aside = staging / SET_FOLDER
    sync_tree(aside)
    finished = FinishedSet(command, config, _files(config_dir(aside, config)))
    with written_aside(staging / MARK_FILE) as mark:
        mark.write_text(json.dumps(asdict(finished)) + "\n", encoding="utf-8")


def put_in_place(staging: Path, output_dir: Path) -> str | None:
    """Put a finished set in its place, clear all that is staged, and return the fingerprint of its command;
    None, and nothing is done, where there is none.

    Readers meet the old configuration or the new one, as a whole; the card names it last.
    """
    mark, aside = staging / MARK_FILE, staging / SET_FOLDER
    if not mark.exists():
        return None
    finished = FinishedSet(**json.loads(mark.read_text(encoding="utf-8")))
    new, target = (config_dir(folder, finished.config) for folder in (aside, output_dir))
    target.parent.mkdir(parents=True, exist_ok=True)
    _move(aside / SPLITS_FILE, output_dir / SPLITS_FILE)
    if _files(new) == finished.files:  # otherwise it is in place, and what it replaced lies here
        put_folder(new, target)
    _move(aside / CARD_FILE, output_dir / CARD_FILE)
    _move(aside / REPORT_FILE, report_path(output_dir, finished.config))
    _move(aside / PAGE_FILE, page_path(output_dir, finished.config))
    clear(staging, last=mark)
    return finished.command


def _files(folder: Path) -> list[list[str | int]] | None:
    if not folder.exists():
        return None
    states = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    return [[name, state.st_size, state.st_mtime_ns] for name, state in states]


def _move(source: Path, target: Path) -> None:
    if source.exists():
        os.replace(source, target)
        sync(target.parent)
