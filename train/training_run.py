"""A training run as accelerate prepares it: the model, its optimizer and their memory layout."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import BatchFeature, get_scheduler

from modeling_dualrep.tower import DualRepTower
from train.arguments import PretrainArguments
from train.checkpoint import Progress
from train.pixels import PixelStatistics
from train.synchronised_norms import synchronise_batch_norm
from train.triples import normalised_batches

RECOMPILE_LIMIT = 64


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
    if arguments.sync_batch_norm:
        synchronise_batch_norm(model, accelerator.device, accelerator.num_processes)
    store_channels_last(model)
    if arguments.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if arguments.compile_towers:
        compile_towers(model)
    optimizer = build_optimizer(arguments, model)
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


def build_optimizer(arguments: PretrainArguments, model: nn.Module) -> torch.optim.Adam:
    """Adam for the weights that are not frozen, each step one pass over all of them."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(
        trained, lr=arguments.learning_rate, weight_decay=arguments.weight_decay, fused=True
    )


def store_channels_last(model: nn.Module) -> None:
    """Keeps the weights of convolutions channels last, in which they are quicker; no value changes."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


def compile_towers(model: nn.Module, backend: str = "inductor") -> None:
    """Has torch.compile compile each tower as one graph when it first runs; the weights keep their names."""
    # A tower is compiled anew for another number of clips with sound, and for each pass of cached gradients.
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    for module in model.modules():
        if isinstance(module, DualRepTower):
            module.compile(fullgraph=True, backend=backend)


def prepared_batches(
    run: TrainingRun, batches: Iterable[tuple[list[str], BatchFeature]], statistics: PixelStatistics
) -> Iterator[tuple[list[str], BatchFeature]]:
    """The batches as the run's steps take them.

    Their pixels are made numbers on the device; where gradients are cached, by the towers, chunk by chunk.

    Args:
        run: whose towers are told so.
        batches: of `training_batches`.
        statistics: of the processor.
    """
    device = run.accelerator.device
    if run.arguments.gradient_cache_clips is None:
        return normalised_batches(batches, statistics, device)
    statistics.normalise_in_towers(run.accelerator.unwrap_model(run.model), device)
    return iter(batches)
