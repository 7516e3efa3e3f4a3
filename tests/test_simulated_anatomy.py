"""The planes of a simulated fetus, painted."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from datasets_scripts.schema import BACKGROUND, PLANES
from datasets_scripts.simulated_anatomy import (
    PAINTERS,
    TURN_DEGREES,
    ZOOM,
    draw_anatomy,
    draw_patient,
)
from datasets_scripts.simulated_canvas import (
    BLOOD_DB,
    BONE_DB,
    FLUID_DB,
    FLUID_DB_PER_CM,
    MAP_SIZE,
    PIXEL_CM,
    TISSUE_DB,
    Anatomy,
    Canvas,
    Patient,
)

SEEDS = range(3)
HEART_PLANES = {plane for plane in PLANES if plane.startswith("heart_")}
AVERAGE = Patient(size=1.0, elongation=1.0, mirrored=False, fluid=0.6, heart_angle=np.pi / 4)


@cache
def drawn(plane: str, seed: int) -> Anatomy:
    rng = np.random.default_rng(seed)
    return draw_anatomy(plane, draw_patient(rng), rng)


def at(values: np.ndarray, place_cm: np.ndarray) -> float:
    column, row = np.round(place_cm / PIXEL_CM + (MAP_SIZE - 1) / 2).astype(int)
    return float(values[row, column])


def extents_cm(inside: np.ndarray) -> np.ndarray:
    """Long and short extent of the pixels that are set, along their principal axes."""
    places = np.argwhere(inside) * PIXEL_CM
    axes = np.linalg.svd(places - places.mean(axis=0), full_matrices=False)[2]
    return np.ptp(places @ axes.T, axis=0)


def test_every_plane_has_a_painter_a_zoom_and_a_turn():
    assert set(PAINTERS) == set(ZOOM) == set(TURN_DEGREES) == set(PLANES)
    with pytest.raises(KeyError):
        draw_anatomy("elbow", AVERAGE, np.random.default_rng(0))


@pytest.mark.parametrize("plane", PLANES)
def test_every_plane_can_be_drawn_of_any_patient(plane):
    for seed in SEEDS:
        anatomy = drawn(plane, seed)
        for values in (anatomy.echo_db, anatomy.attenuation_db_per_cm):
            assert values.shape == (MAP_SIZE, MAP_SIZE)
            assert np.isfinite(values).all()
        assert FLUID_DB - 20 < anatomy.echo_db.min() < TISSUE_DB < anatomy.echo_db.max() < BONE_DB + 20
        assert anatomy.attenuation_db_per_cm.min() >= FLUID_DB_PER_CM
        half_cm = PIXEL_CM * MAP_SIZE / 2
        assert len(anatomy.landmarks_cm) >= (2 if plane == BACKGROUND else 3)
        assert np.abs(anatomy.landmarks_cm).max() < half_cm
        assert (anatomy.beating_cm is not None) == (plane in HEART_PLANES)


def test_the_generator_settles_the_drawing():
    first, again = (draw_anatomy("kidneys", AVERAGE, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.echo_db, again.echo_db)
    np.testing.assert_array_equal(first.landmarks_cm, again.landmarks_cm)


@pytest.mark.parametrize("plane", ["femur", "abdomen", "brain_transcerebellar", "lips"])
def test_two_patients_and_two_holds_of_one_patient_differ(plane):
    one = draw_anatomy(plane, AVERAGE, np.random.default_rng(0))
    larger = draw_anatomy(plane, replace(AVERAGE, size=1.1), np.random.default_rng(0))
    held_again = draw_anatomy(plane, AVERAGE, np.random.default_rng(1))
    for other in (larger, held_again):
        assert np.abs(one.echo_db - other.echo_db).max() > 10
    np.testing.assert_allclose(larger.landmarks_cm, 1.1 * one.landmarks_cm, atol=1e-5)
    assert np.abs(held_again.landmarks_cm - one.landmarks_cm).max() > 0.1


def test_patients_differ_in_all_that_a_patient_keeps():
    patients = [draw_patient(np.random.default_rng(seed)) for seed in range(40)]
    for name in ("size", "elongation", "fluid", "heart_angle"):
        assert len({getattr(patient, name) for patient in patients}) == len(patients)
    assert 10 < sum(patient.mirrored for patient in patients) < 30
    assert np.mean([patient.size for patient in patients]) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("plane", ["heart_four_chamber", "abdomen", "profile"])
def test_a_mirrored_patient_is_the_mirror_image(plane):
    canvases = []
    for mirrored in (False, True):
        canvas = Canvas(replace(AVERAGE, mirrored=mirrored), np.random.default_rng(4), turn_degrees=0.0)
        PAINTERS[plane](canvas)
        canvases.append(canvas)
    plain, mirror = canvases
    assert plain.bone.any()
    np.testing.assert_allclose(mirror.bone, plain.bone[:, ::-1], atol=1e-5)
    one, other = plain.finished(), mirror.finished()
    np.testing.assert_allclose(other.landmarks_cm, one.landmarks_cm * [-1, 1], atol=1e-5)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_fetus_keeps_its_shape_and_its_side(mirrored):
    """Landmarks of a turned canvas are those of a level one, turned: a rotation with or without a flip."""
    patient = replace(AVERAGE, mirrored=mirrored)
    anatomy = draw_anatomy("abdomen", patient, np.random.default_rng(5))
    canvas = Canvas(AVERAGE, np.random.default_rng(5), TURN_DEGREES["abdomen"])
    PAINTERS["abdomen"](canvas)
    fetal = np.array(canvas.landmarks)
    matrix = np.linalg.lstsq(fetal, anatomy.landmarks_cm, rcond=None)[0]
    scale = np.sqrt(abs(np.linalg.det(matrix)))
    np.testing.assert_allclose(matrix @ matrix.T, scale**2 * np.eye(2), atol=1e-4)
    assert scale == pytest.approx(1.0, abs=0.2)
    assert np.sign(np.linalg.det(matrix)) == (-1 if mirrored else 1)


def test_sizes_are_those_of_20_weeks():
    """Biparietal diameter 4.7 cm, femur 3.2 cm (Hadlock et al., 1984), here with the width of the echo."""
    skulls, femurs = (
        np.mean([extents_cm(drawn_bone(plane, seed)) for seed in range(5)], axis=0)
        for plane in ("brain_transventricular", "femur")
    )
    assert skulls[1] == pytest.approx(4.7, abs=0.4)
    assert skulls[0] / skulls[1] == pytest.approx(1 / 0.78, abs=0.12)  # cephalic index about 0.78
    assert femurs[0] == pytest.approx(3.2, abs=0.6)
    assert femurs[1] < 0.8


def drawn_bone(plane: str, seed: int) -> np.ndarray:
    return draw_anatomy(plane, AVERAGE, np.random.default_rng(seed)).attenuation_db_per_cm > 4


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_is_fluid_bone_and_blood_is_painted_so_and_landmarks_find_it(mirrored):
    canvas = Canvas(replace(AVERAGE, mirrored=mirrored), np.random.default_rng(0), turn_degrees=75.0)
    canvas.ellipse((0.0, 0.0), (2.0, 2.0), TISSUE_DB)
    canvas.ellipse((-1.0, 0.0), (0.4, 0.4), FLUID_DB)
    canvas.vessel([(0.5, -1.0), (0.5, 1.0)], 0.5)
    canvas.ossified((1.4, 0.0), 0.2)
    canvas.rim((0.0, 0.0), (3.0, 3.0), BONE_DB, 0.2, arc_degrees=(60, 120), bone=0.5)
    canvas.look_at((-1.0, 0.0), (0.5, 0.0), (1.4, 0.0), (0.0, 3.0), (0.0, -3.0), (0.0, 1.5))
    anatomy = canvas.finished()
    fluid, blood, bone, rim, outside_arc, tissue = anatomy.landmarks_cm
    levels_db = [at(anatomy.echo_db, place) for place in (fluid, blood, tissue, bone)]
    assert levels_db == sorted(levels_db)
    np.testing.assert_allclose(levels_db, [FLUID_DB, BLOOD_DB, TISSUE_DB, BONE_DB], atol=11)
    shadows = [at(anatomy.attenuation_db_per_cm, place) for place in (bone, rim, tissue, blood)]
    assert shadows[0] == pytest.approx(2 * shadows[1])
    assert shadows[2] == 0
    assert shadows[3] == pytest.approx(FLUID_DB_PER_CM)
    assert at(anatomy.attenuation_db_per_cm, outside_arc) <= 0


def test_the_beating_part_is_where_the_heart_was_painted():
    canvas = Canvas(replace(AVERAGE, size=1.2, mirrored=True), np.random.default_rng(0), turn_degrees=0.0)
    PAINTERS["heart_four_chamber"](canvas)
    x, y, radius = canvas.heart
    canvas.look_at((x, y))
    anatomy = canvas.finished()
    np.testing.assert_allclose(anatomy.beating_cm[:2], anatomy.landmarks_cm[-1], atol=1e-5)
    assert anatomy.beating_cm[2] == pytest.approx(1.2 * radius)
    assert at(anatomy.echo_db, anatomy.landmarks_cm[0]) < TISSUE_DB - 15  # a ventricle holds blood


def test_a_surface_gleams_where_the_beam_meets_it_squarely_and_a_spot_stays_bright():
    """Rings and dots of one level around the middle of the map, from above which the beams come."""
    canvas = Canvas(AVERAGE, np.random.default_rng(0), turn_degrees=0.0)
    canvas.ellipse((0.0, 0.0), (4.0, 4.0), TISSUE_DB - 10)
    canvas.rim((0.0, 0.0), (2.5, 2.5), BONE_DB, 0.2)
    canvas.ossified((0.0, 0.0), 0.12)
    for degrees in (-90, 90, 180, 0):
        turns = np.deg2rad(np.linspace(degrees - 15, degrees + 15, 31))
        canvas.look_at(*zip(2.5 * np.cos(turns), 2.5 * np.sin(turns), strict=True))
    anatomy = canvas.finished()
    levels_db = [at(anatomy.echo_db, place) for place in anatomy.landmarks_cm]
    top, bottom, left, right = np.mean(np.reshape(levels_db, (4, -1)), axis=1)
    assert min(top, bottom) > BONE_DB + 2
    assert max(left, right) < BONE_DB - 4
    middle = slice(MAP_SIZE // 2 - 6, MAP_SIZE // 2 + 6)
    spot = anatomy.echo_db[middle, middle]
    assert spot.max() - np.median(spot) == pytest.approx(BONE_DB - (TISSUE_DB - 10), abs=5)


def test_a_small_thing_is_painted_in_full_wherever_it_lies():
    """Only a window of the map is painted; what is painted ends before the window does."""
    for turn in (0.0, 180.0):
        canvas = Canvas(AVERAGE, np.random.default_rng(1), turn)
        canvas.echo_db[:] = 0.0
        canvas.ellipse((1.5, -2.0), (1.2, 0.2), -20.0, degrees=35.0)
        canvas.rim((-2.0, 1.0), (1.1, 0.3), -20.0, 0.3, degrees=-50.0)
        canvas.line([(-3.0, -3.0), (0.5, 2.5)], -20.0, 0.2)
        windows, canvas._window = canvas.echo_db.copy(), lambda *_: (slice(None), slice(None))
        canvas.echo_db[:] = 0.0
        canvas.ellipse((1.5, -2.0), (1.2, 0.2), -20.0, degrees=35.0)
        canvas.rim((-2.0, 1.0), (1.1, 0.3), -20.0, 0.3, degrees=-50.0)
        canvas.line([(-3.0, -3.0), (0.5, 2.5)], -20.0, 0.2)
        np.testing.assert_array_equal(windows, canvas.echo_db)
        assert (windows < -19).mean() > 0.01
