"""What the models return that transformers has no output for."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


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
        saliency_maps: (batch, height, width) at the input's resolution; each is non-negative and sums to 1.
        log_saliency_maps: their logarithms, finite where a probability is too small for its type.
        hidden_states: the image tower's feature maps, finest first, if asked for.
    """

    loss: Tensor | None = None
    saliency_maps: Tensor | None = None
    log_saliency_maps: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


__all__ = ["DualRepOutput", "DualRepSaliencyOutput"]
