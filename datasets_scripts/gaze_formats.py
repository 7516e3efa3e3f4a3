"""What eye trackers export: the columns of each table, and what they mean.

- Our own: `time_s` on the video's clock, `x` and `y` in 0..1 of its picture.
- Tobii Pro Lab and Studio: `Recording timestamp` in the unit of its name, `Gaze point left X` and so on in
  pixels of the screen (DACS, ADCS) or of the media (MCS); validity is Valid or Invalid, or Studio's 0 to 4,
  of which 2 and above are not to be trusted; rows of other sensors and of events are none of the eye. (Tobii
  Pro Lab user manual, "Data export"; Tobii Studio user manual, "Validity codes".)
- SR Research EyeLink: see `eyelink_text`.
- Gazepoint: `TIME` in seconds, `LPOGX` and `RPOGX` (the eyes), `BPOGX` (best of both) or `FPOGX` (fixation),
  fractions of the screen, each with its flag; `BKID` above 0 in a blink. (Gazepoint Analysis user manual,
  section 3.1, "Data export".)
- Pupil Labs Core: `gaze_timestamp` in seconds, `x_norm` of a surface or `norm_pos_x` of the scene camera,
  fractions from the bottom left, `confidence`, of use from 0.6 on. (docs.pupil-labs.com, "Pupil Player".)
- Pupil Labs Neon and Invisible: `timestamp [ns]`; `gaze position on surface x [normalized]` from the top
  left, or `gaze x [px]` of the scene camera; `worn`, `blink id`. (docs.pupil-labs.com, "Marker Mapper"
  and "Recording format".)
- SMI BeGaze: `Time` in microseconds, `L POR X [px]`, x and y 0 where the eye is lost; samples are the rows of
  `Type` SMP. (SMI BeGaze manual, "Export raw data".)
"""

import re
import unicodedata
from dataclasses import dataclass

LEAST_CONFIDENCE = 0.6  # below, Pupil Player leaves gaze out
PIXELS, FRACTIONS = "pixels", "fractions"


def plain(column: str) -> str:
    """A column's name without blanks, underscores, case, and the two ways to write a micro."""
    return re.sub(r"[\s_]", "", unicodedata.normalize("NFKC", column).lower())


@dataclass(frozen=True)
class Place:
    """Columns of one place, of an eye or of both, which can be trusted where one of the flags says so."""

    x: str
    y: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A table of a tracker, its columns named as `plain` has them.

    Args:
        name, shown: for messages.
        seconds: patterns of the time column with the unit; None: to be told from the steps.
        views: of these ways to give the place of each eye, or of both, the first that a table has is taken.
        unit: of the places, pixels or fractions.
        y_is_up: whether y counts from the bottom.
        trusted: the texts of a flag, or the least number, by which a place can be trusted.
        lost: columns with the texts they hold while the eyes are lost; None: any but 0.
        only: columns with the text of the rows to keep.
        zero_is_lost: whether an eye at 0, 0 is lost.
        has_own_clock: whether the notes must say how to come to the video's clock and picture.
    """

    name: str
    shown: str
    seconds: tuple[tuple[str, float | None], ...]
    views: tuple[tuple[Place, ...], ...]
    unit: str
    y_is_up: bool = False
    trusted: tuple[str, ...] | float = 1.0
    lost: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    only: tuple[tuple[str, str], ...] = ()
    zero_is_lost: bool = False
    has_own_clock: bool = True

    def fits(self, columns: tuple[str, ...]) -> bool:
        """Whether a table with these columns is of this format."""
        has_time = any(re.fullmatch(pattern, column) for pattern, _ in self.seconds for column in columns)
        places = [place for view in self.views for place in view]
        return has_time and any({place.x, place.y} <= {*columns} for place in places)


_SCREEN_PIXELS = ("[dacspx]", "(adcspx)", "", "[mcspx]", "(mcspx)")

OWN = Format(
    "our own", "time_s, x, y", (("times", 1.0),), ((Place("x", "y"),),), FRACTIONS, has_own_clock=False
)
TRACKERS = (
    Format(
        "Tobii",
        "Recording timestamp, Gaze point X, Gaze point Y",
        (
            (r"recordingtimestamp\[[μu]s\]", 1e-6),
            (r"recordingtimestamp\[ms\]", 1e-3),
            ("recordingtimestamp", None),
        ),
        tuple(
            view
            for unit in _SCREEN_PIXELS
            for view in (
                tuple(
                    Place(f"gazepoint{eye}x{unit}", f"gazepoint{eye}y{unit}", (f"validity{eye}",))
                    for eye in ("left", "right")
                ),
                (Place(f"gazepointx{unit}", f"gazepointy{unit}", ("validityleft", "validityright")),),
            )
        ),
        PIXELS,
        trusted=("valid", "0", "1"),
        lost=(("eyemovementtype", ("eyesnotfound",)),),
        only=(("sensor", "eye tracker"), ("event", "")),
    ),
    Format(
        "Gazepoint",
        "TIME, BPOGX, BPOGY",
        ((r"time(\(.*\))?", 1.0),),
        (
            (Place("lpogx", "lpogy", ("lpogv",)), Place("rpogx", "rpogy", ("rpogv",))),
            (Place("bpogx", "bpogy", ("bpogv",)),),
            (Place("fpogx", "fpogy", ("fpogv",)),),
        ),
        FRACTIONS,
        lost=(("bkid", None),),
    ),
    Format(
        "Pupil Labs Core",
        "gaze_timestamp, norm_pos_x, norm_pos_y",
        (("gazetimestamp", 1.0), ("timestamp", 1.0)),
        ((Place("xnorm", "ynorm", ("confidence",)),), (Place("normposx", "normposy", ("confidence",)),)),
        FRACTIONS,
        y_is_up=True,
        trusted=LEAST_CONFIDENCE,
    ),
    Format(
        "Pupil Labs Neon, on a surface",
        "timestamp [ns], gaze position on surface x [normalized]",
        ((r"timestamp\[ns\]", 1e-9),),
        ((Place("gazepositiononsurfacex[normalized]", "gazepositiononsurfacey[normalized]"),),),
        FRACTIONS,
        lost=(("blinkid", None), ("worn", ("0", "0.0", "false"))),
    ),
    Format(
        "Pupil Labs Neon",
        "timestamp [ns], gaze x [px], gaze y [px]",
        ((r"timestamp\[ns\]", 1e-9),),
        ((Place("gazex[px]", "gazey[px]"),),),
        PIXELS,
        lost=(("blinkid", None), ("worn", ("0", "0.0", "false"))),
    ),
    Format(
        "SMI BeGaze",
        "Time, Type, L POR X [px], L POR Y [px]",
        (("time", 1e-6),),
        ((Place("lporx[px]", "lpory[px]"), Place("rporx[px]", "rpory[px]")),),
        PIXELS,
        lost=(("leventinfo", ("blink",)), ("reventinfo", ("blink",))),
        only=(("type", "smp"),),
        zero_is_lost=True,
    ),
)
EYELINK = Format("EyeLink", "ASC lines of edf2asc", (), (), PIXELS)
