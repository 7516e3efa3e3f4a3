"""What a speech tower hears: classifiers over whole scans, and clips with remarks through the command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips_helpers import TINY_MODEL

from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.simulate_scans import SimulationParameters, simulate_scans
from datasets_scripts.simulated_speech import Remark, SpeechParameters
from modeling_dualrep import DualRepConfig, DualRepModel
from train.metrics_file import read_metrics
from train.probe_speech import RemarkClips, fit_linear, main, plane_said, probe_accuracy


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


def test_the_plane_said_is_of_a_whole_remark_or_of_the_longest_part() -> None:
    remarks = [
        Remark(0.0, 3.9, "plane", "femur", "the femur"),
        Remark(4.0, 4.5, "plane", "lips", "lips"),
        Remark(4.6, 9.0, "chat", "kidneys", "it rains"),
        Remark(9.1, 12.0, "plane", "profile", "a profile"),
    ]
    assert plane_said(remarks, 1.0, 6.0) == "lips"
    assert plane_said(remarks, 1.0, 4.4) == "femur"
    assert plane_said(remarks, 4.2, 10.0) == "profile"
    assert plane_said(remarks, 4.2, 9.2) == "lips"


def test_as_many_clips_are_drawn_with_what_belongs_to_them() -> None:
    clips = RemarkClips(
        [torch.tensor([number]) for number in range(20)], torch.arange(20), [str(n) for n in range(20)]
    )
    drawn = clips.drawn(8)
    numbers = [int(features) for features in drawn.features]
    assert len(set(numbers)) == 8 and numbers != list(range(8))
    assert drawn.labels.tolist() == numbers and drawn.scans == [str(number) for number in numbers]
    assert clips.drawn(8).scans == drawn.scans
    assert clips.drawn(20).scans == clips.scans


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
    for clip_seconds in (6, 2):
        parameters = ClipParameters(clip_seconds=clip_seconds, stride_seconds=clip_seconds / 2, frame_size=16)
        prepare_clips(tmp_path / "recordings", tmp_path / "clips", parameters)
    torch.manual_seed(1)
    DualRepModel(DualRepConfig(**TINY_MODEL)).save_pretrained(tmp_path / "model")
    words = [str(tmp_path), f"ours={tmp_path / 'model'}", "--output", str(tmp_path / "probe.json")]
    assert main(words) == 0
    metrics = read_metrics(tmp_path / "probe.json")["metrics"]
    shares = {f"{name}/accuracy_{held}" for name in ("drawn", "ours") for held in ("whole", "part")}
    shares |= {f"clips/most_frequent_share_{held}" for held in ("whole", "part")}
    assert set(metrics) == {"clips/number"} | shares
    assert metrics["clips/number"] >= 4 and all(0 <= metrics[name] <= 1 for name in shares)
    assert main([str(tmp_path), "ours=nowhere", "--output", str(tmp_path / "x.json")]) == 2
    assert "probe_speech.py: " in capsys.readouterr().err
