"""What the losses see: fusions that do and do not hold the video, a loop over negatives, and the command."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from clips_helpers import TINY_MODEL
from torch.nn.functional import normalize

from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.schema import PLANES
from datasets_scripts.simulate_scans import SimulationParameters, simulate_scans
from datasets_scripts.simulated_speech import SpeechParameters
from modeling_dualrep import DualRepConfig, DualRepModel
from modeling_dualrep.fusion import ResidualFusion
from train.metrics_file import read_metrics
from train.pretrain import build_processor
from train.pretrained import load_pretrained
from train.probe_objective import (
    embed_clips,
    main,
    plane_number,
    probe_objectives,
    same_plane_negatives,
    speech_found,
)
from train.triples import open_clips

CLIPS, DIM = 12, 16


def fusing(anchored: bool, of_video: float) -> SimpleNamespace:
    """A model that adds so many times the video's direction to the speech."""
    fusion = ResidualFusion(DIM)
    with torch.no_grad():
        fusion.projection.weight.copy_(torch.cat([torch.zeros(DIM, DIM), of_video * torch.eye(DIM)], dim=1))
        fusion.projection.bias.zero_()
    return SimpleNamespace(
        config=SimpleNamespace(fuse_candidates_with_anchor_video=anchored), audio_fusion=fusion
    )


def drawn(*names: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(CLIPS, DIM, generator=generator) for name in names}


@pytest.mark.parametrize("anchored", [False, True])
def test_speech_that_is_the_video_s_is_found_and_another_clip_s_is_not(anchored: bool) -> None:
    video = drawn("video_embeds")["video_embeds"]
    found = speech_found(fusing(anchored, 0.0), {"video_embeds": video, "audio_embeds": 3 * video})
    assert found["own_speech_first"].all() and found["own_speech_first_fused"].all()
    assert not found["other_speech_first"].any() and not found["other_speech_first_fused"].any()


def test_a_fused_candidate_that_holds_its_own_video_is_found_whatever_is_said() -> None:
    embeds = drawn("video_embeds", "audio_embeds")
    found = speech_found(fusing(anchored=False, of_video=100.0), embeds)
    assert found["own_speech_first_fused"].all() and found["other_speech_first_fused"].all()
    assert found["own_speech_first"].float().mean() < 0.5
    found = speech_found(fusing(anchored=True, of_video=100.0), embeds)
    assert found["own_speech_first_fused"].float().mean() < 0.5


def test_equal_speech_is_not_found() -> None:
    embeds = drawn("video_embeds") | {"audio_embeds": torch.ones(CLIPS, DIM)}
    assert not speech_found(fusing(True, 1.0), embeds)["own_speech_first"].any()


def test_negatives_of_the_same_plane_as_a_loop_finds_them() -> None:
    names = [f"{part}_similarity_embeds" for part in ("video", "audio", "image")]
    embeds, planes = drawn(*names), torch.tensor([0, 1, 2, 0, 1, -1, -1, 3, 0, 4, 5, 5])
    embeds[names[2]] = embeds[names[0]]  # so that the own frame, no negative, is the most similar one
    expected: dict[str, list[float]] = {name: [] for name in ("in_batch", "share", "audio", "image")}
    for anchor in range(CLIPS):
        if planes[anchor] < 0:
            continue
        others = [other for other in range(CLIPS) if other != anchor]
        shares = [float(planes[other] == planes[anchor]) for other in others]
        expected["in_batch"].append(max(shares))
        expected["share"].append(sum(shares) / len(shares))
        for part in ("audio", "image"):
            cosines = normalize(embeds[f"{part}_similarity_embeds"]) @ normalize(embeds[names[0]])[anchor]
            expected[part].append(shares[cosines[others].argmax()])
    found = same_plane_negatives(embeds, planes)
    for name, measure in (
        ("in_batch", "same_plane_in_batch"),
        ("share", "same_plane_of_negatives"),
        ("audio", "same_plane_of_hardest_audio"),
        ("image", "same_plane_of_hardest_image"),
    ):
        assert found[measure].float().tolist() == pytest.approx(expected[name]), name


def test_background_is_no_plane_to_share() -> None:
    assert plane_number("background") == -1
    assert {plane_number(plane) for plane in ("femur", "lips")} == {
        PLANES.index("femur"),
        PLANES.index("lips"),
    }


@pytest.mark.slow
def test_recordings_clips_and_models_to_shares(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    simulation = SimulationParameters(
        scans=6,
        scan_seconds=40,
        image_size=32,
        frames_per_second=5,
        speech=SpeechParameters(relevant_share=0.6, wrong_share=0.0, chat_share=0.0),
    )
    simulate_scans(tmp_path / "recordings", simulation)
    parameters = ClipParameters(stride_seconds=1, frame_size=16, validation_fraction=0.5)
    prepare_clips(tmp_path / "recordings", tmp_path / "clips", parameters)
    for name, fields in (("whole", {}), ("without_image", {"use_image": False})):
        config = DualRepConfig(**TINY_MODEL, **fields)
        torch.manual_seed(1)
        DualRepModel(config).save_pretrained(tmp_path / name)
        build_processor(config).save_pretrained(tmp_path / name)
    clips = embed_clips(*load_pretrained(str(tmp_path / "whole")), tmp_path / "clips")
    fractions = [
        row["speech_fraction"] for row in open_clips(str(tmp_path / "clips"), "medium", "validation")
    ]
    assert {len(values) for values in clips.embeds.values()} == {len(clips.clip_ids)}
    assert len(clips.clip_ids) == sum(fraction >= 0.05 for fraction in fractions) < len(fractions)
    output = ["--output", str(tmp_path / "probe.json")]
    assert main([str(tmp_path), f"ours={tmp_path / 'whole'}", *output]) == 0
    metrics = read_metrics(tmp_path / "probe.json")["metrics"]
    assert metrics["clips/number"] >= 64 and metrics["clips/chance"] == 1 / 64
    assert all(0 <= value <= 1 for name, value in metrics.items() if name != "clips/number")
    assert metrics["ours/same_plane_in_batch"] > metrics["ours/same_plane_of_negatives"] > 0
    assert main([str(tmp_path), f"ours={tmp_path / 'without_image'}", *output]) == 2
    assert "was not pretrained with all terms" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"Only \d+ of the clips held out"):
        probe_objectives(tmp_path, {"ours": tmp_path / "whole"}, batch=1000)
