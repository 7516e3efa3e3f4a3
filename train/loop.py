"""The training loop: one step after the other, logged, evaluated and checkpointed as told."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm
from transformers import BatchFeature

from train.checkpoint import save_checkpoint
from train.training_run import TrainingRun

Batch = tuple[list[str], BatchFeature]


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


def train(
    run: TrainingRun,
    batches: Iterable[Batch],
    evaluate: Callable[[], dict[str, float]] | None,
    checkpoints: Path,
    description: dict[str, Any],
) -> None:
    """Trains from `run.progress.step` to `run.max_steps`.

    Args:
        run: the prepared run; changed in place.
        batches: endless, beginning with the batch of the next step.
        evaluate: measures the model on held-out clips: name to number; None where there are none.
        checkpoints: where checkpoints go.
        description: kept with every checkpoint, to compare at resuming.

    Raises:
        DivergedError: the loss is NaN or infinite; names the step and the clips.
    """
    arguments, progress = run.arguments, run.progress
    meter = StepMeter(run)
    bar = tqdm(
        total=run.max_steps,
        initial=progress.step,
        desc="pretraining",
        unit="step",
        disable=not run.accelerator.is_main_process,
        mininterval=1.0,
        dynamic_ncols=True,
        bar_format="{desc} {n}/{total} [{elapsed}<{remaining}{postfix}]",
    )
    run.model.train()
    with bar:
        for clip_ids, batch in _until(batches, run):
            losses = training_step(run, clip_ids, batch)
            progress.step += 1
            bar.update()
            meter.add(losses, len(clip_ids))
            if progress.step % arguments.logging_steps == 0 or progress.step == run.max_steps:
                bar.set_postfix(meter.log())
            is_last = progress.step == run.max_steps
            if evaluate is not None and not is_last and _is_due(arguments.evaluation_steps, progress.step):
                _log_evaluation(run, evaluate())
            if _is_due(arguments.checkpointing_steps, progress.step):
                limit = arguments.checkpoints_total_limit
                save_checkpoint(run.accelerator, checkpoints, progress.step, description, limit)


def training_step(run: TrainingRun, clip_ids: list[str], batch: BatchFeature) -> dict[str, Tensor]:
    """One optimizer step; returns the loss and its terms, detached."""
    with negatives_of_step(run):
        outputs = run.model(**batch.to(run.accelerator.device), return_loss=True)
    if not math.isfinite(outputs.loss.item()):
        raise DivergedError(
            f"The loss of step {run.progress.step + 1} is {outputs.loss.item()}. Lower learning_rate, set "
            f"max_grad_norm, or look at its clips: {', '.join(clip_ids)}."
        )
    run.accelerator.backward(outputs.loss)
    if run.arguments.max_grad_norm is not None:
        run.accelerator.clip_grad_norm_(run.model.parameters(), run.arguments.max_grad_norm)
    run.optimizer.step()
    run.scheduler.step()
    run.optimizer.zero_grad()
    terms = {name: term.detach() for name, term in outputs.loss_terms.items()}
    return {"loss": outputs.loss.detach(), **terms}


@contextmanager
def negatives_of_step(run: TrainingRun) -> Iterator[None]:
    """The first steps take the mean over all negatives; what the configuration says, and saves, stays."""
    config = run.accelerator.unwrap_model(run.model).config
    configured = config.negatives
    if run.progress.step < run.arguments.mean_negatives_steps:
        config.negatives = "mean"
    try:
        yield
    finally:
        config.negatives = configured


class StepMeter:
    """Averages the losses between two log lines, over all processes, and times the clips."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self._begin()

    def _begin(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.clips = 0
        self.began = time.perf_counter()

    def add(self, losses: dict[str, Tensor], clips: int) -> None:
        """Counts one step."""
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.steps += 1
        self.clips += clips * self.run.accelerator.num_processes

    def log(self) -> dict[str, str]:
        """Sends the averages to the trackers and the history; returns what the progress bar shows."""
        means = self.run.accelerator.reduce(
            {name: value / self.steps for name, value in self.sums.items()}, "mean"
        )
        values = {name: value.item() for name, value in means.items()}
        values["learning_rate"] = self.run.scheduler.get_last_lr()[0]
        step = self.run.progress.step
        self.run.progress.history.append({"step": step, **values})
        clips_per_second = self.clips / (time.perf_counter() - self.began)
        self.run.accelerator.log(
            {f"train/{name}": value for name, value in values.items()}
            | {"train/clips_per_second": clips_per_second},
            step=step,
        )
        self._begin()
        shown = {"clips/s": f"{clips_per_second:.1f}", "loss": f"{values['loss']:.3f}"}
        return shown | {name.removeprefix("video_"): f"{value.item():.3f}" for name, value in means.items()}


def _until(batches: Iterable[Batch], run: TrainingRun) -> Iterator[Batch]:
    if run.progress.step >= run.max_steps:
        return
    for batch in batches:
        yield batch
        if run.progress.step >= run.max_steps:
            return


def _is_due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _log_evaluation(run: TrainingRun, metrics: dict[str, float]) -> None:
    step = run.progress.step
    run.accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, step=step)
    if run.accelerator.is_main_process:
        shown = [
            f"{name} {value:.2f}" for name, value in metrics.items() if name.endswith("to_video_recall_at_5")
        ]
        tqdm.write(f"step {step}: {', '.join(shown)} (chance {metrics['chance_recall_at_5']:.2f})")
