"""Which scans a model is fine-tuned and which it is tested on: never a patient on both sides."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from train.frame_sets import FrameSet

TRAINING_SPLIT, TEST_SPLITS = "train", ("test", "validation")


class ScanSplitError(ValueError):
    """Splits that cannot be made or used; the text says why and what to do."""


@dataclass(frozen=True)
class ScanSplit:
    """The scans of both sides, in alphabetical order.

    Raises:
        ScanSplitError: a side is empty, or a scan stands on both or twice.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for side in ("train", "test"):
            if not getattr(self, side):
                raise ScanSplitError(f"A split has no scan on its {side} side: both sides need one at least.")
        scan, times = Counter((*self.train, *self.test)).most_common(1)[0]
        if times > 1:
            sides = "on both sides of a split" if scan in self.train and scan in self.test else "twice in one"
            raise ScanSplitError(f"Scan {scan} stands {sides}: it must stand once, on one side.")


def random_splits(
    patients_of_scans: dict[str, str], splits: int, train_share: float, seed: int
) -> list[ScanSplit]:
    """Splits drawn independently of each other, by patient; the paper's five are of this kind (90 and 45).

    The splits depend on the scans and the seed, not on the order in which the scans are given.

    Args:
        patients_of_scans: the patient of each scan.
        splits: how many.
        train_share: share of the patients to train on, above 0 and below 1; each side gets one at least.
        seed: of the draw.

    Raises:
        ScanSplitError: fewer than two patients.
    """
    patients = _patients(patients_of_scans, at_least=2)
    trained_on = min(max(round(train_share * len(patients)), 1), len(patients) - 1)
    draw = random.Random(seed)
    return [
        _split(patients_of_scans, tested_on=draw.sample(patients, len(patients))[trained_on:])
        for _ in range(splits)
    ]


def group_k_fold(patients_of_scans: dict[str, str], folds: int, seed: int) -> list[ScanSplit]:
    """As many splits as folds; each patient is tested on in exactly one, and trained on in all others.

    Args:
        patients_of_scans: the patient of each scan.
        folds: at least two; they differ by one patient at most.
        seed: of the draw.

    Raises:
        ScanSplitError: fewer than two folds, or fewer patients than folds.
    """
    if folds < 2:
        raise ScanSplitError(f"A cross-validation has two folds or more, not {folds}: raise num_splits.")
    patients = _patients(patients_of_scans, at_least=folds)
    random.Random(seed).shuffle(patients)
    return [_split(patients_of_scans, tested_on=patients[fold::folds]) for fold in range(folds)]


def given_split(frame_set: FrameSet) -> ScanSplit:
    """The split that the set is stored in: train against test or, where there is none, validation.

    Raises:
        ScanSplitError: the set has no such splits, or a scan or patient on both sides.
    """
    scans_of: dict[str, set[str]] = {}
    for name, scan_id in zip(frame_set.splits, frame_set.scan_ids, strict=True):
        scans_of.setdefault(name, set()).add(scan_id)
    tests = [name for name in TEST_SPLITS if name in scans_of]
    if TRAINING_SPLIT not in scans_of or not tests:
        raise ScanSplitError(
            f"The set has no split {TRAINING_SPLIT!r} with a split {' or '.join(map(repr, TEST_SPLITS))} "
            f"beside it, but {', '.join(map(repr, scans_of))}: choose split_method random or group_k_fold."
        )
    split = ScanSplit(tuple(sorted(scans_of[TRAINING_SPLIT])), tuple(sorted(scans_of[tests[0]])))
    check_splits([split], frame_set.patients_of_scans)
    return split


def check_splits(splits: Iterable[ScanSplit], patients_of_scans: dict[str, str]) -> None:
    """Refuses splits that do not fit a set.

    Raises:
        ScanSplitError: a scan that the set does not have, or a patient with scans on both sides.
    """
    for split in splits:
        unknown = sorted({*split.train, *split.test} - set(patients_of_scans))
        if unknown:
            raise ScanSplitError(
                f"The splits name {len(unknown)} scans that the set does not have, {unknown[0]} among them: "
                "give the splits of this set."
            )
        both = {patients_of_scans[scan] for scan in split.train}
        both &= {patients_of_scans[scan] for scan in split.test}
        if both:
            raise ScanSplitError(
                f"Patient {min(both)} has scans on both sides of a split: keep them on one side."
            )


def write_scan_splits(path: Path, splits: Sequence[ScanSplit]) -> None:
    """Writes the scans of each split as JSON."""
    path.write_text(json.dumps([asdict(split) for split in splits], indent=1) + "\n", encoding="utf-8")


def read_scan_splits(path: Path) -> list[ScanSplit]:
    """The splits that `write_scan_splits` wrote.

    Raises:
        ScanSplitError: no such file, one that is not as it was written, or a split that cannot be used.
    """
    try:
        sides = [(each["train"], each["test"]) for each in json.loads(path.read_text(encoding="utf-8"))]
        splits = [ScanSplit(tuple(train), tuple(test)) for train, test in sides]
    except FileNotFoundError as error:
        raise ScanSplitError(
            f"There is no file of splits {path}: a run leaves one as splits.json in its output_dir."
        ) from error
    except ScanSplitError as error:
        raise ScanSplitError(f"{path}: {error}") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ScanSplitError(
            f'{path} is no list of splits like {{"train": [scan, ...], "test": [scan, ...]}}: give the '
            "splits.json of a fine-tuning run."
        ) from error
    if not splits:
        raise ScanSplitError(f"{path} holds no split.")
    return splits


def _patients(patients_of_scans: dict[str, str], at_least: int) -> list[str]:
    patients = sorted(set(patients_of_scans.values()))
    if len(patients) < at_least:
        raise ScanSplitError(
            f"The set has {len(patients)} patients (or scans, where it tells no patients), but the splits "
            f"need {at_least} at least: prepare more recordings, or ask for fewer splits."
        )
    return patients


def _split(patients_of_scans: dict[str, str], tested_on: Sequence[str]) -> ScanSplit:
    tested = set(tested_on)
    scans = sorted(patients_of_scans)
    return ScanSplit(
        tuple(scan for scan in scans if patients_of_scans[scan] not in tested),
        tuple(scan for scan in scans if patients_of_scans[scan] in tested),
    )
