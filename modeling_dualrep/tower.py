"""What the three towers share: freezing, initialisation, gradient checkpointing, input and output."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

WEIGHT_ALIGNMENT_BYTES = 64


class FaithfulLoadingMixin:
    """Loads whole towers, whose outputs equal those of the saved ones to the last bit, or raises.

    transformers draws the weights that a checkpoint lacks, and only logs their names. Heads may be new, a
    tower may not. It also leaves loaded weights where they lie in the file's memory map. There they may begin
    at any address, and matrix products on CPUs round differently where one does not begin at a multiple of
    64 bytes.
    """

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """transformers' own, with the weights moved to where PyTorch itself would have put them.

        Raises:
            ValueError: the checkpoint lacks weights of a tower, or has more than the tower takes. With
                `output_loading_info=True` they are listed there instead, as in transformers.
        """
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        if pretrained_model_name_or_path is not None and not output_loading_info:
            _require_whole_towers(model, info, pretrained_model_name_or_path)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.data_ptr() % WEIGHT_ALIGNMENT_BYTES:
                tensor.data = tensor.data.clone()
        return (model, info) if output_loading_info else model


class DualRepTower(FaithfulLoadingMixin, PreTrainedModel):
    """One encoder: an input tensor to feature maps and one pooled vector a sample.

    With `config.freeze` the tower's weights take no gradient and its BatchNorm statistics do not move,
    whatever mode the model around it is in.
    """

    supports_gradient_checkpointing = True
    _auto_class = "AutoModel"
    # What a tower taken out of a whole model leaves there: the other towers, projections, fusion and heads.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^((video|audio|image)_[a-z]+|classifier|saliency_decoder)\."
    ]

    def post_init(self) -> None:
        """Initialises the weights and, in a frozen tower, fixes them."""
        super().post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> "DualRepTower":
        """Sets training mode; a frozen tower stays in evaluation mode."""
        if self.config.freeze:
            # Here, not once at construction: from_pretrained makes new parameters, then sets evaluation mode.
            self.requires_grad_(False)
        return super().train(mode and not self.config.freeze)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    def _as_output(
        self, feature_maps: Sequence[Tensor], pooled: Tensor, output_hidden_states: bool | None
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=feature_maps[-1],
            pooler_output=pooled,
            hidden_states=tuple(feature_maps) if output_hidden_states else None,
        )


def _require_whole_towers(
    model: PreTrainedModel, info: dict[str, set[str]], source: str | os.PathLike
) -> None:
    """Raises ValueError where the loading of a checkpoint left a tower with other weights than were saved."""
    towers = {name for name, module in model.named_modules() if isinstance(module, DualRepTower)}

    def of_towers(keys: set[str]) -> list[str]:
        return sorted(key for key in keys if "" in towers or key.partition(".")[0] in towers)

    wrong = (("lacks", info["missing_keys"]), ("holds as well", info["unexpected_keys"]))
    for verb, keys in wrong:
        if of_towers(keys):
            raise ValueError(
                f"{source} was saved by another architecture than this {type(model).__name__}: "
                f"it {verb} {', '.join(of_towers(keys)[:3])}, ... "
                "Load it with the class and the configuration that it was saved with."
            )


class CheckpointedLayer(GradientCheckpointingLayer):
    """A layer that gradient checkpointing can run again in the backward pass; subclasses write `compute`.

    The second run must not count the batch in the BatchNorm statistics once more.
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """What `compute` makes of (batch, channels, ...), run again in the backward pass if asked for."""
        if self.gradient_checkpointing and self.training and _in_backward_pass():
            with batch_norm_statistics_kept(self):
                return self.compute(hidden_states)
        return self.compute(hidden_states)

    def compute(self, hidden_states: Tensor) -> Tensor:
        """What the layer computes."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes.")


@contextmanager
def batch_norm_statistics_kept(module: nn.Module) -> Iterator[None]:
    """After it, the running statistics of BatchNorm layers are as they were before."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    statistics = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in statistics]
    try:
        yield
    finally:
        for buffer, value in zip(statistics, before, strict=True):
            # Past autograd, which keeps them for a backward pass that, in training mode, never reads them.
            buffer.data.copy_(value)


def _in_backward_pass() -> bool:
    return torch._C._current_graph_task_id() != -1


def build_stages(
    block: type[nn.Module], in_channels: int, hidden_sizes: Sequence[int], depths: Sequence[int]
) -> nn.ModuleList:
    """Residual stages, `depths[i]` blocks of `hidden_sizes[i]` channels; all but the first halve the size.

    `block` is called with (in_channels, out_channels, stride=1 or 2).
    """
    stages = nn.ModuleList()
    for index, (out_channels, depth) in enumerate(zip(hidden_sizes, depths, strict=True)):
        first = block(in_channels, out_channels, stride=1 if index == 0 else 2)
        rest = [block(out_channels, out_channels, stride=1) for _ in range(depth - 1)]
        stages.append(nn.Sequential(first, *rest))
        in_channels = out_channels
    return stages


def run_stages(stages: nn.ModuleList, hidden_states: Tensor) -> tuple[Tensor, ...]:
    """The output of each stage, where each takes the output of the one before."""
    feature_maps = []
    for stage in stages:
        hidden_states = stage(hidden_states)
        feature_maps.append(hidden_states)
    return tuple(feature_maps)


def check_shape(
    argument: str, tensor: Tensor, axes: Sequence[str], exactly: dict[str, int], at_least: dict[str, int]
) -> None:
    """Raises ValueError, naming the argument, unless `tensor` has the `axes` in the sizes wanted."""
    sizes = dict(zip(axes, tensor.shape, strict=False))
    fits = (
        tensor.ndim == len(axes)
        and all(sizes[axis] == size for axis, size in exactly.items())
        and all(sizes[axis] >= size for axis, size in at_least.items())
    )
    if not fits:
        wanted = [f"{axis} = {size}" for axis, size in exactly.items()]
        wanted += [f"{axis} at least {size}" for axis, size in at_least.items()]
        raise ValueError(
            f"{argument} has shape {tuple(tensor.shape)}, but must be ({', '.join(axes)}) "
            f"with {', '.join(wanted)}."
        )
