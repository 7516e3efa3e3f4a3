"""Pixels as models take them."""

import pytest
import torch
from frame_set_helpers import FRAME_SIZE, frame_set
from tiny_models import FRAMES, SIZE, tiny_model

from modeling_dualrep import DualRepImageProcessor
from train.pixels import PixelStatistics, channels_first


def test_pixels_are_normalised_as_the_processor_does_it_to_the_last_bit() -> None:
    frames = frame_set([0, 1, 2], ["a", "b", "c"]).frames
    processor = DualRepImageProcessor(size={"height": FRAME_SIZE, "width": FRAME_SIZE})
    statistics = PixelStatistics(processor.image_mean, processor.image_std)
    expected = processor(list(frames), return_tensors="pt")["pixel_values"]
    assert torch.equal(statistics.normalise(channels_first(frames)), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_towers_take_bytes_as_the_numbers_that_they_stand_for(channels: int) -> None:
    statistics = PixelStatistics((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    model, device = tiny_model(), torch.device("cpu")
    shape = (4, FRAMES, channels, SIZE, SIZE)
    videos = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    as_numbers = statistics.batch_normaliser(device)(videos)
    with torch.no_grad():
        expected = model(as_numbers, pixel_values=as_numbers[:, 0])
        statistics.normalise_in_towers(model, device)
        of_bytes = model(videos, pixel_values=videos[:, 0])
        of_numbers = model(as_numbers, pixel_values=as_numbers[:, 0])
    for name in ("video_embeds", "image_embeds"):
        assert torch.equal(of_bytes[name], expected[name]) and torch.equal(of_numbers[name], expected[name])
