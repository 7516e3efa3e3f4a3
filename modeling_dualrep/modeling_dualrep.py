"""DualRep: three towers, their projections and fusion, the pretraining objective, and the task models."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutputWithNoAttention
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .audio_cnn14 import DualRepAudioModel
from .configuration_dualrep import DualRepConfig
from .distributed import gather_rows
from .fusion import ResidualFusion, SimilarityHead
from .image_resnet import DualRepImageModel
from .losses import (
    anchored_similarities,
    contrastive_loss,
    contrastive_loss_of_similarities,
    triplet_ranking_loss,
)
from .video_r2plus1d import DualRepVideoModel

# Where transformers finds the classes in a saved folder, when this package is not installed. Every folder lists
# them all: one pretraining folder serves the base model and the task models.
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
        num_audio_clips: clips that took part in the audio terms, over all processes.
        video_embeds, audio_embeds, image_embeds: (batch, projection_dim), not normalised; rows of `audio_embeds`
            whose `audio_mask` is False are zero, in the fused and similarity embeddings too.
        video_audio_embeds, video_image_embeds: fused (eq. 1-2).
        video_similarity_embeds, audio_similarity_embeds, image_similarity_embeds: of the FC+BN heads (eq. 8-10).
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


class DualRepPreTrainedModel(PreTrainedModel):
    """What the models that hold whole towers share: configuration, initialisation, publishing with the code."""

    config: DualRepConfig
    base_model_prefix = "dualrep"
    input_modalities = ("video", "audio", "image")
    supports_gradient_checkpointing = True
    _no_split_modules = ("R2Plus1dBlock", "ResNetBlock", "ConvBlock")

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """transformers' own, with the code beside the weights; every Auto class finds its model there."""
        self.config.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory, **kwargs)


class DualRepModel(DualRepPreTrainedModel):
    """The three towers with projections, fusion and similarity heads; gives embeddings and the objective.

    The objective (eq. 13) is contrastive_balance * MMCL + (1 - contrastive_balance) * MMSL. MMCL (eq. 7) is the sum
    of the contrastive losses of video with speech, fused video-speech, frame, and fused video-frame (eq. 3-6), MMSL
    that of the triplet ranking losses of video with speech and with the frame (eq. 11-12). With one of the two
    switched off the other is taken whole.

    Towers and heads that the configuration does not use are not built.
    """

    main_input_name = "pixel_values_videos"

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

    def get_video_features(self, pixel_values_videos: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Clips (batch, frames, channels, height, width) to `pooler_output`, the embedding (batch, projection_dim)."""
        return self._project(
            self.video_model(pixel_values_videos, return_dict=True, **kwargs), self.video_projection
        )

    def get_audio_features(self, input_features: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Log-mels (batch, time, mel) in dB to `pooler_output`, the embedding (batch, projection_dim)."""
        self._require_tower("use_audio", "input_features")
        return self._project(
            self.audio_model(input_features, return_dict=True, **kwargs), self.audio_projection
        )

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Frames (batch, channels, height, width) to `pooler_output`, the embedding (batch, projection_dim)."""
        self._require_tower("use_image", "pixel_values")
        return self._project(
            self.image_model(pixel_values, return_dict=True, **kwargs), self.image_projection
        )

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
            audio_mask: (batch,) bool, False where a clip has no usable sound. Such rows never reach the audio tower
                or a BatchNorm of its, and take part in the image terms alone. None: all have sound.
            return_loss: compute the objective too, over the clips of all processes.

        Raises:
            ValueError: nothing was given, an input has the wrong shape, or the objective lacks an input or has
                fewer than two clips.
        """
        if pixel_values_videos is None and input_features is None and pixel_values is None:
            raise ValueError(
                "DualRepModel was given nothing: pass pixel_values_videos, input_features or pixel_values."
            )
        output = DualRepOutput()
        sounding = None
        if pixel_values_videos is not None:
            output.video_embeds = self.get_video_features(pixel_values_videos).pooler_output
        if input_features is not None:
            sounding = _sounding_rows(input_features, audio_mask)
            output.audio_embeds = self._embed_audio(input_features, sounding)
        if pixel_values is not None:
            output.image_embeds = self.get_image_features(pixel_values).pooler_output
        self._fuse(output, sounding)
        self._enter_similarity_space(output, sounding)
        if return_loss:
            self._require_triple(output)
            self._add_loss(output, sounding)
        return output

    def _require_tower(self, field: str, argument: str) -> None:
        if not getattr(self.config, field):
            raise ValueError(
                f"{argument} was given, but the model has no such tower: DualRepConfig.{field} is False."
            )

    def _require_triple(self, output: DualRepOutput) -> None:
        wanted = {"pixel_values_videos": output.video_embeds}
        if self.config.use_audio:
            wanted["input_features"] = output.audio_embeds
        if self.config.use_image:
            wanted["pixel_values"] = output.image_embeds
        missing = [name for name, embeds in wanted.items() if embeds is None]
        if missing:
            raise ValueError(
                f"return_loss=True needs {', '.join(missing)} too, or switch the modality off in the config."
            )

    @staticmethod
    def _project(features: ModelOutput, projection: nn.Linear) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(
            last_hidden_state=features.last_hidden_state,
            pooler_output=projection(features.pooler_output),
            hidden_states=features.hidden_states,
        )

    def _embed_audio(self, input_features: Tensor, sounding: Tensor) -> Tensor:
        if sounding.all():
            return self.get_audio_features(input_features).pooler_output
        if sounding.any():
            of_sounding = self.get_audio_features(input_features[sounding]).pooler_output
        else:
            # No clip sounds: the parameters still take part, with no gradient, so that processes stay in step.
            of_sounding = sum(
                p.sum() for p in (*self.audio_model.parameters(), *self.audio_projection.parameters())
            )
            of_sounding = (0 * of_sounding).expand(0, self.config.projection_dim)
        return _scatter_rows(of_sounding, sounding)

    def _fuse(self, output: DualRepOutput, sounding: Tensor | None) -> None:
        """Fused embeddings of video with what else is there (eq. 1-2)."""
        if not self.config.use_contrastive_loss or output.video_embeds is None:
            return
        if output.audio_embeds is not None:
            fused = self.audio_fusion(output.audio_embeds, output.video_embeds)
            output.video_audio_embeds = fused * sounding[:, None]
        if output.image_embeds is not None:
            output.video_image_embeds = self.image_fusion(output.image_embeds, output.video_embeds)

    def _enter_similarity_space(self, output: DualRepOutput, sounding: Tensor | None) -> None:
        """Similarity embeddings of what is there (eq. 8-10); silent rows stay out of the BatchNorm of the audio."""
        if not self.config.use_similarity_loss:
            return
        if output.video_embeds is not None:
            output.video_similarity_embeds = _head(self.video_similarity, output.video_embeds)
        if output.image_embeds is not None:
            output.image_similarity_embeds = _head(self.image_similarity, output.image_embeds)
        if output.audio_embeds is not None:
            of_sounding = _head(self.audio_similarity, output.audio_embeds[sounding])
            output.audio_similarity_embeds = _scatter_rows(of_sounding, sounding)

    def _add_loss(self, output: DualRepOutput, sounding: Tensor | None) -> None:
        """Adds `loss_terms` and `loss`, their sum (eq. 13)."""
        clips = gather_rows(output.video_embeds).shape[0]
        if clips < 2:
            raise ValueError(
                f"The objective needs at least two clips, but the batch has {clips}: make it larger."
            )
        terms: dict[str, Tensor] = {}
        if self.config.use_audio:
            sounding = gather_rows(sounding)
            output.num_audio_clips = sounding.sum()
            terms |= self._terms_with("audio", output, sounding, self.config.audio_loss_weight)
        if self.config.use_image:
            every = torch.ones(clips, dtype=torch.bool, device=output.video_embeds.device)
            terms |= self._terms_with("image", output, every, self.config.image_loss_weight)
        output.loss_terms = terms
        output.loss = torch.stack(list(terms.values())).sum()

    def _terms_with(
        self, other: str, output: DualRepOutput, rows: Tensor, weight: float
    ) -> dict[str, Tensor]:
        """The weighted terms of video with `other`, "audio" or "image", over the `rows` of all processes."""

        def embeds(name: str) -> Tensor:
            return gather_rows(output[name])[rows]

        contrastive, similarity = self._shares()
        terms: dict[str, Tensor] = {}
        enough = int(rows.sum()) >= 2
        if self.config.use_contrastive_loss:
            video, plain = embeds("video_embeds"), embeds(f"{other}_embeds")
            fused = embeds(f"video_{other}_embeds")
            plain_loss = (
                contrastive_loss(video, plain, self.config.temperature) if enough else 0 * plain.sum()
            )
            fused_loss = self._fused_loss(other, video, plain, fused) if enough else 0 * fused.sum()
            terms[f"video_{other}_contrastive"] = weight * contrastive * plain_loss
            terms[f"fused_video_{other}_contrastive"] = weight * contrastive * fused_loss
        if self.config.use_similarity_loss:
            video, other_embeds = embeds("video_similarity_embeds"), embeds(f"{other}_similarity_embeds")
            ranking = (self.config.margin, self.config.negatives)
            loss = triplet_ranking_loss(video, other_embeds, *ranking) if enough else 0 * other_embeds.sum()
            terms[f"video_{other}_similarity"] = weight * similarity * loss
        return terms

    def _shares(self) -> tuple[float, float]:
        """Factors of the contrastive and of the similarity losses; one alone is taken whole."""
        if self.config.use_contrastive_loss and self.config.use_similarity_loss:
            return self.config.contrastive_balance, 1 - self.config.contrastive_balance
        return 1.0, 1.0

    def _fused_loss(self, other: str, video: Tensor, plain: Tensor, fused: Tensor) -> Tensor:
        """Eq. 4 or 6, or, if the configuration says so, with every candidate fused with the anchor's own video."""
        if not self.config.fuse_candidates_with_anchor_video:
            return contrastive_loss(video, fused, self.config.temperature)
        fusion = self.audio_fusion if other == "audio" else self.image_fusion
        similarities = anchored_similarities(video, *fusion.parts(plain, video))
        return contrastive_loss_of_similarities(similarities, self.config.temperature)


class DualRepForImageClassification(DualRepPreTrainedModel):
    """The image tower with a linear classifier; loads straight from a pretraining folder, its head new.

    Called with `pixel_values` (batch, channels, height, width) it returns `logits` (batch, num_labels), and `loss`
    where `labels` (batch,) are given.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [r"^(?!image_model\.|classifier\.)"]

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
    _keys_to_ignore_on_load_unexpected = [r"^(?!video_model\.|classifier\.)"]

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


def _classify(model: PreTrainedModel, features: ModelOutput, labels: Tensor | None) -> ModelOutput:
    logits = model.classifier(features.pooler_output)
    return ImageClassifierOutputWithNoAttention(
        loss=None if labels is None else model.loss_function(labels, logits, model.config),
        logits=logits,
        hidden_states=features.hidden_states,
    )


def _sounding_rows(input_features: Tensor, audio_mask: Tensor | None) -> Tensor:
    if audio_mask is None:
        return torch.ones(len(input_features), dtype=torch.bool, device=input_features.device)
    if audio_mask.shape != (len(input_features),):
        raise ValueError(
            f"audio_mask has shape {tuple(audio_mask.shape)}, but must have one value a clip: ({len(input_features)},)."
        )
    return audio_mask.to(device=input_features.device, dtype=torch.bool)


def _scatter_rows(rows: Tensor, places: Tensor) -> Tensor:
    """`rows` where `places` is True, zeros elsewhere."""
    return rows.new_zeros(len(places), rows.shape[1]).index_put((places,), rows)


def _head(head: SimilarityHead, embeds: Tensor) -> Tensor:
    """The head's embeddings; zeros for a single row in training, of which BatchNorm has no statistics."""
    if head.training and len(embeds) < 2:
        return 0 * head.linear(embeds)
    return head(embeds)


__all__ = [
    "DualRepForImageClassification",
    "DualRepForVideoClassification",
    "DualRepModel",
    "DualRepOutput",
    "DualRepPreTrainedModel",
]
