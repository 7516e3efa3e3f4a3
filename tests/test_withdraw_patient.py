"""A patient is taken out of every configuration, whole; nothing else changes, and a crash does no harm."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image
from tiny_recordings import SIZE, even_times, tone, write_video

from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.prepare_planes import PlaneParameters, prepare_planes
from datasets_scripts.privacy import keyed_hash, read_or_create_key
from datasets_scripts.privacy_check import check_privacy
from datasets_scripts.public_set_layouts import LAYOUTS
from datasets_scripts.public_sets import prepare_public_set
from datasets_scripts.schema import clips_features, planes_features
from datasets_scripts.shards import data_hash, read_info
from datasets_scripts.splits import read_splits
from datasets_scripts.withdraw_patient import WithdrawalError, main, models_trained_on, withdraw_patient
from train.metrics_file import write_metrics

ADA = "Ada 0017"
SCANS = {"visit_0": ADA, "visit_1": "Ben", "visit_2": ADA, "visit_3": "Cid", "visit_4": "Dee", "alone": None}
CONFIGS = ("large", "planes")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with a set of clips and planes, its key and its reports."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, patient in SCANS.items():
        scan = folder / "in" / name
        write_video(scan / "scan.mp4", even_times(4.2), sound=tone(4.2))
        (scan / "planes.csv").write_text("start_s,end_s,label\n1,3,femur\n")
        if patient is not None:
            (scan / "scan.json").write_text(json.dumps({"patient_id": patient}))
    clips = ClipParameters(clip_seconds=2.0, frames_per_clip=4, frame_size=SIZE, validation_fraction=0.4)
    prepare_clips(folder / "in", folder / "set", clips, workers=1)
    planes = PlaneParameters(frame_size=SIZE, validation_fraction=0.4)
    prepare_planes(folder / "in", folder / "set", planes, workers=1)
    return folder


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(prepared, tmp_path / "work", ignore=shutil.ignore_patterns("in")))


def patient_and_scans(folder: Path, patient_id: str = ADA) -> tuple[str, list[str]]:
    patient = keyed_hash(read_or_create_key(folder / "set.key", folder / "set"), "patient", patient_id)
    splits = read_splits(folder / "set")
    return patient, {**splits.train, **splits.validation}[patient]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(output: Path, config: str) -> dict[str, list[dict]]:
    """The rows of each shard, undecoded."""
    return {
        path.name: pq.read_table(path).to_pylist()
        for path in sorted((output / "data" / config).glob("*.parquet"))
    }


# What is taken out.


def test_no_row_of_the_patient_is_left_and_all_others_are_as_they_were(folder):
    _, scans = patient_and_scans(folder)
    before = {config: rows_of(folder / "set", config) for config in CONFIGS}
    report = withdraw_patient(folder / "set", ADA)
    for config in CONFIGS:
        kept = {
            name: [row for row in rows if row["scan_id"] not in scans]
            for name, rows in before[config].items()
        }
        removed = sum(map(len, before[config].values())) - sum(map(len, kept.values()))
        assert report.rows[config] == removed > 0
        assert rows_of(folder / "set", config) == {name: rows for name, rows in kept.items() if rows}


def test_shards_without_the_patient_are_not_touched(folder):
    _, scans = patient_and_scans(folder)
    shards = [path for path in (folder / "set").rglob("*.parquet")]
    alien = [path for path in shards if not set(pq.read_table(path)["scan_id"].to_pylist()) & set(scans)]
    assert 0 < len(alien) < len(shards)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in alien}
    report = withdraw_patient(folder / "set", ADA)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in alien}
    assert after == before
    assert report.shards == len(shards) - len(alien)


def test_the_set_loads_after_a_withdrawal(folder):
    withdraw_patient(folder / "set", ADA)
    for config, features in (("large", clips_features()), ("planes", planes_features())):
        dataset = load_dataset(str(folder / "set"), config, cache_dir=str(folder / "cache"))
        info = read_info(folder / "set", config)
        for split, rows in dataset.items():
            assert rows.features == features
            assert info["clips" if config == "large" else "frames"][split] == len(rows)
            assert info["scans"][split] == len(set(rows["scan_id"]))
        frame = dataset["train"][0]["frames"][0] if config == "large" else dataset["train"][0]["image"]
        assert isinstance(frame, Image.Image)
    assert not check_privacy(folder / "set")


def test_the_hash_is_computed_anew_and_the_former_one_kept(folder):
    former = {config: read_info(folder / "set", config) for config in CONFIGS}
    card = (folder / "set" / "README.md").read_text()
    withdraw_patient(folder / "set", ADA)
    for config, before in former.items():
        info = read_info(folder / "set", config)
        assert info["data_hash"] == data_hash(folder / "set", config) != before["data_hash"]
        assert info["former_data_hashes"] == [before["data_hash"]]
        changed = {"data_hash", "scans", "clips", "frames", "former_data_hashes"}
        assert {name for name in before if before[name] != info[name]} <= changed
        card = card.replace(before["data_hash"], info["data_hash"])
        report = json.loads((folder / f"set.{config}.report.json").read_text())
        assert report["data_hash"] == info["data_hash"]
    assert (folder / "set" / "README.md").read_text() == card
    withdraw_patient(folder / "set", "Ben")
    hashes = read_info(folder / "set", "large")["former_data_hashes"]
    assert hashes[0] == former["large"]["data_hash"] and len(hashes) == 2


def test_nothing_but_the_record_beside_names_the_patient_or_the_scans(folder):
    patient, scans = patient_and_scans(folder)
    withdraw_patient(folder / "set", ADA)
    for name, content in contents(folder).items():
        if name != "set.withdrawn.json":
            assert not any(each.encode() in content for each in (patient, *scans, "visit_0")), name
    others = read_splits(folder / "set")
    assert len(others.train) + len(others.validation) == 4


def test_the_reports_count_as_if_the_patient_had_not_been_there(folder):
    withdraw_patient(folder / "set", ADA)
    for config in CONFIGS:
        report = json.loads((folder / f"set.{config}.report.json").read_text())
        assert len(report["recordings"]) == 4
        splits = read_splits(folder / "set")
        for split in ("train", "validation"):
            kept = [each for each in report["recordings"] if each["scan_id"] in splits.scans(split)]
            assert report["rows"][split] == sum(each["rows"] for each in kept)
            assert report["scans"][split] == len(kept)
            for name, number in report["counts"][split].items():
                assert number == sum(each["counts"].get(name, 0) for each in kept) > 0


def test_a_recording_without_a_patient_goes_by_its_own_name(folder):
    report = withdraw_patient(folder / "set", " alone\n")
    assert report.rows["large"] == 2
    assert report.patient not in (folder / "set" / "splits.json").read_text()


def test_a_hash_needs_no_key(folder):
    patient, _ = patient_and_scans(folder)
    (folder / "set.key").unlink()
    assert withdraw_patient(folder / "set", patient, hashed=True).rows.keys() == set(CONFIGS)


def test_a_split_and_a_configuration_without_rows_leave_the_card(folder):
    """All patients of validation go, then all that have planes."""
    splits = read_splits(folder / "set")
    for patient in splits.validation:
        withdraw_patient(folder / "set", patient, hashed=True)
    assert set(load_dataset(str(folder / "set"), "large", streaming=True)) == {"train"}
    assert read_info(folder / "set", "large")["clips"]["validation"] == 0
    last = next(iter(splits.train))
    for path in (folder / "set" / "data" / "planes").glob("*.parquet"):
        table = pq.read_table(path)
        kept = table.filter([scan in splits.train[last] for scan in table["scan_id"].to_pylist()])
        path.unlink()
        if len(kept):
            pq.write_table(kept, path)
    withdraw_patient(folder / "set", last, hashed=True)
    assert not (folder / "set" / "data" / "planes").exists()
    assert "config_name: large" in (folder / "set" / "README.md").read_text()
    assert "config_name: planes" not in (folder / "set" / "README.md").read_text()


def test_a_public_set_loses_a_patient_and_counts_its_classes(tmp_path):
    for number in range(6):
        path = tmp_path / "in" / ("femur" if number % 2 else "lips") / f"case{number // 2}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (SIZE, SIZE), 40 * number).save(path)
    classes = tmp_path / "classes.yaml"
    classes.write_text("labels:\n  femur: femur\n  lips: lips\n")
    layout = LAYOUTS["image_folder"](patient_pattern=r"(?P<patient>case\d)")
    output = tmp_path / "set"
    prepare_public_set(layout, tmp_path / "in", output, class_map=classes)
    report = withdraw_patient(output, "case1")
    assert report.rows == {"planes": 2}
    info = read_info(output, "planes")
    assert info["frames"] == {"train": {"femur": 2, "lips": 2}} and info["scans"] == {"train": 2}
    told = json.loads((tmp_path / "set.planes.report.json").read_text())
    assert told["frames"] == info["frames"]
    assert len(told["pictures"]) == 4 and not any("case1" in each["name"] for each in told["pictures"])
    assert not withdraw_patient(output, "case1").is_new


# Again, stopped, and refused.


def test_a_second_command_does_nothing_and_says_so(folder, capsys):
    assert main([str(folder / "set"), ADA]) == 0
    assert "was withdrawn: " in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main([str(folder / "set"), ADA, "--key", str(folder / "set.key")]) == 0
    assert "was withdrawn before; there is nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


class Stop(Exception):
    pass


def test_stopped_at_any_change_of_a_file_it_ends_as_if_undisturbed(folder, tmp_path, monkeypatch):
    untouched = Path(shutil.copytree(folder, tmp_path / "undisturbed"))
    withdraw_patient(untouched / "set", ADA)
    expected, real_replace, real_unlink, changes = contents(untouched), os.replace, os.unlink, 0
    while True:
        trial, left = Path(shutil.copytree(folder, tmp_path / "trial")), changes

        def stopping(real, *arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Stop
            real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *a, **o: stopping(real_replace, *a, **o))
            patch.setattr(os, "unlink", lambda *a, **o: stopping(real_unlink, *a, **o))
            try:
                withdraw_patient(trial / "set", ADA)
                break
            except Stop:
                pass
        assert withdraw_patient(trial / "set", ADA).is_new
        assert contents(trial) == expected
        shutil.rmtree(trial)
        changes += 1
    assert changes > 8


def test_killed_while_it_writes_a_shard_it_ends_well(folder):
    """A real process, killed with half a shard written aside."""
    program = (
        "import os, signal, sys, pyarrow.parquet as pq\n"
        "from datasets_scripts import withdraw_patient as w\n"
        "class Killing(pq.ParquetWriter):\n"
        "    def write_table(self, table):\n"
        "        super().write_table(table)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "w.pq.ParquetWriter = Killing\n"
        "w.main(sys.argv[1:])\n"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program, str(folder / "set"), ADA], cwd=root)
    assert done.returncode == -9
    assert any(name.endswith(".partial") for name in contents(folder))
    report = withdraw_patient(folder / "set", ADA)
    assert report.rows.keys() == set(CONFIGS)
    assert not any(name.endswith(".partial") for name in contents(folder))


def test_a_patient_who_was_prepared_again_is_taken_out_again(folder, prepared):
    withdraw_patient(folder / "set", ADA)
    parameters = ClipParameters(clip_seconds=2.0, frames_per_clip=4, frame_size=SIZE, validation_fraction=0.4)
    prepare_clips(prepared / "in", folder / "set", parameters, workers=1, overwrite=True)
    report = withdraw_patient(folder / "set", ADA)
    assert report.is_new and report.rows == {"large": 4}


def test_a_text_that_still_names_the_patient_is_told(folder, capsys):
    patient, scans = patient_and_scans(folder)
    note = folder / "set" / "notes.txt"
    note.write_text(f"Scan {scans[0]} is upside down.\n")
    assert main([str(folder / "set"), ADA]) == 1
    assert f"{note} still names" in capsys.readouterr().out
    assert main([str(folder / "set"), ADA]) == 1
    note.unlink()
    assert main([str(folder / "set"), patient, "--hashed"]) == 0
    assert main([str(folder / "set"), patient, "--hashed"]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["Nobody"], "has no such patient"),
        (["0123456789abcdef", "--hashed"], "has no such patient"),
        ([ADA, "--hashed"], "--hashed takes the keyed hash"),
        ([ADA, "--key", "absent.key"], "no file absent.key"),
        ([ADA, "--key", "other.key"], "written with another key"),
        ([ADA, "--runs", "absent"], "no folder absent"),
    ],
)
def test_what_cannot_be_withdrawn_is_a_sentence_and_changes_nothing(
    folder, monkeypatch, capsys, arguments, complaint
):
    monkeypatch.chdir(folder)
    (folder / "other.key").write_text("ab" * 32)
    before = contents(folder)
    assert main(["set", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("withdraw_patient: ") and complaint in told
    assert contents(folder) == before


def test_a_folder_that_is_no_set_and_the_last_patient_are_refused(folder, tmp_path):
    with pytest.raises(WithdrawalError, match="no folder"):
        withdraw_patient(tmp_path, ADA)
    splits = read_splits(folder / "set")
    *others, last = {**splits.train, **splits.validation}
    for patient in others:
        withdraw_patient(folder / "set", patient, hashed=True)
    with pytest.raises(WithdrawalError, match="no other patient"):
        withdraw_patient(folder / "set", last, hashed=True)


# The models.


def test_models_and_checkpoints_of_the_former_set_are_listed(folder, capsys):
    former, runs = read_info(folder / "set", "large")["data_hash"], folder / "runs"
    for name, digest in (("seen", former), ("unseen", "0" * 64)):
        (runs / name / "checkpoints" / "5").mkdir(parents=True)
        description = {"data_order": {"data_hash": digest}}
        (runs / name / "checkpoints" / "5" / "checkpoint.json").write_text(json.dumps(description))
        (runs / name / "checkpoints" / "last").symlink_to("5")
        (runs / name / "model").mkdir()
        write_metrics(
            runs / name / "model" / "metrics.json", {"test/f1": 0.5}, recipe="tiny", seed=0, data_hash=digest
        )
    shutil.copytree(folder / "set", runs / "copy of the set")  # Not a model.
    expected = [runs / "seen" / "checkpoints" / "5", runs / "seen" / "model"]
    for _ in range(2):  # The second time nothing is withdrawn, and the models are listed all the same.
        assert main([str(folder / "set"), ADA, "--runs", str(folder), str(runs)]) == 0
        assert re.findall(r"^  (.+)$", capsys.readouterr().out, re.MULTILINE) == list(map(str, expected))
    assert withdraw_patient(folder / "set", "Ben", runs=[runs]).seen_by == expected


def test_models_of_a_configuration_without_the_patient_are_not_listed(folder):
    for path in (folder / "set" / "data" / "planes").glob("*.parquet"):
        table = pq.read_table(path)
        _, scans = patient_and_scans(folder)
        pq.write_table(table.filter([scan not in scans for scan in table["scan_id"].to_pylist()]), path)
    digest = read_info(folder / "set", "planes")["data_hash"]
    (folder / "runs").mkdir()
    (folder / "runs" / "metrics.json").write_text(json.dumps({"data_hash": digest}))
    assert not withdraw_patient(folder / "set", ADA, runs=[folder / "runs"]).seen_by
    assert models_trained_on([digest], [folder / "runs"]) == [folder / "runs"]
