"""DualRep: three towers, their projections and fusion, the pretraining objective, and the task models."""

import os
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.utils.generic import can_return_tuple

from .audio_cnn14 import DualRepAudioModel
from .configuration_dualrep import DualRepConfig
from .fusion import ResidualFusion, SimilarityHead
from .gradient_cache import in_chunks
from .image_resnet import DualRepImageModel
from .model_inputs import check_inputs, require_tower
from .objective import objective_terms
from .outputs import DualRepOutput, DualRepSaliencyOutput
from .saliency import CenterBias, SaliencyDecoder, saliency_loss
from .sounding_rows import no_rows, put_rows, row_mask, row_numbers
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


class DualRepPreTrainedModel(FaithfulLoadingMixin, PreTrainedModel):
    """What the models that hold whole towers share: configuration, and publishing with the code.

    A task model also loads from the folder of its tower alone, given `config=DualRepConfig(...)` around the
    tower's configuration.
    """

    config: DualRepConfig
    base_model_prefix = "dualrep"
    input_modalities = ("video", "audio", "image")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["R2Plus1dBlock", "ResNetBlock", "ConvBlock", "SaliencyDecoder"]

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """transformers' own; and AutoModel learns that it may choose, by the architecture a folder names.

        Without the package installed, AutoModel takes the class of the first folder for all folders of the
        same code and name.
        """
        config = kwargs.get("config")
        if isinstance(config, PreTrainedConfig) and config.model_type == DualRepConfig.model_type:
            AutoModel.register(type(config), AUTO_MODELS, exist_ok=True)
        return super().from_pretrained(*args, **kwargs)

    def post_init(self) -> None:
        """transformers' own; but what a tower alone may leave in a checkpoint, the whole may not."""
        super().post_init()
        self._keys_to_ignore_on_load_unexpected = set(type(self)._keys_to_ignore_on_load_unexpected or ())

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """transformers' own, and the code beside the weights; every Auto class finds its model there."""
        self.config.auto_map = dict(AUTO_MAP)
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
        require_tower(self.config, "input_features")
        features = self.audio_model(
            input_features, output_hidden_states=output_hidden_states, return_dict=True
        )
        return _project(features, self.audio_projection)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None
    ) -> BaseModelOutputWithPooling:
        """Frames (batch, channels, height, width) to `pooler_output`, (batch, projection_dim)."""
        require_tower(self.config, "pixel_values")
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
        clip_groups: Tensor | None = None,
        gradient_cache_clips: int | None = None,
        audio_pooler_output: Tensor | None = None,
    ) -> DualRepOutput:
        """Embeddings of what is given: any of the three inputs alone, or all.

        Args:
            pixel_values_videos: clips, (batch, frames, channels, height, width).
            input_features: log-mel spectrograms in dB, (batch, time, mel).
            pixel_values: frames, (batch, channels, height, width).
            audio_mask: (batch,) bool, False where a clip has no usable sound. Such rows never reach the audio
                tower or a BatchNorm of the audio, and take part in the image terms alone; with fewer than two
                others the audio terms are zero. None: all have sound. On the CPU it spares a GPU the wait for
                its values.
            return_loss: compute the objective too, over the clips of all processes.
            clip_groups: (batch,) int64; clips of one group, such as near-duplicates, are no negatives of each
                other. None: every clip is a group of its own.
            gradient_cache_clips: clips that go through the towers at a time, with the objective over all of
                them; see `in_chunks`. None: all at once.
            audio_pooler_output: what a speech tower gave before, (batch, audio_config.hidden_size), in the
                place of input_features, where only that was kept of the speech; the tower is not run.

        Raises:
            ValueError: nothing was given, an input has the wrong shape or no tower, or the objective lacks an
                input or has fewer than two clips.
        """
        inputs = {
            "pixel_values_videos": pixel_values_videos,
            "input_features": input_features,
            "pixel_values": pixel_values,
            "audio_pooler_output": audio_pooler_output,
        }
        check_inputs(self.config, inputs, return_loss)
        sound = input_features if audio_pooler_output is None else audio_pooler_output
        has_sound = None if sound is None else row_mask(audio_mask, len(sound))
        embeds = self._embed(
            pixel_values_videos, input_features, has_sound, pixel_values, gradient_cache_clips
        )
        sounding = None if has_sound is None else row_numbers(has_sound, sound.device)
        if audio_pooler_output is not None:
            embeds["audio_embeds"] = self._project_audio(audio_pooler_output, sounding)
        embeds |= self._fused(embeds, sounding)
        embeds |= self._in_similarity_space(embeds, sounding)
        if not return_loss:
            return DualRepOutput(**embeds)
        rows = embeds | self._fusion_parts(embeds)
        terms, num_audio_clips = objective_terms(self.config, rows, has_sound, clip_groups)
        loss = sum(terms.values())
        return DualRepOutput(loss=loss, loss_terms=terms, num_audio_clips=num_audio_clips, **embeds)

    def _embed(
        self,
        videos: Tensor | None,
        features: Tensor | None,
        has_sound: Tensor | None,
        images: Tensor | None,
        clips_at_a_time: int | None,
    ) -> dict[str, Tensor]:
        """Projected embeddings of what is given, by the names of `DualRepOutput`."""
        embeds: dict[str, Tensor] = {}
        if videos is not None:
            embeds["video_embeds"] = in_chunks(
                self._embed_videos, (videos,), clips_at_a_time, self.video_model
            )
        if features is not None:
            rows = (features, has_sound)
            embeds["audio_embeds"] = in_chunks(self._embed_audio, rows, clips_at_a_time, self.audio_model)
        if images is not None:
            embeds["image_embeds"] = in_chunks(
                self._embed_images, (images,), clips_at_a_time, self.image_model
            )
        return embeds

    def _embed_videos(self, videos: Tensor) -> Tensor:
        return self.get_video_features(videos, return_dict=True).pooler_output

    def _embed_images(self, images: Tensor) -> Tensor:
        return self.get_image_features(images, return_dict=True).pooler_output

    def _embed_audio(self, features: Tensor, has_sound: Tensor) -> Tensor:
        """Embeddings of the rows with sound, zeros elsewhere."""
        sounding = row_numbers(has_sound, features.device)
        if len(sounding) > 0:
            embeds = self.get_audio_features(features[sounding], return_dict=True).pooler_output
        else:
            tower_and_projection = nn.ModuleList([self.audio_model, self.audio_projection])
            embeds = no_rows(self.config.projection_dim, tower_and_projection)
        return put_rows(embeds, sounding, len(features))

    def _project_audio(self, pooled: Tensor, sounding: Tensor) -> Tensor:
        """Embeddings of the rows with sound of what a speech tower gave, zeros elsewhere."""
        return put_rows(self.audio_projection(pooled[sounding]), sounding, len(pooled))

    def _fused(self, embeds: dict[str, Tensor], sounding: Tensor | None) -> dict[str, Tensor]:
        """Fused embeddings of the video with what else is there (eq. 1-2)."""
        fused: dict[str, Tensor] = {}
        if not self.config.use_contrastive_loss or "video_embeds" not in embeds:
            return fused
        video = embeds["video_embeds"]
        if "audio_embeds" in embeds:
            of_sounding = self.audio_fusion(embeds["audio_embeds"][sounding], video[sounding])
            fused["video_audio_embeds"] = put_rows(of_sounding, sounding, len(video))
        if "image_embeds" in embeds:
            fused["video_image_embeds"] = self.image_fusion(embeds["image_embeds"], video)
        return fused

    def _in_similarity_space(self, embeds: dict[str, Tensor], sounding: Tensor | None) -> dict[str, Tensor]:
        """Similarity embeddings of what is there (eq. 8-10).

        Rows without sound stay out of the audio's BatchNorm; the video's sees all rows, once for both terms.
        """
        projected: dict[str, Tensor] = {}
        if not self.config.use_similarity_loss:
            return projected
        if "video_embeds" in embeds:
            projected["video_similarity_embeds"] = self.video_similarity(embeds["video_embeds"])
        if "audio_embeds" in embeds:
            audio = embeds["audio_embeds"]
            of_sounding = self.audio_similarity(audio[sounding])
            projected["audio_similarity_embeds"] = put_rows(of_sounding, sounding, len(audio))
        if "image_embeds" in embeds:
            projected["image_similarity_embeds"] = self.image_similarity(embeds["image_embeds"])
        return projected

    def _fusion_parts(self, embeds: dict[str, Tensor]) -> dict[str, Tensor]:
        """What of a fused candidate is its own and what the anchor's, where anchors fuse all candidates."""
        parts: dict[str, Tensor] = {}
        if not (self.config.use_contrastive_loss and self.config.fuse_candidates_with_anchor_video):
            return parts
        for other in ("audio", "image"):
            if f"{other}_embeds" in embeds:
                fusion: ResidualFusion = getattr(self, f"{other}_fusion")
                of_both = fusion.parts(embeds[f"{other}_embeds"], embeds["video_embeds"])
                parts[f"{other}_parts"], parts[f"video_parts_with_{other}"] = of_both
        return parts


class DualRepForImageClassification(DualRepPreTrainedModel):
    """The image tower with a linear classifier; loads straight from a pretraining folder, its head new.

    Called with `pixel_values` (batch, channels, height, width) it returns `logits` (batch, num_labels), and
    `loss` where `labels` (batch,) are given.
    """

    main_input_name = "pixel_values"
    base_model_prefix = "image_model"
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
        """Scores of the classes, and with `labels` the cross-entropy.

        Args:
            pixel_values: frames, (batch, channels, height, width).
            labels: (batch,) int64, the true classes.
            output_hidden_states: return the tower's feature maps too; None: as the configuration says.

        Returns:
            `logits` (batch, num_labels), whose softmax are the probabilities; `loss`, a scalar, with labels.

        Raises:
            ValueError: frames of another shape.
        """
        features = self.image_model(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        return _classify(self, features, labels)


class DualRepForVideoClassification(DualRepPreTrainedModel):
    """The video tower with a linear classifier; loads straight from a pretraining folder, its head new.

    Called with `pixel_values_videos` (batch, frames, channels, height, width) it returns `logits`
    (batch, num_labels), and `loss` where `labels` (batch,) are given.
    `pipeline("video-classification")` reads video files with PyAV.
    """

    main_input_name = "pixel_values_videos"
    base_model_prefix = "video_model"
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
        """Scores of the classes, and with `labels` the cross-entropy.

        Args:
            pixel_values_videos: clips, (batch, frames, channels, height, width).
            labels: (batch,) int64, the true classes.
            output_hidden_states: return the tower's feature maps too; None: as the configuration says.

        Returns:
            `logits` (batch, num_labels), whose softmax are the probabilities; `loss`, a scalar, with labels.

        Raises:
            ValueError: clips of another shape.
        """
        features = self.video_model(
            pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True
        )
        return _classify(self, features, labels)


class DualRepForSaliencyPrediction(DualRepPreTrainedModel):
    """The image tower with a light decoder over its feature maps; loads straight from a pretraining folder.

    Called with `pixel_values` (batch, channels, height, width) it returns `saliency_maps`, where people look:
    probabilities (batch, height, width) that sum to 1 over a picture. In a folder of its own it is what
    AutoModel loads.
    """

    main_input_name = "pixel_values"
    base_model_prefix = "image_model"
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
            module.reset_parameters()
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
        """Maps of where people look, and with `labels` the loss `config.saliency_loss`.

        Args:
            pixel_values: frames, (batch, channels, height, width).
            labels: (batch, height, width), probability maps of where people looked, in the frames' size.
            fixation_counts: (batch, height, width), fixations in each pixel; "kld_cc_nss" needs them.

        Raises:
            ValueError: labels or counts of another size than the frames, negative or NaN, a label that does
                not sum to 1, a picture without fixations, or counts that are needed and missing.
        """
        feature_maps = self.image_model.feature_maps(pixel_values)
        log_maps = self.saliency_decoder(feature_maps, *pixel_values.shape[-2:])
        loss = None
        if labels is not None:
            loss = saliency_loss(self.config.saliency_loss, log_maps, labels, fixation_counts)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return DualRepSaliencyOutput(
            loss=loss,
            saliency_maps=log_maps.exp(),
            log_saliency_maps=log_maps,
            hidden_states=feature_maps if output_hidden_states else None,
        )


# What AutoModel chooses from: the class that config.architectures names, else the first.
AUTO_MODELS = (DualRepModel, DualRepForSaliencyPrediction)


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


__all__ = [
    "DualRepForImageClassification",
    "DualRepForSaliencyPrediction",
    "DualRepForVideoClassification",
    "DualRepModel",
    "DualRepOutput",
    "DualRepPreTrainedModel",
    "DualRepSaliencyOutput",
]
