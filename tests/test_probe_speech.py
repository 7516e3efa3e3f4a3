"""What a speech tower hears: classifiers over whole scans, and clips with remarks through the command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips_helpers import TINY_MODEL

from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.simulate_scans import SimulationParameters, simulate_scans
from datasets_scripts.simulated_speech import SpeechParameters
from modeling_dualrep import DualRepConfig, DualRepModel
from train.metrics_file import read_metrics
from train.probe_speech import fit_linear, main, probe_accuracy


def test_what_stands_in_the_features_is_found() -> None:
    labels = torch.arange(120) % 4
    features = torch.eye(4)[labels] + 0.1 * torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    scans = [str(number // 6) for number in range(120)]
    assert probe_accuracy(features, labels, scans) > 0.98
    assert probe_accuracy(torch.randn(120, 4), labels, scans) < 0.6


def test_features_that_tell_scans_alone_do_not_help() -> None:
    """Each scan has one label and a feature of its own: with scans on both sides that would be enough."""
    chance = np.random.default_rng(0)
    labels = torch.tensor(chance.integers(0, 2, 40)).repeat_interleave(5)
    features = torch.eye(40).repeat_interleave(5, dim=0)
    scans = [f"scan{number // 5}" for number in range(200)]
    everything = fit_linear(features, labels, 2)
    assert ((features @ everything[0] + everything[1]).argmax(dim=1) == labels).all()
    assert probe_accuracy(features, labels, scans) < 0.75


@pytest.mark.slow
def test_recordings_clips_and_a_model_to_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    simulation = SimulationParameters(
        scans=4,
        scan_seconds=24,
        image_size=32,
        frames_per_second=5,
        speech=SpeechParameters(relevant_share=1.0, wrong_share=0.0, chat_share=0.0),
    )
    simulate_scans(tmp_path / "recordings", simulation)
    prepare_clips(
        tmp_path / "recordings", tmp_path / "clips", ClipParameters(stride_seconds=3, frame_size=16)
    )
    torch.manual_seed(1)
    DualRepModel(DualRepConfig(**TINY_MODEL)).save_pretrained(tmp_path / "model")
    words = [str(tmp_path), f"ours={tmp_path / 'model'}", "--output", str(tmp_path / "probe.json")]
    assert main(words) == 0
    metrics = read_metrics(tmp_path / "probe.json")["metrics"]
    assert set(metrics) == {"clips/number", "clips/most_frequent_share", "drawn/accuracy", "ours/accuracy"}
    assert metrics["clips/number"] >= 4 and 0 <= metrics["ours/accuracy"] <= 1
    assert main([str(tmp_path), "ours=nowhere", "--output", str(tmp_path / "x.json")]) == 2
    assert "probe_speech.py: " in capsys.readouterr().err
