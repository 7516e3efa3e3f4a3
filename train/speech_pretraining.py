"""Teaches the speech tower to tell spoken everyday words apart, before it meets any recording.

A tower that starts from nothing has to learn hearing and naming at once from a few thousand clips. Words that
no sonographer says of a scan teach the hearing without giving away the naming.
"""

import random
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, pad
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin, get_cosine_schedule_with_warmup

from train.arguments import SpeechWordsArguments
from train.speech_augmentation import shift_pitch
from train.triples import log_mel

HELD_OUT_SHARE = 0.1
MAX_GAIN_DB = 6.0
MAX_SHIFT = 0.25


def word_features(
    utterances: Iterable[tuple[np.ndarray, int]], processor: ProcessorMixin
) -> tuple[Tensor, Tensor]:
    """Log-mels (utterances, time, mel) and labels (utterances,) of equally long 32 kHz waveforms."""
    features, labels = [], []
    for waveform, label in utterances:
        features.append(log_mel(processor, waveform))
        labels.append(label)
    return torch.stack(features), torch.tensor(labels)


def teach_words(
    tower: PreTrainedModel,
    features: Tensor,
    labels: Tensor,
    arguments: SpeechWordsArguments,
    seed: int,
    shift_bins: int = 0,
) -> float:
    """Trains the tower to classify words, with a linear head that is thrown away.

    Args:
        tower: DualRepAudioModel, changed in place; a frozen one learns here, and is frozen again after.
        features: (utterances, time, mel) log-mel.
        labels: (utterances,) word numbers from 0.
        arguments: steps, batch size, learning rate.
        seed: of the head, the batches and their variation.
        shift_bins: by up to so many mel bins the pitch varies, on top of how loud and when a word is said.

    Returns:
        Accuracy on the tenth of the utterances that was held out.
    """
    device = next(tower.parameters()).device
    chance, draw = torch.Generator().manual_seed(seed), random.Random(seed)
    order = torch.randperm(len(features), generator=chance)
    held_out, taught = order[: int(len(order) * HELD_OUT_SHARE)], order[int(len(order) * HELD_OUT_SHARE) :]
    head = nn.Linear(tower.config.hidden_size, int(labels.max()) + 1).to(device)
    freezes, tower.config.freeze = tower.config.freeze, False
    tower.requires_grad_(True)
    optimizer = torch.optim.Adam([*tower.parameters(), *head.parameters()], lr=arguments.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, arguments.steps // 20, arguments.steps)
    tower.train()
    for step in tqdm(range(arguments.steps), desc="everyday words", unit="step", mininterval=1.0):
        together = words_at_step(step, arguments)
        rows = taught[
            torch.randint(len(taught), (arguments.batch_size // together, together), generator=chance)
        ]
        batch = vary(features[rows].flatten(1, 2), chance)
        batch = torch.stack([shift_pitch(each, draw.randint(-shift_bins, shift_bins)) for each in batch])
        # Of several words each is the right answer to an equal share.
        wanted = one_hot(labels[rows], head.out_features).float().mean(dim=1).to(device)
        loss = cross_entropy(head(tower(batch.to(device)).pooler_output), wanted)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    accuracy = _accuracy(tower, head, features[held_out], labels[held_out], arguments.batch_size)
    tower.config.freeze = freezes
    tower.train()
    return accuracy


def words_at_step(step: int, arguments: SpeechWordsArguments) -> int:
    """One word at a time in the first half, from which alone the tower finds nothing out of several; then
    ever more, up to `words_together`.
    """
    half = arguments.steps / 2
    if step < half:
        return 1
    return min(arguments.words_together, 2 + int((step - half) / half * (arguments.words_together - 1)))


def vary(features: Tensor, chance: torch.Generator) -> Tensor:
    """The same words a little louder or quieter, earlier or later: (batch, time, mel) in dB."""
    time = features.shape[1]
    reach = int(time * MAX_SHIFT)
    gain_db = (torch.rand(len(features), 1, 1, generator=chance) * 2 - 1) * MAX_GAIN_DB
    start = torch.randint(0, 2 * reach + 1, (1,), generator=chance).item()
    quietest = features.min().item()
    return pad(features, (0, 0, reach, reach), value=quietest)[:, start : start + time] + gain_db


@torch.inference_mode()
def _accuracy(tower: nn.Module, head: nn.Module, features: Tensor, labels: Tensor, batch_size: int) -> float:
    tower.eval()
    right = 0
    for batch, wanted in zip(features.split(batch_size), labels.split(batch_size), strict=True):
        predicted = head(tower(batch.to(head.weight.device)).pooler_output).argmax(dim=1).cpu()
        right += int((predicted == wanted).sum())
    return right / len(labels)
