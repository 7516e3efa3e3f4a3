"""Splits by patient: sizes, that no patient stands on both sides, repeatability, and files of them."""

import json
from pathlib import Path

import pytest
from frame_set_helpers import frame_set
from hypothesis import given
from hypothesis import strategies as st

from train.scan_splits import (
    ScanSplit,
    ScanSplitError,
    check_splits,
    given_split,
    group_k_fold,
    random_splits,
    read_scan_splits,
    write_scan_splits,
)

# Of each patient how many scans; at least two patients.
PATIENTS = st.lists(st.integers(1, 4), min_size=2, max_size=20)


def patients_of_scans(scans_a_patient: list[int]) -> dict[str, str]:
    return {
        f"scan{patient}_{scan}": f"patient{patient}"
        for patient, scans in enumerate(scans_a_patient)
        for scan in range(scans)
    }


def assert_is_a_split(split: ScanSplit, patients: dict[str, str]) -> None:
    assert sorted(split.train + split.test) == sorted(patients)
    assert not {patients[scan] for scan in split.train} & {patients[scan] for scan in split.test}


@given(PATIENTS, st.integers(1, 6), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_random_splits_part_patients(scans: list[int], splits: int, share: float, seed: int) -> None:
    patients = patients_of_scans(scans)
    made = random_splits(patients, splits, share, seed)
    assert len(made) == splits
    for split in made:
        assert_is_a_split(split, patients)
        trained_on = {patients[scan] for scan in split.train}
        assert len(trained_on) == min(max(round(share * len(scans)), 1), len(scans) - 1)


def test_the_paper_s_splits_are_five_of_90_and_45() -> None:
    made = random_splits(patients_of_scans([1] * 135), 5, 2 / 3, seed=0)
    assert [(len(split.train), len(split.test)) for split in made] == [(90, 45)] * 5
    assert len({split.test for split in made}) == 5


@given(PATIENTS, st.integers(2, 6), st.integers(0, 1000))
def test_folds_test_on_every_patient_once(scans: list[int], folds: int, seed: int) -> None:
    patients = patients_of_scans(scans)
    if len(scans) < folds:
        with pytest.raises(ScanSplitError, match=f"{len(scans)} patients"):
            group_k_fold(patients, folds, seed)
        return
    made = group_k_fold(patients, folds, seed)
    assert len(made) == folds
    for split in made:
        assert_is_a_split(split, patients)
    assert sorted(scan for split in made for scan in split.test) == sorted(patients)
    sizes = [len({patients[scan] for scan in split.test}) for split in made]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "make", [lambda p, s: random_splits(p, 5, 0.5, s), lambda p, s: group_k_fold(p, 5, s)]
)
def test_splits_depend_on_the_seed_and_not_on_the_order_of_scans(make) -> None:
    patients = patients_of_scans([1, 2, 3, 1, 2, 3, 1])
    assert make(patients, 3) == make(dict(reversed(patients.items())), 3)
    assert make(patients, 3) != make(patients, 4)


@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_the_stored_split_is_taken(held_out: str) -> None:
    stored = frame_set([0, 1, 2, 0], ["b", "a", "c", "a"], splits=["train", "train", held_out, "train"])
    assert given_split(stored) == ScanSplit(("a", "b"), ("c",))


def test_the_test_split_comes_before_validation() -> None:
    stored = frame_set([0, 1, 2], ["a", "b", "c"], splits=["train", "validation", "test"])
    assert given_split(stored) == ScanSplit(("a",), ("c",))


def test_stored_splits_that_mix_are_refused() -> None:
    both = {"splits": ["train", "test"]}
    with pytest.raises(ScanSplitError, match="Scan a stands on both sides"):
        given_split(frame_set([0, 1], ["a", "a"], **both))
    with pytest.raises(ScanSplitError, match="Patient p has scans on both sides"):
        given_split(frame_set([0, 1], ["a", "b"], patients=["p", "p"], **both))
    with pytest.raises(ScanSplitError, match="no split 'train' with a split 'test' or 'validation'"):
        given_split(frame_set([0, 1], ["a", "b"]))


def test_a_split_has_two_sides_without_a_scan_in_common() -> None:
    with pytest.raises(ScanSplitError, match="no scan on its test side"):
        ScanSplit(("a",), ())
    with pytest.raises(ScanSplitError, match="no scan on its train side"):
        ScanSplit((), ("a",))
    with pytest.raises(ScanSplitError, match="Scan b stands on both sides of a split"):
        ScanSplit(("a", "b"), ("b",))
    with pytest.raises(ScanSplitError, match="Scan a stands twice in one"):
        ScanSplit(("a", "a"), ("b",))


def test_splits_of_another_set_are_refused() -> None:
    patients = {"a": "p", "b": "p", "c": "q"}
    check_splits([ScanSplit(("a", "b"), ("c",))], patients)
    with pytest.raises(ScanSplitError, match="Patient p has scans on both sides"):
        check_splits([ScanSplit(("a",), ("b", "c"))], patients)
    with pytest.raises(ScanSplitError, match="1 scans that the set does not have, d among them"):
        check_splits([ScanSplit(("a", "b"), ("d",))], patients)


def test_one_patient_and_one_fold_are_too_few() -> None:
    with pytest.raises(ScanSplitError, match="1 patients"):
        random_splits({"a": "p", "b": "p"}, 5, 0.5, 0)
    with pytest.raises(ScanSplitError, match="two folds or more, not 1"):
        group_k_fold({"a": "p", "b": "q"}, 1, 0)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    made = group_k_fold(patients_of_scans([1, 2, 3]), 3, 0)
    write_scan_splits(tmp_path / "splits.json", made)
    assert read_scan_splits(tmp_path / "splits.json") == made


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "holds no split"),
        ([{"train": ["a"]}], "is no list of splits"),
        ({"train": {"p": ["a"]}}, "is no list of splits"),
        ([{"train": ["a"], "test": ["a"]}], "Scan a stands on both sides"),
        ("not json", "is no list of splits"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, contents: object, message: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text("not json" if contents == "not json" else json.dumps(contents))
    with pytest.raises(ScanSplitError, match=f"splits.json.*{message}"):
        read_scan_splits(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScanSplitError, match=r"no file of splits .*nowhere\.json"):
        read_scan_splits(tmp_path / "nowhere.json")
