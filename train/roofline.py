"""What a training step of the towers has to do at least: bytes to move and operations, by group of kernels.

The floor of a group is the time that its bytes take at the measured bandwidth, or its operations at the
measured rate, whichever is longer. Bytes are those of perfectly fused kernels on bf16 activations, from and
to the GPU's memory: what a kernel could keep to itself is not counted.
"""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from modeling_dualrep.tower import CheckpointedLayer, DualRepTower

CONVOLUTION = "convolution"
NORMALISATION = "normalisation"
POINTWISE = "pointwise and pooling"
MATRIX_PRODUCT = "matrix product"
OPTIMIZER = "optimizer"
COPY = "copies"
OTHER = "other"

# What changes layout or type alone; the compiler prepares the operands of a convolution under its name.
LAYOUT_OPERATIONS = "to_copy|copy|clone|convolution|backward|transpose|permute|view|unsafe|squeeze|unsqueeze"
# The first pattern that is found in a kernel's name, in lower case, decides. The compiler names a fused
# kernel after all the operations in it, so its kernels come first.
KERNEL_NAMES: tuple[tuple[str, str], ...] = (
    (r"^triton_tem\w*conv", CONVOLUTION),
    (r"^triton_\w*batch_norm", NORMALISATION),
    (rf"^triton_\w+_fused_(_|{LAYOUT_OPERATIONS})+\d*$", COPY),
    (r"^triton_tem\w*mm", MATRIX_PRODUCT),
    (r"^triton_", POINTWISE),
    (r"multi_tensor_apply|adam|lpnorm", OPTIMIZER),
    (r"memcpy|memset|nchwtonhwc|nhwctonchw|converttensor|copy_kernel|catarray", COPY),
    (r"batch_?norm|bn_fw|bn_bw|welford", NORMALISATION),
    (r"fprop|dgrad|wgrad|conv", CONVOLUTION),
    (r"gemm|nvjet|cutlass|cublas|splitk", MATRIX_PRODUCT),
    (r"elementwise|reduce_kernel|pool|threshold|dropout|softmax", POINTWISE),
)
BF16_BYTES, FP32_BYTES = 2, 4
CONVOLUTION_OPERATORS = ("aten.convolution", "aten.convolution_backward")


@dataclass(frozen=True)
class Work:
    """What has to be moved and computed.

    Args:
        bytes: read from and written to memory.
        flops: floating point operations; a multiplication with its addition counts as two.
    """

    bytes: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.bytes + other.bytes, self.flops + other.flops)


@dataclass(frozen=True)
class Rates:
    """What the device was measured to do.

    Args:
        bytes_per_second: read and written, in a large copy.
        flops_per_second: in a large product of bf16 matrices.
    """

    bytes_per_second: float
    flops_per_second: float

    def floor_seconds(self, work: Work) -> float:
        """The time that this work takes at least."""
        return max(work.bytes / self.bytes_per_second, work.flops / self.flops_per_second)


def kernel_group(name: str) -> str:
    """The group that a kernel belongs to, by its name as the profiler gives it."""
    return next((group for pattern, group in KERNEL_NAMES if re.search(pattern, name.lower())), OTHER)


def step_work(towers: Iterable[tuple[DualRepTower, Sequence[int]]]) -> dict[str, Work]:
    """The work of one training step, by group.

    Args:
        towers: each with the shape of its input, (batch, ...); frozen ones count as trained. They are only
            looked at.
    """
    total: dict[str, Work] = {}
    for tower, shape in towers:
        for group, work in _tower_work(tower, shape).items():
            total[group] = total.get(group, Work()) + work
    return total


def _tower_work(tower: DualRepTower, shape: Sequence[int]) -> dict[str, Work]:
    on_meta = _on_meta(tower).train()
    moved: dict[str, float] = {group: 0.0 for group in (CONVOLUTION, NORMALISATION, POINTWISE)}
    for layer in on_meta.modules():
        layer.register_forward_hook(lambda layer, given, made: _count(moved, layer, given[0], made))
    with FlopCounterMode(display=False) as counter:
        on_meta(torch.empty(*shape, device="meta")).pooler_output.sum().backward()
    of_operators = {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    convolved = sum(of_operators.get(name, 0) for name in CONVOLUTION_OPERATORS)
    weights = sum(parameter.numel() for parameter in on_meta.parameters())
    linear = sum(layer.weight.numel() for layer in on_meta.modules() if isinstance(layer, nn.Linear))
    return {
        CONVOLUTION: Work(moved[CONVOLUTION], convolved),
        NORMALISATION: Work(moved[NORMALISATION]),
        POINTWISE: Work(moved[POINTWISE]),
        # Forward, gradient of the input, gradient of the weight: each moves the weight's size once.
        MATRIX_PRODUCT: Work(3 * BF16_BYTES * linear, counter.get_total_flops() - convolved),
        # Adam reads weight, gradient and two moments, and writes three of them; clipping reads the gradient.
        OPTIMIZER: Work(8 * FP32_BYTES * weights),
        # Weights to bf16 and their gradients back.
        COPY: Work(2 * (BF16_BYTES + FP32_BYTES) * weights),
    }


def _count(moved: dict[str, float], layer: nn.Module, given: Tensor, made: Tensor) -> None:
    """Adds what a layer moves in its forward and backward pass, in numbers of bf16."""
    if isinstance(layer, _ConvNd):
        passes = 3 if given.requires_grad else 2  # forward, gradient of the weight, gradient of the input
        moved[CONVOLUTION] += BF16_BYTES * passes * (given.numel() + made.numel() + layer.weight.numel())
    elif isinstance(layer, _BatchNorm):
        # Forward: read for the statistics, read and written to normalise. Backward: input and gradient read
        # for the sums, both read and the gradient written. ReLU takes part in these kernels.
        moved[NORMALISATION] += BF16_BYTES * 8 * given.numel()
    elif isinstance(layer, nn.AvgPool1d | nn.AvgPool2d | nn.MaxPool2d):
        moved[POINTWISE] += BF16_BYTES * 2 * (given.numel() + made.numel())
    elif isinstance(layer, CheckpointedLayer) and hasattr(layer, "shortcut"):
        # The sum with the shortcut reads it, in the kernel of a normalisation; so does that of gradients.
        moved[POINTWISE] += BF16_BYTES * 2 * made.numel()


def _on_meta(tower: DualRepTower) -> DualRepTower:
    """A copy without memory, all of it trained."""
    config = deepcopy(tower.config)
    config.freeze = False
    return type(tower)(config).to("meta")
