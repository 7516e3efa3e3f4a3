"""What the parameters of every data set share: the picture size, the split and how a wrong value is told."""

import math
from dataclasses import asdict, dataclass

FOUND, WHOLE = SECTOR_CHOICES = ("found", "whole")
REPORT, BLANK, LEAVE_OUT, IGNORE = TEXT_CHOICES = ("report", "blank", "leave_out", "ignore")


@dataclass(frozen=True, kw_only=True)
class SetParameters:
    """What every set of clips or frames decides.

    Args:
        frame_size: width and height of a kept frame in pixels.
        validation_fraction: share of the patients that is held out.
        seed: of the split and of the order of the rows.
        sector: found keeps the ultrasound sector of each recording, or the crop of its scan.json, and blanks
            what lies outside the sector, where machines write names; whole keeps frames as recorded, or their
            crop.
        hold_out_site: sites, by `site` of scan.json, whose scans alone are the validation split.
        hold_out_machine: machines, by `machine` of scan.json, whose scans alone are the validation split.
        text: what becomes of text on what is kept: report tells it, blank blanks its boxes and tells it,
            leave_out leaves the recording out, ignore does not look for it.

    Raises:
        ValueError: a value out of its range.
    """

    frame_size: int = 160
    validation_fraction: float = 0.2
    seed: int = 0
    sector: str = WHOLE
    hold_out_site: tuple[str, ...] = ()
    hold_out_machine: tuple[str, ...] = ()
    text: str = IGNORE

    def __post_init__(self) -> None:
        require(self.frame_size >= 16, "frame_size", self.frame_size, "16 or more")
        require_share("validation_fraction", self.validation_fraction)
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require_choice("sector", self.sector, SECTOR_CHOICES)
        require_choice("text", self.text, TEXT_CHOICES)

    def info(self) -> dict:
        """What decides the content of a row, for `info.json`: all but the split and the order."""
        return {name: value for name, value in asdict(self).items() if name not in _SPLIT_AND_ORDER}


# Names of sites and machines are identifiers, and never lie in the set.
_SPLIT_AND_ORDER = ("validation_fraction", "seed", "hold_out_site", "hold_out_machine")


def require(holds: bool, field: str, value: object, range_in_words: str) -> None:
    """Raise a ValueError that names the field and its range, unless `holds`."""
    if not holds:
        raise ValueError(f"{field} is {value}; it must be {range_in_words}.")


def require_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError that names the choices, unless the value is one of them."""
    require(value in choices, field, value, " or ".join(choices))


def require_share(field: str, value: float) -> None:
    """Raise a ValueError unless the value is a share that leaves something over."""
    require(0 <= value < 1, field, value, "at least 0 and less than 1")


def require_seconds(field: str, value: float, least: float) -> None:
    """Raise a ValueError unless the value is a finite time of at least `least` seconds."""
    require(least <= value < math.inf, field, value, f"{least:g} or more")
