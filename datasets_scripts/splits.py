"""Which patient is in which split: decided once, kept with the data, never a patient on both sides."""

import json
import os
import random
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from datasets_scripts.schema import SPLITS

SPLITS_FILE = "splits.json"
TRAIN, VALIDATION = SPLITS


class SplitError(ValueError):
    """The splits contradict themselves, or the recordings at hand."""


@dataclass(frozen=True)
class Splits:
    """For each split, the hashed scans of each hashed patient; `key_fingerprint` tells which key hashed them.

    Raises:
        SplitError: a patient or a scan is in two splits, or a scan belongs to two patients.
    """

    key_fingerprint: str
    seed: int
    train: dict[str, list[str]]
    validation: dict[str, list[str]]

    def __post_init__(self) -> None:
        patients = set(self.train) & set(self.validation)
        if patients:
            raise SplitError(
                f"{SPLITS_FILE}: patient {min(patients)} is in two splits; keep the patient in one."
            )
        scans = sorted(
            scan for side in (self.train, self.validation) for each in side.values() for scan in each
        )
        doubled = {scan for scan, following in pairwise(scans) if scan == following}
        if doubled:
            raise SplitError(
                f"{SPLITS_FILE}: scan {min(doubled)} is listed twice; a scan belongs to one patient."
            )

    def scans(self, split: str) -> set[str]:
        """The scans of one split."""
        return {scan for scans in getattr(self, split).values() for scan in scans}


def check_key(splits: Splits, key_fingerprint: str) -> None:
    """Refuse a key other than the one of the splits: under it, known patients would pass for new ones.

    Raises:
        SplitError: the keys differ.
    """
    if splits.key_fingerprint != key_fingerprint:
        raise SplitError(
            f"{SPLITS_FILE} was written with another key, so its patients cannot be told from new ones; "
            "name the first key by --key-file."
        )


def split_by_patient(
    patient_of_scan: dict[str, str],
    validation_fraction: float,
    seed: int,
    key_fingerprint: str,
    known: Splits | None = None,
) -> Splits:
    """Assign patients to splits at random; patients of `known` stay where they are.

    They are drawn from the order in which they are given, so that the outcome depends on the recordings and
    the seed, not on the key. With two patients or more, and a fraction above 0, each side has at least one.

    Args:
        patient_of_scan: hashed patient of each hashed scan.
        validation_fraction: share of the patients to hold out.

    Raises:
        SplitError: `known` lists a scan under another patient.
    """
    sides = {split: dict(getattr(known, split)) if known else {} for split in SPLITS}
    patients = dict.fromkeys(patient_of_scan.values())
    new = [patient for patient in patients if not any(patient in side for side in sides.values())]
    total = len(new) + sum(map(len, sides.values()))
    held_out = _number_held_out(total, validation_fraction) - len(sides[VALIDATION])
    chosen = set(random.Random(seed).sample(new, min(max(held_out, 0), len(new))))
    for patient in new:
        sides[VALIDATION if patient in chosen else TRAIN][patient] = []
    for scan, patient in patient_of_scan.items():
        side = sides[TRAIN] if patient in sides[TRAIN] else sides[VALIDATION]
        side[patient] = sorted({*side[patient], scan})
    return Splits(key_fingerprint, known.seed if known else seed, sides[TRAIN], sides[VALIDATION])


def _number_held_out(patients: int, validation_fraction: float) -> int:
    if validation_fraction == 0 or patients < 2:
        return 0
    return min(max(round(validation_fraction * patients), 1), patients - 1)


def read_splits(output_dir: Path) -> Splits | None:
    """The splits kept with the data; None where there are none yet.

    Raises:
        SplitError: the file contradicts itself or cannot be read.
    """
    path = output_dir / SPLITS_FILE
    if not path.exists():
        return None
    try:
        return Splits(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, json.JSONDecodeError) as error:
        raise SplitError(f"{path} is not as it was written ({error}); restore it from a copy.") from error


def write_splits(splits: Splits, output_dir: Path) -> None:
    """Write the splits beside the data, whole or not at all."""
    path = output_dir / SPLITS_FILE
    aside = path.with_suffix(".json.partial")
    aside.write_text(json.dumps(asdict(splits), indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)
