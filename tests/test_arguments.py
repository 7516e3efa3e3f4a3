"""Recipes and flags: what is taken, what is refused, and what the refusal says."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from train.arguments import (
    ArgumentsError,
    PretrainArguments,
    build,
    help_text,
    merge,
    parse_arguments,
    read_flags,
    read_recipe,
)

NOT_PRETRAINING = ("*_planes.yaml", "*_saliency.yaml", "reproduce*.yaml", "benchmark_ceiling.yaml")
RECIPES = sorted(
    path
    for path in (Path(__file__).parents[1] / "train" / "recipes").glob("*.yaml")
    if not any(path.match(pattern) for pattern in NOT_PRETRAINING)
)
MINIMAL = {"output_dir": "out", "dataset": "clips", "max_steps": 3}


def write_recipe(folder: Path, **fields: object) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields))
    return str(path)


def test_flags_lie_over_the_recipe_section_by_section(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **MINIMAL, model={"temperature": 0.1, "video_config": {"image_size": 64}})
    arguments = parse_arguments(
        f"{recipe} --model.temperature 0.01 --model.video_config.hidden_sizes [8,16] "
        "--model.video_config.depths=[1,1] --learning_rate 1e-4 --max_steps=7".split(),
        "unused",
    )
    assert arguments.max_steps == 7
    assert arguments.learning_rate == 1e-4
    config = arguments.model_config()
    assert config.temperature == 0.01
    assert list(config.video_config.hidden_sizes) == [8, 16]
    assert config.video_config.image_size == 64


def test_without_recipe_the_default_recipe_is_taken_but_not_with_a_dataset(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **MINIMAL, seed=5)
    assert parse_arguments([], recipe).seed == 5
    assert parse_arguments(["--seed", "6"], recipe).seed == 6
    alone = parse_arguments(["--dataset", "other", "--output_dir", "o", "--max_steps", "1"], recipe)
    assert (alone.dataset, alone.seed) == ("other", 0)


def test_a_dataset_flag_takes_the_place_of_a_recipe_s_simulation(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        output_dir="o",
        max_steps=1,
        data_dir="d",
        simulation={"scans": 2},
        clips={"clip_seconds": 2},
    )
    arguments = parse_arguments([recipe, "--dataset", "mine"], "unused")
    assert (arguments.dataset, arguments.simulation, arguments.clips) == ("mine", None, None)


@pytest.mark.parametrize(
    ("fields", "flags", "expected"),
    [
        ({"learning_rat": 1}, [], ["recipe.yaml", "'learning_rat'", "learning_rate"]),
        ({"augmentation": {"crop": 1}}, [], ["recipe.yaml", "'augmentation.crop'", "crop_scale"]),
        ({}, ["--sed", "1"], ["command line", "'sed'", "seed"]),
        ({}, ["--speech_words.step", "1"], ["'speech_words.step'", "steps"]),
        ({"model": {"temprature": 1}}, [], ["recipe.yaml", "temprature", "temperature"]),
        (
            {"model": {"video_config": {"hiden_sizes": [8]}}},
            [],
            ["recipe.yaml", "hiden_sizes", "hidden_sizes"],
        ),
        ({"max_steps": "many"}, [], ["recipe.yaml", "max_steps", "'many'", "int"]),
        ({"max_steps": True}, [], ["max_steps", "int"]),
        ({"max_steps": 1.5}, [], ["max_steps", "int"]),
        ({"model": 3}, [], ["model", "section"]),
        ({"augmentation": 3}, [], ["augmentation", "section"]),
        ({"keep_clips_in_memory": 1}, [], ["keep_clips_in_memory", "bool"]),
        ({"learning_rate": 0}, [], ["learning_rate is 0.0", "above 0"]),
        ({"augmentation": {"crop_scale": 2}}, [], ["augmentation.crop_scale is 2"]),
        ({"per_device_train_batch_size": 1}, [], ["per_device_train_batch_size", "negatives"]),
        ({"lr_scheduler_type": "cos"}, [], ["lr_scheduler_type", "cosine"]),
        ({"mixed_precision": "fp8"}, [], ["mixed_precision", "bf16"]),
        ({"max_steps": None}, [], ["max_steps", "num_train_epochs"]),
        ({"dataset": None}, [], ["dataset", "simulation"]),
        ({"simulation": {"scans": 2}}, [], ["dataset", "not both"]),
        ({}, ["--seed"], ["--seed", "no value"]),
        ({}, ["--seed", "--max_steps", "1"], ["--seed", "no value"]),
        ({}, ["--seed", "1", "2"], ["'2'", "no flag"]),
        ({"video_weights": {"path": "x"}}, [], ["video_weights.source is missing"]),
        (
            {"model": {"use_audio": False}, "speech_words": {"steps": 1}},
            [],
            ["speech_words", "model.use_audio false"],
        ),
        (
            {"model": {"use_audio": False}, "audio_weights": {"source": "panns"}},
            [],
            ["audio_weights", "model.use_audio false"],
        ),
        (
            {"model": {"use_image": False}, "image_weights": {"source": "imagenet"}},
            [],
            ["image_weights", "model.use_image false"],
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, fields: dict, flags: list[str], expected: list[str]
) -> None:
    recipe = write_recipe(tmp_path, **{**MINIMAL, **fields})
    with pytest.raises(ArgumentsError) as refusal:
        parse_arguments([recipe, *flags], "unused")
    for part in expected:
        assert part in str(refusal.value)


def test_a_missing_or_broken_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match=r"no recipe .*nowhere.yaml"):
        read_recipe(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ArgumentsError, match=r"broken.yaml is not valid YAML"):
        read_recipe(broken)
    broken.write_text("just words")
    with pytest.raises(ArgumentsError, match="holds no fields"):
        read_recipe(broken)


@pytest.mark.parametrize("written", ["3e-3", "3E-3", "0.003", "+3.0e-3", ".3e-2", "3.e-3"])
def test_numbers_as_people_write_them(written: str) -> None:
    assert read_flags(["--learning_rate", written]) == {"learning_rate": 0.003}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**31),
            "learning_rate": st.floats(1e-9, 10),
            "mixed_precision": st.sampled_from(["no", "bf16", None]),
            "keep_clips_in_memory": st.booleans(),
            "max_grad_norm": st.none() | st.floats(1e-3, 1e3),
            "augmentation": st.fixed_dictionaries({"crop_scale": st.floats(0.01, 1)}),
            "model": st.fixed_dictionaries({"temperature": st.floats(1e-3, 1)}),
        },
    )
)
def test_a_written_recipe_reads_back_the_same(fields: dict) -> None:
    import tempfile

    arguments = build(PretrainArguments, {**MINIMAL, **fields}, "test")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(arguments.to_yaml())
        assert parse_arguments([str(path)], "unused") == arguments


def test_merge_leaves_its_inputs_alone() -> None:
    fields = {"model": {"a": 1}}
    assert merge(fields, {"model": {"b": 2}}) == {"model": {"a": 1, "b": 2}}
    assert fields == {"model": {"a": 1}}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_pretraining_recipe_can_be_used(recipe: Path) -> None:
    flags = [] if "simulation" in read_recipe(recipe) else ["--dataset", "clips"]
    assert parse_arguments([str(recipe), *flags], "unused").model_config()


@pytest.mark.parametrize("clips", ["medium", "large"])
def test_the_paper_s_recipes_are_as_printed(clips: str) -> None:
    recipe = next(path for path in RECIPES if path.stem == f"paper_{clips}")
    arguments = parse_arguments([str(recipe), "--dataset", "clips"], "unused")
    config = arguments.model_config()
    assert (arguments.learning_rate, arguments.weight_decay, arguments.dataset_config) == (3e-3, 1e-4, clips)
    assert (config.temperature, config.contrastive_balance, config.negatives) == (0.1, 0.5, "hardest")
    assert (config.audio_loss_weight, config.image_loss_weight) == (1.0, 1.0)
    assert not config.fuse_candidates_with_anchor_video
    assert arguments.mean_negatives_steps == 0
    assert (config.num_frames, config.projection_dim, config.audio_config.conv_dim) == (14, 512, 1)
    assert arguments.speech_words.steps == 0


def test_the_help_names_every_field() -> None:
    text = help_text()
    for name in PretrainArguments.__dataclass_fields__:
        assert f"--{name} " in text
        assert text.count(name) >= 2, f"{name} is not described"
