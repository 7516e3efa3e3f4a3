"""The picture of saliency: which frames it shows, and what the heat upon them is."""

from pathlib import Path

import numpy as np
from PIL import Image

from train.saliency_pictures import HEAT_OPACITY, SaliencyRow, choose_frames, heat_upon, save_saliency


def test_frames_are_of_different_scans_evenly_apart() -> None:
    scan_ids = [f"scan{number:02}" for number in range(12) for _ in range(5)]
    times_s = [4.0, 1.0, 0.0, 3.0, 2.0] * 12
    chosen = choose_frames(scan_ids, times_s, 4)
    assert [scan_ids[index] for index in chosen] == ["scan01", "scan04", "scan07", "scan10"]
    assert [times_s[index] for index in chosen] == [2.0] * 4


def test_every_scan_gives_one_frame_where_there_are_few() -> None:
    assert choose_frames(["b", "a", "b", "b"], [3.0, 0.0, 2.0, 1.0], 6) == [1, 2]


def test_the_order_of_the_rows_does_not_choose_the_frames() -> None:
    scan_ids, times_s = [f"scan{number % 9}" for number in range(27)], [float(n) for n in range(27)]
    forwards = {(scan_ids[i], times_s[i]) for i in choose_frames(scan_ids, times_s, 3)}
    scan_ids, times_s = scan_ids[::-1], times_s[::-1]
    assert forwards == {(scan_ids[i], times_s[i]) for i in choose_frames(scan_ids, times_s, 3)}


def test_heat_is_densest_where_the_map_is_highest() -> None:
    frame = np.full((4, 4, 3), 51, dtype=np.uint8)
    density = np.zeros((4, 4))
    density[1, 2], density[3, 3] = 0.02, 0.01
    heated = heat_upon(frame, density)
    np.testing.assert_allclose(heated[0, 0], 0.2)
    changed = np.abs(heated - 0.2).sum(axis=2)
    assert np.unravel_index(changed.argmax(), changed.shape) == (1, 2) and (changed > 0).sum() == 2
    np.testing.assert_allclose(heated, heat_upon(frame, 7 * density))
    assert heated.min() >= 0 and heated.max() <= 1 and HEAT_OPACITY < 1


def test_a_map_of_zeros_leaves_the_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_allclose(heat_upon(frame, np.zeros((4, 5))), frame / 255)


def test_the_picture_shows_a_row_a_frame(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    maps = {name: chance.random((32, 32)) for name in ("gaze", "model", "random")}
    frame = chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    rows = [SaliencyRow(f"scan {row}", frame, np.array([[0.5, 0.5]]), maps) for row in range(2)]
    save_saliency(rows, tmp_path / "two.png")
    save_saliency(rows[:1], tmp_path / "one.png")
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.width == one.width and two.height > 1.5 * one.height
        assert len(two.convert("L").getcolors(256)) > 50
