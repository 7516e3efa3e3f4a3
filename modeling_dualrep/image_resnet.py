"""The image tower: ResNet18 (He et al., 2016), built from transformers' own parts."""

from torch import Tensor
from transformers import ResNetConfig
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention
from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetEmbeddings
from transformers.utils.generic import can_return_tuple

from .configuration_dualrep import DualRepImageConfig
from .tower import CheckpointedLayer, DualRepTower, build_stages, check_shape, run_stages


class ResNetBlock(CheckpointedLayer, ResNetBasicLayer):
    """transformers' residual block of two 3 x 3 convolutions, open to gradient checkpointing."""

    def compute(self, hidden_states: Tensor) -> Tensor:
        """(batch, channels, height, width) to the same with the block's channels and stride."""
        return ResNetBasicLayer.forward(self, hidden_states)


class DualRepImageModel(DualRepTower):
    """ResNet18 without its classifier. A frame of any size is taken.

    Called with `pixel_values` (batch, channels, height, width), it returns `last_hidden_state`
    (batch, hidden_size, height / 32, width / 32), its mean `pooler_output` (batch, hidden_size), and with
    `output_hidden_states` the feature maps. Raises ValueError for another shape.
    """

    config: DualRepImageConfig
    base_model_prefix = "image_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ("ResNetBlock",)

    def __init__(self, config: DualRepImageConfig) -> None:
        super().__init__(config)
        self.embedder = ResNetEmbeddings(
            ResNetConfig(
                num_channels=config.num_channels, embedding_size=config.embedding_size, hidden_act="relu"
            )
        )
        self.stages = build_stages(ResNetBlock, config.embedding_size, config.hidden_sizes, config.depths)
        self.post_init()

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Feature maps at strides 4, 8, 16, 32 (one a stage), each (batch, channels, height, width)."""
        check_shape(
            "pixel_values",
            pixel_values,
            axes=("batch", "channels", "height", "width"),
            exactly={"channels": self.config.num_channels},
            at_least={"height": 1, "width": 1},
        )
        return run_stages(self.stages, self.embedder(pixel_values))

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Features of frames.

        Args:
            pixel_values: (batch, channels, height, width), normalised as the image processor does it.
            output_hidden_states: return the feature maps of every stage too; None: as the configuration says.

        Returns:
            `last_hidden_state` (batch, hidden_size, height / 32, width / 32) and its mean `pooler_output`
            (batch, hidden_size).

        Raises:
            ValueError: another shape.
        """
        feature_maps = self.feature_maps(pixel_values)
        pooled = feature_maps[-1].mean(dim=(2, 3))
        return self._as_output(feature_maps, pooled, output_hidden_states)


__all__ = ["DualRepImageModel"]
