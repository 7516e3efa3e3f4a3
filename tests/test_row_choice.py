"""Which rows of a scan are kept: balance, most of a scan, evenly over time."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.row_choice import CLASS_BALANCES, choose_rows, evenly_spread
from datasets_scripts.schema import BACKGROUND

LABELS = ["femur"] * 4 + [BACKGROUND] * 20 + ["lips"] * 7 + [BACKGROUND] * 3


def kept(class_balance: str, most: int | None) -> dict[str, int]:
    return Counter(LABELS[row] for row in choose_rows(LABELS, class_balance, most))


@pytest.mark.parametrize(
    ("class_balance", "most", "femur", "background", "lips"),
    [
        ("natural", None, 4, 23, 7),
        ("background", None, 4, 7, 7),
        ("balanced", None, 4, 4, 4),
        ("natural", 15, 4, 6, 5),
        ("natural", 100, 4, 23, 7),
        ("balanced", 6, 2, 2, 2),
        ("background", 16, 4, 6, 6),
    ],
)
def test_classes_are_balanced_and_shared_out(class_balance, most, femur, background, lips):
    assert kept(class_balance, most) == {"femur": femur, BACKGROUND: background, "lips": lips}


def test_a_scan_of_background_alone():
    labels = [BACKGROUND] * 5
    assert choose_rows(labels, "natural", None) == choose_rows(labels, "balanced", None) == list(range(5))
    assert choose_rows(labels, "background", None) == []
    assert all(choose_rows([], balance, 3) == [] for balance in CLASS_BALANCES)


@given(st.integers(0, 500), st.integers(0, 500))
def test_evenly_spread_numbers_are_as_even_as_they_can_be(number, wanted):
    chosen = evenly_spread(number, wanted)
    assert len(chosen) == min(number, wanted)
    steps = set(np.diff(chosen))
    assert not steps or max(steps) - min(steps) <= 1
    if chosen:
        assert abs(chosen[0] - (number - 1 - chosen[-1])) <= 1


@given(st.lists(st.sampled_from(["femur", "lips", BACKGROUND]), max_size=60), st.integers(1, 70))
def test_as_many_rows_as_there_may_be_are_kept_each_once(labels, most):
    chosen = choose_rows(labels, "natural", most)
    assert len(chosen) == min(len(labels), most)
    assert chosen == sorted(set(chosen))
    counts, whole = Counter(labels[row] for row in chosen), Counter(labels)
    for label, number in counts.items():
        # A class may have fewer than another only where it has no more.
        assert number == whole[label] or number >= max(counts.values()) - 1
