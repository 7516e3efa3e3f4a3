"""Writes the towers of a pretrained model as ONNX or as programs of torch.export, checked against PyTorch.

python -m train.export RUN_FOLDER_OR_HUB_ID OUT [--tower video|audio|image|all] [--format onnx|torch_export]
    [--int8 true --calibrate CLIPS_SET] [--plane_model FOLDER --plane_set PLANES_SET]

OUT gets <tower>.onnx (or .pt2) and <tower>.json with names, sizes, normalisation, the check, and the code and
machine that made it. A file takes what the processor makes: the feature extractor and the processors stay in
Python. With --int8 the tower of images, and that of speech over time and mel, are quantised as well
(<tower>.int8.onnx), and the JSON says what it costs; of a plane model, in macro F1.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from modeling_dualrep.modeling_dualrep import DualRepForImageClassification, DualRepModel
from modeling_dualrep.processing_dualrep import DualRepProcessor
from train.arguments import COMMAND_LINE, ArgumentsError, build, help_text, read_flags, require
from train.clip_order import ClipsError
from train.export_towers import (
    TOWERS,
    ClassifierLogits,
    EmbeddingTower,
    ExportError,
    OnnxTower,
    check_export,
    describe,
    example_inputs,
    export_program,
    import_onnx,
    save_onnx,
    save_torch_export,
    towers_of,
)
from train.frame_sets import SPLITS_FILE, FrameSet, FrameSetError, read_frames
from train.json_files import write_json
from train.metrics_file import current_code_version, describe_machine
from train.pixels import PixelStatistics
from train.pretrained import PretrainedError, load_pretrained
from train.quantised_towers import (
    CALIBRATION_SPLIT,
    HELD_OUT_SPLIT,
    agreement,
    batches_of,
    can_be_quantised,
    clip_inputs,
    cost,
    plane_f1,
    plane_inputs,
    plane_rows,
    quantise,
)
from train.scan_splits import ScanSplitError
from train.stored_rows import StoredRowsError
from train.timeline import TimelineError, load_classifier

ALL, ONNX, TORCH_EXPORT = "all", "onnx", "torch_export"
PLANES = "planes"


@dataclass(frozen=True)
class ExportArguments:
    """One export.

    Args:
        tower: video, audio, image, or all that the model has.
        format: onnx, or torch_export (a program for torch.export.load).
        int8: quantise as well: the tower of images, and that of speech where its conv_dim is 2.
        calibrate: set of clips whose training rows the int8 ranges are taken from, and whose validation rows
            the embeddings are compared on: folder, URL or id on the Hub.
        dataset_config: its configuration: medium, large, ...
        rows: clips of either split, at most.
        plane_model: folder of a fine-tuned classifier of pictures, which is exported and quantised too.
        plane_set: set of planes, whose training rows calibrate it and whose validation rows score it; where
            the folder's splits.json splits this set otherwise, those that its first split says.
        overwrite: replace files that OUT holds.
    """

    tower: str = ALL
    format: str = ONNX
    int8: bool = False
    calibrate: str | None = None
    dataset_config: str = "medium"
    rows: int = 128
    plane_model: str | None = None
    plane_set: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require(self, "tower", self.tower in (*TOWERS, ALL), f"{', '.join(TOWERS)} or {ALL}")
        require(self, "format", self.format in (ONNX, TORCH_EXPORT), f"{ONNX} or {TORCH_EXPORT}")
        require(self, "int8", not self.int8 or self.format == ONNX, f"false where format is not {ONNX}")
        if self.int8:
            require(self, "calibrate", self.calibrate is not None, "a set of clips where int8 is asked for")
        both = (self.plane_model is None) == (self.plane_set is None)
        require(self, "plane_set", both, "given together with plane_model")
        require(self, "plane_model", self.plane_model is None or self.int8, "left out without int8")
        require(self, "rows", self.rows >= 2, "at least 2")


def main(command_line: list[str] | None = None) -> int:
    """The command; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\n{help_text(ExportArguments)}")
        return 0
    logging.disable_progress_bar()
    refused = (ArgumentsError, ClipsError, ExportError, FrameSetError, PretrainedError, StoredRowsError)
    try:
        if len(words) < 2 or any(word.startswith("--") for word in words[:2]):
            raise ArgumentsError(
                "Name the model and the folder to write: `python -m train.export MODEL OUT`."
            )
        arguments = build(ExportArguments, read_flags(words[2:]), COMMAND_LINE)
        reports = export(words[0], Path(words[1]), arguments)
    except (*refused, ScanSplitError, TimelineError, OSError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    for name, report in reports.items():
        print(summary(name, report))
    print(f"Written to {words[1]}. The processors stay in Python.")
    return 0


def export(source: str, folder: Path, arguments: ExportArguments) -> dict[str, dict[str, Any]]:
    """Writes what is asked for into a folder; returns what stands in the JSON of each file, by its name.

    All that is given is looked at before anything is written.

    Raises:
        ExportError: the model lacks the tower, a package is not installed, or values differ.
        ArgumentsError: the folder holds such files.
    """
    if arguments.format == ONNX:
        import_onnx()
    model, processor = load_pretrained(source)
    names = towers_of(model.config) if arguments.tower == ALL else [arguments.tower]
    towers = [EmbeddingTower(model, name).eval() for name in names]
    check_folder(folder, [*names, *([PLANES] if arguments.plane_model else [])], arguments.overwrite)
    rows = calibration_rows(names, model, processor, arguments) if arguments.int8 else {}
    planes = open_planes(arguments) if arguments.plane_model else None
    folder.mkdir(parents=True, exist_ok=True)
    reports = {}
    for tower in towers:
        path = folder / f"{tower.name}.{'onnx' if arguments.format == ONNX else 'pt2'}"
        described = describe(tower, model.config, processor) | {"file": path.name}
        reports[tower.name] = described | write_checked(tower, model.config, path)
    for name, (calibration, held_out) in rows.items():
        reports[name] |= {"int8": quantise_tower(folder / f"{name}.onnx", calibration, held_out)}
    if planes is not None:
        reports[PLANES] = export_planes(planes, folder, arguments.rows)
    made_with = {"code_version": current_code_version(), "machine": describe_machine()}
    for name, report in reports.items():
        write_json(folder / f"{name}.json", report | made_with)
    return reports


def check_folder(folder: Path, names: list[str], overwrite: bool) -> None:
    """Raises ArgumentsError where files would be written over, unless that is wanted."""
    if folder.exists() and not folder.is_dir():
        raise ArgumentsError(f"{folder} is a file: name a folder.")
    there = [name for name in names if (folder / f"{name}.json").exists()]
    if there and not overwrite:
        raise ArgumentsError(
            f"{folder} holds an export of {there[0]}. Name another, or pass --overwrite true."
        )


def write_checked(module: EmbeddingTower | ClassifierLogits, config: Any, path: Path) -> dict[str, Any]:
    """Writes a file aside, compares it with PyTorch, and puts it in its place.

    Raises:
        ExportError: it gives other values.
    """
    program = export_program(module, example_inputs(config, module.name, 2))
    aside = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        if path.suffix == ".onnx":
            save_onnx(program, module, aside)
            exported = OnnxTower(aside)
        else:
            save_torch_export(program, aside)
            exported = torch.export.load(aside).module()
        check = check_export(exported, module, config)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return {"check": asdict(check), "bytes": path.stat().st_size}


def calibration_rows(
    names: list[str], model: DualRepModel, processor: DualRepProcessor, arguments: ExportArguments
) -> dict[str, tuple[Tensor, Tensor]]:
    """For each tower that can be quantised the inputs to calibrate on, and those to compare on.

    Raises:
        ExportError: none of the towers can be quantised, or the set has no rows.
    """
    fitting = [name for name in names if can_be_quantised(model.config, name)]
    if not fitting:
        raise ExportError(
            "None of these towers is one of 2-D convolutions, and only those are quantised: the tower of "
            "images, and that of speech where conv_dim is 2. Leave --int8 out."
        )
    calibration, held_out = (
        clip_inputs(
            arguments.calibrate, arguments.dataset_config, split, arguments.rows, model.config, processor
        )
        for split in (CALIBRATION_SPLIT, HELD_OUT_SPLIT)
    )
    return {name: (calibration[name], held_out[name]) for name in fitting}


def quantise_tower(exact: Path, calibration: Tensor, held_out: Tensor) -> dict[str, Any]:
    """Writes the int8 file beside that in single precision; returns what it costs."""
    quantised = exact.with_suffix(".int8.onnx")
    quantise(exact, quantised, batches_of(calibration))
    agreed = agreement(OnnxTower(exact), OnnxTower(quantised), held_out)
    return {"file": quantised.name, **cost(agreed, exact, quantised)}


@dataclass(frozen=True)
class PlaneTask:
    """A classifier of pictures, in evaluation mode, and a set of planes at its size.

    Args:
        classifier: the model.
        statistics: what its pixels are normalised by.
        frame_set: the planes.
        calibration, held_out: (frames,) rows of it, the latter of scans that the classifier was not trained
            on, as far as that is known.
    """

    classifier: DualRepForImageClassification
    statistics: PixelStatistics
    frame_set: FrameSet
    calibration: np.ndarray
    held_out: np.ndarray


def open_planes(arguments: ExportArguments) -> PlaneTask:
    """The classifier and the set that are to score it.

    Raises:
        ExportError: it sees clips, or has other classes than the set, or the set has no row to use.
    """
    classifier, processor = load_classifier(arguments.plane_model)
    if not isinstance(classifier, DualRepForImageClassification):
        raise ExportError(f"{arguments.plane_model} sees clips: give a classifier of pictures.")
    config = classifier.config
    frame_set = read_frames(arguments.plane_set, PLANES, config.image_config.image_size)
    if frame_set.class_names != tuple(config.id2label[number] for number in range(config.num_labels)):
        raise ExportError(f"{arguments.plane_model} and {arguments.plane_set} have other classes.")
    statistics = PixelStatistics(processor.image_mean, processor.image_std)
    rows = plane_rows(frame_set, Path(arguments.plane_model) / SPLITS_FILE)
    return PlaneTask(classifier.eval(), statistics, frame_set, *rows)


def export_planes(task: PlaneTask, folder: Path, calibration_frames: int) -> dict[str, Any]:
    """Writes a classifier of pictures in single precision and int8; returns the macro F1 of both."""
    exact, quantised = folder / f"{PLANES}.onnx", folder / f"{PLANES}.int8.onnx"
    module = ClassifierLogits(task.classifier)
    written = write_checked(module, task.classifier.config, exact)
    # Evenly over the rows: those of a scan stand together.
    chosen = np.linspace(0, len(task.calibration) - 1, min(calibration_frames, len(task.calibration)))
    calibration = plane_inputs(task.frame_set, task.calibration[chosen.astype(int)], task.statistics)
    quantise(exact, quantised, batches_of(calibration))
    rows = task.held_out
    inputs = plane_inputs(task.frame_set, rows, task.statistics)
    before, after = (plane_f1(OnnxTower(path), task.frame_set, rows, inputs) for path in (exact, quantised))
    scans = len({task.frame_set.scan_ids[row] for row in rows})
    costs = {"frames": len(rows), "scans": scans, "macro_f1_before": before, "macro_f1_after": after}
    costs |= {"bytes_before": exact.stat().st_size, "bytes_after": quantised.stat().st_size}
    return {
        "input": module.input_name,
        "output": module.output_name,
        "classes": task.frame_set.class_names,
        "file": exact.name,
        **written,
        "int8": {"file": quantised.name, **costs},
    }


def summary(name: str, report: dict[str, Any]) -> str:
    """A line for people."""
    check = report["check"]
    line = f"{report['file']}: within {check['greatest_difference']:.1e} of PyTorch at batches of "
    line += ", ".join(map(str, check["batch_sizes"]))
    int8 = report.get("int8")
    if int8 is None:
        return f"{line}."
    if name == PLANES:
        before, after = (100 * int8[f"macro_f1_{when}"] for when in ("before", "after"))
        return f"{line}; macro F1 {before:.1f} %, as int8 {after:.1f} % on {int8['frames']} frames."
    cosines = f"{int8['mean_cosine']:.4f} on average, {int8['least_cosine']:.4f} at least"
    return f"{line}; cosine of its embeddings with those of int8: {cosines}."


if __name__ == "__main__":
    sys.exit(main())
