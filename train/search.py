"""Finds the moments of a folder of scans that fit a spoken remark, and the remarks that fit a picture.

python -m train.search index RECORDINGS INDEX.parquet --model RUN_FOLDER_OR_HUB_ID
python -m train.search INDEX.parquet remark.wav
python -m train.search INDEX.parquet --record-text "four chambers"
python -m train.search INDEX.parquet --frame picture.png
python -m train.search INDEX.parquet --recording scan.mp4 --at 12.5

The first makes the index, and brings it up to date when it is run again: recordings that are new or have
changed are embedded, those that are gone are dropped. An index names the recordings as their folder does. It
is as private as they are: keep it with them, and never publish it.

What is compared are the projected embeddings, by their cosine, as in the evaluation of a pretraining run. A
remark is compared with what clips show; a picture (image tower), or a moment of a recording (video tower),
with what is said in clips.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers.utils import logging

from datasets_scripts.clips import ClipParameters
from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.sector import NoSectorError
from train.arguments import COMMAND_LINE, ArgumentsError, build, help_text, read_flags
from train.nearest import nearest
from train.search_faiss import KINDS, nearest_by_faiss
from train.search_index import Moment, SearchError, SearchIndex
from train.search_model import SearchModel, load_search_model
from train.search_queries import Query, moment_query, picture_query, sound_query, text_query
from train.search_recordings import IndexArguments, index_recordings
from train.timeline import TimelineError, open_scan

INDEX = "index"


@dataclass(frozen=True)
class Hit:
    """A clip that was found, with its place from 1 and its cosine similarity."""

    rank: int
    similarity: float
    moment: Moment


def main(command_line: list[str] | None = None) -> int:
    """The command; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    logging.disable_progress_bar()
    try:
        return _index(words[1:]) if words[:1] == [INDEX] else _search(words)
    except (ArgumentsError, NoSectorError, RecordingError, SearchError, TimelineError, OSError) as error:
        print(f"search.py: {error}", file=sys.stderr)
        return 2


def _index(words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\n{help_text(IndexArguments)}")
        return 0
    if len(words) < 2 or any(word.startswith("--") for word in words[:2]):
        raise ArgumentsError(
            "Name the folder of recordings and the index: `python -m train.search index RECORDINGS "
            "INDEX.parquet --model FOLDER`."
        )
    arguments = build(IndexArguments, read_flags(words[2:]), COMMAND_LINE)
    print(index_recordings(Path(words[0]), Path(words[1]), arguments).summary())
    print(f"Index, as private as the recordings: {words[1]}")
    return 0


def _search(words: list[str]) -> int:
    options = _parser().parse_args(words)
    given = (options.sound, options.record_text, options.frame, options.recording)
    if sum(each is not None for each in given) != 1 or (options.recording is None) != (options.at is None):
        raise ArgumentsError(
            "Say what to search for, one of: a sound file, --record-text TEXT, --frame PICTURE, or "
            "--recording SCAN with --at SECONDS."
        )
    if options.top < 1:
        raise ArgumentsError(f"--top is {options.top}, but must be at least 1.")
    index = SearchIndex(options.index)
    searcher = model_of(index, options.model)
    parameters = ClipParameters(**index.settings.clips)
    query = _query(options, searcher, parameters)
    hits = find(index, query, options.top, options.faiss)
    if query.note:
        print(query.note, file=sys.stderr)
    print(as_json(hits, query) if options.json else table(hits))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="search.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path, help="the Parquet that `search index` wrote")
    parser.add_argument("sound", type=Path, nargs="?", help="a sound file with a remark")
    parser.add_argument("--record-text", metavar="TEXT", help="a remark as text, which espeak-ng speaks")
    parser.add_argument("--frame", type=Path, metavar="PICTURE", help="find what is said to such a picture")
    parser.add_argument("--recording", type=Path, help="find what is said to what this recording shows")
    parser.add_argument("--at", type=float, metavar="SECONDS", help="the moment of --recording")
    parser.add_argument("--top", type=int, default=10, help="how many moments to find; default: 10")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("--faiss", choices=KINDS, help="search by FAISS, beyond a million clips")
    parser.add_argument("--model", help="where the model of the index lies now, if it was moved")
    return parser


def _query(options: argparse.Namespace, searcher: SearchModel, parameters: ClipParameters) -> Query:
    if options.sound is not None:
        return sound_query(options.sound, searcher, parameters)
    if options.record_text is not None:
        return text_query(options.record_text, searcher, parameters)
    if options.frame is not None:
        return picture_query(options.frame, searcher, parameters)
    return moment_query(open_scan(options.recording), options.at, searcher, parameters)


def model_of(index: SearchIndex, source: str | None = None) -> SearchModel:
    """The model that made an index.

    Args:
        index: an index.
        source: folder or Hub id; None: where it lay when the index was made.

    Raises:
        SearchError: it is not there any more, or another one is.
    """
    searcher = load_search_model(source or index.settings.model)
    if searcher.sha256 != index.settings.model_sha256:
        raise SearchError(
            f"{index.path} was made by another model than the one in {searcher.source}: name its model by "
            "--model, or make the index anew."
        )
    return searcher


def find(index: SearchIndex, query: Query, top: int, faiss_kind: str | None = None) -> list[Hit]:
    """The clips nearest to a query, the nearest first.

    Args:
        index: what is searched.
        query: an embedding and the column it is compared with.
        top: clips wanted.
        faiss_kind: flat or ivf searches by FAISS; None exactly, block by block.
    """
    if faiss_kind is None:
        rows, similarity = nearest(query.embedding, index.blocks(query.column), top)
    else:
        rows, similarity = nearest_by_faiss(query.embedding, index, query.column, top, faiss_kind)
    moments = index.moments(rows.tolist())
    return [
        Hit(rank, value, moment)
        for rank, (value, moment) in enumerate(zip(similarity.tolist(), moments, strict=True), start=1)
    ]


def table(hits: list[Hit]) -> str:
    """For people: rank, where to look or listen, similarity, and the plane where one was named."""
    if not hits:
        return "No clip of the index can be compared with it."
    width = max(len("recording"), *(len(hit.moment.recording) for hit in hits))
    lines = [f"{'rank':>4}  {'recording':{width}}  {'from s':>9}  {'to s':>9}  {'similarity':>10}  plane"]
    for hit in hits:
        moment = hit.moment
        times = f"{moment.start_s:>9.1f}  {moment.end_s:>9.1f}"
        named = f"{moment.recording:{width}}  {times}  {hit.similarity:>10.3f}  {moment.plane or '-'}"
        lines.append(f"{hit.rank:>4}  {named}")
    return "\n".join(lines)


def as_json(hits: list[Hit], query: Query) -> str:
    """For programs: `searched` names what was compared with, `hits` are in their order."""
    rows = [{"rank": hit.rank, "similarity": hit.similarity, **asdict(hit.moment)} for hit in hits]
    return json.dumps({"searched": query.column, "note": query.note, "hits": rows}, indent=1)


if __name__ == "__main__":
    sys.exit(main())
