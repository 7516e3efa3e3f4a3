"""Speech from text: the few functions of espeak-ng that the simulator needs, called through ctypes.

espeak-ng (https://github.com/espeak-ng/espeak-ng, GPLv3) is a tool of the checkout, not part of the published
package. The `espeakng-loader` wheel brings its library and voices, so no system package is needed. Function
and constant names below are those of its public header, speak_lib.h.
"""

import _ctypes
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SAMPLING_RATE_HZ = 22_050
SLOWEST_WORDS_PER_MINUTE, FASTEST_WORDS_PER_MINUTE = 80, 450

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_RANDOM_SEED = 1
_UNCLIPPED_VOLUME = 60  # at the default of 100 some voices reach full scale and clip

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """How a text is spoken.

    Args:
        accent: an espeak-ng language: `en` (British), `en-us`, `en-gb-scotland`.
        variant: an espeak-ng variant, such as `f3` or `m1`; empty for the accent's own voice.
        rate_words_per_minute: 80 to 450; 175 is espeak-ng's own.
        pitch: 0 to 100; 50 is the voice's own.
        pitch_range: 0 (monotone) to 100; 50 is the voice's own.

    Raises:
        ValueError: a number is out of its range.
    """

    accent: str = "en"
    variant: str = ""
    rate_words_per_minute: int = 175
    pitch: int = 50
    pitch_range: int = 50

    def __post_init__(self) -> None:
        for field, low, high in (
            ("rate_words_per_minute", SLOWEST_WORDS_PER_MINUTE, FASTEST_WORDS_PER_MINUTE),
            ("pitch", 0, 100),
            ("pitch_range", 0, 100),
        ):
            if not low <= getattr(self, field) <= high:
                raise ValueError(
                    f"Voice.{field} is {getattr(self, field)}; give a number from {low} to {high}."
                )


def synthesize(text: str, voice: Voice) -> np.ndarray:
    """The samples of `text` said by `voice`, the same each time whatever was said before.

    Returns:
        Mono float32 in -1..1 at `SAMPLING_RATE_HZ`.

    Raises:
        ImportError: espeakng-loader is not installed.
        ValueError: espeak-ng has no such voice, or `text` holds nothing to say.
    """
    if not any(character.isalnum() for character in text):
        raise ValueError(f"There is nothing to say in the text {text!r}; give it a word.")
    chunks: list[bytes] = []

    def collect(samples, samples_count: int, _events) -> int:
        if samples_count > 0:
            chunks.append(ctypes.string_at(samples, ctypes.sizeof(ctypes.c_short) * samples_count))
        return 0

    callback = _SynthCallback(collect)  # a name of its own, or Python frees what the library calls
    with _one_at_a_time, _fresh_library() as (library, data_path):
        library.espeak_SetSynthCallback(callback)
        _set_voice(library, data_path, voice)
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        if library.espeak_Synth(encoded, size, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None) != 0:
            raise RuntimeError(f"espeak-ng could not say {text!r}.")
    return np.frombuffer(b"".join(chunks), dtype=np.int16).astype(np.float32) / 32768.0


@contextmanager
def _fresh_library() -> Iterator[tuple[ctypes.CDLL, Path]]:
    """espeak-ng, loaded anew and unloaded afterwards.

    It keeps where it is in its table of pitch flutter in a global that nothing sets back, so what it says
    depends on all it said before. Loading it costs about 3 ms, as much as saying a sentence.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            "Simulated speech needs the package espeakng-loader, of the dependency group dev: "
            "run `uv sync --group dev`."
        ) from error
    data_path = Path(espeakng_loader.get_data_path())
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        rate_hz = library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data_path).encode(), _INITIALIZE_DONT_EXIT
        )
        if rate_hz != SAMPLING_RATE_HZ:
            raise RuntimeError(
                f"espeak-ng did not start with the voices in {data_path} (it answered {rate_hz}, not "
                f"{SAMPLING_RATE_HZ} Hz): reinstall espeakng-loader, in a folder whose path is short."
            )
        library.espeak_ng_SetRandSeed(ctypes.c_long(_RANDOM_SEED))  # or the clock seeds its breath noise
        yield library, data_path
    finally:
        library.espeak_Terminate()
        unload = _ctypes.FreeLibrary if hasattr(_ctypes, "FreeLibrary") else _ctypes.dlclose
        unload(library._handle)


def _set_voice(library: ctypes.CDLL, data_path: Path, voice: Voice) -> None:
    if voice.variant and not (data_path / "voices" / "!v" / voice.variant).is_file():
        # espeak-ng itself would say nothing and speak with the accent's own voice.
        raise ValueError(
            f"espeak-ng has no voice variant {voice.variant!r}; `f3` and `m1` are two that it has."
        )
    name = f"{voice.accent}+{voice.variant}" if voice.variant else voice.accent
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise ValueError(f"espeak-ng has no accent {voice.accent!r}; `en` and `en-us` are two that it has.")
    for parameter, setting in (
        (_RATE, voice.rate_words_per_minute),
        (_VOLUME, _UNCLIPPED_VOLUME),
        (_PITCH, voice.pitch),
        (_RANGE, voice.pitch_range),
    ):
        library.espeak_SetParameter(parameter, setting, 0)
