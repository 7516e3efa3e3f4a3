"""The numerical precision that a run computes in."""

import os

import torch
from accelerate.utils import parse_flag_from_env

CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def chosen_precision(mixed_precision: str | None, device_type: str) -> str:
    """The precision as `Accelerator(mixed_precision=...)` takes it: "no" for float32, or "bf16", ...

    What the recipe says comes first, then what accelerate was configured to. Where neither says anything, it
    is bf16 on hardware that computes it quickly. Weights, and what is saved, stay float32 in any case.

    `accelerate launch` hands on "no" where nothing was configured, so that a configured "no" cannot be told
    from none: who wants float32 on such hardware writes `mixed_precision: no` into the recipe.

    Args:
        mixed_precision: of the recipe; None where it says nothing.
        device_type: that the run computes on: cpu, cuda, ...
    """
    if mixed_precision is not None:
        return mixed_precision
    configured = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if configured != "no":
        return configured
    return "bf16" if computes_bf16_quickly(device_type) else "no"


def computes_bf16_quickly(device_type: str) -> bool:
    """Whether the hardware has instructions for bf16, and does not emulate them."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    # An instruction that another processor family does not know is not listed there.
    return device_type == "cpu" and any(capabilities.get(name, False) for name in CPU_INSTRUCTIONS)


def training_device_type() -> str:
    """What accelerate is going to train on: cpu, cuda, ..."""
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return "cpu"
    return torch.accelerator.current_accelerator().type
