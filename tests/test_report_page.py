"""The page of a preparation's report: every recording, nothing from outside, the same page each time."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tiny_recordings import write_video

from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation_report import PreparationReport, RecordingOutcome
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.report_page import SHOWN_RECORDINGS, ShownRecording, page
from datasets_scripts.row_facts import RowFacts

VOID = {"meta", "img", "br"}


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
