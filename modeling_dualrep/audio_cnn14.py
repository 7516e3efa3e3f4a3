"""The audio tower: CNN14 of PANNs (Kong et al., 2020), over time and mel as published or over time alone."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention
from transformers.utils.generic import can_return_tuple

from .configuration_dualrep import DualRepAudioConfig
from .tower import CheckpointedLayer, DualRepTower, check_shape, run_stages

# PANNs mask two stripes of time, below 64 frames each, and two of mel, below 8 bins each.
STRIPES_PER_AXIS = 2
MAX_TIME_STRIPE_FRAMES = 63
MAX_MEL_STRIPE_BINS = 7
# In a clip of 2 s those time stripes alone could cover 126 of 201 frames. Two stripes of at most a fifteenth
# on each axis leave (13 / 15)^2 of the cells, which is more than three quarters.
MAX_STRIPE_SHARE = 1 / 15

LAYERS = {
    1: (nn.Conv1d, nn.BatchNorm1d, nn.AvgPool1d),
    2: (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d),
}


class ConvBlock(CheckpointedLayer):
    """Two convolutions of width 3, each with BatchNorm and ReLU, average pooling, dropout.

    Args:
        conv_dim: 1 over time, 2 over time and mel.
        pool_size: factor by which every axis shrinks.
    """

    def __init__(
        self, conv_dim: int, in_channels: int, out_channels: int, pool_size: int, dropout: float
    ) -> None:
        super().__init__()
        conv, norm, pool = LAYERS[conv_dim]
        self.conv1 = conv(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = norm(out_channels)
        self.conv2 = conv(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = norm(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.pool = pool(pool_size)
        self.dropout = nn.Dropout(dropout)

    def compute(self, hidden_states: Tensor) -> Tensor:
        """(batch, channels, time[, mel]) to the same with the block's channels, pooled."""
        hidden_states = self.relu(self.norm1(self.conv1(hidden_states)))
        hidden_states = self.relu(self.norm2(self.conv2(hidden_states)))
        return self.dropout(self.pool(hidden_states))


class DualRepAudioModel(DualRepTower):
    """CNN14 without its classifier. It takes clips of 32 spectrogram frames, 2^(blocks - 1), or more.

    Called with the log-mel spectrogram `input_features` (batch, time, mel) in dB, it returns
    `last_hidden_state` (batch, channels, time / 32[, mel / 32]), the embedding `pooler_output`
    (batch, hidden_size), and with `output_hidden_states` the output of every block. Raises ValueError for
    another shape.
    """

    config: DualRepAudioConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    _no_split_modules = ("ConvBlock",)

    def __init__(self, config: DualRepAudioConfig) -> None:
        super().__init__(config)
        self.min_frames = 2 ** (len(config.hidden_sizes) - 1)
        self.norm = nn.BatchNorm1d(config.num_mel_bins)
        self.blocks = nn.ModuleList()
        in_channels = config.num_mel_bins if config.conv_dim == 1 else 1
        for index, out_channels in enumerate(config.hidden_sizes, start=1):
            pool_size = 2 if index < len(config.hidden_sizes) else 1
            self.blocks.append(
                ConvBlock(config.conv_dim, in_channels, out_channels, pool_size, config.block_dropout)
            )
            in_channels = out_channels
        fully_connected = nn.Linear(config.hidden_size, config.hidden_size)
        self.embedding = nn.Sequential(
            OrderedDict(
                dropout_before=nn.Dropout(config.embedding_dropout),
                linear=fully_connected,
                relu=nn.ReLU(),
                dropout_after=nn.Dropout(config.embedding_dropout),
            )
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            init.xavier_uniform_(module.weight)

    @can_return_tuple
    def forward(
        self, input_features: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Features of log-mel spectrograms.

        Args:
            input_features: (batch, time, mel) in dB, of the feature extractor: 100 steps of time a second.
            output_hidden_states: return the output of every block too; None: as the configuration says.

        Returns:
            `last_hidden_state` (batch, channels, time / 32[, mel / 32]) and `pooler_output`
            (batch, hidden_size), of maximum plus mean over time (Kong et al., 2020).

        Raises:
            ValueError: another shape, or too few steps of time for the pooling.
        """
        check_shape(
            "input_features",
            input_features,
            axes=("batch", "time", "mel"),
            exactly={"mel": self.config.num_mel_bins},
            at_least={"time": self.min_frames},
        )
        hidden_states = self.norm(input_features.transpose(1, 2))  # (batch, mel, time)
        if self.config.spec_augment and self.training:
            hidden_states = mask_stripes(hidden_states)
        if self.config.conv_dim == 2:
            hidden_states = hidden_states.transpose(1, 2).unsqueeze(1)  # (batch, 1, time, mel)
        feature_maps = run_stages(self.blocks, hidden_states)
        pooled = self.embedding(_max_plus_mean_over_time(feature_maps[-1]))
        return self._as_output(feature_maps, pooled, output_hidden_states)


def _max_plus_mean_over_time(hidden_states: Tensor) -> Tensor:
    """(batch, channels, time) or (batch, channels, time, mel), mel being averaged, to (batch, channels)."""
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.mean(dim=3)
    return hidden_states.amax(dim=2) + hidden_states.mean(dim=2)


def mask_stripes(spectrograms: Tensor) -> Tensor:
    """SpecAugment (Park et al., 2019): zeros over stripes of time and of mel, drawn anew for each sample.

    Takes and returns (batch, mel, time). At most a quarter of the cells of a spectrogram is masked.
    """
    batch, mel_bins, frames = spectrograms.shape
    time_width = min(MAX_TIME_STRIPE_FRAMES, int(frames * MAX_STRIPE_SHARE))
    mel_width = min(MAX_MEL_STRIPE_BINS, int(mel_bins * MAX_STRIPE_SHARE))
    time_mask = _stripes(batch, frames, time_width, spectrograms.device)
    mel_mask = _stripes(batch, mel_bins, mel_width, spectrograms.device)
    return spectrograms.masked_fill(time_mask[:, None, :] | mel_mask[:, :, None], 0.0)


def _stripes(batch: int, length: int, max_width: int, device: torch.device) -> Tensor:
    """True on stripes 0 to `max_width` wide, at random places of an axis: (batch, length)."""
    shape = (batch, STRIPES_PER_AXIS, 1)
    widths = torch.randint(max_width + 1, shape, device=device)
    starts = (torch.rand(shape, device=device) * (length - widths + 1)).long()
    positions = torch.arange(length, device=device)
    return ((positions >= starts) & (positions < starts + widths)).any(dim=1)


__all__ = ["DualRepAudioModel"]
