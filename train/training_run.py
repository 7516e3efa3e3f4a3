"""A training run as accelerate prepares it: the model, its optimizer and their memory layout."""

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from train.arguments import PretrainArguments
from train.checkpoint import Progress


@dataclass
class TrainingRun:
    """Everything that changes while training, prepared by accelerate.

    Args:
        accelerator: devices, precision, trackers.
        arguments: what the run was told.
        model: the prepared model.
        optimizer, scheduler: prepared; the scheduler counts optimizer steps.
        max_steps: optimizer steps in all.
        progress: how far the run has come.
    """

    accelerator: Accelerator
    arguments: PretrainArguments
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    max_steps: int
    progress: Progress = field(default_factory=Progress)


def prepare_run(
    accelerator: Accelerator, arguments: PretrainArguments, model: nn.Module, max_steps: int
) -> TrainingRun:
    """Adam and its schedule for the weights that are not frozen, handed to accelerate with the model."""
    store_channels_last(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.warmup_steps,
        num_training_steps=max_steps,
    )
    # The scheduler is not prepared: accelerate would step it once a process.
    prepared_model, prepared_optimizer = accelerator.prepare(model, optimizer)
    run = TrainingRun(accelerator, arguments, prepared_model, prepared_optimizer, scheduler, max_steps)
    accelerator.register_for_checkpointing(scheduler, run.progress)
    return run


def store_channels_last(model: nn.Module) -> None:
    """Keeps the weights of convolutions channels last, in which they are quicker; no value changes."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
