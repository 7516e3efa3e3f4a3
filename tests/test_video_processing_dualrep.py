"""Clips of every kind and length become the same 14 frames, and what cannot be a clip is refused."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.video_processing_dualrep import DualRepVideoProcessor


def clip(frames: int = 14, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Frames (frames, height, width, 3) in 8 bits."""
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def numbered_clip(frames: int) -> np.ndarray:
    """Frames (frames, 16, 16, 3) whose brightness is their number."""
    return np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, 16, 16, 3)).copy()


def pixel_values(videos: object, **options: object) -> torch.Tensor:
    return DualRepVideoProcessor()(videos, return_tensors="pt", **options)["pixel_values_videos"]


def frame_numbers(values: torch.Tensor) -> list[int]:
    """Which frames of a numbered clip were taken, of values (frames, 3, height, width)."""
    brightness = (values[:, 0].mean(dim=(1, 2)) * 0.229 + 0.485) * 255
    return brightness.round().int().tolist()


def write_video(path: Path, frames: int) -> None:
    """A video in which frame i has the brightness 20 + 8 i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            image = np.full((64, 64, 3), 20 + 8 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_kinds_of_clips_are_equal():
    array = clip()
    channels_first = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    expected = pixel_values(array)
    assert expected.shape == (1, 14, 3, 128, 128)
    assert expected.dtype == torch.float32
    kinds = [channels_first, torch.from_numpy(array), torch.from_numpy(channels_first), array[None]]
    kinds += [list(array), tuple(array), list(channels_first), list(torch.from_numpy(channels_first))]
    kinds += [[Image.fromarray(frame) for frame in array], [array], [list(array)]]
    for kind in kinds:
        assert torch.equal(pixel_values(kind), expected)


def test_a_grey_clip_equals_a_colour_clip_of_equal_channels():
    grey = clip()[..., 0].copy()
    expected = pixel_values(np.stack([grey] * 3, axis=-1))
    kinds = [grey, torch.from_numpy(grey), list(grey), [grey], grey[:, None], grey[..., None]]
    kinds += [[Image.fromarray(frame) for frame in grey], [list(grey)]]
    for kind in kinds:
        assert torch.equal(pixel_values(kind), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_a_frame_looks_as_the_image_processor_makes_it(mode):
    frames = [Image.fromarray(frame).convert(mode) for frame in clip(height=45, width=100)]
    images = DualRepImageProcessor()(frames, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixel_values(frames)[0], images)


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 200), num_frames=st.integers(1, 20))
def test_frames_are_evenly_spaced(frames, num_frames):
    numbers = frame_numbers(pixel_values(numbered_clip(frames), num_frames=num_frames, size=16)[0])
    assert len(numbers) == num_frames
    ideal = np.arange(num_frames) * frames / num_frames
    assert ((numbers <= ideal) & (ideal < np.array(numbers) + 1)).all()


def test_14_frames_are_kept_and_every_second_of_28():
    assert frame_numbers(pixel_values(numbered_clip(14))[0]) == list(range(14))
    assert frame_numbers(pixel_values(numbered_clip(28))[0]) == list(range(0, 28, 2))


def test_a_short_clip_repeats_its_frames():
    assert frame_numbers(pixel_values(numbered_clip(7))[0]) == [index // 2 for index in range(14)]
    assert frame_numbers(pixel_values(numbered_clip(1))[0]) == [0] * 14


def test_all_frames_can_be_kept():
    assert pixel_values(clip(5), do_sample_frames=False).shape == (1, 5, 3, 128, 128)


def test_a_row_does_not_depend_on_its_batch():
    clips = [clip(14, 60, 80, seed=1), clip(20, 90, 50, seed=2), clip(14, 60, 80, seed=3)]
    batch = pixel_values(clips)
    assert batch.shape == (3, 14, 3, 128, 128)
    for row, single in zip(batch, clips, strict=True):
        assert torch.equal(row, pixel_values(single)[0])


@pytest.mark.parametrize("damage", ["not a video", "cut short", "missing"])
def test_a_bad_video_file_is_named(tmp_path, damage):
    path = tmp_path / "scan.mp4"
    if damage == "not a video":
        path.write_bytes(b"no video at all")
    elif damage == "cut short":
        write_video(path, 28)
        with (
            av.open(str(path)) as whole,
            av.open(str(tmp_path / "index_first.mp4"), "w", options={"movflags": "faststart"}) as copy,
        ):
            stream = copy.add_stream_from_template(whole.streams.video[0])
            for packet in whole.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    copy.mux(packet)
        path = tmp_path / "index_first.mp4"
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(ValueError, match=path.name):
        pixel_values(path)


@pytest.mark.parametrize("frames", [28, 5])
def test_a_video_file_is_read_as_the_pipeline_asks_for_it(tmp_path, frames):
    path = tmp_path / "scan.mp4"
    write_video(path, frames)
    values = pixel_values(str(path), num_frames=14, do_sample_frames=True)
    assert values.shape == (1, 14, 3, 128, 128)
    brightness = (values[0, :, 0].mean(dim=(1, 2)) * 0.229 + 0.485) * 255
    numbers = ((brightness - 20) / 8).round().int().tolist()
    assert numbers == [index * frames // 14 for index in range(14)]
    assert torch.equal(pixel_values([path, str(path)])[1], values[0])
    assert torch.equal(pixel_values(path), values)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "holds no clip"),
        ([[]], "a list where a clip is wanted"),
        ([clip(), None], "a NoneType where a clip is wanted"),
        (Image.fromarray(clip()[0]), "a Image where a clip is wanted"),
        (clip()[0], r"shape \(60, 80, 3\) where a clip is wanted"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), r"shape \(0, 8, 8, 3\) where a clip is wanted"),
        (np.zeros((5, 6, 7, 8), dtype=np.uint8), "where a clip is wanted"),
        ([clip()[0], clip(height=61)[0]], "of one size"),
        (clip() / 255, "rescaled already"),
        (clip().astype(np.float32) * 257, "pixels must lie in"),
    ],
)
def test_what_cannot_be_a_clip_is_refused(videos, message):
    with pytest.raises(ValueError, match=message):
        pixel_values(videos)


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="no field 'num_frame'"):
        DualRepVideoProcessor(num_frame=7)
    with pytest.raises(ValueError, match="no field 'num_frame'"):
        pixel_values(clip(), num_frame=7)
    with pytest.raises(ValueError, match="fps cannot be chosen"):
        pixel_values(clip(), fps=2)


def test_saved_and_loaded_alike(tmp_path):
    processor = DualRepVideoProcessor(num_frames=6, size={"height": 32, "width": 48}, do_pad=False)
    processor.not_a_field = 1
    processor.save_pretrained(tmp_path)
    loaded = DualRepVideoProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert "not_a_field" not in loaded.to_dict()
    values = [part(clip(), return_tensors="pt")["pixel_values_videos"] for part in (processor, loaded)]
    assert values[0].shape == (1, 6, 3, 32, 48)
    assert torch.equal(*values)


def test_a_misspelt_field_in_a_saved_file_is_refused(tmp_path):
    DualRepVideoProcessor().save_pretrained(tmp_path)
    saved = tmp_path / "video_preprocessor_config.json"
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"num_frame": 7}))
    with pytest.raises(ValueError, match="no field 'num_frame'"):
        DualRepVideoProcessor.from_pretrained(tmp_path)
