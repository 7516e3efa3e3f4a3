"""metrics.json: what a run measured, on what data, with which code, on which machine."""

import json
import math
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from train.cpu_cores import available_cores

KEYS = ("metrics", "recipe", "seed", "code_version", "data_hash", "machine")
METRIC_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
REPOSITORY = Path(__file__).resolve().parents[1]


class MetricsError(ValueError):
    """A metrics.json that says too little, too much, or something that is no number."""


def write_metrics(
    path: Path,
    metrics: dict[str, float],
    *,
    recipe: str,
    seed: int,
    data_hash: str,
    code_version: str | None = None,
) -> None:
    """Writes metrics.json, validated.

    Args:
        path: the file.
        metrics: `split/name`: number.
        recipe: name of the recipe or model that was measured.
        seed: of the run.
        data_hash: of the data, as `data_hash` of train.data gives it.
        code_version: None takes that of this checkout.

    Raises:
        MetricsError: see `check_metrics`.
    """
    contents = {
        "metrics": metrics,
        "recipe": recipe,
        "seed": seed,
        "code_version": code_version or current_code_version(),
        "data_hash": data_hash,
        "machine": describe_machine(),
    }
    check_metrics(contents)
    path.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_metrics(path: Path) -> dict[str, Any]:
    """The validated contents of a metrics.json.

    Raises:
        MetricsError: no such file, no JSON, or see `check_metrics`.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MetricsError(f"There is no file {path}: training writes it at its end.") from error
    except json.JSONDecodeError as error:
        raise MetricsError(f"{path} is not JSON: {error}. Write it anew by training again.") from error
    check_metrics(contents)
    return contents


def check_metrics(contents: dict[str, Any]) -> None:
    """Raises MetricsError for a missing or unknown key, a badly named metric or one that is not finite."""
    missing, unknown = set(KEYS) - set(contents), set(contents) - set(KEYS)
    if missing or unknown:
        wrong = [f"{key} is missing" for key in sorted(missing)] + [
            f"{key} is unknown" for key in sorted(unknown)
        ]
        raise MetricsError(f"metrics.json: {', '.join(wrong)}. Its keys are {', '.join(KEYS)}.")
    for name, value in contents["metrics"].items():
        if not METRIC_NAME.fullmatch(name):
            raise MetricsError(f"metrics.json: the metric {name!r} must be named like validation/accuracy.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise MetricsError(f"metrics.json: {name} is {value!r}, but must be a finite number.")


def current_code_version() -> str:
    """The package's version, and in a checkout its commit, marked where files differ from it."""
    version = metadata.version("dualrep")
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return version
    changed = "+changed" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{version} ({commit}{changed})"


def describe_machine() -> dict[str, Any]:
    """Processor, cores and GPU; nothing that names the machine or its owner."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu_name(), "cores": available_cores(), "gpu": gpu, "torch": torch.__version__}


def _cpu_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpu_info.read_text(), re.MULTILINE)
        if found:
            return found.group(1)
    return platform.processor() or platform.machine()


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
