"""What the encoders keep of a waveform, in whatever process."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips_helpers import TINY_MODEL, tiny_processor
from tiny_recordings import tone

from datasets_scripts.schema import SAMPLING_RATE_HZ
from modeling_dualrep import DualRepConfig, DualRepModel
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from train.sound_encoders import LogMelEncoder, TowerEncoder
from train.stored_sound import decode_array

SOUND = tone(0.5, SAMPLING_RATE_HZ)


def write_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    DualRepModel(DualRepConfig(**TINY_MODEL)).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def test_log_mels_have_the_settings_of_the_model(tmp_path: Path) -> None:
    other = DualRepFeatureExtractor(feature_size=20, hop_length=400)
    processor = tiny_processor()
    processor.feature_extractor = other
    DualRepModel(DualRepConfig(**TINY_MODEL)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    encoder = LogMelEncoder.of_model(str(tmp_path))
    expected = other(SOUND, sampling_rate=SAMPLING_RATE_HZ)["input_features"][0]
    stored = decode_array(encoder.encode(SOUND))
    assert stored.shape == (41, 20)
    np.testing.assert_allclose(stored, expected, atol=0.032)
    assert encoder.info()["log_mel"]["hop_length"] == 400


def test_encoders_give_the_same_wherever_they_are_sent(tmp_path: Path) -> None:
    tower = TowerEncoder.of_model(str(write_model(tmp_path)), 0.5)
    threads = torch.get_num_threads()
    for encoder in (LogMelEncoder.of_model(None), tower):
        sent = pickle.loads(pickle.dumps(encoder))
        assert sent == encoder and sent.encode(SOUND) == encoder.encode(SOUND)
        assert encoder.encode(np.zeros(16_000, dtype=np.float32)) is None
    assert torch.get_num_threads() == threads


def test_a_model_that_was_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    encoder = TowerEncoder.of_model(str(write_model(tmp_path)), 0.5)
    write_model(tmp_path, seed=1)
    with pytest.raises(ValueError, match="was changed meanwhile"):
        encoder.encode(SOUND)
    assert TowerEncoder.of_model(str(tmp_path), 0.5) == replace(
        encoder, tower_sha256=TowerEncoder.of_model(str(tmp_path), 0.5).tower_sha256
    )
