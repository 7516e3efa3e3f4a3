"""Equations 3-6 and 11-12 of Gridach et al., 2024, as plain functions of tensors.

Readings of the paper: equations 3-6 leave the positive out of the denominator, so that loss may be negative;
equation 11 is printed garbled and is read like equation 12. All similarities are cosines, computed in float32
at least whatever the precision around them, so that a temperature of 0.01 overflows nothing.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def contrastive_loss(anchors: Tensor, candidates: Tensor, temperature: float = 0.1) -> Tensor:
    """Contrastive loss of one direction (eq. 3-6).

    The mean over i of -log(exp(s_ii / t) / sum over j != i of exp(s_ij / t)), where s_ij is the cosine of
    anchor i and candidate j.

    Args:
        anchors, candidates: (batch, dim); row i of the one belongs to row i of the other.
        temperature: t.

    Returns:
        A scalar; it may be negative, since the positive is not in the denominator.

    Raises:
        ValueError: fewer than two rows, or unequal shapes.
    """
    return contrastive_loss_of_similarities(cosine_similarities(anchors, candidates), temperature)


def contrastive_loss_of_similarities(similarities: Tensor, temperature: float = 0.1) -> Tensor:
    """`contrastive_loss` of similarities (anchors, candidates), the positives on the diagonal."""
    _require_negatives(similarities)
    logits = similarities / temperature
    is_positive = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    of_negatives = logits.masked_fill(is_positive, -torch.inf).logsumexp(dim=1)
    return (of_negatives - logits.diagonal()).mean()


def triplet_ranking_loss(
    video: Tensor, other: Tensor, margin: float = 0.2, negatives: str = "hardest"
) -> Tensor:
    """Triplet ranking loss of both directions (eq. 11-12).

    The mean over i of [m - s_ii + s_in]_+ + [m - s_ii + s_ni]_+, where s_ij is the cosine of video i and
    other j, and n is the hardest negative of the direction: the one most similar to its anchor.

    Args:
        video, other: (batch, dim); row i of the one belongs to row i of the other.
        margin: m.
        negatives: "hardest", or "mean": the mean of the hinge over all negatives of the direction.

    Raises:
        ValueError: fewer than two rows, unequal shapes, or another word for `negatives`.
    """
    if negatives not in ("hardest", "mean"):
        raise ValueError(f"negatives is {negatives!r}, but must be 'hardest' or 'mean'.")
    similarities = cosine_similarities(video, other)
    _require_negatives(similarities)
    is_positive = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    positives = similarities.diagonal()
    loss = similarities.new_zeros(())
    for of_anchors in (similarities, similarities.T):
        hinges = (margin - positives[:, None] + of_anchors).relu().masked_fill(is_positive, 0.0)
        # The hinge grows with the similarity, so the hardest negative is the one with the largest hinge.
        of_anchor = hinges.amax(dim=1) if negatives == "hardest" else hinges.sum(dim=1) / (len(hinges) - 1)
        loss = loss + of_anchor.mean()
    return loss


def cosine_similarities(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines of every row of the one with every row of the other, both (batch, dim): (batch, batch).

    Raises:
        ValueError: unequal shapes.
    """
    if rows.shape != columns.shape or rows.ndim != 2:
        raise ValueError(
            f"Both embeddings must be (batch, dim) of one shape, but they are {tuple(rows.shape)} and "
            f"{tuple(columns.shape)}."
        )
    with torch.autocast(rows.device.type, enabled=False):
        return normalize(_precise(rows), dim=1) @ normalize(_precise(columns), dim=1).T


def anchored_similarities(video: Tensor, other_parts: Tensor, video_parts: Tensor) -> Tensor:
    """Cosines of video k with candidate j fused with video k, for all pairs: (batch, batch).

    Candidate j for anchor k is A_j + V_k, the two parts of `ResidualFusion.parts`. Its product with the
    anchor and its norm follow from products of matrices, so no tensor of (batch, batch, dim) is made.

    Args:
        video: embeddings of the anchors, (batch, dim).
        other_parts, video_parts: A and V, (batch, dim).
    """
    with torch.autocast(video.device.type, enabled=False):
        anchors = normalize(_precise(video), dim=1)
        others, videos = _precise(other_parts), _precise(video_parts)
        products = anchors @ others.T + (anchors * videos).sum(dim=1, keepdim=True)
        squares = others.square().sum(dim=1) + videos.square().sum(dim=1, keepdim=True)
        squared_norms = squares + 2 * videos @ others.T
        # Where A_j and V_k cancel out, what is left is rounding, of either sign.
        limits = torch.finfo(others.dtype)
        return products / squared_norms.clamp(min=limits.eps * squares).clamp_min(limits.tiny).sqrt()


def _precise(embeds: Tensor) -> Tensor:
    return embeds.to(torch.promote_types(embeds.dtype, torch.float32))


def _require_negatives(similarities: Tensor) -> None:
    if len(similarities) < 2:
        raise ValueError(
            f"A contrastive or triplet loss needs at least two rows, but got {len(similarities)}: "
            "the other rows of the batch are the negatives. Make the batch larger."
        )
