"""DualRep: three towers, their projections and fusion, the pretraining objective, and the task models."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .audio_cnn14 import DualRepAudioModel
from .configuration_dualrep import DualRepConfig
from .distributed import gather_rows, process_count
from .fusion import ResidualFusion, SimilarityHead
from .image_resnet import DualRepImageModel
from .losses import (
    anchored_similarities,
    contrastive_loss,
    contrastive_loss_of_similarities,
    triplet_ranking_loss,
)
from .saliency import (
    CENTER_SIGMA,
    CenterBias,
    SaliencyDecoder,
    check_fixation_counts,
    check_target_maps,
    correlation_loss,
    kl_divergence_loss,
    scanpath_loss,
)
from .tower import FaithfulLoadingMixin
from .video_r2plus1d import DualRepVideoModel

# Where transformers finds the classes in a saved folder when this package is not installed. Every folder
# lists them all, so that one pretraining folder serves the base model and the task models.
AUTO_MAP = {
    "AutoConfig": "configuration_dualrep.DualRepConfig",
    "AutoModel": "modeling_dualrep.DualRepModel",
    "AutoModelForImageClassification": "modeling_dualrep.DualRepForImageClassification",
    "AutoModelForVideoClassification": "modeling_dualrep.DualRepForVideoClassification",
}


@dataclass
class DualRepOutput(ModelOutput):
    """What `DualRepModel` returns; what was not given, or is switched off in the configuration, is None.

    Args:
        loss: the objective (eq. 13), a scalar; with `return_loss=True`.
        loss_terms: its terms by name, weighted, so that they add up to `loss`.
        num_audio_clips: how many clips took part in the audio terms, over all processes.
        video_embeds, audio_embeds, image_embeds: (batch, projection_dim), not normalised. Rows whose
            `audio_mask` is False are zero, in the fused and similarity embeddings of the audio too.
        video_audio_embeds, video_image_embeds: fused (eq. 1-2).
        video_similarity_embeds, audio_similarity_embeds, image_similarity_embeds: of the FC and BatchNorm
            heads (eq. 8-10).
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    num_audio_clips: Tensor | None = None
    video_embeds: Tensor | None = None
    audio_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    video_audio_embeds: Tensor | None = None
    video_image_embeds: Tensor | None = None
    video_similarity_embeds: Tensor | None = None
    audio_similarity_embeds: Tensor | None = None
    image_similarity_embeds: Tensor | None = None


@dataclass
class DualRepSaliencyOutput(ModelOutput):
    """What `DualRepForSaliencyPrediction` returns.

    Args:
        loss: a scalar, where labels are given.
        saliency_maps: (batch, height, width) at the input's resolution; each is above 0 and sums to 1.
        log_saliency_maps: their logarithms.
        hidden_states: the image tower's feature maps, if asked for.
    """

    loss: Tensor | None = None
    saliency_maps: Tensor | None = None
    log_saliency_maps: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class DualRepPreTrainedModel(FaithfulLoadingMixin, PreTrainedModel):
    """What the models that hold whole towers share: configuration, and publishing with the code."""

    config: DualRepConfig
    base_model_prefix = "dualrep"
    input_modalities = ("video", "audio", "image")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["R2Plus1dBlock", "ResNetBlock", "ConvBlock"]

    def post_init(self) -> None:
        """transformers' own; but what a tower alone may leave in a checkpoint, the whole may not."""
        super().post_init()
        self._keys_to_ignore_on_load_unexpected = set(type(self)._keys_to_ignore_on_load_unexpected or ())

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """transformers' own, and the code beside the weights; every Auto class finds its model there."""
        self.config.auto_map = AUTO_MAP | {self._auto_class: f"modeling_dualrep.{type(self).__name__}"}
        super().save_pretrained(save_directory, **kwargs)


class DualRepModel(DualRepPreTrainedModel):
    """The three towers with projections, fusion and similarity heads; gives embeddings and the objective.

    The objective (eq. 13) is contrastive_balance * MMCL + (1 - contrastive_balance) * MMSL. MMCL (eq. 7) is
    the sum of the contrastive losses of video with speech, fused video-speech, frame, and fused video-frame
    (eq. 3-6), MMSL that of the triplet ranking losses of video with speech and with the frame (eq. 11-12).
    With one of the two switched off the other is taken whole.

    Towers and heads that the configuration does not use are not built.
    """

    main_input_name = "pixel_values_videos"
    _auto_class = "AutoModel"

    def __init__(self, config: DualRepConfig) -> None:
        super().__init__(config)
        dim = config.projection_dim
        self.video_model = DualRepVideoModel(config.video_config)
        self.video_projection = nn.Linear(config.video_config.hidden_size, dim)
        if config.use_audio:
            self.audio_model = DualRepAudioModel(config.audio_config)
            self.audio_projection = nn.Linear(config.audio_config.hidden_size, dim)
        if config.use_image:
            self.image_model = DualRepImageModel(config.image_config)
            self.image_projection = nn.Linear(config.image_config.hidden_size, dim)
        if config.use_contrastive_loss:
            if config.use_audio:
                self.audio_fusion = ResidualFusion(dim)
            if config.use_image:
                self.image_fusion = ResidualFusion(dim)
        if config.use_similarity_loss:
            self.video_similarity = SimilarityHead(dim)
            if config.use_audio:
                self.audio_similarity = SimilarityHead(dim)
            if config.use_image:
                self.image_similarity = SimilarityHead(dim)
        self.post_init()

    @can_return_tuple
    def get_video_features(
        self, pixel_values_videos: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPooling:
        """Clips (batch, frames, channels, height, width) to `pooler_output`, (batch, projection_dim)."""
        features = self.video_model(
            pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True
        )
        return _project(features, self.video_projection)

    @can_return_tuple
    def get_audio_features(
        self, input_features: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPooling:
        """Log-mels (batch, time, mel) in dB to `pooler_output`, (batch, projection_dim)."""
        self._require_tower("use_audio", "input_features")
        features = self.audio_model(
            input_features, output_hidden_states=output_hidden_states, return_dict=True
        )
        return _project(features, self.audio_projection)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPooling:
        """Frames (batch, channels, height, width) to `pooler_output`, (batch, projection_dim)."""
        self._require_tower("use_image", "pixel_values")
        features = self.image_model(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        return _project(features, self.image_projection)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        audio_mask: Tensor | None = None,
        return_loss: bool = False,
    ) -> DualRepOutput:
        """Embeddings of what is given: any of the three inputs alone, or all.

        Args:
            pixel_values_videos: clips, (batch, frames, channels, height, width).
            input_features: log-mel spectrograms in dB, (batch, time, mel).
            pixel_values: frames, (batch, channels, height, width).
            audio_mask: (batch,) bool, False where a clip has no usable sound. Such rows never reach the audio
                tower or a BatchNorm of the audio, and take part in the image terms alone; with fewer than two
                others the audio terms are zero. None: all have sound.
            return_loss: compute the objective too, over the clips of all processes.

        Raises:
            ValueError: nothing was given, an input has the wrong shape or no tower, or the objective lacks an
                input or has fewer than two clips.
        """
        self._check_inputs(pixel_values_videos, input_features, pixel_values, return_loss)
        embeds: dict[str, Tensor] = {}
        has_sound = None
        if pixel_values_videos is not None:
            embeds["video_embeds"] = self.get_video_features(
                pixel_values_videos, return_dict=True
            ).pooler_output
        if input_features is not None:
            has_sound = _as_row_mask(audio_mask, input_features)
            embeds["audio_embeds"] = self._embed_audio(input_features, has_sound)
        if pixel_values is not None:
            embeds["image_embeds"] = self.get_image_features(pixel_values, return_dict=True).pooler_output
        embeds |= self._fused(embeds, has_sound)
        embeds |= self._in_similarity_space(embeds, has_sound)
        if not return_loss:
            return DualRepOutput(**embeds)
        terms, num_audio_clips = self._loss_terms(embeds, has_sound)
        loss = sum(terms.values())
        return DualRepOutput(loss=loss, loss_terms=terms, num_audio_clips=num_audio_clips, **embeds)

    def _check_inputs(
        self, videos: Tensor | None, features: Tensor | None, images: Tensor | None, return_loss: bool
    ) -> None:
        inputs = {"pixel_values_videos": videos, "input_features": features, "pixel_values": images}
        sizes = {name: len(values) for name, values in inputs.items() if values is not None}
        if not sizes:
            raise ValueError(f"DualRepModel was given nothing: pass {', '.join(inputs)}, or some of them.")
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise ValueError(f"The rows of all inputs belong together, but there are {counts}.")
        if features is not None:
            self._require_tower("use_audio", "input_features")
        if images is not None:
            self._require_tower("use_image", "pixel_values")
        used = {"input_features": self.config.use_audio, "pixel_values": self.config.use_image}
        missing = [name for name in inputs if used.get(name, True) and name not in sizes]
        if return_loss and missing:
            raise ValueError(
                f"return_loss=True needs {' and '.join(missing)} too. "
                "To train without a modality, switch it off with DualRepConfig.use_audio or use_image."
            )
        clips = process_count() * max(sizes.values())
        if return_loss and clips < 2:
            raise ValueError(
                f"The objective needs at least two clips, but got {clips}: make the batch larger."
            )

    def _require_tower(self, field: str, argument: str) -> None:
        if not getattr(self.config, field):
            raise ValueError(
                f"{argument} was given, but the model has no such tower: DualRepConfig.{field} is False."
            )

    def _embed_audio(self, input_features: Tensor, has_sound: Tensor) -> Tensor:
        """Embeddings of the rows with sound, zeros elsewhere."""
        if has_sound.any():
            of_sounding = self.get_audio_features(input_features[has_sound], return_dict=True).pooler_output
        else:
            # The weights take part nevertheless, with a gradient of zero: other processes wait for it.
            weights = (*self.audio_model.parameters(), *self.audio_projection.parameters())
            of_sounding = _zero_of(*weights).expand(0, self.config.projection_dim)
        return _scatter_rows(of_sounding, has_sound)

    def _fused(self, embeds: dict[str, Tensor], has_sound: Tensor | None) -> dict[str, Tensor]:
        """Fused embeddings of the video with what else is there (eq. 1-2)."""
        fused: dict[str, Tensor] = {}
        if not self.config.use_contrastive_loss or "video_embeds" not in embeds:
            return fused
        video = embeds["video_embeds"]
        if "audio_embeds" in embeds:
            of_sounding = self.audio_fusion(embeds["audio_embeds"][has_sound], video[has_sound])
            fused["video_audio_embeds"] = _scatter_rows(of_sounding, has_sound)
        if "image_embeds" in embeds:
            fused["video_image_embeds"] = self.image_fusion(embeds["image_embeds"], video)
        return fused

    def _in_similarity_space(self, embeds: dict[str, Tensor], has_sound: Tensor | None) -> dict[str, Tensor]:
        """Similarity embeddings of what is there (eq. 8-10).

        Rows without sound stay out of the audio's BatchNorm; the video's sees all rows, once for both terms.
        """
        projected: dict[str, Tensor] = {}
        if not self.config.use_similarity_loss:
            return projected
        if "video_embeds" in embeds:
            projected["video_similarity_embeds"] = self.video_similarity(embeds["video_embeds"])
        if "audio_embeds" in embeds:
            of_sounding = self.audio_similarity(embeds["audio_embeds"][has_sound])
            projected["audio_similarity_embeds"] = _scatter_rows(of_sounding, has_sound)
        if "image_embeds" in embeds:
            projected["image_similarity_embeds"] = self.image_similarity(embeds["image_embeds"])
        return projected

    def _loss_terms(
        self, embeds: dict[str, Tensor], has_sound: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The weighted terms of eq. 13 over the clips of all processes, and how many of these have sound."""
        rows = gather_rows(embeds if has_sound is None else embeds | {"has_sound": has_sound})
        terms: dict[str, Tensor] = {}
        num_audio_clips = None
        if self.config.use_audio:
            has_sound = rows.pop("has_sound")
            num_audio_clips = has_sound.sum()
            sounding = {name: of_all[has_sound] for name, of_all in rows.items()}
            terms |= self._terms_with("audio", sounding, self.config.audio_loss_weight)
        if self.config.use_image:
            terms |= self._terms_with("image", rows, self.config.image_loss_weight)
        return terms, num_audio_clips

    def _terms_with(self, other: str, rows: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
        """The weighted terms of the video with `other`, "audio" or "image": zeros for fewer than two rows."""
        config = self.config
        both = config.use_contrastive_loss and config.use_similarity_loss
        terms: dict[str, Tensor] = {}
        if config.use_contrastive_loss:
            share = weight * (config.contrastive_balance if both else 1.0)
            video, embeds, fused = (rows[f"{name}_embeds"] for name in ("video", other, f"video_{other}"))
            plain_loss = _loss_or_zero(self._contrastive, video, embeds)
            if config.fuse_candidates_with_anchor_video:
                fusion = getattr(self, f"{other}_fusion")
                fused_loss = _loss_or_zero(self._anchored_contrastive, video, *fusion.parts(embeds, video))
            else:
                fused_loss = _loss_or_zero(self._contrastive, video, fused)
            terms[f"video_{other}_contrastive"] = share * plain_loss
            terms[f"fused_video_{other}_contrastive"] = share * fused_loss
        if config.use_similarity_loss:
            share = weight * (1 - config.contrastive_balance if both else 1.0)
            video, embeds = (rows[f"{name}_similarity_embeds"] for name in ("video", other))
            terms[f"video_{other}_similarity"] = share * _loss_or_zero(self._ranking, video, embeds)
        return terms

    def _contrastive(self, video: Tensor, candidates: Tensor) -> Tensor:
        return contrastive_loss(video, candidates, self.config.temperature)

    def _anchored_contrastive(self, video: Tensor, other_parts: Tensor, video_parts: Tensor) -> Tensor:
        """Eq. 4 and 6 with every candidate fused with the anchor's own video."""
        similarities = anchored_similarities(video, other_parts, video_parts)
        return contrastive_loss_of_similarities(similarities, self.config.temperature)

    def _ranking(self, video: Tensor, other: Tensor) -> Tensor:
        return triplet_ranking_loss(video, other, self.config.margin, self.config.negatives)


class DualRepForImageClassification(DualRepPreTrainedModel):
    """The image tower with a linear classifier; loads straight from a pretraining folder, its head new.

    Called with `pixel_values` (batch, channels, height, width) it returns `logits` (batch, num_labels), and
    `loss` where `labels` (batch,) are given.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _auto_class = "AutoModelForImageClassification"
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^(?!image_model\.|classifier\.)"]

    def __init__(self, config: DualRepConfig) -> None:
        super().__init__(config)
        self.image_model = DualRepImageModel(config.image_config)
        self.classifier = nn.Linear(config.image_config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ImageClassifierOutputWithNoAttention:
        features = self.image_model(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        return _classify(self, features, labels)


class DualRepForVideoClassification(DualRepPreTrainedModel):
    """The video tower with a linear classifier; loads straight from a pretraining folder, its head new.

    Called with `pixel_values_videos` (batch, frames, channels, height, width) it returns `logits`
    (batch, num_labels), and `loss` where `labels` (batch,) are given.
    """

    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _auto_class = "AutoModelForVideoClassification"
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^(?!video_model\.|classifier\.)"]

    def __init__(self, config: DualRepConfig) -> None:
        super().__init__(config)
        self.video_model = DualRepVideoModel(config.video_config)
        self.classifier = nn.Linear(config.video_config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ImageClassifierOutputWithNoAttention:
        features = self.video_model(
            pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True
        )
        return _classify(self, features, labels)


class DualRepForSaliencyPrediction(DualRepPreTrainedModel):
    """The image tower with a light decoder over its feature maps: where the sonographer looks.

    Loads straight from a pretraining folder, its decoder new. The loss is KLD(labels || prediction), and with
    `config.saliency_loss="kld_cc_nss"` minus the correlation and minus the normalised scanpath saliency on
    top of it, each with weight 1.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^(?!image_model\.|saliency_decoder\.)"]

    def __init__(self, config: DualRepConfig) -> None:
        super().__init__(config)
        self.image_model = DualRepImageModel(config.image_config)
        self.saliency_decoder = SaliencyDecoder(
            config.image_config.hidden_sizes, config.saliency_decoder_size, config.saliency_center_bias
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, CenterBias):
            init.constant_(module.center, 0.5)
            init.constant_(module.log_sigma, math.log(CENTER_SIGMA))
        else:
            super()._init_weights(module)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        fixation_counts: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> DualRepSaliencyOutput:
        """Frames (batch, channels, height, width) to maps (batch, height, width).

        Args:
            pixel_values: the frames.
            labels: (batch, height, width) maps of where people looked; each sums to 1.
            fixation_counts: (batch, height, width) fixations a pixel, for `saliency_loss="kld_cc_nss"`.

        Raises:
            ValueError: maps that are no probability maps, or of another size than the frames.
        """
        feature_maps = self.image_model.feature_maps(pixel_values)
        log_maps = self.saliency_decoder(feature_maps, *pixel_values.shape[-2:])
        loss = None if labels is None else self._loss(log_maps, labels, fixation_counts)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return DualRepSaliencyOutput(
            loss=loss,
            saliency_maps=log_maps.exp(),
            log_saliency_maps=log_maps,
            hidden_states=feature_maps if output_hidden_states else None,
        )

    def _loss(self, log_maps: Tensor, labels: Tensor, fixation_counts: Tensor | None) -> Tensor:
        check_target_maps(labels, log_maps.shape)
        loss = kl_divergence_loss(log_maps, labels)
        if self.config.saliency_loss == "kld":
            return loss
        check_fixation_counts(fixation_counts, log_maps.shape)
        maps = log_maps.exp()
        return loss + correlation_loss(maps, labels) + scanpath_loss(maps, fixation_counts)


def _classify(
    model: DualRepForImageClassification | DualRepForVideoClassification,
    features: BaseModelOutputWithPoolingAndNoAttention,
    labels: Tensor | None,
) -> ImageClassifierOutputWithNoAttention:
    logits = model.classifier(features.pooler_output)
    loss = None if labels is None else model.loss_function(labels, logits, model.config)
    return ImageClassifierOutputWithNoAttention(
        loss=loss, logits=logits, hidden_states=features.hidden_states
    )


def _project(
    features: BaseModelOutputWithPoolingAndNoAttention, projection: nn.Linear
) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(
        last_hidden_state=features.last_hidden_state,
        pooler_output=projection(features.pooler_output),
        hidden_states=features.hidden_states,
    )


def _as_row_mask(audio_mask: Tensor | None, input_features: Tensor) -> Tensor:
    """(batch,) bool on the device of the features, True where a clip has sound."""
    batch = len(input_features)
    if audio_mask is None:
        return torch.ones(batch, dtype=torch.bool, device=input_features.device)
    if audio_mask.shape != (batch,):
        raise ValueError(
            f"audio_mask has shape {tuple(audio_mask.shape)}, but must have one value a clip: ({batch},)."
        )
    return audio_mask.to(device=input_features.device, dtype=torch.bool)


def _scatter_rows(rows: Tensor, places: Tensor) -> Tensor:
    """`rows` where `places` is True, zeros elsewhere."""
    return rows.new_zeros(len(places), rows.shape[1]).index_put((places,), rows)


def _loss_or_zero(loss: Callable[..., Tensor], *embeds: Tensor) -> Tensor:
    """`loss(*embeds)`, or zero where there are no negatives."""
    return loss(*embeds) if len(embeds[0]) >= 2 else _zero_of(*embeds)


def _zero_of(*tensors: Tensor) -> Tensor:
    """Zero, on which the tensors have a gradient of zero."""
    return sum(tensor[:0].sum() for tensor in tensors)


__all__ = [
    "DualRepForImageClassification",
    "DualRepForSaliencyPrediction",
    "DualRepForVideoClassification",
    "DualRepModel",
    "DualRepOutput",
    "DualRepPreTrainedModel",
    "DualRepSaliencyOutput",
]
