"""The report of a preparation as one HTML page, to be read beside `OUT.<configuration>.report.json`.

It shows names, texts and pictures of the recordings, and is as private as these. It needs no script and no
other file, and holds nothing of the run itself: the same recordings give the same page.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from datasets_scripts.durable_files import written_aside
from datasets_scripts.preparation_report import PreparationReport, RecordingOutcome, coverage_in_words
from datasets_scripts.row_facts import RowFacts
from datasets_scripts.schema import BACKGROUND, PLANES

PICTURE_SIZE = 96
SHOWN_RECORDINGS = 200  # with a picture and a time line; a page of thousands would take minutes to open
LONGEST_TABLE = 5000
BINS = 10
LANE_HEIGHT = 15  # of a time line

STYLE = """
:root { color-scheme: light dark; --mark: #1f6fb2; --line: #8886; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .5rem; }
tr { border-top: 1px solid var(--line); } td { overflow-wrap: anywhere; } td p { margin: .2rem 0; }
td:nth-child(3) { white-space: nowrap; } li { overflow-wrap: anywhere; }
.private { border: 2px solid #c33; padding: .5rem .8rem; } .left { color: #c33; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 9px; fill: currentColor; }
svg .mark { fill: var(--mark); } svg .gaze { fill: #7a6ff0; } svg .base { stroke: var(--line); }
.legend { font-size: 12px; margin: .2rem 0; } .legend span { margin-right: .6rem; white-space: nowrap; }
svg.swatch { display: inline-block; width: .7em; }
figure { margin: 0 0 1rem; max-width: 34rem; } img { width: 96px; height: auto; }
@media (max-width: 40rem) {
  table, tbody, tr, td { display: block; } thead { display: none; } tr { padding: .5rem 0; }
}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class ShownRecording:
    """A recording on the page.

    `split` is empty where it was left out; `picture` is a file to show, as the contact sheet has it; None
    takes that of its first row.
    """

    outcome: RecordingOutcome
    split: str
    facts: RowFacts | None
    picture: Path | None = None


def write_page(report: PreparationReport, recordings: Sequence[ShownRecording], path: Path) -> None:
    """The page, whole or not at all.

    Args:
        report: of the preparation.
        recordings: in the order of the report.
        path: of the HTML file.
    """
    with written_aside(path) as aside:
        aside.write_text(page(report, recordings), encoding="utf-8")


def page(report: PreparationReport, recordings: Sequence[ShownRecording]) -> str:
    """The text of the page."""
    title = f"{report.config}: {len(report.recordings)} recordings"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        '<p class="private">This page names recordings and shows pictures of them: it is as private as they '
        "are. Keep it beside the data set, never in it.</p>",
        _summary(report),
        _charts(report, recordings),
        _table(recordings),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(report: PreparationReport) -> str:
    left_out = sum(1 for outcome in report.recordings if outcome.left_out)
    lines = [f"{len(report.recordings) - left_out} recordings were kept, {left_out} left out."]
    lines += [
        f"{rows} {report.row}s of {report.scans[split]} scans to {split}."
        for split, rows in report.rows.items()
    ]
    lines += [
        f"{split}: {_in_words(counts)}." for split, counts in report.counts.items() if any(counts.values())
    ]
    if covered := coverage_in_words(report.recordings):
        lines.append(f"Of what was kept: {covered}.")
    lines += [*report.notes, f"Hash of the rows: {report.data_hash}"]
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items() if number)


def _charts(report: PreparationReport, recordings: Sequence[ShownRecording]) -> str:
    charts, row = [], report.row
    for split in report.rows:
        facts = [each.facts for each in recordings if each.split == split and each.facts]
        speech = [share for each in facts for share in each.speech]
        labels = [label for each in facts for label in each.labels]
        fixations = [number for each in facts for number in each.fixations]
        if speech:
            heights = np.histogram(speech, bins=BINS, range=(0, 1))[0].tolist()
            names = [f"{number / BINS:.1f}" for number in range(BINS)]
            charts.append(_chart(f"{split}: {row}s by the share of speech in them", names, heights))
        if labels:
            names = sorted(set(labels))
            charts.append(_chart(f"{split}: {row}s by plane", names, [labels.count(name) for name in names]))
        if fixations:
            most = max(fixations)
            heights = np.bincount(fixations, minlength=most + 1).tolist()
            charts.append(_chart(f"{split}: {row}s by fixations", [str(n) for n in range(most + 1)], heights))
    return "\n".join(charts)


def _chart(title: str, names: Sequence[str], heights: Sequence[int]) -> str:
    """Horizontal bars, a name and a number each."""
    longest, bars = max([1, *heights]), []
    for place, (name, height) in enumerate(zip(names, heights, strict=True)):
        y = 14 * place
        bars.append(
            f'<text x="0" y="{y + 9}">{escape(name)}</text>'
            f'<rect class="mark" x="130" y="{y + 1}" width="{170 * height / longest:.1f}" height="10"/>'
            f'<text x="{134 + 170 * height / longest:.1f}" y="{y + 9}">{height}</text>'
        )
    size = f"0 0 340 {14 * len(names)}"
    picture = f'<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{"".join(bars)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{picture}</figure>"


def _table(recordings: Sequence[ShownRecording]) -> str:
    heads = ("", "recording", "split", "kept", "what was found, and why it was left out")
    rows = [
        _table_row(each, number < SHOWN_RECORDINGS) for number, each in enumerate(recordings[:LONGEST_TABLE])
    ]
    more = ""
    if len(recordings) > SHOWN_RECORDINGS:
        more = f"<p>Pictures and time lines are of the first {SHOWN_RECORDINGS} recordings.</p>"
    if len(recordings) > LONGEST_TABLE:
        more += f"<p>{len(recordings) - LONGEST_TABLE} more recordings stand in the JSON report alone.</p>"
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def _table_row(recording: ShownRecording, is_shown: bool) -> str:
    outcome = recording.outcome
    said = (coverage_in_words([outcome]), _in_words(outcome.counts))
    found = [f"<p>{escape(words)}</p>" for words in said if words]
    if outcome.texts:
        found.append(f"<p>read on its pictures: {escape(', '.join(outcome.texts))}</p>")
    if outcome.left_out:
        found.append(f'<p class="left">{escape(outcome.error or "")}: {escape(outcome.left_out)}</p>')
    if is_shown and recording.facts:
        found.append(_time_line(outcome, recording.facts))
    picture = _picture(recording) if is_shown else ""
    cells = (
        picture,
        f"{escape(outcome.name)}<br><small>{escape(outcome.scan_id)}</small>",
        escape(recording.split) if not outcome.left_out else '<span class="left">left out</span>',
        str(outcome.rows),
        "".join(found),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _time_line(outcome: RecordingOutcome, facts: RowFacts) -> str:
    """From the first frame to the recording's end: where the rows were taken, and below that, where there are
    any, the planes and the gaze. Clips with little speech are pale."""
    ends_s = [start_s + seconds for start_s, seconds in zip(facts.start_s, facts.seconds, strict=True)]
    end_s = max([outcome.duration_s or 0, *ends_s])
    if end_s <= 0:
        return ""
    lanes = [(f"{end_s:.0f} s", _row_marks(facts, end_s))]
    if outcome.planes:
        lanes.append(("planes", "".join(_plane_mark(*interval, end_s) for interval in outcome.planes)))
    if outcome.gaze:
        gaze = (_mark("gaze", start, end - start, end_s) for start, end in outcome.gaze)
        lanes.append(("gaze", "".join(gaze)))
    drawn = [
        f'<g transform="translate(0 {LANE_HEIGHT * lane})">{marks}<text x="604" y="11">{name}</text>'
        '<line class="base" x1="0" x2="600" y1="13" y2="13"/></g>'
        for lane, (name, marks) in enumerate(lanes)
    ]
    label, height = f"time line of {end_s:.0f} s", LANE_HEIGHT * len(lanes)
    picture = f'<svg viewBox="0 0 640 {height}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'
    return picture + _legend(outcome.planes)


def _row_marks(facts: RowFacts, end_s: float) -> str:
    marks = []
    for place, (start_s, seconds) in enumerate(zip(facts.start_s, facts.seconds, strict=True)):
        opacity = 0.2 + 0.8 * facts.speech[place] if facts.speech else 0.8
        title = facts.labels[place] if facts.labels else ""
        marks.append(_mark("mark", start_s, seconds, end_s, f'fill-opacity="{opacity:.2f}"', title))
    return "".join(marks)


def _plane_mark(start_s: float, end_s: float, label: str, whole_s: float) -> str:
    return _mark("plane", start_s, end_s - start_s, whole_s, f'fill="{_colour(label)}"', label)


def _mark(kind: str, start_s: float, seconds: float, end_s: float, look: str = "", title: str = "") -> str:
    """A bar in a time line that ends at `end_s`; whoever points at it is told its title."""
    told = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect class="{kind}" x="{600 * start_s / end_s:.1f}" y="2" height="10" '
        f'width="{max(1.5, 600 * seconds / end_s):.1f}" {look}>{told}</rect>'
    )


def _legend(planes: Sequence[tuple[float, float, str]]) -> str:
    """Each plane in its colour, and how long it is on the screen."""
    shown = {label for *_, label in planes}
    seconds = {label: 0.0 for label in PLANES if label in shown}
    for start_s, end_s, label in planes:
        seconds[label] += end_s - start_s
    words = (
        '<span><svg class="swatch" viewBox="0 0 10 10">'
        f'<rect width="10" height="10" fill="{_colour(label)}"/></svg> '
        f"{escape(label.replace('_', ' '))} {lasting_s:.0f} s</span>"
        for label, lasting_s in seconds.items()
    )
    return f'<p class="legend">{" ".join(words)}</p>' if seconds else ""


def _colour(plane: str) -> str:
    """Of a plane, one of as many hues as there are planes; the background is grey."""
    number = PLANES.index(plane)
    return f"hsl({360 * number // len(PLANES)} {0 if plane == BACKGROUND else 65}% 50%)"


def _picture(recording: ShownRecording) -> str:
    source = recording.picture or (recording.facts and recording.facts.picture)
    if not source:
        return ""
    with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
        small = image.convert("RGB")
        small.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
        file = io.BytesIO()
        small.save(file, format="JPEG", quality=80)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="a frame of {escape(recording.outcome.name)}">'
