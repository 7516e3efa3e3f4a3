"""The picture of a timeline: the probability of each plane over time, true intervals, the best frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from train.timeline import BestFrame, Timeline

DOTS_PER_INCH = 110
WIDTH_INCHES = 12.0
ROW_INCHES, THUMBNAIL_INCHES = 0.26, 1.9
COLUMNS = 1500  # about as many as the picture has pixels: more would be drawn over each other
THUMBNAILS_A_ROW = 7
TRUTH_COLOUR, BEST_COLOUR = "deepskyblue", "white"


def save_timeline_picture(timeline: Timeline, path: Path) -> None:
    """Draws planes over time, a row each, brighter where likelier, and below the numbered best frames.

    Intervals of planes.csv are outlined. A plane that the model does not know has no row, and is not drawn.

    Args:
        timeline: what to draw.
        path: PNG file to write.
    """
    rows_of_frames = -(-len(timeline.best_frames) // THUMBNAILS_A_ROW)
    heights = [1.2 + ROW_INCHES * len(timeline.planes), THUMBNAIL_INCHES * rows_of_frames]
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    axes = above.subplots()
    _draw_probabilities(axes, timeline)
    _draw_truth(axes, timeline)
    by_time = sorted(timeline.best_frames, key=lambda best: best.time_s)
    for number, best in enumerate(by_time, start=1):
        place = (best.time_s, timeline.planes.index(best.plane))
        axes.plot(*place, marker="o", markersize=11, color=BEST_COLOUR, markeredgecolor="black")
        axes.annotate(str(number), place, ha="center", va="center", fontsize=7)
    _draw_best_frames(below, by_time, rows_of_frames)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def column_edges(times_s: np.ndarray) -> np.ndarray:
    """(rows + 1,) borders half way between neighbouring times; the outermost as far out as the next within.

    A single time gets a second around it.
    """
    if len(times_s) == 1:
        return times_s[0] + np.array([-0.5, 0.5])
    middles = (times_s[:-1] + times_s[1:]) / 2
    first, last = 2 * times_s[0] - middles[0], 2 * times_s[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])


def at_most(columns: int, edges: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with neighbouring rows joined until few enough are left; the highest probability stays.

    Args:
        columns: how many may be left.
        edges: (rows + 1,) borders of the rows.
        probabilities: (rows, planes).
    """
    if len(probabilities) <= columns:
        return edges, probabilities
    starts = np.linspace(0, len(probabilities), columns, endpoint=False).astype(int)
    return edges[[*starts, -1]], np.maximum.reduceat(probabilities, starts, axis=0)


def _draw_probabilities(axes: Axes, timeline: Timeline) -> None:
    edges, probabilities = at_most(COLUMNS, column_edges(timeline.times_s), timeline.probabilities)
    rows = np.arange(len(timeline.planes) + 1) - 0.5
    mesh = axes.pcolormesh(edges, rows, probabilities.T, cmap="magma", vmin=0, vmax=1)
    axes.figure.colorbar(mesh, ax=axes, label="probability", shrink=0.8, pad=0.01)
    names = [plane.replace("_", " ") for plane in timeline.planes]
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.hlines(rows[1:-1], edges[0], edges[-1], color="grey", linewidth=0.3)
    axes.invert_yaxis()
    axes.set_xlim(edges[0], edges[-1])
    axes.set(xlabel="time (s)")


def _draw_truth(axes: Axes, timeline: Timeline) -> None:
    title = "Planes along the recording; numbers: best frames"
    if timeline.intervals is not None:
        title += "; outlined: planes.csv"
    axes.set_title(title, fontsize="medium")
    for interval in timeline.intervals or ():
        if interval.label in timeline.planes:
            corner = (interval.start_s, timeline.planes.index(interval.label) - 0.5)
            width = interval.end_s - interval.start_s
            axes.add_patch(Rectangle(corner, width, 1, fill=False, edgecolor=TRUTH_COLOUR, linewidth=1.6))


def _draw_best_frames(figure: SubFigure, by_time: Sequence[BestFrame], rows: int) -> None:
    panels = figure.subplots(rows, THUMBNAILS_A_ROW, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for number, (panel, best) in enumerate(zip(panels, by_time, strict=False), start=1):
        panel.imshow(best.pixels)
        name = best.plane.replace("_", " ")
        panel.set_title(f"{number}: {name}\n{best.time_s:.1f} s, {best.probability:.0%}", fontsize=7)
