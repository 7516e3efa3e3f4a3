"""The sector of simulated recordings with overlays, and of real media against masks drawn by hand."""

import io
import json
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from datasets_scripts.sector import NoSectorError, OtherSizeError, Sector, crop_to_sector, find_sector
from datasets_scripts.simulated_anatomy import draw_patient
from datasets_scripts.simulated_probe import ProbePath, holds_of
from datasets_scripts.simulated_ultrasound import Renderer, draw_style
from datasets_scripts.simulated_visits import plan_visits

MASKS = Path(__file__).parent / "sector_masks"
PICTURE, WIDTH, HEIGHT = 384, 640, 480
LEFT, TOP = 128, 64  # where the simulated picture lies on the screen
FRAMES, SCAN_SECONDS = 24, 12.0


def intersection_over_union(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@cache
def simulated(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames on a black screen, (FRAMES, HEIGHT, WIDTH) uint8, and the true mask."""
    rng = np.random.default_rng(seed)
    renderer = Renderer(draw_style(rng), PICTURE, rng)
    path = ProbePath(holds_of(plan_visits(SCAN_SECONDS, rng), SCAN_SECONDS, draw_patient(rng), rng), rng)
    frames, mask = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), bool)
    place = (slice(TOP, TOP + PICTURE), slice(LEFT, LEFT + PICTURE))
    for number, time_s in enumerate(np.linspace(0, SCAN_SECONDS, FRAMES, endpoint=False)):
        hold, pose, other, share = path.at(time_s)
        frames[number][place] = renderer.picture(hold.tissue, pose, other.tissue, share)
    mask[place] = (renderer._scan_conversion[1].sum(axis=0) > 0).reshape(PICTURE, PICTURE)
    return frames, mask


def overlay(number: int) -> Image.Image:
    """What a machine draws around the sector, and a clock that goes on: RGBA, transparent elsewhere."""
    picture = Image.new("RGBA", (WIDTH, HEIGHT))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    draw.rectangle((0, 0, WIDTH, 26), fill=(52, 56, 60, 255))
    draw.text((6, 5), "EXAMPLE, PATIENT  1990-01-31", fill="white", font=font)
    draw.text((430, 5), f"31.01.2026  10:19:{number:02d}", fill="white", font=font)
    if number % 2:
        draw.ellipse((616, 6, 630, 20), fill=(255, 40, 40, 255))
    draw.text((4, 34), "EXAMPLE HOSPITAL", fill=(200, 200, 200, 255), font=font)
    draw.ellipse((150, 34, 176, 60), fill=(0, 160, 220, 255))
    for line, text in enumerate(("Routine", "Har-mid", "Pwr 89 %", "Gn 2")):
        draw.text((WIDTH - 70, 34 + 17 * line), text, fill=(180, 180, 180, 255), font=font)
    for level in range(128):
        draw.line((8, 100 + level, 20, 100 + level), fill=(255 - 2 * level,) * 3 + (255,))
    for tick in range(20):
        draw.line((WIDTH - 12, 120 + 17 * tick, WIDTH - 4, 120 + 17 * tick), fill="white")
    draw.text((4, 420), "1  FL 32.3mm\nGA 20w0d", fill="white", font=font)
    draw.line((20, 300, 34, 300), fill="yellow")
    draw.line((27, 293, 27, 307), fill="yellow")
    draw.text((280, HEIGHT - 24), "MI 0.9  TIs 0.1", fill="white", font=font)
    return picture


def with_overlays(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGB frames under the overlay, and where any of them has some: bool (HEIGHT, WIDTH)."""
    planted, pictures = np.zeros((HEIGHT, WIDTH), bool), []
    for number, frame in enumerate(frames):
        drawing = overlay(number)
        planted |= np.asarray(drawing)[..., 3] > 0
        picture = Image.fromarray(frame).convert("RGBA")
        pictures.append(np.asarray(Image.alpha_composite(picture, drawing).convert("RGB")))
    return np.stack(pictures), planted


def compressed(frames: np.ndarray) -> np.ndarray:
    """The frames as they come back from H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=2, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        video.options = {"preset": "ultrafast", "crf": "23", "threads": "1"}
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
    with av.open(io.BytesIO(file.getvalue())) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def speckle(mask: np.ndarray, frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    """Frames of fully developed speckle, Rayleigh-distributed, within a mask."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.rayleigh(40, (frames, *mask.shape)), 255).astype(np.uint8) * mask


def polygon(*corners: tuple[int, int], size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    picture = Image.new("1", size)
    ImageDraw.Draw(picture).polygon(corners, fill=1)
    return np.array(picture)


def wedge() -> np.ndarray:
    """A phased array's: from a point, 45 degrees to either side, 300 pixels deep."""
    y, x = np.indices((HEIGHT, WIDTH)) - np.array([90, 320])[:, None, None]
    return (np.abs(x) <= y) & (np.hypot(x, y) <= 300)


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 40))]
)
def test_sector_of_a_simulated_recording_with_overlays(seed: int):
    frames, truth = simulated(seed)
    shown, planted = with_overlays(frames)
    assert (planted & ~truth).sum() > 20_000
    sector = find_sector(compressed(shown))
    assert intersection_over_union(sector.mask, truth) >= 0.95
    assert not (sector.mask & planted & ~truth).any()


@pytest.mark.parametrize("frame_count", [16, FRAMES])
@pytest.mark.parametrize("margin", [0, 40])
def test_a_picture_without_overlays(margin: int, frame_count: int):
    frames, truth = (
        array[..., TOP - margin : TOP + PICTURE, LEFT - margin : LEFT + PICTURE + margin]
        for array in simulated(1)
    )
    assert intersection_over_union(find_sector(frames[:frame_count]).mask, truth) >= 0.97


@pytest.mark.parametrize(
    "truth",
    [
        polygon((200, 70), (430, 70), (430, 420), (200, 420)),
        polygon((240, 70), (400, 70), (520, 400), (120, 400)),
        wedge(),
    ],
    ids=["linear", "trapezoid", "phased"],
)
@pytest.mark.parametrize("is_still", [False, True])
def test_probes_of_other_shapes(truth: np.ndarray, is_still: bool):
    shown, planted = with_overlays(speckle(truth))
    sector = find_sector(shown[:1] if is_still else compressed(shown))
    assert intersection_over_union(sector.mask, truth) >= 0.95
    assert not (sector.mask & planted & ~truth).any()


@pytest.mark.parametrize("frame_count", [1, 16])
def test_a_sector_that_fills_the_picture(frame_count: int):
    mask = find_sector(speckle(np.ones((300, 400), bool), frame_count)).mask
    assert mask.mean() > 0.95


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 3), (7, 900), (25, 25)])
@pytest.mark.parametrize("frame_count", [1, 3])
def test_pictures_of_any_size_give_a_sector_or_a_reason(shape: tuple[int, int], frame_count: int):
    frames = speckle(np.ones(shape, bool), frame_count)
    try:
        left, top, right, bottom = find_sector(frames).box
    except NoSectorError as error:
        assert str(error).endswith(".")
    else:
        assert 0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]


@pytest.mark.parametrize("is_still", [False, True])
def test_a_bar_with_a_date_that_touches_the_sector(is_still: bool):
    truth = polygon((200, 70), (430, 70), (430, 420), (200, 420))
    frames = np.repeat(speckle(truth)[..., None], 3, axis=-1)
    bar = Image.new("RGB", (WIDTH, 24), (45, 48, 52))
    ImageDraw.Draw(bar).text((260, 4), "31.01.2026  10:19", fill="white", font=ImageFont.load_default(14))
    frames[:, 46:70] = np.asarray(bar)
    sector = find_sector(frames[:1] if is_still else compressed(frames))
    assert intersection_over_union(sector.mask, truth) >= 0.95
    assert not sector.mask[46:67].any()  # compression mixes the last rows with the sector's


@pytest.mark.parametrize("box_top", [340, 416])
def test_a_box_that_covers_a_corner_of_a_still_sector_is_blanked(box_top: int):
    """The second one, with its last line, is cut by the edge of the picture."""
    truth = polygon((100, 70), (540, 70), (540, HEIGHT), (100, HEIGHT))
    picture = Image.fromarray(speckle(truth, 1)[0])
    draw = ImageDraw.Draw(picture)
    draw.rectangle((440, box_top, 590, box_top + 110), fill=41)
    draw.text((446, box_top + 8), "FL 32.3mm\nGA 20w0d", fill=221, font=ImageFont.load_default(28))
    mask = find_sector(np.asarray(picture)[None]).mask
    assert not mask[box_top : box_top + 111, 440:].any()
    assert mask[72 : box_top - 2, 102:538].mean() > 0.99


def test_a_coloured_mark_that_touches_a_still_sector_is_no_part_of_it():
    truth = polygon((200, 70), (430, 70), (430, 420), (200, 420))
    picture = Image.fromarray(speckle(truth, 1)[0]).convert("RGB")
    ImageDraw.Draw(picture).ellipse((186, 100, 200, 114), fill=(0, 190, 0))
    mask = find_sector(np.asarray(picture)[None]).mask
    assert intersection_over_union(mask, truth) >= 0.95
    assert not mask[:, :197].any()


@pytest.mark.parametrize("is_still", [False, True])
def test_coloured_text_that_reaches_in_from_the_margin_is_blanked(is_still: bool):
    truth = polygon((100, 70), (500, 70), (500, 420), (100, 420))
    frames, lettered = np.repeat(speckle(truth)[..., None], 3, axis=-1), Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(lettered).text((420, 200), "SRI II 5 / CRI 1", 255, ImageFont.load_default(18))
    letters = np.asarray(lettered) > 60
    frames[:, letters] = (80, 90, 255)
    mask = find_sector(frames[:1] if is_still else compressed(frames)).mask
    assert not mask[letters].any()
    assert intersection_over_union(mask, truth) >= 0.95


def test_coloured_blood_flow_and_text_on_the_sector_itself_stay():
    truth = polygon((100, 70), (500, 70), (500, 420), (100, 420))
    frames = np.repeat(speckle(truth)[..., None], 3, axis=-1)
    pictures = [Image.fromarray(frame) for frame in frames]
    flow = np.random.default_rng(1).integers(120, 255, (FRAMES, 60, 60), dtype=np.uint8)
    for picture in pictures:
        ImageDraw.Draw(picture).text((200, 200), "DOE JANE", (255, 255, 0), ImageFont.load_default(18))
    frames = np.stack([np.asarray(picture) for picture in pictures])
    frames[:, 240:300, 440:500] = 0
    frames[:, 240:300, 440:500, 0] = flow
    mask = find_sector(frames).mask
    assert mask[245:295, 450:496].all() and mask[195:225, 195:300].all()


@pytest.mark.parametrize("seed", [0, 4, 9])
def test_a_frozen_recording_with_a_clock_is_a_still_one(seed: int):
    frames, truth = simulated(seed)
    shown, planted = with_overlays(np.repeat(frames[:1], FRAMES, axis=0))
    mask = find_sector(shown).mask
    assert intersection_over_union(mask, truth) >= 0.95
    assert not (mask & planted & ~truth).any()


def test_parts_above_and_below_fluid_are_one_sector():
    truth = polygon((220, 40), (420, 40), (420, 440), (220, 440))
    tissue = truth.copy()
    tissue[120:260] = False
    mask = find_sector(speckle(tissue)).mask
    assert intersection_over_union(mask, truth) >= 0.95


def test_the_grainy_one_of_two_moving_pictures_is_the_ultrasound():
    truth = polygon((40, 100), (280, 100), (280, 400), (40, 400))
    frames = speckle(truth)
    ramp = np.linspace(60, 200, 260)
    for number, frame in enumerate(frames):
        frame[100:420, 360:620] = np.roll(ramp, 9 * number)
    mask = find_sector(frames).mask
    assert intersection_over_union(mask, truth) >= 0.95


def test_a_coloured_picture_that_moves_is_not_the_ultrasound():
    truth = polygon((40, 240), (280, 240), (280, 440), (40, 440))
    frames = np.repeat(speckle(truth)[..., None], 3, axis=-1)
    frames[:, 20:200, 30:610, 2] = np.random.default_rng(1).choice([75, 255], (FRAMES, 180, 580))
    assert intersection_over_union(find_sector(frames).mask, truth) >= 0.95


def test_no_sector_is_told_in_a_sentence():
    rng = np.random.default_rng(0)
    with pytest.raises(NoSectorError, match=r"of one grey .* leave it out\."):
        find_sector(np.zeros((16, 90, 120, 3), np.uint8))
    with pytest.raises(NoSectorError, match="of one grey"):
        find_sector(np.full((1, 90, 120), 77, np.uint8))
    with pytest.raises(NoSectorError, match=r"`crop` in scan\.json"):
        find_sector(np.asarray(overlay(0).convert("RGB"))[None])
    dot = np.zeros((16, 90, 120), np.uint8)
    dot[:, 10:14, 10:14] = rng.integers(0, 255, (16, 4, 4))
    with pytest.raises(NoSectorError):
        find_sector(dot)


@pytest.mark.parametrize(
    "frames", [np.zeros((4, 4), np.uint8), np.zeros((2, 4, 4)), np.zeros((0, 4, 4), np.uint8)]
)
def test_other_arrays_are_refused(frames: np.ndarray):
    with pytest.raises(ValueError, match="Frames must be uint8"):
        find_sector(frames)


def test_cropping_blanks_what_is_outside_and_keeps_what_is_inside():
    mask = polygon((3, 2), (9, 2), (6, 7), size=(12, 10))
    sector = Sector(mask)
    assert sector.box == (3, 2, 10, 8)
    for frame in (np.full((10, 12), 9, np.uint8), np.full((10, 12, 3), 9, np.uint8)):
        cropped = crop_to_sector(frame, sector)
        assert cropped.shape[:2] == (6, 7) and cropped.dtype == np.uint8
        inside = mask[2:8, 3:10]
        assert (cropped[inside] == 9).all() and (cropped[~inside] == 0).all()
    with pytest.raises(OtherSizeError, match="13 x 10 pixels and the sector was found on 12 x 10"):
        crop_to_sector(np.zeros((10, 13), np.uint8), sector)


def sampled(file: Path) -> np.ndarray:
    """Up to 32 RGB frames from all over a video, or the one of a picture."""
    if file.suffix == ".png":
        return np.asarray(Image.open(file).convert("RGB"))[None]
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
    picked = np.unique(np.linspace(0, len(frames) - 1, 32).astype(int))
    return np.stack([frames[number].to_ndarray(format="rgb24") for number in picked])


@pytest.mark.media
@pytest.mark.parametrize("name", sorted(file.stem for file in MASKS.glob("*.json")))
def test_sector_of_real_media_against_a_mask_drawn_by_hand(media: Path, name: str):
    (file,) = (file for file in media.rglob(f"{name}.*") if file.suffix in {".png", ".mp4"})
    frames = sampled(file)
    corners = [tuple(corner) for corner in json.loads((MASKS / f"{name}.json").read_text())]
    truth = polygon(*corners, size=(frames.shape[2], frames.shape[1]))
    assert intersection_over_union(find_sector(frames).mask, truth) >= 0.9


@pytest.mark.media
def test_every_real_video_and_plane_has_a_mask_drawn_by_hand(media: Path):
    names = {
        file.stem
        for folder in ("ultrasound_video", "ultrasound_with_speech", "fetal_planes")
        for file in (media / folder).iterdir()
        if file.suffix in {".png", ".mp4"}
    }
    assert names == {file.stem for file in MASKS.glob("*.json")}
