"""Configurations: what they hold, what they refuse, and that nothing is lost on the way through a file."""

import json
from pathlib import Path

import pytest
from tiny_models import tiny_config

from modeling_dualrep import DualRepAudioConfig, DualRepConfig, DualRepImageConfig, DualRepVideoConfig

CONFIGS = [DualRepConfig, DualRepVideoConfig, DualRepAudioConfig, DualRepImageConfig]


def test_the_defaults_are_the_papers() -> None:
    config = DualRepConfig()
    assert (config.projection_dim, config.temperature, config.contrastive_balance) == (512, 0.1, 0.5)
    assert (config.negatives, config.fuse_candidates_with_anchor_video) == ("hardest", False)
    assert config.use_contrastive_loss and config.use_similarity_loss
    assert config.use_audio and config.use_image
    assert (config.video_config.num_frames, config.video_config.image_size) == (14, 128)
    assert (config.video_config.hidden_size, config.image_config.hidden_size) == (512, 512)
    assert (config.audio_config.conv_dim, config.audio_config.hidden_size) == (1, 2048)
    assert (config.saliency_decoder_size, config.saliency_center_bias, config.saliency_loss) == (
        64,
        False,
        "kld",
    )


def test_the_video_pipeline_finds_the_number_of_frames() -> None:
    assert DualRepConfig(video_config={"num_frames": 9}).num_frames == 9


def test_over_time_alone_any_number_of_mel_bins_is_taken() -> None:
    assert DualRepAudioConfig(conv_dim=1, num_mel_bins=1).num_mel_bins == 1


def test_towers_are_given_as_dicts_or_configurations() -> None:
    fields = {"hidden_sizes": [4, 6], "depths": [1, 1]}
    by_dict = DualRepConfig(video_config=fields)
    by_config = DualRepConfig(video_config=DualRepVideoConfig(**fields))
    assert isinstance(by_dict.video_config, DualRepVideoConfig)
    assert by_dict.to_dict() == by_config.to_dict()


@pytest.mark.parametrize("config", CONFIGS)
def test_an_unknown_field_is_refused(config: type) -> None:
    with pytest.raises(ValueError, match=rf"{config.__name__} has no field 'hiden_size'. Its fields are: "):
        config(hiden_size=3)


def test_an_unknown_field_of_a_tower_is_refused() -> None:
    with pytest.raises(ValueError, match=r"DualRepAudioConfig has no field 'conv_dims'.*conv_dim"):
        DualRepConfig(audio_config={"conv_dims": 2})


@pytest.mark.parametrize("tower", [None, "video_config"])
def test_an_unknown_field_in_a_file_is_refused(tmp_path: Path, tower: str | None) -> None:
    tiny_config().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    (fields if tower is None else fields[tower])["temprature"] = 0.2
    file.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="has no field 'temprature'"):
        DualRepConfig.from_pretrained(tmp_path)


def test_what_the_transformers_trainer_sets_can_be_saved_and_loaded(tmp_path: Path) -> None:
    config = tiny_config()
    config.use_cache = False
    config.save_pretrained(tmp_path)
    assert DualRepConfig.from_pretrained(tmp_path).temperature == config.temperature


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (DualRepConfig, {"temperature": 0.0}, "temperature is 0.0, but must be above 0"),
        (DualRepConfig, {"temperature": float("nan")}, "temperature is nan, but must be above 0 and finite"),
        (DualRepConfig, {"margin": float("inf")}, "margin is inf, but must be at least 0 and finite"),
        (DualRepConfig, {"contrastive_balance": 1.5}, "contrastive_balance is 1.5, but must be between"),
        (DualRepConfig, {"margin": -0.1}, "margin is -0.1, but must be at least 0"),
        (DualRepConfig, {"projection_dim": 0}, "projection_dim is 0, but must be at least 1"),
        (DualRepConfig, {"audio_loss_weight": -1.0}, "audio_loss_weight is -1.0"),
        (DualRepConfig, {"image_loss_weight": -1.0}, "image_loss_weight is -1.0"),
        (DualRepConfig, {"negatives": "hard"}, "negatives is 'hard', but must be 'hardest' or 'mean'"),
        (DualRepConfig, {"saliency_decoder_size": 0}, "saliency_decoder_size is 0, but must be at least 1"),
        (DualRepConfig, {"saliency_loss": "kl"}, "saliency_loss is 'kl', but must be 'kld' or 'kld_cc_nss'"),
        (
            DualRepConfig,
            {"use_contrastive_loss": False, "use_similarity_loss": False},
            "one loss must remain",
        ),
        (DualRepConfig, {"use_audio": False, "use_image": False}, "video needs one partner"),
        (DualRepVideoConfig, {"num_frames": 0}, "num_frames is 0"),
        (DualRepVideoConfig, {"depths": [1, 1]}, "depths is .* as long as hidden_sizes"),
        (DualRepVideoConfig, {"hidden_sizes": []}, "hidden_sizes is .* positive integers"),
        (DualRepImageConfig, {"embedding_size": 0}, "embedding_size is 0"),
        (DualRepImageConfig, {"depths": [1, 1, 1, 0]}, "depths is .* positive integers"),
        (DualRepAudioConfig, {"conv_dim": 3}, "conv_dim is 3, but must be 1"),
        (
            DualRepAudioConfig,
            {"conv_dim": 2, "num_mel_bins": 31},
            "num_mel_bins is 31, but must be at least 32",
        ),
        (DualRepAudioConfig, {"num_mel_bins": 0}, "num_mel_bins is 0"),
        (DualRepAudioConfig, {"block_dropout": 1.0}, "block_dropout is 1.0"),
        (DualRepAudioConfig, {"embedding_dropout": -0.5}, "embedding_dropout is -0.5"),
    ],
)
def test_a_value_without_sense_is_refused(config: type, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        # What YAML makes of 1e-1 is text.
        (DualRepConfig, {"temperature": "1e-1"}, r"temperature is '1e-1', but must be of type float \| int"),
        (DualRepConfig, {"use_audio": "no"}, "DualRepConfig.use_audio is 'no', but must be of type bool"),
        (DualRepConfig, {"projection_dim": 2.5}, "projection_dim is 2.5, but must be of type int"),
        (DualRepConfig, {"margin": True}, "margin is True, but must be of type float"),
        (
            DualRepConfig,
            {"saliency_decoder_size": 8.0},
            "saliency_decoder_size is 8.0, but must be of type int",
        ),
        (DualRepConfig, {"saliency_center_bias": 1}, "saliency_center_bias is 1, but must be of type bool"),
        (DualRepConfig, {"negatives": None}, "negatives is None, but must be of type str"),
        (DualRepVideoConfig, {"hidden_sizes": 5}, "hidden_sizes is 5, but must be of type list"),
        (DualRepVideoConfig, {"freeze": "yes"}, "freeze is 'yes', but must be of type bool"),
        (DualRepImageConfig, {"depths": [2, 2, 2, True]}, "depths is .* must be of type list"),
        (DualRepAudioConfig, {"conv_dim": 2.0}, "conv_dim is 2.0, but must be of type int"),
    ],
)
def test_a_value_of_another_type_is_refused(config: type, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_whole_numbers_stand_for_floats() -> None:
    config = DualRepConfig(temperature=1, margin=0, audio_config={"block_dropout": 0})
    assert (config.temperature, config.margin, config.audio_config.block_dropout) == (1, 0, 0)


def test_a_file_keeps_every_field(tmp_path: Path) -> None:
    changed = {
        "temperature": 0.05,
        "contrastive_balance": 0.3,
        "margin": 0.4,
        "use_image": False,
        "audio_loss_weight": 2.0,
        "image_loss_weight": 0.2,
        "fuse_candidates_with_anchor_video": True,
        "negatives": "mean",
        "saliency_decoder_size": 5,
        "saliency_center_bias": True,
        "saliency_loss": "kld_cc_nss",
    }
    config = tiny_config(**changed)
    config.audio_config.freeze = True
    config.save_pretrained(tmp_path)
    loaded = DualRepConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert {name: getattr(loaded, name) for name in changed} == changed
    assert loaded.audio_config.freeze and loaded.num_frames == config.num_frames


@pytest.mark.parametrize("config", CONFIGS[1:])
def test_the_file_of_another_architecture_is_refused(tmp_path: Path, config: type) -> None:
    config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"model_type is '{config.model_type}', but must be 'dualrep'"):
        DualRepConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["video_config", "audio_config", "image_config"])
def test_the_file_of_the_whole_gives_the_configuration_of_a_tower(tmp_path: Path, name: str) -> None:
    config = tiny_config()
    config.save_pretrained(tmp_path)
    tower = getattr(config, name)
    loaded = type(tower).from_pretrained(tmp_path)
    assert {field: getattr(loaded, field) for field in tower.own_fields()} == {
        field: getattr(tower, field) for field in tower.own_fields()
    }
