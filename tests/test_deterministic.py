"""Deterministic algorithms are switched on where a run asks for them, and nowhere else."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from clips_helpers import TINY_MODEL, write_small_set
from safetensors.torch import load_file

from train.arguments import PretrainArguments
from train.deterministic import use_deterministic_algorithms
from train.pretrain import build_accelerator, pretrain

cudnn = torch.backends.cudnn


def switches() -> tuple[bool, bool, bool, str | None]:
    """Of PyTorch, of cuDNN (two), and of cuBLAS."""
    of_cublas = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, of_cublas


@pytest.fixture(autouse=True)
def switched_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """They hold for the whole process, in which other tests follow."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that the variable is put back, whatever it was
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(cudnn, "deterministic", False)
    monkeypatch.setattr(cudnn, "benchmark", True)
    was_on = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    torch.use_deterministic_algorithms(was_on)
    AcceleratorState._reset_state(reset_partial_state=True)


def arguments(output_dir: Path, **fields: object) -> PretrainArguments:
    told = {"dataset": "none", "max_steps": 3, "per_device_train_batch_size": 6, "report_to": "none"}
    return PretrainArguments(str(output_dir), **told | {"model": TINY_MODEL} | fields)


def test_all_switches_are_set() -> None:
    use_deterministic_algorithms()
    assert switches() == (True, True, False, ":4096:8")


def test_a_workspace_that_was_chosen_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    use_deterministic_algorithms()
    assert switches()[-1] == ":16:8"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, (False, False, True, None)), ({"deterministic": True}, (True, True, False, ":4096:8"))],
)
def test_a_run_sets_them_if_it_is_told_to(tmp_path: Path, fields: dict, expected: tuple) -> None:
    build_accelerator(arguments(tmp_path, **fields))
    assert switches() == expected


def test_all_that_pretraining_computes_has_a_deterministic_algorithm(tmp_path: Path) -> None:
    """On the CPU, where the run is the same without the switches."""
    clips = write_small_set(tmp_path / "clips")
    weights = []
    for name in ("with", "without"):
        AcceleratorState._reset_state(reset_partial_state=True)
        fields = {"dataset": str(clips), "gradient_cache_clips": 4, "deterministic": name == "with"}
        pretrain(arguments(tmp_path / name, evaluation_clips=8, **fields), "test")
        weights.append(load_file(tmp_path / name / "model.safetensors"))
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(values, weights[1][name]) for name, values in weights[0].items())
