"""Configurations of DualRep: one a tower, and one that holds the three with the fusion and the losses."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

from huggingface_hub.dataclasses import type_validator
from transformers import PreTrainedConfig

# What transformers itself passes besides a configuration's own fields: everything else is a misspelling.
TRANSFORMERS_FIELDS = frozenset(
    {
        "_attn_implementation_internal",
        "_commit_hash",
        "_experts_implementation_internal",
        "_name_or_path",
        "_output_attentions",
        "attn_implementation",
        "auto_map",
        "custom_pipelines",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "per_layer_config",
        "quantization_config",
        "tie_word_embeddings",
        "torch_dtype",
        "use_cache",  # transformers' Trainer sets it on every model
    }
)


class StrictConfig(PreTrainedConfig):
    """A configuration that refuses fields it does not know and values that make no sense.

    transformers keeps an unknown field as an attribute that nothing reads, so a misspelling would go
    unnoticed.
    """

    _auto_class: ClassVar[str] = "AutoConfig"

    def __post_init__(self, **kwargs: Any) -> None:
        if kwargs.get("model_type", self.model_type) != self.model_type:
            raise ValueError(
                f"model_type is {kwargs['model_type']!r}, but must be {self.model_type!r} for a "
                f"{type(self).__name__}: the folder or file holds another architecture."
            )
        unknown = sorted(set(kwargs) - TRANSFORMERS_FIELDS)
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no field {', '.join(map(repr, unknown))}. "
                f"Its fields are: {', '.join(sorted(type(self).own_fields()))}."
            )
        super().__post_init__(**kwargs)
        self._check_types()
        self.check()

    @classmethod
    def own_fields(cls) -> set[str]:
        """Names of the fields that DualRep adds to those every transformers configuration has."""
        return set(cls.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)

    def check(self) -> None:
        """Raises ValueError, naming the field, for a value that makes no sense."""

    def _check_types(self) -> None:
        """Raises ValueError, naming the field, for a value of another type: "no" would count as True."""
        for field in fields(self):
            if field.name in type(self).own_fields():
                fits = _is_of_type(getattr(self, field.name), field.type)
                self.require(field.name, fits, f"of type {inspect.formatannotation(field.type)}")

    def require(self, field: str, holds: bool, what: str) -> None:
        """Raises ValueError unless `holds`; `what` says what the field must be."""
        if not holds:
            raise ValueError(
                f"{type(self).__name__}.{field} is {getattr(self, field)!r}, but must be {what}."
            )

    def require_stages(self) -> None:
        """Raises ValueError unless `hidden_sizes` and `depths` describe the same number of stages."""
        self.require("hidden_sizes", _are_positive(self.hidden_sizes), "a list of positive integers")
        self.require("depths", _are_positive(self.depths), "a list of positive integers")
        self.require(
            "depths",
            len(self.depths) == len(self.hidden_sizes),
            "as long as hidden_sizes, one number a stage",
        )


class DualRepVideoConfig(StrictConfig):
    """R(2+1)D-18 over a clip (Tran et al., 2018).

    Args:
        num_channels: colour channels of a frame.
        num_frames: frames of a clip.
        image_size: height and width of a frame in pixels.
        stem_hidden_size: channels between the stem's spatial and temporal convolution.
        hidden_sizes: channels of each stage; the last is the size of the tower's features.
        depths: residual blocks of each stage.
        convolution: "3d", or "factorised" to compute those over space as 2-D convolutions of single frames
            and those over time as 2-D convolutions of (time, pixels): the same weights and values, another
            speed.
        freeze: keep the tower's weights and BatchNorm statistics as they are.
    """

    model_type = "dualrep_video"
    base_config_key = "video_config"

    num_channels: int = 3
    num_frames: int = 14
    image_size: int = 128
    stem_hidden_size: int = 45
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    convolution: str = "3d"
    freeze: bool = False

    def check(self) -> None:
        """Raises ValueError, naming the field, for a value that makes no sense."""
        for field in ("num_channels", "num_frames", "image_size", "stem_hidden_size"):
            self.require(field, getattr(self, field) >= 1, "at least 1")
        self.require("convolution", self.convolution in ("3d", "factorised"), "'3d' or 'factorised'")
        self.require_stages()

    @property
    def hidden_size(self) -> int:
        """Size of the pooled features."""
        return self.hidden_sizes[-1]


class DualRepAudioConfig(StrictConfig):
    """CNN14 over a log-mel spectrogram (Kong et al., 2020, PANNs).

    Args:
        num_mel_bins: mel bins of the spectrogram.
        conv_dim: 1 convolves over time with the mel bins as channels; 2 convolves over time and mel, as PANNs
            do.
        hidden_sizes: channels of each block; the last is the size of the tower's features.
        block_dropout: dropout after each block.
        embedding_dropout: dropout around the last fully connected layer.
        spec_augment: mask stripes of time and mel in training (Park et al., 2019).
        freeze: keep the tower's weights and BatchNorm statistics as they are.
    """

    model_type = "dualrep_audio"
    base_config_key = "audio_config"

    num_mel_bins: int = 64
    conv_dim: int = 1
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    block_dropout: float | int = 0.2
    embedding_dropout: float | int = 0.5
    spec_augment: bool = False
    freeze: bool = False

    def check(self) -> None:
        """Raises ValueError, naming the field, for a value that makes no sense."""
        self.require("num_mel_bins", self.num_mel_bins >= 1, "at least 1")
        self.require("conv_dim", self.conv_dim in (1, 2), "1 (over time) or 2 (over time and mel)")
        self.require("hidden_sizes", _are_positive(self.hidden_sizes), "a list of positive integers")
        blocks = len(self.hidden_sizes)
        self.require(
            "num_mel_bins",
            self.conv_dim == 1 or self.num_mel_bins >= 2 ** (blocks - 1),
            f"at least {2 ** (blocks - 1)}: with conv_dim=2 the {blocks} blocks pool them by that",
        )
        for field in ("block_dropout", "embedding_dropout"):
            self.require(field, 0 <= getattr(self, field) < 1, "at least 0 and below 1")

    @property
    def hidden_size(self) -> int:
        """Size of the pooled features."""
        return self.hidden_sizes[-1]


class DualRepImageConfig(StrictConfig):
    """ResNet18 over one frame (He et al., 2016).

    Args:
        num_channels: colour channels of the frame.
        image_size: height and width of the frame in pixels.
        embedding_size: channels of the stem.
        hidden_sizes: channels of each stage; the last is the size of the tower's features.
        depths: residual blocks of each stage.
        freeze: keep the tower's weights and BatchNorm statistics as they are.
    """

    model_type = "dualrep_image"
    base_config_key = "image_config"

    num_channels: int = 3
    image_size: int = 128
    embedding_size: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    freeze: bool = False

    def check(self) -> None:
        """Raises ValueError, naming the field, for a value that makes no sense."""
        for field in ("num_channels", "image_size", "embedding_size"):
            self.require(field, getattr(self, field) >= 1, "at least 1")
        self.require_stages()

    @property
    def hidden_size(self) -> int:
        """Size of the pooled features."""
        return self.hidden_sizes[-1]


class DualRepConfig(StrictConfig):
    """Three towers, their projections, fusion (eq. 1-2) and the objective (eq. 3-13) of Gridach et al., 2024.

    Args:
        video_config, audio_config, image_config: the towers.
        projection_dim: size of the embeddings that all towers are projected to.
        temperature: of the contrastive losses (eq. 3-6).
        contrastive_balance: share of the contrastive losses in the objective; the similarity losses have the
            rest (eq. 13).
        margin: of the triplet ranking losses (eq. 11-12).
        use_contrastive_loss, use_similarity_loss, use_audio, use_image: False leaves the terms out
            (ablations).
        audio_loss_weight, image_loss_weight: factors of the terms with speech and of those with the frame.
        fuse_candidates_with_anchor_video: fuse every candidate with the anchor's own video, so that the fused
            terms cannot be solved from the video alone. The paper fuses each candidate with its own video.
        negatives: "hardest" (the paper) or "mean" over all negatives of the triplet ranking losses.
        saliency_decoder_size: channels of the decoder of `DualRepForSaliencyPrediction`.
        saliency_center_bias: add a learnt Gaussian, at first around the picture's middle, to its logits.
        saliency_loss: its loss: "kld", or "kld_cc_nss" for KLD - 0.2 CC - 0.1 NSS.
    """

    model_type = "dualrep"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "video_config": DualRepVideoConfig,
        "audio_config": DualRepAudioConfig,
        "image_config": DualRepImageConfig,
    }

    video_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    image_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 512
    temperature: float | int = 0.1
    contrastive_balance: float | int = 0.5
    margin: float | int = 0.2
    use_contrastive_loss: bool = True
    use_similarity_loss: bool = True
    use_audio: bool = True
    use_image: bool = True
    audio_loss_weight: float | int = 1.0
    image_loss_weight: float | int = 1.0
    fuse_candidates_with_anchor_video: bool = False
    negatives: str = "hardest"
    saliency_decoder_size: int = 64
    saliency_center_bias: bool = False
    saliency_loss: str = "kld"

    def __post_init__(self, **kwargs: Any) -> None:
        # AutoModel has several models to choose from, and fails where this is None.
        self.architectures = self.architectures or []
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raises ValueError, naming the field, for a value that makes no sense."""
        self.require("projection_dim", self.projection_dim >= 1, "at least 1")
        self.require("temperature", 0 < self.temperature < math.inf, "above 0 and finite")
        self.require("contrastive_balance", 0 <= self.contrastive_balance <= 1, "between 0 and 1")
        for field in ("margin", "audio_loss_weight", "image_loss_weight"):
            self.require(field, 0 <= getattr(self, field) < math.inf, "at least 0 and finite")
        self.require("negatives", self.negatives in ("hardest", "mean"), "'hardest' or 'mean'")
        self.require("saliency_decoder_size", self.saliency_decoder_size >= 1, "at least 1")
        loss = self.saliency_loss
        self.require("saliency_loss", loss in ("kld", "kld_cc_nss"), "'kld' or 'kld_cc_nss'")
        losses = self.use_contrastive_loss or self.use_similarity_loss
        self.require(
            "use_similarity_loss", losses, "True where use_contrastive_loss is False: one loss must remain"
        )
        modalities = self.use_audio or self.use_image
        self.require("use_image", modalities, "True where use_audio is False: video needs one partner")

    @property
    def num_frames(self) -> int:
        """Frames of a clip; the video pipeline reads it here."""
        return self.video_config.num_frames


def _is_of_type(value: Any, annotation: Any) -> bool:
    try:
        type_validator("", value, annotation)
    except TypeError:
        return False
    return True


def _are_positive(values: Sequence[int]) -> bool:
    return len(values) > 0 and min(values) >= 1


__all__ = ["DualRepAudioConfig", "DualRepConfig", "DualRepImageConfig", "DualRepVideoConfig"]
