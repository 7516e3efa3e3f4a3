"""What a fine-tuning run is told: recipes, flags over them, and what is refused."""

from pathlib import Path

import pytest
import yaml

from train.arguments import ArgumentsError
from train.finetune_arguments import FinetunePlanesArguments, parse_finetune_arguments

RECIPES = Path(__file__).resolve().parents[1] / "train" / "recipes"
NEEDED = ["--output_dir", "out", "--model", "random", "--dataset", "set", "--max_steps", "3"]


def parse(*words: str) -> FinetunePlanesArguments:
    return parse_finetune_arguments(FinetunePlanesArguments, list(words))[0]


@pytest.mark.parametrize("name", ["demo_planes", "paper_planes"])
def test_recipes_can_be_used_and_are_named(name: str) -> None:
    arguments, recipe = parse_finetune_arguments(
        FinetunePlanesArguments, [str(RECIPES / f"{name}.yaml"), "--dataset", "set"]
    )
    assert recipe == name and arguments.dataset == "set" and arguments.num_splits == 5
    assert arguments.train_share == pytest.approx(2 / 3) and arguments.split_method == "random"


def test_flags_go_over_the_recipe_section_by_section(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "output_dir: out\nmodel: random\ndataset: set\nnum_train_epochs: 2\n"
        "augmentation: {gamma: 0.1, speckle: 0.2}\n"
    )
    arguments = parse(str(path), "--augmentation.gamma", "0.5", "--seed=3", "--linear_probe", "true")
    assert (arguments.augmentation.gamma, arguments.augmentation.speckle) == (0.5, 0.2)
    assert arguments.seed == 3 and arguments.linear_probe and arguments.num_train_epochs == 2


def test_flags_alone_are_enough_and_written_out_they_are_the_same_run(tmp_path: Path) -> None:
    arguments = parse(*NEEDED)
    path = tmp_path / "recipe.yaml"
    path.write_text(arguments.to_yaml())
    assert parse(str(path)) == arguments
    assert yaml.safe_load(arguments.to_yaml())["dataset_config"] == "planes"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--balanse", "none"], "no field 'balanse'. Did you mean balance"),
        (
            ["--balance", "both"],
            "balance is 'both', but must be one of none, class_weights, balanced_sampling",
        ),
        (["--split_method", "kfold"], "split_method is 'kfold'"),
        (["--dataset_config", "gaze"], "dataset_config is 'gaze', but must be one of planes, plane_clips"),
        (["--train_share", "1"], "train_share is 1.0, but must be above 0 and below 1"),
        (["--label_share", "0"], "label_share is 0.0, but must be above 0 and at most 1"),
        (["--num_splits", "0"], "num_splits is 0, but must be at least 1"),
        (["--mixed_precision", "fp16"], "mixed_precision is 'fp16', but must be no or bf16"),
        (["--frame_memory", "disk"], "frame_memory is 'disk'"),
        (["--lr_scheduler_type", "step"], "lr_scheduler_type is 'step'"),
        (["--max_steps", "null"], "max_steps is None, but must be given, or num_train_epochs"),
        (["--config_from", "folder", "--model", "imagenet"], "left out, unless model is random"),
        (["--learning_rate", "0"], "learning_rate is 0.0, but must be above 0"),
        (["--seed", "-1"], "seed is -1, but must be at least 0"),
        (["--augmentation.rotation_degrees", "60"], "rotation_degrees is 60.0, but must be between 0 and 45"),
        (["--augmentation.speckle", "2"], "speckle is 2.0, but must be between 0 and 1"),
        (["--augmentation.shadow", "-1"], "shadow is -1.0, but must be between 0 and 1"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        parse(*NEEDED, *words)
    assert message in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ArgumentsError, match="dataset is missing"):
        parse("--output_dir", "out", "--model", "random")
    with pytest.raises(ArgumentsError, match="There is no recipe nowhere"):
        parse("nowhere.yaml")
