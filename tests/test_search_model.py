"""Which models can search, and how they want recordings cut."""

from dataclasses import replace
from pathlib import Path

import pytest
from search_helpers import CLIPS, write_model

from train.search_index import SearchError
from train.search_model import clip_parameters, load_search_model
from train.search_queries import picture_query


def test_models_that_lack_a_tower(tmp_path: Path) -> None:
    mute = write_model(tmp_path / "mute", use_audio=False)
    with pytest.raises(SearchError, match="no speech tower"):
        load_search_model(str(mute))
    blind = load_search_model(str(write_model(tmp_path / "blind", use_image=False)))
    with pytest.raises(SearchError, match="no image tower"):
        picture_query(tmp_path / "frame.png", blind, CLIPS)


def test_how_clips_are_cut_follows_the_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    searcher = load_search_model(str(folder))
    assert clip_parameters(searcher, {}) == CLIPS
    assert clip_parameters(searcher, {"stride_seconds": 2, "sector": "found"}) == replace(
        CLIPS, stride_seconds=2.0, sector="found"
    )
    (folder / "recipe.yaml").write_text("dataset_config: medium_log_mel\nclips: null\n")
    prepared = clip_parameters(searcher, {})
    assert (prepared.clip_seconds, prepared.stride_seconds, prepared.frame_size) == (6.0, 3.0, 160)
    assert (prepared.sector, prepared.speech_detector, prepared.loudness_lufs) == ("found", "silero", -23.0)
    (folder / "recipe.yaml").write_text("dataset_config: clips_4.5s\n")
    assert clip_parameters(searcher, {}).clip_seconds == 4.5
    (folder / "recipe.yaml").unlink()
    with pytest.raises(SearchError, match=r"pass --clips.clip_seconds"):
        clip_parameters(searcher, {})
    assert clip_parameters(searcher, {"clip_seconds": 2}).clip_seconds == 2.0
