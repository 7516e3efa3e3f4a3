"""Teaching the speech tower words: it learns tones that differ, and the same way each time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips_helpers import tiny_processor
from torch.nn.functional import cross_entropy

from modeling_dualrep.audio_cnn14 import DualRepAudioModel
from modeling_dualrep.configuration_dualrep import DualRepAudioConfig
from train import speech_pretraining
from train.arguments import SpeechWordsArguments
from train.speech_pretraining import teach_words, vary, word_features, words_at_step

TONES_HZ = (300, 900, 2700)


def tones(count: int) -> Iterator[tuple[np.ndarray, int]]:
    chance = np.random.default_rng(0)
    time_s = np.arange(16_000) / 32_000
    for index in range(count):
        label = index % len(TONES_HZ)
        frequency = TONES_HZ[label] * chance.uniform(0.9, 1.1)
        yield (0.1 * np.sin(2 * np.pi * frequency * time_s)).astype(np.float32), label


def tower() -> DualRepAudioModel:
    torch.manual_seed(0)
    return DualRepAudioModel(DualRepAudioConfig(hidden_sizes=[16, 16], embedding_dropout=0.0))


def test_the_tower_learns_what_differs_and_the_same_way_each_time() -> None:
    features, labels = word_features(tones(60), tiny_processor())
    assert features.shape == (60, 51, 64) and labels.tolist() == [i % 3 for i in range(60)]
    arguments = SpeechWordsArguments(
        steps=40, batch_size=16, learning_rate=3e-3, words=3, utterances_per_word=20
    )
    first, second = tower(), tower()
    torch.manual_seed(1)
    accuracy = teach_words(first, features, labels, arguments, seed=0)
    torch.manual_seed(1)
    assert teach_words(second, features, labels, arguments, seed=0) == accuracy == 1.0
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    changed = [
        not torch.equal(one, other)
        for one, other in zip(first.parameters(), tower().parameters(), strict=True)
    ]
    assert all(changed)


def test_a_frozen_tower_learns_its_words_and_is_frozen_again() -> None:
    frozen = tower()
    frozen.config.freeze = True
    frozen.train()
    before = [parameter.clone() for parameter in frozen.parameters()]
    features, labels = word_features(tones(30), tiny_processor())
    teach_words(frozen, features, labels, SpeechWordsArguments(steps=3, batch_size=8), seed=0)
    assert all(not torch.equal(one, other) for one, other in zip(before, frozen.parameters(), strict=True))
    assert frozen.config.freeze and not frozen.train().training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_several_words_are_heard_one_after_the_other_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight words a step, at last as two clips of three words each, which share the answer equally."""
    features, labels = word_features(tones(30), tiny_processor())
    heard, wanted = [], []

    def heed(predicted: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        wanted.append(shares)
        return cross_entropy(predicted, shares)

    taught = tower()
    taught.register_forward_pre_hook(lambda module, inputs: heard.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(speech_pretraining, "cross_entropy", heed)
    arguments = SpeechWordsArguments(steps=6, batch_size=8, words=4, words_together=3)
    teach_words(taught, features, labels, arguments, seed=0)
    assert heard[:6] == [(8, 51, 64)] * 3 + [(4, 102, 64)] * 2 + [(2, 153, 64)]
    assert all(torch.allclose(shares.sum(dim=1), torch.ones(len(shares))) for shares in wanted)
    counts = [words_at_step(step, replace(arguments, steps=1200, words_together=4)) for step in range(1200)]
    assert Counter(counts) == {1: 600, 2: 200, 3: 200, 4: 200} and counts == sorted(counts)
    assert {words_at_step(step, replace(arguments, words_together=1)) for step in range(6)} == {1}
    assert {round(value, 3) for value in wanted[5].flatten().tolist()} <= {0, 0.333, 0.667, 1}


def test_labels_drawn_at_random_stay_at_chance_on_held_out_words() -> None:
    features, labels = word_features(tones(300), tiny_processor())
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    arguments = SpeechWordsArguments(steps=20, batch_size=16)
    assert teach_words(tower(), features, shuffled, arguments, seed=0) < 0.7


def test_varying_keeps_shape_and_order_of_loudness() -> None:
    features = torch.randn(4, 40, 64)
    varied = vary(features, torch.Generator().manual_seed(0))
    assert varied.shape == features.shape
    assert not torch.equal(varied, features)
