"""Checkpoints of a run: `checkpoints/<step>` is complete or absent, `checkpoints/last` names the newest.

All processes share the folder. What one of them meets, a full disk or a damaged file, is told to all before
anything is decided.
"""

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import Tensor

from modeling_dualrep.configuration_dualrep import DualRepConfig

LAST = "last"
LAST_OR_NEW = "last_or_new"
DESCRIPTION_FILE = "checkpoint.json"
FILES = "files"
# torch.save has no error of its own for a file that it cannot write: a RuntimeError says one of these.
TORCH_WRITE_ERRORS = ("PytorchStreamWriter", "inline_container", "iostream error")
# Which parts the model has.
SWITCHES = ("use_contrastive_loss", "use_similarity_loss", "use_audio", "use_image")
# Fields of the towers that change no weight's shape, and not which weights Adam has: a checkpoint may be
# resumed with other values of these.
WEIGHTLESS_FIELDS = (
    "convolution",
    "block_dropout",
    "embedding_dropout",
    "spec_augment",
    "num_frames",
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed from; the text says why and what to do."""


@dataclass
class Progress:
    """How far a run has come; registered with accelerate, so it is saved and loaded with the weights.

    Args:
        step: steps done, skipped ones too. The position in the data follows from it, the seed and the batch
            size.
        history: logged values, one dict a logged step, for the loss curves.
        skipped_steps, skipped_in_a_row: steps up to the last log line that were skipped, since their loss or
            gradient was no number.
        unlogged: (processes, steps, values), what the steps since the last log line gave on each process.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    unlogged: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, by name."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave; fields that it lacks stay as they are."""
        for name, value in state.items():
            setattr(self, name, value)


def save_checkpoint(
    accelerator: Accelerator, checkpoints: Path, step: int, description: dict[str, Any], total_limit: int
) -> Path | None:
    """Writes `checkpoints/<step>` aside, renames it, points `last` at it and removes the oldest beyond the
    limit.

    All processes call it: each has random states of its own. Where the disk is full, or fails in another way,
    a warning is given and the earlier checkpoints stay.

    Args:
        accelerator: holds the prepared model and optimizer and what else was registered.
        checkpoints: the folder of all checkpoints of the run.
        step: steps done.
        description: what `check_checkpoint` will compare: see `describe_run`.
        total_limit: checkpoints to keep.

    Returns:
        The folder, or None if it could not be written.
    """
    complete, partial = checkpoints / str(step), checkpoints / f".{step}.partial"

    def begin() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)

    def finish() -> None:
        _describe(partial, description)
        _sync_folder(partial)
        if complete.exists():
            _remove(complete)
        partial.rename(complete)
        _point_last_at(checkpoints, step)
        _sync(checkpoints)

    def write_state() -> None:
        accelerator.save_state(str(partial))

    is_main = accelerator.is_main_process
    for is_mine, work in ((is_main, begin), (True, write_state), (is_main, finish)):
        failure = _first_failure(work if is_mine else None)
        if failure is not None:
            if is_main:
                shutil.rmtree(partial, ignore_errors=True)
                warnings.warn(_not_written(checkpoints, step, failure), stacklevel=2)
            return None
    if is_main:
        _remove_oldest(checkpoints, total_limit, newest=step)
    return complete


def remove_leftovers(checkpoints: Path) -> None:
    """Removes what a killed run left half written."""
    for entry in checkpoints.glob(".*.partial"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def saved_steps(checkpoints: Path) -> list[int]:
    """The steps of the complete checkpoints, ascending."""
    if not checkpoints.is_dir():
        return []
    return sorted(int(entry.name) for entry in checkpoints.iterdir() if entry.name.isdecimal())


def agree_on_checkpoint(accelerator: Accelerator, resume_from: str, checkpoints: Path) -> Path | None:
    """`find_checkpoint` by the main process, for all: the same folder, or the same error."""
    found: list[Path | CheckpointError | None] = [None]
    if accelerator.is_main_process:
        try:
            found = [find_checkpoint(resume_from, checkpoints)]
        except CheckpointError as error:
            found = [error]
    (folder,) = broadcast_object_list(found)
    if isinstance(folder, CheckpointError):
        raise folder
    return folder


def find_checkpoint(resume_from: str, checkpoints: Path) -> Path | None:
    """The folder that `resume_from_checkpoint` means.

    Args:
        resume_from: `last`, where a damaged checkpoint gives way to the one before, with a warning;
            `last_or_new`, the same, and None where no checkpoint was ever written; or a path.
        checkpoints: the folder of all checkpoints of the run.

    Raises:
        CheckpointError: there is none, or none that is undamaged.
    """
    if resume_from in (LAST, LAST_OR_NEW):
        if not saved_steps(checkpoints):
            if resume_from == LAST_OR_NEW:
                return None
            raise CheckpointError(
                f"There is no checkpoint in {checkpoints} to resume from. Leave resume_from_checkpoint out "
                f"to start anew, or give {LAST_OR_NEW} to do so whenever there is none."
            )
        return _newest_undamaged(checkpoints)
    folder = Path(resume_from)
    if not (folder / DESCRIPTION_FILE).is_file():
        raise CheckpointError(
            f"{folder} is no checkpoint: it holds no {DESCRIPTION_FILE}. "
            "Give `last` or a folder checkpoints/<step>."
        )
    damage = find_damage(folder)
    if damage is not None:
        raise CheckpointError(
            f"The checkpoint {folder} is damaged: {damage}. "
            "Give another folder checkpoints/<step>, or `last`."
        )
    return folder


def find_damage(folder: Path) -> str | None:
    """What is not as it was when the checkpoint was written; None if it is whole."""
    try:
        files = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))[FILES]
    except (OSError, ValueError, KeyError):
        return f"its {DESCRIPTION_FILE} is missing or cannot be read"
    for name, written in files.items():
        file = folder / name
        if not file.is_file():
            return f"its {name} is missing"
        size = file.stat().st_size
        if size != written["bytes"]:
            return f"its {name} holds {size} bytes in place of {written['bytes']}"
        if _checksum(file) != written["sha256"]:
            return f"its {name} is not what was written"
    return None


def describe_run(config: DualRepConfig, data_order: dict[str, Any]) -> dict[str, Any]:
    """What must be the same when a run goes on: the model's shape, and what orders the clips."""
    return {"architecture": architecture(config), "data_order": data_order}


def architecture(config: DualRepConfig) -> dict[str, Any]:
    """The fields of the configuration that decide which weights there are and which are trained, dotted."""
    fields = {name: getattr(config, name) for name in ("projection_dim", *SWITCHES)}
    for tower in ("video_config", "audio_config", "image_config"):
        tower_config = getattr(config, tower)
        for name in sorted(type(tower_config).own_fields() - set(WEIGHTLESS_FIELDS)):
            value = getattr(tower_config, name)
            fields[f"{tower}.{name}"] = list(value) if isinstance(value, tuple) else value
    return fields


def check_checkpoint(folder: Path, description: dict[str, Any]) -> None:
    """Raises CheckpointError where the checkpoint is of another architecture or another order of the data."""
    saved = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    for part, what in (
        ("architecture", "another architecture"),
        ("data_order", "another order of the clips"),
    ):
        for name in sorted(saved[part].keys() | description[part].keys()):
            here = description[part].get(name)
            # An earlier version wrote fewer fields of the architecture down.
            there = saved[part].get(name, here if part == "architecture" else None)
            if there != here:
                raise CheckpointError(
                    f"The checkpoint {folder} is of {what}: its {name} is {there}, this run's is {here}. "
                    "Give the recipe that it was made with, or start anew in another output_dir."
                )


def load_checkpoint(accelerator: Accelerator, folder: Path) -> None:
    """Puts weights, optimizer, random states and everything registered back as they were."""
    accelerator.load_state(str(folder))


def _describe(partial: Path, description: dict[str, Any]) -> None:
    """Writes the description with the size and checksum of every file, by which damage will be known."""
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": _checksum(file)}
        for file in sorted(partial.iterdir())
    }
    text = json.dumps(description | {FILES: files}, indent=2)
    (partial / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _first_failure(work: Callable[[], None] | None) -> str | None:
    """Does the work of this process, if it has any; what failed in writing on any process, told to all."""
    failure = None
    try:
        if work is not None:
            work()
    except (OSError, SafetensorError) as error:
        failure = str(error)
    except RuntimeError as error:
        if not any(words in str(error) for words in TORCH_WRITE_ERRORS):
            raise
        failure = str(error).splitlines()[0]
    return next((each for each in gather_object([failure]) if each is not None), None)


def _not_written(checkpoints: Path, step: int, failure: str) -> str:
    last = _last_step(checkpoints)
    there = "there is none yet" if last is None else f"the last one is {checkpoints / str(last)}"
    return (
        f"The checkpoint of step {step} could not be written: {failure}. The run goes on; {there}. Make room "
        "on the disk, or keep fewer checkpoints (checkpoints_total_limit)."
    )


def _remove_oldest(checkpoints: Path, total_limit: int, newest: int) -> None:
    # A run that was resumed from an earlier checkpoint finds later steps than its newest.
    older = [step for step in saved_steps(checkpoints) if step != newest]
    for step in older[: max(0, len(older) + 1 - total_limit)]:
        _remove(checkpoints / str(step))


def _remove(checkpoint: Path) -> None:
    """Takes its name away first: a kill meanwhile leaves no part of it that looks whole."""
    aside = checkpoint.parent / f".{checkpoint.name}.removed.partial"
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _newest_undamaged(checkpoints: Path) -> Path:
    last = _last_step(checkpoints)
    candidates = [step for step in reversed(saved_steps(checkpoints)) if last is None or step <= last]
    damaged: list[str] = []
    for step in candidates:
        folder = checkpoints / str(step)
        damage = find_damage(folder)
        if damage is None:
            if damaged:
                warnings.warn(f"{' '.join(damaged)} Resuming from {folder}, the one before.", stacklevel=2)
            return folder
        damaged.append(f"The checkpoint {folder} is damaged: {damage}.")
    raise CheckpointError(
        f"{' '.join(damaged)} There is no other to resume from in {checkpoints}: remove them, and leave "
        "resume_from_checkpoint out to start anew."
    )


def _last_step(checkpoints: Path) -> int | None:
    """The step that `last` names; None where it names none."""
    pointer = checkpoints / LAST
    if pointer.is_symlink():
        name = os.readlink(pointer)
    elif pointer.is_file():
        name = pointer.read_text(encoding="utf-8").strip()
    else:
        return None
    return int(name) if name.isdecimal() else None


def _point_last_at(checkpoints: Path, step: int) -> None:
    aside = checkpoints / f".{LAST}.partial"
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(str(step), target_is_directory=True)
    except OSError:  # a file system without symbolic links
        aside.write_text(f"{step}\n", encoding="utf-8")
        _sync(aside)
    os.replace(aside, checkpoints / LAST)


def _sync_folder(folder: Path) -> None:
    for file in folder.iterdir():
        _sync(file)
    _sync(folder)


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no fsync of a folder.
        if error.errno != errno.EINVAL or path.is_file():
            raise
    finally:
        os.close(descriptor)
