"""The recipe of the experiments: settings over settings, names that stand for something, the smoke test."""

import json
from pathlib import Path

import pytest
from experiment_helpers import small_recipe, write_small_recipe

from datasets_scripts.schema import BACKGROUND, PLANES
from modeling_dualrep.configuration_dualrep import DualRepConfig
from train.arguments import ArgumentsError, PretrainArguments, build, merge
from train.experiment_recipe import full_row_names, read_experiment_recipe
from train.finetune_arguments import FinetunePlanesArguments, FinetuneSaliencyArguments

SHIPPED = Path(__file__).resolve().parents[1] / "train" / "recipes" / "reproduce.yaml"
DESCRIPTION = SHIPPED.parents[2] / "hub_cards" / "results" / "benchmark" / "description.json"
CLAIM = {"name": "a", "task": "planes", "metric": "f1", "better": "best_medium", "worse": "random"}


def test_a_setting_takes_the_fields_that_it_is_put_over(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    printed, best = recipe.pretraining_fields("printed"), recipe.pretraining_fields("best")
    assert "negatives" not in printed["model"] and best["model"].pop("negatives") == "mean"
    assert best == printed


def test_the_smoke_test_changes_its_fields_alone(tmp_path: Path) -> None:
    whole, quick = small_recipe(tmp_path), small_recipe(tmp_path, is_quick=True)
    assert (whole.quick, whole.seeds, quick.quick, quick.seeds) == (False, (0, 1), True, (0,))
    assert quick.pretraining_fields("best")["max_steps"] == 1
    assert quick.pretraining_fields("printed")["max_steps"] == 2 and quick.tables == whole.tables


@pytest.mark.parametrize("quick", [False, True])
def test_a_kept_recipe_reads_back_as_it_was(tmp_path: Path, quick: bool) -> None:
    for recipe in (small_recipe(tmp_path, quick), read_experiment_recipe(SHIPPED, quick)):
        kept = tmp_path / "kept.yaml"
        kept.write_text(recipe.to_yaml())
        assert read_experiment_recipe(kept) == recipe


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"sedes": [1]}, r"no field 'sedes'.*seeds"),
        ({"quick": {"sedes": [1]}}, r"no field 'quick\.sedes'"),
        ({"rows": {"random": {"tilte": "x"}}}, r"no field 'rows\.random\.tilte'.*title"),
        ({"rows": {"random": {"start": "nothing"}}}, r"rows\.random\.start names 'nothing'"),
        ({"settings": {"best": {"over": "bset"}}}, r"settings\.best\.over names 'bset'"),
        ({"settings": {"printed": {"over": "best"}}}, "in a circle"),
        ({"tables": {"1": {"rows": ["rnadom"]}}}, r"tables\.1\.rows names 'rnadom'"),
        ({"tables": {"1": {"tasks": ["plane"]}}}, r"tables\.1\.tasks is .*planes_frozen"),
        ({"tables": {"1": {"tasks": ["saliency"]}}}, "searches are missing"),
        ({"tables": {"1": {"settings": ["worst"]}}}, r"tables\.1\.settings names 'worst'"),
        ({"tables": {"1": {"draws": [7]}}}, r"tables\.1\.draws names 7, but there is only 0"),
        ({"pretrainings": {"medium": {"clips": "huge"}}}, r"pretrainings\.medium\.clips is 'huge'"),
        ({"pretrainings": {"medium": {"relevant_speech": 2}}}, "between 0 and 1"),
        ({"searches": {"planes": {"steps": []}}}, r"searches\.planes\.steps"),
        ({"splits": 0}, "splits is 0"),
        ({"seeds": []}, "seeds is"),
        ({"claims": [{**CLAIM, "better": "medium"}]}, "the claim 'a' names 'medium'.*best_medium"),
        ({"claims": [{**CLAIM, "task": "plane"}]}, "the claim 'a' names 'plane'"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, fields: dict, refusal: str) -> None:
    with pytest.raises(ArgumentsError, match=refusal):
        small_recipe(tmp_path, **fields)


def shipped_models(quick: bool) -> dict[tuple[str, str], PretrainArguments]:
    recipe = read_experiment_recipe(SHIPPED, quick)
    return {
        (setting, name): build(
            PretrainArguments,
            merge(recipe.pretraining_fields(setting), spec.fields) | {"output_dir": "x", "dataset": "x"},
            "test",
        )
        for setting in recipe.settings
        for name, spec in recipe.pretrainings.items()
    }


@pytest.mark.parametrize("quick", [False, True])
def test_every_pretraining_and_fine_tuning_that_we_ship_can_be_built(quick: bool) -> None:
    models = shipped_models(quick)
    assert all(isinstance(arguments.model_config(), DualRepConfig) for arguments in models.values())
    recipe = read_experiment_recipe(SHIPPED, quick)
    for name, fields in recipe.finetuning.items():
        cls = FinetuneSaliencyArguments if name == "saliency" else FinetunePlanesArguments
        for row in recipe.rows.values():
            told = {"output_dir": "x", "model": "random", "dataset": "x", "max_steps": 1}
            build(cls, merge(fields, row.finetuning) | told, "test")


def test_a_recipe_over_another_changes_what_it_says_alone(tmp_path: Path) -> None:
    small = write_small_recipe(tmp_path)
    over = tmp_path / "over.yaml"
    over.write_text("over: small.yaml\npretraining: {max_steps: 9}\n")
    recipe, below = read_experiment_recipe(over), read_experiment_recipe(small)
    assert (recipe.name, recipe.pretraining) == ("over", below.pretraining | {"max_steps": 9})
    assert recipe.tables == below.tables and recipe.settings == below.settings
    over.write_text("over: over.yaml\n")
    with pytest.raises(ArgumentsError, match="over names the recipe itself"):
        read_experiment_recipe(over)


def test_full_size_towers_are_those_of_the_paper() -> None:
    full = read_experiment_recipe(SHIPPED.with_name("reproduce_full_size.yaml"))
    told = full.pretraining_fields("printed") | {"output_dir": "x", "dataset": "x"}
    config = build(PretrainArguments, told, "test").model_config()
    paper = DualRepConfig()
    for tower in ("video_config", "image_config", "audio_config"):
        here, there = getattr(config, tower), getattr(paper, tower)
        assert list(here.hidden_sizes) == list(there.hidden_sizes)
        assert list(getattr(here, "depths", ())) == list(getattr(there, "depths", ()))
    assert config.projection_dim == paper.projection_dim == 512
    assert full.tables == read_experiment_recipe(SHIPPED).tables


def test_the_printed_setting_is_the_paper_s() -> None:
    printed = shipped_models(False)["printed", "medium"]
    config = printed.model_config()
    assert (printed.learning_rate, printed.weight_decay, printed.lr_scheduler_type) == (
        3e-3,
        1e-4,
        "constant",
    )
    assert (config.temperature, config.contrastive_balance, config.margin) == (0.1, 0.5, 0.2)
    assert (config.negatives, config.image_loss_weight, config.audio_loss_weight) == ("hardest", 1.0, 1.0)
    assert not config.fuse_candidates_with_anchor_video and printed.speech_words.steps == 0
    assert printed.mean_negatives_steps == 0


def test_the_best_setting_is_all_options_and_each_stands_alone_beside_it() -> None:
    recipe = read_experiment_recipe(SHIPPED)
    longer = {name for name, spec in recipe.settings.items() if set(spec.fields) == {"max_steps"}}
    options = {k: v for k, v in recipe.settings.items() if k not in longer | {"printed", "best"}}
    together: dict = {}
    for spec in options.values():
        assert spec.over == "printed" and spec.fields
        together = merge(together, spec.fields)
    assert together == recipe.settings["best"].fields and recipe.settings["best"].over == "printed"
    assert set(recipe.tables["options"].settings) == {"printed", "best", *options, *longer}


def test_every_initialisation_has_the_same_search() -> None:
    recipe = read_experiment_recipe(SHIPPED)
    searched = {"learning_rate", "max_steps", "num_train_epochs"}
    assert not any(searched & set(row.finetuning) for row in recipe.rows.values())
    assert recipe.rows["random"].finetuning == recipe.rows["medium"].finetuning == {}
    for share in (1, 2, 5, 50, 100):
        pair = [recipe.rows[f"{start}_{share}_percent"].finetuning for start in ("random", "medium")]
        assert pair[0] == pair[1] and pair[0]["label_share"] == share / 100


def test_the_paper_s_rows_are_there() -> None:
    recipe = read_experiment_recipe(SHIPPED)
    for table in ("1", "2"):
        assert recipe.tables[table].rows == ("imagenet", "random", "large", "medium")
    assert set(recipe.tables["3"].rows) == {"mmsl_only", "mmcl_only", "without_image", "medium"}
    assert len(recipe.seeds) >= 3 and len(recipe.draws) >= 2 and recipe.splits == 5
    assert {"imagenet", "random", "best_medium", "printed_large"} <= full_row_names(recipe)


def test_no_pretraining_of_the_shipped_smoke_test_is_long() -> None:
    recipe = read_experiment_recipe(SHIPPED, quick=True)
    steps = {setting: recipe.pretraining_fields(setting)["max_steps"] for setting in recipe.settings}
    assert set(steps.values()) == {4, 8} and steps["best"] == 4
    assert not [name for name, spec in recipe.pretrainings.items() if "max_steps" in spec.fields]


def test_no_batch_of_the_shipped_smoke_test_wants_more_than_a_frame_of_each_plane() -> None:
    recipe = read_experiment_recipe(SHIPPED, quick=True)
    told = [merge(recipe.finetuning["planes"], row.finetuning) for row in recipe.rows.values()]
    few = [fields["per_device_train_batch_size"] for fields in told if fields["label_share"] < 0.1]
    assert len(few) == 6 and max(few) <= len(set(PLANES) - {BACKGROUND})


def test_longer_training_differs_in_nothing_but_its_length() -> None:
    recipe = read_experiment_recipe(SHIPPED)
    longer, printed = recipe.settings["longer"], recipe.settings["printed_longer"]
    assert longer.fields == printed.fields and set(longer.fields) == {"max_steps"}
    assert (longer.over, printed.over) == ("best", "printed")


def test_longer_training_is_as_long_as_the_large_clips_take_in_epochs() -> None:
    """As `matched_in: epochs` counts it, on the clips of the benchmark."""
    recipe = read_experiment_recipe(SHIPPED)
    clips = json.loads(DESCRIPTION.read_text())["clips"]
    best = recipe.pretraining_fields("best")
    batches = [
        clips[size]["train"]["clips"] // best["per_device_train_batch_size"] for size in ("large", "medium")
    ]
    steps = round(best["max_steps"] * batches[0] / batches[1])
    assert steps == recipe.pretraining_fields("longer")["max_steps"]
