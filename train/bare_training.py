"""What a training step is measured against: the bare towers, and the plain loop of somebody else's towers.

All of them get the same random batch, of the size and layout that the loader gives: pixels are bytes, which
the training loop makes numbers of in every step. The others get those numbers.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import repeat
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torchvision.models import resnet18
from torchvision.models.video import r2plus1d_18
from transformers import BatchFeature

from modeling_dualrep.audio_cnn14 import DualRepAudioModel
from modeling_dualrep.configuration_dualrep import DualRepAudioConfig, DualRepConfig
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from modeling_dualrep.modeling_dualrep import DualRepModel
from modeling_dualrep.tower import DualRepTower
from train.arguments import PretrainArguments
from train.cpu_memory import keep_freed_memory
from train.interruption import NoticeOfEnd
from train.loop import Batch, train
from train.pixels import PixelStatistics
from train.precision import chosen_precision
from train.pretrain import build_processor
from train.training_run import TrainingRun, build_optimizer, compile_towers, prepare_run
from train.triples import normalised_batches

Step = Callable[[], None]


def random_batch(config: DualRepConfig, clips: int, clip_seconds: float, seed: int) -> BatchFeature:
    """A batch of noise, all clips with sound, on the CPU, as the loader gives it: pixels are bytes."""
    generator = torch.Generator().manual_seed(seed)
    video, audio, image = config.video_config, config.audio_config, config.image_config
    extractor = DualRepFeatureExtractor()
    spectrogram_frames = int(clip_seconds * extractor.sampling_rate) // extractor.hop_length + 1
    shapes = {
        "pixel_values_videos": (video.num_frames, video.num_channels, video.image_size, video.image_size),
        "pixel_values": (image.num_channels, image.image_size, image.image_size),
    }
    pixels = {
        name: torch.randint(256, (clips, *shape), dtype=torch.uint8, generator=generator)
        for name, shape in shapes.items()
    }
    sound = torch.randn(clips, spectrogram_frames, audio.num_mel_bins, generator=generator)
    has_sound = torch.ones(clips, dtype=torch.bool)
    return BatchFeature({**pixels, "input_features": sound, "audio_mask": has_sound})


def normalised(config: DualRepConfig, batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches with their pixels as a run of pretrain.py makes them on the device."""
    processor = build_processor(config).image_processor
    return normalised_batches(batches, PixelStatistics(processor.image_mean, processor.image_std), device)


def model_inputs(config: DualRepConfig, batch: BatchFeature, device: torch.device) -> dict[str, Tensor]:
    """The batch as the model takes it, all of it on the device."""
    ((_, prepared),) = normalised(config, [([], batch)], device)
    return {name: values.to(device) for name, values in prepared.items()}


def benchmarked_run(arguments: PretrainArguments, device_type: str) -> TrainingRun:
    """A new model, prepared by accelerate as pretrain.py does it, and as yet without an end."""
    # accelerate keeps one precision for all that a process does, unless it is told to forget it.
    AcceleratorState._reset_state()
    PartialState._reset_state()
    precision = chosen_precision(arguments.mixed_precision, device_type)
    accelerator = Accelerator(mixed_precision=precision, cpu=device_type == "cpu")
    keep_freed_memory(accelerator.device)
    torch.manual_seed(arguments.seed)
    run = prepare_run(accelerator, arguments, DualRepModel(arguments.model_config()), arguments.max_steps)
    run.max_steps = 0
    return run


def training_steps(run: TrainingRun, batch: BatchFeature, steps: int) -> Step:
    """`steps` steps of the training loop on this batch of `random_batch`, from its bytes on."""
    clip_ids = [f"clip{number}" for number in range(len(batch["pixel_values_videos"]))]
    device, config = run.accelerator.device, run.arguments.model_config()
    if device.type == "cuda":
        batch = BatchFeature({name: values.pin_memory() for name, values in batch.items()})  # as the loader
    return lambda: take_steps(run, normalised(config, repeat((clip_ids, batch), steps), device), steps)


def take_steps(run: TrainingRun, batches: Iterable[Batch], steps: int) -> None:
    """So many steps of the training loop, the last of which is logged."""
    run.max_steps += steps
    with NoticeOfEnd(run.accelerator) as notice:
        train(run, batches, evaluate=None, checkpoints=Path(), description={}, notice=notice)


def bare_towers_steps(run: TrainingRun, batch: BatchFeature, steps: int) -> Step:
    """`steps` times forward, backward and Adam of copies of the run's towers alone.

    They have the run's weights, precision, memory layout, compilation and optimizer. Their loss is the mean
    square of what they give.
    """
    device, model = run.accelerator.device, run.accelerator.unwrap_model(run.model)
    inputs = model_inputs(model.config, batch, device)
    towers = nn.ModuleList(deepcopy(tower) for tower in model.children() if isinstance(tower, DualRepTower))
    if run.arguments.compile_towers:
        compile_towers(towers)
    optimizer = build_optimizer(run.arguments, towers)
    in_bf16 = run.accelerator.mixed_precision == "bf16"

    def take_steps() -> None:
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
                pooled = [tower(inputs[tower.main_input_name]).pooler_output for tower in towers]
            sum(features.float().square().mean() for features in pooled).backward()
            optimizer.step()
            optimizer.zero_grad()

    return take_steps


class PlainModel(nn.Module):
    """The three towers as they come, each with a projection: torchvision's two, and CNN14."""

    def __init__(self, audio_config: DualRepAudioConfig, projection_dim: int) -> None:
        super().__init__()
        self.video, self.audio, self.image = r2plus1d_18(), DualRepAudioModel(audio_config), resnet18()
        self.video.fc = nn.Linear(self.video.fc.in_features, projection_dim)
        self.image.fc = nn.Linear(self.image.fc.in_features, projection_dim)
        self.audio_projection = nn.Linear(audio_config.hidden_size, projection_dim)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The embeddings of videos, speech and frames, each (batch, projection_dim)."""
        video = self.video(batch["pixel_values_videos"].transpose(1, 2).contiguous())
        audio = self.audio_projection(self.audio(batch["input_features"]).pooler_output)
        return video, audio, self.image(batch["pixel_values"])


def plain_steps(
    config: DualRepConfig, batch: BatchFeature, device: torch.device, steps: int, learning_rate: float = 3e-3
) -> Step:
    """`steps` steps of the loop that one would write with torchvision's towers: float32, weights and inputs
    in PyTorch's own memory layout, the usual contrastive loss (InfoNCE), Adam.
    """
    model = PlainModel(config.audio_config, config.projection_dim).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    inputs = model_inputs(config, batch, device)
    own = torch.arange(len(batch["pixel_values_videos"]), device=device)

    def take_steps() -> None:
        for _ in range(steps):
            video, *others = (normalize(embeds, dim=1) for embeds in model(inputs))
            loss = sum(cross_entropy(video @ other.T / config.temperature, own) for other in others)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return take_steps
