"""What the probes of pretrained models share: their command line, and the clips that they look at."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from train.metrics_file import write_metrics
from train.stored_rows import data_hash

CONFIG = "medium"
MODEL_NAME = re.compile(r"[a-z0-9_]+")
# From the benchmark's set for pretraining and model folders by name to measures by name.
Probe = Callable[[Path, dict[str, Path]], dict[str, float]]


def run_probe(name: str, description: str, probe: Probe, command_line: Sequence[str] | None) -> int:
    """Reads the command line, measures and writes; what cannot be used ends in a sentence and exit status 2.

    Args:
        name: of the module, which the file that is written names as its recipe.
        description: for the help.
        probe: what measures.
        command_line: FOLDER NAME=MODEL [NAME=MODEL ...] --output FILE.json; None: the process's own.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the benchmark's set for pretraining")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL", help="model folders by a name for each")
    parser.add_argument("--output", type=Path, required=True, help="file to write, as metrics.json")
    options = parser.parse_args(command_line)
    try:
        metrics = probe(options.folder, named_models(options.models))
        measured_on = data_hash(str(options.folder / "clips"), CONFIG)
        write_metrics(options.output, metrics, recipe=name, seed=0, data_hash=measured_on)
    except (OSError, ValueError) as error:
        print(f"{name}.py: {error}", file=sys.stderr)
        return 2
    for measure, value in metrics.items():
        print(f"{measure:48}{value:.3f}")
    return 0


def named_models(words: Sequence[str]) -> dict[str, Path]:
    """Folders by name, from NAME=MODEL.

    Raises:
        ValueError: no name, or one that metrics.json does not take.
    """
    models = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not (folder and MODEL_NAME.fullmatch(name)):
            raise ValueError(f"{word!r} is not NAME=MODEL with a name of small letters, digits and _.")
        models[name] = Path(folder)
    return models
