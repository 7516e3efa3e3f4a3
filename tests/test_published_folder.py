"""A saved folder in a fresh process that has transformers, but not this package."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_saved_models import write_video
from tiny_models import FRAMES, MEL_BINS, SIZE, tiny_batch, tiny_config

from datasets_scripts.schema import PLANES
from modeling_dualrep import (
    DualRepFeatureExtractor,
    DualRepForImageClassification,
    DualRepForSaliencyPrediction,
    DualRepForVideoClassification,
    DualRepImageProcessor,
    DualRepModel,
    DualRepProcessor,
    DualRepVideoModel,
    DualRepVideoProcessor,
)

# It takes a folder, a file of inputs and expected outputs, modules that cannot be imported, separated by
# commas, and the names of the checks to make.
CHECKS = """
import sys

folder, file, without, *names = sys.argv[1:]
sys.modules.update(dict.fromkeys(without.split(",")))  # whoever imports them fails

import torch
import transformers

expected = torch.load(file, weights_only=False)
torch.set_num_threads(expected["threads"])
batch = expected["batch"]


def load(auto_class, **fields):
    return getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True, **fields)


def check_config():
    config = load("AutoConfig")
    assert type(config).__name__ == "DualRepConfig" and config.to_diff_dict() == expected["config"]


def check_model():
    model = load("AutoModel")
    outputs = model(**batch)
    assert set(outputs) == set(expected["outputs"])
    assert all(torch.equal(outputs[name], value) for name, value in expected["outputs"].items())
    model.save_pretrained(folder + "-again")
    again = transformers.AutoModel.from_pretrained(folder + "-again", trust_remote_code=True)
    assert torch.equal(again(**batch).video_embeds, outputs.video_embeds)


def check_task_model(auto_class, tower, argument):
    model = load(auto_class, num_labels=14)
    features = getattr(model, tower)(batch[argument]).pooler_output
    assert torch.equal(features, expected[tower])
    logits = model(**{argument: batch[argument]}).logits
    assert torch.equal(logits, model.classifier(features)) and logits.shape[1] == 14


def check_images():
    check_task_model("AutoModelForImageClassification", "image_model", "pixel_values")


def check_videos():
    check_task_model("AutoModelForVideoClassification", "video_model", "pixel_values_videos")


def check_processor():
    processed = load("AutoProcessor")(**expected["raw"], return_tensors="pt")
    assert set(processed) == set(expected["processed"])
    assert all(torch.equal(processed[name], value) for name, value in expected["processed"].items())


def check_tower():
    model = load("AutoModel")
    assert torch.equal(model(batch["pixel_values_videos"]).pooler_output, expected["video_model"])


def check_saliency():
    check_maps(load("AutoModel"))
    tower = load("AutoModelForImageClassification", num_labels=14).image_model
    assert torch.equal(tower(batch["pixel_values"]).pooler_output, expected["image_model"])
    load("AutoModel").save_pretrained(folder + "-again")
    check_maps(transformers.AutoModel.from_pretrained(folder + "-again", trust_remote_code=True))


def check_maps(model):
    assert type(model).__name__ == "DualRepForSaliencyPrediction"
    assert torch.equal(model(batch["pixel_values"]).saliency_maps, expected["saliency_maps"])


def check_neighbours():
    for place, wanted in expected["neighbours"]:
        model = transformers.AutoModel.from_pretrained(place, trust_remote_code=True)
        assert type(model).__name__ == wanted, (place, type(model))


def check_pipelines():
    for task, place, file, scores in expected["pipelines"]:
        classify = transformers.pipeline(task, model=place, trust_remote_code=True)
        found = {score["label"]: score["score"] for score in classify(file, top_k=len(scores))}
        assert set(found) == set(scores)
        assert all(abs(found[name] - scores[name]) < 1e-6 for name in scores)


with torch.no_grad():
    for name in names:
        globals()["check_" + name]()
        ours = [module for module in sys.modules if module.split(".")[0] == "modeling_dualrep"]
        assert ours == ["modeling_dualrep"], ours
"""
NAMES = ["config", "model", "images", "videos", "processor"]


def check_in_a_fresh_process(
    folder: Path, file: Path, *names: str, without: tuple[str, ...] = ("modeling_dualrep",)
) -> None:
    """Isolated from the checkout and from what other processes have cached."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))
    }
    environment |= {"HF_HOME": str(file.parent / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", CHECKS, str(folder), str(file), ",".join(without), *names]
    process = subprocess.run(command, env=environment, cwd=file.parent, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def raw_triples() -> dict:
    random = np.random.default_rng(0)
    return {
        "videos": [random.integers(0, 256, (FRAMES + 2, 12, 10, 3), dtype=np.uint8) for _ in range(2)],
        "audio": [random.standard_normal(8000).astype(np.float32), None],
        "images": [random.integers(0, 256, (12, 10, 3), dtype=np.uint8) for _ in range(2)],
        "sampling_rate": 16000,
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pretraining folder as it is published, and a file of what it must give."""
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    model, batch = DualRepModel(tiny_config()).eval(), tiny_batch(2, mask=[True, False])
    size = {"height": SIZE, "width": SIZE}
    processor = DualRepProcessor(
        DualRepFeatureExtractor(feature_size=MEL_BINS),
        DualRepImageProcessor(size=size),
        DualRepVideoProcessor(size=size, num_frames=FRAMES),
    )
    model.save_pretrained(root / "model")
    processor.save_pretrained(root / "model")
    raw = raw_triples()
    with torch.no_grad():
        expected = {
            "threads": torch.get_num_threads(),
            "config": model.config.to_diff_dict(),
            "batch": batch,
            "outputs": dict(model(**batch)),
            "image_model": model.image_model(batch["pixel_values"]).pooler_output,
            "video_model": model.video_model(batch["pixel_values_videos"]).pooler_output,
            "raw": raw,
            "processed": dict(processor(**raw, return_tensors="pt")),
        }
    torch.save(expected, root / "expected.pt")
    return root / "model", root / "expected.pt"


def test_a_folder_holds_its_code_and_names_every_class(published: tuple[Path, Path]) -> None:
    """Flat siblings, as they stand in the package."""
    package = Path(sys.modules[DualRepModel.__module__].__file__).parent
    code = {file.name for file in published[0].glob("*.py")}
    left_out = {"__init__.py", "convert_weights.py"}
    assert code == {file.name for file in package.glob("*.py")} - left_out
    assert all((published[0] / name).read_bytes() == (package / name).read_bytes() for name in code)


def test_everything_loads_in_a_fresh_process(published: tuple[Path, Path]) -> None:
    check_in_a_fresh_process(*published, *NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_class_loads_alone_in_a_fresh_process(published: tuple[Path, Path], name: str) -> None:
    """None may rely on code that another has loaded before."""
    check_in_a_fresh_process(*published, name)


@pytest.mark.slow
def test_the_models_load_without_torchaudio(published: tuple[Path, Path]) -> None:
    """Its build for a newer torch may be missing; the processor alone needs it, for other rates."""
    check_in_a_fresh_process(
        *published, "config", "model", "images", "videos", without=("modeling_dualrep", "torchaudio")
    )


@pytest.mark.slow
def test_a_task_model_of_its_own_loads_in_a_fresh_process(
    published: tuple[Path, Path], tmp_path: Path
) -> None:
    DualRepForVideoClassification.from_pretrained(published[0], num_labels=14).save_pretrained(tmp_path)
    check_in_a_fresh_process(tmp_path, published[1], "videos")


@pytest.mark.slow
def test_a_tower_of_its_own_loads_in_a_fresh_process(published: tuple[Path, Path], tmp_path: Path) -> None:
    DualRepVideoModel.from_pretrained(published[0]).save_pretrained(tmp_path)
    check_in_a_fresh_process(tmp_path, published[1], "tower")


def write_expectations(path: Path, **expected: object) -> Path:
    torch.save({"threads": torch.get_num_threads(), "batch": tiny_batch(2)} | expected, path)
    return path


@pytest.fixture(scope="module")
def saliency(published: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saliency folder, of the same name as the pretraining folder."""
    folder = tmp_path_factory.mktemp("saliency") / published[0].name
    DualRepForSaliencyPrediction.from_pretrained(published[0]).save_pretrained(folder)
    return folder


def test_a_saliency_folder_loads_in_a_fresh_process(
    published: tuple[Path, Path], saliency: Path, tmp_path: Path
) -> None:
    """And a pretraining folder of the same name and code after it is taken for what it is."""
    model, frames = DualRepForSaliencyPrediction.from_pretrained(saliency), tiny_batch(2)["pixel_values"]
    with torch.no_grad():
        expected = {
            "saliency_maps": model(frames).saliency_maps,
            "image_model": model.image_model(frames).pooler_output,
            "neighbours": [(str(published[0]), "DualRepModel")],
        }
    file = write_expectations(tmp_path / "expected.pt", **expected)
    check_in_a_fresh_process(saliency, file, "saliency", "neighbours")


@pytest.mark.slow
def test_a_saliency_folder_loads_after_a_pretraining_folder(
    published: tuple[Path, Path], saliency: Path, tmp_path: Path
) -> None:
    both = [(str(published[0]), "DualRepModel"), (str(saliency), "DualRepForSaliencyPrediction")]
    file = write_expectations(tmp_path / "expected.pt", neighbours=both)
    check_in_a_fresh_process(saliency, file, "neighbours")


def test_fine_tuned_folders_work_in_pipelines_on_files(published: tuple[Path, Path], tmp_path: Path) -> None:
    """A model that names the planes, with its own processor beside it. PyAV alone decodes the video."""
    frame, clip = tmp_path / "frame.png", write_video(tmp_path / "clip.mp4")
    Image.fromarray(raw_triples()["images"][0]).save(frame)
    size, names = {"height": SIZE, "width": SIZE}, dict(enumerate(PLANES))
    image_model = DualRepForImageClassification.from_pretrained(published[0], id2label=names)
    image_processor = DualRepImageProcessor(size=size)
    video_model = DualRepForVideoClassification.from_pretrained(published[0], id2label=names)
    video_processor = DualRepVideoProcessor(size=size, num_frames=FRAMES)
    pipelines = []
    for task, model, processor, file, inputs in (
        (
            "image",
            image_model,
            image_processor,
            frame,
            image_processor(Image.open(frame), return_tensors="pt"),
        ),
        ("video", video_model, video_processor, clip, video_processor(str(clip), return_tensors="pt")),
    ):
        folder = tmp_path / f"{task}_model"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        with torch.no_grad():
            probabilities = model(**inputs).logits[0].softmax(dim=0)
        assert probabilities.sum().item() == pytest.approx(1)
        scores = dict(zip(PLANES, probabilities.tolist(), strict=True))
        pipelines.append((f"{task}-classification", str(folder), str(file), scores))
    expected = write_expectations(tmp_path / "expected.pt", pipelines=pipelines)
    check_in_a_fresh_process(
        folder, expected, "pipelines", without=("modeling_dualrep", "torchaudio", "torchcodec")
    )


def test_the_check_sees_other_weights(published: tuple[Path, Path], tmp_path: Path) -> None:
    """Not every folder passes."""
    torch.manual_seed(1)
    DualRepModel(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(AssertionError, match="check_model"):
        check_in_a_fresh_process(tmp_path, published[1], "model")
