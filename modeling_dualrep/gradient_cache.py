"""Gradient caching (GradCache, Gao et al., 2021): batches beyond memory with the whole batch's gradient."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .tower import batch_norm_statistics_kept


def in_chunks(
    embed: Callable[..., Tensor], rows: tuple[Tensor, ...], clips_at_a_time: int | None, tower: nn.Module
) -> Tensor:
    """Embeds a batch chunk by chunk, keeping the activations of none until its gradient is due.

    The forward pass keeps the embeddings alone. When the gradient reaches those of a chunk, this chunk goes
    through the tower once more, in the random state of the first time (dropout, SpecAugment), and its
    activations are freed before those of the next are made. That is the gradient of one graph over all
    chunks, and one backward pass, after which DistributedDataParallel averages the gradients once.

    In training, BatchNorm normalises each chunk by its own statistics, as the processes of a distributed run
    do, and counts it once in the running ones. In evaluation mode nothing depends on the chunks.

    Args:
        embed: rows of a chunk to embeddings, (chunk, dim).
        rows: what it takes, (batch, ...) each.
        clips_at_a_time: most rows of a chunk; all chunks are as large as they can be alike. None: one chunk.
        tower: whose BatchNorm layers `embed` runs.

    Returns:
        (batch, dim).

    Raises:
        ValueError: `clips_at_a_time` is below 1.
    """
    if clips_at_a_time is not None and clips_at_a_time < 1:
        raise ValueError(f"gradient_cache_clips is {clips_at_a_time}, but must be at least 1.")
    batch = len(rows[0])
    if clips_at_a_time is None or batch <= clips_at_a_time:
        return embed(*rows)
    run = partial(
        checkpoint,
        embed,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), batch_norm_statistics_kept(tower)),
    )
    chunks = math.ceil(batch / clips_at_a_time)
    of_chunks = zip(*(values.tensor_split(chunks) for values in rows), strict=True)
    return torch.cat([run(*chunk) for chunk in of_chunks])
