"""Sets of recordings with names on the margin: what is kept, what is blanked, and where gaze lies then."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from tiny_recordings import even_times, write_video

from datasets_scripts.clips import (
    JPEG_QUALITY,
    ClipParameters,
    FrameEncoder,
    place_in_square,
    resize_to_square,
)
from datasets_scripts.contact_sheet import write_sheets
from datasets_scripts.media_streams import Frame
from datasets_scripts.preparation_command import COMMAND_DEFAULTS
from datasets_scripts.prepare_clips import main as prepare_clips_main
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.prepare_gaze import GazeParameters, prepare_gaze
from datasets_scripts.prepare_planes import PlaneParameters, prepare_planes
from datasets_scripts.recordings import Recording, find_recordings, open_recording
from datasets_scripts.sector import OtherSizeError, Sector
from datasets_scripts.set_parameters import SECTOR_CHOICES
from datasets_scripts.shards import read_info

WIDTH, HEIGHT, FRAME_SIZE, FRAMES = 320, 240, 160, 60
CORNERS = ((110, 40), (210, 40), (280, 210), (40, 210))
BOX = (40, 40, 281, 211)
SPOT = (175, 150)  # looked at
BLANK = 12  # grey levels that JPEG leaves on black
PREPARATIONS = {
    "large": (prepare_clips, ClipParameters(2.0, frames_per_clip=4, frame_size=FRAME_SIZE, sector="found")),
    "planes": (prepare_planes, PlaneParameters(frame_size=FRAME_SIZE, sector="found")),
    "plane_clips": (
        prepare_planes,
        PlaneParameters(clip_seconds=1.0, frames_per_clip=2, frame_size=FRAME_SIZE, sector="found"),
    ),
    "gaze": (prepare_gaze, GazeParameters(frame_size=FRAME_SIZE, sector="found")),
}


def trapezoid() -> np.ndarray:
    picture = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(picture).polygon(CORNERS, fill=1)
    return np.array(picture)


def written(frame_number: int) -> np.ndarray:
    """Names above, below and, within its box, beside the sector, and a clock that goes on: uint8 greys."""
    picture = Image.new("L", (WIDTH, HEIGHT))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    draw.text((6, 4), "EXAMPLE, PATIENT  1990-01-31", fill=255, font=font)
    draw.text((250, 4), f"10:19:{frame_number // 30:02d}", fill=255, font=font)
    draw.text((4, 60), "HOSPITAL\nROOM 4", fill=255, font=font)
    draw.text((244, 50), "FL 32.3\nGA 20w0d", fill=255, font=font)
    draw.text((120, 222), "MI 0.9  TIs 0.1", fill=255, font=font)
    return np.array(picture)


def pictures() -> list[np.ndarray]:
    """RGB frames: moving speckle with a bright spot, and what is written around it."""
    rng = np.random.default_rng(0)
    x, y = SPOT
    frames = []
    for number in range(FRAMES):
        grey = np.minimum(rng.rayleigh(40, (HEIGHT, WIDTH)), 140).astype(np.uint8) * trapezoid()
        grey[y - 5 : y + 5, x - 5 : x + 5] = 255
        frames.append(np.repeat(np.maximum(grey, written(number))[..., None], 3, axis=2))
    return frames


def write_scan(folder: Path, frames: list[np.ndarray], **notes: object) -> Path:
    write_video(folder / "scan.mp4", even_times(len(frames) / 30), frames)
    (folder / "scan.json").write_text(json.dumps({"patient_id": folder.name, **notes}))
    (folder / "planes.csv").write_text("start_s,end_s,label\n0,1.2,femur\n")
    height, width = frames[0].shape[:2]
    gaze = [f"{place / 60:.4f},{SPOT[0] / width},{SPOT[1] / height}" for place in range(120)]
    (folder / "gaze.csv").write_text("\n".join(["time_s,x,y", *gaze]) + "\n")
    return folder


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return pictures()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, frames) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_scan(folder / "scan", frames)
    return folder


@pytest.fixture(scope="module")
def prepared(recordings, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "set"
    for prepare, parameters in PREPARATIONS.values():
        prepare(recordings, output, parameters, workers=1)
    return output


def rows_of(output: Path, config: str) -> list[dict]:
    return [
        row
        for shard in sorted((output / "data" / config).glob("*.parquet"))
        for row in pq.read_table(shard).to_pylist()
    ]


def stored(output: Path, config: str) -> list[np.ndarray]:
    """Every stored frame of a configuration, (FRAME_SIZE, FRAME_SIZE) greys."""
    files = [file for row in rows_of(output, config) for file in row.get("frames") or [row["image"]]]
    return [np.asarray(Image.open(io.BytesIO(file["bytes"])).convert("L")) for file in files]


def in_the_square(picture: np.ndarray, box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    """Greys of the recording's size, cropped and scaled as stored frames are."""
    return np.asarray(resize_to_square(Image.fromarray(picture).convert("RGB").crop(box), FRAME_SIZE))[..., 0]


# Found.


@pytest.mark.parametrize("config", PREPARATIONS)
def test_nothing_written_on_the_margin_is_stored(prepared, config):
    text, inside = in_the_square(written(0)), in_the_square((255 * trapezoid()).astype(np.uint8))
    assert (text > 150).sum() > 50, "some of the text lies within the sector's box"
    outside = ndimage.distance_transform_edt(inside == 0) >= 4  # nearer, JPEG rings
    frames = stored(prepared, config)
    assert frames
    for frame in frames:
        assert frame[outside].max() <= BLANK
        assert frame[text > 150].max() <= BLANK
        assert frame[inside > 250].mean() > 30


def test_the_sector_fills_the_stored_frame(prepared):
    x, y = SPOT
    left, top, width, height = place_in_square(BOX[2] - BOX[0], BOX[3] - BOX[1], FRAME_SIZE)
    wanted = (
        left + (x - BOX[0]) / (BOX[2] - BOX[0]) * width,
        top + (y - BOX[1]) / (BOX[3] - BOX[1]) * height,
    )
    for frame in stored(prepared, "planes"):
        assert np.abs(np.array(centre_of_light(frame)) - wanted).max() < 1.5


def centre_of_light(frame: np.ndarray) -> tuple[float, float]:
    """x, y of the middle of what is brighter than any speckle."""
    rows, columns = np.nonzero(frame > 190)
    return columns.mean() + 0.5, rows.mean() + 0.5


@pytest.mark.parametrize("crop", [None, [100, 20, 300, 220]])
def test_gaze_lies_on_what_was_looked_at(prepared, frames, tmp_path, crop):
    output = prepared
    if crop is not None:
        write_scan(tmp_path / "in" / "scan", frames, crop=crop)
        output = tmp_path / "set"
        prepare_gaze(tmp_path / "in", output, PREPARATIONS["gaze"][1], workers=1)
    rows = rows_of(output, "gaze")
    assert rows
    for row, frame in zip(rows, stored(output, "gaze"), strict=True):
        ((x, y),) = row["fixations"]
        assert np.abs(np.array(centre_of_light(frame)) / FRAME_SIZE - (x, y)).max() < 0.01


def test_the_choice_stands_in_the_info(prepared, recordings, tmp_path):
    assert all(read_info(prepared, config)["sector"] == "found" for config in PREPARATIONS)
    prepare_planes(recordings, tmp_path / "set", PlaneParameters(frame_size=32), workers=1)
    assert read_info(tmp_path / "set", "planes")["sector"] == "whole"


# The crop of scan.json.


def test_a_crop_is_kept_as_it_is_and_blanked_outside_of_the_sector(frames, tmp_path):
    crop = (0, 30, WIDTH, HEIGHT)
    write_scan(tmp_path / "in" / "scan", frames, crop=crop)
    (files,) = find_recordings(tmp_path / "in")
    recording = open_recording(files)
    assert recording.box("found") == recording.box("whole") == recording.area("whole") == crop
    prepare_planes(tmp_path / "in", tmp_path / "set", PREPARATIONS["planes"][1], workers=1)
    text = in_the_square(written(0), crop) > 150
    for frame in stored(tmp_path / "set", "planes"):
        assert frame[text].max() <= BLANK
        assert frame[in_the_square((255 * trapezoid()).astype(np.uint8), crop) > 250].mean() > 30


def test_a_crop_without_a_sector_is_kept_as_recorded(tmp_path):
    grey = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    write_scan(tmp_path / "in" / "scan", [grey] * 60, crop=(100, 60, 200, 120))
    (files,) = find_recordings(tmp_path / "in")
    assert open_recording(files).area("found") == (100, 60, 200, 120)


# Whole.


@pytest.mark.parametrize("crop", [None, [100, 20, 300, 220]])
def test_whole_frames_are_stored_as_recorded(frames, tmp_path, crop):
    write_scan(tmp_path / "in" / "scan", frames, crop=crop)
    parameters = PlaneParameters(frame_size=FRAME_SIZE)
    assert parameters == PlaneParameters(frame_size=FRAME_SIZE, sector="whole")
    prepare_planes(tmp_path / "in", tmp_path / "set", parameters, workers=1)
    rows = rows_of(tmp_path / "set", "planes")
    (files,) = find_recordings(tmp_path / "in")
    shown = {frame.time_s: frame.read_pixels() for frame in open_recording(files).frames()}
    assert rows
    for row in rows:
        image = Image.fromarray(shown[row["time_s"]]).crop(crop or (0, 0, WIDTH, HEIGHT))
        image = resize_to_square(image, FRAME_SIZE)
        pixels, file = np.asarray(image), io.BytesIO()
        image = image if (pixels != pixels[..., :1]).any() else image.convert("L")
        image.save(file, format="JPEG", quality=JPEG_QUALITY)
        stored, wanted = (Image.open(io.BytesIO(raw)) for raw in (row["image"]["bytes"], file.getvalue()))
        assert (stored.mode, stored.size) == (wanted.mode, wanted.size)
        # Reduced by FFmpeg, whose filter is Pillow's but for the rounding.
        difference = np.abs(np.asarray(stored, dtype=int) - np.asarray(wanted))
        assert difference.mean() < 2 and difference.max() < 32


def test_whole_frames_are_never_searched(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(Recording, "sampled_frames", None)
    prepare_gaze(recordings, tmp_path / "set", GazeParameters(frame_size=32), workers=1)


# What may be no ultrasound.


def speckle(is_red: bool = False) -> list[np.ndarray]:
    """Moving grain from corner to corner, red in a quarter of the picture or nowhere."""
    rng = np.random.default_rng(0)
    greys = [np.minimum(rng.rayleigh(60, (HEIGHT, WIDTH)), 250).astype(np.uint8) for _ in range(FRAMES)]
    shown = [np.repeat(grey[..., None], 3, axis=2) for grey in greys]
    for picture in shown[: FRAMES * is_red]:
        picture[60:180, 80:240] = 0
        picture[60:180, 80:240, 0] = rng.integers(120, 255, (120, 160))
    return shown


@pytest.mark.parametrize(("is_red", "label"), [(False, " whole picture"), (True, " whole picture, coloured")])
def test_a_video_that_may_be_no_ultrasound_is_to_be_looked_at(frames, tmp_path, monkeypatch, is_red, label):
    write_scan(tmp_path / "in" / "other", speckle(is_red))
    write_scan(tmp_path / "in" / "scan", frames)
    labels = []
    monkeypatch.setattr(
        "datasets_scripts.contact_sheet.write_sheets",
        lambda tiles, file: labels.extend(label for _, label in tiles) or write_sheets(tiles, file),
    )
    prepare, parameters = PREPARATIONS["planes"]
    sheet = tmp_path / "sheet.png"
    report = prepare(tmp_path / "in", tmp_path / "set", parameters, workers=1, sheet=sheet)
    other, scan = report.recordings
    assert other.rows and other.counts["sectors_of_the_whole_picture"] == 1
    assert other.counts.get("strongly_coloured_pictures", 0) == is_red
    assert not {"sectors_of_the_whole_picture", "strongly_coloured_pictures"} & set(scan.counts)
    assert labels == [f"{other.scan_id}{label}", scan.scan_id]
    assert "sectors_of_the_whole_picture 1" in report.summary()


def test_a_crop_of_a_whole_picture_was_looked_at_already(tmp_path):
    write_scan(tmp_path / "in" / "a", speckle(), crop=(0, 0, WIDTH, HEIGHT))
    report = prepare_planes(tmp_path / "in", tmp_path / "set", PREPARATIONS["planes"][1], workers=1)
    assert "sectors_of_the_whole_picture" not in report.recordings[0].counts


# What cannot be kept, and the command.


def test_a_recording_without_a_sector_is_left_out_with_a_remedy(recordings, tmp_path):
    grey = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    write_scan(tmp_path / "in" / "grey", [grey] * 60)
    (tmp_path / "in" / "scan").symlink_to(recordings / "scan")
    prepare, parameters = PREPARATIONS["large"]
    report = prepare(tmp_path / "in", tmp_path / "set", parameters, workers=1)
    left_out, kept = report.recordings
    assert (left_out.name, left_out.error, left_out.rows) == ("grey", "NoSectorError", 0)
    assert left_out.left_out.startswith("grey: The picture is of one grey")
    assert "`--sector whole` would keep the whole frames" in report.summary()
    assert kept.rows == 1


def test_a_recording_whose_size_changes_is_left_out_by_name(frames, tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_scan(tmp_path / "in" / name, frames)

    def area(recording: Recording, sector: str) -> Sector | None:
        return Sector(np.ones((100, 100), dtype=bool)) if recording.name == "a" else None

    monkeypatch.setattr(Recording, "area", area)
    report = prepare_clips(tmp_path / "in", tmp_path / "set", PREPARATIONS["large"][1], workers=1)
    assert report.recordings[0].error == "OtherSizeError"
    assert report.recordings[0].left_out.startswith("a: A frame has 320 x 240 pixels")
    with pytest.raises(OtherSizeError):
        FrameEncoder(Sector(np.ones((4, 4), dtype=bool)), 32)(
            Frame(0.0, 0.1, lambda: np.zeros((5, 4, 3), dtype=np.uint8))
        )


def test_the_command_finds_the_sector_unless_it_is_told_not_to(recordings, tmp_path, capsys):
    assert COMMAND_DEFAULTS["sector"] == SECTOR_CHOICES[0] == "found"
    command = [str(recordings), str(tmp_path / "set"), "--clip-seconds", "2", "--workers", "1"]
    assert prepare_clips_main([*command, "--frame-size", "32"]) == 0
    assert read_info(tmp_path / "set", "large")["sector"] == "found"
    assert prepare_clips_main([*command, "--frame-size", "32", "--overwrite", "--sector", "whole"]) == 0
    assert read_info(tmp_path / "set", "large")["sector"] == "whole"
    assert prepare_clips_main([*command, "--sector", "half"]) == 2
    assert "sector is half; it must be found or whole." in capsys.readouterr().err
