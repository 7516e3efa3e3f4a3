"""Which precision a run computes in, and that what it saves is float32 all the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train import precision
from train.precision import chosen_precision, computes_bf16_quickly, training_device_type


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)


def with_bf16(monkeypatch: pytest.MonkeyPatch, is_quick: bool) -> None:
    monkeypatch.setattr(precision, "computes_bf16_quickly", lambda device_type: is_quick)


@pytest.mark.parametrize(("is_quick", "expected"), [(True, "bf16"), (False, "no")])
def test_left_out_it_is_what_the_hardware_is_quick_at(
    monkeypatch: pytest.MonkeyPatch, is_quick: bool, expected: str
) -> None:
    with_bf16(monkeypatch, is_quick)
    assert chosen_precision(None, "cpu") == expected


@pytest.mark.parametrize("said", ["no", "bf16"])
@pytest.mark.parametrize("is_quick", [True, False])
def test_what_the_recipe_says_holds_over_all_else(
    monkeypatch: pytest.MonkeyPatch, said: str, is_quick: bool
) -> None:
    with_bf16(monkeypatch, is_quick)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert chosen_precision(said, "cpu") == said


def test_what_accelerate_was_configured_to_holds_over_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    with_bf16(monkeypatch, False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "BF16")
    assert chosen_precision(None, "cpu") == "bf16"


def test_the_no_that_accelerate_launch_hands_on_counts_as_nothing_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_bf16(monkeypatch, True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert chosen_precision(None, "cpu") == "bf16"


@given(st.dictionaries(st.sampled_from(["avx512_bf16", "amx_bf16", "avx2", "avx512_f"]), st.booleans()))
def test_a_processor_is_quick_at_bf16_with_either_instruction(capabilities: dict[str, bool]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        has_one = any(present and name.endswith("bf16") for name, present in capabilities.items())
        assert computes_bf16_quickly("cpu") == has_one


def test_a_gpu_that_only_emulates_bf16_is_not_quick_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not computes_bf16_quickly("cuda")


def test_what_is_not_known_of_computes_in_float32() -> None:
    assert not computes_bf16_quickly("mps")


def test_a_cpu_is_trained_on_where_it_is_asked_for_or_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert training_device_type() == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert training_device_type() == "cpu"
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert training_device_type() == "cpu"
