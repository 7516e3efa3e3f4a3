"""Fine-tuning for saliency, from a set of frames with fixations to the folder; what is refused."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from hub_helpers import hub_in_this_process
from huggingface_hub import HfApi
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

from datasets_scripts.schema import gaze_features
from modeling_dualrep import DualRepConfig, DualRepImageProcessor, DualRepModel
from train.arguments import build, merge, read_recipe
from train.finetune_arguments import FinetuneSaliencyArguments
from train.finetune_saliency import SaliencyTask, finetune_saliency, main, run_split
from train.fixation_maps import GaussianArguments, center_prior, density_map
from train.frame_sets import FrameSet
from train.metrics.saliency.saliency import kl_divergence
from train.metrics_file import read_metrics
from train.saliency_results import COLUMNS
from train.scan_splits import ScanSplit
from train.starting_model import starting_model

ROOT = Path(__file__).resolve().parents[1]
SIZE = 32
MODEL = {
    "image_config": {"image_size": SIZE, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "video_config": {"image_size": 16, "stem_hidden_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]},
    "audio_config": {"hidden_sizes": [8, 8]},
    "saliency_decoder_size": 16,
}
CARD = """---
configs:
- config_name: gaze
  data_files:
  - split: train
    path: data/gaze/train-*
  - split: validation
    path: data/gaze/validation-*
---
"""


def blob_row(scan_id: str, time_s: float, chance: np.random.Generator) -> dict:
    """A dark frame with a bright blob somewhere, and fixations on the blob."""
    place = chance.uniform(0.2, 0.8, 2)
    centres = (np.arange(SIZE) + 0.5) / SIZE
    squared = (centres[None] - place[0]) ** 2 + (centres[:, None] - place[1]) ** 2
    picture = 220 * np.exp(-squared / (2 * 0.07**2)) + chance.uniform(0, 30, (SIZE, SIZE))
    encoded = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).convert("RGB").save(encoded, "PNG")
    fixations = np.clip(place + chance.normal(0, 0.02, (3, 2)), 0, 1)
    return {
        "image": {"bytes": encoded.getvalue(), "path": None},
        "fixations": fixations.tolist(),
        "scan_id": scan_id,
        "time_s": time_s,
    }


def write_gaze_set(folder: Path, train: list[dict], validation: list[dict]) -> Path:
    """A set as `prepare_gaze` writes it."""
    data = folder / "data" / "gaze"
    data.mkdir(parents=True)
    for split, rows in (("train", train), ("validation", validation)):
        table = pa.Table.from_pylist(rows, gaze_features().arrow_schema)
        pq.write_table(table, data / f"{split}-00000-of-00001.parquet")
    (data / "info.json").write_text(json.dumps({"data_hash": "0" * 64}))
    (folder / "README.md").write_text(CARD)
    scans = {
        "train": sorted({row["scan_id"] for row in train}),
        "validation": sorted({row["scan_id"] for row in validation}),
    }
    # The first two training scans are of one patient.
    patients = {side: {scan: [scan] for scan in names} for side, names in scans.items()}
    patients["train"][scans["train"][0]] = scans["train"][:2]
    del patients["train"][scans["train"][1]]
    (folder / "splits.json").write_text(json.dumps(patients))
    return folder


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    chance = np.random.default_rng(0)
    scans = {"train": [f"scan{number}" for number in range(8)], "validation": ["scan8", "scan9"]}
    return {
        side: [blob_row(scan, float(second), chance) for scan in names for second in range(6)]
        for side, names in scans.items()
    }


@pytest.fixture(scope="module")
def dataset(rows: dict[str, list[dict]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gaze_set(tmp_path_factory.mktemp("sets") / "gaze", **rows)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pretrained"
    torch.manual_seed(0)
    DualRepModel(DualRepConfig(**MODEL)).save_pretrained(folder)
    return folder


def recipe_of(dataset: Path, output_dir: Path, **fields: object) -> dict:
    recipe = {
        "output_dir": str(output_dir),
        "dataset": str(dataset),
        "model": "random",
        "model_config": MODEL,
        "num_splits": 2,
        "max_steps": 60,
        "per_device_train_batch_size": 10,
        "learning_rate": 1e-2,
        "fixation_maps": {"sigma_share": 0.08},
        "augmentation": {"crop_scale": 0.8, "rotation_degrees": 10, "horizontal_flip": 0.5},
    }
    return merge(recipe, fields)


def run(dataset: Path, output_dir: Path, **fields: object) -> Path:
    AcceleratorState._reset_state(reset_partial_state=True)
    recipe = recipe_of(dataset, output_dir, **fields)
    finetune_saliency(build(FinetuneSaliencyArguments, recipe, "test"), "test")
    return output_dir


@pytest.fixture(scope="module")
def finished(dataset: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from a pretraining folder over two splits, with the random model beside it."""
    output_dir = tmp_path_factory.mktemp("runs") / "saliency"
    return run(dataset, output_dir, model=str(pretrained), model_config={"saliency_decoder_size": 16})


def test_the_model_learns_to_look_at_the_blob(finished: Path) -> None:
    metrics = read_metrics(finished / "metrics.json")["metrics"]
    for group in ("test", "split_1", "split_2", "random"):
        assert metrics[f"{group}/cc"] > metrics["center_prior/cc"] + 0.3, group
        assert metrics[f"{group}/nss"] > 3 and metrics[f"{group}/kld"] < metrics["center_prior/kld"]
        assert metrics[f"{group}/information_gain"] > 1 and metrics[f"{group}/shuffled_auc"] > 0.9
    assert metrics["center_prior/information_gain"] == 0


def test_metrics_are_means_and_deviations_over_the_splits(finished: Path) -> None:
    metrics = read_metrics(finished / "metrics.json")["metrics"]
    names = {f"{group}/{name}" for group in ("split_1", "split_2", "random") for name in COLUMNS}
    names |= {
        f"{group}/{name}{end}"
        for group in ("test", "center_prior")
        for name in COLUMNS
        for end in ("", "_std", "_low", "_high")
    }
    names |= {f"random/{name}{end}" for name in COLUMNS for end in ("_low", "_high")}
    assert set(metrics) == names
    for name in COLUMNS:
        first, second = metrics[f"split_1/{name}"], metrics[f"split_2/{name}"]
        assert metrics[f"test/{name}"] == pytest.approx((first + second) / 2)
        for group in ("test", "center_prior", "random"):
            low, high = (metrics[f"{group}/{name}_{end}"] for end in ("low", "high"))
            assert low - 1e-9 <= metrics[f"{group}/{name}"] <= high + 1e-9, (group, name)
        assert metrics[f"test/{name}_std"] == pytest.approx(abs(first - second) / 2**0.5)


def test_predictions_hold_every_test_frame_of_every_split(finished: Path) -> None:
    predictions = pq.read_table(finished / "predictions.parquet").to_pylist()
    splits = json.loads((finished / "splits.json").read_text())
    metrics = read_metrics(finished / "metrics.json")["metrics"]
    for number, split in enumerate(splits, start=1):
        assert len(split["train"]) + len(split["test"]) == 10
        assert not {"scan0", "scan1"} <= {*split["train"]} ^ {"scan1"}, "a patient on both sides"
        of_split = [row for row in predictions if row["split"] == number]
        expected = sorted((scan, float(second)) for scan in split["test"] for second in range(6))
        assert sorted((row["scan_id"], row["time_s"]) for row in of_split) == expected
        for name in COLUMNS:
            values = [row[name] for row in of_split]
            assert np.mean(values) == pytest.approx(metrics[f"split_{number}/{name}"])


def test_the_folder_loads_and_repeats_its_scores(finished: Path, rows: dict[str, list[dict]]) -> None:
    model = AutoModel.from_pretrained(finished, trust_remote_code=True).eval()
    assert type(model).__name__ == "DualRepForSaliencyPrediction"
    processor = AutoImageProcessor.from_pretrained(finished, trust_remote_code=True)
    best = max(
        (row for row in pq.read_table(finished / "predictions.parquet").to_pylist() if row["split"] == 1),
        key=lambda row: row["nss"],
    )
    stored = next(
        row
        for row in rows["train"] + rows["validation"]
        if (row["scan_id"], row["time_s"]) == (best["scan_id"], best["time_s"])
    )
    picture = Image.open(io.BytesIO(stored["image"]["bytes"]))
    with torch.no_grad():
        density = model(**processor(picture, return_tensors="pt")).saliency_maps[0]
    target = density_map(np.array(stored["fixations"]), SIZE, SIZE, GaussianArguments(sigma_share=0.08))
    assert kl_divergence(density.numpy(), target) == pytest.approx(best["kld"], rel=1e-3)
    row, column = divmod(int(density.argmax()), SIZE)
    x, y = np.mean(stored["fixations"], axis=0) * SIZE
    assert abs(row + 0.5 - y) < 3 and abs(column + 0.5 - x) < 3
    assert density.sum() == pytest.approx(1, abs=1e-4)


def test_the_picture_has_four_columns(finished: Path) -> None:
    with Image.open(finished / "pictures" / "saliency.png") as picture:
        assert picture.width > 800 and picture.height > 400


def test_the_recipe_can_be_run_again(finished: Path) -> None:
    recipe = read_recipe(finished / "recipe.yaml")
    arguments = build(FinetuneSaliencyArguments, recipe, "recipe.yaml")
    assert arguments.fixation_maps.sigma_share == 0.08 and arguments.max_steps == 60


def test_a_split_learns_from_its_training_scans_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test scans are looked at elsewhere, so that a prior fitted on them would be far too good."""
    frames = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)
    scans = [f"scan{row % 4}" for row in range(12)]
    fixations = [np.array([[0.2, 0.2]]) if scan < "scan2" else np.array([[0.8, 0.8]]) for scan in scans]
    frame_set = FrameSet(frames, scans, scans, np.arange(12.0), ["train"] * 12, fixations=fixations)
    fields = {"output_dir": "out", "dataset": "set", "model": "random", "model_config": MODEL, "max_steps": 1}
    arguments = build(FinetuneSaliencyArguments, fields, "test")
    processor = DualRepImageProcessor(size={"height": SIZE, "width": SIZE})
    split = ScanSplit(train=("scan0", "scan1"), test=("scan2", "scan3"))
    trained_on = []

    def finetune(model, arguments, dataset, seed, title, order):
        trained_on.extend(row for _, row in order)
        return model.eval()

    monkeypatch.setattr("train.finetune_saliency.finetune", finetune)
    result = run_split(SaliencyTask(arguments, frame_set, [split], processor), 1, "random", "test")
    assert sorted(trained_on) == [row for row in range(12) if scans[row] in split.train]
    assert result.test_rows.tolist() == [row for row in range(12) if scans[row] in split.test]
    assert result.prior_scores.means()["nss"] < 0


def test_a_share_of_the_labels_is_all_that_a_split_learns_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The centre prior too: it is fitted on the frames that the model is trained on."""
    frames = np.zeros((40, SIZE, SIZE, 3), dtype=np.uint8)
    scans = [f"scan{row % 4}" for row in range(40)]
    fixations = [np.array([[row / 40, row / 40]]) for row in range(40)]
    frame_set = FrameSet(frames, scans, scans, np.arange(40.0), ["train"] * 40, fixations=fixations)
    fields = {"output_dir": "out", "dataset": "set", "model": "random", "model_config": MODEL, "max_steps": 1}
    arguments = build(FinetuneSaliencyArguments, fields | {"label_share": 0.2}, "test")
    processor = DualRepImageProcessor(size={"height": SIZE, "width": SIZE})
    split = ScanSplit(train=("scan0", "scan1"), test=("scan2", "scan3"))
    trained_on, fitted_on = [], []

    def finetune(model, arguments, dataset, seed, title, order):
        trained_on.extend(row for _, row in order)
        return model.eval()

    def fit(fixations, height, width, gaussian):
        fitted_on.extend(float(places[0, 0]) * 40 for places in fixations)
        return center_prior(fixations, height, width, gaussian)

    monkeypatch.setattr("train.finetune_saliency.finetune", finetune)
    monkeypatch.setattr("train.finetune_saliency.center_prior", fit)
    result = run_split(SaliencyTask(arguments, frame_set, [split], processor), 1, "random", "test")
    assert len(trained_on) == 4 and sorted(trained_on) == pytest.approx(sorted(fitted_on))
    assert len(result.test_rows) == 20


@pytest.mark.parametrize(
    ("compare", "started_from"), [(True, ["pretrained", "random"]), (False, ["pretrained"])]
)
def test_the_comparison_starts_from_random_weights(
    dataset: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compare: bool,
    started_from: list[str],
) -> None:
    started = []

    def spy(model_class, model, fields, linear_probe):
        started.append(Path(model).name)
        made = starting_model(model_class, model, fields, linear_probe)
        assert made.config.image_config.hidden_sizes == [8, 16], "another architecture"
        return made

    monkeypatch.setattr("train.finetune_saliency.starting_model", spy)
    fields = {"max_steps": 1, "num_splits": 1, "compare_with_random": compare}
    run(dataset, tmp_path / "out", model=str(pretrained), **fields)
    assert started == started_from


def test_a_random_model_is_not_compared_with_itself(dataset: Path, tmp_path: Path) -> None:
    folder = run(dataset, tmp_path / "out", max_steps=1, num_splits=1)
    assert not [
        name for name in read_metrics(folder / "metrics.json")["metrics"] if name.startswith("random/")
    ]


def test_a_linear_probe_leaves_the_tower_as_it_was(dataset: Path, pretrained: Path, tmp_path: Path) -> None:
    folder = run(
        dataset,
        tmp_path / "out",
        model=str(pretrained),
        linear_probe=True,
        max_steps=3,
        split_method="given",
        compare_with_random=False,
    )
    before, after = load_file(pretrained / "model.safetensors"), load_file(folder / "model.safetensors")
    tower = [name for name in after if name.startswith("image_model.")]
    assert tower and all(torch.equal(before[name], after[name]) for name in tower)
    metrics = read_metrics(folder / "metrics.json")["metrics"]
    assert not [name for name in metrics if name.startswith("random/") or name.endswith("_std")]
    split = json.loads((folder / "splits.json").read_text())
    assert [each["test"] for each in split] == [["scan8", "scan9"]]


def test_the_same_seed_gives_the_same_run(dataset: Path, tmp_path: Path) -> None:
    runs = [
        run(dataset, tmp_path / name, max_steps=3, num_splits=1, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, again, other = (load_file(folder / "model.safetensors") for folder in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("loss", ["kld", "kld_cc_nss"])
def test_losses_and_centre_bias_are_fields_of_the_model(dataset: Path, tmp_path: Path, loss: str) -> None:
    model_config = MODEL | {"saliency_loss": loss, "saliency_center_bias": True}
    folder = run(
        dataset,
        tmp_path / "out",
        max_steps=2,
        num_splits=1,
        model_config=model_config,
        frame_memory="memory_map",
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["saliency_loss"] == loss and config["saliency_center_bias"] is True
    assert any("center_bias" in name for name in load_file(folder / "model.safetensors"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"], "the decoded frames are left behind"


def test_gaze_outside_the_picture_is_dropped_and_said(
    rows: dict[str, list[dict]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train = [dict(row) for row in rows["train"]]
    train[0]["fixations"] = [[1.4, 0.5], *train[0]["fixations"]]
    train[1]["fixations"] = [[-3.0, 0.5]]
    train[2]["fixations"] = []
    dataset = write_gaze_set(tmp_path / "set", train, rows["validation"])
    run(dataset, tmp_path / "out", max_steps=1, num_splits=1)
    assert "Dropped 2 fixations outside of their frame, and 2 of 60 frames" in capsys.readouterr().out
    assert "null" not in (tmp_path / "out" / "metrics.json").read_text().split("machine")[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fixation_maps.sigma_share", "0.1", "--fixation_maps.sigma_degrees", "1"], "sigma_share"),
        (["--fixation_maps.sigma_degrees", "1"], "image_width_degrees"),
        (["--learningrate", "1"], "learning_rate"),
        (["--dataset_config", "planes"], "planes"),
        (["--dataset", "nowhere/to/be/found"], "nowhere/to/be/found"),
        (["--model_config.saliency_loss", "mse"], "saliency_loss"),
        (["--model", "nothing/here"], "nothing/here"),
        (["--split_file", "none.json"], "none.json"),
        (["--split_method", "group_k_fold", "--num_splits", "40"], "patients"),
        (["--per_device_train_batch_size", "500"], "per_device_train_batch_size"),
        (["--learning_rate", "1e30", "--max_steps", "20"], "learning_rate"),
    ],
)
def test_what_cannot_be_used_ends_in_a_sentence(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    flags: list[str],
    message: str,
) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "output_dir": str(tmp_path / "out"),
                "dataset": str(dataset),
                "model": "random",
                "model_config": MODEL,
                "max_steps": 1,
                "num_splits": 1,
                "per_device_train_batch_size": 10,
                "logging_steps": 1,
            }
        )
    )
    assert main([str(recipe), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("finetune_saliency.py: ") and message in error and "Traceback" not in error
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_finished_run_is_pushed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """To the name given, in private; a name that the Hub refuses is told before the training.

    Its picture shows frames of scans: it stays here, and the card does without it.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe_of(dataset, tmp_path / "out", max_steps=1, num_splits=1)))
    with hub_in_this_process(monkeypatch) as hub:
        assert main([str(path), "--push_to_hub", "no/such/name"]) == 2
        assert not (tmp_path / "out").exists() and not hub.repositories
        assert main([str(path), "--push_to_hub", "me/gaze"]) == 0
        assert "me/gaze" in capsys.readouterr().out
        repository, files = hub.repositories["model", "me/gaze"], HfApi().list_repo_files("me/gaze")
    assert repository.private and b"saliency.png" not in repository.files["README.md"].content
    assert {"model.safetensors", "metrics.json", "README.md", "recipe.yaml"} <= set(files)
    assert not {"predictions.parquet", "splits.json", "pictures/saliency.png"} & set(files)


def test_a_side_without_any_fixation_is_an_error(rows: dict[str, list[dict]], tmp_path: Path) -> None:
    blind = [row | {"fixations": []} for row in rows["validation"]]
    dataset = write_gaze_set(tmp_path / "set", rows["train"], blind)
    with pytest.raises(ValueError, match="Split 1 has no test frame with a fixation"):
        run(dataset, tmp_path / "out", max_steps=1, split_method="given")


@pytest.mark.parametrize("name", ["demo_saliency", "paper_saliency"])
def test_the_recipes_are_valid(name: str) -> None:
    recipe = read_recipe(ROOT / "train" / "recipes" / f"{name}.yaml")
    build(FinetuneSaliencyArguments, {"dataset": "set", "model": "random"} | recipe, name)


@pytest.mark.slow
def test_accelerate_launches_it(dataset: Path, pretrained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    command += [str(ROOT / "train" / "finetune_saliency.py"), "--dataset", str(dataset)]
    command += ["--model", str(pretrained), "--output_dir", str(tmp_path / "out"), "--max_steps", "5"]
    command += ["--num_splits", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "centre prior" in done.stdout and "random, first split" in done.stdout
    assert (tmp_path / "out" / "pictures" / "saliency.png").is_file()
