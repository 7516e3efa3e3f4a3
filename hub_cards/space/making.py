"""Makes the small models that the app shows, by the commands of the README, as far as they are not there."""

import shlex
import subprocess
import sys
from dataclasses import dataclass

from hub_cards.space.models import DEFAULT_FOLDERS, ROOT, ModelError

RECORDINGS, FRAMES = "runs/labelled/recordings", "runs/labelled/set"
SCANS = 135
MODULES = {
    "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
    "python": [],
}


@dataclass(frozen=True)
class Step:
    """A command of the README and what is there once it is done.

    Args:
        command: as it stands in the README, in one line.
        makes: pattern of files below the root of the checkout.
        number: of files that fit it.
    """

    command: str
    makes: str
    number: int = 1

    def is_done(self) -> bool:
        """Whether all that it makes is there."""
        return len(list(ROOT.glob(self.makes))) >= self.number

    def words(self) -> list[str]:
        """For a new process, in the environment of this one."""
        program, *arguments = shlex.split(self.command.removeprefix("uv run "))
        return [sys.executable, *MODULES[program], *arguments]


FINETUNE = (
    f"uv run accelerate launch train/finetune_{{0}}.py train/recipes/demo_{{0}}.yaml --dataset {FRAMES} "
    "--output_dir {1}"
)
SMALL_FRAMES = f"{RECORDINGS} {FRAMES} --frame-size 64"
STEPS = (
    Step("uv run accelerate launch train/pretrain.py", f"{DEFAULT_FOLDERS['model']}/config.json"),
    Step(
        f"uv run python -m datasets_scripts.simulate_scans {RECORDINGS} --scans {SCANS} --seed 100 "
        "--scan-seconds 60 --image-size 64 --frames-per-second 10",
        f"{RECORDINGS}/scan_*",
        SCANS,
    ),
    Step(
        f"uv run python -m datasets_scripts.prepare_planes {SMALL_FRAMES} --seconds-between-frames 1 "
        "--sector whole",
        f"{FRAMES}/data/planes/*",
    ),
    Step(
        f"uv run python -m datasets_scripts.prepare_gaze {SMALL_FRAMES} --sector whole",
        f"{FRAMES}/data/gaze/*",
    ),
    *(
        Step(FINETUNE.format(name, DEFAULT_FOLDERS[name]), f"{DEFAULT_FOLDERS[name]}/config.json")
        for name in ("planes", "saliency")
    ),
)


def make_models() -> None:
    """Runs the steps that are not done, one after the other; each says how far it is.

    Raises:
        ModelError: a step failed, after it has said why.
    """
    for step in STEPS:
        if step.is_done():
            continue
        print(step.command, flush=True)
        ended = subprocess.run(step.words(), cwd=ROOT)
        if ended.returncode != 0:
            raise ModelError(
                f"`{step.command}` ended with status {ended.returncode}; what it said stands above. The same "
                "command of the app goes on from there."
            )
