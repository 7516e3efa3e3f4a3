"""The keys of scan.json: what each takes, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_scripts.recording_errors import SidecarError
from datasets_scripts.scan_notes import ScanNotes, read_notes


def read(folder: Path, notes: object) -> ScanNotes:
    path = folder / "scan.json"
    path.write_text(json.dumps(notes), encoding="utf-8")
    return read_notes(path, 640, 480, "s")


def test_every_key_is_read(tmp_path):
    notes = {
        "patient_id": 17,
        "site": " Oxford ",
        "machine": "Voluson E8",
        "crop": [0, 2, 640, 480],
        "pixel_spacing_mm": [0.2, 0.3],
        "screen": [-1920, 0, -640.5, 720],
        "gaze_offset_s": -12,
        "sound_offset_s": 0.25,
    }
    assert read(tmp_path, notes) == ScanNotes(
        patient_id="17",
        site="Oxford",
        machine="Voluson E8",
        crop=(0, 2, 640, 480),
        pixel_spacing_mm=(0.2, 0.3),
        screen=(-1920.0, 0.0, -640.5, 720.0),
        gaze_offset_s=-12.0,
        sound_offset_s=0.25,
    )


def test_what_is_absent_or_null_keeps_its_default(tmp_path):
    keys = ScanNotes.__dataclass_fields__
    assert read(tmp_path, {}) == read(tmp_path, dict.fromkeys(keys)) == ScanNotes()
    assert ScanNotes().sound_offset_s == 0.0
    assert ScanNotes().gaze_offset_s is None


def test_short_forms_are_read(tmp_path):
    assert read(tmp_path, {"pixel_spacing_mm": 0.2}).pixel_spacing_mm == (0.2, 0.2)
    assert read(tmp_path, {"sound_offset_s": "measured"}).sound_offset_s == "measured"
    assert read(tmp_path, {"site": "  "}).site is None


def test_keys_of_other_programs_are_left_alone(tmp_path):
    others = {"index": 3, "simulation": {"crop": 1}, "depth_cm": 12, "machine_id": "x", "operator": None}
    assert read(tmp_path, others) == ScanNotes()


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("gaze_ofset_s", "gaze_offset_s"), ("Patient_ID", "patient_id"), ("pixel_spacing", "pixel_spacing_mm")],
)
def test_a_key_that_is_nearly_one_of_ours_is_refused(tmp_path, misspelt, meant):
    with pytest.raises(SidecarError, match=rf"s: scan\.json: {misspelt} is no key.*write {meant}"):
        read(tmp_path, {misspelt: 1})


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("patient_id", ["a"], "patient_id must be a text"),
        ("site", True, "site must be a text"),
        ("crop", [0, 0, 641, 480], "does not lie within the picture of 640 x 480"),
        ("crop", [0, 0, True, 480], "whole pixels"),
        ("crop", [0, 0, 10], "whole pixels"),
        ("pixel_spacing_mm", 0, "length in mm"),
        ("pixel_spacing_mm", [0.1, 0.1, 0.1], "length in mm"),
        ("screen", [0, 0, 0, 720], "screen .* is empty"),
        ("screen", "full", "in pixels or fractions"),
        ("gaze_offset_s", "1", "number of seconds"),
        ("gaze_offset_s", float("nan"), "number of seconds"),
        ("sound_offset_s", "guess", '"measured"'),
        ("sound_offset_s", True, "number of seconds"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, key, value, sentence):
    with pytest.raises(SidecarError, match=rf"^s: scan\.json: .*{sentence}"):
        read(tmp_path, {key: value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(list(ScanNotes.__dataclass_fields__)), json_values, max_size=3))
def test_any_json_is_read_or_refused_with_a_sentence(tmp_path, notes):
    try:
        assert isinstance(read(tmp_path, notes), ScanNotes)
    except SidecarError as error:
        assert str(error).startswith("s: scan.json") and str(error).endswith(".")


def test_json_without_an_end_is_refused(tmp_path):
    path = tmp_path / "scan.json"
    for text in ("", "{", "[" * 100_000, "[1]"):
        path.write_text(text)
        with pytest.raises(SidecarError, match="JSON"):
            read_notes(path, 640, 480, "s")
