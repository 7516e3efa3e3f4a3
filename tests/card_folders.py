"""Small folders as training leaves them, the files that a card's snippets open, and what runs these."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from test_saved_models import write_video
from tiny_models import FRAMES, MEL_BINS, SIZE, tiny_config

from datasets_scripts.schema import PLANES
from modeling_dualrep import (
    DualRepFeatureExtractor,
    DualRepForImageClassification,
    DualRepForSaliencyPrediction,
    DualRepForVideoClassification,
    DualRepImageProcessor,
    DualRepModel,
    DualRepProcessor,
    DualRepVideoProcessor,
)
from train.arguments import PretrainArguments
from train.finetune_arguments import FinetunePlanesArguments, FinetuneSaliencyArguments
from train.metrics_file import write_metrics
from train.model_folder import write_recipe

DATA_HASH = "f00d" * 16
FENCED_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SIZES = {"height": SIZE, "width": SIZE}
RETRIEVAL = {
    "validation/gallery_clips": 100.0,
    **{f"validation/chance_recall_at_{k}": k / 100 for k in (1, 5, 10)},
    **{f"validation/image_to_video_recall_at_{k}": 0.3 + k / 100 for k in (1, 5, 10)},
    **{f"validation/speech_to_video_recall_at_{k}": 0.1 + k / 100 for k in (1, 5, 10)},
    **{f"control/speech_to_video_recall_at_{k}": k / 125 for k in (1, 5, 10)},
    **{f"validation/image_to_video_recall_at_{k}_low": 0.2 + k / 100 for k in (1, 5, 10)},
    **{f"validation/image_to_video_recall_at_{k}_high": 0.5 + k / 100 for k in (1, 5, 10)},
}


def plane_metrics(classes: tuple[str, ...] = tuple(PLANES)) -> dict[str, float]:
    """Of two splits, another number each."""
    names = ["accuracy", "expected_calibration_error"]
    names += [
        f"{score}{end}"
        for score in ("precision", "recall", "f1")
        for end in ("", *(f"_{c}" for c in classes))
    ]
    metrics = {}
    for number, name in enumerate(names):
        low, high = 0.3 + number / 100, 0.32 + number / 100
        metrics |= {f"test/{name}": (low + high) / 2, f"test/{name}_std": 0.0141}
        metrics |= {f"test/{name}_low": low - 0.05, f"test/{name}_high": high + 0.05}
        metrics |= {f"split_1/{name}": low, f"split_2/{name}": high}
    return metrics


def saliency_metrics() -> dict[str, float]:
    """Of one split, beside both baselines."""
    names = ("kld", "sim", "nss", "cc", "auc_judd", "shuffled_auc", "information_gain")
    groups = {"test": 1.0, "split_1": 1.0, "center_prior": 1.5, "random": 1.25}
    ends = {"": 0.0, "_low": -0.25, "_high": 0.5}
    return {
        f"{group}/{name}{end}": start + place / 8 + add
        for group, start in groups.items()
        for place, name in enumerate(names)
        for end, add in ends.items()
        if not end or group != "split_1"
    }


def without_intervals(metrics: dict[str, float]) -> dict[str, float]:
    """As metrics.json was written before it had any."""
    return {name: value for name, value in metrics.items() if not name.endswith(("_low", "_high"))}


def write_pretrained(folder: Path, metrics: dict[str, float] = RETRIEVAL, **config: object) -> Path:
    """A pretraining folder without its card."""
    torch.manual_seed(0)
    DualRepModel(tiny_config(**config)).save_pretrained(folder)
    DualRepProcessor(
        DualRepFeatureExtractor(feature_size=MEL_BINS),
        DualRepImageProcessor(size=SIZES),
        DualRepVideoProcessor(size=SIZES, num_frames=FRAMES),
    ).save_pretrained(folder)
    write_recipe(PretrainArguments(output_dir=str(folder), dataset="clips", max_steps=3))
    return write_results(folder, metrics, "loss_curves.png")


def write_image_planes(folder: Path, **recipe: object) -> Path:
    """A folder fine-tuned for planes in frames, without its card."""
    names = dict(enumerate(PLANES))
    DualRepForImageClassification(tiny_config(id2label=names)).save_pretrained(folder)
    DualRepImageProcessor(size=SIZES).save_pretrained(folder)
    fields = {"model": "random", "dataset": "frames", "max_steps": 3, **recipe}
    write_recipe(FinetunePlanesArguments(output_dir=str(folder), **fields))
    return write_results(folder, plane_metrics(), "confusion_matrix.png")


def write_video_planes(folder: Path) -> Path:
    """A folder fine-tuned for planes in clips, without its card."""
    names = dict(enumerate(PLANES))
    DualRepForVideoClassification(tiny_config(id2label=names)).save_pretrained(folder)
    DualRepVideoProcessor(size=SIZES, num_frames=FRAMES).save_pretrained(folder)
    fields = {"model": "random", "dataset": "clips", "dataset_config": "plane_clips", "max_steps": 3}
    write_recipe(FinetunePlanesArguments(output_dir=str(folder), **fields))
    return write_results(folder, plane_metrics(), "confusion_matrix.png")


def write_saliency(folder: Path) -> Path:
    """A folder fine-tuned for saliency, without its card."""
    DualRepForSaliencyPrediction(tiny_config()).save_pretrained(folder)
    DualRepImageProcessor(size=SIZES).save_pretrained(folder)
    fields = {"model": "random", "dataset": "frames", "max_steps": 3}
    write_recipe(FinetuneSaliencyArguments(output_dir=str(folder), **fields))
    return write_results(folder, saliency_metrics(), "saliency.png")


def write_results(folder: Path, metrics: dict[str, float], picture: str) -> Path:
    """metrics.json and a picture."""
    write_metrics(
        folder / "metrics.json", metrics, recipe="tiny", seed=3, data_hash=DATA_HASH, code_version="0 (a)"
    )
    (folder / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "pictures" / picture)
    return folder


def write_inputs(folder: Path) -> Path:
    """The files that the snippets name: a clip, a remark, a frame, frames by their plane, clips to search."""
    random = np.random.default_rng(0)
    write_video(folder / "clip.mp4")
    soundfile.write(folder / "remark.wav", random.uniform(-0.5, 0.5, 16_000), 16_000)
    write_frame(folder / "frame.png", random, 0)
    (folder / "clips").mkdir()
    for number in range(3):
        write_video(folder / "clips" / f"{number}.mp4")
    for split in ("train", "test"):
        for place, plane in enumerate(("femur", "lips")):
            of_plane = folder / "frames" / split / plane
            of_plane.mkdir(parents=True)
            for number in range(40 if split == "train" else 8):
                write_frame(of_plane / f"{number}.png", random, place)
    return folder


def write_frame(path: Path, random: np.random.Generator, brightness: int) -> None:
    """Noise, dark (0) or bright (1)."""
    pixels = random.integers(0, 60, (12, 12, 3), dtype=np.uint8) + np.uint8(150 * brightness)
    Image.fromarray(pixels).save(path)


def python_blocks(markdown: str) -> list[str]:
    """The fenced Python of a text."""
    return FENCED_PYTHON.findall(markdown)


def run_elsewhere(folder: Path, *snippets: str, without: tuple[str, ...] = ("modeling_dualrep",)) -> str:
    """Runs snippets, each on its own, in a folder, in one process that sees neither checkout nor package.

    Args:
        folder: that they run in.
        snippets: Python.
        without: what cannot be imported.

    Returns:
        what they printed.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))
    }
    environment |= {"HF_HOME": str(folder / "hf_home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    lines = ["import sys", f"sys.modules.update(dict.fromkeys({without!r}))  # whoever imports them fails"]
    for number, snippet in enumerate(snippets):
        path = folder / f"snippet_{number}.py"
        path.write_text(snippet, encoding="utf-8")
        lines.append(f"exec(compile(open({str(path)!r}).read(), {str(path)!r}, 'exec'), {{}})")
    command = [sys.executable, "-I", "-c", "\n".join(lines)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
