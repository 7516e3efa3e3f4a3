"""Contact sheets: what is kept is outlined and bright, what is blanked is dark, nobody is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tiny_recordings import even_times, write_video

from datasets_scripts.burned_in_text import FoundText
from datasets_scripts.clips import ClipParameters
from datasets_scripts.contact_sheet import GREEN, RED, TILE, draw_tile, write_sheets
from datasets_scripts.preparation import PrepareError
from datasets_scripts.prepare_clips import main, prepare_clips
from datasets_scripts.recordings import find_recordings, open_recording

BOX = (40, 30, 140, 130)
SIZE = TILE  # pixels of the pictures are those of the tile


def write_scan(folder: Path, name: str, seconds: float = 2.0, is_grey: bool = False) -> Path:
    """Moving speckle in a trapezoid, a white bar below; or all of one grey."""
    rng, pictures = np.random.default_rng(0), []
    left, top, right, bottom = BOX
    sector = Image.new("1", (SIZE, SIZE))
    corners = [(left + 30, top), (right - 31, top), (right - 1, bottom - 1), (left, bottom - 1)]
    ImageDraw.Draw(sector).polygon(corners, fill=1)
    for _ in range(round(seconds * 30)):
        grey = rng.integers(60, 140, (SIZE, SIZE)).astype(np.uint8) * np.array(sector)
        grey[150:156] = 250
        pictures.append(np.repeat((grey * (not is_grey))[..., None], 3, axis=2))
    return write_video(folder / f"{name}.mp4", even_times(seconds), pictures)


def is_green(pixels: np.ndarray) -> np.ndarray:
    return (pixels == GREEN).all(axis=-1)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_scan(folder, "Haversham")
    write_scan(folder, "grey", is_grey=True)
    write_scan(folder, "short", seconds=0.5)
    (folder / "text.mp4").write_text("no video")
    return folder


def tile_of(recordings: Path, name: str, sector: str) -> np.ndarray:
    (files,) = (files for files in find_recordings(recordings) if files.name == f"{name}.mp4")
    return np.asarray(draw_tile(open_recording(files), sector))


def test_the_sector_is_outlined_and_the_rest_is_darkened(recordings):
    tile = tile_of(recordings, "Haversham", "found")
    assert tile.shape == (TILE, TILE, 3)
    rows, columns = np.nonzero(is_green(tile))
    bounds = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.abs(np.array(bounds) - BOX).max() <= 2
    assert not is_green(tile[BOX[1] : BOX[1] + 40, BOX[0] : BOX[0] + 12]).any(), "the corner of the box"
    assert 80 < tile[60:100, 65:115].mean() < 120
    assert 80 < tile[151:155].mean() < 95  # the white bar


def test_whole_frames_are_outlined_at_their_edge(recordings):
    tile = tile_of(recordings, "Haversham", "whole")
    green = is_green(tile)
    assert green[[0, -1]].all() and green[:, [0, -1]].all() and not green[1:-1, 1:-1].any()
    assert tile[151:155, 1:-1].mean() > 240


def test_text_on_the_sector_has_a_red_box_around_it(recordings):
    (files,) = (files for files in find_recordings(recordings) if files.name == "Haversham.mp4")
    text = FoundText("DOE", 0.9, (70, 60, 110, 80))
    tile = np.asarray(draw_tile(open_recording(files), "found", [text]))
    rows, columns = np.nonzero((tile == RED).all(axis=-1))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (69, 59, 110, 80)
    clean = tile_of(recordings, "Haversham", "found")
    assert (tile[60:80, 70:110] == clean[60:80, 70:110]).all(), "what is written can be read"
    assert not (clean == RED).all(axis=-1).any()


def test_without_a_sector_nothing_is_outlined(recordings):
    assert not is_green(tile_of(recordings, "grey", "found")).any()


def test_a_run_writes_a_tile_for_each_recording_that_can_be_read(recordings, tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(
        "datasets_scripts.contact_sheet.write_sheets",
        lambda tiles, file: labels.extend(label for _, label in tiles) or write_sheets(tiles, file),
    )
    parameters = ClipParameters(2.0, frames_per_clip=2, frame_size=32, sector="found")
    file = tmp_path / "new" / "sheet.png"
    report = prepare_clips(recordings, tmp_path / "set", parameters, workers=1, sheet=file)
    ids = {outcome.name: outcome.scan_id for outcome in report.recordings}
    assert sorted(labels) == sorted(
        [ids["Haversham.mp4"], f"{ids['grey.mp4']} left out", f"{ids['short.mp4']} left out"]
    )
    with Image.open(file) as sheet:
        assert sheet.width == 3 * (TILE + 4)
        assert is_green(np.asarray(sheet)).sum() > 300


def test_a_hundred_tiles_fill_a_page(tmp_path):
    Image.new("RGB", (TILE, TILE), "white").save(tmp_path / "tile.png")
    pages = write_sheets([(tmp_path / "tile.png", "0" * 16)] * 101, tmp_path / "sheet.png")
    assert [page.name for page in pages] == ["sheet.png", "sheet_2.png"]
    full, rest = (Image.open(page) for page in pages)
    assert (full.width, rest.width) == (10 * (TILE + 4), TILE + 4)
    assert full.height == 10 * rest.height


@pytest.mark.parametrize("name", ["set/sheet.png", "sheet.jpg"])
def test_a_sheet_in_the_data_set_is_refused_before_any_work(recordings, tmp_path, capsys, name):
    file = tmp_path / name
    with pytest.raises(PrepareError, match="outside of the data set"):
        prepare_clips(recordings, tmp_path / "set", ClipParameters(2.0), sheet=file)
    assert main([str(recordings), str(tmp_path / "set"), "--sheet", str(file)]) == 2
    assert "cannot be the sheet" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
