"""Publishes the folder of a run on the Hub, in one commit.

    python -m hub_cards.push RUN_FOLDER ORG/NAME

Sent are the weights, the config with the code it names, the processor, the card, metrics.json, the recipe and
the pictures; checkpoints, logs and predictions are not. The repository is private unless `--public` is given
and confirmed. The same command again sends only what changed. HF_ENDPOINT names a private hub, HF_TOKEN or
`hf auth login` says who pushes.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hub_cards.card_facts import CONFIG_FILE
from hub_cards.hub_repository import Destination, HubState, Published, check_login, publish
from hub_cards.published_files import OTHER_STARTS, OURS, model_files, read_config
from hub_cards.push_errors import PushError
from hub_cards.render import hub_id

SHOWN = 3


def push_run(
    run_folder: Path | str,
    repo_id: str,
    *,
    public: bool = False,
    tag: str | None = None,
    base_model: str | None = None,
    with_frames: bool = False,
) -> Published:
    """Publishes a run's folder; its files are checked before the Hub is asked for anything.

    Args:
        run_folder: as training left it, with its card.
        repo_id: ORG/NAME.
        public: whether everybody may see it; whoever calls has this confirmed.
        tag: names the commit as a release.
        base_model: ORG/NAME of the model that a task model was fine-tuned from; None where its card names it.
        with_frames: send pictures that show frames of scans too.

    Raises:
        PushError: the folder, the name, the repository or the Hub refuses; nothing is published then.
    """
    destination = Destination(repo_id, "model", public, tag)
    folder = Path(run_folder)
    files = model_files(folder, repo_id, base_model, with_frames)
    config = read_config(folder)
    message = f"{config['architectures'][0]} with its code, card and metrics"
    return publish(destination, files, partial(check_same_model, repo_id, config), message)


def check_before_training(repo_id: str, model: str | None = None) -> None:
    """Raises PushError for what would otherwise be refused after a long training.

    Args:
        repo_id: where the run will be pushed.
        model: what a fine-tuning starts from, as its recipe says; None for a pretraining.

    Raises:
        PushError: the Hub refuses the name or does not know who pushes, or the run starts from a model of
            ours that has no name on the Hub.
    """
    check_login(repo_id)
    if model is not None and model not in OTHER_STARTS and hub_id(model) is None:
        raise PushError(
            f"{repo_id} would have to name its base model, and {model} is a folder here: push that one "
            "first, and give its name ORG/NAME as --model."
        )


def push_finished_run(run_folder: Path | str, repo_id: str, model: str | None = None) -> Published:
    """`push_run` at the end of a training: what goes wrong then leaves the run finished, and says so.

    Args:
        run_folder: as training left it.
        repo_id: ORG/NAME.
        model: what a fine-tuning started from, as its recipe says; None for a pretraining.

    Raises:
        PushError: see `push_run`; the text says how to publish the run later.
    """
    try:
        return push_run(run_folder, repo_id, base_model=None if model is None else hub_id(model))
    except PushError as error:
        again = f"python -m hub_cards.push {run_folder} {repo_id}"
        raise PushError(f"{error} The run is finished; publish it later with `{again}`.") from error


def check_same_model(repo_id: str, config: dict[str, Any], state: HubState) -> None:
    """Raises PushError for a repository that holds another kind of model, or files that no push wrote."""
    other = "Push to a new name, or empty the repository first."
    foreign = sorted(path for path in state.files if not OURS.fullmatch(path))
    if foreign:
        more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
        raise PushError(
            f"{repo_id} holds files that no push of ours wrote: {', '.join(foreign[:SHOWN])}{more}. {other}"
        )
    if CONFIG_FILE not in state.files:
        raise PushError(f"{repo_id} holds files, but no {CONFIG_FILE} that says of what model. {other}")
    try:
        there = json.loads(state.read(CONFIG_FILE))
        differing = [name for name in ("model_type", "architectures") if there.get(name) != config[name]]
    except (ValueError, AttributeError) as error:
        raise PushError(f"The {CONFIG_FILE} of {repo_id} cannot be read. {other}") from error
    if differing:
        name = differing[0]
        raise PushError(
            f"{repo_id} is another model: its {name} is {there.get(name)!r}, this one's {config[name]!r}. "
            f"{other}"
        )


def add_destination(parser: argparse.ArgumentParser) -> None:
    """The arguments that every push takes."""
    parser.add_argument("repo_id", metavar="ORG/NAME", help="the repository; it is made where there is none")
    parser.add_argument("--public", action="store_true", help="let everybody see it; asks first")
    parser.add_argument("--yes", action="store_true", help="--public is meant: do not ask")
    parser.add_argument("--tag", help="name this state as a release, such as v0.1.0")


def run_command(program: str, options: argparse.Namespace, push: Callable[[], object]) -> int:
    """Confirms, pushes, and says what was done; returns the exit status, 2 where something is refused."""
    try:
        if options.public and not options.yes:
            confirm_public(options.repo_id)
        print(push())
    except PushError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped; run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def confirm_public(repo_id: str) -> None:
    """Has somebody at the terminal type the name; PushError where nobody does."""
    if not sys.stdin.isatty():
        raise PushError(
            "--public shows it to everybody, and nobody is at a terminal to confirm it: add --yes."
        )
    if input(f"Everybody will see {repo_id}. Type its name to confirm: ").strip() != repo_id:
        raise PushError("The name was not confirmed: nothing was published.")


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="push", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="the folder that training left")
    add_destination(parser)
    parser.add_argument(
        "--base_model", metavar="ORG/NAME", help="the model on the Hub that a task model was fine-tuned from"
    )
    parser.add_argument(
        "--with_frames", action="store_true", help="send pictures that show frames of scans too"
    )
    options = parser.parse_args(command_line)
    return run_command(
        "push",
        options,
        lambda: push_run(
            options.run_folder,
            options.repo_id,
            public=options.public,
            tag=options.tag,
            base_model=options.base_model,
            with_frames=options.with_frames,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
