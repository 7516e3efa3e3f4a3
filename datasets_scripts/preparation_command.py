"""The command line that all preparations share: recordings, data set, parameters, the run."""

import argparse
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

from datasets_scripts.loudness import EBU_R128_LUFS
from datasets_scripts.preparation import PreparationReport, PrepareError, RunOptions, StrictError
from datasets_scripts.preparation_engine import ENGINES, PROCESSES
from datasets_scripts.set_parameters import BLANK, FOUND, SetParameters
from datasets_scripts.speech_activity import SILERO

# Other than from Python: commands are given recordings as machines write them, with names on the picture.
COMMAND_DEFAULTS = {
    "sector": FOUND,
    "text": BLANK,
    "speech_detector": SILERO,
    "loudness_lufs": EBU_R128_LUFS,
}


def run_command(
    prepare: Callable[..., PreparationReport],
    parameters_class: type[SetParameters],
    description: str,
    command_line: list[str] | None,
) -> int:
    """Run a preparation as its command line says; returns the exit status: 0, 1 under --strict, 2 where
    nothing could be done.

    Args:
        prepare: called with the recordings' folder, that of the data set, the parameters and `RunOptions`;
            its name is that of the command.
        parameters_class: its fields become options.
        description: what `--help` says first.
        command_line: None takes that of the process.
    """
    options = vars(_parser(prepare.__name__, parameters_class, description).parse_args(command_line))
    recordings_dir, output_dir = options.pop("recordings"), options.pop("output")
    run = {name: options.pop(name) for name in RunOptions.__annotations__}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    try:
        report = prepare(recordings_dir, output_dir, parameters_class(**options), **run)
    except (PrepareError, ValueError, OSError) as error:
        print(f"{prepare.__name__}: {error}", file=sys.stderr)
        return 1 if isinstance(error, StrictError) else 2
    print(report.summary())
    return 0


def _parser(program: str, parameters_class: type[SetParameters], description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("recordings", type=Path, help="folder of recordings: one folder a scan, or videos")
    parser.add_argument("output", type=Path, help="folder of the data set")
    meanings = {name: text for each in parameters_class.__mro__ for name, text in meanings_of(each).items()}
    hints = typing.get_type_hints(parameters_class)
    for field in fields(parameters_class):
        kind = _type_of_values(hints[field.name])
        if types.NoneType in typing.get_args(hints[field.name]):
            kind = partial(_value_or_none, kind)
        default = COMMAND_DEFAULTS.get(field.name, field.default)
        text = meanings[field.name] + ("" if default in (None, ()) else f" Default: {default}.")
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            nargs="+" if isinstance(default, tuple) else None,
            default=default,
            help=text.replace("%", "%%"),
        )
    parser.add_argument("--workers", type=int, help="processes; default: one a CPU")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=PROCESSES,
        help="processes of this machine, or ray: hand recordings to Ray. Default: processes.",
    )
    parser.add_argument(
        "--ray-address",
        help="of a running Ray cluster, whose machines share the folders of recordings and data set by the "
        "same names; default: RAY_ADDRESS, or else a Ray of this machine, started for the run",
    )
    parser.add_argument("--key-file", type=Path, help="key of the hashed identifiers; default: OUT.key")
    parser.add_argument(
        "--sheet", type=Path, help="PNG to show, a tile a recording, what is kept and what is blanked"
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first recording that cannot be used"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the configuration if it is there")
    return parser


def _type_of_values(hint: object) -> type:
    """int, float or str, of a hint that may also allow None, or several values."""
    options = typing.get_args(hint) or (hint,)
    return next(option for option in options if option is not types.NoneType)


def _value_or_none(kind: type, text: str) -> object:
    return None if text == "none" else kind(text)


def meanings_of(cls: type) -> dict[str, str]:
    """What the docstring of a class says of each argument."""
    arguments = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
