"""What the tests of the towers share."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def draw_batch_norms(network: nn.Module) -> nn.Module:
    """Gives every BatchNorm weights and statistics that matter, so that a test sees any of them go wrong."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.5)
            nn.init.normal_(layer.running_mean, std=0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return network


def assert_same_tensors(
    ours: dict[str, torch.Tensor], reference: dict[str, torch.Tensor], **tolerance
) -> None:
    """Both dicts have the same names with equal tensors."""
    assert sorted(ours) == sorted(reference)
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, reference[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )
