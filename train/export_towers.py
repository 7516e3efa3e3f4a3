"""Towers of a model as files that run without this package: ONNX, or programs of torch.export.

An exported tower takes what the processor makes (log-mels, normalised pixels) and gives its projected
embedding; the processors themselves stay in Python.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.modeling_dualrep import DualRepModel
from modeling_dualrep.processing_dualrep import DualRepProcessor

TOWERS = ("video", "audio", "image")
TOLERANCE = 1e-4
CHECKED_BATCH_SIZES = (1, 2, 5)
EXAMPLE_SPECTROGRAM_FRAMES = 201  # of 2 s
OTHER_SPECTROGRAM_FRAMES = 601  # of 6 s
LOUDNESS_DB, SPREAD_DB = -50.0, 15.0


class ExportError(ValueError):
    """A tower that cannot be exported, or gives other values after it; the text says why and what to do."""


class EmbeddingTower(nn.Module):
    """One tower with its projection: an input to its embedding, (batch, projection_dim).

    Args:
        model: in evaluation mode.
        name: video, audio or image.

    Raises:
        ExportError: the model has no such tower.
    """

    def __init__(self, model: DualRepModel, name: str) -> None:
        super().__init__()
        if not hasattr(model, f"{name}_model"):
            raise ExportError(f"The model has no {name} tower (use_{name} is false): export another tower.")
        self.name = name
        self.tower = getattr(model, f"{name}_model")
        self.projection = getattr(model, f"{name}_projection")
        self.input_name = self.tower.main_input_name
        self.output_name = f"{name}_embeds"

    def forward(self, inputs: Tensor) -> Tensor:
        """What `DualRepModel` gives as `<name>_embeds`."""
        return self.projection(self.tower(inputs, return_dict=True).pooler_output)


class ClassifierLogits(nn.Module):
    """A fine-tuned classifier: its input to its logits, (batch, num_labels)."""

    output_name = "logits"

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.name = "image"
        self.classifier = classifier
        self.input_name = classifier.main_input_name

    def forward(self, inputs: Tensor) -> Tensor:
        """The classifier's own."""
        return self.classifier(inputs, return_dict=True).logits


def towers_of(config: DualRepConfig) -> list[str]:
    """The towers that a model has."""
    has = {"video": True, "audio": config.use_audio, "image": config.use_image}
    return [name for name in TOWERS if has[name]]


def example_inputs(
    config: DualRepConfig, name: str, batch: int, spectrogram_frames: int = EXAMPLE_SPECTROGRAM_FRAMES
) -> Tensor:
    """Drawn inputs of a tower, the same at each call: pixels as normalised, log-mels in dB."""
    generator = torch.Generator().manual_seed(batch)
    video, image = config.video_config, config.image_config
    shape = {
        "video": (config.num_frames, video.num_channels, video.image_size, video.image_size),
        "audio": (spectrogram_frames, config.audio_config.num_mel_bins),
        "image": (image.num_channels, image.image_size, image.image_size),
    }[name]
    drawn = torch.randn(batch, *shape, generator=generator)
    return LOUDNESS_DB + SPREAD_DB * drawn if name == "audio" else drawn


def export_program(module: EmbeddingTower | ClassifierLogits, example: Tensor) -> ExportedProgram:
    """The tower as one graph; the batch is of any size, and log-mels are of any length above the least."""
    sizes: dict[int, Any] = {0: Dim("batch", min=1)}
    if module.name == "audio":
        sizes[1] = Dim.AUTO  # the least length follows from the pooling
    return torch.export.export(module, (example,), dynamic_shapes=(sizes,))


def save_torch_export(program: ExportedProgram, path: Path) -> None:
    """Writes a program for `torch.export.load`."""
    torch.export.save(program, path)


def save_onnx(program: ExportedProgram, module: EmbeddingTower | ClassifierLogits, path: Path) -> None:
    """Writes ONNX by PyTorch's exporter; input and output have the model's names.

    Raises:
        ExportError: onnx or onnxscript is not installed.
    """
    import_onnx()
    names = {"input_names": [module.input_name], "output_names": [module.output_name]}
    exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    exported.save(path)


def import_onnx() -> tuple[ModuleType, ModuleType]:
    """onnx and onnxruntime, which are no dependencies of the project.

    Raises:
        ExportError: they or onnxscript are not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (PyTorch's exporter needs it)
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the packages onnx, onnxscript and onnxruntime, and {error.name} is not installed: "
            "run `uv sync --group export`."
        ) from error
    return onnx, onnxruntime


class OnnxTower:
    """An ONNX file on the CPU: called with an input, it gives its output."""

    def __init__(self, path: Path) -> None:
        _, onnxruntime = import_onnx()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,) = (each.name for each in self._session.get_inputs())

    def __call__(self, inputs: Tensor) -> Tensor:
        """(batch, features) float32."""
        return torch.from_numpy(self._session.run(None, {self._input: inputs.numpy()})[0])


@dataclass(frozen=True)
class Check:
    """The greatest difference of an export from PyTorch, and the batch sizes that it was sought at.

    Where no value is above 1 it is the share of the greatest value.
    """

    greatest_difference: float
    batch_sizes: tuple[int, ...]


@torch.inference_mode()
def check_export(exported: Any, module: nn.Module, config: DualRepConfig) -> Check:
    """Compares an export with PyTorch at several batch sizes and, for speech, at two lengths.

    Args:
        exported: called with the tower's input, it gives what the file does.
        module: what was exported.
        config: of the model.

    Raises:
        ExportError: a value differs by more than 1e-4.
    """
    greatest = 0.0
    for batch in CHECKED_BATCH_SIZES:
        for frames in (EXAMPLE_SPECTROGRAM_FRAMES, OTHER_SPECTROGRAM_FRAMES):
            inputs = example_inputs(config, module.name, batch, frames)
            ours, theirs = module(inputs), exported(inputs)
            scale = ours.abs().max().clamp(max=1)  # small values would agree whatever they are
            difference = ((theirs - ours).abs().max() / scale).item()
            if theirs.shape != ours.shape or not difference <= TOLERANCE:
                raise ExportError(
                    f"The exported {module.name} tower gives other values than PyTorch for a batch of "
                    f"{batch}: they differ by {difference:.1e}, and {TOLERANCE:g} is allowed. No file was "
                    "written of it."
                )
            greatest = max(greatest, difference)
    return Check(greatest, CHECKED_BATCH_SIZES)


def describe(module: nn.Module, config: DualRepConfig, processor: DualRepProcessor) -> dict[str, Any]:
    """What somebody who has the file alone needs: names, sizes, and what the processor does before it."""
    described: dict[str, Any] = {"input": module.input_name, "output": module.output_name}
    if module.name == "audio":
        extractor = processor.feature_extractor.to_dict()
        axes, kept = ["batch", "time", config.audio_config.num_mel_bins], ("feature_size", "sampling_rate")
        kept += ("n_fft", "hop_length", "min_frequency_hz", "max_frequency_hz")
        normalisation = {"unit": "dB", **{field: extractor[field] for field in kept}}
    else:
        side = "video_processor" if module.name == "video" else "image_processor"
        axes = ["batch", *example_inputs(config, module.name, 1).shape[1:]]
        fields = getattr(processor, side)
        normalisation = {
            "scaled_by": 1 / 255,
            "mean": list(fields.image_mean),
            "std": list(fields.image_std),
            "padded_to_the_shape_of": [fields.size["height"], fields.size["width"]],
        }
    described |= {"input_shape": axes, "output_shape": ["batch", config.projection_dim]}
    return described | {
        "normalisation": normalisation,
        "processing": "The feature extractor and the processors stay in Python: the file takes their output.",
    }


def cosines(first: Tensor, second: Tensor) -> np.ndarray:
    """(rows,) cosine similarity of rows with rows, float64."""
    return nn.functional.cosine_similarity(first.double(), second.double(), dim=1).numpy()
