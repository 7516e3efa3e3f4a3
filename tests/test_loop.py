"""The training loop, on a model of one number: steps, schedules, logs, and a loss that is no number."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from transformers import BatchFeature

from train.arguments import PretrainArguments
from train.checkpoint import saved_steps
from train.loop import DivergedError, train
from train.training_run import TrainingRun, prepare_run


class OneNumber(torch.nn.Module):
    """Its loss is (number - target)^2 / 2, so the gradient is the distance to the target."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.config = SimpleNamespace(negatives="hardest")
        self.seen: list[tuple[str, bool]] = []

    def forward(self, target: torch.Tensor, return_loss: bool) -> SimpleNamespace:
        self.seen.append((self.config.negatives, self.training))
        part = (self.number - target).square().sum() / 4
        return SimpleNamespace(loss=2 * part, loss_terms={"first": part, "second": part})


def batches(targets: Iterator[float] | None = None) -> Iterator[tuple[list[str], BatchFeature]]:
    for number, target in enumerate(targets or iter(lambda: 10.0, None)):
        yield [f"clip{number}a", f"clip{number}b"], BatchFeature({"target": torch.tensor(target)})


def make_run(tmp_path: Path, max_steps: int, **fields: object) -> TrainingRun:
    arguments = PretrainArguments(
        **{"output_dir": str(tmp_path), "dataset": "none", "max_steps": max_steps, "learning_rate": 0.1}
        | {"weight_decay": 0.0, "report_to": "none", "logging_steps": 2}
        | fields
    )
    return prepare_run(Accelerator(cpu=True), arguments, OneNumber(), max_steps)


def run_it(run: TrainingRun, folder: Path, given: Iterator | None = None) -> list[int]:
    """Trains; returns the steps at which it evaluated."""
    evaluated: list[int] = []

    def evaluate() -> dict[str, float]:
        evaluated.append(run.progress.step)
        return {"chance_recall_at_5": 0.05, "image_to_video_recall_at_5": 0.5}

    description = {"architecture": {}, "data_order": {}}
    train(run, batches() if given is None else given, evaluate, folder / "checkpoints", description)
    return evaluated


def test_it_takes_adam_s_steps_and_stops_in_time(tmp_path: Path) -> None:
    run = make_run(tmp_path, 7)
    run_it(run, tmp_path)
    reference = torch.nn.Parameter(torch.zeros(1))
    adam = torch.optim.Adam([reference], lr=0.1)
    for _ in range(7):
        adam.zero_grad()
        ((reference - 10).square() / 2).sum().backward()
        adam.step()
    assert torch.equal(run.model.number.detach(), reference.detach())
    assert run.progress.step == 7 and len(run.model.seen) == 7
    assert all(training for _, training in run.model.seen)
    assert run.model.frozen.item() == 1


def test_weight_decay_is_adam_s(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1, weight_decay=0.25)
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert len(run.optimizer.param_groups[0]["params"]) == 1, "a frozen weight is none of Adam's"


def test_the_history_holds_the_means_between_log_lines(tmp_path: Path) -> None:
    run = make_run(tmp_path, 5, learning_rate=1e-9)
    run_it(run, tmp_path, batches(iter([1.0, 2.0, 3.0, 4.0, 5.0])))
    assert [row["step"] for row in run.progress.history] == [2, 4, 5]
    expected = [(1 + 4) / 4, (9 + 16) / 4, 25 / 2]
    assert [row["loss"] for row in run.progress.history] == pytest.approx(expected)
    for row in run.progress.history:
        assert row["first"] + row["second"] == pytest.approx(row["loss"])


def test_evaluation_and_checkpoints_come_when_they_are_due(tmp_path: Path) -> None:
    run = make_run(tmp_path, 6, evaluation_steps=2, checkpointing_steps=3)
    assert run_it(run, tmp_path) == [2, 4], "after the last step the caller evaluates"
    assert saved_steps(tmp_path / "checkpoints") == [3, 6]


def test_the_first_steps_take_mean_negatives_and_the_configuration_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path, 5, mean_negatives_steps=3)
    run_it(run, tmp_path)
    assert [negatives for negatives, _ in run.model.seen] == ["mean"] * 3 + ["hardest"] * 2
    assert run.model.config.negatives == "hardest"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_naming_step_and_clips(tmp_path: Path, value: float) -> None:
    run = make_run(tmp_path, 5)
    with pytest.raises(DivergedError, match=r"step 3 .*clip2a, clip2b"):
        run_it(run, tmp_path, batches(iter([1.0, 1.0, value, 1.0])))
    assert run.model.number.isfinite().all()


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1, max_grad_norm=0.5)
    seen: list[float] = []
    step = run.optimizer.step
    run.optimizer.step = lambda: (seen.append(run.model.number.grad.item()), step())
    run_it(run, tmp_path)
    assert seen == pytest.approx([-0.5])


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("constant", [1.0] * 4),
        ("constant_with_warmup", [0.0, 0.5, 1.0, 1.0]),
        ("cosine", [0.0, 0.5, 1.0, 0.5]),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    tmp_path: Path, scheduler: str, expected: list[float]
) -> None:
    run = make_run(
        tmp_path, 4, lr_scheduler_type=scheduler, warmup_steps=2, learning_rate=1.0, logging_steps=1
    )
    rates: list[float] = []
    step = run.optimizer.step
    run.optimizer.step = lambda: (rates.append(run.optimizer.param_groups[0]["lr"]), step())
    run_it(run, tmp_path)
    assert rates == pytest.approx(expected)


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    run = make_run(tmp_path, 2)
    run.progress.step = 2
    run_it(run, tmp_path)
    assert not run.model.seen


def test_what_is_logged_reaches_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, 2, logging_steps=1, evaluation_steps=1)
    logged: list[tuple[int, set[str]]] = []
    monkeypatch.setattr(run.accelerator, "log", lambda values, step: logged.append((step, set(values))))
    run_it(run, tmp_path)
    names = {"train/loss", "train/first", "train/second", "train/learning_rate", "train/clips_per_second"}
    assert logged[0] == (1, names)
    assert logged[1] == (1, {"validation/chance_recall_at_5", "validation/image_to_video_recall_at_5"})
