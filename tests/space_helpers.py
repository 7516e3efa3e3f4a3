"""Small models for the app, as folders, and files that visitors give it."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from search_helpers import write_model
from test_timeline import BLOCKS, brightness_model, grey_pictures, image_processor, save
from tiny_models import tiny_config
from tiny_recordings import even_times, tone, write_video

from modeling_dualrep import DualRepForSaliencyPrediction

SECONDS = 6


def write_models(folder: Path) -> dict[str, str]:
    """A model of each kind that the app shows, by the names of its options."""
    torch.manual_seed(0)
    DualRepForSaliencyPrediction(tiny_config()).save_pretrained(folder / "saliency")
    image_processor().save_pretrained(folder / "saliency")
    return {
        "model": str(write_model(folder / "model")),
        "planes": save(brightness_model(), folder / "planes"),
        "saliency": str(folder / "saliency"),
    }


def write_scan(path: Path, seconds: int = SECONDS) -> Path:
    """A video with sound, five grey pictures a second of which the small classifier knows the planes."""
    greys = [BLOCKS[number % len(BLOCKS)] for number in range(5 * seconds)]
    return write_video(path, even_times(seconds, 5), grey_pictures(greys), sound=tone(seconds))


def write_remark(path: Path) -> Path:
    """A second of noise as a wav file."""
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 32_000)
    return path
