"""The Python in a card runs as it stands, where only transformers and the model's folder are."""

from pathlib import Path

import pytest
from card_folders import (
    python_blocks,
    run_elsewhere,
    write_image_planes,
    write_inputs,
    write_pretrained,
    write_saliency,
    write_video_planes,
)

from hub_cards.render import NO_ID, render_card, write_card
from modeling_dualrep import DualRepAudioModel, DualRepImageModel, DualRepVideoModel

# What each snippet leaves behind, checked after it in its own process.
CHECK_FEATURES = """
for embeds in (video_embeds, audio_embeds, image_embeds):
    assert embeds.shape == (1, 6) and embeds.isfinite().all() and embeds.abs().sum() > 0
"""
CHECK_TRAINING = """
assert trainer.state.global_step == 100 and trainer.evaluate()["eval_accuracy"] == 1
from transformers import pipeline
scores = pipeline("image-classification", model="planes", trust_remote_code=True)("frame.png")
assert {score["label"] for score in scores} == {"femur", "lips"} and scores[0]["label"] == "femur"
"""
CHECK_SEARCH = """
assert scores.shape == (3,) and scores.isfinite().all() and (scores.abs() <= 1 + 1e-6).all()
"""
CHECK_PROBABILITIES = """
assert features.shape == (1, 6) and probabilities.shape == (1, 14)
assert abs(probabilities.sum().item() - 1) < 1e-5
"""
CHECK_MAPS = """
assert saliency_maps.shape == (1, 8, 8) and abs(saliency_maps.sum().item() - 1) < 1e-5
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def snippets(folder: Path) -> list[str]:
    """Those of the folder's card, with the folder in the place of the id."""
    write_card(folder)
    blocks = python_blocks((folder / "README.md").read_text(encoding="utf-8"))
    assert blocks and all(NO_ID in block for block in blocks)
    return [block.replace(NO_ID, str(folder)) for block in blocks]


def test_the_three_snippets_of_a_pretrained_model_run(inputs: Path, tmp_path: Path) -> None:
    features, training, search = snippets(write_pretrained(tmp_path / "model"))
    checked = (features + CHECK_FEATURES, training + CHECK_TRAINING, search + CHECK_SEARCH)
    *_, first, second, third = run_elsewhere(inputs, *checked).splitlines()
    scores, clips = zip(*(line.split() for line in (first, second, third)), strict=True)
    assert list(scores) == sorted(scores, key=float, reverse=True)
    assert sorted(clips) == [f"clips/{number}.mp4" for number in range(3)]


def test_the_snippets_of_fine_tuned_models_run(inputs: Path, tmp_path: Path) -> None:
    """PyAV alone reads the clip."""
    classify_frame, frame = snippets(write_image_planes(tmp_path / "frames"))
    classify_clip, clip = snippets(write_video_planes(tmp_path / "clips"))
    (maps,) = snippets(write_saliency(tmp_path / "saliency"))
    printed = run_elsewhere(
        inputs,
        *(classify_frame, frame + CHECK_PROBABILITIES),
        *(classify_clip, clip + CHECK_PROBABILITIES),
        maps + CHECK_MAPS,
        without=("modeling_dualrep", "torchcodec"),
    )
    assert printed.count("'score'") == 2 * 5 and printed.count("'femur': ") == 2


@pytest.mark.slow
def test_the_snippets_of_towers_run(inputs: Path, tmp_path: Path) -> None:
    whole, alone = write_pretrained(tmp_path / "whole"), []
    for tower in (DualRepVideoModel, DualRepAudioModel, DualRepImageModel):
        folder = tmp_path / tower.__name__
        tower.from_pretrained(whole).save_pretrained(folder)
        alone += snippets(folder)
    assert run_elsewhere(inputs, *alone).splitlines() == ["torch.Size([1, 6])"] * 3


def test_a_snippet_that_needs_the_package_is_found(inputs: Path) -> None:
    with pytest.raises(AssertionError, match="modeling_dualrep"):
        run_elsewhere(inputs, "import modeling_dualrep")


@pytest.mark.parametrize(
    ("switched_off", "missing"), [("use_audio", "soundfile"), ("use_image", "image_embeds")]
)
def test_a_model_without_a_tower_shows_no_use_of_it(switched_off: str, missing: str, tmp_path: Path) -> None:
    write_pretrained(tmp_path, **{switched_off: False})
    blocks = python_blocks(render_card(tmp_path).text)
    assert blocks and missing not in "".join(blocks)
    for block in blocks:
        compile(block, "card", "exec")


def test_search_compares_what_the_objective_compared(tmp_path: Path) -> None:
    write_pretrained(tmp_path, use_contrastive_loss=False)
    *_, search = python_blocks(render_card(tmp_path).text)
    assert "remark.audio_similarity_embeds, video_similarity_embeds" in search
