"""What lies under the probe: the 13 standard planes and background, drawn anew a patient.

Each plane is painted after what the ISUOG guidelines for the mid-trimester scan (Salomon et al., 2011 and
2022) and for the fetal heart (Carvalho et al., 2013) ask to be seen, at the sizes of 20 weeks (biparietal
diameter 4.7 cm, abdominal circumference 15 cm, femur 3.2 cm; Hadlock et al., 1984).
"""

from collections.abc import Callable

import numpy as np

from .schema import BACKGROUND
from .simulated_canvas import (
    BLOOD_DB,
    BONE_DB,
    BRAIN_DB,
    BRIGHT_DB,
    FLUID_DB,
    TISSUE_DB,
    Anatomy,
    Canvas,
    Patient,
)


def draw_patient(rng: np.random.Generator) -> Patient:
    """A fetus of about 20 weeks."""
    return Patient(
        size=rng.normal(1.0, 0.07),
        elongation=rng.normal(1.0, 0.05),
        mirrored=bool(rng.random() < 0.5),
        fluid=rng.uniform(0.15, 0.75),
        heart_angle=np.deg2rad(rng.normal(45.0, 9.0)),
    )


def draw_anatomy(label: str, patient: Patient, rng: np.random.Generator) -> Anatomy:
    """The plane `label` of a patient as one hold of the probe cuts it: no two holds are quite alike.

    Raises:
        KeyError: `label` is none of the planes.
    """
    paint = PAINTERS[label]
    canvas = Canvas(patient, rng, turn_degrees=TURN_DEGREES[label])
    paint(canvas)
    return canvas.finished()


def _trunk(canvas: Canvas, radii: tuple[float, float] = (2.45, 2.2), level_db: float = TISSUE_DB) -> None:
    """A cut across the body: skin, wall, content, ribs on both sides, spine at the far end."""
    wide, high = canvas.vary(radii[0] * canvas.patient.elongation, 0.05), canvas.vary(radii[1], 0.05)
    canvas.ellipse((0, 0), (wide, high), level_db)
    canvas.rim((0, 0), (wide, high), BRIGHT_DB, 0.16)
    canvas.rim((0, 0), (wide - 0.3, high - 0.3), TISSUE_DB - 9, 0.22)
    for middle in (0.0, 180.0):
        spread = canvas.rng.uniform(12, 32)
        arc = (middle + 12 - spread, middle + 12 + spread)
        canvas.rim((0, 0), (wide - 0.42, high - 0.42), BONE_DB - 3, 0.13, arc_degrees=arc, bone=0.35)
    _vertebra(canvas, (0.0, high - 0.55))


def _vertebra(canvas: Canvas, centre: tuple[float, float]) -> None:
    """A vertebra in a cut across: three centres of ossification around the canal."""
    x, y = centre
    for dx, dy in ((0.0, -0.16), (-0.24, 0.17), (0.24, 0.17)):
        canvas.ossified(canvas.shift(x + dx, y + dy, 0.02), canvas.vary(0.11))
    canvas.ellipse((x, y + 0.1), (0.1, 0.1), FLUID_DB)


def _skull(canvas: Canvas) -> tuple[float, float]:
    """The skull with the brain and its midline; returns the half-axes."""
    long, short = canvas.vary(2.95 * canvas.patient.elongation, 0.04), canvas.vary(2.3, 0.04)
    canvas.ellipse((0, 0), (long + 0.25, short + 0.25), TISSUE_DB - 4)
    canvas.ellipse((0, 0), (long, short), BRAIN_DB)
    canvas.rim((0, 0), (long, short), BONE_DB, 0.19, bone=0.16)
    canvas.line([(-long + 0.35, 0.0), (-1.1, 0.0)], BRIGHT_DB, 0.08)
    return long, short


def _cavum(canvas: Canvas) -> tuple[float, float]:
    """Cavum septi pellucidi: a small box of fluid in the front third of the midline."""
    x = canvas.vary(-1.05, 0.08)
    for y in (-0.17, 0.17):
        canvas.line([(x - 0.3, y), (x + 0.3, y)], BRIGHT_DB + 2, 0.07)
    canvas.ellipse((x, 0.0), (0.28, 0.12), FLUID_DB)
    return x, 0.0


def _thalami(canvas: Canvas, x: float) -> None:
    for y in (-0.34, 0.34):
        canvas.ellipse((x, y), (0.5, 0.3), BRAIN_DB - 7)
    canvas.line([(x - 0.45, 0), (x + 0.45, 0)], BRIGHT_DB - 3, 0.06)


def paint_transventricular(canvas: Canvas) -> None:
    """Head across the ventricles: midline, cavum, and the far ventricle with its choroid plexus."""
    long, _ = _skull(canvas)
    canvas.line([(0.4, 0.0), (long - 0.3, 0.0)], BRIGHT_DB, 0.08)
    cavum = _cavum(canvas)
    ventricle = canvas.shift(0.95, 0.95)
    turn = canvas.rng.normal(14, 5)
    canvas.ellipse(ventricle, (1.15, 0.36), BRIGHT_DB - 2, turn)
    canvas.ellipse(ventricle, (1.06, 0.28), FLUID_DB, turn)
    plexus = (ventricle[0] - 0.15, ventricle[1] - 0.02)
    canvas.ellipse(plexus, (0.62, 0.22), BRIGHT_DB + 1, turn)
    canvas.ellipse((0.5, -0.95), (0.75, 0.22), BRIGHT_DB - 6, -turn)
    canvas.look_at(ventricle, plexus, cavum, (0.9, 0.0))


def paint_transcerebellar(canvas: Canvas) -> None:
    """Head tilted back: thalami, cerebellum as a dumb-bell, cisterna magna behind it."""
    long, _ = _skull(canvas)
    cavum = _cavum(canvas)
    _thalami(canvas, canvas.vary(-0.05, 0.5))
    x = canvas.vary(1.45, 0.06)
    canvas.ellipse((x + 0.52, 0), (0.55, 0.95), FLUID_DB)
    for side in (-1, 1):
        lobe = canvas.shift(x, side * 0.56, 0.04)
        canvas.ellipse(lobe, (0.46, 0.58), BRIGHT_DB)
        canvas.ellipse(lobe, (0.37, 0.49), TISSUE_DB - 8)
        for dx in (-0.14, 0.1):
            canvas.line([(lobe[0] + dx, lobe[1] - 0.3), (lobe[0] + dx, lobe[1] + 0.3)], TISSUE_DB, 0.05)
        canvas.look_at(lobe)
    canvas.ellipse((x + 0.02, 0), (0.26, 0.2), BRIGHT_DB + 3)
    canvas.look_at((x, 0.0), (min(x + 0.7, long - 0.3), 0.0), cavum)


def _heart(canvas: Canvas) -> Callable[[float, float], tuple[float, float]]:
    """Chest and heart muscle; returns where (along, across) the heart's axis, in cm, lies."""
    _trunk(canvas)
    centre = canvas.shift(-0.25, -0.35)
    angle = canvas.patient.heart_angle + np.deg2rad(canvas.rng.normal(180.0, 7.0))
    axis = (np.cos(angle), np.sin(angle))

    def place(along: float, across: float) -> tuple[float, float]:
        return centre[0] + along * axis[0] - across * axis[1], centre[1] + along * axis[1] + across * axis[0]

    canvas.heart = (*centre, 1.35)
    canvas.ellipse(centre, (1.5, 1.16), BLOOD_DB + 8, np.rad2deg(angle))
    canvas.ellipse(centre, (1.42, 1.08), TISSUE_DB - 3, np.rad2deg(angle))
    return place


def _heart_degrees(place: Callable[[float, float], tuple[float, float]]) -> float:
    (x0, y0), (x1, y1) = place(0, 0), place(1, 0)
    return float(np.rad2deg(np.arctan2(y1 - y0, x1 - x0)))


def paint_four_chamber(canvas: Canvas) -> None:
    """Chest across the heart: two ventricles, two atria, a cross of septum and valves between them."""
    place = _heart(canvas)
    degrees = _heart_degrees(place)
    for side in (-1, 1):
        ventricle, atrium = place(0.5, side * 0.43), place(-0.64, side * 0.43)
        canvas.chamber(ventricle, (canvas.vary(0.62), canvas.vary(0.34)), degrees)
        canvas.chamber(atrium, (canvas.vary(0.46), canvas.vary(0.39)), degrees)
        canvas.look_at(ventricle, atrium)
    canvas.line([place(1.2, 0), place(0.0, 0), place(-0.35, 0)], BRIGHT_DB, 0.13)
    canvas.line([place(-0.08, -0.7), place(0.02, 0), place(-0.08, 0.7)], BRIGHT_DB + 1, 0.09)
    canvas.chamber(canvas.shift(0.45, 1.15, 0.04), (0.2, 0.2))
    canvas.look_at(place(0, 0), place(0, 0))


def paint_left_outflow(canvas: Canvas) -> None:
    """The long left ventricle, running on into the aorta without a step in the septum."""
    place = _heart(canvas)
    degrees = _heart_degrees(place)
    canvas.chamber(place(0.42, 0.3), (canvas.vary(0.78), canvas.vary(0.3)), degrees)
    canvas.chamber(place(0.4, -0.5), (canvas.vary(0.6), canvas.vary(0.2)), degrees)
    canvas.chamber(place(-0.72, 0.62), (canvas.vary(0.4), canvas.vary(0.34)), degrees)
    valve, bend, end = place(-0.3, 0.1), place(-0.85, -0.25), place(-1.45, -0.85)
    canvas.vessel([place(0.0, 0.24), valve, bend, end], canvas.vary(0.32))
    canvas.line([place(1.15, -0.12), place(-0.2, -0.12), bend], BRIGHT_DB, 0.1)
    canvas.look_at(valve, valve, bend, place(0.4, 0.3))


def paint_right_outflow(canvas: Canvas) -> None:
    """The pulmonary artery leaving the right ventricle, crossing over the aorta seen end on."""
    place = _heart(canvas)
    degrees = _heart_degrees(place)
    canvas.chamber(place(0.55, -0.4), (canvas.vary(0.6), canvas.vary(0.36)), degrees)
    start, bend, end = place(0.45, -0.5), place(-0.35, -0.72), place(-1.35, -0.05)
    canvas.vessel([start, bend, place(-0.95, -0.52), end], canvas.vary(0.34))
    aorta = place(-0.4, 0.02)
    canvas.ellipse(aorta, (0.36, 0.36), BRIGHT_DB + 1)
    canvas.chamber(aorta, (0.27, 0.27))
    canvas.chamber(place(-0.7, 0.62), (canvas.vary(0.34), canvas.vary(0.2)), degrees + 30)
    canvas.look_at(aorta, bend, end, place(-0.2, -0.7))


def paint_three_vessel_trachea(canvas: Canvas) -> None:
    """Upper chest: ductal and aortic arch meeting as a V, the vena cava, the trachea with its bright ring."""
    _trunk(canvas, radii=(2.5, 2.0))
    meeting = canvas.shift(0.5, 0.75)
    pulmonary, aorta, cava = canvas.shift(-0.75, -0.75), canvas.shift(0.05, -0.7), canvas.shift(0.72, -0.62)
    canvas.ellipse((-0.1, -0.85), (1.3, 0.55), TISSUE_DB - 6)
    canvas.vessel([pulmonary, (-0.2, 0.05), meeting], canvas.vary(0.36))
    canvas.vessel([aorta, (0.42, 0.05), meeting], canvas.vary(0.28))
    canvas.ellipse(cava, (0.26, 0.24), BRIGHT_DB)
    canvas.chamber(cava, (0.19, 0.17))
    trachea = canvas.shift(1.0, 0.3, 0.05)
    canvas.ellipse(trachea, (0.21, 0.21), BRIGHT_DB + 3)
    canvas.ellipse(trachea, (0.11, 0.11), FLUID_DB)
    canvas.heart = (-0.3, -0.5, 0.9)
    canvas.look_at(pulmonary, aorta, cava, trachea, meeting)


def paint_abdomen(canvas: Canvas) -> None:
    """Round abdomen: stomach bubble, the umbilical vein's hockey stick in the liver, spine, aorta."""
    _trunk(canvas, radii=(2.4, 2.3), level_db=TISSUE_DB + 1)
    stomach = canvas.shift(1.05, 0.15, 0.12)
    canvas.ellipse(
        stomach, (canvas.vary(0.5, 0.2), canvas.vary(0.4, 0.2)), FLUID_DB, canvas.rng.uniform(-40, 40)
    )
    vein, bend = canvas.shift(-0.05, -1.15), canvas.shift(-0.15, -0.35)
    canvas.vessel([vein, bend, canvas.shift(-0.62, 0.05)], canvas.vary(0.2))
    canvas.chamber(canvas.shift(0.28, 1.05, 0.04), (0.15, 0.15))
    canvas.ellipse(canvas.shift(1.25, 1.0), (0.3, 0.2), TISSUE_DB - 5)
    canvas.look_at(stomach, vein, bend, (0.0, 1.6))


def paint_kidneys(canvas: Canvas) -> None:
    """Both kidneys beside the spine: darker cortex, bright edge, a little fluid in the pelvis."""
    _trunk(canvas, radii=(2.5, 2.1))
    for side in (-1, 1):
        kidney = canvas.shift(side * 0.98, 0.75)
        radii = (canvas.vary(0.62, 0.08), canvas.vary(0.54, 0.08))
        canvas.ellipse(kidney, (radii[0] + 0.1, radii[1] + 0.1), BRIGHT_DB, side * 25)
        canvas.ellipse(kidney, radii, TISSUE_DB - 13, side * 25)
        canvas.ellipse(kidney, (0.32, 0.22), BRIGHT_DB - 2, side * 25)
        canvas.ellipse(kidney, (canvas.vary(0.15, 0.3), canvas.vary(0.11, 0.3)), FLUID_DB, side * 25)
        canvas.look_at(kidney, kidney)
    for x in (-0.9, -0.1, 0.7):
        canvas.ellipse(canvas.shift(x, -0.75, 0.15), (0.4, 0.26), TISSUE_DB + 4, canvas.rng.uniform(-40, 40))
    canvas.look_at((0.0, 1.5))


def paint_femur(canvas: Canvas) -> None:
    """The whole thigh bone lying level, its ends clear, dark shadow beneath, thigh around it."""
    half = canvas.vary(1.6, 0.06)
    bow = canvas.rng.normal(0.12, 0.05)
    canvas.ellipse((0.0, 0.25), (half + 0.75, 1.15), TISSUE_DB - 4)
    canvas.rim((0.0, 0.25), (half + 0.75, 1.15), BRIGHT_DB - 3, 0.12, arc_degrees=(-170, -10))
    canvas.ellipse((half + 1.2, 0.5), (0.6, 0.8), TISSUE_DB - 2)
    shaft = [(-half, 0.0), (-half / 2, -bow), (half / 2, -bow), (half, 0.0)]
    canvas.line(shaft, BONE_DB + 6, canvas.vary(0.25), bone=1.0)
    for x in (-half, half):
        canvas.ossified((x, 0.05), 0.19)
    canvas.look_at((-half, 0.0), (half, 0.0), (0.0, -bow))


def paint_lips(canvas: Canvas) -> None:
    """Face from the front: tip of the nose with two nostrils, upper and lower lip, chin, fluid around."""
    canvas.ellipse((0.0, -0.4), (2.9, 2.4), FLUID_DB)
    canvas.ellipse((0.0, 0.75), (canvas.vary(2.0), canvas.vary(1.75)), TISSUE_DB - 11)
    nose = canvas.shift(0.0, -0.95, 0.05)
    canvas.ellipse(nose, (canvas.vary(0.72), canvas.vary(0.5)), TISSUE_DB + 2)
    for side in (-1, 1):
        nostril = canvas.shift(side * 0.3, nose[1] + 0.16, 0.03)
        canvas.ellipse(nostril, (0.15, 0.11), FLUID_DB)
        canvas.look_at(nostril)
    upper, lower, chin = canvas.shift(0, -0.05, 0.05), canvas.shift(0, 0.58, 0.05), canvas.shift(0, 1.4, 0.08)
    for lip, high in ((upper, 0.24), (lower, 0.22)):
        wide = canvas.vary(1.05)
        canvas.ellipse(lip, (wide, high), TISSUE_DB + 5)
        canvas.rim(lip, (wide, high), BRIGHT_DB + 1, 0.07, arc_degrees=(-160, -20))
    canvas.ellipse((0.0, (upper[1] + lower[1]) / 2), (0.95, 0.09), FLUID_DB)
    canvas.ellipse(chin, (canvas.vary(0.7), canvas.vary(0.36)), TISSUE_DB - 1)
    canvas.look_at(upper, upper, lower)


def paint_profile(canvas: Canvas) -> None:
    """Head from the side: forehead, nose, lips and chin against the fluid, the jaw, part of the chest."""
    canvas.ellipse((-0.9, -0.2), (3.1, 2.6), FLUID_DB)
    canvas.ellipse((0.9, 0.3), (1.9, 1.75), BRAIN_DB)
    canvas.rim((0.9, 0.3), (1.9, 1.75), BONE_DB, 0.17, arc_degrees=(-150, 60), bone=0.18)
    nose = canvas.shift(-1.75, 0.38, 0.05)
    lip, lower_lip, chin = (-1.5, 0.85), (-1.42, 1.12), (-1.3, 1.6)
    face = [(-0.75, -0.75), (-1.1, -0.15), (-1.22, 0.12), nose, (-1.38, 0.62), lip, (-1.28, 0.98), lower_lip]
    face += [(-1.18, 1.3), chin, (-0.6, 1.95)]
    for dx in (0.25, 0.6, 0.95):
        canvas.line([(x + dx, y) for x, y in face], TISSUE_DB - 2, 0.55)
    canvas.line(face, BRIGHT_DB + 2, 0.13)
    canvas.line([(-1.1, 0.12), (-1.5, 0.36)], BONE_DB, 0.12, bone=0.5)
    canvas.line([(-1.0, 1.45), (-0.2, 1.35)], BONE_DB - 2, 0.14, bone=0.6)
    canvas.line([(-1.05, 0.72), (-0.3, 0.72)], BONE_DB - 4, 0.1, bone=0.4)
    canvas.ellipse(canvas.shift(-0.3, 3.1, 0.1), (1.7, 0.95), TISSUE_DB, 10)
    canvas.rim((-0.3, 3.1), (1.7, 0.95), BRIGHT_DB - 1, 0.12, degrees=10)
    canvas.look_at(nose, lip, chin, (-0.9, -0.4), nose)


def _vertebrae(
    canvas: Canvas, row: Callable[[float], tuple[float, float]], radius_cm: float, bone: float
) -> None:
    for at in np.linspace(-1, 1, 15):
        canvas.ossified(canvas.shift(*row(at), 0.015), canvas.vary(radius_cm), bone, BONE_DB + 4)


def paint_spine_sagittal(canvas: Canvas) -> None:
    """The spine from the side: two rows of vertebrae side by side, closing at the sacrum, skin over them."""
    bow = canvas.vary(0.5, 0.3)

    def along(at: float, offset: float) -> tuple[float, float]:
        return 3.0 * at, bow * (at * at - 0.4) - 0.3 + offset * (1 - 0.75 * max(0.0, at - 0.3))

    body = [along(at, 1.0) for at in np.linspace(-1, 1, 9)]
    canvas.line(body, TISSUE_DB - 3, 2.5)
    canvas.line([along(at, -0.62) for at in np.linspace(-1, 1, 9)], BRIGHT_DB, 0.12)
    canvas.line([along(at, 0.0) for at in np.linspace(-1, 1, 9)], FLUID_DB + 6, 0.3)
    for offset, radius_cm in ((-0.27, 0.12), (0.27, 0.13)):
        canvas.line([along(at, offset) for at in np.linspace(-1, 1, 9)], BRIGHT_DB, 0.1)
        _vertebrae(canvas, lambda at, offset=offset: along(at, offset), radius_cm, bone=0.4)
    canvas.look_at(*(along(at, 0.0) for at in (-0.7, -0.2, 0.3, 0.85)))


def paint_spine_coronal(canvas: Canvas) -> None:
    """The spine from behind: three rows of vertebrae lying parallel, ribs leaving to both sides."""
    canvas.ellipse((0, 0), (3.3, canvas.vary(1.55, 0.06)), TISSUE_DB - 2)
    canvas.rim((0, 0), (3.3, 1.55), BRIGHT_DB - 2, 0.12)
    canvas.line([(-2.8, 0.0), (2.8, 0.0)], FLUID_DB + 8, 0.3)
    for at in np.linspace(-2.0, 0.5, 8):
        for side in (-1, 1):
            canvas.line([(at, side * 0.5), (at - 0.35, side * 1.3)], BONE_DB - 6, 0.1, bone=0.25)
    for offset, radius_cm in ((0.0, 0.09), (-0.34, 0.12), (0.34, 0.12)):

        def row(at: float, offset: float = offset) -> tuple[float, float]:
            return 2.8 * at, offset * (1 - 0.5 * max(0.0, at - 0.6))

        _vertebrae(canvas, row, radius_cm, bone=0.3)
    canvas.look_at((-1.8, 0.0), (-0.5, 0.0), (0.8, 0.0), (2.2, 0.0))


def paint_background(canvas: Canvas) -> None:
    """On the way between planes: limbs cut across, cord, folds of tissue, a plane cut askew."""
    rng = canvas.rng
    for _ in range(rng.integers(2, 5)):
        centre = (rng.uniform(-2.6, 2.6), rng.uniform(-2.0, 2.4))
        radii = (rng.uniform(0.4, 1.6), rng.uniform(0.3, 1.0))
        degrees = rng.uniform(0, 180)
        canvas.ellipse(centre, radii, rng.uniform(-8, 5), degrees)
        canvas.rim(centre, radii, BRIGHT_DB - rng.uniform(0, 6), 0.1, degrees)
        if rng.random() < 0.5:
            canvas.ossified(centre, rng.uniform(0.08, 0.22))
        canvas.look_at(centre)
    if rng.random() < 0.4:
        centre = (rng.uniform(-1, 1), rng.uniform(-1, 1))
        arc = rng.uniform(-180, 180)
        canvas.rim(
            centre, (2.3, 1.9), BONE_DB - 4, 0.16, arc_degrees=(arc, arc + rng.uniform(40, 140)), bone=0.2
        )
    for _ in range(rng.integers(0, 4)):
        canvas.chamber(
            (rng.uniform(-2.5, 2.5), rng.uniform(-2, 2)), (rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.3))
        )


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "heart_three_vessel_trachea": paint_three_vessel_trachea,
    "heart_four_chamber": paint_four_chamber,
    "abdomen": paint_abdomen,
    "femur": paint_femur,
    "brain_transventricular": paint_transventricular,
    "kidneys": paint_kidneys,
    "heart_left_outflow": paint_left_outflow,
    "lips": paint_lips,
    "profile": paint_profile,
    "heart_right_outflow": paint_right_outflow,
    "brain_transcerebellar": paint_transcerebellar,
    "spine_coronal": paint_spine_coronal,
    "spine_sagittal": paint_spine_sagittal,
    BACKGROUND: paint_background,
}

# How far a sonographer zooms in on a plane, against one of ordinary size.
ZOOM: dict[str, float] = dict.fromkeys(PAINTERS, 1.2) | {
    "heart_three_vessel_trachea": 1.5,
    "heart_four_chamber": 1.5,
    "heart_left_outflow": 1.5,
    "heart_right_outflow": 1.5,
    "abdomen": 1.3,
    "kidneys": 1.35,
    "lips": 1.5,
}

# A trunk can lie any way round; femur and spine are measured lying level, faces are sought upright.
TURN_DEGREES: dict[str, float] = dict.fromkeys(PAINTERS, 40.0) | {
    "heart_three_vessel_trachea": 75.0,
    "heart_four_chamber": 75.0,
    "heart_left_outflow": 75.0,
    "heart_right_outflow": 75.0,
    "abdomen": 75.0,
    "femur": 20.0,
    "spine_sagittal": 15.0,
    "spine_coronal": 15.0,
    BACKGROUND: 180.0,
}
