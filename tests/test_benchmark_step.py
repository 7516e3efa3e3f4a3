"""The benchmarks of a training step: what is timed and said; how long it takes is not tested."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from benchmark_helpers import TINY_MODEL

from train import benchmark_cpu, benchmark_step
from train.arguments import ArgumentsError
from train.benchmark import BENCHMARKS
from train.benchmark_cpu import CpuArguments
from train.benchmark_step import StepArguments, chosen_rounds, doubled_while

SMALL = {"batch_size": 3, "rounds": 2, "clip_seconds": 0.5, "model": TINY_MODEL}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


def test_a_step_is_timed_against_the_bare_towers() -> None:
    result = benchmark_step.benchmark_step(StepArguments(**SMALL, mixed_precision="no"))
    (ratio,) = result.ratios
    assert ratio.value > 0 and ratio.bar == 1.05 and ratio.is_at_most
    details = result.details
    assert {name: len(values) for name, values in details["seconds"].items()} == {"step": 2, "bare_towers": 2}
    assert (details["batch_size"], details["steps_a_round"], details["precision"]) == (3, 1, "no")
    assert details["clips_per_second"] > 0
    json.dumps(details)


def test_the_default_is_the_paper_s_size_and_a_batch_of_16() -> None:
    arguments = StepArguments()
    assert (arguments.batch_size, arguments.clip_seconds, arguments.model) == (16, 6.0, {})
    assert arguments.mixed_precision is None, "pretrain.py's own default"


@pytest.mark.parametrize(("has_bf16", "rounds"), [(True, 5), (False, 2)])
def test_slow_processors_take_fewer_rounds_unless_told(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, rounds: int
) -> None:
    capabilities = {"avx512_bf16": has_bf16}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    for arguments in (StepArguments, CpuArguments):
        assert chosen_rounds(arguments().rounds, "cpu") == rounds
        assert chosen_rounds(arguments(rounds=7).rounds, "cpu") == 7


@pytest.mark.parametrize(("has_bf16", "bar", "precision"), [(True, 2.5, "bf16"), (False, 1.3, "no")])
def test_the_default_is_timed_against_the_plain_loop(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, bar: float, precision: str
) -> None:
    capabilities = {"avx512_bf16": has_bf16}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(benchmark_cpu, "plain_loop_apart", lambda arguments: nullcontext(lambda: None))
    result = benchmark_cpu.benchmark_cpu(CpuArguments(**SMALL))
    (ratio,) = result.ratios
    assert ratio.bar == bar and not ratio.is_at_most
    seconds = result.details["seconds"]
    assert {name: len(values) for name, values in seconds.items()} == {"step": 2, "plain_loop": 2}
    assert ratio.value == pytest.approx(
        sum(plain / step for plain, step in zip(seconds["plain_loop"], seconds["step"], strict=True)) / 2
    )
    assert (result.details["precision"], result.details["processor_has_bf16"]) == (precision, has_bf16)
    json.dumps(result.details)


@pytest.mark.slow
def test_the_plain_loop_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_cpu, "prepared", [])
    with benchmark_cpu.plain_loop_apart(CpuArguments(**SMALL)) as step:
        assert step() is None and step() is None
    assert not benchmark_cpu.prepared


def test_what_that_process_does_is_a_step_of_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_cpu, "prepared", [])
    taken = []
    monkeypatch.setattr(
        benchmark_cpu, "plain_steps", lambda config, batch, device, steps: lambda: taken.append(steps)
    )
    benchmark_cpu.prepare_plain_loop(CpuArguments(**SMALL), threads=torch.get_num_threads())
    benchmark_cpu.take_plain_step()
    assert taken == [1]


def test_the_run_is_by_pretrain_s_defaults_but_for_clipping() -> None:
    run = benchmark_step.pretraining({}, None, 0, compiled=False)
    other = {f.name for f in dataclasses.fields(run) if getattr(run, f.name) != f.default}
    other -= {"output_dir", "dataset", "max_steps", "report_to"}  # what a run must be given, and no tracker
    of_factories = {"model", "speech_words", "augmentation", "speech_augmentation"}
    assert other - of_factories == {"max_grad_norm"}


@pytest.mark.parametrize(("first", "largest", "found"), [(16, 16, 16), (16, 100, 64), (3, 96, 96)])
def test_the_batch_is_doubled_as_long_as_it_fits(first: int, largest: int, found: int) -> None:
    tried = []
    assert doubled_while(lambda size: (tried.append(size), size <= largest)[1], first) == found
    assert tried == sorted(set(tried)) and tried[-1] == 2 * found


@pytest.mark.parametrize("arguments", [StepArguments, CpuArguments])
@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 1), ("rounds", 0), ("clip_seconds", 0.0), ("model", {"margins": 1})]
)
def test_a_setting_that_makes_no_sense_is_refused(arguments: type, field: str, value: object) -> None:
    with pytest.raises(ArgumentsError, match=field):
        arguments(**{field: value})


def test_the_command_knows_them() -> None:
    assert {"step", "cpu", "gpu"} <= set(BENCHMARKS)


@pytest.mark.gpu
def test_the_largest_batch_is_found_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        assert benchmark_step.largest_batch(StepArguments(batch_size=2)) >= 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
