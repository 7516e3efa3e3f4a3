"""What the app does with a scan, without a page: planes over time, saliency, search by speech.

The file of a scan is read in `analyse` alone, so that it can be removed at once. What is kept of it are a
small picture a second and the best frame of each plane, in memory, and an index of embeddings on the disk.
"""

import io
import itertools
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import Recording
from datasets_scripts.sector import NoSectorError
from datasets_scripts.simulate_scans import SimulationParameters, simulate_scan
from hub_cards.space.models import Models
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.modeling_dualrep import DualRepForSaliencyPrediction
from train.saliency_pictures import heat_upon
from train.search import Hit, find
from train.search_index import IndexedRecording, IndexSettings, SearchError, SearchIndex, write_index
from train.search_model import SearchModel, clip_parameters
from train.search_queries import Query, sound_query, text_query
from train.search_recordings import Indexer
from train.timeline import Timeline, TimelineError, open_scan, run_timeline

LONGEST_SIDE_PIXELS = 512
SMOOTHING_SECONDS = 1.0
SIMULATED = SimulationParameters(scan_seconds=40.0, frames_per_second=10, hold_seconds=(3.0, 5.0))
HIGHEST_NUMBER = 9999
HITS = 5
TEXT_BYTES = 16
PRINTABLE = frozenset(string.printable.encode())


class ScanError(ValueError):
    """A file or a wish that the app refuses; the text says why and what to do."""


# Whatever a wrong file or remark can raise: each of them is a sentence for people.
REFUSALS = (NoSectorError, OSError, RecordingError, ScanError, SearchError, TimelineError)


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is kept of a scan.

    Args:
        pictures: a JPEG for each second from 0, at most 512 pixels a side.
        timeline: planes over time; None without a plane model.
        index: of its clips; None without a model that searches.
        notes: a sentence for each part that could not be done.
    """

    pictures: tuple[bytes, ...]
    timeline: Timeline | None
    index: SearchIndex | None
    notes: tuple[str, ...]

    def frame_names(self) -> list[str]:
        """Frames to choose from: the best one of each plane, then one a second."""
        best = [_best_name(frame.plane, frame.time_s) for frame in self._best_frames()]
        return best + [f"at {second} s" for second in range(len(self.pictures))]

    def frame(self, name: str) -> np.ndarray:
        """(height, width, 3) uint8 of a frame by its name."""
        for best in self._best_frames():
            if _best_name(best.plane, best.time_s) == name:
                return best.pixels
        return self.picture_at(int(name.split()[1]))

    def picture_at(self, time_s: float) -> np.ndarray:
        """(height, width, 3) uint8, the picture of the nearest second."""
        second = min(round(time_s), len(self.pictures) - 1)
        return np.array(Image.open(io.BytesIO(self.pictures[second])))

    def plane_between(self, start_s: float, end_s: float) -> str | None:
        """The likeliest plane of a span of time; None where nothing was classified in it."""
        if self.timeline is None:
            return None
        within = (self.timeline.times_s >= start_s) & (self.timeline.times_s <= end_s)
        if not within.any():
            return None
        return self.timeline.planes[self.timeline.probabilities[within].mean(axis=0).argmax()]

    def _best_frames(self) -> tuple:
        return () if self.timeline is None else self.timeline.best_frames


def _best_name(plane: str, time_s: float) -> str:
    return f"{plane.replace('_', ' ')}, best at {time_s:.1f} s"


def simulated_scan(number: float, folder: Path) -> Path:
    """Makes a scan of nothing in a folder; the same number gives the same scan.

    Raises:
        ScanError: no such number, or a part that the simulator needs is not installed.
    """
    if number is None or not (0 <= number <= HIGHEST_NUMBER and number == int(number)):
        raise ScanError(f"Simulated scans have whole numbers from 0 to {HIGHEST_NUMBER}: give one of them.")
    parameters = SimulationParameters(**{**vars(SIMULATED), "seed": int(number)})
    try:
        return simulate_scan(folder, parameters, index=0, patient_number=0)
    except ImportError as error:
        raise ScanError(f"No scan can be simulated here: {error}") from error


def analyse(scan: Path, models: Models, folder: Path, longest_seconds: float) -> Analysis:
    """Reads a scan and runs the models along it.

    Args:
        scan: a video or DICOM file, or the folder of one recording.
        models: what is there.
        folder: an empty folder, for the index.
        longest_seconds: a longer scan is refused.

    Raises:
        one of REFUSALS: the scan cannot be used at all. What merely one part cannot use is in the notes.
    """
    if scan.is_file():
        refuse_text(scan)
    recording = open_scan(scan)
    pictures = tuple(_pictures(recording, longest_seconds))
    timeline, index, notes = None, None, []
    if models.classifier is not None:
        try:
            timeline = run_timeline(recording, *models.classifier, smoothing_seconds=SMOOTHING_SECONDS)
        except TimelineError as error:
            notes.append(f"Planes: {error}")
    if models.searcher is not None:
        try:
            index = _index(recording, models.searcher, folder / "clips.parquet")
        except NoSectorError:
            notes.append("Search by speech is left out: the pictures show no sector of an ultrasound scan.")
        except SearchError as error:
            notes.append(f"Search by speech: {error}")
    return Analysis(pictures, timeline, index, tuple(notes))


def refuse_text(path: Path) -> None:
    """Refuses a file that begins as text does, before FFmpeg sees it.

    Playlists are text: FFmpeg would follow one to other files of this machine.

    Raises:
        ScanError: it is one.
    """
    with path.open("rb") as file:
        start = file.read(TEXT_BYTES)
    if start and set(start) <= PRINTABLE:
        raise ScanError(f"{path.name} is a text file: choose a video, a DICOM file or a sound recording.")


def _pictures(recording: Recording, longest_seconds: float) -> Iterator[bytes]:
    """A JPEG a second; the time stamps count, since what a header says of the length may be wrong."""
    for second, frame in enumerate(recording.frames_at(itertools.count())):
        if second > longest_seconds:
            raise ScanError(
                f"{recording.name} is longer than {longest_seconds:g} s, which is the most that this app "
                "analyses: cut it, or run it yourself with a higher --longest_seconds."
            )
        picture, file = Image.fromarray(frame.read_pixels()), io.BytesIO()
        picture.thumbnail((LONGEST_SIDE_PIXELS, LONGEST_SIDE_PIXELS))
        picture.save(file, "JPEG", quality=90)
        yield file.getvalue()


def _index(recording: Recording, searcher: SearchModel, path: Path) -> SearchIndex:
    parameters = clip_parameters(searcher, {})
    table = Indexer(searcher, parameters, batch_size=16).table(recording)
    if not len(table):
        raise SearchError(f"{recording.name} is shorter than one clip of {parameters.clip_seconds:g} s.")
    settings = IndexSettings(searcher.source, searcher.sha256, searcher.model.config.projection_dim, {})
    write_index(path, settings, [(IndexedRecording(recording.name, "", len(table)), table)])
    return SearchIndex(path)


def find_sound(sound: Path, analysis: Analysis, searcher: SearchModel) -> tuple[list[Hit], Query]:
    """The moments of the scan that fit a remark in a sound file, the best first.

    Raises:
        SearchError, RecordingError, ScanError: the file holds no remark.
    """
    refuse_text(sound)
    query = sound_query(sound, searcher, clip_parameters(searcher, {}))
    return find(analysis.index, query, HITS), query


def find_text(text: str, analysis: Analysis, searcher: SearchModel) -> tuple[list[Hit], Query]:
    """The same for a remark as text, which a synthetic voice speaks."""
    query = text_query(text, searcher, clip_parameters(searcher, {}))
    return find(analysis.index, query, HITS), query


def saliency_upon(
    frame: np.ndarray, model: DualRepForSaliencyPrediction, processor: DualRepImageProcessor
) -> np.ndarray:
    """The frame under the heat of where the model expects people to look.

    Args:
        frame: (height, width, 3) uint8.

    Returns:
        (height, width, 3) uint8.
    """
    inputs = processor(frame, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        saliency = model(**inputs).saliency_maps[0].float().cpu().numpy()
    density = np.maximum(_on_frame(saliency, *frame.shape[:2]), 0)
    return (255 * heat_upon(frame, density)).round().astype(np.uint8)


def _on_frame(saliency: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of the padded picture, cut back to the frame: the processor pads on both sides, as evenly."""
    rows, columns = saliency.shape
    scale = max(height / rows, width / columns)
    padded_height, padded_width = max(height, round(rows * scale)), max(width, round(columns * scale))
    top, left = (padded_height - height) // 2, (padded_width - width) // 2
    resized = Image.fromarray(saliency).resize((padded_width, padded_height), Image.Resampling.BICUBIC)
    return np.array(resized)[top : top + height, left : left + width]
