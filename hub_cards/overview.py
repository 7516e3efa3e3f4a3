"""Draws what DualRep does, the first picture of the README.

python -m hub_cards.overview
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Wedge

PICTURE = Path(__file__).with_name("pictures") / "overview.png"
DOTS_PER_INCH = 150
WIDTH, HEIGHT = 12.0, 4.6  # inches, and the units of all places
ROWS = (3.35, 2.05, 0.75)  # heights of the middles of the three rows
VIDEO, SPEECH, FRAME, SPACE, TASKS = "#4878a8", "#c77f2a", "#4a9a6a", "#eef0f4", "#7a5c9c"
INPUTS = (("video", "a clip of the scan"), ("speech", "what is said over it"), ("frame", "one picture"))
TOWERS = (("video tower", "R(2+1)D-18"), ("speech tower", "CNN14"), ("image tower", "ResNet18"))
USES = (
    ("standard planes", "fine-tuned: which plane it is"),
    ("gaze", "fine-tuned: where one looks"),
    ("search by speech", "the moments that fit a remark"),
)


def save_overview(path: Path) -> None:
    """Video, speech and frame through three towers into one space, and what is made of it, as a PNG."""
    overview_figure().savefig(path, dpi=DOTS_PER_INCH)


def overview_figure() -> Figure:
    """The drawing; nothing in it is measured."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
    axes.axis("off")
    _box(axes, 3.05, 0.1, 5.65, 4.4, SPACE, edge="#c4c9d4")
    axes.text(5.875, 4.22, "pretraining, without labels", ha="center", va="center", color="#444444")
    for icon, height, color, title in zip((_clip, _sound, _sector), ROWS, _colors(), INPUTS, strict=True):
        icon(axes, 0.84, height, color)
        _titled(axes, 1.53, height, *title, align="left")
    for height, color, title in zip(ROWS, _colors(), TOWERS, strict=True):
        _arrow(axes, (2.9, height), (3.3, height))
        _box(axes, 3.3, height - 0.42, 1.9, 0.84, color)
        _titled(axes, 4.25, height, *title, color="white")
        _arrow(axes, (5.2, height), (5.95 - 0.1 * (height == ROWS[1]), (height + ROWS[1]) / 2))
    _space(axes, 7.1, ROWS[1])
    for height, title in zip(ROWS, USES, strict=True):
        _arrow(axes, (8.7, ROWS[1] + (height - ROWS[1]) * 0.6), (9.1, height))
        _box(axes, 9.1, height - 0.42, 2.75, 0.84, TASKS)
        _titled(axes, 10.475, height, *title, color="white")
    return figure


def _colors() -> tuple[str, str, str]:
    return VIDEO, SPEECH, FRAME


def _box(axes: Axes, x: float, y: float, width: float, height: float, color: str, edge: str = "none") -> None:
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.1", facecolor=color, edgecolor=edge
    )
    axes.add_patch(shape)


def _titled(
    axes: Axes, x: float, y: float, title: str, below: str, color: str = "#222222", align: str = "center"
) -> None:
    style = {"ha": align, "va": "center", "color": color}
    axes.text(x, y + 0.15, title, fontsize=12, fontweight="bold", **style)
    axes.text(x, y - 0.16, below, fontsize=9.5, **style)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color="#555555", lw=1.4))


def _sector(axes: Axes, x: float, y: float, color: str) -> None:
    """What a convex probe shows: a dark sector with echoes."""
    apex = (x, y + 0.55)
    axes.add_patch(Wedge(apex, 1.05, 235, 305, width=0.8, facecolor="#1c2026", edgecolor=color, lw=2))
    random = np.random.default_rng(1)
    angles, depths = np.radians(random.uniform(240, 300, 90)), random.uniform(0.32, 0.98, 90)
    places = apex[0] + depths * np.cos(angles), apex[1] + depths * np.sin(angles)
    axes.scatter(*places, s=random.uniform(0.5, 5, 90), color="#c9ced6", linewidths=0, zorder=3)
    axes.add_patch(Circle((x, y - 0.1), 0.16, fill=False, edgecolor="#e6e9ee", lw=1.6, zorder=4))


def _clip(axes: Axes, x: float, y: float, color: str) -> None:
    """Several frames, the last in front."""
    for shift in (-0.16, -0.08):
        back = {"facecolor": "#5a616c", "edgecolor": color, "lw": 1.2, "width": 0.8}
        axes.add_patch(Wedge((x + shift, y + 0.55 - shift / 2), 1.05, 235, 305, **back))
    _sector(axes, x, y, color)


def _sound(axes: Axes, x: float, y: float, color: str) -> None:
    """Words, with a pause."""
    place = np.linspace(-1, 1, 31)
    loud = np.abs(np.sin(7 * place) * np.cos(2.3 * place)) + 0.06
    axes.vlines(x + 0.55 * place, y - 0.38 * loud, y + 0.38 * loud, color=color, lw=2.2)


def _space(axes: Axes, x: float, y: float) -> None:
    """One space: what belongs together lies together."""
    axes.add_patch(Circle((x, y), 1.28, facecolor="white", edgecolor="#9aa2b1", lw=1.4))
    for across, up in ((-0.62, 0.45), (0.5, 0.62), (0.68, -0.3), (-0.3, -0.55)):
        for (right, above), color, marker in zip(
            ((-0.1, 0), (0.1, 0.04), (0, -0.14)), _colors(), "os^", strict=True
        ):
            axes.scatter(x + across + right, y + up + above, s=42, color=color, marker=marker, zorder=3)
    axes.text(x, y + 0.02, "shared\nembeddings", ha="center", va="center", fontsize=11, fontweight="bold")
    told = "what belongs together\ncomes together"
    axes.text(x, y - 1.56, told, ha="center", va="center", fontsize=9.5, color="#444444")


def main() -> int:
    """Writes the picture anew."""
    save_overview(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
