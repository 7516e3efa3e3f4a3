"""Splits by patient: nobody on both sides, drawn once, kept for later scans."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.splits import (
    SPLITS_FILE,
    HoldOut,
    SplitError,
    Splits,
    check_key,
    hashed_origin,
    read_splits,
    scans_held_out,
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


# Sites and machines that are held out.

KEY = bytes(32)
PLACES = ("oxford", "leeds", "york")


def origins_of(places: list[tuple[int, int]]) -> dict[str, list[str]]:
    """The hashed site and machine of scans; machines are one more than sites, and 0 is unknown."""
    names = (None, *PLACES)
    return {
        f"s{n}": hashed_origin(KEY, names[site], names[machine]) for n, (site, machine) in enumerate(places)
    }


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    st.sets(st.sampled_from(PLACES)),
    st.sets(st.sampled_from(PLACES)),
)
def test_all_scans_of_what_is_held_out_are_validation_with_their_patients(scans, sites, machines):
    patient_of_scan = scans_of([patient for patient, _, _ in scans])
    origins = origins_of([place for _, *place in scans])
    hold_out = HoldOut(tuple(sites), tuple(machines))
    if not sites and not machines:
        return
    names = {
        scan: (PLACES[s - 1] if s else None, PLACES[m - 1] if m else None)
        for scan, (_, s, m) in zip(patient_of_scan, scans, strict=True)
    }
    held = {scan for scan, (site, machine) in names.items() if site in sites or machine in machines}
    patients = {patient_of_scan[scan] for scan in held}
    try:
        splits = split_by_patient(patient_of_scan, 0.2, 0, "key", None, hold_out.hashes(KEY), origins)
    except SplitError as error:
        assert "none is left to train on" in str(error)
        assert patients == set(patient_of_scan.values())
        return
    assert scans_held_out(splits.held_out, origins) == held
    assert set(splits.validation) == patients
    assert held <= splits.scans("validation")
    assert set(splits.train) == set(patient_of_scan.values()) - patients != set()


def test_a_site_and_a_machine_of_one_name_are_two():
    origins = {"s0": hashed_origin(KEY, "oxford", None), "s1": hashed_origin(KEY, None, "oxford")}
    patient_of_scan = scans_of([0, 1])
    for hold_out, scan in ((HoldOut(("oxford",)), "s0"), (HoldOut((), ("oxford",)), "s1")):
        splits = split_by_patient(patient_of_scan, 0.0, 0, "key", None, hold_out.hashes(KEY), origins)
        assert splits.scans("validation") == {scan}


def test_a_later_run_holds_out_the_same_unasked(tmp_path):
    hashes = HoldOut(("oxford",)).hashes(KEY)
    first = {"s0": hashed_origin(KEY, "oxford", None), "s1": hashed_origin(KEY, "leeds", None)}
    known = split_by_patient(scans_of([0, 1]), 0.5, 0, "key", None, hashes, first)
    write_splits(known, tmp_path)
    assert read_splits(tmp_path) == known
    later = {"t0": hashed_origin(KEY, "oxford", "a"), "t1": hashed_origin(KEY, "york", None), "t2": ()}
    for asked in ((), hashes):
        splits = split_by_patient(
            scans_of([2, 3, 4], "t"), 0.9, 0, "key", read_splits(tmp_path), asked, later
        )
        assert splits.scans("validation") == {"s0", "t0"}
        assert splits.scans("train") == {"s1", "t1", "t2"}
    with pytest.raises(SplitError, match="others of these sites"):
        split_by_patient(scans_of([2], "t"), 0.0, 0, "key", known, HoldOut(("leeds",)).hashes(KEY), later)
    drawn = split_by_patient(scans_of([0, 1]), 0.5, 0, "key")
    with pytest.raises(SplitError, match="none of these sites"):
        split_by_patient(scans_of([2], "t"), 0.0, 0, "key", drawn, hashes, later)


def test_a_patient_that_was_trained_on_is_not_held_out_after():
    hashes = HoldOut(("oxford",)).hashes(KEY)
    known = Splits("key", 0, {"p1": ["s1"]}, {"p0": ["s0"]}, hashes)
    with pytest.raises(SplitError, match="patient p1 is in train"):
        split_by_patient({"t0": "p1"}, 0.0, 0, "key", known, (), {"t0": hashed_origin(KEY, "oxford", None)})
    # Nor is one that was held out trained on, wherever the next scan is made.
    splits = split_by_patient(
        {"t0": "p0"}, 0.0, 0, "key", known, (), {"t0": hashed_origin(KEY, "york", None)}
    )
    assert splits.validation == {"p0": ["s0", "t0"]}


def test_a_name_that_no_recording_has_is_refused():
    origins = origins_of([(1, 0), (2, 3)])
    HoldOut(("oxford", "leeds"), ("york",)).check(KEY, origins.values())
    for hold_out, says in ((HoldOut(("york",)), "site 'york'"), (HoldOut((), ("leeds",)), "machine 'leeds'")):
        with pytest.raises(SplitError, match=f"No recording that was kept is of the {says}"):
            hold_out.check(KEY, origins.values())


def test_no_name_of_a_site_or_machine_lies_with_the_data(tmp_path):
    hashes = HoldOut(("oxford",), ("leeds",)).hashes(KEY)
    origins = {"s0": hashed_origin(KEY, "oxford", "leeds"), "s1": ()}
    write_splits(split_by_patient(scans_of([0, 1]), 0.0, 0, "key", None, hashes, origins), tmp_path)
    text = (tmp_path / SPLITS_FILE).read_text()
    assert all(each in text for each in hashes)
    assert not any(name in text for name in PLACES)
    assert HoldOut(("oxford",), ("leeds",)).hashes(bytes([1] * 32)) != hashes
