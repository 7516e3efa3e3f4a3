"""What became of the claims: the difference of two rows over all draws and seeds, and whether it stands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from train.experiment_recipe import ClaimSpec, ExperimentRecipe
from train.experiments import NOT_RUN, RowResult
from train.paired_differences import (
    Difference,
    Frames,
    Statistic,
    holm,
    macro_f1,
    mean_kld,
    mean_nss,
    paired_difference,
    read_frames,
)

PREDICTIONS_FILE = "predictions.parquet"
STATISTICS: dict[str, Statistic] = {"f1": macro_f1, "kld": mean_kld, "nss": mean_nss}
LESS_IS_BETTER = ("kld",)
NOT_KEPT = "predictions not kept"
SIGNIFICANCE_LEVEL = 0.05
RESAMPLES = 5000  # the least p-value, two in as many, times the number of claims stays far below the level


class ClaimError(ValueError):
    """A claim that cannot be tested as it is written."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim and what the results say of it.

    Args:
        name, task, metric, better, worse: as the recipe has them.
        draws: on how many draws of the data both rows have a result.
        seeds: with how many pretraining seeds, on any of them.
        difference: the improvement, positive where the claim is right: better minus worse, and for KLD, of
            which less is better, worse minus better. None where it could not be tested.
        holm_p_value: its p-value, corrected over all claims that were tested together; None as above.
        unavailable: why it could not be tested; None where it was.
    """

    name: str
    task: str
    metric: str
    better: str
    worse: str
    draws: int
    seeds: int
    difference: Difference | None
    holm_p_value: float | None
    unavailable: str | None

    @property
    def is_on_one_pair(self) -> bool:
        """Whether a single pair of runs tested it, which says nothing of other seeds."""
        return self.difference is not None and self.difference.seeds == 1

    @property
    def stands(self) -> bool:
        """Whether the 95% interval lies above zero, and the corrected p-value below 0.05."""
        if self.difference is None or self.is_on_one_pair:
            return False
        return self.difference.low > 0 and self.holm_p_value < SIGNIFICANCE_LEVEL


def claim_results(
    recipe: ExperimentRecipe, results: Sequence[RowResult], resamples: int = RESAMPLES, seed: int = 0
) -> list[ClaimResult]:
    """Tests the recipe's claims, each on the draws and seeds that both of its rows have results of.

    Args:
        recipe: of the results.
        results: as `read_results` gives them; a run that several tables show counts once.
        resamples, seed: of the bootstrap.

    Returns:
        One a claim, in the recipe's order, with p-values corrected by Holm's method over those that have a
        difference. Further results may change the corrected p-value of any.

    Raises:
        ClaimError: two claims of one name, or a metric that no claim can be about.
        DifferenceError: predictions that are missing, or not of the same test frames.
    """
    _check_claims(recipe.claims)
    return with_holm([_tested(claim, results, resamples, seed) for claim in recipe.claims])


def with_holm(claims: Sequence[ClaimResult]) -> list[ClaimResult]:
    """The claims with their p-values corrected over all of them that have a difference."""
    corrected = holm({claim.name: claim.difference.p_value for claim in claims if claim.difference})
    return [replace(claim, holm_p_value=corrected.get(claim.name)) for claim in claims]


def _check_claims(claims: Sequence[ClaimSpec]) -> None:
    names = [claim.name for claim in claims]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ClaimError(f"The recipe has more than one claim {twice[0]!r}: give each a name of its own.")
    for claim in claims:
        if claim.metric not in STATISTICS:
            raise ClaimError(
                f"The claim {claim.name!r} is about {claim.metric!r}, but can only be about "
                f"{', '.join(STATISTICS)}."
            )


def _tested(claim: ClaimSpec, results: Sequence[RowResult], resamples: int, seed: int) -> ClaimResult:
    """The claim's result, not yet corrected for the others."""
    better, worse = (
        {
            (result.draw, result.seed): result
            for result in results
            if (result.task, result.row) == (claim.task, row)
        }
        for row in (claim.better, claim.worse)
    )
    pairs = [
        (better[run], worse[run])
        for run in sorted(better.keys() & worse.keys())
        if _has_predictions(better[run]) and _has_predictions(worse[run])
    ]
    return ClaimResult(
        claim.name,
        claim.task,
        claim.metric,
        claim.better,
        claim.worse,
        draws=len({one.draw for one, _ in pairs}),
        seeds=len({one.seed for one, _ in pairs}),
        difference=_improvement(claim.metric, pairs, resamples, seed) if pairs else None,
        holm_p_value=None,
        unavailable=None if pairs else _why_missing([*better.values(), *worse.values()]),
    )


def _has_predictions(result: RowResult) -> bool:
    return result.metrics is not None and result.folder is not None


def _improvement(
    metric: str, pairs: Sequence[tuple[RowResult, RowResult]], resamples: int, seed: int
) -> Difference:
    statistic = STATISTICS[metric]
    better, worse = ([_frames(result, statistic) for result in row] for row in zip(*pairs, strict=True))
    first, second = (worse, better) if metric in LESS_IS_BETTER else (better, worse)
    return paired_difference(first, second, statistic, resamples, seed)


def _frames(result: RowResult, statistic: Statistic) -> Frames:
    return read_frames(result.folder / PREDICTIONS_FILE, statistic.columns, result.draw)


def _why_missing(results: Iterable[RowResult]) -> str:
    """The reasons; that something was not run is said only where there is no other."""
    results = list(results)
    reasons = dict.fromkeys(result.unavailable for result in results if result.metrics is None)
    if any(result.metrics is not None and result.folder is None for result in results):
        reasons[NOT_KEPT] = None
    return ", ".join(reason for reason in reasons if reason != NOT_RUN) or NOT_RUN
