"""Which folders a run may write into."""

from pathlib import Path

import pytest

from train.arguments import ArgumentsError, PretrainArguments
from train.model_folder import UNFINISHED_RECIPE, refuse_other_run, write_recipe


def arguments(output_dir: Path, **fields: object) -> PretrainArguments:
    return PretrainArguments(**{"output_dir": str(output_dir), "dataset": "clips", "max_steps": 3, **fields})


def test_a_run_may_go_on_in_its_own_folder(tmp_path: Path) -> None:
    refuse_other_run(arguments(tmp_path / "new"), "pretraining")
    write_recipe(arguments(tmp_path))
    refuse_other_run(arguments(tmp_path), "pretraining")
    refuse_other_run(arguments(tmp_path, report_to="none", deterministic=True), "pretraining")


def test_another_run_s_folder_is_refused(tmp_path: Path) -> None:
    write_recipe(arguments(tmp_path))
    with pytest.raises(ArgumentsError, match="its seed is 0, this run's is 1"):
        refuse_other_run(arguments(tmp_path, seed=1), "pretraining")
    refuse_other_run(arguments(tmp_path, seed=1, overwrite_output_dir=True), "pretraining")


def test_files_of_somebody_are_refused_but_not_half_a_recipe(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED_RECIPE).write_text("outp")
    refuse_other_run(arguments(tmp_path), "pretraining")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ArgumentsError, match="holds files that no pretraining wrote"):
        refuse_other_run(arguments(tmp_path), "pretraining")
    with pytest.raises(ArgumentsError, match="is a file"):
        refuse_other_run(arguments(tmp_path / "thesis.txt"), "pretraining")
