"""The pretraining objective (eq. 13), from the embeddings of a batch to its weighted terms."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from .configuration_dualrep import DualRepConfig
from .fusion import ResidualFusion
from .losses import (
    anchored_similarities,
    contrastive_loss,
    contrastive_loss_of_similarities,
    triplet_ranking_loss,
)


def objective_terms(
    other: str, rows: dict[str, Tensor], config: DualRepConfig, fusion: ResidualFusion | None
) -> dict[str, Tensor]:
    """The weighted terms of the video with one other modality: zeros for fewer than two rows.

    Args:
        other: "audio" or "image".
        rows: the embeddings by the names of `DualRepOutput`, each (clips, projection_dim).
        config: which losses there are, with their weights, temperature and margin.
        fusion: of the other modality with the video, None without contrastive losses.
    """
    weight = getattr(config, f"{other}_loss_weight")
    both = config.use_contrastive_loss and config.use_similarity_loss
    terms: dict[str, Tensor] = {}
    if config.use_contrastive_loss:
        share = weight * (config.contrastive_balance if both else 1.0)
        contrastive = partial(contrastive_loss, temperature=config.temperature)
        anchored = partial(_anchored_contrastive_loss, temperature=config.temperature)
        video, embeds, fused = (rows[f"{name}_embeds"] for name in ("video", other, f"video_{other}"))
        if config.fuse_candidates_with_anchor_video:
            fused_loss = _loss_or_zero(anchored, video, *fusion.parts(embeds, video))
        else:
            fused_loss = _loss_or_zero(contrastive, video, fused)
        terms[f"video_{other}_contrastive"] = share * _loss_or_zero(contrastive, video, embeds)
        terms[f"fused_video_{other}_contrastive"] = share * fused_loss
    if config.use_similarity_loss:
        share = weight * (1 - config.contrastive_balance if both else 1.0)
        ranking = partial(triplet_ranking_loss, margin=config.margin, negatives=config.negatives)
        spaces = (rows[f"{name}_similarity_embeds"] for name in ("video", other))
        terms[f"video_{other}_similarity"] = share * _loss_or_zero(ranking, *spaces)
    return terms


def zero_of(*tensors: Tensor) -> Tensor:
    """Zero, on which the tensors have a gradient of zero."""
    return sum(tensor[:0].sum() for tensor in tensors)


def _anchored_contrastive_loss(
    video: Tensor, other_parts: Tensor, video_parts: Tensor, temperature: float
) -> Tensor:
    """Eq. 4 and 6 with every candidate fused with the anchor's own video."""
    similarities = anchored_similarities(video, other_parts, video_parts)
    return contrastive_loss_of_similarities(similarities, temperature)


def _loss_or_zero(loss: Callable[..., Tensor], *embeds: Tensor) -> Tensor:
    """`loss(*embeds)`, or zero where there are no negatives."""
    return loss(*embeds) if len(embeds[0]) >= 2 else zero_of(*embeds)
