"""Recordings with text on the sector itself: reported, blanked, left out, or not looked for."""

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from test_sector_preparation import HEIGHT, WIDTH, pictures, write_scan

from datasets_scripts.burned_in_text import find_text
from datasets_scripts.contact_sheet import RED
from datasets_scripts.one_recording import look_for_text
from datasets_scripts.prepare_planes import PlaneParameters, main, prepare_planes
from datasets_scripts.recordings import RecordingFiles, open_recording
from datasets_scripts.sector import crop_to_sector

NAME, PLACE = "DOE JANE", (90, 120)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """A clean one, one with a name on its sector, and one of one grey with a crop."""
    folder, clean = tmp_path_factory.mktemp("recordings"), pictures()[:40]
    write_scan(folder / "clean", clean)
    write_scan(folder / "grey", [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 40, crop=(100, 60, 200, 120))
    named = [Image.fromarray(frame) for frame in clean]
    for picture in named:
        ImageDraw.Draw(picture).text(PLACE, NAME, "white", ImageFont.load_default(20), stroke_width=1)
    write_scan(folder / "named", [np.asarray(picture) for picture in named])
    return folder


@pytest.fixture
def prepare(recordings, tmp_path) -> Callable[[str], tuple]:
    """Prepares the recordings: the outcomes by name, and the set."""

    def run(text: str) -> tuple[dict, Path]:
        parameters = PlaneParameters(frame_size=240, sector="found", text=text, validation_fraction=0)
        output = tmp_path / text / "set"
        report = prepare_planes(recordings, output, parameters, workers=1, sheet=output.parent / "sheet.png")
        return {outcome.name: outcome for outcome in report.recordings}, output

    return run


def texts_of(output: Path, scan_id: str) -> list[str]:
    rows = [row for shard in sorted(output.rglob("*.parquet")) for row in pq.read_table(shard).to_pylist()]
    stored = (row["image"]["bytes"] for row in rows if row["scan_id"] == scan_id)
    frames = np.stack([np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")) for raw in stored])
    return [text.text.replace(" ", "") for text in find_text(frames)]


def has_red_box(output: Path) -> bool:
    return bool((np.asarray(Image.open(output.parent / "sheet.png")) == RED).all(axis=-1).any())


def test_text_is_reported_beside_the_set_and_not_in_it(prepare):
    outcomes, output = prepare("report")
    named = outcomes["named"]
    assert named.counts["texts_on_sector"] == 1 and "".join(named.texts).replace(" ", "") == "DOEJANE"
    assert outcomes["clean"].texts == () and "texts_on_sector" not in outcomes["clean"].counts
    assert has_red_box(output) and texts_of(output, named.scan_id) == ["DOEJANE"]
    report = json.loads((output.parent / "set.planes.report.json").read_text())
    assert any("DOE" in text for each in report["recordings"] for text in each["texts"])
    assert report["counts"]["train"]["texts_on_sector"] == 1
    assert not any(
        b"DOE" in path.read_bytes() for path in output.rglob("*") if path.suffix in {".md", ".json"}
    )


def test_text_is_blanked(prepare):
    outcomes, output = prepare("blank")
    assert outcomes["named"].texts and outcomes["named"].rows == outcomes["clean"].rows
    assert texts_of(output, outcomes["named"].scan_id) == []
    assert has_red_box(output)


def test_recordings_with_text_are_left_out(prepare):
    outcomes, _ = prepare("leave_out")
    named = outcomes["named"]
    assert (named.rows, named.error) == (0, "TextOnSectorError") and named.texts
    assert named.left_out.startswith("named: text lies on what would be kept")
    assert outcomes["clean"].rows > 0


def test_text_is_not_looked_for(prepare):
    outcomes, output = prepare("ignore")
    assert not any(outcome.texts for outcome in outcomes.values()) and not has_red_box(output)


def test_a_crop_without_a_sector_is_counted(prepare):
    outcomes, _ = prepare("ignore")
    assert outcomes["grey"].counts["crops_without_a_sector"] == 1
    assert "crops_without_a_sector" not in outcomes["clean"].counts


@pytest.mark.media
def test_a_header_that_a_still_picture_keeps_is_blanked(media):
    """One frame does not move, so that the name of a hospital above the sector is taken for a part of it."""
    file = media / "ultrasound_dicom" / "examples_rgb_color.dcm"
    recording = open_recording(RecordingFiles(file.name, file))
    (picture,) = recording.sampled_frames()
    kept = crop_to_sector(picture, recording.area("found"))
    assert "BAPTIST" in " ".join(text.text for text in find_text(kept))
    counts = Counter()
    assert len(look_for_text(recording, "found", "blank", counts)) == counts["texts_on_sector"] > 10
    assert find_text(crop_to_sector(picture, recording.area("found"))) == []


def test_the_command_blanks_and_tells_text_unless_it_is_told_otherwise(recordings, tmp_path, capsys):
    command = [str(recordings), str(tmp_path / "set"), "--workers", "1", "--frame-size", "240"]
    assert main(command) == 0
    assert "texts_on_sector 1" in capsys.readouterr().out
    report = json.loads((tmp_path / "set.planes.report.json").read_text())
    (named,) = (each for each in report["recordings"] if each["texts"])
    assert texts_of(tmp_path / "set", named["scan_id"]) == []
    assert main([str(recordings), str(tmp_path / "set"), "--text", "shout"]) == 2
    assert "text is shout; it must be report or blank or leave_out or ignore." in capsys.readouterr().err
