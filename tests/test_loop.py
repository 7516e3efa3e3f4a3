"""The training loop, on a model of one number: steps, schedules, logs, and a loss that is no number."""

import errno
import math
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from pretrain_processes import CONTEXT, free_port
from transformers import BatchFeature

from train.arguments import ArgumentsError, PretrainArguments
from train.checkpoint import load_checkpoint, saved_steps
from train.interruption import NoticeOfEnd, RunInterruptedError
from train.loop import DivergedError, StepMeter, train, training_step
from train.training_run import TrainingRun, prepare_run

DESCRIPTION = {"architecture": {}, "data_order": {}}


class OneNumber(torch.nn.Module):
    """Its loss is (number - target)^2 / 2, so the gradient is the distance to the target."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(1))
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.config = SimpleNamespace(negatives="hardest")
        self.seen: list[tuple[str, bool]] = []

    def forward(
        self, target: torch.Tensor, return_loss: bool, gradient_cache_clips: int | None
    ) -> SimpleNamespace:
        self.seen.append((self.config.negatives, self.training))
        part = (self.number - target).square().sum() / 4
        return SimpleNamespace(loss=2 * part, loss_terms={"first": part, "second": part})


def batches(targets: Iterator[float] | None = None) -> Iterator[tuple[list[str], BatchFeature]]:
    for number, target in enumerate(targets or iter(lambda: 10.0, None)):
        yield [f"clip{number}a", f"clip{number}b"], BatchFeature({"target": torch.tensor(target)})


def make_run(
    tmp_path: Path, max_steps: int, model: torch.nn.Module | None = None, **fields: object
) -> TrainingRun:
    arguments = PretrainArguments(
        **{"output_dir": str(tmp_path), "dataset": "none", "max_steps": max_steps, "learning_rate": 0.1}
        | {"weight_decay": 0.0, "report_to": "none", "logging_steps": 2}
        | fields
    )
    return prepare_run(Accelerator(cpu=True), arguments, model or OneNumber(), max_steps)


def run_it(run: TrainingRun, folder: Path, given: Iterator | None = None) -> list[int]:
    """Trains; returns the steps at which it evaluated."""
    evaluated: list[int] = []

    def evaluate() -> dict[str, float]:
        evaluated.append(run.progress.step)
        return {"chance_recall_at_5": 0.05, "image_to_video_recall_at_5": 0.5}

    with NoticeOfEnd(run.accelerator) as notice:
        told = {"evaluate": evaluate, "checkpoints": folder / "checkpoints", "notice": notice}
        train(run, batches() if given is None else given, description=DESCRIPTION, **told)
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
    run = make_run(tmp_path, 7, evaluation_steps=2, checkpointing_steps=3)
    assert run_it(run, tmp_path) == [2, 4, 6], "after the last step the caller evaluates"
    assert saved_steps(tmp_path / "checkpoints") == [3, 6, 7], "the last step is kept in any case"
    run = make_run(tmp_path, 7)
    run_it(run, tmp_path / "without")
    assert not saved_steps(tmp_path / "without" / "checkpoints"), "unless none is asked for"


def test_the_first_steps_take_mean_negatives_and_the_configuration_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path, 5, mean_negatives_steps=3)
    run_it(run, tmp_path)
    assert [negatives for negatives, _ in run.model.seen] == ["mean"] * 3 + ["hardest"] * 2
    assert run.model.config.negatives == "hardest"


class Normalised(OneNumber):
    """What it gets passes a BatchNorm; where its number is 5, the loss is a number, and the gradient none."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)

    def forward(
        self, target: torch.Tensor, return_loss: bool, gradient_cache_clips: int | None
    ) -> SimpleNamespace:
        rows = self.norm(target * torch.arange(4.0)[:, None])
        loss = (self.number - 5).square().sum().sqrt() + (self.number * rows).square().mean()
        return SimpleNamespace(loss=loss, loss_terms={"first": loss})


def state_of(run: TrainingRun) -> dict[str, torch.Tensor]:
    """Copies of all that a step may change."""
    state = run.optimizer.state_dict()["state"]
    of_optimizer = {f"{i}.{name}": value for i, each in state.items() for name, value in each.items()}
    return {name: value.clone() for name, value in (run.model.state_dict() | of_optimizer).items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_a_run_with_bad_batches_is_the_run_without_them(
    tmp_path: Path, value: float, max_grad_norm: float | None
) -> None:
    targets = {"with": [1.0, value, value, 2.0, 3.0, value], "without": [1.0, 2.0, 3.0]}
    runs = {}
    for name, given in targets.items():
        fields = {"max_grad_norm": max_grad_norm, "weight_decay": 0.1}
        runs[name] = make_run(tmp_path, len(given), **fields)
        run_it(runs[name], tmp_path, batches(iter(given)))
    assert_equal(state_of(runs["with"]), state_of(runs["without"]))
    assert runs["with"].progress.skipped_steps == 3
    assert runs["with"].scheduler.last_epoch == 6, "a skipped step counts for the learning rate"


@pytest.mark.parametrize("bad", ["nan", "inf", "gradient"])
def test_a_skipped_step_changes_nothing(tmp_path: Path, bad: str) -> None:
    """Neither inputs that are no numbers, nor a gradient that is none, reach anything that is kept."""
    run = make_run(tmp_path, 3, model=Normalised())
    step = partial(training_step, run, ["clip"])
    assert not step(BatchFeature({"target": torch.tensor(1.0)}))["skipped"]
    number = run.model.number.item()
    if bad == "gradient":
        run.model.number.data.fill_(5)
    before = state_of(run)
    losses = step(BatchFeature({"target": torch.tensor(2.0 if bad == "gradient" else float(bad))}))
    assert losses["skipped"] and losses["loss"].isfinite() == (bad == "gradient")
    assert_equal(state_of(run), before)
    run.model.number.data.fill_(number)
    assert not step(BatchFeature({"target": torch.tensor(3.0)}))["skipped"]
    after = state_of(run)
    assert after["norm.num_batches_tracked"] == 2 and after["0.step"] == 2
    assert all(value.isfinite().all() for value in after.values())


def test_the_history_leaves_skipped_steps_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = make_run(tmp_path, 6, learning_rate=1e-9)
    run_it(run, tmp_path, batches(iter([1.0, math.nan, math.nan, math.nan, 3.0, 4.0])))
    assert [row["step"] for row in run.progress.history] == [2, 6]
    assert [row["loss"] for row in run.progress.history] == pytest.approx([1 / 2, (9 + 16) / 4])
    said = capsys.readouterr().out
    assert "1 of the steps 1 to 2 were skipped" in said and "2 of the steps 3 to 4" in said
    assert "3 since the beginning" in said


@pytest.mark.parametrize("logging_steps", [1, 2, 4, 10])
def test_bad_steps_in_a_row_end_the_run_naming_steps_and_clips(tmp_path: Path, logging_steps: int) -> None:
    """Also where they stand on both sides of a log line, or good ones follow before the next."""
    run = make_run(tmp_path, 12, bad_steps_limit=3, logging_steps=logging_steps)
    given = [1.0, math.nan, math.nan, 1.0, math.nan, math.inf, math.nan, 1.0, 1.0, 1.0, 1.0, 1.0]
    with pytest.raises(DivergedError, match=r"in 3 steps in a row, up to step 7;.*step 7: clip6a, clip6b"):
        run_it(run, tmp_path, batches(iter(given)))
    assert run.model.number.isfinite().all()


def test_the_limit_is_at_least_one_step(tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match="bad_steps_limit is 0, but must be at least 1"):
        make_run(tmp_path, 1, bad_steps_limit=0)


def test_fewer_bad_steps_than_the_limit_end_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, 8, bad_steps_limit=3, logging_steps=1)
    run_it(run, tmp_path, batches(iter([math.nan, math.nan, 1.0, 1.0, math.nan, 1.0, math.nan, math.nan])))
    assert run.progress.skipped_steps == 5


def test_a_limit_that_was_lowered_below_the_streak_ends_the_resumed_run(tmp_path: Path) -> None:
    fields = {"logging_steps": 1, "checkpointing_steps": 4}
    run_it(make_run(tmp_path, 4, **fields), tmp_path, batches(iter([1.0, math.nan, math.nan, math.nan])))
    resumed = make_run(tmp_path, 8, bad_steps_limit=2, **fields)
    load_checkpoint(resumed.accelerator, tmp_path / "checkpoints" / "4")
    with pytest.raises(DivergedError, match="in 4 steps in a row, up to step 5"):
        run_it(resumed, tmp_path, batches(iter([math.nan, 1.0, 1.0, 1.0])))


def test_the_host_reads_nothing_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each look at a value waits for all that was asked of it before."""
    run = make_run(tmp_path, 9, max_grad_norm=1.0, model=Normalised())
    given = list(islice(batches(iter([1.0, math.nan, 2.0])), 3))

    def refuse(*_: object) -> None:
        raise AssertionError("the host reads a value")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    meter = StepMeter(run)
    for clip_ids, batch in given:
        meter.add(training_step(run, clip_ids, batch), clip_ids)


def test_a_checkpoint_between_log_lines_takes_their_losses_along(tmp_path: Path) -> None:
    fields = {"logging_steps": 3, "checkpointing_steps": 4}
    targets = [1.0, 2.0, 3.0, math.nan, 5.0, 6.0]
    whole = make_run(tmp_path, 6, **fields)
    run_it(whole, tmp_path, batches(iter(targets)))
    resumed = make_run(tmp_path, 6, **fields)
    load_checkpoint(resumed.accelerator, tmp_path / "checkpoints" / "4")
    assert resumed.progress.step == 4
    run_it(resumed, tmp_path, batches(iter(targets[4:])))
    assert resumed.progress.history == whole.progress.history
    assert resumed.progress.skipped_steps == whole.progress.skipped_steps == 1
    assert_equal(state_of(resumed), state_of(whole))


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, 6, checkpointing_steps=2)
    sync = os.fsync

    def full_at_step_4(descriptor: int) -> None:
        if run.progress.step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_step_4)
    with pytest.warns(UserWarning, match=r"step 4 could not be written.*No space left.*last one is .*/2\."):
        run_it(run, tmp_path)
    assert run.progress.step == 6 and saved_steps(tmp_path / "checkpoints") == [2, 6]


def with_sigterm_before(number: int) -> Iterator[tuple[list[str], BatchFeature]]:
    """Batches; this process gets a signal when the given one is asked for."""
    for index, batch in enumerate(batches()):
        if index == number - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield batch


@pytest.fixture
def handler_of_sigterm() -> Iterator[object]:
    """What handles the signal before the test; put back after it."""
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_the_run_after_the_step_with_a_checkpoint(
    tmp_path: Path, handler_of_sigterm: object
) -> None:
    run = make_run(tmp_path, 9, evaluation_steps=1)
    with pytest.raises(RunInterruptedError, match=r"after step 5; it is kept in .*checkpoints/5\. .*last"):
        run_it(run, tmp_path, with_sigterm_before(5))
    assert run.progress.step == 5 and saved_steps(tmp_path / "checkpoints") == [5]


def test_sigterm_in_the_last_step_leaves_it_too(tmp_path: Path, handler_of_sigterm: object) -> None:
    """What comes after it, measuring and writing, may take longer than a cluster waits."""
    run = make_run(tmp_path, 5)
    with pytest.raises(RunInterruptedError, match="after step 5; it is kept in"):
        run_it(run, tmp_path, with_sigterm_before(5))
    assert run.progress.step == 5 and saved_steps(tmp_path / "checkpoints") == [5]


@pytest.mark.parametrize("checkpointing_steps", [None, 2, 3])
def test_sigterm_cuts_an_evaluation_short(
    tmp_path: Path, handler_of_sigterm: object, checkpointing_steps: int | None
) -> None:
    """Whether the step that is evaluated was kept already or not."""
    run = make_run(tmp_path, 9, evaluation_steps=2, checkpointing_steps=checkpointing_steps)
    began = time.monotonic()
    with NoticeOfEnd(run.accelerator) as notice:

        def evaluate_for_an_hour() -> dict[str, float]:
            for second in notice.until_it_comes(range(3600)):
                if second == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1 if second > 1 else 0)
            raise AssertionError("the evaluation came to its end")

        with pytest.raises(RunInterruptedError, match=r"after step 2; it is kept in .*checkpoints/2\."):
            train(run, batches(), evaluate_for_an_hour, tmp_path / "checkpoints", DESCRIPTION, notice)
    assert time.monotonic() - began < 30
    assert saved_steps(tmp_path / "checkpoints") == [2]


def test_a_step_is_kept_before_it_is_evaluated_and_a_resumed_run_evaluates_it(tmp_path: Path) -> None:
    fields = {"evaluation_steps": 2, "checkpointing_steps": 2}
    run = make_run(tmp_path, 6, **fields)

    def die() -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), NoticeOfEnd(run.accelerator) as notice:
        train(run, batches(), die, tmp_path / "checkpoints", DESCRIPTION, notice)
    assert saved_steps(tmp_path / "checkpoints") == [2]
    resumed = make_run(tmp_path, 6, **fields)
    load_checkpoint(resumed.accelerator, tmp_path / "checkpoints" / "2")
    assert run_it(resumed, tmp_path) == [2, 4]


class Overflowing(OneNumber):
    """Above a target of 100 its loss is infinite, and its gradient is a number."""

    def forward(
        self, target: torch.Tensor, return_loss: bool, gradient_cache_clips: int | None
    ) -> SimpleNamespace:
        outputs = super().forward(target, return_loss, gradient_cache_clips)
        outputs.loss = outputs.loss + torch.where(target > 100, math.inf, 0.0)
        return outputs


def work_of_one_process(rank: int, port: int, folder: Path) -> None:
    """Only the second process has bad batches."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run = make_run(folder, 9, model=Overflowing(), bad_steps_limit=2, logging_steps=1)
    given = [1.0, 101.0, 2.0, 101.0, 101.0, 3.0] if rank else [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    with pytest.raises(DivergedError, match="step 5: clip4a, clip4b"):
        run_it(run, folder, batches(iter(given)))
    found = [run.progress.step, run.progress.skipped_steps, *state_of(run).values()]
    torch.save(
        torch.stack([torch.as_tensor(each, dtype=torch.float32).squeeze() for each in found]),
        folder / f"{rank}.pt",
    )


def test_a_bad_batch_of_one_process_is_skipped_by_all(tmp_path: Path) -> None:
    port = free_port()
    processes = [
        CONTEXT.Process(target=work_of_one_process, args=(rank, port, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first[:2].tolist() == [5, 3]
    assert torch.equal(first, second)


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
    names |= {"train/skipped_steps"}
    assert logged[0] == (1, names)
    assert logged[1] == (1, {"validation/chance_recall_at_5", "validation/image_to_video_recall_at_5"})
