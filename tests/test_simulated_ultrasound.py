"""The pictures of the simulated probe: speckle, attenuation, shadows, geometry."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from datasets_scripts.schema import BACKGROUND, PLANES
from datasets_scripts.simulated_anatomy import ZOOM, draw_anatomy, draw_patient
from datasets_scripts.simulated_canvas import (
    BONE_DB_PER_CM,
    FLUID_DB,
    FLUID_DB_PER_CM,
    MAP_SIZE,
    PIXEL_CM,
    Anatomy,
)
from datasets_scripts.simulated_probe import draw_wander
from datasets_scripts.simulated_ultrasound import (
    BEAMS,
    HAZE_DB_PER_CM,
    PERSISTENCE,
    SAMPLES,
    WHITE_DB,
    Pose,
    Renderer,
    Style,
    Tissue,
    draw_style,
    with_scatterers,
)

# Neither wall nor noise nor slope: what is left is speckle.
BARE = Style(
    probe_radius_cm=5.0,
    half_angle_degrees=30.0,
    depth_cm=8.0,
    axial_cm=0.045,
    lateral_degrees=0.65,
    gain_db=0.0,
    dynamic_range_db=50.0,
    gamma=1.0,
    slope_db_per_cm=0.0,
    wall_cm=-1.0,
    noise_db=-200.0,
    compounding=0.0,
    edge_loss_db=0.0,
    haze_db=-200.0,
)
SIZE = 64
AXIS_CM = (np.arange(MAP_SIZE) - (MAP_SIZE - 1) / 2) * PIXEL_CM
X_CM, Y_CM = np.meshgrid(AXIS_CM, AXIS_CM)


def tissue_of(
    echo_db: float | np.ndarray = 0.0, attenuation: float | np.ndarray = 0.0, seed: int = 0
) -> Tissue:
    shape = (MAP_SIZE, MAP_SIZE)
    anatomy = Anatomy(
        np.broadcast_to(np.float32(echo_db), shape),
        np.broadcast_to(np.float32(attenuation), shape),
        np.zeros((0, 2), np.float32),
    )
    return with_scatterers(anatomy, np.random.default_rng(seed))


def renderer(style: Style = BARE, size: int = SIZE, seed: int = 0) -> Renderer:
    return Renderer(style, size, np.random.default_rng(seed))


@cache
def uniform_envelopes() -> np.ndarray:
    """Envelopes of a uniform medium, each depth divided by its mean, (tissues, SAMPLES, BEAMS)."""
    probe = renderer()
    envelopes = 10 ** (np.array([probe.envelope_db(tissue_of(seed=s), Pose()) for s in range(12)]) / 20)
    return envelopes / envelopes.mean(axis=(0, 2), keepdims=True)


def in_sector(probe: Renderer, places: np.ndarray) -> np.ndarray:
    """Whether places of the picture, x and y in 0..1, lie in the sector of a convex probe."""
    origin, below = probe.to_picture(np.array([[0.0, 0.0], [0.0, 1.0]]), Pose())
    side = 1 / (below[1] - origin[1])
    x_cm, y_cm = ((places - origin) * side + probe.centre_cm).T
    from_middle = y_cm + probe.style.probe_radius_cm
    depth_cm = np.hypot(x_cm, from_middle) - probe.style.probe_radius_cm
    degrees = np.rad2deg(np.arctan2(x_cm, from_middle))
    on_screen = np.all((places >= 0) & (places <= 1), axis=1)
    in_depth = (depth_cm >= 0) & (depth_cm <= probe.style.depth_cm)
    return on_screen & in_depth & (np.abs(degrees) <= probe.style.half_angle_degrees)


def test_speckle_of_a_uniform_medium_is_rayleigh_distributed():
    """Mean over standard deviation is 1.91 (Burckhardt, 1978), and so are the quantiles."""
    envelope = uniform_envelopes()
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), abs=0.05)
    for level in (0.25, 0.5, 1.0, 1.5, 2.0):
        assert np.mean(envelope < level) == pytest.approx(1 - np.exp(-np.pi / 4 * level**2), abs=0.015)


def test_a_second_look_smooths_the_speckle_and_keeps_its_level():
    """Two independent looks of equal power have a ratio of mean to deviation of 2.71, not 1.91."""
    one, both = (
        np.exp(renderer(replace(BARE, compounding=share)).envelope_db(tissue_of(), Pose()) * np.log(10) / 20)
        for share in (0.0, 0.5)
    )
    # The root of a Gamma(2) variable, the mean power of two exponential ones.
    mean, mean_square = 1.3293, 2.0
    assert both.mean() / both.std() == pytest.approx(mean / np.sqrt(mean_square - mean**2), abs=0.2)
    assert one.mean() / one.std() == pytest.approx(1.91, abs=0.12)
    assert np.mean(both**2) == pytest.approx(np.mean(one**2), rel=0.05)


def test_the_outer_beams_lack_what_the_style_says():
    whole, lacking = (
        renderer(replace(BARE, edge_loss_db=loss)).envelope_db(tissue_of(), Pose()).mean(axis=0)
        for loss in (0.0, 8.0)
    )
    lost_db = whole - lacking
    np.testing.assert_allclose(lost_db[[0, -1]], 8.0, atol=0.01)
    assert np.abs(lost_db[BEAMS // 2 - 15 : BEAMS // 2 + 15]).max() < 0.1


def test_what_lies_behind_fluid_is_brighter():
    pocket = (np.abs(X_CM) < 0.8) & (np.abs(Y_CM) < 0.5)
    plain, behind = (
        renderer().envelope_db(tissue_of(0.0, FLUID_DB_PER_CM * pool), Pose())
        for pool in (0 * pocket, pocket)
    )
    gained_db = behind - plain
    assert gained_db[-10:, BEAMS // 2 - 4 : BEAMS // 2 + 4].mean() == pytest.approx(2.0, abs=0.3)
    assert np.abs(gained_db[:40]).max() < 1e-3
    assert np.abs(gained_db[:, :12]).max() < 1e-3


def test_tissue_is_shown_a_little_darker_than_the_middle_of_the_greys():
    """The mean level of speckle is 2.5 dB below that of its power, which is 3 dB for parts of variance 1."""
    probe = renderer()
    inside = renderer().picture(tissue_of(80.0), Pose()) == 255
    greys = probe.picture(tissue_of(), Pose())[inside] / 255
    assert greys.mean() == pytest.approx(1 - (WHITE_DB - 0.5) / BARE.dynamic_range_db, abs=0.02)
    assert 0.3 < greys.mean() < 0.5


def test_a_haze_hangs_below_the_wall_and_thins_out():
    hazy = replace(BARE, wall_cm=1.0, haze_db=-20.0)
    level_db = np.mean(
        [renderer(hazy, seed=seed).envelope_db(tissue_of(-150.0), Pose()).mean(axis=1) for seed in range(12)],
        axis=0,
    )
    depths_cm = np.linspace(0, BARE.depth_cm, SAMPLES)
    near, far = (level_db[(depths_cm > low) & (depths_cm < low + 1)].mean() for low in (1.4, 3.4))
    assert -40 < near < -20
    assert near - far == pytest.approx(2 * HAZE_DB_PER_CM, abs=2)


def test_speckle_is_wider_across_than_along_the_beam_and_widens_with_depth():
    def width(axis: int, rows: slice) -> float:
        """Samples until the correlation of the intensity has fallen to a half."""
        intensity = uniform_envelopes()[:, rows] ** 2
        intensity = intensity - intensity.mean()
        lags = range(12)
        length = intensity.shape[axis]
        correlation = [
            np.mean(
                np.take(intensity, range(length - lag), axis) * np.take(intensity, range(lag, length), axis)
            )
            for lag in lags
        ]
        return float(np.interp(-0.5, -np.array(correlation) / correlation[0], lags))

    sample_cm = BARE.depth_cm / (SAMPLES - 1)
    beam_radians = 2 * np.deg2rad(BARE.half_angle_degrees) / (BEAMS - 1)
    axial_cm, lateral_cm = [], []
    for rows in (slice(35, 65), slice(115, 145)):
        range_cm = BARE.probe_radius_cm + sample_cm * (rows.start + rows.stop) / 2
        axial_cm.append(width(1, rows) * sample_cm)
        lateral_cm.append(width(2, rows) * beam_radians * range_cm)
    assert lateral_cm[0] > 1.3 * axial_cm[0]
    assert lateral_cm[1] > 1.3 * lateral_cm[0]
    assert axial_cm[1] == pytest.approx(axial_cm[0], rel=0.2)
    # The intensity's correlation for a Gaussian pulse of deviation s is a half at s sqrt(2 ln 2).
    assert axial_cm[0] == pytest.approx(BARE.axial_cm * np.sqrt(2 * np.log(2)), rel=0.45)


def test_speckle_is_as_strong_as_its_scatterers_whatever_the_resolution():
    """Complex scatterers of unit deviation in both parts: an intensity of 2, or 3 dB."""
    for resolution in (0.5, 1.0, 2.0):
        style = replace(
            BARE, axial_cm=resolution * BARE.axial_cm, lateral_degrees=resolution * BARE.lateral_degrees
        )
        deep_db = renderer(style).envelope_db(tissue_of(), Pose())[100:]
        assert 10 * np.log10(np.mean(10 ** (deep_db / 10))) == pytest.approx(3.0, abs=1.5)


def test_echoes_fall_with_depth_as_the_style_says():
    flat, falling = (
        renderer(replace(BARE, slope_db_per_cm=slope)).envelope_db(tissue_of(), Pose())
        for slope in (0.0, -1.5)
    )
    depths_cm = np.linspace(0, BARE.depth_cm, SAMPLES)
    np.testing.assert_allclose(falling - flat, np.tile(-1.5 * depths_cm[:, None], BEAMS), atol=0.01)


def test_gain_raises_everything_and_noise_fills_the_dark():
    quiet, loud = (
        renderer(replace(BARE, gain_db=gain)).envelope_db(tissue_of(), Pose()) for gain in (0.0, 6.0)
    )
    np.testing.assert_allclose(loud - quiet, 6.0, atol=0.01)
    dark = tissue_of(-150.0)
    levels = [
        renderer(replace(BARE, noise_db=noise_db)).envelope_db(dark, Pose()).mean()
        for noise_db in (-50.0, -40.0)
    ]
    assert levels[1] - levels[0] == pytest.approx(10.0, abs=0.5)
    assert levels[0] == pytest.approx(-50.0 + 1.0, abs=1.0)  # a Rayleigh variable's mean level in decibels


def shadow_db(bone: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean level over depth, behind bone and beside it, against the same tissue without the bone."""
    block = (np.abs(X_CM) < 0.8) & (np.abs(Y_CM) < 0.15)
    without, shadowed = (
        renderer().envelope_db(tissue_of(0.0, strength * block), Pose()) for strength in (0.0, bone)
    )
    loss_db = without - shadowed
    return loss_db[:, BEAMS // 2 - 4 : BEAMS // 2 + 4].mean(axis=1), loss_db[:, :12].mean(axis=1)


def test_bone_casts_a_shadow_behind_it_and_nowhere_else():
    behind_db, beside_db = shadow_db(BONE_DB_PER_CM)
    bone_row = round(renderer().centre_cm[1] / BARE.depth_cm * (SAMPLES - 1))
    before, after = slice(0, bone_row - 6), slice(bone_row + 6, None)
    assert np.abs(behind_db[before]).max() < 1e-3
    assert np.abs(beside_db).max() < 1e-3
    assert behind_db[after].min() > 12.0
    assert np.ptp(behind_db[after]) < 1.0  # what is lost stays lost


def test_a_shadow_grows_with_the_bone_up_to_a_limit():
    deep_db = [shadow_db(bone)[0][-10:].mean() for bone in (0.0, 10.0, 20.0, 1000.0, 2000.0)]
    assert deep_db[0] == 0
    assert deep_db[2] == pytest.approx(2 * deep_db[1], rel=0.02)
    assert deep_db[3] > deep_db[2]
    assert deep_db[4] == pytest.approx(deep_db[3])
    assert deep_db[4] < 60.0


def test_fluid_is_darker_than_tissue():
    circle = np.hypot(X_CM, Y_CM) < 1.0
    picture = renderer(replace(BARE, noise_db=-45.0)).picture(
        tissue_of(np.where(circle, FLUID_DB, 0.0)), Pose()
    )
    probe = renderer()
    x, y = np.round(probe.to_picture(np.array([[0.0, 0.0]]), Pose())[0] * SIZE).astype(int)
    fluid, tissue = picture[y - 2 : y + 3, x - 2 : x + 3], picture[y - 2 : y + 3, x + 14 : x + 19]
    assert fluid.mean() < 30
    assert tissue.mean() > 100


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_is_black_outside_the_sector_and_bright_in_it(seed):
    style = replace(draw_style(np.random.default_rng(seed)), noise_db=-10.0)
    probe = renderer(style)
    picture = probe.picture(tissue_of(10.0), Pose())
    assert (picture.dtype, picture.shape) == (np.uint8, (SIZE, SIZE))
    centres = (np.arange(SIZE) + 0.5) / SIZE
    places = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    inside = in_sector(probe, places).reshape(SIZE, SIZE)
    assert 0.4 < inside.mean() < 0.95
    np.testing.assert_array_equal(picture > 0, inside)


def test_samples_come_to_lie_at_their_depth_and_angle():
    probe = renderer(size=96)
    depths, angles = np.meshgrid(np.linspace(0, 1, SAMPLES), np.linspace(0, 1, BEAMS), indexing="ij")
    x, y = np.stack(np.meshgrid(*[(np.arange(96) + 0.5) / 96] * 2))
    origin, below = probe.to_picture(np.array([[0.0, 0.0], [0.0, 1.0]]), Pose())
    x_cm = (x - origin[0]) / (below[1] - origin[1])
    y_cm = (y - origin[1]) / (below[1] - origin[1]) + probe.centre_cm[1] + BARE.probe_radius_cm
    depth = (np.hypot(x_cm, y_cm) - BARE.probe_radius_cm) / BARE.depth_cm
    angle = np.rad2deg(np.arctan2(x_cm, y_cm)) / BARE.half_angle_degrees / 2 + 0.5
    for grey, expected in ((depths, depth), (angles, angle)):
        picture = probe._sector(grey)
        inside = probe._sector(np.ones_like(grey)) > 0
        np.testing.assert_allclose(picture[inside], 255 * expected[inside], atol=0.6)


@pytest.mark.parametrize("plane", [plane for plane in PLANES if plane != BACKGROUND])
def test_landmarks_lie_in_the_sector_of_every_patient_s_picture(plane):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        probe = Renderer(draw_style(rng), SIZE, rng)
        patient, wander = draw_patient(rng), draw_wander(rng)
        landmarks_cm = draw_anatomy(plane, patient, rng).landmarks_cm
        for time_s in np.linspace(0, 20, 9):
            x_cm, y_cm, turn = wander.at(time_s)
            pose = Pose(x_cm, y_cm, turn, ZOOM[plane] * rng.normal(1, 0.05))
            assert in_sector(probe, probe.to_picture(landmarks_cm, pose)).all()


@pytest.mark.parametrize(
    "pose",
    [
        Pose(),
        Pose(x_cm=0.7, y_cm=-0.4),
        Pose(turn=0.5),
        Pose(zoom=1.3),
        Pose(x_cm=-0.3, y_cm=0.5, turn=-0.4, zoom=0.8),
    ],
)
def test_a_place_of_the_tissue_appears_where_to_picture_says(pose):
    size = 128
    for place_cm in ((0.0, 0.0), (1.4, -0.9), (-1.2, 1.1)):
        dot = np.hypot(X_CM - place_cm[0], Y_CM - place_cm[1]) < 0.25
        probe = renderer(size=size)
        picture = probe.picture(tissue_of(np.where(dot, 20.0, -100.0)), pose)
        row, column = center_of_mass(picture > 60)
        expected = probe.to_picture(np.array([place_cm]), pose)[0]
        np.testing.assert_allclose((np.array([column, row]) + 0.5) / size, expected, atol=0.015)


def test_the_heart_beats_and_nothing_else_does():
    rng = np.random.default_rng(0)
    patient = draw_patient(rng)
    for plane in ("heart_four_chamber", "heart_three_vessel_trachea", "abdomen", "femur"):
        tissue = with_scatterers(draw_anatomy(plane, patient, rng), rng)
        rest, beat = (renderer().picture(tissue, Pose(beat=beat)).astype(int) for beat in (0.0, 1.0))
        changed = np.abs(beat - rest) > 25
        if tissue.anatomy.beating_cm is None:
            assert not changed.any()
            continue
        x_cm, y_cm, radius_cm = tissue.anatomy.beating_cm
        corners = renderer().to_picture(np.array([[x_cm, y_cm], [x_cm + 1.4 * radius_cm, y_cm]]), Pose())
        reach = np.linalg.norm(corners[1] - corners[0]) * SIZE + 2
        rows, columns = np.nonzero(changed)
        assert len(rows) > 30
        assert np.hypot(columns - corners[0, 0] * SIZE, rows - corners[0, 1] * SIZE).max() < reach


def test_on_the_way_to_another_plane_the_beam_takes_in_of_both():
    one, other = tissue_of(0.0, seed=1), tissue_of(-20.0, seed=2)
    alone, with_none, with_all, target = (
        renderer().envelope_db(*arguments)
        for arguments in (
            (one, Pose()),
            (one, Pose(), other, 0.0),
            (one, Pose(), other, 1.0),
            (other, Pose()),
        )
    )
    np.testing.assert_array_equal(with_none, alone)
    np.testing.assert_allclose(with_all, target, atol=1e-3)
    between = renderer().envelope_db(one, Pose(), other, 0.5)
    assert target.mean() < between.mean() < alone.mean()


def test_a_picture_keeps_a_share_of_the_one_before():
    bright, dark = tissue_of(10.0), tissue_of(-150.0)
    probe = renderer()
    first = probe.picture(bright, Pose()).astype(float)
    second = probe.picture(dark, Pose()).astype(float)
    assert renderer().picture(dark, Pose()).max() == 0
    np.testing.assert_allclose(second, PERSISTENCE * first, atol=1.0)


def test_the_mother_s_wall_lies_under_the_probe():
    style = replace(BARE, wall_cm=1.2)
    level_db = renderer(style).envelope_db(tissue_of(-150.0), Pose()).mean(axis=1)
    depths_cm = np.linspace(0, BARE.depth_cm, SAMPLES)
    assert level_db[depths_cm < 1.0].min() > -25
    assert level_db[depths_cm > 1.5].max() < -100


def test_every_scan_has_a_look_of_its_own():
    tissue = tissue_of(-5.0)
    first, again, other = (
        Renderer(draw_style(rng), SIZE, rng).picture(tissue, Pose())
        for rng in map(np.random.default_rng, (1, 1, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


@pytest.mark.parametrize("plane", PLANES)
def test_every_plane_gives_a_picture(plane):
    rng = np.random.default_rng(PLANES.index(plane))
    probe = Renderer(draw_style(rng), SIZE, rng)
    tissue = with_scatterers(draw_anatomy(plane, draw_patient(rng), rng), rng)
    assert np.isfinite(probe.envelope_db(tissue, Pose())).all()
    picture = probe.picture(tissue, Pose(zoom=ZOOM[plane], beat=0.5))
    assert picture.std() > 20
    assert 10 < picture.mean() < 160
