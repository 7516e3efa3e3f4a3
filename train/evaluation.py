"""Embeds a gallery of held-out clips and measures retrieval and collapse on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BatchFeature

from train.retrieval import (
    RECALL_AT,
    alignment,
    chance_recall,
    effective_rank,
    positive_ranks,
    recall,
    uniformity,
)
from train.score_intervals import HIGH, LOW, recall_intervals


@dataclass(frozen=True)
class GalleryEmbeddings:
    """Embeddings of the gallery's clips, one row a clip, on the CPU.

    Args:
        clip_ids: the clips.
        video, audio, image: (clips, features); audio rows without sound hold nothing to use.
        has_sound: (clips,) bool.
    """

    clip_ids: list[str]
    video: Tensor
    audio: Tensor | None
    image: Tensor | None
    has_sound: Tensor


def embed_gallery(
    model: nn.Module, batches: Iterable[tuple[list[str], BatchFeature]], device: torch.device
) -> GalleryEmbeddings:
    """Embeddings in the space that retrieval searches: the projected ones, which the contrastive losses
    compare; without these losses, those of the similarity heads.
    """
    was_training = model.training
    model.eval()
    suffix = "embeds" if model.config.use_contrastive_loss else "similarity_embeds"
    clip_ids: list[str] = []
    parts: dict[str, list[Tensor]] = {"video": [], "audio": [], "image": [], "has_sound": []}
    with torch.inference_mode():
        for ids, batch in batches:
            clip_ids += ids
            outputs = model(**batch.to(device))
            for name in ("video", "audio", "image"):
                embeds = getattr(outputs, f"{name}_{suffix}")
                if embeds is not None:
                    parts[name].append(embeds.float().cpu())
            silent = torch.zeros(len(ids), dtype=torch.bool)
            parts["has_sound"].append(batch["audio_mask"].cpu() if "audio_mask" in batch else silent)
    model.train(was_training)
    joined = {name: torch.cat(of_batches) if of_batches else None for name, of_batches in parts.items()}
    return GalleryEmbeddings(clip_ids, **joined)


def measure(gallery: GalleryEmbeddings, scan_ids: Sequence[str] | None = None) -> dict[str, float]:
    """Recall of speech and of frames to videos beside chance, and the signs of collapse, by name.

    Queries without sound are left out; every video stays a candidate.

    Args:
        gallery: the clips.
        scan_ids: (clips,) their scans, for the 95% interval of each recall, `<name>_low` and `<name>_high`;
            None, or fewer than two scans with queries: without intervals.
    """
    clips = len(gallery.clip_ids)
    metrics = {"gallery_clips": float(clips)}
    metrics |= {f"chance_recall_at_{k}": chance_recall(k, clips) for k in RECALL_AT}
    rows, scans = torch.arange(clips), None if scan_ids is None else np.array(scan_ids)
    if gallery.image is not None:
        metrics |= _pair_metrics("image", gallery.image, gallery.video, rows, scans)
    if gallery.audio is not None and gallery.has_sound.sum() >= 2:
        sounding = rows[gallery.has_sound]
        metrics |= _pair_metrics("speech", gallery.audio[sounding], gallery.video, sounding, scans)
    metrics["video_uniformity"] = uniformity(gallery.video)
    metrics["video_effective_rank"] = effective_rank(gallery.video)
    return metrics


def _pair_metrics(
    name: str, queries: Tensor, videos: Tensor, own: Tensor, scans: np.ndarray | None
) -> dict[str, float]:
    ranks = positive_ranks(queries, videos, own)
    metrics = {f"{name}_to_video_recall_at_{k}": share for k, share in recall(ranks).items()}
    if scans is not None:
        for k, interval in recall_intervals(ranks.numpy(), scans[own.numpy()]).items():
            metrics |= {
                f"{name}_to_video_recall_at_{k}_{end}": value
                for end, value in zip((LOW, HIGH), interval, strict=True)
            }
    metrics[f"{name}_to_video_median_rank"] = ranks.double().median().item()
    metrics[f"{name}_video_alignment"] = alignment(queries, videos[own])
    metrics[f"{name}_uniformity"] = uniformity(queries)
    metrics[f"{name}_effective_rank"] = effective_rank(queries)
    return metrics
