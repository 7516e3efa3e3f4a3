"""The losses against float64 loops written from the paper, and what they must never do."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_dualrep.losses import (
    Negatives,
    anchored_contrastive_share,
    anchored_similarities,
    contrastive_loss,
    contrastive_share,
    ranking_share,
    triplet_ranking_loss,
)

EXACT = {"rtol": 1e-6, "atol": 1e-6}


def rows(batch: int, dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def contrastive_by_loops(anchors, candidates, temperature, groups=None):
    """Equation 3: -log of exp(positive) over the sum of exp(negatives); the positive is not among these."""
    groups, total = groups or range(len(anchors)), 0
    for i in range(len(anchors)):
        positive = torch.exp(cosine(anchors[i], candidates[i]) / temperature)
        negatives = 0
        for j in range(len(candidates)):
            if groups[j] != groups[i]:
                negatives = negatives + torch.exp(cosine(anchors[i], candidates[j]) / temperature)
        total = total - torch.log(positive / negatives)
    return total / len(anchors)


def ranking_by_loops(video, other, margin, negatives, groups=None):
    """Equation 12, for each direction: the hinge of the hardest negative, or the mean of all hinges."""
    batch, total = len(video), 0
    groups = groups or range(batch)
    for i in range(batch):
        positive = cosine(video[i], other[i])
        others = [j for j in range(batch) if groups[j] != groups[i]]
        for similarities in (
            [cosine(video[i], other[j]) for j in others],
            [cosine(video[j], other[i]) for j in others],
        ):
            if negatives == "hardest":
                hinge = margin - positive + max(similarities)
                total = total + (hinge if hinge > 0 else 0)
            else:
                for similarity in similarities:
                    hinge = margin - positive + similarity
                    total = total + (hinge if hinge > 0 else 0) / len(others)
    return total / batch


def assert_same_value_and_gradient(loss, reference, tensors) -> None:
    torch.testing.assert_close(loss, reference, **EXACT)
    ours = torch.autograd.grad(loss, tensors, retain_graph=True)
    theirs = torch.autograd.grad(reference, tensors)
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, **EXACT)


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_contrastive_loss_is_equation_3(batch: int, temperature: float) -> None:
    anchors, candidates = rows(batch), rows(batch, seed=1)
    loss = contrastive_loss(anchors, candidates, temperature)
    reference = contrastive_by_loops(anchors, candidates, temperature)
    assert_same_value_and_gradient(loss, reference, (anchors, candidates))


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize("negatives", ["hardest", "mean"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 2.0])
def test_triplet_ranking_loss_is_equation_12(batch: int, negatives: str, margin: float) -> None:
    video, other = rows(batch), rows(batch, seed=5)
    loss = triplet_ranking_loss(video, other, margin, negatives)
    reference = ranking_by_loops(video, other, margin, negatives)
    assert loss > 0
    assert_same_value_and_gradient(loss, reference, (video, other))


def test_the_defaults_are_the_papers() -> None:
    video, other = rows(4), rows(4, seed=1)
    torch.testing.assert_close(contrastive_loss(video, other), contrastive_by_loops(video, other, 0.1))
    torch.testing.assert_close(
        triplet_ranking_loss(video, other), ranking_by_loops(video, other, 0.2, "hardest")
    )


def test_the_positive_is_not_in_the_denominator() -> None:
    """Of two orthogonal pairs the loss is -log(e^(1/t) / e^0) = -1 / t, below zero."""
    pairs = torch.eye(2, dtype=torch.float64)
    assert contrastive_loss(pairs, pairs, 0.1).item() == pytest.approx(-10)
    assert contrastive_loss(pairs, -pairs, 0.1).item() == pytest.approx(10)


def test_hardest_negatives_by_hand() -> None:
    """Video 0 lies between both others, at 45 degrees, and video 1 on other 1."""
    video = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    other = torch.eye(2, dtype=torch.float64)
    at_45_degrees = math.sqrt(0.5)
    by_anchor_video = 0.2 + 0
    by_anchor_other = 0 + max(0, 0.2 - 1 + at_45_degrees)
    expected = (by_anchor_video + by_anchor_other) / 2
    assert triplet_ranking_loss(video, other, 0.2).item() == pytest.approx(expected)


def test_the_contrastive_loss_has_a_direction() -> None:
    """A loss that uses one direction twice, or both, would not tell the two apart."""
    anchors, candidates = rows(5), rows(5, seed=1)
    forth, back = contrastive_loss(anchors, candidates), contrastive_loss(candidates, anchors)
    assert abs(forth - back) > 1e-2


@pytest.mark.parametrize("negatives", ["hardest", "mean"])
def test_the_ranking_loss_has_both_directions(negatives: str) -> None:
    """It is symmetric; and each direction counts: two others alike hurt the one and not the other."""
    video, other = rows(5), rows(5, seed=1)
    forth, back = (
        triplet_ranking_loss(*pair, negatives=negatives) for pair in ((video, other), (other, video))
    )
    torch.testing.assert_close(forth, back)
    videos = torch.eye(3, dtype=torch.float64)
    one_direction = videos.clone()
    one_direction[1] = (
        videos[0] + videos[1]
    )  # near to video 0, so hard for it as an anchor, not for the third
    loss = triplet_ranking_loss(videos, one_direction, 0.2, negatives)
    torch.testing.assert_close(loss, ranking_by_loops(videos, one_direction, 0.2, negatives))
    # Other 1 is as near to video 0 as to its own video: a hinge of 0.2. Of video 0 it is no such neighbour.
    assert loss.item() == pytest.approx(0.2 / 3 / (1 if negatives == "hardest" else 2))


@pytest.mark.parametrize(
    "loss",
    [
        contrastive_loss,
        lambda video, other: triplet_ranking_loss(video, other, margin=1.0),
        lambda video, other: triplet_ranking_loss(video, other, margin=1.0, negatives="mean"),
    ],
    ids=["contrastive", "hardest", "mean"],
)
def test_negatives_get_gradient(loss) -> None:
    """The gradient on a candidate that is a negative alone: the loss of one anchor, not of the others."""
    anchors, candidates = rows(4), rows(4, seed=1)
    similarity_gradients = torch.autograd.functional.jacobian(
        lambda other: loss(anchors.detach(), other), candidates.detach()
    )
    assert (similarity_gradients.norm(dim=1) > 1e-3).all()
    # Of anchor 0 alone, all but candidate 0 are negatives alone.
    of_anchor = torch.autograd.functional.jacobian(
        lambda other: contrastive_share(
            anchors[:1].detach(), other, Negatives.of_batch(4, other.device), temperature=1.0
        ),
        candidates.detach(),
    )
    assert (of_anchor.norm(dim=1) > 1e-4).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_half_precision_overflows_nothing_at_temperature_one_hundredth(
    dtype: torch.dtype, size: float
) -> None:
    video = rows(6, 64) * size
    other = video + 0.01 * size * rows(6, 64, seed=1)  # all but aligned: logits near 100
    video, other = (tensor.detach().to(dtype).requires_grad_() for tensor in (video, other))
    loss = contrastive_loss(video, other, 0.01) + triplet_ranking_loss(video, other)
    gradients = torch.autograd.grad(loss, (video, other))
    assert loss.dtype == torch.float32
    expected = contrastive_by_loops(video.double(), other.double(), 0.01)
    torch.testing.assert_close(contrastive_loss(video, other, 0.01).double(), expected, rtol=1e-4, atol=1e-3)
    assert all(gradient.isfinite().all() and gradient.dtype == dtype for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_lower_the_precision(dtype: torch.dtype) -> None:
    video, other = rows(6, 64, dtype=torch.float32), rows(6, 64, seed=1, dtype=torch.float32)
    parts = (other, rows(6, 64, seed=2, dtype=torch.float32))

    def losses() -> tuple[torch.Tensor, ...]:
        return (
            contrastive_loss(video, other, 0.01),
            triplet_ranking_loss(video, other),
            anchored_contrastive_share(video, *parts, Negatives.of_batch(6, video.device), 0.01),
        )

    with torch.autocast("cpu", dtype=dtype):
        within = losses()
    assert [loss.item() for loss in within] == [loss.item() for loss in losses()]


@settings(deadline=None, max_examples=30)
@given(scales=st.lists(st.floats(1e-3, 1e3), min_size=8, max_size=8), seed=st.integers(0, 1000))
def test_the_length_of_an_embedding_does_not_matter(scales: list[float], seed: int) -> None:
    video, other = rows(4, seed=seed).detach(), rows(4, seed=seed + 1).detach()
    scale = torch.tensor(scales, dtype=torch.float64)[:, None]
    for loss in (contrastive_loss, triplet_ranking_loss):
        torch.testing.assert_close(loss(video * scale[:4], other * scale[4:]), loss(video, other))


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(5)))
def test_the_order_of_the_clips_does_not_matter(order: list[int]) -> None:
    video, other = rows(5).detach(), rows(5, seed=1).detach()
    for loss in (contrastive_loss, triplet_ranking_loss):
        torch.testing.assert_close(loss(video[list(order)], other[list(order)]), loss(video, other))


@pytest.mark.parametrize("loss", [contrastive_loss, triplet_ranking_loss])
def test_bad_shapes_are_refused(loss) -> None:
    with pytest.raises(ValueError, match=r"at least two rows, but got 1.*larger"):
        loss(rows(1), rows(1))
    with pytest.raises(ValueError, match=r"at least two rows, but got 0"):
        loss(rows(0), rows(0))
    with pytest.raises(ValueError, match=r"of one shape, but they are \(3, 5\) and \(2, 5\)"):
        loss(rows(3), rows(2))
    with pytest.raises(ValueError, match=r"of one shape, but they are \(3, 5\) and \(3, 4\)"):
        loss(rows(3), rows(3, dim=4))


def test_an_unknown_word_for_the_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="negatives is 'hard', but must be 'hardest' or 'mean'"):
        triplet_ranking_loss(rows(3), rows(3), negatives="hard")


def test_groups_of_another_size_than_the_batch_are_refused() -> None:
    for loss in (contrastive_loss, triplet_ranking_loss):
        with pytest.raises(ValueError, match=r"clip_groups has shape \(2,\).*one value a clip: \(3,\)"):
            loss(rows(3), rows(3), clip_groups=torch.zeros(2, dtype=torch.int64))


GROUPS = [7, 3, 7, -5, 3, 9]


@pytest.mark.parametrize("negatives", ["hardest", "mean"])
def test_near_duplicates_are_no_negatives_of_each_other(negatives: str) -> None:
    video, other, groups = rows(6), rows(6, seed=1), torch.tensor(GROUPS)
    assert_same_value_and_gradient(
        contrastive_loss(video, other, clip_groups=groups),
        contrastive_by_loops(video, other, 0.1, GROUPS),
        (video, other),
    )
    assert_same_value_and_gradient(
        triplet_ranking_loss(video, other, 1.0, negatives, groups),
        ranking_by_loops(video, other, 1.0, negatives, GROUPS),
        (video, other),
    )
    assert abs(contrastive_loss(video, other, clip_groups=groups) - contrastive_loss(video, other)) > 1e-2


@pytest.mark.parametrize("negatives", ["hardest", "mean"])
def test_in_one_group_there_is_nothing_to_learn(negatives: str) -> None:
    video, other, groups = rows(3), rows(3, seed=1), torch.full((3,), 4)
    losses = (
        contrastive_loss(video, other, clip_groups=groups),
        triplet_ranking_loss(video, other, 2.0, negatives, groups),
    )
    assert [loss.item() for loss in losses] == [0, 0]
    gradients = torch.autograd.grad(sum(losses), (video, other))
    assert all((gradient == 0).all() for gradient in gradients)


def shares_of(anchors: slice, tensors: tuple[torch.Tensor, ...], pairs: Negatives) -> list[torch.Tensor]:
    """What some rows of a batch add to every loss there is."""
    video, other, parts = tensors
    return [
        contrastive_share(video[anchors], other, pairs, 0.1),
        anchored_contrastive_share(video[anchors], parts[anchors], other, pairs, 0.1),
        ranking_share(video[anchors], other, pairs, 1.0, "hardest"),
        ranking_share(other[anchors], video, pairs, 1.0, "mean"),
    ]


def assert_same_gradients(losses, references, tensors) -> None:
    for loss, reference in zip(losses, references, strict=True):
        torch.testing.assert_close(loss, reference)
        gradients = [
            torch.autograd.grad(value, tensors, retain_graph=True, materialize_grads=True)
            for value in (loss, reference)
        ]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("takes_part", [[True] * 7, [True, False, True, True, False, False, True]])
def test_the_shares_of_all_anchors_add_up_to_the_loss(takes_part: list[bool]) -> None:
    """However the anchors are spread; one process may have none that takes part."""
    tensors = rows(7), rows(7, seed=1), rows(7, seed=2)
    whole = Negatives.of_batch(7, torch.device("cpu"), torch.tensor([0, 1, 2, 0, 4, 5, 6]))
    whole = replace(whole, takes_part=torch.tensor(takes_part))
    expected = shares_of(slice(0, 7), tensors, whole)
    parts = [
        shares_of(slice(start, stop), tensors, replace(whole, first_anchor=start))
        for start, stop in ((0, 3), (3, 4), (4, 6), (6, 7))
    ]
    assert_same_gradients([sum(shares) for shares in zip(*parts, strict=True)], expected, tensors)


def test_rows_that_take_no_part_are_as_left_out() -> None:
    tensors = rows(7), rows(7, seed=1), rows(7, seed=2)
    takes_part = torch.tensor([True, False, True, True, False, False, True])
    masked = replace(Negatives.of_batch(7, takes_part.device), takes_part=takes_part)
    left = Negatives.of_batch(4, takes_part.device)
    without = shares_of(slice(0, 4), tuple(tensor[takes_part] for tensor in tensors), left)
    assert_same_gradients(shares_of(slice(0, 7), tensors, masked), without, tensors)


@pytest.mark.parametrize("takes_part", [[False] * 4, [False, True, False, False]])
def test_fewer_than_two_rows_that_take_part_add_nothing(takes_part: list[bool]) -> None:
    tensors = rows(4), rows(4, seed=1), rows(4, seed=2)
    pairs = replace(Negatives.of_batch(4, torch.device("cpu")), takes_part=torch.tensor(takes_part))
    for loss in shares_of(slice(0, 4), tensors, pairs):
        assert loss == 0
        gradients = torch.autograd.grad(loss, tensors, materialize_grads=True)
        assert all((gradient == 0).all() for gradient in gradients)


def test_a_large_batch_is_computed_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = rows(7), rows(7, seed=1), rows(7, seed=2)
    pairs = Negatives.of_batch(7, torch.device("cpu"), torch.tensor([0, 1, 2, 0, 4, 5, 6]))
    at_once = shares_of(slice(0, 7), tensors, pairs)
    monkeypatch.setattr("modeling_dualrep.losses.ROWS_AT_A_TIME", 3)
    assert_same_gradients(shares_of(slice(0, 7), tensors, pairs), at_once, tensors)


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation makes, the backward pass included."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def memory_of(batch: int, anchors: int | None = None) -> tuple[int, int]:
    """Of all losses: elements of the largest tensor, and of all that the backward pass needs kept."""
    tensors = rows(batch), rows(batch, seed=1), rows(batch, seed=2)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = shares_of(slice(0, anchors), tensors, Negatives.of_batch(batch, torch.device("cpu")))
        sum(losses).backward()
    return largest.elements, sum(kept.values())


def test_memory_grows_linearly_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one process with all rows, and of one with a fixed part of them; not so without the blocks."""
    batch, block = 128, 16
    for anchors in (batch, None):
        largest, _ = memory_of(batch, anchors)
        assert largest == batch**2
    monkeypatch.setattr("modeling_dualrep.losses.ROWS_AT_A_TIME", block)
    whole, twice = memory_of(batch), memory_of(2 * batch)
    assert whole[0] == block * batch and twice[0] == 2 * block * batch
    assert twice[1] <= 2 * whole[1] < batch**2
    part, of_twice = memory_of(batch, block), memory_of(2 * batch, block)
    assert part[0] == block * batch and of_twice[0] == 2 * block * batch
    assert of_twice[1] < 2.1 * part[1]


@pytest.mark.parametrize("batch", [2, 6])
def test_anchored_similarities_are_those_of_explicit_pairs(batch: int) -> None:
    video, video_parts, other_parts = rows(batch), rows(batch, seed=1), rows(batch, seed=2)
    tensors = (video, video_parts, other_parts)
    explicit = torch.stack(
        [
            torch.stack([cosine(video[k], other_parts[j] + video_parts[k]) for j in range(batch)])
            for k in range(batch)
        ]
    )
    similarities = anchored_similarities(*tensors)
    torch.testing.assert_close(similarities, explicit, **EXACT)
    negatives = Negatives.of_batch(batch, video.device)
    ours = anchored_contrastive_share(*tensors, negatives, 0.3)
    off_diagonal = explicit.masked_fill(torch.eye(batch, dtype=torch.bool), -torch.inf)
    by_pairs = ((off_diagonal / 0.3).logsumexp(dim=1) - explicit.diagonal() / 0.3).mean()
    assert_same_value_and_gradient(ours, by_pairs, tensors)


def test_anchored_similarities_survive_a_fused_embedding_of_zero() -> None:
    video = rows(16, 33, dtype=torch.float32)
    parts = rows(16, 33, seed=1, dtype=torch.float32)
    similarities = anchored_similarities(video, -parts, parts)
    gradients = torch.autograd.grad(similarities.sum(), (video, parts))
    assert similarities.isfinite().all() and (similarities.abs() < 1.01).all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    nothing = torch.zeros_like(parts)
    assert (anchored_similarities(video, nothing, nothing) == 0).all()


def test_anchored_similarities_hold_for_tiny_embeddings() -> None:
    video, video_parts, other_parts = (rows(3, seed=seed, dtype=torch.float32) for seed in range(3))
    torch.testing.assert_close(
        anchored_similarities(video, video_parts * 1e-6, other_parts * 1e-6),
        anchored_similarities(video, video_parts, other_parts),
    )
