"""Publishes a prepared data set on the Hub, after the privacy check, in one commit.

    python -m hub_cards.push_dataset SET_FOLDER ORG/NAME --license LICENCE

Sent are the card, the splits and, of each configuration that the card names, its shards and info.json; the
key, reports, sheets and whatever else lies there are not. The rules are those of `hub_cards.push`.
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard

from datasets_scripts.privacy_check import check_privacy
from hub_cards.hub_repository import Destination, HubState, Published, publish
from hub_cards.published_files import CARD_FILE
from hub_cards.push import SHOWN, add_destination, run_command
from hub_cards.push_errors import PushError, one_line

SPLITS_FILE, INFO_FILE = "splits.json", "info.json"
CONFIG = re.compile(r"[A-Za-z0-9_.]+")
SHARD = re.compile(r"[a-z]+-\d{5}-of-\d{5}\.parquet")
LAID_OUT = re.compile(rf"{CARD_FILE}|{SPLITS_FILE}|data/{CONFIG.pattern}/({INFO_FILE}|{SHARD.pattern})")
CHECK = "python -m datasets_scripts.privacy_check"


def push_set(
    set_folder: Path | str,
    repo_id: str,
    *,
    public: bool = False,
    tag: str | None = None,
    license: str | None = None,
    recordings: Path | None = None,
) -> Published:
    """Publishes a prepared set; it is checked before the Hub is asked for anything.

    Args:
        set_folder: as the prepare scripts left it.
        repo_id: ORG/NAME.
        public: whether everybody may see it; whoever calls has this confirmed.
        tag: names the commit as a release.
        license: of the set, for a card that names none.
        recordings: what the set is made of, whose identifiers the privacy check looks for.

    Raises:
        PushError: the set, its privacy check, the name, the repository or the Hub refuses; nothing is
            published then.
    """
    destination = Destination(repo_id, "dataset", public, tag)
    folder = Path(set_folder)
    files = set_files(folder, license)
    require_privacy(folder, recordings)
    return publish(destination, files, partial(check_same_set, repo_id, files), "Clips and labelled frames")


def set_files(folder: Path, license: str | None) -> dict[str, Path | bytes]:
    """What is published of a set: what its own card names.

    Raises:
        PushError: no such folder, no card, a card without configurations or licence, or one without shards.
    """
    card = read_card(folder)
    if license is not None and card.data.license is None:
        card.data.license = license
    if not card.data.license:
        raise PushError(f"{folder / CARD_FILE} names no licence: give one, such as --license cc-by-nc-4.0.")
    files: dict[str, Path | bytes] = {CARD_FILE: card.content.encode("utf-8")}
    if (folder / SPLITS_FILE).is_file():
        files[SPLITS_FILE] = folder / SPLITS_FILE
    for config in config_names(folder, card):
        data = folder / "data" / config
        shards = sorted(path for path in data.glob("*.parquet") if SHARD.fullmatch(path.name))
        if not shards:
            raise PushError(
                f"{folder / CARD_FILE} names {config}, but {data} holds no shard: prepare it anew."
            )
        info = [data / INFO_FILE] if (data / INFO_FILE).is_file() else []
        files |= {path.relative_to(folder).as_posix(): path for path in [*shards, *info]}
    return files


def read_card(folder: Path) -> DatasetCard:
    """The card of a set; PushError where there is none."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise PushError(f"There is no {path}: give the folder of a prepared set.")
    try:
        return DatasetCard(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise PushError(
            f"{path} has no readable metadata ({one_line(error)}): prepare the set anew."
        ) from error


def config_names(folder: Path, card: DatasetCard) -> list[str]:
    """The configurations of a card, whose files lie in folders of their names.

    Raises:
        PushError: the card names none, or one that no prepare script writes.
    """
    configs = getattr(card.data, "configs", None) or []
    names = [each.get("config_name", "") for each in configs if isinstance(each, dict)]
    if not names:
        raise PushError(f"{folder / CARD_FILE} names no configuration: give the folder of a prepared set.")
    wrong = next((name for name in names if not CONFIG.fullmatch(name)), None)
    if wrong is not None:
        raise PushError(
            f"{folder / CARD_FILE} names a configuration {wrong!r}, which no prepare script writes."
        )
    return names


def require_privacy(folder: Path, recordings: Path | None) -> None:
    """Raises PushError unless the privacy check passes."""
    try:
        findings = check_privacy(folder, recordings=recordings)
    except (ValueError, OSError) as error:
        raise PushError(f"The privacy check cannot read the set: {error}") from error
    if findings:
        given = "" if recordings is None else f" --recordings {recordings}"
        raise PushError(
            f"The privacy check has {len(findings)} findings, so nothing is published. See them with "
            f"`{CHECK} {folder}{given}`, and prepare the set without them."
        )


def check_same_set(repo_id: str, files: dict[str, Path | bytes], state: HubState) -> None:
    """Raises PushError for a repository with other files, or with configurations that this set has not."""
    other = "Push to a new name, or empty the repository first."
    foreign = sorted(path for path in state.files if not LAID_OUT.fullmatch(path))
    if foreign:
        raise PushError(
            f"{repo_id} holds files that no push of ours wrote: {', '.join(foreign[:SHOWN])}. {other}"
        )
    lost = sorted(_configs_of(state.files) - _configs_of(files))
    if lost:
        raise PushError(
            f"{repo_id} is another set: it has {', '.join(lost)}, which this one has not. {other}"
        )


def _configs_of(paths: object) -> set[str]:
    return {path.split("/")[1] for path in paths if path.startswith("data/")}


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="push_dataset", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("set_folder", type=Path, metavar="SET_FOLDER", help="folder of the data set")
    add_destination(parser)
    parser.add_argument("--license", help="licence of the set, for a card that names none")
    parser.add_argument(
        "--recordings", type=Path, help="folder of the recordings, whose identifiers are looked for"
    )
    options = parser.parse_args(command_line)
    return run_command(
        "push_dataset",
        options,
        lambda: push_set(
            options.set_folder,
            options.repo_id,
            public=options.public,
            tag=options.tag,
            license=options.license,
            recordings=options.recordings,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
