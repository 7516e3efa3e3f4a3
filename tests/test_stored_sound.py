"""Sound without waveforms as it is stored, and which models take it."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tiny_models import tiny_config, tiny_model

from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from train.arguments import (
    ArgumentsError,
    PretrainArguments,
    SpeechAugmentationArguments,
    SpeechWordsArguments,
)
from train.stored_rows import StoredRowsError
from train.stored_sound import (
    LogMels,
    LogMelSettings,
    TowerEmbeddings,
    decode_array,
    encode_array,
    encoded_sound,
    tower_sha256,
)

LOG_MEL_TOLD = {
    "feature_size": 8,
    "sampling_rate": 32_000,
    "n_fft": 1024,
    "hop_length": 320,
    "min_frequency_hz": 50.0,
    "max_frequency_hz": 14_000.0,
}


def write_info(folder: Path, **info: Any) -> str:
    (folder / "data" / "medium").mkdir(parents=True)
    (folder / "data" / "medium" / "info.json").write_text(json.dumps(info))
    return str(folder)


def choose(dataset: str, column: str, use_audio: bool = True, **fields: Any) -> Any:
    arguments = PretrainArguments("out", dataset=dataset, max_steps=1, **fields)
    return encoded_sound(arguments, dataset, ["clip_id", column], tiny_config(use_audio=use_audio))


@given(arrays(np.float16, array_shapes(max_dims=2)))
def test_arrays_come_back(array: np.ndarray) -> None:
    decoded = decode_array(encode_array(array))
    assert decoded.dtype == array.dtype and decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


@given(st.integers(0, 200))
def test_cut_arrays_are_refused(length: int) -> None:
    whole = encode_array(np.ones((9, 8), dtype=np.float16))
    with pytest.raises(ValueError):
        decode_array(whole[:length])


def test_log_mels_are_padded_with_zeros() -> None:
    stored = [np.full((time, 8), -50.03, dtype=np.float16) for time in (5, 3)]
    log_mels = LogMels(8)
    read = [log_mels.read(encode_array(array)) for array in stored]
    batch = log_mels.batch([*read, None])
    assert batch.shape == (3, 5, 8) and batch.dtype == torch.float32
    assert (batch[0] == float(stored[0][0, 0])).all() and (batch[2] == 0).all()
    assert (batch[1, :3] != 0).all() and (batch[1, 3:] == 0).all()
    with pytest.raises(ValueError, match=r"\(5, 8\) in place of \(time, 9\)"):
        LogMels(9).read(encode_array(stored[0]))


def test_embeddings_are_stacked_and_never_varied() -> None:
    embeddings = TowerEmbeddings(3, "")
    read = embeddings.read([1.0, 2.0, 3.0])
    louder = SpeechAugmentationArguments(gain_db=6.0)
    assert torch.equal(embeddings.vary(read, louder, random.Random(0)), read)
    assert embeddings.batch([None, read]).tolist() == [[0, 0, 0], [1, 2, 3]]


def test_the_name_of_a_tower_changes_with_each_of_its_numbers() -> None:
    tower, same = tiny_model().audio_model, tiny_model().audio_model
    assert tower_sha256(tower) == tower_sha256(same)
    for values in same.state_dict().values():
        before = values.clone()
        values.flatten()[-1:].add_(1)
        assert tower_sha256(tower) != tower_sha256(same)
        values.copy_(before)
    assert tower_sha256(tower) == tower_sha256(same)


def test_a_tower_set_aside_takes_no_gradient_in_either_mode() -> None:
    model = tiny_model(training=True)
    its_own = TowerEmbeddings(6, tower_sha256(model.audio_model))
    assert "made the embeddings" in its_own.set_tower_aside(model.audio_model)
    model.train()
    assert not any(weight.requires_grad for weight in model.audio_model.parameters())
    assert all(weight.requires_grad for weight in model.audio_projection.parameters())
    other = TowerEmbeddings(6, "of another one").set_tower_aside(model.audio_model)
    assert "is not the one that made" in other and "audio_weights.source" in other


@pytest.mark.parametrize("name", LOG_MEL_TOLD)
def test_every_setting_of_a_log_mel_counts(name: str, tmp_path: Path) -> None:
    told = LOG_MEL_TOLD | {name: LOG_MEL_TOLD[name] + 4}
    dataset = write_info(tmp_path, encoder={"log_mel": told})
    with pytest.raises(StoredRowsError, match=f"{name} is {told[name]} in the set and {LOG_MEL_TOLD[name]}"):
        choose(dataset, "log_mel")
    settings = LogMelSettings.of(DualRepFeatureExtractor(feature_size=8))
    assert settings == LogMelSettings(**LOG_MEL_TOLD) and settings.difference(settings) is None
    assert settings.difference(replace(settings, **{name: told[name]})).startswith(name)


def test_sets_that_fit_are_taken(tmp_path: Path) -> None:
    told = {"log_mel": LOG_MEL_TOLD, "hidden_size": 6, "tower_sha256": "of a tower"}
    dataset = write_info(tmp_path, encoder=told)
    log_mels = choose(dataset, "log_mel", speech_augmentation=SpeechAugmentationArguments(masks=1))
    assert isinstance(log_mels, LogMels) and log_mels.width == 8
    embeddings = choose(dataset, "audio_embedding")
    assert isinstance(embeddings, TowerEmbeddings)
    assert (embeddings.width, embeddings.tower_sha256) == (6, "of a tower")
    assert choose(dataset, "audio") is None
    assert choose(dataset, "audio_embedding", use_audio=False) is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"speech_words": SpeechWordsArguments(steps=3)}, "speech_words teaches the speech tower"),
        (
            {"speech_augmentation": SpeechAugmentationArguments(masks=1)},
            "speech_augmentation varies log-mels",
        ),
    ],
)
def test_what_needs_sound_is_refused_with_embeddings(fields: dict, sentence: str, tmp_path: Path) -> None:
    told = {"hidden_size": 6, "tower_sha256": ""}
    with pytest.raises(ArgumentsError, match=sentence):
        choose(write_info(tmp_path, encoder=told), "audio_embedding", **fields)


def test_embeddings_of_another_size_are_refused(tmp_path: Path) -> None:
    dataset = write_info(tmp_path, encoder={"hidden_size": 9, "tower_sha256": ""})
    with pytest.raises(StoredRowsError, match=r"have 9 numbers, but the model's speech tower gives 6"):
        choose(dataset, "audio_embedding")


def test_a_set_that_does_not_tell_its_encoder_is_refused(tmp_path: Path) -> None:
    dataset = write_info(tmp_path)
    with pytest.raises(StoredRowsError, match="prepare_clips_without_waveform"):
        choose(dataset, "log_mel")
