"""Teaches the speech tower to hear everyday words, before it meets any recording.

A tower that starts from nothing has to learn hearing and naming at once from a few thousand clips. Words that
no sonographer says of a scan teach the hearing without giving away the naming.

It is taught at every moment of a reading: a linear head, thrown away afterwards, names the word that is being
said there by the last feature map. Asked only which words a whole clip holds, the tower hardly learns any: of
several words it is never told which was where. The layer after the pooling has no part in it, and stays as it
was.
"""

import fcntl
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin, get_cosine_schedule_with_warmup

from train.arguments import SpeechAugmentationArguments, SpeechWordsArguments
from train.speech_augmentation import vary_log_mel
from train.triples import log_mel

CLIP_FRAMES = 400
PIECE_FRAMES = 3000
NO_WORD = -100
WARMUP_SHARE = 0.1
# As far as voices and rooms differ from one another.
VARIATION = SpeechAugmentationArguments(stretch=0.15, shift_bins=3, gain_db=6.0, masks=2)
WEIGHTS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ReadWords:
    """A reading as the tower hears it.

    `features` is its log-mel (time, mel) in dB, `words` (time,) the number of the word that is said in each
    frame, `NO_WORD` between words.
    """

    features: Tensor
    words: Tensor


def read_words(
    features: Tensor, spans: Iterable[tuple[float, float, int]], frames_a_second: float
) -> ReadWords:
    """The words by frames.

    Args:
        features: log-mel (time, mel).
        spans: start and end in seconds, and the number of each word.
        frames_a_second: of the features.
    """
    words = torch.full((len(features),), NO_WORD)
    for start_s, end_s, word in spans:
        words[round(start_s * frames_a_second) : round(end_s * frames_a_second)] = word
    return ReadWords(features, words)


def long_log_mel(processor: ProcessorMixin, waveform: np.ndarray) -> Tensor:
    """The log-mel (time, mel) of a 32 kHz waveform of minutes, piece by piece: at once it takes gigabytes."""
    hop = processor.feature_extractor.hop_length
    length = PIECE_FRAMES * hop
    pieces = [waveform[start : start + length] for start in range(0, len(waveform), length)]
    # A piece has a frame centred on its end, which is the first of the next one.
    return torch.cat(
        [log_mel(processor, piece)[: len(piece) // hop] for piece in pieces if len(piece) >= hop]
    )


def teach_words(
    tower: PreTrainedModel, readings: Sequence[ReadWords], arguments: SpeechWordsArguments, seed: int
) -> float:
    """Trains the tower to name the word that is said at each moment; the last reading is held out.

    Args:
        tower: DualRepAudioModel, changed in place; a frozen one learns here, and is frozen again after.
        readings: two or more.
        arguments: steps, batch size, learning rate.
        seed: of the head, the clips and their variation.

    Returns:
        Share of the moments of the held-out reading's words at which the right word is named.
    """
    draw = random.Random(seed)
    taught, held_out = readings[:-1], readings[-1]
    head = _drawn_head(tower, arguments.words, seed)
    freezes, tower.config.freeze = tower.config.freeze, False
    tower.requires_grad_(True)
    optimizer = torch.optim.Adam([*tower.parameters(), *head.parameters()], lr=arguments.learning_rate)
    schedule = get_cosine_schedule_with_warmup(
        optimizer, int(arguments.steps * WARMUP_SHARE), arguments.steps
    )
    tower.train()
    for _ in tqdm(range(arguments.steps), desc="everyday words", unit="step", mininterval=1.0):
        clips = [clip_of(draw.choice(taught), draw) for _ in range(arguments.batch_size)]
        named, wanted = _name_words(tower, head, clips)
        cross_entropy(named, wanted, ignore_index=NO_WORD).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    accuracy = _accuracy(tower, head, held_out)
    tower.config.freeze = freezes
    tower.train()
    return accuracy


def clip_of(reading: ReadWords, draw: random.Random) -> ReadWords:
    """`CLIP_FRAMES` frames from anywhere in the reading, varied.

    Where there are fewer, the last one is repeated, as no word.
    """
    longest = int(CLIP_FRAMES * (1 + VARIATION.stretch)) + 1
    start = draw.randint(0, max(0, len(reading.words) - longest))
    features, words = (each[start : start + longest] for each in (reading.features, reading.words))
    varied = vary_log_mel(features, VARIATION, draw)
    # Frame k of the varied clip was made from around this one.
    origin = ((torch.arange(len(varied)) + 0.5) * len(words) / len(varied)).long()
    kept = torch.arange(CLIP_FRAMES).clamp(max=len(varied) - 1)
    beyond = torch.arange(CLIP_FRAMES) >= len(varied)
    return ReadWords(varied[kept], words[origin][kept].masked_fill(beyond, NO_WORD))


@contextmanager
def only_teacher(folder: Path, name: str) -> Iterator[None]:
    """Waits until no other process teaches the tower of this name; the lock dies with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def keep_taught(tower: PreTrainedModel, folder: Path, name: str) -> None:
    """Writes the tower's weights under a name that `name_of_teaching` gave, complete or not at all."""
    partial = folder / f".{name}.{random.getrandbits(32):08x}.partial"
    save_file({key: value.contiguous() for key, value in tower.state_dict().items()}, partial)
    partial.replace(folder / f"{name}{WEIGHTS_SUFFIX}")


def load_taught(tower: PreTrainedModel, folder: Path, name: str) -> bool:
    """Loads what `keep_taught` wrote, if it is there; returns whether it was."""
    path = folder / f"{name}{WEIGHTS_SUFFIX}"
    if not path.exists():
        return False
    tower.load_state_dict(load_file(path))
    return True


def name_of_teaching(tower: PreTrainedModel, arguments: SpeechWordsArguments, seed: int) -> str:
    """A name for a tower with these first weights, taught in this way: a hash of both."""
    taught_by = {name: value for name, value in asdict(arguments).items() if name != "kept_in"}
    digest = hashlib.sha256(json.dumps([taught_by, seed, asdict(VARIATION)], sort_keys=True).encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _drawn_head(tower: PreTrainedModel, words: int, seed: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(tower.config.hidden_size, words).to(next(tower.parameters()).device)


def _name_words(tower: PreTrainedModel, head: nn.Linear, clips: Sequence[ReadWords]) -> tuple[Tensor, Tensor]:
    """Logits (moments, words) of the last feature map and the words said there (moments,)."""
    features = torch.stack([clip.features for clip in clips]).to(head.weight.device)
    words = torch.stack([clip.words for clip in clips]).to(head.weight.device)
    maps = tower(features).last_hidden_state
    if maps.ndim == 4:
        maps = maps.mean(dim=3)
    maps = maps.transpose(1, 2)
    # The frame in the middle of those that a moment of the map was pooled from.
    middle = ((torch.arange(maps.shape[1]) + 0.5) * tower.min_frames).long().clamp(max=words.shape[1] - 1)
    return head(maps).flatten(0, 1), words[:, middle.to(words.device)].flatten()


@torch.inference_mode()
def _accuracy(tower: PreTrainedModel, head: nn.Linear, reading: ReadWords) -> float:
    tower.eval()
    named, wanted = _name_words(tower, head, [reading])
    said = wanted != NO_WORD
    return (named.argmax(dim=1) == wanted)[said].float().mean().item()
