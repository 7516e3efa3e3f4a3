"""The speech of a simulated scan: the sonographer names what is on the screen, or chats, or is silent.

Who speaks and how the room sounds is drawn from one generator, what is said from another, so that the voice
tells nothing of the planes. Every visit takes the same draws whatever the shares, and each remark keeps the
place and length that naming the plane would have: two narrations that differ in their shares alone differ
in their words alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from .espeak import FASTEST_WORDS_PER_MINUTE, SAMPLING_RATE_HZ, Voice, synthesize
from .room_sound import RoomParameters, amplitude, in_room, require_range
from .schema import BACKGROUND, PLANES
from .simulated_visits import Visit
from .voices import Group, draw_voice, require_group
from .wordings import chat_wordings, plane_wordings

Kind = Literal["plane", "wrong", "chat"]

# Letters and spaces that espeak-ng says in the time of one word of its rate; 95 of 100 sentences go faster.
LETTERS_PER_WORD = 5.5
SHORTLIST = 4  # sentences near the wanted length, among which one is drawn
SLOWEST = 0.7  # a sentence shorter than its place is drawn out to this share of the voice's rate, no further
RATE_CORRECTIONS = 2  # how long a sentence takes is not quite inverse to the rate, so one is not enough
FADE_SECONDS = 0.02
FULL_SCALE = 0.98


@dataclass(frozen=True)
class SpeechParameters:
    """How a scan is narrated.

    Args:
        relevant_share: share of remarks that name the plane on the screen.
        wrong_share: share that names another plane.
        chat_share: share about something else; what is left of 1 is silence.
        wording_group, voice_group: "seen", "held_out" or "all", to keep wordings or voices for an evaluation.
        most_remarks_per_visit: how many remarks a long visit can hold.
        pause_seconds: range of the pause before each remark, the first counted from the start of the visit.
        overrun_seconds: how long after the end of its visit a remark may end.
        speech_level_db: range of a scan's speech level, root mean square in dB of full scale.
        loudness_spread_db: how far a remark may be louder or quieter than that.
        room: ranges of the room's sound; None for the bare voice.

    Raises:
        ValueError: a share or range is impossible, or a group unknown.
    """

    relevant_share: float = 0.55
    wrong_share: float = 0.05
    chat_share: float = 0.15
    wording_group: Group = "all"
    voice_group: Group = "all"
    most_remarks_per_visit: int = 2
    pause_seconds: tuple[float, float] = (0.2, 0.9)
    overrun_seconds: float = 0.5
    speech_level_db: tuple[float, float] = (-30.0, -24.0)
    loudness_spread_db: float = 2.0
    room: RoomParameters | None = field(default_factory=RoomParameters)

    def __post_init__(self) -> None:
        for name in ("relevant_share", "wrong_share", "chat_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"SpeechParameters.{name} is {getattr(self, name)}; give a share from 0 to 1."
                )
        if self.spoken_share > 1.0 + 1e-9:
            raise ValueError(
                "SpeechParameters: relevant_share, wrong_share and chat_share add up to "
                f"{self.spoken_share:g}; "
                "lower them to 1 or less (the rest is silence)."
            )
        require_group(self.wording_group, "SpeechParameters.wording_group")
        require_group(self.voice_group, "SpeechParameters.voice_group")
        require_range(self.pause_seconds, "SpeechParameters.pause_seconds")
        require_range(self.speech_level_db, "SpeechParameters.speech_level_db")
        for name, least in (("most_remarks_per_visit", 1), ("overrun_seconds", 0), ("loudness_spread_db", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"SpeechParameters.{name} is {getattr(self, name)}; give {least} or more.")
        if self.pause_seconds[0] < 0:
            raise ValueError(
                f"SpeechParameters.pause_seconds is {self.pause_seconds}; a pause is 0 s or more."
            )

    @property
    def spoken_share(self) -> float:
        """Share of remarks that are made at all, whatever they are about."""
        return self.relevant_share + self.wrong_share + self.chat_share

    def with_relevance(self, relevance: float) -> "SpeechParameters":
        """As much speech, of which the share `relevance` names the plane on the screen.

        What is left of it names another plane or is chat, in the proportion that the two have here.

        Raises:
            ValueError: `relevance` is no share, or nothing here is beside the point although it would have to
                be there.
        """
        if not 0.0 <= relevance <= 1.0:
            raise ValueError(f"The relevance of the speech is {relevance}; give a share from 0 to 1.")
        beside_the_point = self.wrong_share + self.chat_share
        if beside_the_point == 0 and relevance < 1:
            raise ValueError(
                "SpeechParameters.wrong_share and chat_share are 0, so nothing tells what speech beside the "
                "point would be; give one of them."
            )
        scale = 0.0 if relevance == 1 else self.spoken_share * (1 - relevance) / beside_the_point
        return replace(
            self,
            relevant_share=self.spoken_share * relevance,
            wrong_share=self.wrong_share * scale,
            chat_share=self.chat_share * scale,
        )

    def kind(self, draw: float) -> Kind | None:
        """The kind of remark that a uniform draw in 0..1 stands for; None for silence."""
        shares: dict[Kind, float] = {
            "plane": self.relevant_share,
            "wrong": self.wrong_share,
            "chat": self.chat_share,
        }
        for kind, share in shares.items():
            if draw < share:
                return kind
            draw -= share
        return None


@dataclass(frozen=True)
class Remark:
    """A sentence said from `start_s` to `end_s`; `label` is the plane it names, empty for chat."""

    start_s: float
    end_s: float
    kind: Kind
    label: str
    text: str


@dataclass(frozen=True)
class Narration:
    """The sound of a scan, mono float32 in -1..1, and what is said in it, in order of time."""

    waveform: np.ndarray
    sampling_rate_hz: int
    remarks: list[Remark]


class _RemarkDraws(NamedTuple):
    """Uniform draws in 0..1 that settle one remark; all are taken even where some have no effect."""

    kind: float
    pause: float
    plane_wording: float
    wrong_label: float
    other_wording: float
    loudness: float


def narrate(
    visits: Sequence[Visit],
    duration_s: float,
    voice_rng: np.random.Generator,
    wording_rng: np.random.Generator,
    parameters: SpeechParameters,
) -> Narration:
    """Speaks over a scan.

    Args:
        visits: which plane the probe holds, and when, in order of time and without overlap; a visit of the
            background is one of searching, and narrated as such.
        duration_s: length of the scan.
        voice_rng: settles voice, level and room, and nothing else.
        wording_rng: settles what is said and when, and nothing else.

    Returns:
        `round(duration_s * sampling_rate_hz)` samples, and the remarks.

    Raises:
        ImportError: espeakng-loader is not installed.
        ValueError: a visit's label is none of the planes.
    """
    voice = draw_voice(voice_rng, parameters.voice_group)
    level_db = voice_rng.uniform(*parameters.speech_level_db)
    waveform = np.zeros(round(duration_s * SAMPLING_RATE_HZ), dtype=np.float32)
    remarks: list[Remark] = []
    # Nobody speaks over the first remark of the next visit.
    latest_s = [later.start_s + parameters.pause_seconds[0] for later in visits[1:]] + [duration_s]
    for visit, latest_end_s in zip(visits, latest_s, strict=False):
        end_s = min(visit.end_s + parameters.overrun_seconds, latest_end_s, duration_s)
        for remark, samples, gain_db in _remarks(visit, end_s, voice, wording_rng, parameters):
            first = round(remark.start_s * SAMPLING_RATE_HZ)
            samples = samples[: len(waveform) - first]
            waveform[first : first + len(samples)] += _at_level(samples, level_db + gain_db)
            remarks.append(remark)
    if parameters.room is not None:
        waveform = in_room(waveform, SAMPLING_RATE_HZ, voice_rng, parameters.room)
    waveform *= min(1.0, FULL_SCALE / max(np.abs(waveform).max(initial=0.0), FULL_SCALE))
    return Narration(waveform, SAMPLING_RATE_HZ, remarks)


def _remarks(
    visit: Visit, end_s: float, voice: Voice, rng: np.random.Generator, parameters: SpeechParameters
) -> Iterator[tuple[Remark, np.ndarray, float]]:
    """The remarks of one visit, all over by `end_s`: each with its samples and its gain in dB."""
    table = rng.random((parameters.most_remarks_per_visit, len(_RemarkDraws._fields)))
    start_s = float(visit.start_s)
    for draws in map(_RemarkDraws._make, table.tolist()):
        start_s += _between(parameters.pause_seconds, draws.pause)
        naming = _naming(visit.label, end_s - start_s, voice, draws.plane_wording, parameters.wording_group)
        if naming is None:
            return
        text, samples = naming
        window_seconds = len(samples) / SAMPLING_RATE_HZ
        kind = parameters.kind(draws.kind)
        if kind is not None:
            label = visit.label
            if kind != "plane":
                label, candidates = _other_sentences(
                    kind, visit.label, draws.wrong_label, parameters.wording_group
                )
                text = _near_in_length(candidates, text, draws.other_wording)
                samples = _said_within(text, len(samples), voice)
            said_until_s = start_s + len(samples) / SAMPLING_RATE_HZ
            gain_db = _between(
                (-parameters.loudness_spread_db, parameters.loudness_spread_db), draws.loudness
            )
            yield Remark(start_s, said_until_s, kind, label, text), samples, gain_db
        start_s += window_seconds


def _naming(
    label: str, seconds: float, voice: Voice, draw: float, group: Group
) -> tuple[str, np.ndarray] | None:
    """A sentence that names the plane within `seconds`, and its samples; None if there is no time for one."""
    letters_per_second = LETTERS_PER_WORD * voice.rate_words_per_minute / 60.0
    fitting = [text for text in plane_wordings(label, group) if len(text) <= seconds * letters_per_second]
    if not fitting:
        return None
    text = _pick(fitting, draw)
    samples = synthesize(text, voice)
    longest = int(seconds * SAMPLING_RATE_HZ)
    return text, samples if len(samples) <= longest else _said_within(text, longest, voice)


def _other_sentences(kind: Kind, label: str, draw: float, group: Group) -> tuple[str, Sequence[str]]:
    """The label, and the sentences to choose from, of a remark that does not name the plane `label`."""
    if kind == "chat":
        return "", chat_wordings(group)
    wrong_label = _pick([plane for plane in PLANES if plane not in (label, BACKGROUND)], draw)
    return wrong_label, plane_wordings(wrong_label, group)


def _near_in_length(candidates: Sequence[str], text: str, draw: float) -> str:
    nearest = sorted(candidates, key=lambda candidate: abs(len(candidate) - len(text)))
    return _pick(nearest[:SHORTLIST], draw)


def _said_within(text: str, samples_count: int, voice: Voice) -> np.ndarray:
    """`text` said faster or somewhat slower so that it takes about `samples_count` samples, never more."""
    samples = synthesize(text, voice)
    rate = float(voice.rate_words_per_minute)
    for _ in range(RATE_CORRECTIONS):
        rate *= len(samples) / samples_count
        rate = min(max(rate, SLOWEST * voice.rate_words_per_minute), FASTEST_WORDS_PER_MINUTE)
        samples = synthesize(text, replace(voice, rate_words_per_minute=round(rate)))
    return samples[:samples_count]


def _at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """`samples` at a root mean square of `level_db`, faded out, since espeak-ng may end with a click."""
    fade = min(round(FADE_SECONDS * SAMPLING_RATE_HZ), len(samples))
    levelled = samples * np.float32(amplitude(level_db) / np.sqrt(np.mean(samples**2)))
    levelled[len(samples) - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return levelled


def _between(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + draw * (bounds[1] - bounds[0])


def _pick(choices: Sequence[str], draw: float) -> str:
    return choices[int(draw * len(choices))]
