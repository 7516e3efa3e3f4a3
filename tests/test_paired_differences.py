"""Paired differences: scores as in metrics.json, a bootstrap of scans and seeds, refusals, Holm."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import plane_results, saliency_results
from train.metrics.standard_plane.standard_plane import standard_plane_scores
from train.metrics_file import read_metrics, write_metrics
from train.paired_differences import (
    Difference,
    DifferenceError,
    Frames,
    bootstrap_p_value,
    holm,
    macro_f1,
    mean_kld,
    mean_nss,
    multiplicities,
    paired_difference,
    read_frames,
    run_score,
)
from train.saliency_results import FrameScores

CLASSES = ("femur", "lips", "profile", "abdomen")
PLACES = {"recipe": "small", "seed": 0, "data_hash": "0" * 64, "code_version": "0"}


def saliency_frames(kld: np.ndarray, splits: int = 1, draw: int = 0) -> Frames:
    """Of (scans, frames) values, the same in each split."""
    scans, frames = kld.shape
    return Frames(
        splits=np.repeat(np.arange(1, splits + 1), kld.size),
        scan_ids=np.tile(np.repeat([f"scan{scan}" for scan in range(scans)], frames), splits),
        times_s=np.tile(np.arange(frames, dtype=np.float64), splits * scans),
        values={"kld": np.tile(kld.ravel(), splits)},
        draw=draw,
    )


def plane_frames(generator: np.random.Generator, draw: int, scans: int, right: float) -> Frames:
    """Of two splits of three scans each, with frames of few classes a scan; `right` of them are predicted."""
    tested = [np.repeat(generator.permutation(scans)[:3], 4) for _ in range(2)]
    scan_ids = np.concatenate(tested)
    labels = (scan_ids + generator.integers(0, 2, len(scan_ids))) % len(CLASSES)
    frames = Frames(
        splits=np.repeat([1, 2], [len(of_split) for of_split in tested]),
        scan_ids=np.array([f"scan{scan}" for scan in scan_ids]),
        times_s=np.tile(np.arange(4.0), 6),
        values={"label": np.array(CLASSES)[labels]},
        draw=draw,
    )
    return predicted_anew(frames, generator, right)


def predicted_anew(frames: Frames, generator: np.random.Generator, right: float) -> Frames:
    labels = frames.values["label"]
    guessed = generator.choice(CLASSES, len(labels))
    predicted = np.where(generator.random(len(labels)) < right, labels, guessed)
    return replace(frames, values={"label": labels, "predicted": predicted})


def in_order(frames: Frames, order: np.ndarray) -> Frames:
    """The same frames, rows in another order, or some of them, or several times."""
    values = {name: column[order] for name, column in frames.values.items()}
    return replace(
        frames,
        splits=frames.splits[order],
        scan_ids=frames.scan_ids[order],
        times_s=frames.times_s[order],
        values=values,
    )


def naive_macro_f1(frames: Frames, drawn: dict[str, int]) -> float:
    """Frames copied as often as their scan is drawn, and scored anew."""
    copies = np.repeat(np.arange(len(frames.splits)), [drawn[scan] for scan in frames.scan_ids])
    index = {name: number for number, name in enumerate(CLASSES)}
    of_splits = []
    for split in np.unique(frames.splits[copies]):
        rows = copies[frames.splits[copies] == split]
        predicted, labels = (
            [index[name] for name in frames.values[column][rows]] for column in ("predicted", "label")
        )
        of_splits.append(standard_plane_scores(predicted, labels, CLASSES)["f1"])
    return float(np.mean(of_splits))


def test_macro_f1_is_that_of_metrics_json(tmp_path: Path) -> None:
    generator, splits = np.random.default_rng(0), []
    for absent in (0, 3):  # A class that one split has no test frame of, but predicts.
        labels = generator.choice([label for label in range(4) if label != absent], 30)
        scan_ids = [f"scan{number % 5}" for number in range(30)]
        probabilities = generator.dirichlet(np.ones(4), 30)
        splits.append(plane_results.SplitPredictions(scan_ids, np.arange(30.0), labels, probabilities))
    scores = [plane_results.split_scores(split, CLASSES) for split in splits]
    write_metrics(tmp_path / "metrics.json", plane_results.over_splits(scores), **PLACES)
    plane_results.write_predictions(splits, CLASSES, tmp_path / "predictions.parquet")
    frames = read_frames(tmp_path / "predictions.parquet", macro_f1.columns, draw=1)
    written = read_metrics(tmp_path / "metrics.json")["metrics"]
    assert written["test/absent_classes"] == 1 and 0.1 < written["test/f1"] < 0.9
    assert run_score(frames, macro_f1) == pytest.approx(written["test/f1"], abs=1e-12)
    assert frames.draw == 1 and frames.source.endswith("predictions.parquet")


def test_a_class_that_is_never_found_counts_as_one() -> None:
    values = {"label": np.array(["femur", "lips"]), "predicted": np.array(["femur", "femur"])}
    frames = Frames(np.array([1, 1]), np.array(["a", "b"]), np.zeros(2), values)
    assert run_score(frames, macro_f1) == pytest.approx((2 / 3 + 0) / 2)


def test_mean_kld_and_nss_are_those_of_metrics_json(tmp_path: Path) -> None:
    generator, rows, means = np.random.default_rng(1), [], []
    for split, size in ((1, 5), (2, 9)):
        scores = [{"kld": float(kld), "nss": float(kld) - 2} for kld in generator.normal(1, 0.5, size)]
        del scores[0]["nss"]
        means.append(FrameScores(scores, None).means())
        rows += [
            {"split": split, "scan_id": f"scan{number % 3}", "time_s": float("nan"), **score}
            for number, score in enumerate(scores)
        ]
    write_metrics(tmp_path / "metrics.json", saliency_results.over_splits("test", means), **PLACES)
    saliency_results.write_predictions(rows, tmp_path / "predictions.parquet")
    written = read_metrics(tmp_path / "metrics.json")["metrics"]
    for name, statistic in (("kld", mean_kld), ("nss", mean_nss)):
        frames = read_frames(tmp_path / "predictions.parquet", statistic.columns)
        assert run_score(frames, statistic) == pytest.approx(written[f"test/{name}"], abs=1e-12)


def test_the_bootstrap_is_a_loop_that_scores_resampled_frames_anew() -> None:
    generator, resamples = np.random.default_rng(2), 80
    bases = [plane_frames(generator, draw, scans=5 + draw, right=0.8) for draw in (0, 1)]
    bases = [bases[0], predicted_anew(bases[0], generator, 0.7), bases[1]]
    others = [predicted_anew(base, generator, 0.3) for base in bases]
    found = paired_difference(bases, others, macro_f1, resamples=resamples, seed=7)

    drawing = np.random.default_rng(7)
    scans = {draw: sorted(set(bases[place].scan_ids.tolist())) for draw, place in ((0, 0), (1, 2))}
    drawn = {draw: multiplicities(len(ids), len(ids), resamples, drawing) for draw, ids in scans.items()}
    runs_drawn = multiplicities(3, 2, resamples, drawing)
    differences = []
    for number in range(resamples):
        of_runs = []
        for one, other in zip(bases, others, strict=True):
            times = dict(zip(scans[one.draw], drawn[one.draw][:, number], strict=True))
            of_runs.append(naive_macro_f1(one, times) - naive_macro_f1(other, times))
        differences.append(np.average(of_runs, weights=runs_drawn[:, number]))
    differences = np.array(differences)
    assert [found.low, found.high] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-12)
    assert found.p_value == pytest.approx(2 * (1 + (differences <= 0).sum()) / (resamples + 1))
    assert found.low < found.mean < found.high
    assert (found.seeds, found.scans) == (3, len(scans[0]) + len(scans[1]))
    ones = {scan: 1 for ids in scans.values() for scan in ids}
    observed = [naive_macro_f1(a, ones) - naive_macro_f1(b, ones) for a, b in zip(bases, others, strict=True)]
    assert found.mean == pytest.approx(np.mean(observed), abs=1e-12)


def test_multiplicities_are_draws_with_replacement() -> None:
    drawn = multiplicities(6, 6, 20_000, np.random.default_rng(0))
    assert drawn.shape == (6, 20_000) and (drawn.sum(axis=0) == 6).all()
    assert drawn.mean() == 1 and drawn.var(axis=1) == pytest.approx(5 / 6, abs=0.03)


def test_a_row_does_not_differ_from_itself() -> None:
    generator = np.random.default_rng(3)
    run = plane_frames(generator, 0, scans=5, right=0.5)
    runs = [run, predicted_anew(run, generator, 0.5)]
    assert paired_difference(runs, runs, macro_f1) == Difference(
        mean=0.0, low=0.0, high=0.0, p_value=1.0, seeds=2, scans=len(set(run.scan_ids))
    )


def test_the_order_of_frames_does_not_matter_nor_the_sign_of_the_question() -> None:
    generator = np.random.default_rng(4)
    one = plane_frames(generator, 0, scans=5, right=0.9)
    other = predicted_anew(one, generator, 0.2)
    forth = paired_difference([one], [other], macro_f1)
    back = paired_difference([other], [in_order(one, generator.permutation(len(one.splits)))], macro_f1)
    assert forth.mean > 0 and back.mean == pytest.approx(-forth.mean)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    assert back.p_value == forth.p_value


def compare(differences: np.ndarray, splits: int = 1, seed: int = 0) -> Difference:
    """Of runs whose frames differ by (runs, scans, frames)."""
    first = [saliency_frames(of_run, splits) for of_run in differences]
    second = [saliency_frames(np.zeros_like(of_run), splits) for of_run in differences]
    return paired_difference(first, second, mean_kld, resamples=400, seed=seed)


def test_scans_are_drawn_not_frames() -> None:
    """Frames that say the same as others of their scan make nothing surer."""
    of_scans = np.random.default_rng(5).normal(0.3, 1, (1, 30, 1))
    alone, with_copies = compare(of_scans), compare(np.repeat(of_scans, 25, axis=2))
    assert (with_copies.low, with_copies.high) == pytest.approx((alone.low, alone.high))
    standard_error = of_scans.std() / np.sqrt(30)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def test_a_scan_is_drawn_in_all_splits_at_once() -> None:
    of_scans = np.random.default_rng(6).normal(0.3, 1, (1, 30, 2))
    one_split, five_splits = compare(of_scans), compare(of_scans, splits=5)
    assert (five_splits.low, five_splits.high) == pytest.approx((one_split.low, one_split.high))
    assert five_splits.scans == 30


def test_seeds_are_drawn_as_well() -> None:
    """All scans agree, the runs do not: of three, two are drawn, so 1 in 9 resamples has the worst twice."""
    found = compare(np.array([-1.0, 2.0, 5.0])[:, None, None] * np.ones((3, 8, 2)))
    assert (found.mean, found.low, found.high, found.seeds) == (2, -1, 5, 3)
    assert 0.1 < found.p_value < 0.4
    of_four = compare(np.array([0.0, 0.0, 0.0, 4.0])[:, None, None] * np.ones((4, 8, 2)))
    # Of the mean of four with the variance 4, the standard error is 1.
    assert (of_four.low, of_four.high) == (0, pytest.approx(8 / 3))


def test_scans_of_another_draw_are_other_scans() -> None:
    """Differences of one scan each: drawn together, they would always cancel out."""
    of_draw = np.zeros((12, 1))
    of_draw[0] = 12.0
    first = [saliency_frames(sign * of_draw, draw=draw) for draw, sign in ((0, 1), (1, -1)) for _ in range(3)]
    second = [saliency_frames(np.zeros((12, 1)), draw=draw) for draw in (0, 1) for _ in range(3)]
    found = paired_difference(first, second, mean_kld)
    assert (found.mean, found.seeds, found.scans) == (0, 6, 24)
    assert found.low < -0.5 and found.high > 0.5


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Frames share what is particular to their scan and their seed: 95% of the intervals must know it."""
    generator, trials, held, rejected = np.random.default_rng(7), 200, 0, 0
    for trial in range(trials):
        shape = (4, 25, 4)
        differences = 0.5 + 0.1 * generator.normal(size=(4, 1, 1)) + generator.normal(size=(1, 25, 1))
        found = compare(differences + 0.5 * generator.normal(size=shape), seed=trial)
        held += found.low <= 0.5 <= found.high
        rejected += found.p_value < 0.05
    assert 0.9 <= held / trials <= 0.99
    # An effect of 2.3 standard errors is found more often than not.
    assert 0.4 < rejected / trials < 0.9


def test_p_values_of_bootstrap_distributions() -> None:
    assert bootstrap_p_value(np.array([1.0, 2.0, 3.0, -1.0])) == pytest.approx(2 * 2 / 5)
    assert bootstrap_p_value(np.array([-1.0, -2.0, -3.0])) == pytest.approx(2 * 1 / 4)
    assert bootstrap_p_value(np.array([-1.0, 1.0])) == 1
    assert bootstrap_p_value(np.ones(1999)) == pytest.approx(0.001)


def test_frames_without_a_score_are_left_out() -> None:
    kld = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    assert run_score(saliency_frames(kld), mean_kld) == 3
    found = paired_difference([saliency_frames(kld)], [saliency_frames(kld - 1)], mean_kld)
    # Resamples of the third scan alone have no score.
    assert (found.mean, found.low, found.high) == (1, pytest.approx(1), pytest.approx(1))
    whole = saliency_frames(np.ones((3, 2)))
    found = paired_difference([saliency_frames(kld), whole], [saliency_frames(kld - 1), whole], mean_kld)
    assert (found.mean, found.low, found.high) == (0.5, 0, pytest.approx(1))
    with pytest.raises(DifferenceError, match="no test frame with kld"):
        paired_difference([saliency_frames(kld)], [saliency_frames(kld * np.nan)], mean_kld)


def changed(frames: Frames, column: str) -> Frames:
    """With another scan, time, split or label at one place."""
    other = {"splits": 2, "scan_ids": "scanX", "times_s": 9.5, "label": "kidneys"}[column]
    array = frames.values["label"] if column == "label" else getattr(frames, column)
    array = array.astype(object)
    array[0] = other
    array = array.astype(str if isinstance(other, str) else np.float64)
    if column == "label":
        return replace(frames, values={**frames.values, "label": array})
    return replace(frames, **{column: array})


@pytest.mark.parametrize("column", ["splits", "scan_ids", "times_s", "label"])
def test_other_test_frames_are_refused(column: str) -> None:
    run = replace(plane_frames(np.random.default_rng(8), 0, 5, 0.5), source="one.parquet")
    with pytest.raises(DifferenceError, match=r"one\.parquet.*do not have the same test frames"):
        paired_difference([run], [changed(run, column)], macro_f1)
    fewer = in_order(run, np.arange(len(run.splits) - 1))
    for wrong in (fewer, replace(run, draw=1)):
        with pytest.raises(DifferenceError, match="do not have the same test frames"):
            paired_difference([run, run], [run, wrong], macro_f1)


def test_frames_of_unknown_time_can_be_the_same() -> None:
    run = saliency_frames(np.ones((3, 2)))
    run = replace(run, times_s=np.full(6, np.nan))
    assert paired_difference([run], [run], mean_kld).mean == 0
    with pytest.raises(DifferenceError, match="do not have the same test frames"):
        paired_difference([run], [replace(run, times_s=np.arange(6.0))], mean_kld)


@pytest.mark.parametrize("counts", [(0, 0), (2, 1)])
def test_as_many_runs_of_each_row_are_wanted(counts: Sequence[int]) -> None:
    run = saliency_frames(np.ones((3, 2)))
    with pytest.raises(DifferenceError, match=f"{counts[0]} runs of the first row and {counts[1]} of"):
        paired_difference([run] * counts[0], [run] * counts[1], mean_kld)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    with pytest.raises(DifferenceError, match=r"no file .*predictions\.parquet"):
        read_frames(path, mean_kld.columns)
    saliency_results.write_predictions([{"split": 1, "scan_id": "a", "time_s": 0.0, "kld": 1.0}], path)
    with pytest.raises(DifferenceError, match="no column label, predicted"):
        read_frames(path, macro_f1.columns)
    saliency_results.write_predictions([], path)
    with pytest.raises(DifferenceError, match="no test frames"):
        read_frames(path, mean_kld.columns)
    path.write_text("something else")
    with pytest.raises(DifferenceError, match="is not Parquet"):
        read_frames(path, mean_kld.columns)


def test_holm_by_hand() -> None:
    """0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not be below the one before."""
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert list(adjusted.values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm({"a": 0.4, "b": 0.9}) == {"a": 0.8, "b": 0.9}
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_lies_between_none_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm({str(number): p_value for number, p_value in enumerate(p_values)})
    pairs = sorted(zip(p_values, adjusted.values(), strict=True))
    assert all(p <= a <= min(1, len(p_values) * p) + 1e-12 for p, a in pairs)
    assert [a for _, a in pairs] == sorted(a for _, a in pairs)
