"""Splits by patient: nobody on both sides, drawn once, kept for later scans."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.splits import (
    SPLITS_FILE,
    SplitError,
    Splits,
    check_key,
    read_splits,
    split_by_patient,
    write_splits,
)


def scans_of(patients: list[int], scan_prefix: str = "s") -> dict[str, str]:
    return {f"{scan_prefix}{number}": f"p{patient}" for number, patient in enumerate(patients)}


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.floats(0, 0.99), st.integers(0, 5))
def test_each_patient_is_on_one_side_with_all_scans(patients, fraction, seed):
    patient_of_scan = scans_of(patients)
    splits = split_by_patient(patient_of_scan, fraction, seed, "key")
    number = len(set(patients))
    assert not set(splits.train) & set(splits.validation)
    assert splits.scans("train") | splits.scans("validation") == set(patient_of_scan)
    for side in (splits.train, splits.validation):
        for patient, scans in side.items():
            assert {scan for scan, of in patient_of_scan.items() if of == patient} == set(scans)
    assert splits.train
    if number > 1 and fraction > 0:
        assert 1 <= len(splits.validation) <= number - 1
        assert abs(len(splits.validation) - fraction * number) <= 1
    else:
        assert not splits.validation


def test_the_seed_draws_and_repeats():
    patient_of_scan = scans_of(list(range(30)))
    drawn = [split_by_patient(patient_of_scan, 0.3, seed, "key").scans("validation") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_key_does_not_change_who_is_drawn():
    hashed = [{f"{key}{n}": f"{key}p{n}" for n in range(20)} for key in "ab"]
    sides = [split_by_patient(scans, 0.3, 0, "key").scans("validation") for scans in hashed]
    assert {scan[1:] for scan in sides[0]} == {scan[1:] for scan in sides[1]}


@given(st.lists(st.integers(0, 12), max_size=20), st.lists(st.integers(0, 20), min_size=1, max_size=20))
def test_known_patients_stay_where_they_are(first, second):
    known = split_by_patient(scans_of(first), 0.4, 0, "key")
    splits = split_by_patient(scans_of(second, "t"), 0.4, 1, "key", known)
    for split in ("train", "validation"):
        assert set(getattr(known, split)) <= set(getattr(splits, split))
        assert known.scans(split) <= splits.scans(split)
    assert splits.scans("train") | splits.scans("validation") == {*scans_of(first), *scans_of(second, "t")}


def test_a_patient_or_scan_on_both_sides_raises():
    with pytest.raises(SplitError, match="patient p is in two splits"):
        Splits("key", 0, {"p": ["a"]}, {"p": ["b"]})
    with pytest.raises(SplitError, match="scan a is listed twice"):
        Splits("key", 0, {"p": ["a"]}, {"q": ["a"]})
    known = Splits("key", 0, {"p": ["a"]}, {"q": ["b"]})
    with pytest.raises(SplitError, match="scan a is listed twice"):
        split_by_patient({"a": "q"}, 0.5, 0, "key", known)


def test_another_key_is_refused():
    splits = Splits("one", 0, {"p": ["a"]}, {})
    check_key(splits, "one")
    with pytest.raises(SplitError, match="--key-file"):
        check_key(splits, "two")


def test_splits_come_back_from_their_file(tmp_path):
    assert read_splits(tmp_path) is None
    splits = split_by_patient(scans_of([1, 1, 2, 3]), 0.3, 0, "key")
    write_splits(splits, tmp_path)
    assert read_splits(tmp_path) == splits
    assert [path.name for path in tmp_path.iterdir()] == [SPLITS_FILE]


@pytest.mark.parametrize("text", ["{", '{"train": {}}', "[]"])
def test_a_file_that_is_not_as_written_is_named(tmp_path, text):
    (tmp_path / SPLITS_FILE).write_text(text)
    with pytest.raises(SplitError, match=r"splits\.json"):
        read_splits(tmp_path)


def test_a_file_edited_so_that_sides_share_a_scan_is_refused(tmp_path):
    write_splits(Splits("key", 0, {"p": ["a"]}, {"q": ["b"]}), tmp_path)
    content = json.loads((tmp_path / SPLITS_FILE).read_text())
    content["validation"]["q"].append("a")
    (tmp_path / SPLITS_FILE).write_text(json.dumps(content))
    with pytest.raises(SplitError, match="scan a"):
        read_splits(tmp_path)


def test_new_patients_keep_the_share_held_out():
    known = split_by_patient(scans_of(list(range(10))), 0.2, 0, "key")
    splits = split_by_patient(scans_of(list(range(20))), 0.2, 0, "key", known)
    assert (len(known.validation), len(splits.validation)) == (2, 4)
