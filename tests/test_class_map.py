"""Class maps: every label has one meaning, and it is one of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.class_map import (
    CLASS_MAPS_DIR,
    FETAL_PLANES_DB_MAP,
    LEAVE_OUT,
    SONONET_MAP,
    ClassMap,
    ClassMapError,
    read_class_map,
)
from datasets_scripts.schema import BACKGROUND, PLANES

SONONET = read_class_map(SONONET_MAP)
CODES = {
    "3VV": "heart_three_vessel_trachea",
    "4CH": "heart_four_chamber",
    "ABDOMINAL": "abdomen",
    "BACKGROUND": "background",
    "BRAIN-CB": "brain_transcerebellar",
    "BRAIN-TV": "brain_transventricular",
    "FEMUR": "femur",
    "KIDNEYS": "kidneys",
    "LIPS": "lips",
    "LVOT": "heart_left_outflow",
    "PROFILE": "profile",
    "RVOT": "heart_right_outflow",
    "SPINE-CORONAL": "spine_coronal",
    "SPINE-SAGITTAL": "spine_sagittal",
}


@pytest.mark.parametrize("path", sorted(CLASS_MAPS_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_maps_can_be_read(path):
    assert read_class_map(path).labels


def test_the_sononet_codes_cover_our_planes():
    assert {code: SONONET.target_of(code, "here") for code in CODES} == CODES
    assert set(CODES.values()) == set(PLANES)


def test_the_fetal_planes_db_map_calls_nothing_ours_that_it_is_not():
    labels = read_class_map(FETAL_PLANES_DB_MAP).labels
    ours = {label: target for label, target in labels.items() if target not in (LEAVE_OUT, BACKGROUND)}
    assert ours == {
        "Fetal abdomen": "abdomen",
        "Fetal femur": "femur",
        "Fetal brain/Trans-ventricular": "brain_transventricular",
        "Fetal brain/Trans-cerebellum": "brain_transcerebellar",
    }
    for unclear in ("Fetal thorax", "Fetal brain/Trans-thalamic", "Other"):
        assert labels[unclear] == LEAVE_OUT


@given(st.sampled_from(PLANES), st.sampled_from([str.upper, str.lower, str.title]))
def test_our_own_names_mean_themselves_in_any_case(plane, case):
    assert ClassMap({}, "empty").target_of(case(plane), "here") == plane
    assert SONONET.target_of(case(plane), "here") == plane


def test_an_unknown_label_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ClassMapError) as error:
        ClassMap({"ARM": "leave_out", "LEG": "femur"}, "map.yaml").target_of("FOOT", "set.csv, line 7")
    message = str(error.value)
    assert message.startswith("set.csv, line 7: map.yaml says nothing of the label 'FOOT'")
    for known in ("ARM", "LEG", *PLANES):
        assert known in message


@pytest.mark.parametrize("target", ["heart", "Femur", None, 3, ["femur"]])
def test_a_target_that_is_none_of_ours_is_an_error_that_lists_ours(target):
    with pytest.raises(ClassMapError) as error:
        ClassMap({"LEG": target}, "map.yaml")
    assert "'LEG'" in str(error.value) and LEAVE_OUT in str(error.value)
    assert all(plane in str(error.value) for plane in PLANES)


def test_one_of_our_names_cannot_become_another():
    with pytest.raises(ClassMapError, match="one of our own planes"):
        ClassMap({"Kidneys": "femur"}, "map.yaml")
    assert ClassMap({"Kidneys": LEAVE_OUT}, "map.yaml").target_of("kidneys", "here") == LEAVE_OUT
    assert ClassMap({"kidneys": BACKGROUND}, "map.yaml").target_of("kidneys", "here") == BACKGROUND


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("labels:\n  A: femur\n  A: lips\n", r"line 3: 'A' is there twice"),
        ("labels:\n  A: femur\n  a: lips\n", r"'a' and 'A' are one label"),
        ("labels:\n  1: femur\n", r"label 1 is no text; write it in quotes"),
        ("labels:\n  no: femur\n", r"label False is no text"),
        ("A: femur\n", "no class map"),
        ("labels: femur\n", "no class map"),
        ("labels: {}\nextra: 1\n", "no class map"),
        ("", "no class map"),
        ("labels: [", "not valid YAML"),
        ("labels:\n  [A, B]: femur\n", "not valid YAML"),
        ("labels:\n  A: thigh\n", "'A' is mapped to 'thigh'"),
    ],
)
def test_a_file_that_is_no_class_map_is_named_with_its_fault(tmp_path, text, complaint):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(ClassMapError, match=complaint) as error:
        read_class_map(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(ClassMapError, match=r"none\.yaml cannot be read"):
        read_class_map(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("labels: {Fötal: femur}".encode("latin-1"))
    with pytest.raises(ClassMapError, match=r"latin\.yaml is not valid YAML"):
        read_class_map(tmp_path / "latin.yaml")


@pytest.mark.parametrize("numbering", ["", "_001", "-2", " (1)", "_01_02", ".7", "_"])
@pytest.mark.parametrize("label", [*CODES, *PLANES])
def test_a_label_is_found_in_the_name_of_a_picture(label, numbering):
    found = SONONET.label_in_name(label + numbering)
    assert SONONET.target_of(found, "here") == SONONET.target_of(label, "here")


@pytest.mark.parametrize(
    "stem", ["BRAIN", "SPINE-1", "FEMUR2", "FEMUR-LIPS", "BRAIN-TV-oblique", "4CHILD", "x_FEMUR"]
)
def test_a_name_that_is_not_clearly_a_label_is_an_unknown_label(stem):
    assert SONONET.label_in_name(stem) == stem
    with pytest.raises(ClassMapError):
        SONONET.target_of(stem, stem)


def test_of_labels_that_fit_the_longest_counts():
    class_map = ClassMap({"SPINE": "spine_sagittal", "SPINE-2": "spine_coronal"}, "map")
    assert class_map.label_in_name("SPINE-2-2") == "spine-2"
    assert class_map.label_in_name("SPINE-22") == "spine"
