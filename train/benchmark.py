"""Times parts of the training code against the least they could cost, in one run on one machine.

python train/benchmark.py all [--output_dir DIR]
python train/benchmark.py NAME [--output FILE.json] [--field value ...]

Each benchmark prints its ratios with the bars they are held against. It wants an otherwise idle machine.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hub_cards.speed_table import speed_table
from train.arguments import COMMAND_LINE, ArgumentsError, build, help_text, read_flags
from train.benchmark_cpu import CpuArguments, benchmark_cpu
from train.benchmark_gpu import GpuArguments, benchmark_gpu
from train.benchmark_loader import LoaderArguments, benchmark_loader
from train.benchmark_planes import PlanesArguments, benchmark_planes
from train.benchmark_prepare import PrepareArguments, benchmark_prepare
from train.benchmark_retrieval import RetrievalArguments, benchmark_retrieval
from train.benchmark_step import StepArguments, benchmark_step
from train.metrics_file import current_code_version, describe_machine
from train.timing import BenchmarkResult, SkippedError


@dataclass(frozen=True)
class Benchmark:
    """One benchmark by name.

    Args:
        arguments: the dataclass of its settings.
        run: the benchmark itself; raises SkippedError where the machine lacks what it needs.
    """

    arguments: type
    run: Callable[[Any], BenchmarkResult]


ALL = "all"
BENCHMARKS = {
    "step": Benchmark(StepArguments, benchmark_step),
    "cpu": Benchmark(CpuArguments, benchmark_cpu),
    "gpu": Benchmark(GpuArguments, benchmark_gpu),
    "loader": Benchmark(LoaderArguments, benchmark_loader),
    "retrieval": Benchmark(RetrievalArguments, benchmark_retrieval),
    "planes": Benchmark(PlanesArguments, benchmark_planes),
    "prepare": Benchmark(PrepareArguments, benchmark_prepare),
}


def main(command_line: list[str] | None = None) -> int:
    """The command; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    if {"-h", "--help"} & set(words):
        print("\n\n".join([__doc__, *(help_text(benchmark.arguments) for benchmark in BENCHMARKS.values())]))
        return 0
    try:
        if not words or words[0] not in (ALL, *BENCHMARKS):
            raise ArgumentsError(f"Name the benchmark first: {', '.join((ALL, *BENCHMARKS))}.")
        flags = read_flags(words[1:])
        if words[0] == ALL:
            run_all(output_path(flags.pop("output_dir", None)), flags)
        else:
            run_one(words[0], output_path(flags.pop("output", None)), flags)
    except ArgumentsError as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    return 0


def output_path(value: str | None) -> Path | None:
    """Where to write.

    Raises:
        ArgumentsError: it lies in a folder that is not there.
    """
    if value is None:
        return None
    if not Path(value).resolve().parent.is_dir():
        raise ArgumentsError(f"output is {value!r}, but must lie in a folder that is there.")
    return Path(value)


def run_one(name: str, output: Path | None, flags: dict[str, Any]) -> None:
    """Runs a benchmark, prints its table and writes all it found."""
    arguments = build(BENCHMARKS[name].arguments, flags, COMMAND_LINE)
    skipped, began_s = None, time.monotonic()
    try:
        result = BENCHMARKS[name].run(arguments)
    except SkippedError as error:
        skipped, result = str(error), BenchmarkResult(error.ratios)
    contents = {
        "benchmark": name,
        "skipped": skipped,
        "ratios": [dataclasses.asdict(ratio) | {"holds": ratio.holds} for ratio in result.ratios],
        "details": result.details | {"wall_seconds": time.monotonic() - began_s},
        "settings": dataclasses.asdict(arguments) | {"threads": torch.get_num_threads()},
        "code_version": current_code_version(),
        "machine": describe_machine(),
    }
    print(speed_table([contents]))
    if output is not None:
        output.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def run_all(output_dir: Path | None, flags: dict[str, Any]) -> None:
    """Runs every benchmark, each in a process of its own, and prints one table.

    Raises:
        ArgumentsError: flags, which belong to one benchmark; or a benchmark that failed.
    """
    if flags:
        raise ArgumentsError(f"all takes no --{next(iter(flags))}: give it to one benchmark.")
    with TemporaryDirectory() as folder:
        kept = output_dir or Path(folder)
        kept.mkdir(exist_ok=True)
        files = {name: kept / f"{name}.json" for name in BENCHMARKS}
        for name, file in files.items():
            command = [sys.executable, __file__, name, "--output", str(file)]
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                raise ArgumentsError(f"The benchmark {name} failed; what it says stands above.")
            print(f"{name}: done", file=sys.stderr, flush=True)
        results = [json.loads(file.read_text(encoding="utf-8")) for file in files.values()]
        print(speed_table(results))


if __name__ == "__main__":
    sys.exit(main())
