"""Takes a patient who withdraws out of a prepared set, and lists the models that have seen the patient.

    python -m datasets_scripts.withdraw_patient OUT PATIENT_ID --key OUT.key --runs runs

PATIENT_ID is the hospital's own, as `scan.json` has it, or the name of a recording that came without one;
with `--hashed` it is the keyed hash itself, and no key is needed. The shards that hold rows of the patient
are written anew, and no other; splits, row counts, data hashes, the card and the reports beside the set
follow. `info.json` keeps the former data hashes, by which models are found that were trained before.
`OUT.withdrawn.json`, beside the set, keeps the hashes of the patient and of the scans, so that a command that
was stopped goes on where it stood, and a second one knows that there is nothing left to do.

Not reached are the recordings themselves, from which the next preparation would bring the patient back;
copies of the set on the Hub or in the cache of `datasets`; runs that read it from the Hub, whose data hash is
the Hub's; and models that went on from one of those listed.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard

from datasets_scripts.dataset_card import CARD_FILE
from datasets_scripts.privacy import HASH_CHARACTERS, key_fingerprint, keyed_hash, read_or_create_key
from datasets_scripts.public_sets import UNLABELLED_NAME
from datasets_scripts.schema import LABEL, PLANES, SCAN_ID, SPLITS, UNLABELLED
from datasets_scripts.shards import INFO_FILE, config_dir, data_hash, read_info
from datasets_scripts.splits import check_key, read_splits, write_splits

FORMER_HASHES = "former_data_hashes"
REPORT_ENDING = ".report.json"
# What the numbers of rows by split are called in info.json and in the reports.
ROW_COUNTS = frozenset({"clips", "frames", "rows"})
HASH = re.compile(rf"[0-9a-f]{{{HASH_CHARACTERS}}}")
# What a run writes of its data: the description of a checkpoint, what was measured, the recipe.
DESCRIPTIONS = ("checkpoint.json", "metrics.json", "*.yaml")


class WithdrawalError(ValueError):
    """Nobody was withdrawn, for the reason that the message gives."""


@dataclass(frozen=True)
class Withdrawal:
    """One withdrawal, as `OUT.withdrawn.json` keeps it: all names are keyed hashes.

    Args:
        patient: whom it takes out.
        scans: the patient's.
        configs: the configurations that held rows of them.
        data_hashes: of these configurations, up to the withdrawal.
        is_finished: False while it is under way, or was stopped.
    """

    patient: str
    scans: list[str]
    configs: list[str]
    data_hashes: list[str]
    is_finished: bool = False


@dataclass
class WithdrawalReport:
    """What was done.

    Args:
        patient: keyed hash.
        is_new: False where the patient had been withdrawn before, and nothing was done.
        rows: number of rows taken out of each configuration, by its name.
        shards: number of shards written anew or removed.
        seen_by: folders of models and checkpoints that were trained with the patient.
        still_named: text files of the set that name the patient or a scan even now.
    """

    patient: str
    is_new: bool = True
    rows: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    seen_by: list[Path] = field(default_factory=list)
    still_named: list[Path] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines for people."""
        if self.is_new:
            of_configs = ", ".join(f"{number} rows of {config}" for config, number in self.rows.items())
            lines = [
                f"Patient {self.patient} was withdrawn: {of_configs or 'no rows'}; "
                f"{self.shards} shards changed.",
                "Remove the patient's recordings, or the next preparation brings the patient back.",
            ]
        else:
            lines = [f"Patient {self.patient} was withdrawn before; there is nothing to do."]
        if self.seen_by:
            lines += ["Trained on the set with the patient in it:", *(f"  {path}" for path in self.seen_by)]
        lines += [
            f"{path} still names the patient or a scan; take it out by hand, and run the command again."
            for path in self.still_named
        ]
        return "\n".join(lines)


def withdraw_patient(
    output_dir: Path,
    patient_id: str,
    *,
    key_file: Path | None = None,
    hashed: bool = False,
    runs: Iterable[Path] = (),
) -> WithdrawalReport:
    """Take a patient out of every configuration of a set.

    Args:
        output_dir: the set.
        patient_id: the hospital's id of the patient.
        key_file: the set's key; None means `<output_dir>.key`.
        hashed: `patient_id` is the keyed hash.
        runs: folders below which models and checkpoints are looked for.

    Raises:
        WithdrawalError, SplitError, ValueError, OSError: the message says why.
    """
    output_dir, runs = Path(output_dir).resolve(), [Path(folder) for folder in runs]
    for folder in (output_dir / "data", *runs):
        if not folder.is_dir():
            raise WithdrawalError(f"There is no folder {folder}; name a prepared set, and folders as --runs.")
    names = _possible_names(output_dir, patient_id, key_file, hashed)
    withdrawal = _find(output_dir, names)
    report = WithdrawalReport(withdrawal.patient, is_new=not withdrawal.is_finished)
    if report.is_new:
        _keep(output_dir, withdrawal)
        _withdraw(output_dir, withdrawal, report)
        # What a preparation that was stopped has staged may hold the patient too.
        _remove_folder(output_dir.with_name(f"{output_dir.name}.partial"))
    report.seen_by = models_trained_on(withdrawal.data_hashes, runs)
    return report


def _withdraw(output_dir: Path, withdrawal: Withdrawal, report: WithdrawalReport) -> None:
    """Every step leaves alone what it did before, so that a command that was stopped is given again."""
    scans = set(withdrawal.scans)
    for config in withdrawal.configs:
        removed = [remove_rows(shard, scans) for shard in shards_of(output_dir, config)]
        if any(removed):
            report.rows[config] = sum(removed)
            report.shards += sum(map(bool, removed))
        if shards_of(output_dir, config):
            _describe_anew(output_dir, config)
        else:
            _correct_card(output_dir, config, {})
            _remove_folder(config_dir(output_dir, config))
    for path in _reports_beside(output_dir):
        _correct_report(output_dir, path, withdrawal)
    # The splits are last but one: they tell a second command whose scans these are.
    _remove_from_splits(output_dir, withdrawal)
    report.still_named = _files_that_name(output_dir, {withdrawal.patient, *scans})
    if not report.still_named:
        _keep(output_dir, replace(withdrawal, is_finished=True))


# Who is withdrawn.


def _possible_names(output_dir: Path, patient_id: str, key_file: Path | None, hashed: bool) -> list[str]:
    """The hashes by which the set may know the patient.

    A recording that came without a patient's id is a patient of its own, named by the hash of a scan, and so
    is a patient of a public set.
    """
    if hashed:
        if not HASH.fullmatch(patient_id):
            raise WithdrawalError(
                f"--hashed takes the keyed hash of a patient, {HASH_CHARACTERS} characters of 0-9 and a-f."
            )
        return [patient_id]
    key_file = Path(key_file or output_dir.with_name(f"{output_dir.name}.key"))
    if not key_file.is_file():
        raise WithdrawalError(
            f"There is no file {key_file}; name the key that the set was made with by --key."
        )
    key, splits = read_or_create_key(key_file, output_dir), read_splits(output_dir)
    if splits is not None:
        check_key(splits, key_fingerprint(key))
    return [keyed_hash(key, kind, patient_id.strip()) for kind in ("patient", "scan")]


def _find(output_dir: Path, names: list[str]) -> Withdrawal:
    """What is to be withdrawn, or was, where it is finished."""
    splits = read_splits(output_dir)
    configs = sorted(folder.name for folder in (output_dir / "data").iterdir() if folder.is_dir())
    stored = {config: _stored_scans(output_dir, config) for config in configs}
    if splits is None:
        scans_of_patient = {scan: [scan] for scans in stored.values() for scan in scans}
    else:
        scans_of_patient = {**splits.train, **splits.validation}
    before = [each for each in _read_withdrawals(output_dir) if each.patient in names]
    present = [name for name in names if name in scans_of_patient]
    if not present and not before:
        raise WithdrawalError(
            "The set has no such patient, and none was withdrawn from it; check the id, as scan.json has it."
        )
    if not present and before[0].is_finished:
        return before[0]
    patient = present[0] if present else before[0].patient
    if set(scans_of_patient) == {patient}:
        raise WithdrawalError(f"{output_dir} holds no other patient; remove the whole folder.")
    scans = {scan for each in before for scan in each.scans}
    scans |= set(scans_of_patient[patient]) if present else set()
    concerned = {config for config, held in stored.items() if held & scans}
    hashes = {each for config in concerned for each in _all_hashes(read_info(output_dir, config))}
    hashes |= {each for earlier in before for each in earlier.data_hashes}
    concerned |= {config for earlier in before for config in earlier.configs}
    return Withdrawal(patient, sorted(scans), sorted(concerned), sorted(hashes))


def shards_of(output_dir: Path, config: str, split: str = "*") -> list[Path]:
    """The shards of a configuration, of one split or of all."""
    return sorted(config_dir(output_dir, config).glob(f"{split}-*-of-*.parquet"))


def _stored_scans(output_dir: Path, config: str, split: str = "*") -> set[str]:
    """The scans that a configuration, or a split of it, holds rows of."""
    scans: set[str] = set()
    for shard in shards_of(output_dir, config, split):
        if SCAN_ID not in pq.read_schema(shard).names:
            raise WithdrawalError(f"{shard} has no column {SCAN_ID}, so nobody can tell whose its rows are.")
        scans.update(pq.read_table(shard, columns=[SCAN_ID])[SCAN_ID].unique().to_pylist())
    return scans


def _kept_beside(output_dir: Path) -> Path:
    return output_dir.with_name(f"{output_dir.name}.withdrawn.json")


def _read_withdrawals(output_dir: Path) -> list[Withdrawal]:
    path = _kept_beside(output_dir)
    if not path.exists():
        return []
    try:
        return [Withdrawal(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, json.JSONDecodeError) as error:
        raise WithdrawalError(
            f"{path} is not as it was written ({error}); restore it from a copy."
        ) from error


def _keep(output_dir: Path, withdrawal: Withdrawal) -> None:
    others = [each for each in _read_withdrawals(output_dir) if each.patient != withdrawal.patient]
    _write_json(_kept_beside(output_dir), [asdict(each) for each in (*others, withdrawal)])


# The rows.


def remove_rows(shard: Path, scans: set[str]) -> int:
    """Take the rows of some scans out of a shard, whole or not at all; return their number.

    A shard without such rows is not touched; one without any other is removed.
    """
    file, unwanted = pq.ParquetFile(shard), pa.array(sorted(scans), pa.string())
    removed = pc.sum(pc.is_in(file.read(columns=[SCAN_ID])[SCAN_ID], unwanted)).as_py() or 0
    if removed == file.metadata.num_rows and removed:
        shard.unlink()
        _sync(shard.parent)
    elif removed:
        aside = shard.with_name(f"{shard.name}.partial")
        # As `write_shards` does: JPEG and FLAC do not compress, and their extremes tell nothing.
        with pq.ParquetWriter(
            aside, file.schema_arrow, compression="none", use_dictionary=False, write_statistics=False
        ) as writer:
            for group in map(file.read_row_group, range(file.num_row_groups)):
                kept = group.filter(pc.invert(pc.is_in(group[SCAN_ID], unwanted)))
                if len(kept):
                    writer.write_table(kept)
        _put_in_place(aside, shard)
    return removed


def _put_in_place(aside: Path, path: Path) -> None:
    """Rename a finished file so that a crash leaves the old or the new one, whole."""
    _sync(aside)
    os.replace(aside, path)
    _sync(path.parent)


def _remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_text(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    _put_in_place(aside, path)


def _write_json(path: Path, contents: object) -> None:
    _write_text(path, json.dumps(contents, indent=1, ensure_ascii=False) + "\n")


# What is told of the rows.


def _all_hashes(info: dict) -> list[str]:
    """Every data hash that the configuration has had, in the order of time."""
    return [*info.get(FORMER_HASHES, []), info["data_hash"]]


def _describe_anew(output_dir: Path, config: str) -> None:
    """Bring the card and `info.json` up to date; the latter last, for it tells whether this was done."""
    info, digest = read_info(output_dir, config), data_hash(output_dir, config)
    if info["data_hash"] == digest:
        return
    _correct_card(output_dir, config, {info["data_hash"]: digest})
    former = {FORMER_HASHES: _all_hashes(info)}
    info = _recounted(output_dir, config, info) | {"data_hash": digest} | former
    _write_json(config_dir(output_dir, config) / INFO_FILE, info)


def _recounted(output_dir: Path, config: str, told: dict) -> dict:
    """`info.json`, or a report, with its numbers of rows and scans by split counted anew.

    Numbers of rows are of a split, or, in public sets, of each class in a split.
    """
    told = dict(told)
    for name in ROW_COUNTS & told.keys():
        told[name] = {
            split: _class_counts(output_dir, config, split)
            if isinstance(number, dict)
            else sum(pq.read_metadata(shard).num_rows for shard in shards_of(output_dir, config, split))
            for split, number in told[name].items()
        }
    if "scans" in told:
        told["scans"] = {split: len(_stored_scans(output_dir, config, split)) for split in told["scans"]}
    return told


def _class_counts(output_dir: Path, config: str, split: str) -> dict[str, int]:
    tables = [pq.read_table(shard, columns=[LABEL]) for shard in shards_of(output_dir, config, split)]
    counts = Counter(label for table in tables for label in table[LABEL].to_pylist())
    names = {**dict(enumerate(PLANES)), UNLABELLED: UNLABELLED_NAME}
    return {name: counts[label] for label, name in names.items() if counts[label]}


def _correct_card(output_dir: Path, config: str, new_hashes: dict[str, str]) -> None:
    """Replace data hashes in the card; take out of it the splits, or the configuration, without shards."""
    path = output_dir / CARD_FILE
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    for old, new in new_hashes.items():
        text = text.replace(old, new)
    card = DatasetCard(text)
    for entry in [each for each in card.data.configs if each["config_name"] == config]:
        entry["data_files"] = [
            each for each in entry["data_files"] if shards_of(output_dir, config, each["split"])
        ]
        if not entry["data_files"]:
            card.data.configs.remove(entry)
    _write_text(path, str(card))


def _reports_beside(output_dir: Path) -> list[Path]:
    return [
        path
        for path in sorted(output_dir.parent.iterdir())
        if path.name.startswith(f"{output_dir.name}.") and path.name.endswith(REPORT_ENDING)
    ]


def _correct_report(output_dir: Path, path: Path, withdrawal: Withdrawal) -> None:
    """Take the patient's recordings out of a report beside the set."""
    path.with_suffix(".html").unlink(missing_ok=True)  # it shows the patient's pictures
    report = json.loads(path.read_text(encoding="utf-8"))
    config = path.name.removeprefix(f"{output_dir.name}.").removesuffix(REPORT_ENDING)
    if config in withdrawal.configs:
        report = _recounted(output_dir, config, report)
        if shards_of(output_dir, config):
            report["data_hash"] = read_info(output_dir, config)["data_hash"]
    if "pictures" in report:
        report["pictures"] = [each for each in report["pictures"] if not _is_of(each, withdrawal)]
    if "recordings" in report:
        gone = [each for each in report["recordings"] if _is_of(each, withdrawal)]
        report["recordings"] = [each for each in report["recordings"] if each not in gone]
        side = _side_of(output_dir, withdrawal.patient)
        counted = sum((Counter(each["counts"]) for each in gone if each["rows"]), Counter())
        if side is not None:
            report["counts"][side] = dict(Counter(report["counts"][side]) - counted)
    _write_json(path, report)


def _is_of(recording: dict, withdrawal: Withdrawal) -> bool:
    return recording["patient"] == withdrawal.patient or recording["scan_id"] in withdrawal.scans


def _side_of(output_dir: Path, patient: str) -> str | None:
    splits = read_splits(output_dir)
    sides = () if splits is None else (split for split in SPLITS if patient in getattr(splits, split))
    return next(iter(sides), None)


def _remove_from_splits(output_dir: Path, withdrawal: Withdrawal) -> None:
    splits, side = read_splits(output_dir), _side_of(output_dir, withdrawal.patient)
    if side is not None:
        others = {name: scans for name, scans in getattr(splits, side).items() if name != withdrawal.patient}
        write_splits(replace(splits, **{side: others}), output_dir)
        _sync(output_dir)


def _files_that_name(output_dir: Path, hashes: set[str]) -> list[Path]:
    files = (path for path in sorted(output_dir.rglob("*")) if path.is_file() and path.suffix != ".parquet")
    return [path for path in files if _names_any(path, hashes)]


def _names_any(path: Path, hashes: Iterable[str]) -> bool:
    contents = path.read_bytes()
    return any(each.encode() in contents for each in hashes)


def models_trained_on(data_hashes: Iterable[str], runs: Iterable[Path]) -> list[Path]:
    """The folders of models and checkpoints below `runs` of which a description names one of the hashes."""
    described = {path.resolve() for run in runs for name in DESCRIPTIONS for path in run.rglob(name)}
    return sorted({path.parent for path in described if path.is_file() and _names_any(path, data_hashes)})


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 where a text file still names the patient, 2 where nothing
    could be done."""
    parser = argparse.ArgumentParser(prog="withdraw_patient", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("output", type=Path, metavar="OUT", help="folder of the data set")
    add("patient_id", metavar="PATIENT_ID", help="the hospital's id of the patient, as scan.json has it")
    add("--hashed", action="store_true", help="PATIENT_ID is the keyed hash itself; no key is needed")
    add("--key", "--key-file", type=Path, help="key of the hashed identifiers; default: OUT.key")
    add(
        "--runs", type=Path, nargs="+", default=[], metavar="FOLDER", help="folders of models and checkpoints"
    )
    options = parser.parse_args(command_line)
    try:
        report = withdraw_patient(
            options.output,
            options.patient_id,
            key_file=options.key,
            hashed=options.hashed,
            runs=options.runs,
        )
    except (ValueError, OSError) as error:
        print(f"withdraw_patient: {error}", file=sys.stderr)
        return 2
    print(report.summary())
    return 1 if report.still_named else 0


if __name__ == "__main__":
    sys.exit(main())
