"""Checkpoints of a run: `checkpoints/<step>` is complete or absent, `checkpoints/last` names the newest."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from modeling_dualrep.configuration_dualrep import DualRepConfig

LAST = "last"
DESCRIPTION_FILE = "checkpoint.json"
# Fields that change no weight's shape: a checkpoint may be resumed with other values of these.
WEIGHTLESS_FIELDS = ("freeze", "block_dropout", "embedding_dropout", "spec_augment", "num_frames")


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed from; the text says why and what to do."""


@dataclass
class Progress:
    """How far a run has come; registered with accelerate, so it is saved and loaded with the weights.

    Args:
        step: optimizer steps done. The position in the data follows from it, the seed and the batch size.
        history: logged values, one dict a logged step, for the loss curves.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.history = state["step"], state["history"]


def save_checkpoint(
    accelerator: Accelerator, checkpoints: Path, step: int, description: dict[str, Any], total_limit: int
) -> Path:
    """Writes `checkpoints/<step>` aside, renames it, points `last` at it and removes the oldest beyond the
    limit.

    All processes call it: each has random states of its own.

    Args:
        accelerator: holds the prepared model and optimizer and what else was registered.
        checkpoints: the folder of all checkpoints of the run.
        step: optimizer steps done.
        description: what `check_checkpoint` will compare: see `describe_run`.
        total_limit: checkpoints to keep.
    """
    complete, partial = checkpoints / str(step), checkpoints / f".{step}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(complete, ignore_errors=True)
        partial.rename(complete)
        _point_last_at(checkpoints, step)
        for old_step in saved_steps(checkpoints)[:-total_limit]:
            shutil.rmtree(checkpoints / str(old_step))
    accelerator.wait_for_everyone()
    return complete


def saved_steps(checkpoints: Path) -> list[int]:
    """The steps of the complete checkpoints, ascending."""
    if not checkpoints.is_dir():
        return []
    return sorted(int(entry.name) for entry in checkpoints.iterdir() if entry.name.isdecimal())


def find_checkpoint(resume_from: str, checkpoints: Path) -> Path:
    """The folder that `resume_from_checkpoint` means: `last`, or a path.

    Raises:
        CheckpointError: there is none.
    """
    if resume_from == LAST:
        pointer = checkpoints / LAST
        if pointer.is_dir():
            return pointer.resolve()
        if pointer.is_file():
            return checkpoints / pointer.read_text(encoding="utf-8").strip()
        raise CheckpointError(
            f"There is no checkpoint in {checkpoints} to resume from. "
            "Leave resume_from_checkpoint out to start anew."
        )
    folder = Path(resume_from)
    if not (folder / DESCRIPTION_FILE).is_file():
        raise CheckpointError(
            f"{folder} is no checkpoint: it holds no {DESCRIPTION_FILE}. "
            "Give `last` or a folder checkpoints/<step>."
        )
    return folder


def describe_run(config: DualRepConfig, data_order: dict[str, Any]) -> dict[str, Any]:
    """What must be the same when a run goes on: the model's shape, and what orders the clips."""
    return {"architecture": architecture(config), "data_order": data_order}


def architecture(config: DualRepConfig) -> dict[str, Any]:
    """The fields of the configuration that decide which weights there are, dotted."""
    fields = {"projection_dim": config.projection_dim}
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
            there, here = saved[part].get(name), description[part].get(name)
            if there != here:
                raise CheckpointError(
                    f"The checkpoint {folder} is of {what}: its {name} is {there}, this run's is {here}. "
                    "Give the recipe that it was made with, or start anew in another output_dir."
                )


def load_checkpoint(accelerator: Accelerator, folder: Path) -> None:
    """Puts weights, optimizer, random states and everything registered back as they were."""
    accelerator.load_state(str(folder))


def _point_last_at(checkpoints: Path, step: int) -> None:
    aside = checkpoints / f".{LAST}.partial"
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(str(step), target_is_directory=True)
    except OSError:  # a file system without symbolic links
        aside.write_text(f"{step}\n", encoding="utf-8")
    os.replace(aside, checkpoints / LAST)
