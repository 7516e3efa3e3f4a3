"""The pretraining objective (eq. 13), from the embeddings of a batch to its weighted terms.

Every process takes its own clips as anchors and those of all processes as candidates, so it holds its own
rows of each similarity matrix only.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from .configuration_dualrep import DualRepConfig
from .distributed import gather_rows, process_count, process_index, sum_over_processes
from .losses import Negatives, anchored_contrastive_share, contrastive_share, ranking_share


def objective_terms(
    config: DualRepConfig,
    embeds: dict[str, Tensor],
    has_sound: Tensor | None,
    clip_groups: Tensor | None,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The weighted terms over the clips of all processes, and how many of these have sound.

    Args:
        config: which losses there are, with their weights, temperature and margin.
        embeds: of this process' clips by the names of `DualRepOutput`, each (clips, projection_dim); where
            candidates are fused with the anchor's video, also the parts of `ResidualFusion.parts`: by the
            names `audio_parts` and `video_parts_with_audio`, and so of the image.
        has_sound: (clips,) bool; None without audio. With fewer than two clips with sound in all, the audio
            terms are zero.
        clip_groups: (clips,) int64; clips of one group are no negatives of each other. A term all of whose
            clips are of one group is zero. None: every clip is a group of its own.

    Raises:
        ValueError: the processes hold batches of different sizes, or `clip_groups` is not (clips,).
    """
    others = [name for name in ("audio", "image") if getattr(config, f"use_{name}")]
    video = embeds["video_embeds"]
    masks = {"has_sound": has_sound, "clip_groups": clip_groups}
    candidates = gather_rows(
        {name: embeds[name] for name in _candidate_names(config, others)}
        | {
            name: values.to(video.device, non_blocking=True)
            for name, values in masks.items()
            if values is not None
        }
    )
    negatives = _negatives_of(candidates, video)
    shares: dict[str, Tensor] = {}
    for other in others:
        shares |= _shares_with(other, embeds, candidates, negatives[other], config)
    terms = dict(zip(shares, sum_over_processes(torch.stack(tuple(shares.values()))), strict=True))
    return terms, candidates["has_sound"].sum() if has_sound is not None else None


def _candidate_names(config: DualRepConfig, others: list[str]) -> list[str]:
    """The embeddings that are candidates of clips of other processes."""
    names: list[str] = []
    for other in others:
        if config.use_contrastive_loss:
            anchored = config.fuse_candidates_with_anchor_video
            names += [f"{other}_embeds", f"{other}_parts" if anchored else f"video_{other}_embeds"]
        if config.use_similarity_loss:
            names.append(f"{other}_similarity_embeds")
    return [*names, "video_similarity_embeds"] if config.use_similarity_loss else names


def _negatives_of(candidates: dict[str, Tensor], video: Tensor) -> dict[str, Negatives]:
    """The negatives by other modality: clips without sound take no part in the terms of the audio."""
    first_clip = process_index() * len(video)
    groups = candidates.get("clip_groups")
    of_all = Negatives.of_batch(process_count() * len(video), video.device, groups, first_clip)
    if "has_sound" not in candidates:
        return {"image": of_all}
    return {"image": of_all, "audio": replace(of_all, takes_part=candidates["has_sound"])}


def _shares_with(
    other: str,
    embeds: dict[str, Tensor],
    candidates: dict[str, Tensor],
    negatives: Negatives,
    config: DualRepConfig,
) -> dict[str, Tensor]:
    """What this process' clips add to the weighted terms of the video with one other modality."""
    weight = getattr(config, f"{other}_loss_weight")
    both = config.use_contrastive_loss and config.use_similarity_loss
    shares: dict[str, Tensor] = {}
    if config.use_contrastive_loss:
        factor = weight * (config.contrastive_balance if both else 1.0)
        video, options = embeds["video_embeds"], {"negatives": negatives, "temperature": config.temperature}
        if config.fuse_candidates_with_anchor_video:
            parts = embeds[f"video_parts_with_{other}"], candidates[f"{other}_parts"]
            fused = anchored_contrastive_share(video, *parts, **options)
        else:
            fused = contrastive_share(video, candidates[f"video_{other}_embeds"], **options)
        plain = contrastive_share(video, candidates[f"{other}_embeds"], **options)
        shares[f"video_{other}_contrastive"] = factor * plain
        shares[f"fused_video_{other}_contrastive"] = factor * fused
    if config.use_similarity_loss:
        factor = weight * (1 - config.contrastive_balance if both else 1.0)
        ranking = partial(ranking_share, negatives=negatives, margin=config.margin, kind=config.negatives)
        names = "video_similarity_embeds", f"{other}_similarity_embeds"
        by_video, by_other = (ranking(embeds[a], candidates[b]) for a, b in (names, names[::-1]))
        shares[f"video_{other}_similarity"] = factor * (by_video + by_other)
    return shares
