"""Timing side by side, on a clock that the tests turn; how long anything takes is not tested."""

import pytest

from train import timing
from train.timing import Ratio, SkippedError, alternating_rounds, median_ratio, median_seconds


def test_rounds_take_turns_after_one_run_of_each() -> None:
    runs: list[str] = []
    tasks = {name: lambda name=name: runs.append(name) for name in ("a", "b")}
    seconds = alternating_rounds(tasks, rounds=3)
    assert "".join(runs) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_each_task_is_given_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing, "now_s", lambda: clock[0])

    def takes(seconds: float):
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    assert alternating_rounds({"a": takes(2.0), "b": takes(3.0)}, 2) == {"a": [2.0, 2.0], "b": [3.0, 3.0]}


def test_the_ratio_is_that_of_the_middle_round() -> None:
    seconds = {"all": [2.0, 9.0, 12.0], "bare": [1.0, 3.0, 10.0]}
    assert median_seconds(seconds) == {"all": 9.0, "bare": 3.0}
    assert median_ratio(seconds, "all", "bare") == 2.0


@pytest.mark.parametrize(
    ("value", "is_at_most", "holds"),
    [(1.1, True, True), (1.2, True, False), (1.1, False, False), (1.2, False, True)],
)
def test_a_ratio_is_held_against_its_bar(value: float, is_at_most: bool, holds: bool) -> None:
    assert Ratio("one / other", value, 1.15, is_at_most).holds is holds


def test_what_was_not_measured_holds_neither_way_and_says_why() -> None:
    unmeasured = Ratio("one / other", None, 1.15, is_at_most=True)
    assert unmeasured.holds is None
    (skipped,) = SkippedError("needs 3 cores", [unmeasured]).ratios
    assert (skipped.name, skipped.bar, skipped.skipped) == ("one / other", 1.15, "needs 3 cores")
