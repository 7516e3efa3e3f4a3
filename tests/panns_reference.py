"""PANNs' CNN14 said again from its publication (Kong et al., 2020), and its checkpoint.

Names are those of the published checkpoint. `dimensions` is 2 as published; 1 is the same over time alone.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cnn14(nn.Module):
    def __init__(self, mel_bins: int, widths: list[int], classes: int = 5, dimensions: int = 2) -> None:
        super().__init__()
        self.dimensions, self.widths = dimensions, widths
        convolution, norm = [(nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d)][dimensions - 1]
        self.bn0 = norm(mel_bins)
        inputs = [mel_bins if dimensions == 1 else 1, *widths]
        for number, (before, after) in enumerate(zip(inputs, widths, strict=False), start=1):
            block = nn.Module()
            block.conv1 = convolution(before, after, 3, padding=1, bias=False)
            block.conv2 = convolution(after, after, 3, padding=1, bias=False)
            block.bn1, block.bn2 = norm(after), norm(after)
            setattr(self, f"conv_block{number}", block)
        self.fc1 = nn.Linear(widths[-1], widths[-1])
        self.fc_audioset = nn.Linear(widths[-1], classes)

    def forward(self, logmel: Tensor) -> Tensor:
        """(batch, time, mel) in dB to the embedding."""
        pool = [F.avg_pool1d, F.avg_pool2d][self.dimensions - 1]
        if self.dimensions == 2:
            x = logmel[:, None]  # (batch, 1, time, mel), of which BatchNorm sees the mel bins as channels
            x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        else:
            x = self.bn0(logmel.transpose(1, 2))
        for number in range(1, len(self.widths) + 1):
            block = getattr(self, f"conv_block{number}")
            x = F.relu(block.bn1(block.conv1(x)))
            x = F.relu(block.bn2(block.conv2(x)))
            x = pool(x, 1 if number == len(self.widths) else 2)
            x = F.dropout(x, 0.2, self.training)
        if self.dimensions == 2:
            x = x.mean(dim=3)
        x = x.max(dim=2).values + x.mean(dim=2)
        x = F.dropout(x, 0.5, self.training)
        x = F.relu(self.fc1(x))
        return F.dropout(x, 0.5, self.training)


def save_checkpoint(network: Cnn14, path: Path) -> Path:
    """Writes the network as PANNs publish theirs: with STFT and mel filters, and the state of their sampler.

    Theirs was written by torch before 1.6 and by numpy 1: the older format, the older name of numpy's core.
    """
    features = {
        "spectrogram_extractor.stft.conv_real.weight": torch.randn(9, 1, 16),
        "spectrogram_extractor.stft.conv_imag.weight": torch.randn(9, 1, 16),
        "logmel_extractor.melW": torch.rand(9, network.bn0.num_features),
    }
    sampler = {
        "indexes_per_class": [np.arange(3), np.arange(2)],
        "queue": [1, 0],
        "pointers_of_classes": [0, 0],
    }
    checkpoint = {"iteration": 600000, "model": {**features, **network.state_dict()}, "sampler": sampler}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    return path
