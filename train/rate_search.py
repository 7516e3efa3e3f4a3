"""Learning rate and length of a fine-tuning by successive halving: the same budget whatever is fine-tuned.

All rates are tried for the shortest length, the better half of them for the next, and so on (Jamieson and
Talwalkar, AISTATS 2016); each trial starts anew, so that its schedule ends where it ends. The best of all
trials is chosen.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from train.arguments import require
from train.json_files import write_json

# Of a learning rate and a number of steps; higher is better, None where the training diverged.
Score = Callable[[float, int], float | None]


class SearchError(ValueError):
    """A search that gives no choice, or one kept from another recipe; the text says what to do."""


@dataclass(frozen=True)
class SearchSpec:
    """What is tried.

    Args:
        learning_rates: all of them at the first length.
        steps: lengths in optimizer steps, ascending.
    """

    learning_rates: tuple[float, ...]
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        rates, steps = self.learning_rates, self.steps
        require(self, "learning_rates", len(rates) > 0 and min(rates) > 0, "numbers above 0")
        require(self, "learning_rates", len(set(rates)) == len(rates), "different numbers")
        ascending = len(steps) > 0 and steps[0] > 0 and list(steps) == sorted(set(steps))
        require(self, "steps", ascending, "ascending numbers above 0")

    def rates_tried(self) -> list[int]:
        """How many learning rates are tried at each length."""
        counts = [len(self.learning_rates)]
        for _ in self.steps[1:]:
            counts.append(math.ceil(counts[-1] / 2))
        return counts

    def budget_steps(self) -> int:
        """Optimizer steps of the whole search."""
        return sum(rates * steps for rates, steps in zip(self.rates_tried(), self.steps, strict=True))


@dataclass(frozen=True)
class Trial:
    """One training of the search.

    Args:
        learning_rate, max_steps: that it was made with.
        score: on the inner validation scans, higher is better; None where it diverged.
    """

    learning_rate: float
    max_steps: int
    score: float | None

    @property
    def rank(self) -> tuple[float, int, float]:
        """Sorts the better trial first; of equals the shorter one, then the slower one."""
        score = -math.inf if self.score is None else self.score
        return -score, self.max_steps, self.learning_rate


@dataclass(frozen=True)
class SearchRecord:
    """A search as it is kept.

    Args:
        made_of: everything that the scores depend on, as JSON has it: lists, no tuples.
        trials: in the order in which they were made.
        choice: the best trial; None before the search is finished.
    """

    made_of: dict
    trials: tuple[Trial, ...] = ()
    choice: Trial | None = None


def successive_halving(
    spec: SearchSpec,
    score: Score,
    known: Sequence[Trial] = (),
    keep: Callable[[list[Trial]], None] = lambda trials: None,
) -> list[Trial]:
    """All trials of a search.

    Args:
        spec: what is tried.
        score: trains and measures.
        known: trials of an interrupted search, which are not made again.
        keep: is given all trials so far after each new one.
    """
    scores = {(trial.learning_rate, trial.max_steps): trial for trial in known}
    rates, trials = list(spec.learning_rates), []
    for tried, steps in zip(spec.rates_tried(), spec.steps, strict=True):
        rates = rates[:tried]
        at_length = []
        for rate in rates:
            is_new = (rate, steps) not in scores
            trial = Trial(rate, steps, score(rate, steps)) if is_new else scores[rate, steps]
            at_length.append(trial)
            trials.append(trial)
            if is_new:
                keep(trials)
        rates = [trial.learning_rate for trial in sorted(at_length, key=lambda trial: trial.rank)]
    return trials


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest score; of equals the shorter one.

    Raises:
        SearchError: all diverged.
    """
    best = min(trials, key=lambda trial: trial.rank)
    if best.score is None:
        raise SearchError(
            f"All {len(trials)} trials of the search diverged: give it lower learning_rates than "
            f"{min(trial.learning_rate for trial in trials):g}."
        )
    return best


def at_edge(spec: SearchSpec, choice: Trial) -> list[str]:
    """In what the choice lies at the end of what was tried, so that the best may lie beyond."""
    of_rate = choice.learning_rate in (min(spec.learning_rates), max(spec.learning_rates))
    of_length = choice.max_steps == max(spec.steps)
    return ["learning_rate"] * of_rate + ["max_steps"] * of_length


def search_rates(path: Path, made_of: dict, spec: SearchSpec, score: Score) -> Trial:
    """Searches, or goes on with a search, and keeps every trial and the choice as JSON.

    Args:
        path: of the JSON.
        made_of: see SearchRecord; what a search is known by.
        spec, score: see `successive_halving`.

    Raises:
        SearchError: the JSON is of another search, or all trials diverged.
    """
    record = read_search(path) if path.is_file() else SearchRecord(made_of)
    check_search(path, record, made_of)
    if record.choice is not None:
        return record.choice

    def keep(trials: Sequence[Trial]) -> None:
        write_json(path, asdict(SearchRecord(made_of, tuple(trials))))

    trials = successive_halving(spec, score, record.trials, keep)
    choice = best_trial(trials)
    write_json(path, asdict(SearchRecord(made_of, tuple(trials), choice)))
    return choice


def check_search(path: Path, record: SearchRecord, made_of: dict) -> None:
    """Raises SearchError where the search that was kept is another one."""
    for name in sorted({*record.made_of, *made_of}):
        there, here = (each.get(name) for each in (record.made_of, made_of))
        if there != here:
            raise SearchError(
                f"{path} is a search of another recipe or other data: its {name} is {there!r}, here it is "
                f"{here!r}. Give another output folder, or remove the file."
            )


def read_search(path: Path) -> SearchRecord:
    """What `search_rates` kept.

    Raises:
        SearchError: no such file, or not as it was written.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        trials = tuple(Trial(**trial) for trial in fields["trials"])
        choice = Trial(**fields["choice"]) if fields["choice"] is not None else None
        return SearchRecord(fields["made_of"], trials, choice)
    except FileNotFoundError as error:
        raise SearchError(f"There is no search {path}.") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SearchError(f"{path} is no search as it is kept ({error!r}): remove it.") from error
