"""Frames with fixations, as training for saliency takes them and as trained models see them in testing."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from train.arguments import AugmentationArguments
from train.augmentation import draw_view
from train.fixation_maps import FixationError, GaussianArguments, density_map, fixation_counts, inside_image
from train.frame_sets import FrameSet
from train.pixels import PixelStatistics, channels_first
from train.row_order import Key


@dataclass(frozen=True)
class KeptFixations:
    """What is left of a set's fixations without those that lie outside of their frame.

    Args:
        fixations: (frames,) of each frame those inside, (n, 2) x, y in 0..1; n may be 0.
        rows: (n,) int64, the frames that have any: no map can be made of the others.
        dropped_fixations: how many lay outside.
    """

    fixations: list[np.ndarray]
    rows: np.ndarray
    dropped_fixations: int

    def report(self) -> str | None:
        """What was dropped, as a sentence; None where nothing was."""
        dropped_frames = len(self.fixations) - len(self.rows)
        if not (self.dropped_fixations or dropped_frames):
            return None
        return (
            f"Dropped {self.dropped_fixations} fixations outside of their frame, and {dropped_frames} of "
            f"{len(self.fixations)} frames, which have no fixation."
        )


def keep_fixations_inside(fixations: Sequence[np.ndarray]) -> KeptFixations:
    """Drops fixations outside 0..1, and then frames without any.

    Raises:
        FixationError: no frame has a fixation inside.
    """
    inside = [places[inside_image(places)] for places in fixations]
    rows = np.flatnonzero([len(places) > 0 for places in inside])
    if not len(rows):
        raise FixationError(
            "No frame of the set has a fixation in 0..1: give them as x, y in shares of the picture's width "
            "and height, origin top left."
        )
    dropped = sum(map(len, fixations)) - sum(map(len, inside))
    return KeptFixations(inside, rows, dropped)


class SaliencyFrames(Dataset):
    """The rows of a set with the maps to learn, varied by chance that the key alone decides.

    `frames[draw, row]` is row `row` as it is varied the `draw`-th time: `pixel_values` (channels, size,
    size), `labels` (size, size), the probability map of the fixations, and `fixation_counts` (size, size),
    all float32. The fixations move with what they lie on; the Gaussian around them keeps its width as a share
    of the view. A view that no fixation is left in is not taken: the frame is shown as it is.

    Args:
        frame_set: frames with fixations, all inside of them.
        seed: of the variation.
        augmentation: how frames are varied.
        gaussian: what makes a map of fixations.
        statistics: of the processor.
    """

    def __init__(
        self,
        frame_set: FrameSet,
        seed: int,
        augmentation: AugmentationArguments,
        gaussian: GaussianArguments,
        statistics: PixelStatistics,
    ) -> None:
        self.frame_set = frame_set
        self.seed = seed
        self.augmentation = augmentation
        self.gaussian = gaussian
        self.statistics = statistics

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        draw_number, row = key
        frame = channels_first(self.frame_set.frames[row])
        fixations = self.frame_set.fixations[row]
        size = frame.shape[-1]
        draw = random.Random(f"{self.seed}/{draw_number}/{row}")
        view = draw_view(size, size, size, self.augmentation, draw)
        moved = view.move_points(fixations)
        moved = moved[inside_image(moved)]
        if len(moved):
            frame, fixations = view.apply(frame[None])[0], moved
        return {
            "pixel_values": self.statistics.normalise(frame),
            "labels": torch.from_numpy(density_map(fixations, size, size, self.gaussian)).float(),
            "fixation_counts": torch.from_numpy(fixation_counts(fixations, size, size)).float(),
        }


def predict_maps(
    model: PreTrainedModel,
    frame_set: FrameSet,
    rows: np.ndarray,
    statistics: PixelStatistics,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """The map of each frame, one after the other, in single precision and without augmentation.

    Args:
        model: in evaluation mode, on any device.
        frame_set: frames at the size that the model takes.
        rows: which of them.
        statistics: of the processor.
        batch_size: rows at a time.

    Yields:
        float64 (size, size), which sums to 1.
    """
    for start in range(0, len(rows), batch_size):
        frames = channels_first(frame_set.frames[rows[start : start + batch_size]]).to(model.device)
        with torch.inference_mode():
            maps = model(pixel_values=statistics.normalise(frames)).saliency_maps
        yield from maps.double().cpu().numpy()
