"""Fine-tuning for planes from a set on disk to a folder that pipelines take, and its refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from frame_set_helpers import FRAME_SIZE, TINY_CONFIG, frame_rows, picture, png, write_set
from hub_helpers import hub_in_this_process
from huggingface_hub import HfApi
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, AutoModelForVideoClassification, pipeline

from datasets_scripts.schema import PLANES, UNLABELLED, plane_clips_features
from modeling_dualrep import DualRepConfig, DualRepModel, DualRepVideoProcessor
from train.arguments import build, merge
from train.finetune_arguments import FinetunePlanesArguments
from train.finetune_planes import finetune_planes, main
from train.metrics_file import read_metrics
from train.plane_results import SplitPredictions, over_splits, split_scores
from train.scan_splits import read_scan_splits
from train.score_intervals import plane_intervals

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 3


@pytest.fixture(autouse=True)
def fresh_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers keeps the precision in the environment, accelerate for the life of a process."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine scans of frames that show three planes, two a plane."""
    rows = {"train": frame_rows(6, CLASSES), "validation": frame_rows(3, CLASSES, first_scan=6)}
    return write_set(tmp_path_factory.mktemp("frames") / "set", rows)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining folder."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    DualRepModel(DualRepConfig(**TINY_CONFIG)).save_pretrained(folder)
    return folder


def recipe(dataset: Path, output_dir: Path, **fields: object) -> dict:
    return merge(
        {
            "dataset": str(dataset),
            "output_dir": str(output_dir),
            "model": "random",
            "model_config": TINY_CONFIG,
            "num_splits": 2,
            "max_steps": 4,
            "per_device_train_batch_size": 8,
            "logging_steps": 50,
        },
        fields,
    )


def run(dataset: Path, output_dir: Path, **fields: object) -> Path:
    finetune_planes(build(FinetunePlanesArguments, recipe(dataset, output_dir, **fields), "test"), "test")
    return output_dir


def flags(fields: dict) -> list[str]:
    return [word for name, value in fields.items() for word in (f"--{name}", json.dumps(value))]


def predictions(folder: Path) -> list[SplitPredictions]:
    """What predictions.parquet says, split by split."""
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    index = {name: number for number, name in enumerate(PLANES)}
    return [
        SplitPredictions(
            list(of_split.scan_id),
            of_split.time_s.to_numpy(),
            of_split.label.map(index).to_numpy(),
            of_split[[f"probability_{name}" for name in PLANES]].to_numpy(),
        )
        for _, of_split in table.groupby("split")
    ]


@pytest.fixture(scope="module")
def learnt(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run long enough to learn, by the command in processes of its own."""
    folder = tmp_path_factory.mktemp("learnt") / "out"
    learning = {"max_steps": 60, "learning_rate": 1e-2, "augmentation": {"crop_scale": 0.9}}
    launcher = Path(sys.executable).with_name("accelerate")
    command = [
        launcher,
        "launch",
        "--cpu",
        "--num_processes",
        "1",
        "--num_cpu_threads_per_process",
        "1",
        ROOT / "train" / "finetune_planes.py",
    ]
    command += flags(recipe(frames, folder, **learning))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def test_a_run_learns_what_can_be_learnt(learnt: Path) -> None:
    metrics = read_metrics(learnt / "metrics.json")["metrics"]
    assert metrics["test/f1"] > 0.9 and metrics["split_1/f1"] > 0.8 and metrics["test/absent_classes"] == 11
    printed = (learnt / "printed.txt").read_text()
    assert "54 frames of 3 classes from 9 scans" in printed
    row = next(line for line in printed.splitlines() if line.startswith("macro average"))
    assert row.split()[2] == f"{100 * metrics['test/precision']:.1f}"
    assert "Absent, without a test frame: femur" in printed


def test_a_run_leaves_all_its_files(learnt: Path) -> None:
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml"):
        assert (learnt / name).is_file(), name
    for name in ("confusion_matrix.png", "reliability.png"):
        assert Image.open(learnt / "pictures" / name).size > (100, 100), name
    splits = read_scan_splits(learnt / "splits.json")
    assert [(len(split.train), len(split.test)) for split in splits] == [(6, 3)] * 2
    for split, tested in zip(splits, predictions(learnt), strict=True):
        assert set(tested.scan_ids) == set(split.test) and len(tested.labels) == 18
    assert not (learnt / ".unfinished").exists() and not list(learnt.glob("checkpoint*"))


def test_metrics_can_be_computed_again_from_the_predictions(learnt: Path) -> None:
    again = over_splits([split_scores(test, PLANES) for test in predictions(learnt)])
    written = read_metrics(learnt / "metrics.json")["metrics"]
    again |= plane_intervals(predictions(learnt), PLANES)
    assert again == pytest.approx(written)
    assert written["test/f1_low"] <= written["test/f1"] <= written["test/f1_high"]
    scores = [written[f"split_{number}/f1"] for number in (1, 2)]
    assert written["test/f1"] == pytest.approx(np.mean(scores))
    assert written["test/f1_std"] == pytest.approx(np.std(scores, ddof=1))


def test_the_pipeline_says_what_the_first_split_s_model_said(learnt: Path, frames: Path) -> None:
    model = AutoModelForImageClassification.from_pretrained(learnt)
    assert model.config.id2label == dict(enumerate(PLANES))
    tested = predictions(learnt)[0]
    stored = {
        (row["scan_id"], row["time_s"]): row["image"]
        for path in sorted(frames.rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }
    classify = pipeline("image-classification", model=str(learnt))
    for index in (0, 7, 17):
        path = learnt / "frame.png"
        path.write_bytes(stored[tested.scan_ids[index], tested.times_s[index]]["bytes"])
        scores = {score["label"]: score["score"] for score in classify(str(path), top_k=14)}
        expected = tested.probabilities[index]
        np.testing.assert_allclose([scores[name] for name in PLANES], expected, atol=1e-5)
        path.unlink()


def test_a_folder_needs_no_package(learnt: Path, tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    Image.fromarray(picture(1, 7)).save(path)
    script = (
        "import sys\nsys.modules['modeling_dualrep'] = None\nfrom transformers import pipeline\n"
        f"classify = pipeline('image-classification', model={str(learnt)!r}, trust_remote_code=True)\n"
        f"print(classify({str(path)!r})[0]['label'])"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == PLANES[1]


def test_clips_train_the_video_tower(tmp_path: Path) -> None:
    def rows(first: int, scans: int) -> list[dict]:
        return [
            {
                "frames": [png(picture(label, 100 * scan + frame)) for frame in range(6)],
                "label": label,
                "scan_id": f"s{scan}",
                "start_s": 2.0 * label,
            }
            for scan in range(first, first + scans)
            for label in range(CLASSES)
        ]

    splits = {"train": rows(0, 6), "test": rows(6, 3)}
    clips = write_set(tmp_path / "set", splits, "plane_clips", plane_clips_features())
    folder = run(
        clips,
        tmp_path / "out",
        dataset_config="plane_clips",
        split_method="given",
        max_steps=60,
        learning_rate=1e-2,
        augmentation={"crop_scale": 0.9},
    )
    metrics = read_metrics(folder / "metrics.json")["metrics"]
    assert metrics["test/f1"] > 0.9 and "test/f1_std" not in metrics and metrics["test/frames"] == 9
    model = AutoModelForVideoClassification.from_pretrained(folder)
    processor = DualRepVideoProcessor.from_pretrained(folder)
    assert processor.num_frames == 3 and processor.size["height"] == FRAME_SIZE
    with torch.no_grad():
        clip = np.stack([picture(1, 600 + frame) for frame in range(6)])
        scores = model(**processor([clip], return_tensors="pt")).logits.softmax(1)[0]
    tested = predictions(folder)[0]
    place = tested.scan_ids.index("s6") + 1
    assert tested.labels[place] == 1 and tested.times_s[place] == 2.0
    np.testing.assert_allclose(scores.numpy(), tested.probabilities[place], atol=1e-5)


def test_a_linear_probe_leaves_the_pretrained_tower_as_it_was(
    frames: Path, pretrained: Path, tmp_path: Path
) -> None:
    before = load_file(pretrained / "model.safetensors")
    for probe in (True, False):
        folder = run(
            frames,
            tmp_path / str(probe),
            model=str(pretrained),
            model_config={},
            linear_probe=probe,
            num_splits=1,
        )
        after = load_file(folder / "model.safetensors")
        tower = [name for name in after if name.startswith("image_model.")]
        assert all(torch.equal(before[name], after[name]) for name in tower) == probe
        assert "test/f1_std" not in read_metrics(folder / "metrics.json")["metrics"]


def outcome(dataset: Path, output_dir: Path, **fields: object) -> tuple[dict, dict]:
    folder = run(dataset, output_dir, num_splits=1, max_steps=3, **fields)
    return read_metrics(folder / "metrics.json")["metrics"], load_file(folder / "model.safetensors")


def are_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_run_wherever_its_frames_are(frames: Path, tmp_path: Path) -> None:
    metrics, weights = outcome(frames, tmp_path / "first")
    again, same = outcome(frames, tmp_path / "again", frame_memory="memory_map", dataloader_num_workers=1)
    assert metrics == again and are_same(weights, same)
    assert not are_same(weights, outcome(frames, tmp_path / "other", seed=1)[1])


def test_balance_is_by_sampling_by_the_loss_or_not_at_all(tmp_path: Path) -> None:
    rows = [row for row in frame_rows(6, CLASSES, 3) if row["label"] == 0 or row["time_s"] % 1.5 == 0]
    uneven = write_set(tmp_path / "set", {"train": rows})
    choices = ("none", "class_weights", "balanced_sampling")
    weights = [outcome(uneven, tmp_path / balance, balance=balance)[1] for balance in choices]
    assert not any(are_same(weights[one], weights[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_a_share_of_the_labels_trains_on_fewer_frames_and_tests_on_all(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    told = {"num_splits": 1, "max_steps": 3, "per_device_train_batch_size": 3}
    folders = [run(frames, tmp_path / str(share), label_share=share, **told) for share in (1.0, 0.1)]
    assert [len(predictions(folder)[0].labels) for folder in folders] == [18, 18]
    assert not are_same(*(load_file(folder / "model.safetensors") for folder in folders))
    # A tenth of twelve frames a class is one frame, so a batch of four is too large.
    told |= {"per_device_train_batch_size": 4, "label_share": 0.1}
    assert main(flags(recipe(frames, tmp_path / "out", **told))) == 2
    assert "has 3 training frames, fewer than the 4 of one step" in capsys.readouterr().err


def test_a_kept_file_of_splits_is_used_again(frames: Path, learnt: Path, tmp_path: Path) -> None:
    kept = learnt / "splits.json"
    folder = run(frames, tmp_path / "out", max_steps=1, seed=5, split_file=str(kept))
    assert (folder / "splits.json").read_text() == kept.read_text()


def test_unlabelled_rows_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = frame_rows(6, CLASSES)
    for row in rows[:5]:
        row["label"] = UNLABELLED
    folder = run(write_set(tmp_path / "set", {"train": rows}), tmp_path / "out", max_steps=1)
    assert "31 frames of 3 classes" in (printed := capsys.readouterr().out)
    assert "5 frames without a label are left out" in printed
    assert all((tested.labels >= 0).all() for tested in predictions(folder))


def test_refusals_are_sentences_and_leave_nothing(
    frames: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def refusal(dataset: Path = frames, **fields: object) -> str:
        assert main(flags(recipe(dataset, tmp_path / "out", **fields))) == 2
        assert not (tmp_path / "out").exists()
        error = capsys.readouterr().err
        assert error.startswith("finetune_planes.py: ") and "Traceback" not in error
        return error

    assert "no field 'learning_rat'" in refusal(learning_rat=1)
    assert "There is no DualRep model 'nowhere/at/all'" in refusal(model="nowhere/at/all")
    assert "fewer than the 100 of one step" in refusal(per_device_train_batch_size=100)
    assert "need 20 at least" in refusal(split_method="group_k_fold", num_splits=20)
    assert "'plane_clips'" in refusal(dataset_config="plane_clips")
    assert "no file of splits" in refusal(split_file=str(tmp_path / "none.json"))
    assert "freze" in refusal(model_config={"image_config": {"freze": True}})
    rare = frame_rows(4, 2)
    rare[0]["label"] = 5
    rare_set = write_set(tmp_path / "rare", {"train": rare})
    assert "no training frame of kidneys" in refusal(rare_set, num_splits=4, split_method="group_k_fold")
    same_scan = {"train": frame_rows(4, 2), "test": frame_rows(4, 2)}
    mixed = write_set(tmp_path / "mixed", same_scan)
    assert "stands on both sides of a split" in refusal(mixed, split_method="given")
    blank = frame_rows(4, 2)
    for row in blank:
        row["label"] = UNLABELLED
    assert "nothing to learn" in refusal(write_set(tmp_path / "blank", {"train": blank}))


def test_a_run_that_diverges_ends_in_a_sentence(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(flags(recipe(frames, tmp_path / "out", learning_rate=1e30))) == 2
    assert "diverged. Lower learning_rate" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_another_run_s_folder_is_left_alone(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = run(frames, tmp_path / "out", max_steps=1)
    before = (folder / "metrics.json").read_text()
    assert main(flags(recipe(frames, folder, max_steps=2))) == 2
    assert "another recipe: its max_steps is 1, this run's is 2" in capsys.readouterr().err
    assert (folder / "metrics.json").read_text() == before
    assert main(flags(recipe(frames, folder, max_steps=2, overwrite_output_dir=True))) == 0
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").touch()
    assert main(flags(recipe(frames, tmp_path / "thesis"))) == 2
    assert "no fine-tuning wrote" in capsys.readouterr().err


def test_a_finished_run_is_pushed(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """To the name given, in private; a name that the Hub refuses is told before the training."""
    with hub_in_this_process(monkeypatch) as hub:
        told = recipe(frames, tmp_path / "out", max_steps=1, push_to_hub="no/such/name")
        assert main(flags(told)) == 2
        assert not (tmp_path / "out").exists() and not hub.repositories
        assert main(flags(told | {"push_to_hub": "me/planes"})) == 0
        assert "me/planes" in capsys.readouterr().out
        files = HfApi().list_repo_files("me/planes")
    assert {"model.safetensors", "metrics.json", "README.md", "recipe.yaml"} <= set(files)
    assert "predictions.parquet" not in files and "splits.json" not in files


def test_help_is_printed(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    assert "--linear_probe False" in capsys.readouterr().out
