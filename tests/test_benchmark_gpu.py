"""The benchmark of a GPU, tried out on the CPU: all that does not need one."""

import json
from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from benchmark_helpers import TINY_MODEL
from transformers import BatchFeature

from train import benchmark_gpu
from train.arguments import ArgumentsError
from train.bare_training import random_batch
from train.benchmark_gpu import (
    GpuArguments,
    float32_as_tf32,
    gpu_ratios,
    kernel_seconds,
    kernel_table,
    measure_training,
    measured_rates,
    prepared_run,
    tower_inputs,
    waiting_share,
)
from train.timing import SkippedError

CPU = torch.device("cpu")
SMALL = GpuArguments(
    batch_size=2, steps=2, rounds=2, loader_steps=2, loader_workers=0, clip_seconds=0.5, model=TINY_MODEL
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(benchmark_gpu, "COPY_BYTES", 2**20)
    monkeypatch.setattr(benchmark_gpu, "MATRIX_SIZE", 64)
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


def test_without_a_gpu_it_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SkippedError, match="needs a CUDA device") as skipped:
        benchmark_gpu.benchmark_gpu(GpuArguments())
    assert [ratio.name for ratio in skipped.value.ratios] == [each.name for each in gpu_ratios(1, 1, 1)]
    assert all(ratio.value is None and ratio.skipped for ratio in skipped.value.ratios)


def test_the_whole_measurement() -> None:
    """On the CPU its figures mean nothing, but they are all there and belong together."""
    result = measure_training(SMALL, CPU, compiled=False)
    roofline, speed_up, waiting = result.ratios
    assert [ratio.bar for ratio in result.ratios] == [0.8, 2.0, 0.03]
    details = result.details
    assert {name: len(values) for name, values in details["seconds"].items()} == {
        "3d": 2,
        "factorised": 2,
        "plain_loop": 2,
    }
    assert details["convolution"] in ("3d", "factorised")
    floors = sum(row["floor_milliseconds"] for row in details["kernel_groups"]) / 1e3
    assert roofline.value == pytest.approx(floors / details["step_seconds"])
    assert details["clips_per_second"] == pytest.approx(2 / details["step_seconds"])
    assert speed_up.value > 0 and 0 <= waiting.value <= 1
    used = (
        details["model_flops_of_a_step"] / details["step_seconds"] / details["measured_bf16_flops_per_second"]
    )
    assert details["model_flops_utilisation"] == pytest.approx(used)
    json.dumps(details)


def test_the_ratios_stand_on_the_right_side_of_their_bars() -> None:
    assert all(ratio.holds for ratio in gpu_ratios(0.9, 3.0, 0.01))
    assert not any(ratio.holds for ratio in gpu_ratios(0.7, 1.5, 0.1))


def test_rates_are_those_of_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 copies of a MiB, read and written, and 20 products of 64 x 64 matrices, in 2 and 4 seconds."""
    done = []

    def rounds(tasks, rounds):
        for name, task in tasks.items():
            task()
            done.append(name)
        return {"copy": [2.0] * rounds, "product": [4.0] * rounds}

    monkeypatch.setattr(benchmark_gpu, "alternating_rounds", rounds)
    rates = measured_rates(CPU)
    assert done == ["copy", "product"]
    assert rates.bytes_per_second == 20 * 2 * 2**20 / 2.0
    assert rates.flops_per_second == 20 * 2 * 64**3 / 4.0


def test_the_run_is_bf16_with_the_convolution_asked_for() -> None:
    for name in ("3d", "factorised"):
        run = prepared_run(SMALL, CPU, compiled=False, convolution=name)
        assert run.model.config.video_config.convolution == name
        assert run.model.config.video_config.stem_hidden_size == 3, "the rest of the section stays"
        assert run.accelerator.mixed_precision == "bf16"


def test_every_tower_s_work_is_counted_on_its_own_input() -> None:
    run = prepared_run(SMALL, CPU, compiled=False, convolution="3d")
    batch = random_batch(run.model.config, 2, clip_seconds=0.5, seed=0)
    shapes = {type(tower).__name__: tuple(shape) for tower, shape in tower_inputs(run, batch)}
    assert shapes == {
        "DualRepVideoModel": (2, 4, 3, 16, 16),
        "DualRepAudioModel": (2, 51, 8),
        "DualRepImageModel": (2, 3, 16, 16),
    }


def test_the_profile_has_the_operators_of_one_step() -> None:
    factor = torch.randn(64, 64)
    calls = []
    kernels = kernel_seconds(lambda: calls.append(factor @ factor), CPU)
    assert len(calls) == 2, "one to warm up"
    assert kernels["aten::mm"] > 0 and all(seconds >= 0 for seconds in kernels.values())


def test_the_table_has_every_group_and_its_longest_kernels() -> None:
    kernels = {f"triton_red_fused__native_batch_norm_{number}": 0.001 * number for number in range(1, 8)}
    kernels |= {"sm90_xmma_fprop_implicit_gemm": 0.012, "nccl_all_reduce": 0.01}
    rows = kernel_table(kernels, {"convolution": 0.006, "normalisation": 0.014, "optimizer": 0.001})
    assert [row["group"] for row in rows] == ["normalisation", "convolution", "other", "optimizer"]
    assert [row["milliseconds"] for row in rows] == pytest.approx([28.0, 12.0, 10.0, 0.0])
    assert [row["share"] for row in rows] == pytest.approx([0.56, 0.24, 0.2, 0.0])
    assert [row["floor_milliseconds"] for row in rows] == pytest.approx([14.0, 6.0, 0.0, 1.0])
    assert list(rows[0]["longest_kernels"].values()) == pytest.approx([7.0, 6.0, 5.0, 4.0, 3.0])


def test_float32_is_tf32_within_the_step_alone() -> None:
    before = torch.get_float32_matmul_precision()
    seen = []

    def step() -> None:
        seen.append(torch.get_float32_matmul_precision())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        float32_as_tf32(step)()
    assert seen == ["high"] and torch.get_float32_matmul_precision() == before


def test_waiting_is_what_the_loader_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still but for the loader, which takes 3 s a batch, and the steps, which take 1 s."""
    run = prepared_run(SMALL, CPU, compiled=False, convolution="3d")
    clock = [0.0]
    batch = random_batch(run.model.config, 2, clip_seconds=0.5, seed=0)

    def loader(*arguments, **named):
        while True:
            clock[0] += 3.0
            yield ["a", "b"], BatchFeature(dict(batch))

    def take(run, batches, steps):
        for _, _ in zip(range(steps), batches, strict=False):
            clock[0] += 1.0

    monkeypatch.setattr(benchmark_gpu, "random_clip_batches", loader)
    monkeypatch.setattr(benchmark_gpu, "take_steps", take)
    monkeypatch.setattr(benchmark_gpu, "now_s", lambda: clock[0])
    monkeypatch.setattr(
        benchmark_gpu, "training_steps", lambda run, batch, steps: lambda: take(run, [batch] * steps, steps)
    )
    assert waiting_share(SMALL, run, batch) == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("batch_size", 1), ("steps", 0), ("rounds", 0), ("loader_steps", 0), ("loader_workers", -1)),
        *(("clip_seconds", 0.0), ("model", {"margins": 1})),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(field: str, value: object) -> None:
    with pytest.raises(ArgumentsError, match=field):
        GpuArguments(**{field: value})


@pytest.mark.gpu
def test_the_whole_measurement_on_a_gpu() -> None:
    result = measure_training(SMALL, torch.device("cuda"), compiled=True)
    groups = {row["group"]: row["milliseconds"] for row in result.details["kernel_groups"]}
    assert groups["convolution"] > 0 and groups["normalisation"] > 0 and groups["optimizer"] > 0
