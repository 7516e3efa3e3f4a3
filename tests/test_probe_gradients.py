"""How much each loss teaches: against whole backward passes, under another balance, and the command."""

import random
from pathlib import Path

import pytest
import torch
from clips_helpers import TINY_MODEL, make_row, tiny_processor, write_clips
from torch import Tensor
from transformers import BatchFeature

from modeling_dualrep import DualRepConfig, DualRepModel
from train.metrics_file import read_metrics
from train.probe_gradients import gradients_compared, main, probe_gradients
from train.triples import gallery_batches

CLIPS = 6


def drawn_clips() -> BatchFeature:
    sounding = torch.arange(CLIPS) != 2
    return BatchFeature(
        {
            "pixel_values_videos": torch.randn(CLIPS, 14, 3, 16, 16),
            "input_features": torch.randn(CLIPS, 20, 64) * sounding[:, None, None],
            "pixel_values": torch.randn(CLIPS, 3, 16, 16),
            "audio_mask": sounding,
        }
    )


def tiny_model(**fields) -> DualRepModel:
    """Without what draws anew at every pass, so that two passes can be compared."""
    audio = TINY_MODEL["audio_config"] | {"embedding_dropout": 0.0, "block_dropout": 0.0}
    torch.manual_seed(3)
    return DualRepModel(DualRepConfig(**{**TINY_MODEL, "audio_config": audio, **fields})).train()


def whole_gradient(model: DualRepModel, tower: str, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in getattr(model, f"{tower}_model").parameters()])


@pytest.mark.parametrize("tower", ["video", "image"])
def test_shares_and_directions_are_those_of_two_backward_passes(tower: str) -> None:
    inputs, gradients = drawn_clips(), []
    compared = gradients_compared(tiny_model(), inputs)
    for absent in ("contrastive", "similarity"):
        model = tiny_model()
        terms = model(**inputs, return_loss=True).loss_terms
        kept = sum(value for name, value in terms.items() if absent not in name)
        gradients.append(whole_gradient(model, tower, kept))
    similarity, contrastive = gradients
    share = similarity.norm() / (similarity.norm() + contrastive.norm())
    assert compared[f"similarity_share_of_{tower}"] == pytest.approx(share.item(), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(similarity, contrastive, dim=0)
    assert compared[f"direction_of_{tower}"] == pytest.approx(cosine.item(), abs=1e-4)
    assert 0.01 < share < 0.99


def test_the_balance_of_the_losses_moves_their_shares_and_no_direction() -> None:
    inputs = drawn_clips()
    even = gradients_compared(tiny_model(contrastive_balance=0.5), inputs)
    tilted = gradients_compared(tiny_model(contrastive_balance=0.1), inputs)
    for tower in ("video", "image"):
        share = even[f"similarity_share_of_{tower}"]
        ninefold = 9 * share / (9 * share + 1 - share)
        assert tilted[f"similarity_share_of_{tower}"] == pytest.approx(ninefold, rel=1e-4)
        assert tilted[f"direction_of_{tower}"] == pytest.approx(even[f"direction_of_{tower}"], abs=1e-4)


def test_losses_that_are_all_met_have_no_part_and_no_direction() -> None:
    model = tiny_model()
    for part in ("video", "audio", "image"):
        # A direction of its own for each clip, the same in all modalities.
        getattr(model, f"{part}_similarity").forward = lambda embeds: torch.eye(CLIPS) * embeds.norm()
    inputs = drawn_clips()
    inputs["audio_mask"] = torch.ones(CLIPS, dtype=torch.bool)
    compared = gradients_compared(model, inputs)
    assert compared["similarity_share_of_video"] == compared["direction_of_video"] == 0


def held_out(clips: int) -> list[dict]:
    """Rows whose frames differ from clip to clip, of one scan after the other."""
    rows = [make_row(f"clip{number}", f"scan{number // 4}", float(number)) for number in range(clips)]
    for number, row in enumerate(rows):
        random.Random(number).shuffle(row["frames"])
    return rows


def test_batches_mix_the_scans_and_the_model_is_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clips(tmp_path / "clips", [[make_row("t", "other", 0.0)]], [held_out(24)])
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    training, scans = [], []

    def batches(triples, rows, batch_size):
        scans.extend(row["scan_id"] for row in rows)
        return gallery_batches(triples, rows, batch_size)

    def compared(model, inputs):
        training.append(model.training)
        return {"measure": 0.0}

    monkeypatch.setattr("train.probe_gradients.gallery_batches", batches)
    monkeypatch.setattr("train.probe_gradients.gradients_compared", compared)
    probe_gradients(tmp_path, {"ours": tmp_path / "model"}, batch=8)
    assert training == [True, True, True]
    assert len(scans) == 24 and len(set(scans[:8])) > 2


def test_clips_and_models_to_shares(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_clips(tmp_path / "clips", [[make_row("t", "other", 0.0)]], [held_out(70)])
    for name, fields in (("whole", {}), ("without_image", {"use_image": False})):
        tiny_model(**fields).save_pretrained(tmp_path / name)
        tiny_processor().save_pretrained(tmp_path / name)
    output = ["--output", str(tmp_path / "probe.json")]
    assert main([str(tmp_path), f"ours={tmp_path / 'whole'}", *output]) == 0
    written = read_metrics(tmp_path / "probe.json")
    assert written["recipe"] == "probe_gradients" and written["metrics"]["clips/number"] == 64
    assert 0 < written["metrics"]["ours/similarity_share_of_video"] < 1
    again = probe_gradients(tmp_path, {"ours": tmp_path / "whole"})
    assert again == written["metrics"]
    smaller = probe_gradients(tmp_path, {"ours": tmp_path / "whole"}, batch=10)
    assert smaller["clips/number"] == 70
    assert main([str(tmp_path), f"ours={tmp_path / 'without_image'}", *output]) == 2
    assert "was not pretrained with all terms" in capsys.readouterr().err
    with pytest.raises(ValueError, match="Only 70 clips are held out"):
        probe_gradients(tmp_path, {"ours": tmp_path / "whole"}, batch=71)
