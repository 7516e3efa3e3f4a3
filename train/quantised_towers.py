"""Static int8 quantisation of exported towers, calibrated on rows of a set, and what it costs."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.processing_dualrep import DualRepProcessor
from train.export_towers import ExportError, OnnxTower, cosines, import_onnx
from train.frame_sets import FrameSet
from train.pixels import PixelStatistics, channels_first
from train.plane_results import SplitPredictions, split_scores
from train.scan_splits import read_scan_splits
from train.stored_rows import Row
from train.triples import evaluation_triples, open_clips

BATCH_ROWS = 16
CALIBRATION_SPLIT, HELD_OUT_SPLIT = "train", "validation"


def can_be_quantised(config: DualRepConfig, name: str) -> bool:
    """Whether a tower is one of 2-D convolutions: that of images, and that of speech over time and mel."""
    return name == "image" or (name == "audio" and config.audio_config.conv_dim == 2)


def quantise(source: Path, target: Path, calibration: Iterable[Tensor]) -> None:
    """Writes an ONNX file whose weights (by channel) and activations are int8, in QDQ form.

    The ranges of activations are the least and the greatest that the calibration rows give.

    Args:
        source: in single precision.
        target: written whole or not at all.
        calibration: batches of inputs.
    """
    import_onnx()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    (name,) = _input_names(source)

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch.numpy()}

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / target.name
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            Rows(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        os.replace(quantised, target)


def _input_names(path: Path) -> list[str]:
    onnx, _ = import_onnx()
    return [each.name for each in onnx.load(path, load_external_data=False).graph.input]


def clip_inputs(
    dataset: str, clips: str, split: str, rows: int, config: DualRepConfig, processor: DualRepProcessor
) -> dict[str, Tensor]:
    """Inputs of the image and the speech tower from the first rows of a split, which stand in drawn order.

    Args:
        dataset: of clips, as `open_clips` takes it.
        clips: its configuration: medium, large, ...
        split: train or validation.
        rows: how many clips at most; those without sound give an image alone.
        config: of the model.
        processor: of the model.

    Raises:
        StoredRowsError: no such set, configuration or split.
        ExportError: the split has no rows.
    """
    triples = evaluation_triples(config, processor)
    stream: Iterator[Row] = iter(open_clips(dataset, clips, split))
    decoded = [triples[0, row] for row in islice(stream, rows)]
    if not decoded:
        raise ExportError(f"The split {split} of {clips!r} in {dataset!r} has no rows to calibrate on.")
    _, batch = triples.collate(decoded)
    inputs = {}
    if config.use_image:
        inputs["image"] = batch["pixel_values"]
    if config.use_audio:
        inputs["audio"] = batch["input_features"][batch["audio_mask"]]
    return inputs


def batches_of(inputs: Tensor) -> tuple[Tensor, ...]:
    """The rows in batches."""
    return inputs.split(BATCH_ROWS)


@dataclass(frozen=True)
class Agreement:
    """Cosine similarity of int8 embeddings with those in single precision, over held-out rows."""

    rows: int
    mean_cosine: float
    least_cosine: float


def agreement(exact: OnnxTower, quantised: OnnxTower, inputs: Tensor) -> Agreement:
    """How well the embeddings of the two agree on these rows.

    Raises:
        ExportError: there are no rows.
    """
    if not len(inputs):
        raise ExportError(f"The split {HELD_OUT_SPLIT} has no row to compare on: name a set that has.")
    similarity = np.concatenate([cosines(exact(part), quantised(part)) for part in batches_of(inputs)])
    return Agreement(len(inputs), float(similarity.mean()), float(similarity.min()))


def plane_rows(frame_set: FrameSet, splits_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The labelled rows to calibrate a classifier on, and those to score it on.

    A fine-tuning that split the set itself has trained on scans of all of the set's own splits.

    Args:
        frame_set: of planes.
        splits_file: that the fine-tuning left, whose first split its model is of; the set's own split holds
            where there is none, or one of another set.

    Raises:
        ExportError: one of the two has no rows.
        ScanSplitError: the file is damaged.
    """
    sides = {CALIBRATION_SPLIT: set(), HELD_OUT_SPLIT: set()}
    for scan_id, split in zip(frame_set.scan_ids, frame_set.splits, strict=True):
        sides.setdefault(split, set()).add(scan_id)
    if splits_file.is_file():
        of_model = read_scan_splits(splits_file)[0]
        if not set(of_model.train).isdisjoint(frame_set.scan_ids):
            sides = {CALIBRATION_SPLIT: set(of_model.train), HELD_OUT_SPLIT: set(of_model.test)}
    calibration, held_out = (frame_set.rows_of(sides[name]) for name in (CALIBRATION_SPLIT, HELD_OUT_SPLIT))
    for name, rows in ((CALIBRATION_SPLIT, calibration), (HELD_OUT_SPLIT, held_out)):
        if not len(rows):
            raise ExportError(f"The set of planes has no labelled frame in {name}: name one that has.")
    return calibration, held_out


def plane_inputs(frame_set: FrameSet, rows: np.ndarray, statistics: PixelStatistics) -> Tensor:
    """The pictures of these rows as an image model takes them."""
    return statistics.normalise(channels_first(frame_set.frames[rows]))


def plane_f1(classifier: OnnxTower, frame_set: FrameSet, rows: np.ndarray, inputs: Tensor) -> float:
    """Macro F1 of a classifier on rows of a set, by the metric of fine-tuning."""
    logits = torch.cat([classifier(part) for part in batches_of(inputs)])
    predictions = SplitPredictions(
        [frame_set.scan_ids[row] for row in rows],
        frame_set.times_s[rows],
        frame_set.labels[rows],
        logits.softmax(dim=1).numpy(),
    )
    return split_scores(predictions, frame_set.class_names)["f1"]


def cost(agreed: Agreement, exact: Path, quantised: Path) -> dict[str, Any]:
    """What quantisation costs and saves, for a JSON."""
    return {
        "rows": agreed.rows,
        "mean_cosine": agreed.mean_cosine,
        "least_cosine": agreed.least_cosine,
        "bytes_before": exact.stat().st_size,
        "bytes_after": quantised.stat().st_size,
    }
