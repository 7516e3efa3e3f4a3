"""Residual fusion (eq. 1-2) and the similarity heads (section 2.3) of Gridach et al., 2024."""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, linear, normalize


class ResidualFusion(nn.Module):
    """Video with another modality (eq. 1-2): F_vo = F_o + W [F_o / |F_o| ; F_v / |F_v|] + b.

    What is concatenated is L2-normalised, and its linear projection is added to the raw embedding of the
    other modality, as in the method's public ancestor (compositional contrastive learning, Chen et al., CVPR
    2021).

    Args:
        dim: size of the embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(2 * dim, dim)

    def forward(self, other: Tensor, video: Tensor) -> Tensor:
        """Fused embeddings (batch, dim) of `other` and `video`, both (batch, dim)."""
        directions = torch.cat([normalize(other, dim=1), normalize(video, dim=1)], dim=1)
        return other + self.projection(directions)

    def parts(self, other: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """What `other` and what `video` add to the fused embedding, each (batch, dim).

        The projection is linear, so the fused embedding is their sum, and that of any row of `other` with any
        row of `video` is the sum of the two rows.
        """
        of_other, of_video = self.projection.weight.chunk(2, dim=1)
        other_part = other + linear(normalize(other, dim=1), of_other, self.projection.bias)
        return other_part, linear(normalize(video, dim=1), of_video)


class SimilarityHead(nn.Module):
    """One fully connected layer and BatchNorm (eq. 8-10): the space of the triplet ranking losses.

    Args:
        dim: size of the embeddings.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, embeds: Tensor) -> Tensor:
        """(batch, dim) to the same.

        In training a single row, which has no statistics of its own, is normalised with the running ones.
        """
        embeds = self.linear(embeds)
        if len(embeds) > 1:
            return self.norm(embeds)
        norm = self.norm
        return batch_norm(
            embeds, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )


__all__ = ["ResidualFusion", "SimilarityHead"]
