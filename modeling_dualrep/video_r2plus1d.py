"""The video tower: R(2+1)D-18, whose convolutions are split into space and time (Tran et al., 2018)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention
from transformers.utils.generic import can_return_tuple

from .configuration_dualrep import DualRepVideoConfig
from .tower import CheckpointedLayer, DualRepTower, build_stages, check_shape, run_stages


class SpatialConv3d(nn.Conv3d):
    """A convolution over height and width alone, or, `factorised`, the same as a 2-D one of every frame."""

    factorised = False

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(batch, channels, frames, height, width) to the same with the layer's channels and stride."""
        if not self.factorised:
            return super().forward(hidden_states)
        batch, _, frames = hidden_states.shape[:3]
        over_space = conv2d(
            hidden_states.transpose(1, 2).flatten(0, 1),  # copies nothing of what is channels last
            self.weight.squeeze(2),
            self.bias,
            stride=self.stride[1:],
            padding=self.padding[1:],
        )
        return over_space.unflatten(0, (batch, frames)).transpose(1, 2)


class TemporalConv3d(nn.Conv3d):
    """A convolution over time alone, or, `factorised`, the same as a 2-D one of (time, pixels).

    In half precision on a CPU it is always computed so: there, as a 3-D convolution over two frames, PyTorch
    2.14 gives it gradients made of uninitialised memory.
    """

    factorised = False

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(batch, channels, frames, height, width) to the same with the layer's channels and stride."""
        if not (self.factorised or _is_half_precision_on_cpu(hidden_states)):
            return super().forward(hidden_states)
        over_time = conv2d(
            hidden_states.flatten(3),
            self.weight.flatten(3),
            self.bias,
            stride=(self.stride[0], 1),
            padding=(self.padding[0], 0),
        )
        return over_time.unflatten(3, hidden_states.shape[3:])


def _is_half_precision_on_cpu(hidden_states: Tensor) -> bool:
    half_precision = hidden_states.dtype in (torch.bfloat16, torch.float16)
    return hidden_states.device.type == "cpu" and (half_precision or torch.is_autocast_enabled("cpu"))


class Conv2Plus1d(nn.Sequential):
    """A spatial convolution, BatchNorm and ReLU, then a temporal convolution over 3 frames.

    Args:
        in_channels, mid_channels, out_channels: channels before, between and after the two convolutions.
        spatial_size: height and width of the spatial kernel.
        spatial_stride, temporal_stride: of the two convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        spatial_size: int = 3,
        spatial_stride: int = 1,
        temporal_stride: int = 1,
    ) -> None:
        spatial = SpatialConv3d(
            in_channels,
            mid_channels,
            kernel_size=(1, spatial_size, spatial_size),
            stride=(1, spatial_stride, spatial_stride),
            padding=(0, spatial_size // 2, spatial_size // 2),
            bias=False,
        )
        temporal = TemporalConv3d(
            mid_channels,
            out_channels,
            kernel_size=(3, 1, 1),
            stride=(temporal_stride, 1, 1),
            padding=(1, 0, 0),
            bias=False,
        )
        norm = nn.BatchNorm3d(mid_channels)
        relu = nn.ReLU(inplace=True)
        super().__init__(OrderedDict(spatial=spatial, norm=norm, relu=relu, temporal=temporal))


class R2Plus1dBlock(CheckpointedLayer):
    """A residual block of two (2+1)-D convolutions; `stride` halves time, height and width alike.

    Both have as many channels between space and time as give one of them the parameters of a full 3 x 3 x 3
    convolution (section 3.5 of Tran et al., 2018).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        mid_channels = (27 * in_channels * out_channels) // (9 * in_channels + 3 * out_channels)
        self.convolution1 = Conv2Plus1d(
            in_channels, mid_channels, out_channels, spatial_stride=stride, temporal_stride=stride
        )
        self.norm1 = nn.BatchNorm3d(out_channels)
        self.convolution2 = Conv2Plus1d(out_channels, mid_channels, out_channels)
        self.norm2 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            convolution = nn.Conv3d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            norm = nn.BatchNorm3d(out_channels)
            self.shortcut = nn.Sequential(OrderedDict(convolution=convolution, norm=norm))

    def compute(self, hidden_states: Tensor) -> Tensor:
        """(batch, channels, frames, height, width) to the same with the block's channels and strides."""
        residual = self.relu(self.norm1(self.convolution1(hidden_states)))
        residual = self.norm2(self.convolution2(residual))
        return self.relu(residual + self.shortcut(hidden_states))


class DualRepVideoModel(DualRepTower):
    """R(2+1)D-18 without its classifier. A clip of any number of frames and any size is taken.

    Called with `pixel_values_videos` (batch, frames, channels, height, width), it returns `last_hidden_state`
    (batch, hidden_size, frames / 8, height / 16, width / 16), its mean `pooler_output` (batch, hidden_size),
    and with `output_hidden_states` the output of every stage. Raises ValueError for another shape.
    """

    config: DualRepVideoConfig
    base_model_prefix = "video_model"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _no_split_modules = ("R2Plus1dBlock",)

    def __init__(self, config: DualRepVideoConfig) -> None:
        super().__init__(config)
        width = config.hidden_sizes[0]
        stem = Conv2Plus1d(
            config.num_channels, config.stem_hidden_size, width, spatial_size=7, spatial_stride=2
        )
        norm = nn.BatchNorm3d(width)
        relu = nn.ReLU(inplace=True)
        self.stem = nn.Sequential(OrderedDict(convolution=stem, norm=norm, relu=relu))
        self.stages = build_stages(R2Plus1dBlock, width, config.hidden_sizes, config.depths)
        for layer in self.modules():
            if isinstance(layer, SpatialConv3d | TemporalConv3d):
                layer.factorised = config.convolution == "factorised"
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values_videos: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Features of clips.

        Args:
            pixel_values_videos: (batch, frames, channels, height, width), normalised as the video processor
                does it.
            output_hidden_states: return the output of every stage too; None: as the configuration says.

        Returns:
            `last_hidden_state` (batch, hidden_size, frames / 8, height / 16, width / 16) and its mean
            `pooler_output` (batch, hidden_size).

        Raises:
            ValueError: another shape.
        """
        check_shape(
            "pixel_values_videos",
            pixel_values_videos,
            axes=("batch", "frames", "channels", "height", "width"),
            exactly={"channels": self.config.num_channels},
            at_least={"frames": 1, "height": 1, "width": 1},
        )
        hidden_states = self.stem(pixel_values_videos.transpose(1, 2))
        feature_maps = run_stages(self.stages, hidden_states)
        pooled = feature_maps[-1].mean(dim=(2, 3, 4))
        return self._as_output(feature_maps, pooled, output_hidden_states)


__all__ = ["DualRepVideoModel"]
