"""Which patient is in which split: decided once, kept with the data, never a patient on both sides.

Whole sites or machines can be held out: their scans are the validation split, and no others. A patient who
was also scanned elsewhere goes there with all scans, since what is learnt of a patient may not be tested on
the same one. `scan.json` says of what site and machine a recording is (`site`, `machine`), not the tags of a
DICOM file, which name one hospital in many ways. The names are identifiers: only their keyed hashes are kept
with the data.
"""

import json
import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from datasets_scripts.privacy import keyed_hash
from datasets_scripts.schema import SPLITS

SPLITS_FILE = "splits.json"
TRAIN, VALIDATION = SPLITS
SITE, MACHINE = "site", "machine"


class SplitError(ValueError):
    """The splits contradict themselves, or the recordings at hand."""


@dataclass(frozen=True)
class Splits:
    """For each split, the hashed scans of each hashed patient; `key_fingerprint` tells which key hashed them.

    `held_out` are the hashes of the sites and machines that are held out, which are validation.

    Raises:
        SplitError: a patient or a scan is in two splits, or a scan belongs to two patients.
    """

    key_fingerprint: str
    seed: int
    train: dict[str, list[str]]
    validation: dict[str, list[str]]
    held_out: list[str] = field(default_factory=list)

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


@dataclass(frozen=True)
class HoldOut:
    """Sites and machines to hold out, by their names in `scan.json`."""

    sites: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()

    def hashes(self, key: bytes) -> list[str]:
        """What `Splits.held_out` keeps of them, sorted."""
        return sorted(self._names_by_hash(key))

    def check(self, key: bytes, origins: Iterable[Iterable[str]]) -> None:
        """Refuse a name that no recording has: it would hold out nothing, unseen.

        Args:
            origins: `hashed_origin` of each recording that is kept.

        Raises:
            SplitError: the name is misspelt, or stands in no `scan.json`.
        """
        present = {each for origin in origins for each in origin}
        for hashed, (kind, name) in sorted(self._names_by_hash(key).items()):
            if hashed not in present:
                raise SplitError(
                    f"No recording that was kept is of the {kind} {name!r}; one is, if its scan.json says "
                    f'"{kind}": "{name}".'
                )

    def _names_by_hash(self, key: bytes) -> dict[str, tuple[str, str]]:
        named = [(SITE, name) for name in self.sites] + [(MACHINE, name) for name in self.machines]
        return {keyed_hash(key, *each): each for each in named}


def hashed_origin(key: bytes, site: str | None, machine: str | None) -> list[str]:
    """The keyed hashes of the site and the machine of a recording, of those that are known."""
    named = ((SITE, site), (MACHINE, machine))
    return [keyed_hash(key, kind, name) for kind, name in named if name is not None]


def split_by_patient(
    patient_of_scan: dict[str, str],
    validation_fraction: float,
    seed: int,
    key_fingerprint: str,
    known: Splits | None = None,
    held_out: Iterable[str] = (),
    origin_of_scan: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> Splits:
    """Assign patients to splits at random, or by what is held out; patients of `known` stay where they are.

    They are drawn from the order in which they are given, so that the outcome depends on the recordings and
    the seed, not on the key. With two patients or more, and a fraction above 0, each side has at least one.

    Args:
        patient_of_scan: hashed patient of each hashed scan.
        validation_fraction: share of the patients to hold out; of no effect where sites or machines are.
        held_out: hashes of sites and machines; without any, those of `known`.
        origin_of_scan: the hashed site and machine of each scan, see `hashed_origin`.

    Raises:
        SplitError: `known` lists a scan under another patient, holds out others, or trains on what is to be
            held out; or nothing is left to train on.
    """
    held_out = _held_out(held_out, known)
    sides = {split: dict(getattr(known, split)) if known else {} for split in SPLITS}
    patients = dict.fromkeys(patient_of_scan.values())
    new = [patient for patient in patients if not any(patient in side for side in sides.values())]
    if held_out:
        held = scans_held_out(held_out, origin_of_scan)
        chosen = {patient for scan, patient in patient_of_scan.items() if scan in held}
        _check_held_out(chosen, patients, sides[TRAIN])
    else:
        total = len(new) + sum(map(len, sides.values()))
        number = _number_held_out(total, validation_fraction) - len(sides[VALIDATION])
        chosen = set(random.Random(seed).sample(new, min(max(number, 0), len(new))))
    for patient in new:
        sides[VALIDATION if patient in chosen else TRAIN][patient] = []
    for scan, patient in patient_of_scan.items():
        side = sides[TRAIN] if patient in sides[TRAIN] else sides[VALIDATION]
        side[patient] = sorted({*side[patient], scan})
    seed = known.seed if known else seed
    return Splits(key_fingerprint, seed, sides[TRAIN], sides[VALIDATION], held_out)


def _held_out(held_out: Iterable[str], known: Splits | None) -> list[str]:
    wanted = sorted(held_out)
    if known is None:
        return wanted
    if wanted and wanted != known.held_out:
        others = "others" if known.held_out else "none"
        raise SplitError(
            f"{SPLITS_FILE} was written to hold out {others} of these sites and machines; name what was "
            "named then, or nothing, or a new folder, which gets its own splits."
        )
    return known.held_out


def scans_held_out(held_out: Iterable[str], origin_of_scan: Mapping[str, Iterable[str]]) -> set[str]:
    """The scans of sites and machines that are held out, all by their hashes."""
    held = {*held_out}
    return {scan for scan, origin in origin_of_scan.items() if not held.isdisjoint(origin)}


def _check_held_out(chosen: set[str], patients: Iterable[str], train: dict[str, list[str]]) -> None:
    learnt = sorted(chosen & set(train))
    if learnt:
        raise SplitError(
            f"{SPLITS_FILE}: patient {learnt[0]} is in train, and has a scan of a site or machine that is "
            "held out; leave that recording out, or name a new folder, which gets its own splits."
        )
    if not train and chosen >= set(patients):
        raise SplitError(
            "All patients have a scan of a site or machine that is held out, so that none is left to train "
            "on; hold out fewer."
        )


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
