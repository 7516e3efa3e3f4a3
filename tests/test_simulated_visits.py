"""The order and times of the planes that a simulated scan visits."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.schema import BACKGROUND, PLANES
from datasets_scripts.simulated_visits import plan_visits

HOLD_SECONDS, SEARCH_SECONDS = (1.0, 2.0), (0.2, 0.5)
STRUCTURES = set(PLANES) - {BACKGROUND}


def planned(duration_s, seed):
    return plan_visits(duration_s, np.random.default_rng(seed), HOLD_SECONDS, SEARCH_SECONDS)


@given(st.floats(0.0, 120.0), st.integers(0, 2**32))
def test_visits_lie_in_the_scan_one_after_the_other(duration_s, seed):
    visits = planned(duration_s, seed)
    for visit in visits:
        assert 0 < visit.start_s < visit.end_s <= duration_s
        assert HOLD_SECONDS[0] <= visit.end_s - visit.start_s <= HOLD_SECONDS[1]
        assert visit.label in STRUCTURES
    for earlier, later in pairwise(visits):
        assert SEARCH_SECONDS[0] - 1e-9 <= later.start_s - earlier.end_s <= SEARCH_SECONDS[1] + 1e-9
    # Nothing is left out that would have fitted in.
    last_s = visits[-1].end_s + SEARCH_SECONDS[1] if visits else 1.5
    assert last_s + HOLD_SECONDS[1] >= duration_s


@given(st.integers(0, 2**32))
def test_every_plane_comes_before_one_comes_again(seed):
    labels = [visit.label for visit in planned(100.0, seed)]
    assert len(labels) >= 26
    assert set(labels[:13]) == set(labels[13:26]) == STRUCTURES
    assert labels[:13] != labels[13:26]


def test_the_order_is_drawn_anew_a_scan():
    first_labels = {planned(60.0, seed)[0].label for seed in range(200)}
    assert first_labels == STRUCTURES
    assert planned(60.0, 5) == planned(60.0, 5) != planned(60.0, 6)


@pytest.mark.parametrize("duration_s", [0.4, 1.4])
def test_a_scan_too_short_for_a_plane_visits_none(duration_s):
    assert planned(duration_s, 0) == []
