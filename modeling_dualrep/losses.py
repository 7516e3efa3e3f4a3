"""Equations 3-6 and 11-12 of Gridach et al., 2024, as plain functions of tensors.

Readings of the paper: equations 3-6 leave the positive out of the denominator, so that loss may be negative;
equation 11 is printed garbled and is read like equation 12. All similarities are cosines, computed in float32
at least whatever the precision around them, so that a temperature of 0.01 overflows nothing.

Memory grows linearly with the batch: similarities are computed for `ROWS_AT_A_TIME` anchors at a time, and
once more in the backward pass; and a process may take as anchors only its own rows of a larger batch
(`contrastive_share`, `anchored_contrastive_share`, `ranking_share`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

# With 32,768 candidates, the similarities of so many anchors take 128 MiB in float32.
ROWS_AT_A_TIME = 1024


def contrastive_loss(
    anchors: Tensor, candidates: Tensor, temperature: float = 0.1, clip_groups: Tensor | None = None
) -> Tensor:
    """Contrastive loss of one direction (eq. 3-6).

    The mean over i of -log(exp(s_ii / t) / sum over j != i of exp(s_ij / t)), where s_ij is the cosine of
    anchor i and candidate j.

    Args:
        anchors, candidates: (batch, dim); row i of the one belongs to row i of the other.
        temperature: t.
        clip_groups: (batch,) int64; rows of one group are no negatives of each other. With all rows in one
            group there are no negatives, and the loss is zero. None: every row is a group of its own.

    Returns:
        A scalar; it may be negative, since the positive is not in the denominator.

    Raises:
        ValueError: fewer than two rows, or unequal shapes.
    """
    _require_pairs(anchors, candidates)
    negatives = Negatives.of_batch(len(anchors), anchors.device, clip_groups)
    return contrastive_share(anchors, candidates, negatives, temperature)


def triplet_ranking_loss(
    video: Tensor,
    other: Tensor,
    margin: float = 0.2,
    negatives: str = "hardest",
    clip_groups: Tensor | None = None,
) -> Tensor:
    """Triplet ranking loss of both directions (eq. 11-12).

    The mean over i of [m - s_ii + s_in]_+ + [m - s_ii + s_ni]_+, where s_ij is the cosine of video i and
    other j, and n is the hardest negative of the direction: the one most similar to its anchor.

    Args:
        video, other: (batch, dim); row i of the one belongs to row i of the other.
        margin: m.
        negatives: "hardest", or "mean": the mean of the hinge over all negatives of the direction.
        clip_groups: as in `contrastive_loss`.

    Raises:
        ValueError: fewer than two rows, unequal shapes, or another word for `negatives`.
    """
    _require_pairs(video, other)
    pairs = Negatives.of_batch(len(video), video.device, clip_groups)
    return ranking_share(video, other, pairs, margin, negatives) + ranking_share(
        other, video, pairs, margin, negatives
    )


@dataclass(frozen=True)
class Negatives:
    """Which rows of a batch are negatives of which anchors: those that take part, of another group.

    So the anchors that take part have negatives all of them or, where all are of one group, none of them. In
    the latter case they add nothing, and the loss is zero.

    Args:
        groups: (batch,) int64; the batch may be spread over several processes.
        takes_part: (batch,) bool; the others are neither anchors nor negatives.
        first_anchor: where in the batch the anchors begin; they are the rows from there on.
    """

    groups: Tensor
    takes_part: Tensor
    first_anchor: int = 0

    @classmethod
    def of_batch(
        cls, batch: int, device: torch.device, clip_groups: Tensor | None = None, first_anchor: int = 0
    ) -> "Negatives":
        """All rows take part, and without `clip_groups` each is a group of its own.

        Raises:
            ValueError: `clip_groups` is not (batch,).
        """
        groups = torch.arange(batch, device=device) if clip_groups is None else clip_groups.to(device)
        if groups.shape != (batch,):
            raise ValueError(
                f"clip_groups has shape {tuple(groups.shape)}, but must have one value a clip: ({batch},)."
            )
        return cls(groups, torch.ones(batch, dtype=torch.bool, device=device), first_anchor)

    def of_anchors(self, start: int, stop: int) -> Tensor:
        """For anchors `start` to `stop`, counted from the first: (anchors, batch) bool."""
        own = slice(self.first_anchor + start, self.first_anchor + stop)
        return (self.groups[own, None] != self.groups[None]) & self.takes_part[None]

    def counted_anchors(self, start: int, stop: int) -> Tensor:
        """Which of anchors `start` to `stop` take part and have negatives: (anchors,) bool."""
        own = slice(self.first_anchor + start, self.first_anchor + stop)
        limits = torch.iinfo(self.groups.dtype)
        least = self.groups.masked_fill(~self.takes_part, limits.max).amin()
        greatest = self.groups.masked_fill(~self.takes_part, limits.min).amax()
        return self.takes_part[own] & (least < greatest)


def contrastive_share(
    anchors: Tensor, candidates: Tensor, negatives: Negatives, temperature: float
) -> Tensor:
    """What some rows of a batch, as anchors, add to its `contrastive_loss`.

    Args:
        anchors: (anchors, dim).
        candidates: of the whole batch, (batch, dim).
        negatives: which of them are negatives of which anchors.
        temperature: t of eq. 3.
    """
    of_rows = partial(_contrastive_losses, temperature=temperature)
    return _share_of_mean(of_rows, cosine_similarities, (anchors,), candidates, negatives)


def anchored_contrastive_share(
    video: Tensor, video_parts: Tensor, other_parts: Tensor, negatives: Negatives, temperature: float
) -> Tensor:
    """`contrastive_share` where every candidate is fused with the anchor's own video (eq. 4 and 6).

    Args:
        video, video_parts: of the anchors, (anchors, dim); see `anchored_similarities`.
        other_parts: of the whole batch, (batch, dim).
        negatives, temperature: as in `contrastive_share`.
    """
    of_rows = partial(_contrastive_losses, temperature=temperature)
    return _share_of_mean(of_rows, anchored_similarities, (video, video_parts), other_parts, negatives)


def ranking_share(
    anchors: Tensor, candidates: Tensor, negatives: Negatives, margin: float, kind: str
) -> Tensor:
    """What some rows of a batch, as anchors, add to one direction of its `triplet_ranking_loss`.

    Args:
        anchors: (anchors, dim).
        candidates: of the whole batch, (batch, dim).
        negatives: as in `contrastive_share`.
        margin: m of eq. 11-12.
        kind: "hardest" or "mean".

    Raises:
        ValueError: another word for `kind`.
    """
    if kind not in ("hardest", "mean"):
        raise ValueError(f"negatives is {kind!r}, but must be 'hardest' or 'mean'.")
    of_rows = partial(_ranking_losses, margin=margin, kind=kind)
    return _share_of_mean(of_rows, cosine_similarities, (anchors,), candidates, negatives)


def cosine_similarities(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines of every row of the one, (rows, dim), with every row of the other: (rows, columns)."""
    with torch.autocast(rows.device.type, enabled=False):
        return normalize(_precise(rows), dim=1) @ normalize(_precise(columns), dim=1).T


def anchored_similarities(video: Tensor, video_parts: Tensor, other_parts: Tensor) -> Tensor:
    """Cosines of video k with candidate j fused with video k, for all pairs: (anchors, candidates).

    Candidate j for anchor k is A_j + V_k, the two parts of `ResidualFusion.parts`. Its product with the
    anchor and its norm follow from products of matrices, so no tensor of (anchors, candidates, dim) is made.

    Args:
        video: embeddings of the anchors, (anchors, dim).
        video_parts: V, (anchors, dim).
        other_parts: A, (candidates, dim).
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


def _share_of_mean(
    losses_of_rows: Callable[[Tensor, Tensor, Tensor], Tensor],
    similarities_of: Callable[..., Tensor],
    anchors: tuple[Tensor, ...],
    candidates: Tensor,
    negatives: Negatives,
) -> Tensor:
    """The sum of the anchors' losses over the number of rows that take part in the whole batch."""

    def sum_of_block(start: int, candidates: Tensor, *anchors: Tensor) -> Tensor:
        similarities = similarities_of(*anchors, candidates)
        stop = start + len(similarities)
        positives = similarities.diagonal(negatives.first_anchor + start)
        losses = losses_of_rows(similarities, positives, negatives.of_anchors(start, stop))
        return losses.masked_fill(~negatives.counted_anchors(start, stop), 0.0).sum()

    blocks = list(zip(*(tensor.split(ROWS_AT_A_TIME) for tensor in anchors), strict=True))
    if len(blocks) == 1:
        total = sum_of_block(0, candidates, *anchors)
    else:
        run = partial(checkpoint, sum_of_block, use_reentrant=False, preserve_rng_state=False)
        total = sum(run(i * ROWS_AT_A_TIME, candidates, *blocks[i]) for i in range(len(blocks)))
    return total / negatives.takes_part.sum().clamp_min(1)


def _contrastive_losses(
    similarities: Tensor, positives: Tensor, is_negative: Tensor, temperature: float
) -> Tensor:
    of_negatives = (similarities / temperature).masked_fill(~is_negative, -torch.inf).logsumexp(dim=1)
    return of_negatives - positives / temperature


def _ranking_losses(
    similarities: Tensor, positives: Tensor, is_negative: Tensor, margin: float, kind: str
) -> Tensor:
    hinges = (margin - positives[:, None] + similarities).relu().masked_fill(~is_negative, 0.0)
    # The hinge grows with the similarity, so the hardest negative is the one with the largest hinge.
    return (
        hinges.amax(dim=1) if kind == "hardest" else hinges.sum(dim=1) / is_negative.sum(dim=1).clamp_min(1)
    )


def _precise(embeds: Tensor) -> Tensor:
    return embeds.to(torch.promote_types(embeds.dtype, torch.float32))


def _require_pairs(anchors: Tensor, candidates: Tensor) -> None:
    if anchors.shape != candidates.shape or anchors.ndim != 2:
        raise ValueError(
            f"Both embeddings must be (batch, dim) of one shape, but they are {tuple(anchors.shape)} and "
            f"{tuple(candidates.shape)}."
        )
    if len(anchors) < 2:
        raise ValueError(
            f"A contrastive or triplet loss needs at least two rows, but got {len(anchors)}: "
            "the other rows of the batch are the negatives. Make the batch larger."
        )
