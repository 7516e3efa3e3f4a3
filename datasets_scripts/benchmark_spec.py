"""The benchmark's parameters as `benchmark.yaml` holds them, checked.

All recordings of a draw are scans of one simulation, told apart by their numbers: those to pretrain on come
first, then those that measure a pretraining, the labelled ones, and the further labelled ones of the
supervised ceiling. So no scan, and no patient, stands in two of these parts.
"""

from dataclasses import dataclass, fields, replace
from inspect import formatannotation
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from .clips import ClipParameters
from .prepare_gaze import GazeParameters
from .prepare_planes import PlaneParameters
from .schema import CLIP_CONFIG_SECONDS
from .simulate_scans import SimulationParameters
from .simulated_speech import SpeechParameters

BENCHMARK_FILE = Path(__file__).with_name("benchmark.yaml")
PRETRAINING, VALIDATION, LABELLED, CEILING = PARTS = ("pretraining", "validation", "labelled", "ceiling")
SPEECH, QUICK = "speech", "quick"
# Folders of a set: what it is made of, clips, labelled frames.
RECORDINGS, CLIPS, FRAMES = "recordings", "clips", "frames"

Parameters = TypeVar("Parameters")


class BenchmarkError(ValueError):
    """A benchmark that cannot be made as it is told; the text says why and what to do."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """The benchmark.

    Args:
        draws: seed of each draw of the data.
        scans: how many there are of each part.
        recordings: what is simulated, but for number, seed, and the group of voices and wordings.
        clips: how the pretraining and validation scans are cut, by configuration.
        planes, plane_clips, gaze: which frames and clips of the labelled scans are kept.
        ceiling: which frames of the further labelled scans are kept; its validation split is tested on.

    Raises:
        BenchmarkError: a part without scans, two draws of one seed, patients that would fall into two parts,
            or sets that would not hold what they are for.
    """

    draws: tuple[int, ...]
    scans: dict[str, int]
    recordings: SimulationParameters
    clips: dict[str, ClipParameters]
    planes: PlaneParameters
    plane_clips: PlaneParameters
    gaze: GazeParameters
    ceiling: PlaneParameters

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_recordings()
        _require(set(self.clips) == set(CLIP_CONFIG_SECONDS), "clips", "large and medium")
        for config, parameters in self.clips.items():
            seconds = CLIP_CONFIG_SECONDS[config]
            _require(parameters.clip_seconds == seconds, f"clips.{config}.clip_seconds", f"{seconds:g}")
        for name, frames in (("planes", self.planes), ("ceiling", self.ceiling)):
            _require(frames.clip_seconds is None, f"{name}.clip_seconds", "left out: the rows are frames")
        _require(self.plane_clips.clip_seconds is not None, "plane_clips.clip_seconds", "given")
        split_later = "0: these scans are split where they are trained on"
        for name in ("planes", "plane_clips", "gaze"):
            fraction = getattr(self, name).validation_fraction
            _require(fraction == 0, f"{name}.validation_fraction", split_later)
        _require(
            self.ceiling.validation_fraction > 0,
            "ceiling.validation_fraction",
            "more than 0: the ceiling is measured on that split",
        )

    def _check_numbers(self) -> None:
        seeds = all(_is_of(int, seed) and seed >= 0 for seed in self.draws)
        different = 1 <= len(self.draws) == len(set(self.draws))
        _require(seeds and different, "draws", "seeds of 0 or more, at least one and none twice")
        _require(set(self.scans) == set(PARTS), "scans", f"a number for each of {', '.join(PARTS)}")
        for part, number in self.scans.items():
            _require(_is_of(int, number) and number >= 2, f"scans.{part}", "a number from 2 on")

    def _check_recordings(self) -> None:
        speech = self.recordings.speech
        _require(
            self.recordings.repeat_share == 0,
            "recordings.repeat_share",
            "0: the two scans of a patient could fall into two parts",
        )
        longest = max(CLIP_CONFIG_SECONDS.values())
        _require(
            self.recordings.scan_seconds >= longest,
            "recordings.scan_seconds",
            f"{longest:g} or more, the length of a clip",
        )
        _require(speech.spoken_share > 0, SPEECH, "such that something is said")
        for name in ("voice_group", "wording_group"):
            _require(getattr(speech, name) == "all", f"{SPEECH}.{name}", "left out: it follows from the part")

    def indices(self, part: str) -> range:
        """Numbers of the scans of a part."""
        first = sum(self.scans[earlier] for earlier in PARTS[: PARTS.index(part)])
        return range(first, first + self.scans[part])

    def simulation(self, part: str, draw: int, relevant_speech: float | None = None) -> SimulationParameters:
        """What is simulated for a part of a draw: `indices(part)` are its scans.

        Args:
            draw: number of the draw, from 0 on.
            relevant_speech: share of the remarks that are about the picture; None: as the benchmark has it.

        Raises:
            BenchmarkError: there is no such draw, or the share cannot be had.
        """
        if not 0 <= draw < len(self.draws):
            raise BenchmarkError(f"There is no draw {draw}; the draws are 0 to {len(self.draws) - 1}.")
        group = "seen" if part == PRETRAINING else "held_out"
        speech = replace(self.recordings.speech, voice_group=group, wording_group=group)
        if relevant_speech is not None:
            try:
                speech = speech.with_relevance(relevant_speech)
            except ValueError as error:
                raise BenchmarkError(str(error)) from error
        return replace(self.recordings, scans=self.indices(part).stop, seed=self.draws[draw], speech=speech)

    @property
    def relevant_speech(self) -> float:
        """Share of the remarks that are about the picture."""
        return self.recordings.speech.relevant_share / self.recordings.speech.spoken_share


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise BenchmarkError(f"{name} must be {what}.")


def read_spec(path: str | Path = BENCHMARK_FILE, quick: bool = False) -> BenchmarkSpec:
    """The benchmark of a YAML file.

    Args:
        quick: with its section `quick` put over the others: the sizes of a smoke test.

    Raises:
        BenchmarkError: no such file, an unknown or missing field, or a value that cannot be used, be it in
            `quick` alone.
    """
    path = Path(path)
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"The benchmark {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise BenchmarkError(f"{path} is not valid YAML: {error}") from error
    names = [*(field.name for field in fields(BenchmarkSpec)), SPEECH, QUICK]
    if not isinstance(sections, dict) or set(sections) != set(names):
        raise BenchmarkError(f"{path} must have the sections {', '.join(names)}, and no other.")
    try:
        over = _fields_of(QUICK, sections.pop(QUICK))
        for name in over:
            _require(name in sections, f"{QUICK}.{name}", f"one of the sections {', '.join(sections)}")
        full, small = _build(sections), _build(_merge(sections, over))
    except BenchmarkError as error:
        raise BenchmarkError(f"{path}: {error}") from error
    return small if quick else full


def _build(sections: dict[str, Any]) -> BenchmarkSpec:
    told = _fields_of("recordings", sections["recordings"])
    for name in ("scans", "seed", SPEECH):
        _require(name not in told, f"recordings.{name}", "left out: it has a section of its own")
    _require(isinstance(sections["draws"], list), "draws", "a list of seeds")
    speech = _parameters(SpeechParameters, SPEECH, sections[SPEECH])
    clips = _fields_of("clips", sections["clips"]).items()
    return BenchmarkSpec(
        draws=tuple(sections["draws"]),
        scans=_fields_of("scans", sections["scans"]),
        recordings=_parameters(SimulationParameters, "recordings", {**told, SPEECH: speech}),
        clips={config: _parameters(ClipParameters, f"clips.{config}", each) for config, each in clips},
        planes=_parameters(PlaneParameters, "planes", sections["planes"]),
        plane_clips=_parameters(PlaneParameters, "plane_clips", sections["plane_clips"]),
        gaze=_parameters(GazeParameters, "gaze", sections["gaze"]),
        ceiling=_parameters(PlaneParameters, "ceiling", sections["ceiling"]),
    )


def _parameters(cls: type[Parameters], section: str, told: Any) -> Parameters:
    hints = get_type_hints(cls)
    values = {}
    for name, value in _fields_of(section, told).items():
        _require(name in hints, f"{section}.{name}", f"one of the fields {', '.join(hints)}")
        values[name] = tuple(value) if isinstance(value, list) else value
        kind = formatannotation(hints[name])
        _require(_is_of(hints[name], values[name]), f"{section}.{name}", f"of type {kind}; it is {value!r}")
    try:
        return cls(**values)
    except ValueError as error:
        raise BenchmarkError(f"{section}: {error}") from error


def _fields_of(section: str, told: Any) -> dict[str, Any]:
    _require(isinstance(told, dict), section, "a section of fields")
    return told


def _is_of(hint: Any, value: Any) -> bool:
    """Whether a value is of an annotation's type; an int passes for a float, a bool for neither."""
    if isinstance(hint, UnionType):
        return any(_is_of(option, value) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_of, kinds, value))
    wanted = (int, float) if hint is float else hint
    return isinstance(value, wanted) and (hint is bool or not isinstance(value, bool))


def _merge(sections: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`sections` with what `over` says in their place, section by section."""
    merged = dict(sections)
    for name, value in over.items():
        nested = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if nested else value
    return merged
