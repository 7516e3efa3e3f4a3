"""The order of rows in training: every row once an epoch, or classes in balance."""

import numpy as np

from train.plane_frames import class_weights
from train.row_order import RowOrder


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    rows = np.array([3, 5, 8, 9, 11])
    order = RowOrder(rows, seed=0)
    first = list(order)
    assert sorted(row for _, row in first) == rows.tolist() and len(order) == 5
    assert list(order) == first == list(RowOrder(rows, seed=0)) != list(RowOrder(rows, seed=1))
    order.set_epoch(1)
    second = list(order)
    assert [row for _, row in second] != [row for _, row in first]
    assert [draw for draw, _ in first + second] == list(range(10)), "no draw is used twice"


def test_balanced_sampling_shows_classes_equally_often() -> None:
    labels = np.array([0] * 800 + [1] * 150 + [2] * 50)
    weights = class_weights(labels, 4)[labels]
    order = RowOrder(np.arange(1000), seed=0, weights=weights)
    drawn = []
    for epoch in range(3):
        order.set_epoch(epoch)
        drawn += [row for _, row in order]
    shares = np.bincount(labels[drawn], minlength=3) / 3000
    assert np.abs(shares - 1 / 3).max() < 0.03
