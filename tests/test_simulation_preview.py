"""The contact sheet of simulated scans."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_scripts.schema import BACKGROUND, PLANES
from datasets_scripts.simulate_scans import SimulationParameters, write_recording
from datasets_scripts.simulated_speech import SAMPLING_RATE_HZ, Narration
from datasets_scripts.simulation_preview import LABEL_HEIGHT, ROWS, TILE, plane_pictures, write_preview

PARAMETERS = SimulationParameters(image_size=32, frames_per_second=10)
HOLD_FRAMES = 3
STRUCTURES = [plane for plane in PLANES if plane != BACKGROUND]
GREYS = {plane: 40 + 15 * number for number, plane in enumerate(STRUCTURES)} | {BACKGROUND: 25}


def write_scan(folder: Path, planes: list[str]) -> Path:
    """A scan whose planes are plain greys between background; a plane that comes again is white."""
    greys, rows = [], ["start_s,end_s,label"]
    for plane in planes:
        start_s = (len(greys) + 1) / PARAMETERS.frames_per_second
        end_s = start_s + HOLD_FRAMES / PARAMETERS.frames_per_second
        seen = any(row.endswith(plane) for row in rows)
        rows.append(f"{start_s},{end_s},{plane}")
        greys += [GREYS[BACKGROUND]] + [255 if seen else GREYS[plane]] * HOLD_FRAMES
    greys.append(GREYS[BACKGROUND])
    folder.mkdir(parents=True)
    (folder / "planes.csv").write_text("\n".join(rows))
    size = PARAMETERS.image_size
    silence = np.zeros(len(greys) * SAMPLING_RATE_HZ // PARAMETERS.frames_per_second, np.float32)
    pictures = (np.full((size, size), grey, np.uint8) for grey in greys)
    write_recording(folder / "scan.mp4", pictures, PARAMETERS, Narration(silence, SAMPLING_RATE_HZ, []))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("scans")
    return [
        write_scan(root / "all", [*reversed(STRUCTURES), "femur"]),
        write_scan(root / "two", ["lips", "femur", "lips"]),
        write_scan(root / "none", []),
    ]


def test_each_plane_is_shown_as_it_was_first_held(folders):
    for folder, planes in zip(folders, (STRUCTURES, ["lips", "femur"], []), strict=True):
        pictures = plane_pictures(folder)
        assert set(pictures) == {*planes, BACKGROUND}
        for plane, picture in pictures.items():
            assert picture.shape == (PARAMETERS.image_size, PARAMETERS.image_size)
            np.testing.assert_allclose(picture, GREYS[plane], atol=3)


def test_the_sheet_has_a_column_a_plane_and_a_row_a_scan(folders, tmp_path):
    file = tmp_path / "not" / "yet" / "there" / "sheet.png"
    write_preview(folders, file)
    sheet = np.asarray(Image.open(file))
    assert sheet.shape == (LABEL_HEIGHT + len(folders) * TILE, len(PLANES) * TILE)
    for row, shown in enumerate((PLANES, ("lips", "femur", BACKGROUND), (BACKGROUND,))):
        for column, plane in enumerate(PLANES):
            top = LABEL_HEIGHT + row * TILE
            tile = sheet[top : top + TILE, column * TILE : (column + 1) * TILE]
            np.testing.assert_allclose(tile, GREYS[plane] if plane in shown else 0, atol=3)
    heads = sheet[:LABEL_HEIGHT].reshape(LABEL_HEIGHT, len(PLANES), TILE)
    assert np.all(heads.max(axis=(0, 2)) > 200)  # each column has its name


def test_a_sheet_of_many_scans_shows_the_first(folders, tmp_path):
    write_preview(folders[1:2] * (ROWS + 3), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").height == LABEL_HEIGHT + ROWS * TILE
