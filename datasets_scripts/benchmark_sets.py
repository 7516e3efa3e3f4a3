"""The data of the simulated benchmark, from its recordings to the sets that are trained on.

    python -m datasets_scripts.benchmark_sets OUT --draw 0             # clips and labelled frames
    python -m datasets_scripts.benchmark_sets OUT --draw 0 --describe  # and what they hold, in numbers

Below `OUT/draw_<draw>` each kind of set has a folder of its own, with its recordings and a `made_of.json`. It
is made aside and put in its place as a whole, so what is there is finished; a command that was stopped begins
at the set that it stood at, and a second one beside it waits.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock

from .benchmark_description import describe
from .benchmark_spec import (
    BENCHMARK_FILE,
    CEILING,
    CLIPS,
    FRAMES,
    LABELLED,
    PRETRAINING,
    RECORDINGS,
    VALIDATION,
    BenchmarkError,
    BenchmarkSpec,
    read_spec,
)
from .preparation import PrepareError
from .prepare_clips import prepare_clips
from .prepare_gaze import prepare_gaze
from .prepare_planes import prepare_planes
from .privacy import key_fingerprint, keyed_hash, read_or_create_key
from .recordings import find_recordings
from .shuffled_audio import shuffle_audio
from .simulate_scans import SimulationError, simulate_scans
from .splits import Splits, write_splits

__all__ = ["BenchmarkSets", "BenchmarkSpec", "make_ceiling", "make_sets", "read_spec", "shuffle_audio"]

MADE_OF = "made_of.json"
SHUFFLED = "shuffled"


@dataclass(frozen=True)
class BenchmarkSets:
    """Folders of the sets of one draw.

    Args:
        clips: `large` and `medium`; their split train is pretrained on, validation measures it.
        labelled: `planes`, `plane_clips` and `gaze`, of other scans; all in one split, for they are split
            anew by scan where they are trained on.
    """

    clips: Path
    labelled: Path


def make_sets(
    spec: BenchmarkSpec,
    draw: int,
    output: Path,
    relevant_speech: float | None = None,
    shuffled_speech: bool = False,
    workers: int | None = None,
) -> BenchmarkSets:
    """Makes the sets of a draw, but for those that are there already.

    Args:
        draw: number of the draw, from 0 on.
        output: folder of all draws.
        relevant_speech: share of the pretraining scans' remarks that are about the picture, with as much
            speech altogether, the same pictures and the same validation scans; None: the benchmark's own.
        shuffled_speech: every training clip has the sound of another one.
        workers: processes; None takes one a core.

    Raises:
        BenchmarkError: no such draw or share, or the folder holds sets of other parameters.
    """
    clips = make_clips(spec, draw, output, relevant_speech, workers)
    if shuffled_speech:
        clips = _make_shuffled(spec, draw, clips)
    return BenchmarkSets(clips, make_labelled(spec, draw, output, workers))


def make_clips(
    spec: BenchmarkSpec,
    draw: int,
    output: Path,
    relevant_speech: float | None = None,
    workers: int | None = None,
) -> Path:
    """The set of clips of a draw, made where it is not there yet; see `make_sets`."""
    name = PRETRAINING
    if relevant_speech is not None and math.isclose(relevant_speech, spec.relevant_speech):
        relevant_speech = None
    if relevant_speech is not None:
        name = f"{PRETRAINING}_relevant_{100 * relevant_speech:g}"
    parts = {
        PRETRAINING: spec.simulation(PRETRAINING, draw, relevant_speech),
        VALIDATION: spec.simulation(VALIDATION, draw),
    }
    made_of = {"parts": parts, "clips": spec.clips, "scans": [spec.indices(part) for part in parts]}

    def make(folder: Path) -> None:
        for part, simulation in parts.items():
            simulate_scans(folder / RECORDINGS / part, simulation, spec.indices(part), workers)
        _write_splits(folder, _write_key(folder / CLIPS, spec.draws[draw]))
        for parameters in spec.clips.values():
            report = prepare_clips(
                folder / RECORDINGS, folder / CLIPS, parameters, workers=workers, strict=True
            )
            print(report.summary())

    return _make_once(output, draw, name, made_of, make) / CLIPS


def make_labelled(spec: BenchmarkSpec, draw: int, output: Path, workers: int | None = None) -> Path:
    """The labelled frames and clips and the frames with gaze of a draw, made where they are not there yet."""
    simulation = spec.simulation(LABELLED, draw)
    of_planes = {"planes": spec.planes, "plane_clips": spec.plane_clips}
    made_of = {"simulation": simulation, **of_planes, "gaze": spec.gaze, "scans": spec.indices(LABELLED)}

    def make(folder: Path) -> None:
        recordings, frames = folder / RECORDINGS, folder / FRAMES
        simulate_scans(recordings, simulation, spec.indices(LABELLED), workers)
        _write_key(frames, spec.draws[draw])
        for parameters in of_planes.values():
            print(prepare_planes(recordings, frames, parameters, workers=workers, strict=True).summary())
        print(prepare_gaze(recordings, frames, spec.gaze, workers=workers, strict=True).summary())

    return _make_once(output, draw, LABELLED, made_of, make) / FRAMES


def make_ceiling(spec: BenchmarkSpec, draw: int, output: Path, workers: int | None = None) -> Path:
    """The set of further labelled frames of a draw: what a supervised model reaches on many labels is the
    ceiling of the others. Its split train is trained on, validation tested on.
    """
    simulation = spec.simulation(CEILING, draw)
    made_of = {"simulation": simulation, "ceiling": spec.ceiling, "scans": spec.indices(CEILING)}

    def make(folder: Path) -> None:
        recordings, frames = folder / RECORDINGS, folder / FRAMES
        simulate_scans(recordings, simulation, spec.indices(CEILING), workers)
        _write_key(frames, spec.draws[draw])
        print(prepare_planes(recordings, frames, spec.ceiling, workers=workers, strict=True).summary())

    return _make_once(output, draw, CEILING, made_of, make) / FRAMES


def _make_shuffled(spec: BenchmarkSpec, draw: int, clips: Path) -> Path:
    output, name = clips.parents[2], f"{clips.parent.name}_{SHUFFLED}"
    made_of = {
        "of": json.loads((clips.parent / MADE_OF).read_text(encoding="utf-8")),
        "shuffled_audio_seed": spec.draws[draw],
    }

    def make(folder: Path) -> None:
        shuffle_audio(clips, folder / CLIPS, spec.draws[draw])

    return _make_once(output, draw, name, made_of, make) / CLIPS


def _make_once(
    output: Path, draw: int, name: str, made_of: dict[str, Any], make: Callable[[Path], None]
) -> Path:
    """The folder of a set, made by `make`, which is given another folder, unless it is there.

    Raises:
        BenchmarkError: it cannot be made, or one made of other parameters is there.
    """
    folder = Path(output).resolve() / f"draw_{draw}" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    note = json.dumps(made_of, indent=1, default=_as_json) + "\n"
    with WeakFileLock(folder.with_name(f".{name}.lock")):
        if folder.exists():
            _check_made_of(folder, note)
            return folder
        unfinished = folder.with_name(f".{name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            make(unfinished)
        except (ImportError, PrepareError, SimulationError) as error:
            raise BenchmarkError(f"{folder} could not be made. {error}") from error
        (unfinished / MADE_OF).write_text(note, encoding="utf-8")
        os.replace(unfinished, folder)
    return folder


def _as_json(value: Any) -> Any:
    return [value.start, value.stop] if isinstance(value, range) else asdict(value)


def _check_made_of(folder: Path, wanted: str) -> None:
    note = folder / MADE_OF
    if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
        raise BenchmarkError(
            f"{folder} holds something else, or was made of other parameters, as with or without --quick. "
            "Name another folder, or remove that one."
        )


def _write_key(dataset: Path, seed: int) -> bytes:
    """The key of a set's identifiers, which hide nobody here: by the seed alone, so that whoever makes the
    benchmark again gets the same identifiers, and with them the same splits by scan."""
    file = dataset.with_name(f"{dataset.name}.key")
    file.write_text(hashlib.sha256(f"benchmark {seed}".encode()).hexdigest() + "\n", encoding="utf-8")
    return read_or_create_key(file, dataset)


def _write_splits(folder: Path, key: bytes) -> None:
    """Says which scans are which split, before `prepare_clips` would draw it."""
    sides: dict[str, dict[str, list[str]]] = {PRETRAINING: {}, VALIDATION: {}}
    for files in find_recordings(folder / RECORDINGS):
        notes = json.loads(files.notes.read_text(encoding="utf-8"))
        patient = keyed_hash(key, "patient", notes["patient_id"])
        sides[files.name.split("/")[0]][patient] = [keyed_hash(key, "scan", files.name)]
    splits = Splits(key_fingerprint(key), 0, train=sides[PRETRAINING], validation=sides[VALIDATION])
    (folder / CLIPS).mkdir()
    write_splits(splits, folder / CLIPS)


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(command_line)
    try:
        spec = read_spec(options.spec, options.quick)
        sets = make_sets(
            spec,
            options.draw,
            options.output,
            options.relevant_speech,
            options.shuffled_speech,
            options.workers,
        )
        folders = [sets.clips.parent, sets.labelled.parent]
        if options.ceiling:
            folders.append(make_ceiling(spec, options.draw, options.output, options.workers).parent)
        if options.describe:
            for folder in folders:
                print(describe(folder))
    except (BenchmarkError, OSError) as error:
        print(f"benchmark_sets: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(folder) for folder in folders))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark_sets", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("output", type=Path, metavar="OUT", help="folder of all draws")
    add("--draw", type=int, default=0, help="number of the draw; default: 0")
    add("--relevant-speech", type=float, help="share of the pretraining's remarks that are about the picture")
    add("--shuffled-speech", action="store_true", help="every training clip has the sound of another one")
    add("--ceiling", action="store_true", help="the further labelled scans of the supervised ceiling, too")
    add("--describe", action="store_true", help="write and print what the sets hold, in numbers and a sheet")
    add("--quick", action="store_true", help="the sizes of a smoke test")
    add("--spec", type=Path, default=BENCHMARK_FILE, help="parameters; default: the benchmark's own")
    add("--workers", type=int, help="processes; default: one a CPU")
    return parser


if __name__ == "__main__":
    sys.exit(main())
