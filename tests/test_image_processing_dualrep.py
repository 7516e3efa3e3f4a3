"""Frames of every kind become the same tensor, unstretched, and what cannot be a frame is refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor

MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


def frame(height: int = 90, width: int = 120, seed: int = 0) -> np.ndarray:
    """A smooth colour frame (height, width, 3) in 8 bits."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def pixel_values(images: object, **options: object) -> torch.Tensor:
    return DualRepImageProcessor()(images, return_tensors="pt", **options)["pixel_values"]


def grey_levels(values: torch.Tensor) -> np.ndarray:
    """Undoes the normalisation: (..., 3, height, width) in 0..255."""
    return (values.numpy() * STD + MEAN) * 255


def test_kinds_of_frames_are_equal():
    array = frame()
    channels_first = np.ascontiguousarray(array.transpose(2, 0, 1))
    expected = pixel_values(Image.fromarray(array))
    assert expected.shape == (1, 3, 128, 128)
    assert expected.dtype == torch.float32
    for kind in (array, channels_first, torch.from_numpy(array.copy()), torch.from_numpy(channels_first)):
        assert torch.equal(pixel_values(kind), expected)
        assert torch.equal(pixel_values([kind]), expected)


def test_a_grey_frame_equals_a_colour_frame_of_equal_channels():
    grey = frame()[..., 0].copy()
    expected = pixel_values(np.stack([grey] * 3, axis=-1))
    for kind in (grey, grey[None], grey[..., None], torch.from_numpy(grey), Image.fromarray(grey)):
        assert torch.equal(pixel_values(kind), expected)
    assert torch.equal(pixel_values([grey, grey]), expected.repeat(2, 1, 1, 1))


def test_an_opaque_frame_equals_its_colours():
    transparent = Image.fromarray(frame()).convert("RGBA")
    assert torch.equal(pixel_values(transparent), pixel_values(frame()))


def test_values_are_normalised_with_the_statistics_of_imagenet():
    values = pixel_values(np.full((64, 64, 3), 51, dtype=np.uint8))
    expected = np.broadcast_to((0.2 - MEAN) / STD, (1, 3, 128, 128))
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(400, 300), (90, 120), (64, 64), (128, 128), (37, 201)])
def test_resizing_equals_that_of_pil_to_a_grey_level(size):
    image = Image.fromarray(frame(*size))
    square = Image.new("RGB", (max(image.size), max(image.size)))
    square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
    expected = np.asarray(square.resize((128, 128), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(grey_levels(pixel_values(image))[0] - expected).max() < 1.6


@settings(max_examples=20, deadline=None)
@given(height=st.integers(16, 300), width=st.integers(16, 300))
def test_a_frame_of_any_shape_is_kept_unstretched_and_centred(height, width):
    levels = grey_levels(pixel_values(np.full((height, width), 255, dtype=np.uint8)))[0, 0]
    assert levels.shape == (128, 128)
    longer = max(height, width)
    seen_height, seen_width = levels.max(axis=1).sum() / 255, levels.max(axis=0).sum() / 255
    # Antialiasing spreads an edge over a pixel or, enlarged, over that of the frame.
    tolerance = 1.5 + 128 / longer
    assert abs(seen_height - 128 * height / longer) < tolerance
    assert abs(seen_width - 128 * width / longer) < tolerance
    rows = np.arange(128) - 63.5
    assert abs((levels.sum(axis=1) * rows).sum() / levels.sum()) <= 64 / longer + 0.1
    assert abs((levels.sum(axis=0) * rows).sum() / levels.sum()) <= 64 / longer + 0.1


def test_the_margin_is_black():
    levels = grey_levels(pixel_values(np.full((60, 120, 3), 255, dtype=np.uint8)))[0]
    assert np.abs(levels[:, :30]).max() < 1e-3
    assert np.abs(levels[:, -30:]).max() < 1e-3
    assert np.abs(levels[:, 34:-34] - 255).max() < 1e-3


def test_a_frame_can_be_stretched_instead():
    assert grey_levels(pixel_values(np.full((60, 120, 3), 255, dtype=np.uint8), do_pad=False)).min() > 254


def test_another_size_has_its_own_shape():
    size = {"height": 60, "width": 120}
    values = pixel_values(np.full((60, 120, 3), 255, dtype=np.uint8), size=size)
    assert values.shape == (1, 3, 60, 120)
    assert grey_levels(values).min() > 254
    square = grey_levels(pixel_values(np.full((60, 60, 3), 255, dtype=np.uint8), size=size))
    assert square[..., 30:90].min() > 254
    assert max(square[..., :30].max(), square[..., 90:].max()) < 1


def test_a_row_does_not_depend_on_its_batch():
    frames = [frame(90, 120, seed=1), frame(200, 150, seed=2), frame(90, 120, seed=3)]
    batch = pixel_values(frames)
    for row, single in zip(batch, frames, strict=True):
        assert torch.equal(row, pixel_values(single)[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (frame() / 255, "rescaled already: pass do_rescale=False"),
        (frame().astype(np.uint16) * 257, "pixels must lie in"),
        (frame() - 300.0, "pixels must lie in"),
        (np.full((8, 8, 3), np.nan), "pixels must lie in"),
    ],
)
def test_pixels_out_of_range_are_refused(image, message):
    if image.dtype == np.uint16:
        image = torch.from_numpy(image.astype(np.int32))
    with pytest.raises(ValueError, match=message):
        pixel_values(image)


def test_rescaled_frames_are_taken_as_they_are():
    rescaled = torch.from_numpy(frame(128, 128) / 255).float()
    np.testing.assert_allclose(
        pixel_values(rescaled, do_rescale=False), pixel_values(frame(128, 128)), atol=1e-5
    )


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="no field 'do_resise'"):
        DualRepImageProcessor(do_resise=False)
    with pytest.raises(ValueError, match="no field 'do_resise'"):
        pixel_values(frame(), do_resise=False)


def test_saved_and_loaded_alike(tmp_path):
    processor = DualRepImageProcessor(
        size={"height": 32, "width": 48}, do_pad=False, image_mean=[0.1, 0.2, 0.3]
    )
    processor.not_a_field = 1
    processor.save_pretrained(tmp_path)
    loaded = DualRepImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert "not_a_field" not in loaded.to_dict()
    values = [part(frame(), return_tensors="pt")["pixel_values"] for part in (processor, loaded)]
    assert values[0].shape == (1, 3, 32, 48)
    assert torch.equal(*values)


def test_a_misspelt_field_in_a_saved_file_is_refused(tmp_path):
    DualRepImageProcessor().save_pretrained(tmp_path)
    saved = tmp_path / "preprocessor_config.json"
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"do_resise": False}))
    with pytest.raises(ValueError, match="no field 'do_resise'"):
        DualRepImageProcessor.from_pretrained(tmp_path)
