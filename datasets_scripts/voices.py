"""Who speaks: espeak-ng voices, drawn at random, in groups that a training may keep apart."""

from typing import Literal, get_args

import numpy as np

from .espeak import Voice

Group = Literal["seen", "held_out", "all"]

ACCENTS: tuple[str, ...] = (
    "en",
    "en-us",
    "en-us-nyc",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-029",
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "seen": ("", "f1", "f2", "f3", "f5", "m1", "m2", "m4", "m6", "m7"),
    "held_out": ("f4", "m3", "m5"),
}


def require_group(group: str, field: str) -> None:
    """Raises ValueError, naming `field`, if `group` is none of the groups."""
    if group not in get_args(Group):
        raise ValueError(f"{field} is {group!r}; give one of {', '.join(get_args(Group))}.")


def draw_voice(rng: np.random.Generator, group: Group = "all") -> Voice:
    """A voice of the group, its accent, variant, speed and pitch each drawn uniformly."""
    require_group(group, "group")
    variants = VARIANTS["seen"] + VARIANTS["held_out"] if group == "all" else VARIANTS[group]
    return Voice(
        accent=ACCENTS[rng.integers(len(ACCENTS))],
        variant=variants[rng.integers(len(variants))],
        rate_words_per_minute=int(rng.integers(145, 196)),
        pitch=int(rng.integers(35, 66)),
        pitch_range=int(rng.integers(30, 71)),
    )
