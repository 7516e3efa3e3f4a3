"""Fine-tuning by the transformers Trainer, the same for every task: arguments, order, loss, log lines."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)

from train.cpu_cores import use_free_cores
from train.cpu_memory import keep_freed_memory
from train.finetune_arguments import FinetuneArguments
from train.frame_sets import FrameSet, read_frames
from train.loop import DivergedError
from train.scan_splits import (
    ScanSplit,
    check_splits,
    given_split,
    group_k_fold,
    random_splits,
    read_scan_splits,
)


class FinetuningTrainer(Trainer):
    """transformers' Trainer with an order of its own and a loss that weighs classes.

    Args:
        order: keys of the training set, an epoch each time it is run through; None shuffles.
        class_weights: (classes,) weight of each class in the cross-entropy; None weighs all alike, by the
            model's own loss.
        arguments: those of Trainer.
    """

    loss_is_scaled_for_ga = False  # The loss is the mean over a batch.

    def __init__(
        self,
        *arguments: Any,
        order: Sampler | None = None,
        class_weights: Tensor | None = None,
        **named_arguments: Any,
    ) -> None:
        super().__init__(*arguments, **named_arguments)
        self.order = order
        self.class_weights = class_weights

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        return self.order or super()._get_train_sampler(train_dataset)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **options: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The model's own loss, or cross-entropy = sum_i w(y_i) * -log p_i(y_i) / sum_i w(y_i)."""
        if self.class_weights is None:
            return super().compute_loss(model, inputs, return_outputs, **options)
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = cross_entropy(outputs.logits.float(), labels, weight=self.class_weights.to(labels.device))
        return (loss, outputs) if return_outputs else loss


class LogLines(TrainerCallback):
    """One line every `logging_steps`; a loss that is no number ends the run.

    Args:
        title: what each line begins with.
    """

    def __init__(self, title: str) -> None:
        self.title = title

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **others: Any,
    ) -> None:
        """Prints the mean loss since the last line.

        Raises:
            DivergedError: the loss is not finite.
        """
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise DivergedError(
                f"{self.title}: the loss up to step {state.global_step} is {logs['loss']}. Lower "
                "learning_rate."
            )
        if state.is_world_process_zero:
            print(
                f"{self.title}: step {state.global_step} of {state.max_steps}, loss {logs['loss']:.3f}",
                flush=True,
            )


def finetune(
    model: PreTrainedModel,
    arguments: FinetuneArguments,
    dataset: Dataset,
    seed: int,
    title: str,
    collate: Callable[[list], dict[str, Tensor]] = default_data_collator,
    order: Sampler | None = None,
    class_weights: Tensor | None = None,
) -> PreTrainedModel:
    """Trains a task model.

    Args:
        model: changed in place.
        arguments: the run.
        dataset: what `collate` makes batches of.
        seed: of the order, where there is no `order`, and of workers.
        title: what each log line begins with.
        collate: makes the model's named inputs of a list of items.
        order, class_weights: see FinetuningTrainer.

    Returns:
        the model in evaluation mode and single precision, on the device that it was trained on.

    Raises:
        DivergedError: the loss is no longer a number.
    """
    trainer = FinetuningTrainer(
        model,
        training_arguments(arguments, seed),
        data_collator=collate,
        train_dataset=dataset,
        callbacks=[LogLines(title)],
        order=order,
        class_weights=class_weights,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    for wrapper in ("forward", "_original_forward"):
        # accelerate lays its half precision over the model's own; it would last into testing.
        vars(model).pop(wrapper, None)
    return model.eval()


def process_state() -> PartialState:
    """This process among those of the run, on the device that `training_arguments` takes."""
    return PartialState(cpu=not torch.accelerator.is_available())


def join_processes(arguments: FinetuneArguments) -> PartialState:
    """This process among those of the run, with its share of the CPU's cores."""
    state = process_state()
    keep_freed_memory(state.device)
    use_free_cores(state.device, state.num_processes, arguments.dataloader_num_workers)
    return state


def choose_splits(arguments: FinetuneArguments, frame_set: FrameSet) -> list[ScanSplit]:
    """The splits that the run asks for, found to fit the set.

    Raises:
        ScanSplitError: there are none such.
    """
    patients = frame_set.patients_of_scans
    if arguments.split_file is not None:
        splits = read_scan_splits(Path(arguments.split_file))
    elif arguments.split_method == "random":
        splits = random_splits(patients, arguments.num_splits, arguments.train_share, arguments.seed)
    elif arguments.split_method == "group_k_fold":
        splits = group_k_fold(patients, arguments.num_splits, arguments.seed)
    else:
        splits = [given_split(frame_set)]
    check_splits(splits, patients)
    return splits


def draw_label_share(
    rows: np.ndarray, share: float, seed: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """The rows that are trained on where only a share of them is to have been labelled.

    Args:
        rows: of the training scans.
        share: of the rows, above 0; 1 keeps all.
        seed: of the draw.
        labels: (rows,) their classes, which each keep the share, and one row at least; None: one class.

    Returns:
        the rows that are left, in their order.
    """
    if share == 1:
        return rows
    chance = np.random.default_rng(seed)
    labels = np.zeros(len(rows), np.int64) if labels is None else labels
    kept = []
    for label in np.unique(labels):
        of_class = rows[labels == label]
        kept.append(chance.choice(of_class, max(1, round(share * len(of_class))), replace=False))
    return rows[np.isin(rows, np.concatenate(kept))] if kept else rows


@contextmanager
def decoded_frames(arguments: FinetuneArguments, frame_size: int) -> Iterator[FrameSet]:
    """The run's set, decoded into memory, or into a file beside output_dir that is removed at the end.

    Raises:
        FrameSetError: see `read_frames`.
    """
    if arguments.frame_memory == "memory":
        yield read_frames(arguments.dataset, arguments.dataset_config, frame_size)
        return
    beside = Path(arguments.output_dir).resolve().parent
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="frames_", dir=beside, ignore_cleanup_errors=True) as folder:
        memory_map = Path(folder) / "frames.npy"
        yield read_frames(arguments.dataset, arguments.dataset_config, frame_size, memory_map)


def seed_of_split(arguments: FinetuneArguments, number: int) -> int:
    """The seed of the head, the order and the augmentation in split `number`, from 1."""
    return 1000 * arguments.seed + number


def training_arguments(arguments: FinetuneArguments, seed: int) -> TrainingArguments:
    """transformers' own arguments of a run; nothing is saved on the way, and only log lines are printed."""
    made = TrainingArguments(
        output_dir=arguments.output_dir,
        max_steps=arguments.max_steps or -1,
        num_train_epochs=arguments.num_train_epochs or 1,
        per_device_train_batch_size=arguments.per_device_train_batch_size,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        lr_scheduler_type=arguments.lr_scheduler_type,
        warmup_steps=arguments.warmup_steps,
        max_grad_norm=arguments.max_grad_norm,
        bf16=arguments.mixed_precision == "bf16",
        use_cpu=not torch.accelerator.is_available(),
        dataloader_num_workers=arguments.dataloader_num_workers,
        dataloader_drop_last=True,  # BatchNorm learns little from a rest of one frame
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to=arguments.report_to,
        logging_steps=arguments.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="no",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        seed=seed,
    )
    if arguments.mixed_precision == "no":
        made.mixed_precision = "no"  # over accelerate's own configuration
    return made
