"""The page: a scan is chosen at the top, and three tabs show what the models make of it.

Pictures are written into the page itself: none lies in a cache on the disk, and each has a text that says
what it shows.
"""

import base64
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hub_cards.space.analysis import (
    REFUSALS,
    Analysis,
    ScanError,
    analyse,
    find_sound,
    find_text,
    saliency_upon,
    simulated_scan,
)
from hub_cards.space.models import Models
from train.search import Hit
from train.search_model import SearchModel
from train.search_queries import Query
from train.timeline import Timeline
from train.timeline_picture import save_timeline_picture

TITLE = "DualRep: what an ultrasound scan shows, and what is said to it"
INTRODUCTION = (
    f"# {TITLE}\nResearch software, **not a medical device**: nothing here may be used for diagnosis. "
    "The tab Limits says what else it is not."
)
CHOOSE_FIRST = "Choose a scan first: a file of your own, or a simulated one."
SESSION_SECONDS = 3600
# Screen readers read out what changes in a region that was there before; one that comes with its text may
# stay unread.
READ_OUT = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite');"
ABOUT = Path(__file__).with_name("about.md")
STYLE = """
.gradio-container { max-width: 1100px !important; margin: auto !important; }
.said { padding: 0.7rem 1rem; border-left: 4px solid #1d4ed8; background: #eff6ff; color: #172554; }
.said.refused { border-color: #b91c1c; background: #fef2f2; color: #7f1d1d; }
.said p { margin: 0.2rem 0; overflow-wrap: anywhere; }
.wide { contain: inline-size; overflow-x: auto; }
.wide img { min-width: 760px; width: 100%; max-width: none; }
.wide table { margin-top: 1rem; border-collapse: collapse; }
.wide th, .wide td { padding: 0.3rem 0.6rem; border: 1px solid #d1d5db; text-align: left; }
.wide td { white-space: nowrap; }
.frames { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 0.8rem; }
.frames.large { grid-template-columns: repeat(auto-fit, minmax(280px, 400px)); }
.frames figure { margin: 0; }
.frames img { width: 100%; border-radius: 4px; }
.frames figcaption { font-size: 0.9rem; }
.or { color: #4b5563 !important; }
"""


@dataclass(frozen=True)
class Session:
    """What one visitor's page shows; `folder` holds the index and is removed with it."""

    analysis: Analysis
    folder: Path

    def close(self) -> None:
        """Forgets what lies on the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Answers:
    """What the page says to each press of a button.

    Args:
        models: what is there.
        private: folder for what is kept while it is needed; it belongs to the app alone.
        longest_seconds: longer scans are refused.
    """

    def __init__(self, models: Models, private: Path, longest_seconds: float) -> None:
        self.models, self.private, self.longest_seconds = models, private, longest_seconds

    def uploaded(self, upload: str | None, session: Session | None) -> tuple[Session | None, str]:
        """Analyses an upload, which is removed whatever comes of it."""
        return self._analysed(lambda folder: _taken(upload, folder), session)

    def simulated(self, number: float, session: Session | None) -> tuple[Session | None, str]:
        """Makes a scan and analyses it."""
        return self._analysed(lambda folder: simulated_scan(number, folder), session)

    def _analysed(
        self, scan_in: Callable[[Path], Path], session: Session | None
    ) -> tuple[Session | None, str]:
        """The new session and what is said; a refused scan leaves none."""
        if session is not None:
            session.close()
        kept = Path(tempfile.mkdtemp(prefix="session_", dir=self.private))
        try:
            with tempfile.TemporaryDirectory(prefix="scan_", dir=self.private) as folder:
                scan = scan_in(Path(folder))
                analysis = analyse(scan, self.models, kept, self.longest_seconds)
        except REFUSALS as error:
            shutil.rmtree(kept)
            return None, refused(error)
        except BaseException:
            shutil.rmtree(kept)
            raise
        seconds = max(1, len(analysis.pictures) - 1)  # the first picture is that of 0 s
        return Session(analysis, kept), said(
            f"The scan of about {seconds} s was read, and its file was removed.", *analysis.notes
        )

    def timeline(self, session: Session | None) -> str:
        """Planes over time."""
        if self.models.classifier is None:
            return said(self.models.missing["planes"])
        if session is None:
            return said(CHOOSE_FIRST)
        if session.analysis.timeline is None:
            return said(*session.analysis.notes)
        with tempfile.TemporaryDirectory(prefix="picture_", dir=self.private) as folder:
            return timeline_html(session.analysis.timeline, Path(folder))

    def all_tabs(self, session: Session | None) -> tuple[str, Any, str]:
        """What a new scan changes: its planes, the frames to choose from, and nothing found as yet."""
        import gradio

        names = session.analysis.frame_names() if session else []
        frames = gradio.Dropdown(choices=names, value=names[0] if names else None)
        return self.timeline(session), frames, self.nothing_found_yet()

    def nothing_found_yet(self) -> str:
        """What stands where moments will, or how to make the model that finds them."""
        if self.models.searcher is None:
            return said(self.models.missing["model"])
        return said("The moments of the scan that fit the remark best will stand here.")

    def saliency(self, session: Session | None, name: str | None) -> str:
        """Heat over the frame of this name."""
        if self.models.saliency is None:
            return said(self.models.missing["saliency"])
        if session is None or name is None:
            return said(CHOOSE_FIRST)
        frame = session.analysis.frame(name)
        heat = saliency_upon(frame, *self.models.saliency)
        seen = f"Heat over the same frame where the model expects people to look: {name}"
        return frames_html(
            [(frame, f"The frame: {name}", name), (heat, seen, "where people are expected to look")],
            kind="large",
        )

    def found_by_sound(self, sound: str | None, session: Session | None) -> tuple[None, str]:
        """Moments that fit a remark in a file, which is removed whatever comes of it."""
        with tempfile.TemporaryDirectory(prefix="remark_", dir=self.private) as folder:
            return None, self._found(
                lambda: find_sound(_taken(sound, Path(folder)), *self._searched(session)), session
            )

    def found_by_text(self, text: str, session: Session | None) -> str:
        """Moments that fit a remark as text."""
        return self._found(lambda: find_text(text, *self._searched(session)), session)

    def _searched(self, session: Session | None) -> tuple[Analysis, SearchModel]:
        if self.models.searcher is None:
            raise ScanError(self.models.missing["model"])
        if session is None:
            raise ScanError(CHOOSE_FIRST)
        if session.analysis.index is None:
            raise ScanError(" ".join(session.analysis.notes))
        return session.analysis, self.models.searcher

    def _found(self, search: Callable[[], tuple[list[Hit], Query]], session: Session | None) -> str:
        try:
            return hits_html(session and session.analysis, *search())
        except REFUSALS as error:
            return refused(error)


def _taken(upload: str | None, folder: Path) -> Path:
    """Moves an upload out of Gradio's cache into a folder that is removed at once.

    Raises:
        ScanError: there is none, or it has been taken before.
    """
    if upload is None:
        raise ScanError("Choose a file first.")
    try:
        return Path(shutil.move(upload, folder / Path(upload).name))
    except FileNotFoundError as error:
        raise ScanError("The file is no longer there: choose it again.") from error


def said(*sentences: str, kind: str = "") -> str:
    """Sentences as HTML."""
    lines = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f'<div class="said {kind}">{lines}</div>'


def refused(error: Exception) -> str:
    """What is wrong, by the name of the file without the folder in which it lay."""
    text = error.strerror or "" if isinstance(error, OSError) else str(error)
    words = [Path(word).name if Path(word).is_absolute() else word for word in text.split()]
    return said(" ".join(words), kind="refused")


def picture_html(pixels: np.ndarray | bytes, meaning: str) -> str:
    """An image in the page itself; `meaning` is what is read out in its place."""
    if isinstance(pixels, np.ndarray):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        pixels = file.getvalue()
    encoded = base64.b64encode(pixels).decode()
    return f'<img src="data:image/png;base64,{encoded}" alt="{escape(meaning)}">'


def frames_html(frames: list[tuple[np.ndarray, str, str]], kind: str = "") -> str:
    """A grid of pictures: pixels, what they show, and what stands below; `kind` may be large."""
    figures = (
        f"<figure>{picture_html(pixels, meaning)}<figcaption>{escape(caption)}</figcaption></figure>"
        for pixels, meaning, caption in frames
    )
    return f'<div class="frames {kind}">{"".join(figures)}</div>'


def timeline_html(timeline: Timeline, folder: Path) -> str:
    """The picture of the timeline, which is drawn in a folder for the moment, and the best frames."""
    file = folder / "timeline.png"
    save_timeline_picture(timeline, file)
    meaning = (
        f"The probability of {len(timeline.planes)} planes from {timeline.times_s[0]:.0f} to "
        f"{timeline.times_s[-1]:.0f} seconds; the best moments are listed below."
    )
    picture = picture_html(file.read_bytes(), meaning)
    best = _scrolled("Best frame of each plane", _best_table(timeline))
    return f"{_scrolled('Planes over time', picture)}{best}"


def _scrolled(label: str, content: str) -> str:
    """Content that may be wider than a phone, and is scrolled by fingers or arrow keys."""
    return f'<div class="wide" role="region" aria-label="{label}" tabindex="0">{content}</div>'


def _best_table(timeline: Timeline) -> str:
    """The best frames in words."""
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("plane", "best at", "probability", "share of the scan")
    )
    rows = []
    for best in timeline.best_frames:
        share = np.mean(timeline.predicted == timeline.planes.index(best.plane))
        cells = (f"{best.time_s:.1f} s", f"{best.probability:.0%}", f"{share:.0%}")
        columns = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(_words(best.plane))}</th>{columns}</tr>')
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def hits_html(analysis: Analysis, hits: list[Hit], query: Query) -> str:
    """The moments that were found, the best first, each with the picture in its middle."""
    frames = []
    for hit in hits:
        start_s, end_s = hit.moment.start_s, hit.moment.end_s
        plane = analysis.plane_between(start_s, end_s)
        named = f"{hit.rank}. {start_s:g} to {end_s:g} s"
        caption = f"{named}, similarity {hit.similarity:.2f}" + (f", {_words(plane)}" if plane else "")
        frames.append(
            (analysis.picture_at((start_s + end_s) / 2), f"The scan in the middle of {named}", caption)
        )
    note = said(query.note) if query.note else ""
    return f"{note}{frames_html(frames)}"


def _words(plane: str) -> str:
    return plane.replace("_", " ")


def build_page(answers: Answers) -> Any:
    """The Gradio app; nothing of it runs before it is launched.

    Args:
        answers: what it says.

    Returns:
        a `gradio.Blocks`.
    """
    import gradio

    # Every five minutes Gradio removes uploads that were never analysed; those that were are gone by then.
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(300, 900)) as page:
        gradio.Markdown(INTRODUCTION)
        session = gradio.State(
            None, time_to_live=SESSION_SECONDS, delete_callback=lambda held: held and held.close()
        )
        with gradio.Row():
            with gradio.Column():
                upload = gradio.File(label="Your scan: a video or DICOM file", height=170)
                read = gradio.Button("Analyse this file", variant="primary")
            with gradio.Column():
                number = gradio.Number(
                    0, precision=0, label="Number of a simulated scan", info="Each number is another scan."
                )
                simulate = gradio.Button("Take this simulated scan", variant="primary")
        status = gradio.HTML(said(CHOOSE_FIRST), label="Status", js_on_load=READ_OUT)
        shown = _tabs(gradio, answers, session)
    with page:
        for button, answer, given in (
            (read, answers.uploaded, upload),
            (simulate, answers.simulated, number),
        ):
            analysed = _on(button.click, answer, [given, session], [session, status])
            _on(analysed.then, lambda: None, None, upload)
            _on(analysed.then, answers.all_tabs, session, shown)
    return page


def _tabs(gradio: Any, answers: Answers, session: Any) -> list[Any]:
    """The tabs; returns what a new scan changes in them, in the order of `Answers.all_tabs`."""
    with gradio.Tab("Planes"):
        timeline = gradio.HTML(answers.timeline(None), label="Planes over time")
    with gradio.Tab("Saliency"):
        frame = gradio.Dropdown(
            [], label="Frame", info="The best one of each plane, or a second of the scan."
        )
        saliency = gradio.HTML(answers.saliency(None, None), label="Saliency", js_on_load=READ_OUT)
    with gradio.Tab("Search"):
        with gradio.Row():
            with gradio.Column():
                sound = gradio.Audio(
                    type="filepath",
                    sources=["microphone", "upload"],
                    label="A remark: speak, or choose a file",
                )
                listen = gradio.Button("Search for what was said")
            with gradio.Column():
                text = gradio.Textbox(
                    "the four chambers of the heart", label="A remark to be read out by a synthetic voice"
                )
                speak = gradio.Button("Search for this text")
        found = gradio.HTML(answers.nothing_found_yet(), label="Moments that were found", js_on_load=READ_OUT)
    with gradio.Tab("Limits"):
        gradio.Markdown(ABOUT.read_text(encoding="utf-8"))
    _on(frame.change, answers.saliency, [session, frame], saliency)
    _on(listen.click, answers.found_by_sound, [sound, session], [sound, found])
    _on(gradio.on, answers.found_by_text, [text, session], found, triggers=[speak.click, text.submit])
    return [timeline, frame, found]


def _on(event: Callable, answer: Callable, inputs: Any, outputs: Any, **more: Any) -> Any:
    """What the page does on an event; no other program may call it by Gradio's interface for programs."""
    return event(fn=answer, inputs=inputs, outputs=outputs, api_visibility="private", **more)
