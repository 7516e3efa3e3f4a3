"""Residual fusion against equation 1 written out, and the similarity heads."""

import pytest
import torch

from modeling_dualrep.fusion import ResidualFusion, SimilarityHead
from modeling_dualrep.losses import anchored_similarities

EXACT = {"rtol": 1e-6, "atol": 1e-6}
DIM = 4


@pytest.fixture
def fusion() -> ResidualFusion:
    torch.manual_seed(0)
    return ResidualFusion(DIM).double()


def embeds(batch: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(batch, DIM, generator=generator, dtype=torch.float64)).requires_grad_()


def fuse_by_hand(fusion: ResidualFusion, other: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
    """Equation 1 for one pair: F_a + W [F_a / |F_a| ; F_v / |F_v|] + b."""
    directions = torch.cat([other / other.square().sum().sqrt(), video / video.square().sum().sqrt()])
    return other + fusion.projection.weight @ directions + fusion.projection.bias


def test_fusion_is_equation_1(fusion: ResidualFusion) -> None:
    other, video = embeds(3, seed=1), embeds(3, seed=2)
    by_hand = torch.stack([fuse_by_hand(fusion, *pair) for pair in zip(other, video, strict=True)])
    torch.testing.assert_close(fusion(other, video), by_hand, **EXACT)
    tensors = (other, video, *fusion.parameters())
    weights = embeds(3, seed=3).detach()
    ours = torch.autograd.grad((fusion(other, video) * weights).sum(), tensors)
    theirs = torch.autograd.grad((by_hand * weights).sum(), tensors)
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, **EXACT)


def test_the_residual_is_the_raw_embedding_of_the_other_modality(fusion: ResidualFusion) -> None:
    """Of longer embeddings only the residual grows: what is projected is normalised."""
    other, video = embeds(3, seed=1), embeds(3, seed=2)
    torch.testing.assert_close(fusion(10 * other, video) - fusion(other, video), 9 * other)
    torch.testing.assert_close(fusion(other, 10 * video), fusion(other, video))


@pytest.mark.parametrize("batch", [2, 5])
def test_candidates_fused_with_the_anchors_video_are_explicit_pairs(
    fusion: ResidualFusion, batch: int
) -> None:
    """The parts give what a tensor of (batch, batch, dim) gives, value and gradient."""
    other, video = embeds(batch, seed=1), embeds(batch, seed=2)
    rows = []
    for k in range(batch):
        candidates = [fuse_by_hand(fusion, other[j], video[k]) for j in range(batch)]
        rows.append(torch.cosine_similarity(video[k][None], torch.stack(candidates)))
    explicit = torch.stack(rows)
    other_parts, video_parts = fusion.parts(other, video)
    similarities = anchored_similarities(video, video_parts, other_parts)
    torch.testing.assert_close(similarities, explicit, **EXACT)
    tensors = (other, video, *fusion.parameters())
    weights = torch.linspace(-1, 2, batch**2, dtype=torch.float64).view(batch, batch)
    ours = torch.autograd.grad((similarities * weights).sum(), tensors)
    theirs = torch.autograd.grad((explicit * weights).sum(), tensors)
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, **EXACT)


def test_a_similarity_head_standardises_over_the_batch() -> None:
    """In training with its fresh weights: mean 0, variance 1 of each column (eq. 8-10)."""
    head = SimilarityHead(DIM).double()
    rows = embeds(6, seed=1)
    projected = rows @ head.linear.weight.T + head.linear.bias
    expected = (projected - projected.mean(0)) / (projected.var(0, unbiased=False) + head.norm.eps).sqrt()
    torch.testing.assert_close(head(rows), expected)


@pytest.mark.parametrize("batch", [0, 1])
def test_a_single_row_in_training_takes_the_running_statistics(batch: int) -> None:
    head = SimilarityHead(DIM).double()
    torch.nn.init.normal_(head.norm.running_mean)
    torch.nn.init.uniform_(head.norm.running_var, 1, 2)
    statistics = {name: value.clone() for name, value in head.norm.named_buffers()}
    output = head(embeds(batch, seed=1))
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert all(torch.equal(value, statistics[name]) for name, value in head.norm.named_buffers())
    torch.testing.assert_close(output, head.eval()(embeds(batch, seed=1)))
