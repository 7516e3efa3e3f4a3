"""The runs of the experiments: which there are, what each is told, when it is done, refused or shown."""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from experiment_helpers import leave_result, small_experiments, small_recipe
from frame_set_helpers import FRAME_SIZE, TINY_CONFIG, frame_rows, write_set

from train.experiment_plan import (
    ClipSetKey,
    Finetuning,
    Pretraining,
    RateSearch,
    Row,
    Selection,
    clip_set_key,
    planned_runs,
    select_all,
    table_rows,
    with_needs,
)
from train.experiment_runs import write_splits
from train.experiments import (
    EXPERIMENT_FILE,
    ExperimentError,
    Experiments,
    Note,
    UnavailableError,
    arguments_of,
    check_run,
    finetuning_arguments,
    is_done,
    note_path,
    pretraining_arguments,
    read_note,
    read_results,
    remove_without_weights,
    results_with_provenance,
    split_file,
    write_note,
)
from train.metrics_file import read_metrics
from train.rate_search import read_search
from train.scan_splits import read_scan_splits

MEDIUM = Row("medium", "best")
PRETRAINED = Pretraining(0, "best", "medium", 0)
SEARCH = RateSearch(0, "planes", MEDIUM)
FINETUNED = Finetuning(0, "planes", MEDIUM, 0)


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    made = small_experiments(tmp_path)
    write_splits(made, [FINETUNED])
    return made


def finish(experiments: Experiments, *runs: object) -> None:
    for run in with_needs(experiments.recipe, runs):
        leave_result(experiments, run)


def test_a_table_has_rows_without_pretraining_once_and_first(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    names = [row.full_name for row in table_rows(recipe, select_all(recipe), "1")]
    assert names == ["imagenet", "random", "printed_medium", "best_medium"]
    chosen = replace(select_all(recipe), settings=("best",), rows=("random", "medium"))
    assert [row.full_name for row in table_rows(recipe, chosen, "1")] == ["random", "best_medium"]


def test_every_run_comes_once_and_after_what_it_needs(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, draws=[0, 1])
    runs = planned_runs(recipe, select_all(recipe))
    assert len(set(runs)) == len(runs) == len({run.place for run in runs})
    for place, run in enumerate(runs):
        assert set(run.needs(recipe)) <= set(runs[:place])
    rows = {"imagenet", "random", "printed_medium", "best_medium"}
    finetunings = {run for run in runs if isinstance(run, Finetuning)}
    frozen = {(run.draw, run.row.full_name, run.seed) for run in finetunings if run.task == "planes_frozen"}
    assert frozen == set(product((0, 1), rows, (0, 1)))
    pretrained = {f"{run.setting} {run.name}" for run in runs if isinstance(run, Pretraining)}
    assert pretrained == {"printed medium", "best medium", "best silent", "best relevant"}


def test_a_table_may_be_of_some_draws_alone(tmp_path: Path) -> None:
    other = {"draws": [1]}
    recipe = small_recipe(tmp_path, draws=[0, 1], tables={"other": other})
    (tmp_path / EXPERIMENT_FILE).write_text(recipe.to_yaml())
    shown = {(each.table, each.draw) for each in read_results(tmp_path)}
    assert shown == {("1", 0), ("1", 1), ("other", 1)}
    silent = {run.draw for run in planned_runs(recipe, select_all(recipe)) if "silent" in run.place}
    assert silent == {1}
    assert planned_runs(recipe, Selection(("other",), (0,), (0,))) == []


def test_the_search_is_made_once_a_row_on_the_first_seed(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    runs = planned_runs(recipe, Selection(("1",), (0,), (1,), settings=("best",), rows=("medium",)))
    assert [run.place for run in runs if isinstance(run, RateSearch)] == [
        "draw_0/rate_search/planes/best_medium.json",
        "draw_0/rate_search/planes_frozen/best_medium.json",
    ]
    assert SEARCH.needs(recipe) == (PRETRAINED,)
    assert {run.seed for run in runs if isinstance(run, Pretraining)} == {0, 1}


def test_a_pretraining_is_told_its_setting_its_own_fields_and_its_data(experiments: Experiments) -> None:
    silent = pretraining_arguments(experiments, Pretraining(0, "best", "silent", 1))
    assert (silent.model["negatives"], silent.model["use_audio"], silent.seed) == ("mean", False, 1)
    assert silent.dataset == experiments.clips[ClipSetKey(0)] and silent.dataset_config == "medium"
    assert silent.output_dir == str(experiments.output / "draw_0/pretraining/best_silent/seed_1")
    relevant = Pretraining(0, "best", "relevant", 0)
    assert clip_set_key(experiments.recipe, relevant) == ClipSetKey(0, relevant_speech=0.5)
    with pytest.raises(UnavailableError, match="only on simulated recordings"):
        pretraining_arguments(experiments, relevant)


def test_the_speech_tower_is_taught_once_for_all_pretrainings(experiments: Experiments) -> None:
    words = {"steps": 2, "words": 4, "readers": 2}
    recipe = replace(experiments.recipe, pretraining=experiments.recipe.pretraining | {"speech_words": words})
    taught = pretraining_arguments(
        replace(experiments, recipe=recipe), Pretraining(0, "printed", "medium", 0)
    )
    assert taught.speech_words.kept_in == str(experiments.output / "taught_speech")
    plain = pretraining_arguments(experiments, Pretraining(0, "printed", "medium", 0))
    assert plain.speech_words.kept_in is None


def test_large_clips_are_matched_with_the_medium_ones_in_passes_or_in_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = {"large": 85, "medium": 20}
    monkeypatch.setattr("train.experiments.list_clips", lambda dataset, config, split: range(clips[config]))
    matched = {
        "long": {"clips": "large", "matched_in": "epochs"},
        "short": {"clips": "large"},
        "few": {"clips": "large", "matched_in": "clips"},
    }
    experiments = small_experiments(tmp_path, pretrainings=matched, pretraining={"max_steps": 10})
    told = {
        name: pretraining_arguments(experiments, Pretraining(0, "printed", name, 0))
        for name in ("long", "short", "few", "medium")
    }
    # 21 batches of 4 in 85 clips, 5 in 20: two epochs of each.
    assert {name: arguments.max_steps for name, arguments in told.items()} == {
        "long": 42,
        "short": 10,
        "few": 10,
        "medium": 10,
    }
    assert told["long"].dataset_config == told["few"].dataset_config == "large"
    assert {name: arguments.max_train_clips for name, arguments in told.items()} == {
        "long": None,
        "short": None,
        "few": 20,
        "medium": None,
    }


def test_a_fine_tuning_takes_the_rate_and_length_of_its_search(experiments: Experiments) -> None:
    finish(experiments, SEARCH)
    choice = read_search(experiments.output / SEARCH.place).choice
    for seed in (0, 1):
        told = arguments_of(experiments, replace(FINETUNED, seed=seed))
        assert (told.learning_rate, told.max_steps) == (choice.learning_rate, choice.max_steps) == (1e-2, 1)
        assert told.model == str(experiments.output / f"draw_0/pretraining/best_medium/seed_{seed}")
        assert (told.seed, told.linear_probe, told.num_splits) == (seed, False, 2)
        assert told.split_file == str(split_file(experiments.output, 0, "planes"))


def test_rows_differ_in_what_they_start_from(experiments: Experiments) -> None:
    def told(row: Row, task: str = "planes") -> object:
        return finetuning_arguments(experiments, Finetuning(0, task, row, 0))

    assert (told(Row("random")).model, told(Row("random")).model_config) == ("random", TINY_CONFIG)
    imagenet = told(Row("imagenet"))
    assert imagenet.model == "imagenet"
    assert imagenet.model_config == {"image_config": {"image_size": FRAME_SIZE}}
    assert told(MEDIUM).model_config == {} and told(MEDIUM, "planes_frozen").linear_probe
    assert told(Row("few", "best")).label_share == 0.5 and told(MEDIUM).label_share == 1
    drawn, pretrained = (
        replace(told(row), model="", model_config={}, output_dir="") for row in (Row("random"), MEDIUM)
    )
    assert drawn == pretrained, "but for that they are told the same"


def test_saliency_has_its_own_fields(tmp_path: Path) -> None:
    saliency = {"per_device_train_batch_size": 2, "model_config": {"saliency_center_bias": False}}
    fields = {"finetuning": {"saliency": saliency}}
    fields["searches"] = {"saliency": {"learning_rates": [1e-3], "steps": [1]}}
    told = finetuning_arguments(
        small_experiments(tmp_path, **fields), Finetuning(0, "saliency", Row("random"), 0)
    )
    assert told.dataset_config == "gaze" and not told.compare_with_random
    assert told.model_config == {**TINY_CONFIG, "saliency_center_bias": False}


def test_splits_are_drawn_by_patient_and_the_inner_one_lies_inside(tmp_path: Path) -> None:
    experiments = small_experiments(tmp_path)
    patients = {f"p{number}": [f"scan{2 * number:02d}", f"scan{2 * number + 1:02d}"] for number in range(4)}
    frames = write_set(tmp_path / "by_patient", {"train": frame_rows(8)}, patients={"train": patients})
    experiments = replace(experiments, frames={0: str(frames)})
    write_splits(experiments, [FINETUNED])
    splits = read_scan_splits(split_file(experiments.output, 0, "planes"))
    (inner,) = read_scan_splits(experiments.output / "draw_0/splits/planes_inner.json")
    assert len(splits) == 2 and {*inner.train, *inner.test} == set(splits[0].train)
    for split in (*splits, inner):
        assert not {int(scan[4:]) // 2 for scan in split.train} & {int(scan[4:]) // 2 for scan in split.test}
    before = split_file(experiments.output, 0, "planes").read_text()
    write_splits(experiments, [FINETUNED])
    assert split_file(experiments.output, 0, "planes").read_text() == before


def test_a_run_is_done_when_it_has_left_its_result(experiments: Experiments) -> None:
    runs = with_needs(experiments.recipe, [FINETUNED])
    assert runs == [PRETRAINED, SEARCH, FINETUNED]
    for run in runs:
        assert not is_done(experiments.output, run)
        leave_result(experiments, run)
        assert is_done(experiments.output, run)
        check_run(experiments, run)


def test_a_pretraining_whose_weights_were_left_behind_is_made_again_where_it_is_needed(
    experiments: Experiments,
) -> None:
    recipe, output = experiments.recipe, experiments.output
    runs = with_needs(recipe, [FINETUNED])
    for run in runs:
        leave_result(experiments, run)
    remove_without_weights(recipe, output, runs)
    assert is_done(output, PRETRAINED), "nothing that is still to be made needs it"
    shutil.rmtree(output / FINETUNED.place)
    (output / PRETRAINED.place / "model.safetensors").write_bytes(b"weights")
    remove_without_weights(recipe, output, runs)
    assert is_done(output, PRETRAINED), "its weights are there"
    (output / PRETRAINED.place / "model.safetensors").unlink()
    remove_without_weights(recipe, output, runs)
    assert not is_done(output, PRETRAINED) and is_done(output, SEARCH)


def changed(experiments: Experiments, section: str, **fields: object) -> Experiments:
    told = {**getattr(experiments.recipe, section), **fields}
    return replace(experiments, recipe=replace(experiments.recipe, **{section: told}))


def test_what_another_recipe_made_is_refused(experiments: Experiments) -> None:
    finish(experiments, FINETUNED)
    weaker = changed(experiments, "pretraining", learning_rate=1e-5)
    with pytest.raises(ExperimentError, match=r"seed_0 .*its learning_rate is 0\.003, here it is 1e-05"):
        check_run(weaker, PRETRAINED)
    other_model = changed(experiments, "pretraining", model={**TINY_CONFIG, "projection_dim": 9})
    with pytest.raises(ExperimentError, match=r"its model is .*Give another output folder"):
        check_run(other_model, PRETRAINED)
    planes = {**experiments.recipe.finetuning["planes"], "weight_decay": 0.5}
    for run in (SEARCH, FINETUNED):
        with pytest.raises(ExperimentError, match=r"another recipe.*0\.5"):
            check_run(changed(experiments, "finetuning", planes=planes), run)


def test_an_unfinished_pretraining_of_another_recipe_is_refused_too(experiments: Experiments) -> None:
    finish(experiments, PRETRAINED)
    (experiments.output / PRETRAINED.place / "metrics.json").unlink()
    check_run(experiments, PRETRAINED)
    with pytest.raises(ExperimentError, match="its max_steps is 2, here it is 3"):
        check_run(changed(experiments, "pretraining", max_steps=3), PRETRAINED)


def test_other_data_and_other_splits_are_refused(experiments: Experiments, tmp_path: Path) -> None:
    finish(experiments, FINETUNED)
    folder = experiments.output / FINETUNED.place
    (folder / "splits.json").write_text("[]")
    with pytest.raises(ExperimentError, match="other splits of the scans"):
        check_run(experiments, FINETUNED)
    frames = write_set(tmp_path / "others", {"train": frame_rows(10)})
    elsewhere = replace(experiments, frames={0: str(frames)})
    for run, refusal in ((FINETUNED, "other data than"), (SEARCH, "its data_hash is")):
        with pytest.raises(ExperimentError, match=refusal):
            check_run(elsewhere, run)


def test_a_recipe_of_an_earlier_version_lacks_no_field_that_has_its_default(experiments: Experiments) -> None:
    finish(experiments, PRETRAINED)
    path = experiments.output / PRETRAINED.place / "recipe.yaml"
    kept = yaml.safe_load(path.read_text())
    del kept["bad_steps_limit"]
    path.write_text(yaml.safe_dump(kept))
    check_run(experiments, PRETRAINED)


@pytest.mark.parametrize("words", [{}, {"steps": 2, "words": 4, "readers": 2}])
def test_the_folder_may_be_moved(experiments: Experiments, tmp_path: Path, words: dict) -> None:
    recipe = replace(experiments.recipe, pretraining=experiments.recipe.pretraining | {"speech_words": words})
    experiments = replace(experiments, recipe=recipe)
    finish(experiments, FINETUNED)
    experiments.output.rename(tmp_path / "elsewhere")
    moved = replace(experiments, output=tmp_path / "elsewhere")
    for run in (PRETRAINED, SEARCH, FINETUNED):
        check_run(moved, run)


def test_results_tell_what_was_measured_and_why_the_rest_was_not(experiments: Experiments) -> None:
    recipe, output = experiments.recipe, experiments.output
    (output / EXPERIMENT_FILE).write_text(recipe.to_yaml())
    finish(experiments, FINETUNED)
    imagenet = RateSearch(0, "planes", Row("imagenet"))
    write_note(output, imagenet, Note("weights not available", "long story"))
    assert read_note(output, imagenet).detail == "long story" and note_path(output, imagenet).is_file()
    results = {(each.table, each.task, each.row, each.seed): each for each in read_results(output)}
    done = results["1", "planes", "best_medium", 0]
    assert (done.metrics, done.unavailable, done.draw) == ({"test/f1": 0.5}, None, 0)
    assert done.title == "Medium (best)" and done.folder == output / FINETUNED.place
    assert results["other", "planes", "best_medium", 0].metrics == done.metrics
    for seed in (0, 1):
        assert results["1", "planes", "imagenet", seed].unavailable == "weights not available"
    others = [results["1", "planes_frozen", "imagenet", 0], results["1", "planes", "best_medium", 1]]
    assert [(each.metrics, each.unavailable) for each in others] == [(None, "not run")] * 2
    kept = results_with_provenance(output, read_results(output))
    measured = [each["measured"] for each in kept if each["measured"]]
    assert measured == [read_metrics(output / FINETUNED.place / "metrics.json")] * 2
    choices = [each["rate_search"] for each in kept if each["measured"]]
    assert choices == 2 * [
        {"learning_rate": 1e-2, "max_steps": 1, "score": 1e-2, "at_edge": ["learning_rate"]}
    ]
    chosen = read_results(output, Selection(("1",), (0,), (1,), rows=("random",)))
    assert [(each.task, each.row, each.seed) for each in chosen] == [
        ("planes", "random", 1),
        ("planes_frozen", "random", 1),
    ]
