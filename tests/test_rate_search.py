"""Successive halving: its budget, what it keeps, what it chooses, and that it goes on where it stopped."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.arguments import ArgumentsError
from train.rate_search import (
    SearchError,
    SearchSpec,
    Trial,
    at_edge,
    best_trial,
    read_search,
    search_rates,
    successive_halving,
)

SPEC = SearchSpec(learning_rates=(1e-4, 1e-3, 1e-2, 1e-1), steps=(10, 20, 40))
RATES = st.lists(st.sampled_from([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]), min_size=1, unique=True)
LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=4, unique=True).map(sorted)


def peak_at(rate: float) -> object:
    """A score that is best at one rate, and a little better for longer training."""
    return lambda learning_rate, steps: -abs(math.log10(learning_rate / rate)) + 1e-3 * steps


def test_each_length_keeps_the_better_half_and_the_best_trial_wins() -> None:
    trials = successive_halving(SPEC, peak_at(1e-2))
    assert [(trial.learning_rate, trial.max_steps) for trial in trials[:4]] == [
        (rate, 10) for rate in SPEC.learning_rates
    ]
    assert {trial.learning_rate for trial in trials[4:6]} < {1e-3, 1e-2, 1e-1}
    assert [(trial.learning_rate, trial.max_steps) for trial in trials[6:]] == [(1e-2, 40)]
    best = best_trial(trials)
    assert (best.learning_rate, best.max_steps) == (1e-2, 40)


@given(RATES, LENGTHS, st.integers(0, 2**32 - 1))
def test_the_budget_is_the_same_whatever_the_scores_are(rates: list, lengths: list, seed: int) -> None:
    import random

    spec, chance = SearchSpec(tuple(rates), tuple(lengths)), random.Random(seed)
    trials = successive_halving(spec, lambda rate, steps: chance.choice([None, 0.5, chance.random()]))
    assert sum(trial.max_steps for trial in trials) == spec.budget_steps()
    assert len(set(trials)) == len(trials) == sum(spec.rates_tried())
    for shorter, longer in pairwise(lengths):
        at = {steps: [trial for trial in trials if trial.max_steps == steps] for steps in (shorter, longer)}
        kept = {trial.learning_rate for trial in at[longer]}
        ranks = sorted(at[shorter], key=lambda trial: trial.rank)
        assert kept == {trial.learning_rate for trial in ranks[: math.ceil(len(ranks) / 2)]}


def test_of_equals_the_shorter_is_chosen_and_the_diverged_never() -> None:
    trials = [Trial(1e-2, 40, 0.5), Trial(1e-2, 10, 0.5), Trial(1e-1, 10, None), Trial(1e-3, 10, 0.4)]
    assert best_trial(trials) == trials[1]
    assert best_trial([Trial(1e-1, 10, None), Trial(1e-3, 10, -3.0)]).learning_rate == 1e-3
    with pytest.raises(SearchError, match=r"All 1 trials .*lower learning_rates than 0\.1"):
        best_trial([Trial(1e-1, 10, None)])


def test_a_choice_at_the_end_of_what_was_tried_is_told() -> None:
    edges = {
        (1e-4, 10): ["learning_rate"],
        (1e-1, 40): ["learning_rate", "max_steps"],
        (1e-3, 40): ["max_steps"],
        (1e-2, 10): [],
    }
    for (rate, steps), edge in edges.items():
        assert at_edge(SPEC, Trial(rate, steps, 0.5)) == edge


def test_an_interrupted_search_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    whole = search_rates(tmp_path / "whole.json", {"data": "a"}, SPEC, peak_at(1e-3))
    for stop_after in range(sum(SPEC.rates_tried())):
        path, made = tmp_path / f"{stop_after}.json", []

        def interrupted(rate: float, steps: int, made: list = made, stop_after: int = stop_after) -> float:
            if len(made) == stop_after:
                raise KeyboardInterrupt
            made.append((rate, steps))
            return peak_at(1e-3)(rate, steps)

        with pytest.raises(KeyboardInterrupt):
            search_rates(path, {"data": "a"}, SPEC, interrupted)
        again = []
        choice = search_rates(
            path, {"data": "a"}, SPEC, lambda *told, again=again: again.append(told) or peak_at(1e-3)(*told)
        )
        assert choice == whole and not set(again) & set(made)
        assert read_search(path) == read_search(tmp_path / "whole.json")
    assert search_rates(tmp_path / "whole.json", {"data": "a"}, SPEC, None) == whole, "nothing is made again"
    assert not list(tmp_path.glob(".*")), "no half-written file is left"


def test_every_trial_and_the_choice_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "planes" / "random.json"
    search_rates(path, {"data": "a"}, SPEC, peak_at(1e-3))
    kept = json.loads(path.read_text())
    assert len(kept["trials"]) == 7 and kept["choice"] in kept["trials"] and kept["made_of"] == {"data": "a"}


def test_another_search_is_not_taken_for_this_one(tmp_path: Path) -> None:
    path = tmp_path / "random.json"
    search_rates(path, {"data": "a", "rates": [1]}, SPEC, peak_at(1e-3))
    with pytest.raises(SearchError, match=r"random\.json .*its data is 'a', here it is 'b'"):
        search_rates(path, {"data": "b", "rates": [1]}, SPEC, peak_at(1e-3))
    path.write_text("{}")
    with pytest.raises(SearchError, match="remove it"):
        read_search(path)
    with pytest.raises(SearchError, match="There is no search"):
        read_search(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("rates", "steps"),
    [((), (1,)), ((1e-3, 1e-3), (1,)), ((-1.0,), (1,)), ((1e-3,), ()), ((1e-3,), (2, 1)), ((1e-3,), (0, 1))],
)
def test_what_cannot_be_searched_is_refused(rates: tuple, steps: tuple) -> None:
    with pytest.raises(ArgumentsError):
        SearchSpec(rates, steps)
