"""Pictures of saliency as in Fig. 3 of the paper: the frame, where people looked, what models expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

DOTS_PER_INCH = 110
PANEL_INCHES = 2.0
HEAT = "inferno"
HEAT_OPACITY = 0.75


@dataclass(frozen=True)
class SaliencyRow:
    """One row of the picture.

    Args:
        title: what stands beside the row.
        frame: uint8 (height, width, 3).
        fixations: (n, 2) x, y in 0..1, drawn as points upon the gaze map.
        maps: column title to a non-negative map (height, width); the same titles in every row, the gaze map
            first.
    """

    title: str
    frame: np.ndarray
    fixations: np.ndarray
    maps: dict[str, np.ndarray]


def choose_frames(scan_ids: Sequence[str], times_s: Sequence[float], number: int) -> list[int]:
    """Frames to show: of scans evenly apart in the order of their names, the frame in each one's middle.

    Nothing else is looked at, so the choice tells neither for nor against a model. Where there are fewer
    scans than `number`, every scan gives one frame.

    Args:
        scan_ids: (frames,) the scan of each frame.
        times_s: (frames,) its time in the scan.
        number: how many to choose.

    Returns:
        positions in `scan_ids`.
    """
    scans = sorted(set(scan_ids))
    number = min(number, len(scans))
    chosen = [scans[(2 * place + 1) * len(scans) // (2 * number)] for place in range(number)]
    in_time = sorted(range(len(scan_ids)), key=lambda index: times_s[index])
    frames_of = {scan: [index for index in in_time if scan_ids[index] == scan] for scan in chosen}
    return [frames[len(frames) // 2] for frames in frames_of.values()]


def save_saliency(rows: Sequence[SaliencyRow], path: Path) -> None:
    """A row a frame: the frame alone, then each map as heat upon it, from nothing to the map's own maximum.

    Args:
        rows: at least one.
        path: PNG file to write.
    """
    titles = ["frame", *rows[0].maps]
    figure = Figure(
        figsize=(PANEL_INCHES * len(titles), (PANEL_INCHES + 0.15) * len(rows) + 0.25), layout="constrained"
    )
    panels = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize="medium")
    for panels_of_row, row in zip(panels, rows, strict=True):
        for axes in panels_of_row:
            axes.set(xticks=[], yticks=[])
        panels_of_row[0].imshow(row.frame)
        panels_of_row[0].set_ylabel(row.title, fontsize="small")
        for axes, density in zip(panels_of_row[1:], row.maps.values(), strict=True):
            axes.imshow(heat_upon(row.frame, density))
        height, width = row.frame.shape[:2]
        x, y = (row.fixations * [width, height] - 0.5).T
        panels_of_row[1].scatter(x, y, s=14, facecolors="none", edgecolors="white", linewidths=0.8)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def heat_upon(frame: np.ndarray, density: np.ndarray) -> np.ndarray:
    """The frame under a layer of heat that is the denser, the more likely a place is.

    Args:
        frame: uint8 (height, width, 3).
        density: non-negative (height, width).

    Returns:
        float (height, width, 3) in 0..1; a map of zeros leaves the frame as it is.
    """
    share = density / max(density.max(), np.finfo(np.float64).tiny)
    opacity = (HEAT_OPACITY * share)[..., None]
    return (1 - opacity) * frame / 255 + opacity * colormaps[HEAT](share)[..., :3]
