"""Teaching the speech tower words: it learns tones that differ, and the same way each time."""

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from clips_helpers import tiny_processor
from hypothesis import given
from hypothesis import strategies as st

from modeling_dualrep.audio_cnn14 import DualRepAudioModel
from modeling_dualrep.configuration_dualrep import DualRepAudioConfig
from train.arguments import SpeechWordsArguments
from train.speech_pretraining import (
    CLIP_FRAMES,
    NO_WORD,
    ReadWords,
    clip_of,
    keep_taught,
    load_taught,
    long_log_mel,
    name_of_teaching,
    only_teacher,
    read_words,
    teach_words,
)
from train.triples import log_mel

WORDS, FRAMES_A_WORD, SILENT_FRAMES = 3, 40, 8
ARGUMENTS = SpeechWordsArguments(steps=30, batch_size=4, learning_rate=3e-3, words=WORDS, readers=3)


def reading(seed: int, words: int = 30) -> ReadWords:
    """Words that are told apart by the band of mel bins in which they sound."""
    chance = torch.Generator().manual_seed(seed)
    length = FRAMES_A_WORD + SILENT_FRAMES
    features = torch.randn(words * length, 64, generator=chance) - 60
    spans = []
    for index in range(words):
        word, start = int(torch.randint(WORDS, (), generator=chance)), index * length
        features[start : start + FRAMES_A_WORD, 8 + 20 * word : 16 + 20 * word] += 40
        spans.append((start / 100, (start + FRAMES_A_WORD) / 100, word))
    return read_words(features, spans, frames_a_second=100)


@pytest.fixture(scope="module")
def readings() -> list[ReadWords]:
    return [reading(seed) for seed in range(3)]


def tower(conv_dim: int = 1) -> DualRepAudioModel:
    torch.manual_seed(0)
    sizes = DualRepAudioConfig(conv_dim=conv_dim, hidden_sizes=[16, 16, 16], embedding_dropout=0.0)
    return DualRepAudioModel(sizes)


def test_words_stand_at_their_frames() -> None:
    heard = read_words(torch.zeros(10, 64), [(0.1, 0.3, 5), (0.4, 0.62, 1)], frames_a_second=10)
    gap = NO_WORD
    assert heard.words.tolist() == [gap, 5, 5, gap, 1, 1, gap, gap, gap, gap]


def test_a_long_log_mel_is_that_of_the_whole_but_at_the_seams() -> None:
    processor = tiny_processor()
    waveform = np.random.default_rng(0).normal(0, 0.1, 2 * 3000 * 320 + 1700).astype(np.float32)
    whole, pieces = log_mel(processor, waveform), long_log_mel(processor, waveform)
    assert pieces.shape == (6005, 64)
    off = (whole[:6005] - pieces).abs().amax(dim=1)
    assert (off < 1e-3).sum() >= 6005 - 10 and off.max() < 40


@pytest.mark.parametrize("conv_dim", [1, 2])
def test_the_tower_learns_what_differs_and_the_same_way_each_time(
    readings: list[ReadWords], conv_dim: int
) -> None:
    first, second = tower(conv_dim), tower(conv_dim)
    torch.manual_seed(1)
    accuracy = teach_words(first, readings, ARGUMENTS, seed=0)
    torch.manual_seed(1)
    assert teach_words(second, readings, ARGUMENTS, seed=0) == accuracy > 0.9
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_the_held_out_reading_is_not_learnt(readings: list[ReadWords]) -> None:
    """Bands that mean other words in it give a tower that is always wrong there."""
    moved = ReadWords(
        readings[2].features, torch.where(readings[2].words >= 0, (readings[2].words + 1) % WORDS, NO_WORD)
    )
    assert teach_words(tower(), [*readings[:2], moved], ARGUMENTS, seed=0) < 0.1


def test_a_frozen_tower_learns_its_words_and_is_frozen_again(readings: list[ReadWords]) -> None:
    frozen = tower()
    frozen.config.freeze = True
    frozen.train()
    before = {name: parameter.clone() for name, parameter in frozen.blocks.named_parameters()}
    teach_words(frozen, readings, SpeechWordsArguments(steps=3, batch_size=2, words=WORDS), seed=0)
    after = dict(frozen.blocks.named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert frozen.config.freeze and not frozen.train().training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@given(seed=st.integers(0, 2**32), frames=st.integers(50, 900))
def test_a_varied_clip_keeps_its_words_where_they_are_heard(seed: int, frames: int) -> None:
    """Frames that carry their word as their level still do, but for those that are masked or in between."""
    words = torch.arange(frames) // 50 % WORDS
    heard = ReadWords(100.0 * words[:, None].expand(frames, 64), words)
    clip = clip_of(heard, random.Random(seed))
    assert clip.features.shape == (CLIP_FRAMES, 64) and clip.words.shape == (CLIP_FRAMES,)
    said = clip.words != NO_WORD
    assert said.sum() >= min(CLIP_FRAMES, frames / 1.16 - 1)
    level = clip.features.median(dim=1).values / 100
    # Masks cover up to 2 x 60 frames; 6 dB of gain are 0.06.
    wrong = ((level - clip.words).abs() > 0.1)[said]
    assert wrong.sum() <= 120 + 3 * (frames // 50 + 1)


def test_a_taught_tower_is_kept_and_taken_by_its_name(tmp_path: Path, readings: list[ReadWords]) -> None:
    taught = tower()
    name = name_of_teaching(taught, ARGUMENTS, seed=0)
    assert not load_taught(tower(), tmp_path / "kept", name)
    teach_words(taught, readings, ARGUMENTS, seed=0)
    with only_teacher(tmp_path / "kept", name):
        keep_taught(taught, tmp_path / "kept", name)
    files = {path.name for path in (tmp_path / "kept").iterdir()}
    assert files == {f"{name}.safetensors", f"{name}.lock"}
    other = tower()
    assert load_taught(other, tmp_path / "kept", name)
    for (key, one), kept in zip(taught.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, kept), key


def test_the_name_tells_apart_what_would_be_taught_otherwise() -> None:
    fresh, moved = tower(), tower()
    with torch.no_grad():
        moved.norm.running_mean[0] += 1
    longer = SpeechWordsArguments(steps=31, batch_size=4, learning_rate=3e-3, words=WORDS, readers=3)
    elsewhere = SpeechWordsArguments(
        steps=30, batch_size=4, learning_rate=3e-3, words=WORDS, readers=3, kept_in="elsewhere"
    )
    name = name_of_teaching(fresh, ARGUMENTS, seed=0)
    assert name == name_of_teaching(fresh, elsewhere, seed=0)
    others = [
        name_of_teaching(moved, ARGUMENTS, seed=0),
        name_of_teaching(fresh, longer, seed=0),
        name_of_teaching(fresh, ARGUMENTS, seed=1),
        name_of_teaching(tower(conv_dim=2), ARGUMENTS, seed=0),
    ]
    assert len({name, *others}) == 5


def test_two_teachers_of_one_tower_take_turns(tmp_path: Path) -> None:
    held = []

    def teach() -> None:
        with only_teacher(tmp_path, "tower"):
            held.append("other")

    other = threading.Thread(target=teach)
    with only_teacher(tmp_path, "tower"), only_teacher(tmp_path, "another tower"):
        other.start()
        other.join(0.3)
        held.append("this")
    other.join()
    assert held == ["this", "other"]
