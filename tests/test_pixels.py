"""Pixels as models take them."""

import torch
from frame_set_helpers import FRAME_SIZE, frame_set

from modeling_dualrep import DualRepImageProcessor
from train.pixels import PixelStatistics, channels_first


def test_pixels_are_normalised_as_the_processor_does_it_to_the_last_bit() -> None:
    frames = frame_set([0, 1, 2], ["a", "b", "c"]).frames
    processor = DualRepImageProcessor(size={"height": FRAME_SIZE, "width": FRAME_SIZE})
    statistics = PixelStatistics(processor.image_mean, processor.image_std)
    expected = processor(list(frames), return_tensors="pt")["pixel_values"]
    assert torch.equal(statistics.normalise(channels_first(frames)), expected)
