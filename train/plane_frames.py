"""Labelled frames and clips as fine-tuning for planes takes them: varied, in batches, classes in balance."""

import random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from train.arguments import AugmentationArguments
from train.augmentation import draw_view
from train.frame_sets import FrameSet
from train.pixels import PixelStatistics, channels_first
from train.row_order import Key


class PlaneFrames(Dataset):
    """The rows of a set with their labels, varied by chance that the key alone decides.

    `frames[draw, row]` is row `row` as it is varied the `draw`-th time: whichever process computes it, and
    whatever it computed before, it comes out the same.

    Args:
        frame_set: labelled frames, or clips.
        seed: of the variation.
        augmentation: how frames are varied; all frames of a clip alike.
        num_frames: how many of a clip's frames to take, evenly spaced, from a start that varies.
    """

    def __init__(
        self, frame_set: FrameSet, seed: int, augmentation: AugmentationArguments, num_frames: int = 1
    ) -> None:
        self.frame_set = frame_set
        self.seed = seed
        self.augmentation = augmentation
        self.num_frames = num_frames

    def __len__(self) -> int:
        return len(self.frame_set.frames)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """The varied pixels, uint8 ([frames,] channels, height, width), and the label."""
        draw_number, row = key
        draw = random.Random(f"{self.seed}/{draw_number}/{row}")
        frames = self.frame_set.frames[row]
        is_clip = frames.ndim == 4
        if is_clip:
            phase = draw.randrange(max(1, len(frames) // self.num_frames))
            frames = frames[evenly_spaced(len(frames), self.num_frames) + phase]
        frames = channels_first(frames if is_clip else frames[None])
        size = frames.shape[-1]
        view = draw_view(size, size, size, self.augmentation, draw).apply(frames)
        return (view if is_clip else view[0]), int(self.frame_set.labels[row])


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Inverse frequency: frames / (classes present * frames of the class), so that the mean over frames is 1.

    Args:
        labels: (frames,) of the training split.
        classes: how many there are.

    Returns:
        float64 (classes,), 0 for a class without frames.
    """
    frames = np.bincount(labels, minlength=classes)
    return len(labels) / (np.count_nonzero(frames) * np.maximum(frames, 1)) * (frames > 0)


def predict(
    model: PreTrainedModel,
    frame_set: FrameSet,
    rows: np.ndarray,
    statistics: PixelStatistics,
    batch_size: int,
    num_frames: int = 1,
) -> np.ndarray:
    """Probabilities of every class, in single precision and without augmentation, as the pipeline gives them.

    Args:
        model: a task model in evaluation mode, on any device.
        frame_set: frames at the size that the model takes, or clips.
        rows: which of them.
        statistics: of the processor.
        batch_size: rows at a time.
        num_frames: how many of a clip's frames to take, evenly spaced.

    Returns:
        float32 (rows, classes).
    """
    probabilities = []
    for start in range(0, len(rows), batch_size):
        frames = frame_set.frames[rows[start : start + batch_size]]
        if frames.ndim == 5:
            frames = frames[:, evenly_spaced(frames.shape[1], num_frames)]
        pixels = statistics.normalise(channels_first(frames).to(model.device))
        with torch.inference_mode():
            logits = model(**{model.main_input_name: pixels}).logits
        probabilities.append(logits.float().softmax(dim=1).cpu().numpy())
    return np.concatenate(probabilities)


def evenly_spaced(stored: int, wanted: int) -> np.ndarray:
    """Numbers of the frames of a clip as the video processor takes them; repeated where there are too few."""
    return np.arange(wanted) * stored // wanted
