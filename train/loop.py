"""The training loop: one step after the other, logged, evaluated and checkpointed as told."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BatchFeature

from modeling_dualrep.outputs import DualRepOutput
from train.checkpoint import save_checkpoint
from train.interruption import NoticeCameError, NoticeOfEnd, RunInterruptedError
from train.training_run import TrainingRun

Batch = tuple[list[str], BatchFeature]
Evaluate = Callable[[], dict[str, float]]
SKIPPED = "skipped"
# An error names the clips of so many bad batches, the newest ones.
NAMED_BATCHES = 3


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


def train(
    run: TrainingRun,
    batches: Iterable[Batch],
    evaluate: Evaluate | None,
    checkpoints: Path,
    description: dict[str, Any],
    notice: NoticeOfEnd,
) -> None:
    """Trains from `run.progress.step` to `run.max_steps`.

    Args:
        run: the prepared run; changed in place.
        batches: endless, beginning with the batch of the next step.
        evaluate: measures the model on held-out clips: name to number; None where there are none.
        checkpoints: where checkpoints go.
        description: kept with every checkpoint, to compare at resuming.
        notice: asked after every step; `evaluate` may ask it too, and raise its NoticeCameError.

    Raises:
        DivergedError: `bad_steps_limit` steps in a row were skipped; names the newest ones and their clips.
        RunInterruptedError: SIGTERM came to one of the processes; a checkpoint of the last step is written.
    """
    progress, meter = run.progress, StepMeter(run)

    def save() -> Path | None:
        progress.unlogged = meter.unlogged()
        return keep_state(run, checkpoints, description)

    run.model.train()
    with _progress_bar(run) as bar:
        if progress.step:  # the checkpoint was written before the evaluation of its step
            _evaluate_if_due(run, evaluate, save)
        for clip_ids, batch in _until(batches, run):
            losses = training_step(run, clip_ids, batch)
            progress.step += 1
            bar.update()
            meter.add(losses, clip_ids)
            if _is_due_or_last(run.arguments.logging_steps, run):
                bar.set_postfix(meter.log())
            has_come = notice.has_come()
            kept = save() if has_come or _is_due_or_last(run.arguments.checkpointing_steps, run) else None
            if has_come:
                raise RunInterruptedError(_where_to_go_on(progress.step, kept))
            _evaluate_if_due(run, evaluate, save, kept)


def keep_state(run: TrainingRun, checkpoints: Path, description: dict[str, Any]) -> Path | None:
    """A checkpoint of the step that the run has come to; None where it could not be written."""
    limit = run.arguments.checkpoints_total_limit
    return save_checkpoint(run.accelerator, checkpoints, run.progress.step, description, limit)


@contextmanager
def kept_at_notice(
    run: TrainingRun, save: Callable[[], Path | None], kept: Path | None = None
) -> Iterator[None]:
    """Within it, a notice that cuts work between two steps short ends the run, with a checkpoint.

    Args:
        run: for the step that it has come to.
        save: writes the checkpoint of this step.
        kept: where it was written already, if so.

    Raises:
        RunInterruptedError: the notice came.
    """
    try:
        yield
    except NoticeCameError as notice:
        raise RunInterruptedError(_where_to_go_on(run.progress.step, kept or save())) from notice


def training_step(run: TrainingRun, clip_ids: list[str], batch: BatchFeature) -> dict[str, Tensor]:
    """One optimizer step, skipped where the loss or a gradient is no number.

    A skipped step leaves weights, optimizer and BatchNorm as they were; it counts as a step all the same, for
    the learning rate and the position in the data. Whether to skip is decided on the device, which the host
    does not wait for.

    Returns:
        The loss and its terms, detached, and `skipped`: 1 or 0, the same on all processes.
    """
    statistics = BatchNormStatistics(run.model)
    outputs = forward_backward(run, on_device(batch, run.accelerator.device))
    is_good = torch.isfinite(outputs.loss.detach()) & torch.isfinite(gradient_norm(run))
    skipped = run.accelerator.reduce((~is_good).float(), "max")
    statistics.put_back_where(skipped.bool())
    # Fused Adam looks at it as at the overflow that a gradient scaler finds: it then changes nothing.
    run.optimizer.optimizer.found_inf = skipped
    run.optimizer.step()
    run.scheduler.step()
    run.optimizer.zero_grad()
    terms = {name: term.detach() for name, term in outputs.loss_terms.items()}
    return {"loss": outputs.loss.detach(), **terms, SKIPPED: skipped}


def on_device(batch: BatchFeature, device: torch.device) -> BatchFeature:
    """The batch on the device; `audio_mask` stays on the host, where its values are needed."""
    return BatchFeature(
        {
            name: values if name == "audio_mask" else values.to(device, non_blocking=True)
            for name, values in batch.items()
        }
    )


def forward_backward(run: TrainingRun, batch: BatchFeature) -> DualRepOutput:
    """The model's output for a batch on its device; leaves the gradients of its loss with the weights."""
    with negatives_of_step(run):
        outputs = run.model(
            **batch, return_loss=True, gradient_cache_clips=run.arguments.gradient_cache_clips
        )
    run.accelerator.backward(outputs.loss)
    return outputs


def gradient_norm(run: TrainingRun) -> Tensor:
    """The norm of the whole gradient, which is then scaled down to `max_grad_norm` if that is given."""
    parameters = list(run.model.parameters())
    if run.arguments.max_grad_norm is not None:
        return run.accelerator.clip_grad_norm_(parameters, run.arguments.max_grad_norm)
    return nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


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


class BatchNormStatistics:
    """A copy of the model's buffers, which are BatchNorm's running statistics.

    A batch with one value that is no number would spoil them for good. There are hundreds of small ones, so
    they are joined before they are copied: a few calls to the device in place of hundreds.

    Args:
        model: about to take a batch.
    """

    def __init__(self, model: nn.Module) -> None:
        self.of_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            self.of_dtype.setdefault(buffer.dtype, []).append(buffer)
        self.before = {dtype: _joined(buffers) for dtype, buffers in self.of_dtype.items()}

    @torch.no_grad()
    def put_back_where(self, condition: Tensor) -> None:
        """Puts the buffers back as they were where `condition`, one bool on the device, holds."""
        for dtype, buffers in self.of_dtype.items():
            chosen = torch.where(condition, self.before[dtype], _joined(buffers))
            parts = chosen.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(
                buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)]
            )


class StepMeter:
    """Averages the losses between two log lines, over all processes, times the clips, and counts bad steps.

    What a step gave stays on the device until the next log line. A checkpoint between two log lines takes it
    along, so that a resumed run logs what the undisturbed one does.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.names: list[str] = []
        # Clips of this process in the unlogged batches, and (step, clips) of bad batches.
        self.clip_ids: list[list[str]] = []
        self.bad_batches: deque[tuple[int, list[str]]] = deque(maxlen=NAMED_BATCHES)
        self.rows: list[Tensor] = []
        if run.progress.unlogged is not None:
            own = run.progress.unlogged[run.accelerator.process_index]
            self.rows += own.to(run.accelerator.device).unbind()
        self.began = time.perf_counter()

    def add(self, losses: dict[str, Tensor], clip_ids: list[str]) -> None:
        """Counts one step: what `training_step` returned, for these clips."""
        self.names = list(losses)
        self.rows.append(torch.stack(list(losses.values())))
        self.clip_ids.append(clip_ids)

    def unlogged(self) -> Tensor | None:
        """What the steps since the last log line gave, (processes, steps, names), on the CPU."""
        if not self.rows:
            return None
        accelerator = self.run.accelerator
        return accelerator.gather(torch.stack(self.rows)[None]).cpu()

    def log(self) -> dict[str, str]:
        """Sends the averages to the trackers and the history; returns what the progress bar shows.

        Skipped steps are left out of the averages; without any other step, there are none.

        Raises:
            DivergedError: too many steps in a row were skipped.
        """
        rows = self.run.accelerator.reduce(torch.stack(self.rows), "mean").tolist()
        steps = [dict(zip(self.names, row, strict=True)) for row in rows]
        skipped = [bool(step.pop(SKIPPED)) for step in steps]
        self._count(skipped)
        good = [step for step, is_skipped in zip(steps, skipped, strict=True) if not is_skipped]
        means = {name: sum(step[name] for step in good) / len(good) for name in (good[0] if good else ())}
        seconds = time.perf_counter() - self.began
        clips = sum(map(len, self.clip_ids)) * self.run.accelerator.num_processes
        self._record(means, clips / seconds)
        self.rows, self.clip_ids, self.began = [], [], time.perf_counter()
        return {"clips/s": f"{clips / seconds:.1f}"} | {
            name.removeprefix("video_"): f"{value:.3f}" for name, value in means.items()
        }

    def _record(self, means: dict[str, float], clips_per_second: float) -> None:
        progress = self.run.progress
        values = means | {"learning_rate": self.run.scheduler.get_last_lr()[0]}
        if means:
            progress.history.append({"step": progress.step, **values})
        values |= {"clips_per_second": clips_per_second, "skipped_steps": progress.skipped_steps}
        self.run.accelerator.log(
            {f"train/{name}": value for name, value in values.items()}, step=progress.step
        )

    def _count(self, skipped: list[bool]) -> None:
        """Counts the skipped ones of the unlogged steps."""
        progress = self.run.progress
        first_step = progress.step - len(skipped) + 1
        # Batches of before the run was resumed are not known by their clips.
        clip_ids = [[]] * (len(skipped) - len(self.clip_ids)) + self.clip_ids
        for step, is_skipped, of_step in zip(
            range(first_step, progress.step + 1), skipped, clip_ids, strict=True
        ):
            progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if is_skipped else 0
            if is_skipped:
                progress.skipped_steps += 1
                self.bad_batches.append((step, of_step))
            # A resumed run may bring more of them than its own, lowered, limit.
            if progress.skipped_in_a_row >= self.run.arguments.bad_steps_limit:
                raise DivergedError(self._divergence())
        if any(skipped) and self.run.accelerator.is_main_process:
            tqdm.write(
                f"{sum(skipped)} of the steps {first_step} to {progress.step} were skipped, since the loss "
                f"or a gradient was no number; {progress.skipped_steps} since the beginning."
            )

    def _divergence(self) -> str:
        batches = "; ".join(f"step {step}: {', '.join(clip_ids)}" for step, clip_ids in self.bad_batches)
        return (
            f"The loss or a gradient was no number in {self.run.progress.skipped_in_a_row} steps in a row, "
            f"up to step {self.bad_batches[-1][0]}; none of them was taken. Lower learning_rate, set "
            f"max_grad_norm, or look at the clips of the last ones ({batches})."
        )


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _progress_bar(run: TrainingRun) -> tqdm:
    return tqdm(
        total=run.max_steps,
        initial=run.progress.step,
        desc="pretraining",
        unit="step",
        disable=not run.accelerator.is_main_process,
        mininterval=1.0,
        dynamic_ncols=True,
        bar_format="{desc} {n}/{total} [{elapsed}<{remaining}{postfix}]",
    )


def _until(batches: Iterable[Batch], run: TrainingRun) -> Iterator[Batch]:
    if run.progress.step >= run.max_steps:
        return
    for batch in batches:
        yield batch
        if run.progress.step >= run.max_steps:
            return


def _is_due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _is_due_or_last(every: int | None, run: TrainingRun) -> bool:
    step = run.progress.step
    return every is not None and (step % every == 0 or step == run.max_steps)


def _where_to_go_on(step: int, checkpoint: Path | None) -> str:
    place = f"it is kept in {checkpoint}" if checkpoint else "but its checkpoint could not be written"
    return (
        f"SIGTERM ended the run after step {step}; {place}. Pass --resume_from_checkpoint last to go on from "
        "the newest checkpoint."
    )


def _evaluate_if_due(
    run: TrainingRun, evaluate: Evaluate | None, save: Callable[[], Path | None], kept: Path | None = None
) -> None:
    """Evaluates where this step is one for it; after the last one the caller does."""
    step = run.progress.step
    if evaluate is None or step >= run.max_steps or not _is_due(run.arguments.evaluation_steps, step):
        return
    with kept_at_notice(run, save, kept):
        _log_evaluation(run, evaluate())


def _log_evaluation(run: TrainingRun, metrics: dict[str, float]) -> None:
    step = run.progress.step
    run.accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, step=step)
    if run.accelerator.is_main_process:
        shown = [
            f"{name} {value:.2f}" for name, value in metrics.items() if name.endswith("to_video_recall_at_5")
        ]
        tqdm.write(f"step {step}: {', '.join(shown)} (chance {metrics['chance_recall_at_5']:.2f})")
