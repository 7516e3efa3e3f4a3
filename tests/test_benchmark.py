"""The benchmark command: what it writes and refuses, with a benchmark that takes no time."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from train import benchmark
from train.arguments import require
from train.benchmark import Benchmark, main
from train.timing import BenchmarkResult, Ratio, SkippedError


@dataclass(frozen=True)
class QuickArguments:
    """One that takes no time.

    Args:
        value: what is measured; 0 stands for a machine that lacks what it needs.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        require(self, "value", self.value >= 0, "at least 0")


def quick(arguments: QuickArguments) -> BenchmarkResult:
    if not arguments.value:
        raise SkippedError("needs a number", [Ratio("one / other", None, 1.5, is_at_most=True)])
    return BenchmarkResult([Ratio("one / other", arguments.value, 1.5, is_at_most=True)], {"seconds": [2.0]})


@pytest.fixture(autouse=True)
def only_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "BENCHMARKS", {"quick": Benchmark(QuickArguments, quick)})


def test_the_result_says_what_was_timed_and_on_what(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["quick", "--value", "1.25", "--output", str(tmp_path / "quick.json")]) == 0
    result = json.loads((tmp_path / "quick.json").read_text(encoding="utf-8"))
    assert "| quick | one / other | 1.250 | at most 1.5 | yes |" in capsys.readouterr().out
    assert result["benchmark"] == "quick" and result["skipped"] is None
    (ratio,) = result["ratios"]
    assert (ratio["value"], ratio["bar"], ratio["holds"]) == (1.25, 1.5, True)
    assert result["details"].pop("wall_seconds") >= 0
    assert result["details"] == {"seconds": [2.0]}
    assert result["settings"]["value"] == 1.25 and result["settings"]["threads"] >= 1
    assert "cores" in result["machine"] and result["code_version"]
    assert str(tmp_path) not in json.dumps(result)


def test_a_ratio_beyond_its_bar_is_said_to_be(capsys: pytest.CaptureFixture) -> None:
    assert main(["quick", "--value", "2"]) == 0
    assert "| 2.000 | at most 1.5 | no |" in capsys.readouterr().out


def test_what_the_machine_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["quick", "--value", "0", "--output", str(tmp_path / "quick.json")]) == 0
    assert "| quick | one / other | skipped: needs a number | at most 1.5 | |" in capsys.readouterr().out
    result = json.loads((tmp_path / "quick.json").read_text())
    assert result["skipped"] == "needs a number" and result["details"]["wall_seconds"] >= 0
    (ratio,) = result["ratios"]
    assert (ratio["name"], ratio["value"], ratio["holds"]) == ("one / other", None, None)


def test_all_runs_each_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    commands = []
    run_process = subprocess.run

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess:
        if command[0] != sys.executable:
            return run_process(command, **options)
        commands.append(command)
        return subprocess.CompletedProcess(command, main(command[2:]))

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["all", "--output_dir", str(tmp_path / "speed")]) == 0
    assert [command[2] for command in commands] == ["quick"]
    assert (tmp_path / "speed" / "quick.json").is_file()
    assert capsys.readouterr().out.rstrip().endswith("| quick | one / other | 1.000 | at most 1.5 | yes |")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([], "Name the benchmark first: all, quick"),
        (["quik"], "Name the benchmark first: all, quick"),
        (["quick", "--value", "-1"], "value is -1.0"),
        (["quick", "--valu", "5"], "Did you mean value"),
        (["quick", "--output", "/nowhere/at/all.json"], "output"),
        (["all", "--value", "5"], "all takes no --value"),
    ],
)
def test_what_cannot_be_timed_is_refused(
    command: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(command) == 2
    message = capsys.readouterr().err
    assert message.startswith("benchmark.py: ") and says in message


def test_help_names_the_fields(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0 and "--value 1.0" in capsys.readouterr().out
