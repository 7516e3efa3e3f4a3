"""Text on ultrasound is found, whoever wrote it; speckle is not taken for text."""

import builtins
import io
from pathlib import Path
from typing import NamedTuple

import av
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from tiny_recordings import even_times, write_video

from datasets_scripts import burned_in_text
from datasets_scripts.burned_in_text import (
    MOST_AT_ONCE,
    TALLEST,
    FoundText,
    TextSearchError,
    _Look,
    _pieces,
    find_text,
    median_picture,
    text_within,
)
from datasets_scripts.recordings import find_recordings, open_recording
from datasets_scripts.sector import find_sector
from datasets_scripts.simulated_anatomy import draw_patient
from datasets_scripts.simulated_probe import ProbePath, holds_of
from datasets_scripts.simulated_ultrasound import Renderer, draw_style
from datasets_scripts.simulated_visits import plan_visits

FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuS*.ttf"))
FONTS = [file for file in FONTS if "Display" not in file.name]
FIRST_NAMES = ("JANE", "Ngozi", "Lea", "Maria", "ILSE", "Ana", "Yuki", "Fatima")
LAST_NAMES = ("DOE", "Okafor", "Moreau", "SZYMANOWSKA", "Lindqvist", "O'Brien", "Garcia-Lopez", "Li")
MONTHS = ("Jan", "Feb", "March", "Apr", "May", "JUN", "Jul", "Aug", "Sept", "Oct", "Nov", "Dec")
COLOURS = ((255, 255, 255), (255, 255, 0), (230, 200, 60), (190, 190, 190), (160, 160, 160))
SIMULATED_SIZES, SCAN_SECONDS = (160, 240, 384, 512), 12.0


class Planted(NamedTuple):
    """Frames with text on them, the text's box and what it says."""

    frames: np.ndarray
    box: tuple[int, int, int, int]
    text: str


def name_or_date(rng: np.random.Generator) -> str:
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    year, month, day = rng.integers(1960, 2026), rng.integers(1, 13), rng.integers(1, 29)
    return str(
        rng.choice(
            [
                *(f"{last}, {first}", f"{first} {last}", f"{last}^{first}", f"{first} {last}"),
                *(
                    f"{year}-{month:02d}-{day:02d}",
                    f"{day:02d}.{month:02d}.{year}",
                    f"{year}{month:02d}{day:02d}",
                ),
                *(f"{day:02d}/{month:02d}/{year}", f"{day} {MONTHS[month - 1]} {year}"),
            ]
        )
    )


def plant(frames: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Planted:
    """A name or a date wholly within a mask, in letters of 8 to 30 pixels, on every frame."""
    height, width = mask.shape
    while True:
        text, size, outline = name_or_date(rng), int(rng.integers(8, 31)), int(rng.integers(2))
        file = FONTS[rng.integers(len(FONTS))] if rng.random() < 0.7 else None
        font = ImageFont.load_default(size) if file is None else ImageFont.truetype(str(file), size)
        left, top, right, bottom = font.getbbox(text, stroke_width=outline)
        right, bottom = right - left, bottom - top
        if right >= width or bottom >= height:
            continue
        x, y = int(rng.integers(width - right)), int(rng.integers(height - bottom))
        if mask[y : y + bottom, x : x + right].all():
            break
    drawing = Image.new("RGBA", (width, height))
    colour = COLOURS[rng.integers(len(COLOURS))]
    place = x - left, y - top
    ImageDraw.Draw(drawing).text(place, text, colour, font, stroke_width=outline, stroke_fill="black")
    pictures = [Image.alpha_composite(Image.fromarray(frame).convert("RGBA"), drawing) for frame in frames]
    written = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return Planted(written, (x, y, x + right, y + bottom), text)


def simulated(seed: int, size: int, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a simulated recording, (count, size, size, 3) uint8, and the mask of its sector."""
    rng = np.random.default_rng(seed)
    renderer = Renderer(draw_style(rng), size, rng)
    path = ProbePath(holds_of(plan_visits(SCAN_SECONDS, rng), SCAN_SECONDS, draw_patient(rng), rng), rng)
    moments = (path.at(time_s) for time_s in np.linspace(0, SCAN_SECONDS, count, endpoint=False))
    frames = [
        renderer.picture(hold.tissue, pose, other.tissue, share) for hold, pose, other, share in moments
    ]
    mask = (renderer._scan_conversion[1].sum(axis=0) > 0).reshape(size, size)
    return np.repeat(np.stack(frames)[..., None], 3, axis=-1), mask


def compressed(frames: np.ndarray) -> np.ndarray:
    """The frames, of even sides, as they come back from H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=2)
        (video.height, video.width), video.pix_fmt = frames.shape[1:3], "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "23", "threads": "1"}
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
    with av.open(io.BytesIO(file.getvalue())) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def is_covered(box: tuple[int, int, int, int], found: list[FoundText]) -> bool:
    """Whether half of a box or more lies in those of the texts found."""
    left, top, right, bottom = box
    covered = np.zeros((bottom, right), dtype=bool)
    for x, y, end, below in (text.box for text in found):
        covered[y:below, x:end] = True
    return covered[top:, left:].mean() >= 0.5


def sampled_media(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Up to 16 frames of a video, or the picture, with even sides, and the mask of its sector."""
    if file.suffix == ".png":
        frames = np.asarray(Image.open(file).convert("RGB"))[None]
    else:
        with av.open(str(file)) as container:
            decoded = list(container.decode(video=0))
        picked = np.unique(np.linspace(0, len(decoded) - 1, 16).astype(int))
        frames = np.stack([decoded[number].to_ndarray(format="rgb24") for number in picked])
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    return frames, find_sector(frames).mask


# Found.


@pytest.mark.parametrize("seed", range(5))
def test_planted_text_is_found(seed: int):
    frames, mask = simulated(seed, SIMULATED_SIZES[seed % 3])
    planted = plant(frames, mask, np.random.default_rng(seed))
    found = find_text(compressed(planted.frames), mask)
    assert is_covered(planted.box, found), planted.text
    assert all(isinstance(edge, int) for text in found for edge in text.box)


def test_what_is_found_is_read_and_lies_where_it_was_written():
    frames, mask = simulated(1, 384)
    drawing = [Image.fromarray(frame) for frame in frames]
    for picture in drawing:
        ImageDraw.Draw(picture).text((140, 200), "DOE JANE", "white", ImageFont.load_default(22))
    (text,) = find_text(np.stack([np.asarray(picture) for picture in drawing]), mask)
    assert text.text.replace(" ", "") == "DOEJANE" and text.confidence > 0.9
    box = ImageFont.load_default(22).getbbox("DOE JANE")
    wanted = (140 + box[0], 200 + box[1], 140 + box[2], 200 + box[3])
    assert np.abs(np.array(text.box) - wanted).max() <= 8


def test_each_text_is_told_once():
    picture = Image.fromarray(simulated(1, 384)[0][0])
    for line, text in enumerate(("Okafor, Ngozi", "1990-01-31")):
        ImageDraw.Draw(picture).text((120, 150 + 60 * line), text, "white", ImageFont.load_default(20))
    texts = [text.text.replace(" ", "") for text in find_text(np.asarray(picture))]
    assert sorted(texts) == ["1990-01-31", "Okafor,Ngozi"]


def test_text_that_comes_and_goes_is_found():
    frames, mask = simulated(2, 240, count=9)
    picture = Image.fromarray(frames[4])
    ImageDraw.Draw(picture).text((70, 110), "Moreau Lea", "white", ImageFont.load_default(18))
    frames[4] = np.asarray(picture)
    assert "Moreau" in " ".join(text.text for text in find_text(frames, mask))
    assert find_text(median_picture(frames), mask) == []


def test_what_lies_outside_of_the_mask_is_not_read():
    frames, _ = simulated(1, 240)
    frames[:, :20] = 0
    pictures = [Image.fromarray(frame) for frame in frames]
    for picture in pictures:
        ImageDraw.Draw(picture).text((60, 2), "DOE JANE", "white", ImageFont.load_default(15))
    frames, mask = np.stack([np.asarray(picture) for picture in pictures]), np.ones((240, 240), dtype=bool)
    assert find_text(frames, mask)
    mask[:24] = False
    assert find_text(frames, mask) == []
    assert find_text(frames, np.zeros_like(mask)) == []


@pytest.mark.slow
@pytest.mark.media
def test_at_least_95_of_100_planted_names_and_dates_are_found(media: Path):
    """On simulated and on real ultrasound, in the colours and letters of the machines."""
    real = [*media.glob("fetal_planes/*.png"), *media.glob("ultrasound_video/*.mp4")]
    rng, missed = np.random.default_rng(8), []
    for number in range(100):
        size = SIMULATED_SIZES[number // 2 % len(SIMULATED_SIZES)]
        frames, mask = simulated(number, size) if number % 2 else sampled_media(real[number // 2 % len(real)])
        planted = plant(frames, mask, rng)
        written = compressed(planted.frames) if len(frames) > 1 else planted.frames
        if not is_covered(planted.box, find_text(written, mask)):
            missed.append(planted.text)
    print(f"{100 - len(missed)} of 100 planted texts were found; missed: {missed}")
    assert len(missed) <= 5


@pytest.mark.parametrize("shape", [(64, 64), (200, 900), (1070, 1000), (1920, 1080), (3000, 90), (65, 9000)])
@pytest.mark.parametrize("factor", [1.0, 1.5, 3.0])
def test_large_pictures_are_read_in_bands_that_cut_no_line_of_text(shape: tuple[int, int], factor: float):
    picture = np.arange(shape[0], dtype=np.uint16)[:, None].repeat(shape[1], axis=1)
    bands = list(_pieces(_Look(picture, factor, 7, 11)))
    assert all(band.picture.shape[1] == shape[1] and band.left == 7 for band in bands)
    rows = [set(band.picture[:, 0].tolist()) for band in bands]
    assert [min(band) + 11 for band in rows] == [band.top for band in bands]
    for top in range(max(1, shape[0] - TALLEST)):
        assert any({top, min(top + TALLEST, shape[0]) - 1} <= band for band in rows)
    most = max(MOST_AT_ONCE, 3 * TALLEST * shape[1] * factor**2)
    assert all(band.picture.size * factor**2 <= most for band in bands)


def test_text_between_two_bands_is_told_once_where_it_lies(monkeypatch):
    frames, mask = simulated(1, 384)
    whole = [Image.fromarray(frame) for frame in frames]
    for picture in whole:
        ImageDraw.Draw(picture).text((140, 200), "DOE JANE", "white", ImageFont.load_default(22))
    written = np.stack([np.asarray(picture) for picture in whole])
    (wanted,) = find_text(written, mask)
    monkeypatch.setattr(burned_in_text, "MOST_AT_ONCE", 1)  # 192 rows at a time
    (found,) = find_text(written, mask)
    assert found.text.replace(" ", "") == "DOEJANE"
    assert np.abs(np.array(found.box) - wanted.box).max() <= 4


# Not found.


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_speckle_is_not_taken_for_text(seed: int):
    frames, mask = simulated(seed, SIMULATED_SIZES[seed % 3])
    assert find_text(compressed(frames), mask) == []
    assert find_text(frames[0], mask) == []


@pytest.mark.slow
def test_false_alarms_are_rare():
    """At most 3 of 60 clean simulated recordings."""
    alarms = []
    for seed in range(200, 260):
        frames, mask = simulated(seed, SIMULATED_SIZES[seed % len(SIMULATED_SIZES)])
        alarms += [seed] * bool(find_text(compressed(frames), mask))
    print(f"{len(alarms)} of 60 clean recordings gave a false alarm: {alarms}")
    assert len(alarms) <= 3


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (40, 3), (7, 7)])
def test_pictures_of_any_size_are_searched(shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    assert find_text(rng.integers(0, 255, (*shape, 3)).astype(np.uint8)) == []


# Recordings.


def test_text_within_a_recording_lies_on_what_is_kept(tmp_path: Path):
    frames, _ = simulated(1, 384, count=12)
    shown = np.zeros((12, 480, 640, 3), np.uint8)
    shown[:, 64:448, 128:512] = frames
    font, pictures = ImageFont.load_default(18), [Image.fromarray(frame) for frame in shown]
    for picture in pictures:
        ImageDraw.Draw(picture).text((6, 4), "EXAMPLE PATIENT", "white", font)
        ImageDraw.Draw(picture).text((260, 250), "Okafor 1990-01-31", "yellow", font)
    write_video(tmp_path / "a.mp4", even_times(0.4), [np.asarray(picture) for picture in pictures])
    (files,) = find_recordings(tmp_path)
    recording = open_recording(files)
    found, whole = text_within(recording, "found"), text_within(recording, "whole")
    assert "1990-01-31" in found[0].text and "EXAMPLE" not in " ".join(text.text for text in found)
    assert is_covered((262, 254, 420, 266), found)
    assert "EXAMPLE" in " ".join(text.text for text in whole)


@pytest.mark.media
def test_a_header_that_a_still_picture_keeps_is_found(media: Path):
    """One frame does not move, so the bar above the sector cannot be told from it."""
    files = {files.name: files for files in find_recordings(media / "ultrasound_dicom")}
    found = text_within(open_recording(files["examples_rgb_color.dcm"]), "found")
    assert found


@pytest.mark.slow
@pytest.mark.media
@pytest.mark.parametrize("name", ["fetal_planes", "ultrasound_video"])
def test_nothing_written_on_the_margins_of_real_media_is_kept(media: Path, name: str):
    """The whole pictures show dates, names of places and measurements; what is kept shows none."""
    shown, files = 0, [file for file in (media / name).iterdir() if file.suffix in {".png", ".mp4"}]
    for file in files:
        frames, mask = sampled_media(file)
        shown += len(find_text(frames[0]))
        assert find_text(frames, mask) == [], file.name
    assert shown >= 3 * len(files)


# Refused.


@pytest.mark.parametrize(
    "pictures", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(pictures: np.ndarray):
    with pytest.raises(ValueError, match="Pictures must be uint8"):
        find_text(pictures)


def test_without_the_library_the_message_says_what_to_do(monkeypatch):
    true_import = builtins.__import__

    def no_rapidocr(name: str, *rest):
        if name == "rapidocr":
            raise ImportError(name)
        return true_import(name, *rest)

    burned_in_text._reader.cache_clear()
    monkeypatch.setattr(builtins, "__import__", no_rapidocr)
    with pytest.raises(TextSearchError, match=r"RapidOCR, which is not installed; .*\.$"):
        find_text(np.zeros((40, 40, 3), np.uint8))
