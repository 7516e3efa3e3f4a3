"""Everyday words spoken by many voices, to teach a speech tower to hear before it meets a scan.

    python -m datasets_scripts.spoken_words OUT --utterances-per-word 20 --seed 0

No word of the list occurs in what the simulator says of the planes (wordings.py), so a tower taught on it has
heard none of the names that it is to find on the screen.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from datasets import Audio, ClassLabel, Features
from scipy.signal import resample_poly
from tqdm import tqdm

from .espeak import SAMPLING_RATE_HZ as ESPEAK_RATE_HZ
from .espeak import synthesize
from .room_sound import RoomParameters, amplitude, in_room
from .schema import AUDIO, SAMPLING_RATE_HZ
from .voices import Group, draw_voice

LABEL = "label"
ROWS_PER_GROUP = 100

_WORDS = """
apple banana orange lemon cherry tomato potato carrot onion pepper butter cheese bread sugar honey coffee
water doorbell table chair carpet curtain kitchen garden bedroom cupboard ladder hammer bucket candle mirror
blanket pillow bottle kettle saucepan basket umbrella jacket trousers sweater button pocket leather cotton
ribbon diamond silver copper iron wooden plastic paper pencil letterbox envelope library teacher student
holiday birthday wedding football tennis swimming guitar piano trumpet violin concert theatre cinema
newspaper magazine television telephone computer camera battery engine bicycle motorbike tractor aeroplane
helicopter rocket airport station harbour village city country mountain river forest desert island ocean
valley meadow thunder lightning sunshine rainbow snowflake winter summer autumn Monday Wednesday Friday
January October December elephant tiger monkey rabbit horse donkey chicken penguin dolphin spider butterfly
squirrel hedgehog purple yellow orchard crimson seven eleven thirteen twenty hundred thousand million doctor
farmer soldier lawyer painter captain policeman brother neighbour grandfather quickly yesterday tomorrow
sometimes always never perhaps question answer story secret promise dancing singing cooking sleeping
laughing jumping travelling shopping
"""
EVERYDAY_WORDS: tuple[str, ...] = tuple(_WORDS.split())


def spoken_words(
    words_count: int = 128,
    utterances_per_word: int = 20,
    seed: int = 0,
    sampling_rate_hz: int = SAMPLING_RATE_HZ,
    seconds: float = 1.0,
    voice_group: Group = "all",
) -> Iterator[tuple[np.ndarray, int]]:
    """Says the first `words_count` everyday words, each `utterances_per_word` times, in random order.

    Voice, speed, pitch, loudness, room and the place of the word in the array are drawn anew every time.

    Yields:
        A waveform, mono float32 in -1..1 of `round(seconds * sampling_rate_hz)` samples, and the index of its
        word in `EVERYDAY_WORDS`. A word longer than `seconds` loses its end.

    Raises:
        ValueError: `words_count` is more than there are words, or a number is not positive.
    """
    if not 1 <= words_count <= len(EVERYDAY_WORDS):
        raise ValueError(f"words_count is {words_count}; give a number from 1 to {len(EVERYDAY_WORDS)}.")
    for name, value in (
        ("utterances_per_word", utterances_per_word),
        ("sampling_rate_hz", sampling_rate_hz),
        ("seconds", seconds),
    ):
        if value <= 0:
            raise ValueError(f"{name} is {value}; give a positive number.")
    rng = np.random.default_rng(seed)
    for word_index in rng.permutation(np.repeat(np.arange(words_count), utterances_per_word)).tolist():
        yield _utterance(EVERYDAY_WORDS[word_index], rng, sampling_rate_hz, seconds, voice_group), word_index


def _utterance(
    word: str, rng: np.random.Generator, sampling_rate_hz: int, seconds: float, voice_group: Group
) -> np.ndarray:
    voice = draw_voice(rng, voice_group)
    level_db = rng.uniform(-34.0, -22.0)
    offset = rng.random()
    speech = synthesize(word, voice)
    if sampling_rate_hz != ESPEAK_RATE_HZ:
        speech = resample_poly(speech, sampling_rate_hz, ESPEAK_RATE_HZ).astype(np.float32)
    speech *= np.float32(amplitude(level_db) / np.sqrt(np.mean(speech**2)))
    waveform = np.zeros(round(seconds * sampling_rate_hz), dtype=np.float32)
    first = int(offset * max(len(waveform) - len(speech), 0))
    speech = speech[: len(waveform)]
    waveform[first : first + len(speech)] = speech
    return np.clip(in_room(waveform, sampling_rate_hz, rng, RoomParameters()), -1.0, 1.0)


def write_spoken_words(folder: Path, words_count: int, utterances_per_word: int, seed: int) -> None:
    """Writes `folder/train.parquet` (audio as FLAC, label), which `load_dataset(folder)` reads."""
    names = list(EVERYDAY_WORDS[:words_count])
    # The features' own encoder needs FFmpeg, so rows go to Parquet through their Arrow schema.
    schema = Features(
        {AUDIO: Audio(sampling_rate=SAMPLING_RATE_HZ, decode=False), LABEL: ClassLabel(names=names)}
    ).arrow_schema
    spoken = spoken_words(words_count, utterances_per_word, seed)
    rows = []
    for waveform, word_index in tqdm(spoken, total=words_count * utterances_per_word, unit="word"):
        encoded = io.BytesIO()
        soundfile.write(encoded, waveform, SAMPLING_RATE_HZ, format="FLAC")
        rows.append({AUDIO: {"bytes": encoded.getvalue(), "path": None}, LABEL: word_index})
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, folder / "train.parquet", row_group_size=ROWS_PER_GROUP)


def main() -> None:
    """Reads the command line and writes the words."""
    parser = argparse.ArgumentParser(description="Everyday words spoken by many voices, as Parquet.")
    parser.add_argument("out", type=Path, help="folder to write train.parquet to")
    parser.add_argument("--words-count", type=int, default=128)
    parser.add_argument("--utterances-per-word", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_spoken_words(arguments.out, arguments.words_count, arguments.utterances_per_word, arguments.seed)


if __name__ == "__main__":
    main()
