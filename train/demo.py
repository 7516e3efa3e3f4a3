"""The demo's data: recordings made from nothing, cut into clips, and the control of its speech results."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets_scripts.clips import ClipParameters, encode_flac
from datasets_scripts.preparation import PrepareError
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.recordings import find_recordings, open_recording
from datasets_scripts.schema import AUDIO, CLIP_ID, SCAN_ID, START_S, clips_config_name
from datasets_scripts.simulate_scans import SimulationError, SimulationParameters, simulate_scans
from train.arguments import ArgumentsError, PretrainArguments, build
from train.clip_planes import planes_of_clips, recording_of_scan
from train.triples import ClipKey, Row

RECORDINGS, CLIPS, CONTROL = "recordings", "clips", "control_recordings"
MADE_OF = "made_of.json"


def make_clips(arguments: PretrainArguments) -> Path:
    """The clips of the recipe's simulation; what is there already and was made alike is used again.

    Raises:
        ArgumentsError: a parameter cannot be used, or `data_dir` holds something that was not made here.
    """
    simulation, cutting = simulation_parameters(arguments), clip_parameters(arguments)
    folder = Path(arguments.data_dir)
    recordings, clips = folder / RECORDINGS, folder / CLIPS

    def simulate() -> None:
        simulate_scans(recordings, simulation)

    def cut() -> None:
        for left_over in folder.glob(f"{CLIPS}.*"):
            left_over.unlink()
        print(prepare_clips(recordings, clips, cutting).summary())

    made_of = {"simulation": dataclasses.asdict(simulation)}
    _make_once(recordings, made_of, simulate)
    _make_once(clips, made_of | {"clips": dataclasses.asdict(cutting)}, cut)
    return clips


def planes(arguments: PretrainArguments, rows: Sequence[Row]) -> list[str]:
    """The plane that each row's clip shows."""
    folder = Path(arguments.data_dir)
    keys = [ClipKey(row[CLIP_ID], row[SCAN_ID], row[START_S]) for row in rows]
    seconds = clip_parameters(arguments).clip_seconds
    of_clips = planes_of_clips(keys, folder / RECORDINGS, folder / CLIPS, arguments.dataset_config, seconds)
    return [of_clips[row[CLIP_ID]] for row in rows]


def control_rows(arguments: PretrainArguments, rows: Sequence[Row]) -> list[Row]:
    """The same clips with other words: the same voice says at the same times that another plane is on the
    screen.

    What finds the right video even so has not listened to what is said.
    """
    simulation = simulation_parameters(arguments)
    wrong = dataclasses.replace(simulation.speech, relevant_share=0.0, wrong_share=1.0, chat_share=0.0)
    # Of these recordings the sound alone is taken, and it does not depend on the pictures.
    simulation = dataclasses.replace(simulation, speech=wrong, image_size=32, frames_per_second=2)
    folder = Path(arguments.data_dir)
    files = recording_of_scan(folder / RECORDINGS, folder / CLIPS, arguments.dataset_config)
    names = {row[SCAN_ID]: files[row[SCAN_ID]].name for row in rows}
    indices = sorted(_scan_index(folder / RECORDINGS / name) for name in names.values())
    control = folder / CONTROL
    made_of = {"simulation": dataclasses.asdict(simulation), "indices": indices}
    _make_once(control, made_of, lambda: simulate_scans(control, simulation, indices))
    recordings = {files.name: files for files in find_recordings(control)}
    return [_with_sound_of(row, recordings[names[row[SCAN_ID]]], arguments) for row in rows]


def simulation_parameters(arguments: PretrainArguments) -> SimulationParameters:
    """The recipe's section `simulation`, checked."""
    return build(SimulationParameters, arguments.simulation, "the recipe", "simulation")


def clip_parameters(arguments: PretrainArguments) -> ClipParameters:
    """The recipe's section `clips`, checked; its clip length is that of `dataset_config`.

    Raises:
        ArgumentsError: a parameter cannot be used, or the clips are not as long as `dataset_config` says.
    """
    parameters = build(ClipParameters, arguments.clips or {}, "the recipe", "clips")
    config = clips_config_name(parameters.clip_seconds)
    if config != arguments.dataset_config:
        raise ArgumentsError(
            f"clips.clip_seconds is {parameters.clip_seconds:g}, which makes the configuration {config!r}, "
            f"but dataset_config is {arguments.dataset_config!r}. Make them agree."
        )
    return parameters


def _make_once(folder: Path, made_of: dict[str, Any], make: Callable[[], object]) -> None:
    """Makes a folder, unless one made of the same parameters is there."""
    note = folder.with_name(f"{folder.name}.{MADE_OF}")
    wanted = json.dumps(made_of, indent=1) + "\n"
    if note.is_file() and folder.is_dir():
        if note.read_text(encoding="utf-8") == wanted:
            return
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise ArgumentsError(f"{folder} holds files that no run made: name another data_dir.")
    note.unlink(missing_ok=True)
    try:
        make()
    except (ImportError, PrepareError, SimulationError) as error:
        raise ArgumentsError(f"{folder} could not be made. {error}") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(wanted, encoding="utf-8")


def _scan_index(folder: Path) -> int:
    return json.loads((folder / "scan.json").read_text(encoding="utf-8"))["index"]


def _with_sound_of(row: Row, files: Any, arguments: PretrainArguments) -> Row:
    waveform = open_recording(files).sound().window(row[START_S], clip_parameters(arguments).clip_seconds)
    return {**row, AUDIO: {"bytes": encode_flac(waveform), "path": None}}
