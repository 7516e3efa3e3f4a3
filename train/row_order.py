"""The order in which fine-tuning sees the rows of a set."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# How often any row was drawn before this one, and the row: both decide how it is varied.
Key = tuple[int, int]


class RowOrder(Sampler):
    """Keys for one epoch after the other, as the seed and the weights decide.

    Args:
        rows: to train on.
        seed: of the order.
        weights: (rows,) how likely each row is at each draw; then rows are drawn with replacement. None shows
            each row once an epoch.
    """

    def __init__(self, rows: np.ndarray, seed: int, weights: np.ndarray | None = None) -> None:
        self.rows = rows
        self.seed = seed
        self.weights = weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Whose order comes next; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Key]:
        chance = np.random.default_rng([self.seed, self.epoch])
        if self.weights is None:
            drawn = chance.permutation(self.rows)
        else:
            drawn = chance.choice(self.rows, len(self.rows), p=self.weights / self.weights.sum())
        first = self.epoch * len(self.rows)
        return iter([(first + number, int(row)) for number, row in enumerate(drawn)])
