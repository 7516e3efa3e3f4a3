"""The page of a preparation's report: every recording, nothing from outside, the same page each time."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tiny_recordings import write_video

from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation_report import PreparationReport, RecordingOutcome, read_report
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.prepare_gaze import GazeParameters, prepare_gaze
from datasets_scripts.prepare_planes import PlaneParameters, prepare_planes
from datasets_scripts.report_page import SHOWN_RECORDINGS, ShownRecording, page
from datasets_scripts.row_facts import RowFacts

VOID = {"meta", "img", "br"}
GAZE_S = ((0.0, 3.0), (5.0, 8.0))


class Page(HTMLParser):
    """Its text, the addresses that it names, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts, self.addresses, self.open, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def report_of(outcomes: list[RecordingOutcome]) -> PreparationReport:
    rows, scans = {"train": 3, "validation": 0}, {"train": 1, "validation": 0}
    return PreparationReport("large", "clip", "f" * 64, rows, scans, {"train": {}}, (), tuple(outcomes))


def test_names_and_texts_are_shown_and_never_run() -> None:
    name = "<script>alert(1)</script>"
    left_out = RecordingOutcome(name, "a" * 16, "b" * 16, 0, {}, f"{name}: cut short.", "TruncatedError")
    kept = RecordingOutcome("b.mp4", "c" * 16, "d" * 16, 3, {"clips_below_speech": 2}, texts=("<b>Jane</b>",))
    facts = RowFacts((0.0, 2.0, 4.0), (2.0,) * 3, speech=(0.0, 0.55, 1.0))
    shown = [ShownRecording(left_out, "", None), ShownRecording(kept, "train", facts)]
    text = page(report_of([left_out, kept]), shown)
    read = Page(text)
    assert "script" not in read.tags and "b" not in read.tags and not read.open
    whole = " ".join(read.texts)
    for said in (name, "TruncatedError", "clips below speech 2", "<b>Jane</b>", "6 s"):
        assert said in whole
    assert text.count('class="mark"') == 3 + 10, "a mark a clip, a bar a tenth of speech"


def test_only_so_many_are_drawn_and_all_are_listed() -> None:
    facts = RowFacts((0.0,), (2.0,))
    outcomes = [RecordingOutcome(f"{n}.mp4", f"{n:016x}", "p", 1, {}) for n in range(SHOWN_RECORDINGS + 5)]
    read = Page(page(report_of(outcomes), [ShownRecording(each, "train", facts) for each in outcomes]))
    assert read.tags.count("svg") == SHOWN_RECORDINGS
    assert read.tags.count("tr") == 1 + len(outcomes)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "in" / name, times_s=np.arange(0, 3, 0.1))
    (tmp_path / "in" / "empty.mp4").touch()
    prepare_clips(tmp_path / "in", tmp_path / "set", ClipParameters(clip_seconds=1.0), workers=1)
    return tmp_path


def test_a_preparation_leaves_its_page_which_needs_nothing_else(prepared: Path) -> None:
    text = (prepared / "set.clips_1s.report.html").read_text()
    read = Page(text)
    report = json.loads((prepared / "set.clips_1s.report.json").read_text())
    for outcome in report["recordings"]:
        assert outcome["name"] in " ".join(read.texts) and outcome["scan_id"] in read.texts
    assert read.tags.count("img") == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in read.addresses)
    assert "url(" not in text and "http-equiv" in text and str(prepared) not in text
    assert not list((prepared / "set").rglob("*.html"))


def bars_of(text: str, kind: str) -> list[tuple[float, float]]:
    """Left and right of each bar of a kind in the time lines, which are 600 wide."""
    found = re.findall(rf'<rect class="{kind}" x="([\d.]+)" y="2" height="10" width="([\d.]+)"', text)
    return [(float(left), float(left) + float(width)) for left, width in found]


def test_a_time_line_ends_where_the_recording_does_and_shows_planes_and_gaze() -> None:
    planes = [(0.0, 2.0, "femur"), (4.0, 8.0, "abdomen"), (7.0, 9.0, "background")]
    of_video = {"duration_s": 10.0, "planes": planes, "gaze": [list(span) for span in GAZE_S]}
    outcome = RecordingOutcome("a.mp4", "c" * 16, "d" * 16, 2, {}, **of_video)
    text = page(report_of([outcome]), [ShownRecording(outcome, "train", RowFacts((0.0, 2.0), (2.0, 2.0)))])
    read = Page(text)
    assert not read.open and "10 s" in read.texts
    assert bars_of(text, "mark") == [(0, 120), (120, 240)]
    assert bars_of(text, "plane") == [(0, 120), (240, 480), (420, 540)]
    assert bars_of(text, "gaze") == [(0, 180), (300, 480)]
    assert "10 s recorded, planes 70%, gaze 60%" in read.texts
    assert "Of what was kept: 10 s recorded, planes 70%, gaze 60%." in read.texts
    assert [each.strip() for each in read.texts if " s" in each and each.startswith(" ")] == [
        "abdomen 4 s",
        "femur 2 s",
        "background 2 s",
    ], "in the order of the planes"
    colours = re.findall(r'class="plane".*?fill="(hsl.*?)"', text)
    assert len(set(colours)) == 3 and "0%" in colours[2]


def test_without_a_known_length_it_ends_with_the_last_row() -> None:
    outcome = RecordingOutcome("a.mp4", "c" * 16, "d" * 16, 1, {})
    text = page(report_of([outcome]), [ShownRecording(outcome, "train", RowFacts((2.0,), (2.0,)))])
    assert bars_of(text, "mark") == [(300, 600)] and "recorded" not in text


def test_planes_gaze_and_length_come_from_the_recordings_files(tmp_path: Path) -> None:
    """Rows of planes end long before the recording does, and the gaze is of another preparation's concern."""
    folder = tmp_path / "in" / "scan"
    write_video(folder / "scan.mp4", times_s=np.arange(0, 10, 0.1))
    (folder / "planes.csv").write_text("start_s,end_s,label\n0.5,2.5,femur\n8,30,abdomen\n")
    (folder / "gaze.csv").write_text(gaze_csv())
    prepare_planes(tmp_path / "in", tmp_path / "set", PlaneParameters(validation_fraction=0), workers=1)
    report = read_report(tmp_path / "set.planes.report.json")
    (outcome,) = report.recordings
    assert outcome.duration_s == pytest.approx(10.0, abs=0.1)
    assert outcome.planes == ((0.5, 2.5, "femur"), (8.0, outcome.duration_s, "abdomen"))
    assert np.abs(np.array(outcome.gaze) - GAZE_S).max() < 0.05
    assert "Of what was kept: 10 s recorded, planes 40%, gaze 60%." in report.summary()
    text = (tmp_path / "set.planes.report.html").read_text()
    assert len(bars_of(text, "plane")) == 2 and len(bars_of(text, "gaze")) == 2
    assert "planes by plane" not in text and "frames by plane" in text


def gaze_csv() -> str:
    """60 samples a second; blinks of 0.2 s, a look beside the picture, and times before the video."""
    rows = ["time_s,x,y"]
    for number in range(-30, 481):
        time_s, is_blink = number / 60, 6 <= number % 60 < 18
        place = "," if is_blink else "1.5,0.5" if 3 < time_s < 5 else "0.5,0.5"
        rows.append(f"{time_s:.4f},{place}")
    return "\n".join(rows) + "\n"


def test_a_page_of_gaze_draws_its_fixations(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "scan"
    write_video(folder / "scan.mp4", times_s=np.arange(0, 6, 0.1))
    rows = [f"{number / 60:.4f},0.5,0.5" for number in range(240)]
    (folder / "gaze.csv").write_text("\n".join(["time_s,x,y", *rows]) + "\n")
    prepare_gaze(tmp_path / "in", tmp_path / "set", GazeParameters(validation_fraction=0), workers=1)
    text = (tmp_path / "set.gaze.report.html").read_text()
    assert "train: frames by fixations" in text and not Page(text).open
    ((left, right),) = bars_of(text, "gaze")
    assert left == 0 and right == pytest.approx(600 * 4 / 6, abs=5)
    assert "6 s recorded, gaze 67%" in Page(text).texts


def test_files_beside_the_video_that_cannot_be_read_cover_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "scan"
    write_video(folder / "scan.mp4", times_s=np.arange(0, 3, 0.1))
    (folder / "planes.csv").write_text("nothing of the kind")
    (folder / "gaze.csv").write_text("nothing of the kind")
    prepare_clips(tmp_path / "in", tmp_path / "set", ClipParameters(1.0, validation_fraction=0), workers=1)
    (outcome,) = read_report(tmp_path / "set.clips_1s.report.json").recordings
    assert (outcome.rows, outcome.planes, outcome.gaze) == (3, (), ())
    assert outcome.duration_s == pytest.approx(3.0, abs=0.1)
