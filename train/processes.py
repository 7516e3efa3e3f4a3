"""How many processes train together, and how many were meant to."""

import os
import warnings

from train.arguments import ArgumentsError

HOW_TO_LAUNCH = (
    "Launch N with `torchrun --nproc_per_node N` or a file of train/launch/; `accelerate launch --cpu "
    "--num_processes N` starts one, whatever N is."
)


def check_processes(running: int, expected: int | None) -> None:
    """Holds the number of processes that train together against the one that was meant.

    With no number expected, one process that looks like what is left of a launch of several is warned of.

    Args:
        running: processes that train together.
        expected: `expected_processes` of the run.

    Raises:
        ArgumentsError: they differ; or a launcher started several that know nothing of each other, and would
            all write the same files.
    """
    if expected is not None and running != expected:
        raise ArgumentsError(
            f"expected_processes is {expected}, but the processes that train together are {running}. "
            f"{HOW_TO_LAUNCH} Or set expected_processes to {running}."
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if running == 1 and launched > 1:
        raise ArgumentsError(
            f"The launcher started {launched} processes, but each would train alone on its own device. Train "
            "with one, or set the environment variable ACCELERATE_USE_CPU=true to train together on the CPU."
        )
    if expected is None and running == 1 and "MASTER_ADDR" in os.environ:
        warnings.warn(
            f"One process trains alone, though MASTER_ADDR is set as for several. {HOW_TO_LAUNCH} Where one "
            "is what you want, set expected_processes to 1.",
            stacklevel=2,
        )
