"""A contact sheet of simulated scans: a column a plane, a row a scan."""

import csv
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from .schema import BACKGROUND, PLANES

TILE = 128
LABEL_HEIGHT = 30
ROWS = 6


def write_preview(folders: Sequence[Path], file: Path) -> None:
    """Writes the sheet of the first scans' planes; a plane that a scan does not visit stays black."""
    rows = [plane_pictures(folder) for folder in folders[:ROWS]]
    sheet = Image.new("L", (TILE * len(PLANES), LABEL_HEIGHT + TILE * len(rows)))
    draw = ImageDraw.Draw(sheet)
    for column, plane in enumerate(PLANES):
        name = plane.removeprefix("heart_").replace("_", "\n", 1).replace("_", " ")
        draw.multiline_text(
            (TILE * column + TILE // 2, 2), name, fill=255, anchor="ma", align="center", spacing=0
        )
        for row, pictures in enumerate(rows):
            if plane in pictures:
                tile = Image.fromarray(pictures[plane]).resize((TILE, TILE))
                sheet.paste(tile, (TILE * column, LABEL_HEIGHT + TILE * row))
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def plane_pictures(folder: Path) -> dict[str, np.ndarray]:
    """Plane to the picture in the middle of its first hold; background is the first frame."""
    with (folder / "planes.csv").open(newline="", encoding="utf-8") as handle:
        visits = list(csv.DictReader(handle))
    wanted = {BACKGROUND: 0.0}
    for visit in visits:
        wanted.setdefault(visit["label"], (float(visit["start_s"]) + float(visit["end_s"])) / 2)
    pictures: dict[str, np.ndarray] = {}
    with av.open(str(folder / "scan.mp4")) as container:
        for frame in container.decode(video=0):
            due = [plane for plane, time_s in wanted.items() if frame.time >= time_s]
            for plane in due:
                pictures[plane] = frame.to_ndarray(format="gray")
                del wanted[plane]
            if not wanted:
                break
    return pictures
