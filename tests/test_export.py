"""Exported towers against PyTorch, and what int8 costs, through the command and through real files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clips_helpers import TINY_MODEL, tiny_processor, write_small_set
from frame_set_helpers import FRAME_SIZE as PLANE_SIZE
from frame_set_helpers import frame_rows, write_set
from torch import nn

from datasets_scripts.schema import PLANES
from modeling_dualrep import (
    DualRepConfig,
    DualRepForImageClassification,
    DualRepForVideoClassification,
    DualRepImageProcessor,
    DualRepModel,
    DualRepVideoProcessor,
)
from train.export import main
from train.export_towers import (
    EmbeddingTower,
    ExportError,
    OnnxTower,
    check_export,
    example_inputs,
    export_program,
    save_onnx,
    towers_of,
)
from train.frame_sets import read_frames
from train.pixels import PixelStatistics
from train.plane_frames import predict
from train.quantised_towers import can_be_quantised, clip_inputs, plane_f1, plane_inputs, plane_rows
from train.scan_splits import ScanSplit, write_scan_splits

INPUTS = {"video": "pixel_values_videos", "audio": "input_features", "image": "pixel_values"}


def spread_statistics(model: nn.Module) -> None:
    """Statistics and weights of BatchNorm as training leaves them, not the neutral ones of a new model."""
    generator = torch.Generator().manual_seed(3)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            layer.running_mean.normal_(0, 0.2, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.data.uniform_(0.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.2, generator=generator)


@torch.no_grad()
def tiny(conv_dim: int = 2, **fields) -> DualRepModel:
    torch.manual_seed(0)
    audio = TINY_MODEL["audio_config"] | {"conv_dim": conv_dim}
    model = DualRepModel(DualRepConfig(**{**TINY_MODEL, "audio_config": audio, **fields})).eval()
    spread_statistics(model)
    for name in towers_of(model.config):  # new ones are so small that any two would agree
        getattr(model, f"{name}_projection").weight.normal_()
    if model.config.use_audio:
        model.audio_model.norm.running_mean.fill_(-50.0)
        model.audio_model.norm.running_var.fill_(225.0)
    return model


def write_model(folder: Path, **fields) -> Path:
    tiny(**fields).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("export_model"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("export_clips"))


def write_plane_model(folder: Path, task: type = DualRepForImageClassification, classes: int = 14) -> Path:
    torch.manual_seed(0)
    names = dict(enumerate(PLANES[:classes]))
    size = {"height": PLANE_SIZE, "width": PLANE_SIZE}
    tower = {"embedding_size": 4, "hidden_sizes": [8, 16], "depths": [1, 1], "image_size": PLANE_SIZE}
    classifier = task(DualRepConfig(**{**TINY_MODEL, "image_config": tower}, id2label=names)).eval()
    spread_statistics(classifier)
    classifier.save_pretrained(folder)
    processor = DualRepVideoProcessor if task is DualRepForVideoClassification else DualRepImageProcessor
    processor(size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sides = {"train": frame_rows(2), "validation": frame_rows(3, first_scan=2)}
    return write_set(tmp_path_factory.mktemp("export_planes"), sides)


@pytest.fixture(scope="module")
def plane_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plane_model(tmp_path_factory.mktemp("export_plane_model"))


@pytest.fixture(scope="module")
def exported(
    model: Path, clips: Path, planes: Path, plane_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """All towers and a classifier as ONNX, in single precision and int8."""
    need_onnx()
    out = tmp_path_factory.mktemp("exported") / "out"
    words = [str(model), str(out), "--int8", "true", "--calibrate", str(clips), "--rows", "16"]
    assert main([*words, "--plane_model", str(plane_model), "--plane_set", str(planes)]) == 0
    return out


def need_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


def own_embeddings(whole: DualRepModel, name: str, inputs: torch.Tensor) -> torch.Tensor:
    """By the way that everybody uses: the model as a whole."""
    with torch.inference_mode():
        return getattr(whole(**{INPUTS[name]: inputs}), f"{name}_embeds")


def assert_gives_embeddings(exported: Callable, whole: DualRepModel, name: str) -> None:
    for batch in (1, 3, 7):
        inputs = example_inputs(whole.config, name, batch, 333)
        expected = own_embeddings(whole, name, inputs)
        assert expected.abs().max() > 0.5  # towers that give nothing would agree
        torch.testing.assert_close(exported(inputs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", INPUTS)
def test_onnx_files_give_the_embeddings_of_the_model(name: str, exported: Path, model: Path) -> None:
    whole, path = DualRepModel.from_pretrained(model).eval(), exported / f"{name}.onnx"
    assert_gives_embeddings(OnnxTower(path), whole, name)
    report = json.loads((exported / f"{name}.json").read_text())
    assert report["file"] == path.name and report["bytes"] == path.stat().st_size
    assert report["input"] == INPUTS[name] and report["output"] == f"{name}_embeds"
    assert 0 < report["check"]["greatest_difference"] <= 1e-4
    assert report["check"]["batch_sizes"] == [1, 2, 5]


def test_speech_over_time_alone_is_exported_too(tmp_path: Path) -> None:
    need_onnx()
    source = write_model(tmp_path / "model", conv_dim=1)
    assert main([str(source), str(tmp_path / "out"), "--tower", "audio"]) == 0
    whole = DualRepModel.from_pretrained(source).eval()
    assert_gives_embeddings(OnnxTower(tmp_path / "out" / "audio.onnx"), whole, "audio")


@pytest.mark.parametrize("conv_dim", [1, 2])
def test_programs_of_torch_export_give_the_embeddings(conv_dim: int, tmp_path: Path) -> None:
    source = write_model(tmp_path / "model", conv_dim=conv_dim)
    tower = "all" if conv_dim == 2 else "audio"
    assert main([str(source), str(tmp_path / "out"), "--format", "torch_export", "--tower", tower]) == 0
    whole = DualRepModel.from_pretrained(source).eval()
    for name in towers_of(whole.config) if tower == "all" else ["audio"]:
        program = torch.export.load(tmp_path / "out" / f"{name}.pt2").module()
        assert_gives_embeddings(program, whole, name)


def test_names_sizes_and_normalisation_stand_in_file_and_json(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "image.onnx")
    (given,), (taken,) = session.get_outputs(), session.get_inputs()
    assert (taken.name, taken.shape[1:]) == ("pixel_values", [3, 16, 16])
    assert (given.name, given.shape[1:]) == ("image_embeds", [8])
    report = json.loads((exported / "image.json").read_text())
    assert report["input_shape"] == ["batch", 3, 16, 16] and report["output_shape"] == ["batch", 8]
    normalisation = report["normalisation"]
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    by_hand = (pixels * normalisation["scaled_by"] - normalisation["mean"]) / normalisation["std"]
    by_processor = tiny_processor()(images=[pixels], return_tensors="pt")["pixel_values"][0]
    np.testing.assert_allclose(by_hand.transpose(2, 0, 1), by_processor.numpy(), atol=1e-5)
    assert "stay in Python" in report["processing"]
    heard = json.loads((exported / "audio.json").read_text())["normalisation"]
    assert (heard["unit"], heard["sampling_rate"], heard["feature_size"]) == ("dB", 32000, 64)


def test_a_file_that_gives_other_values_is_refused() -> None:
    whole = tiny()
    module = EmbeddingTower(whole, "image").eval()
    assert check_export(module, module, whole.config).greatest_difference == 0
    for exported in (
        lambda inputs: module(inputs) + 2e-4,
        lambda inputs: module(inputs)[:1],
        lambda inputs: module(inputs) * torch.nan,
    ):
        with pytest.raises(ExportError, match="gives other values than PyTorch"):
            check_export(exported, module, whole.config)


def test_which_towers_there_are_and_can_be_quantised() -> None:
    assert towers_of(tiny().config) == ["video", "audio", "image"]
    assert towers_of(tiny(use_audio=False).config) == ["video", "image"]
    quantised = {(dim, name) for dim in (1, 2) for name in INPUTS if can_be_quantised(tiny(dim).config, name)}
    assert quantised == {(1, "image"), (2, "image"), (2, "audio")}


def test_int8_towers_agree_and_cost_what_is_said(exported: Path, model: Path, clips: Path) -> None:
    whole = DualRepModel.from_pretrained(model).eval()
    held_out = clip_inputs(str(clips), "medium", "validation", 16, whole.config, tiny_processor())
    assert len(held_out["image"]) == 8 and len(held_out["audio"]) == 7  # one has no sound
    for name in ("image", "audio"):
        costs = json.loads((exported / f"{name}.json").read_text())["int8"]
        expected = own_embeddings(whole, name, held_out[name])
        got = OnnxTower(exported / costs["file"])(held_out[name])
        cosine = nn.functional.cosine_similarity(got, expected)
        assert costs["rows"] == len(expected)
        assert costs["mean_cosine"] == pytest.approx(cosine.mean().item(), abs=1e-4)
        assert 0.98 < costs["least_cosine"] <= costs["mean_cosine"] < 1
        assert not torch.equal(got, expected)
    assert "int8" not in json.loads((exported / "video.json").read_text())
    assert not (exported / "video.int8.onnx").exists()


def test_int8_weights_are_int8(exported: Path) -> None:
    import onnx

    graph = onnx.load(exported / "image.int8.onnx").graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    makers = {output: node for node in graph.node for output in node.output}
    weights = {each.name: each for each in graph.initializer}
    assert convolutions
    for node in convolutions:
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        assert weights[makers[node.input[1]].input[0]].data_type == onnx.TensorProto.INT8


def test_macro_f1_of_a_plane_model_before_and_after(exported: Path, plane_model: Path, planes: Path) -> None:
    report = json.loads((exported / "planes.json").read_text())
    costs = report["int8"]
    assert (report["input"], report["output"]) == ("pixel_values", "logits")
    assert report["classes"] == list(PLANES)
    assert set(report["machine"]) == {"cpu", "cores", "gpu", "torch"} and report["code_version"]
    classifier = DualRepForImageClassification.from_pretrained(plane_model).eval()
    frames = read_frames(str(planes), "planes", PLANE_SIZE)
    statistics = PixelStatistics(DualRepImageProcessor.image_mean, DualRepImageProcessor.image_std)
    _, rows = plane_rows(frames, plane_model / "splits.json")
    inputs = plane_inputs(frames, rows, statistics)
    probabilities = predict(classifier, frames, rows, statistics, 4)
    exact = OnnxTower(exported / "planes.onnx")
    torch.testing.assert_close(exact(inputs).softmax(dim=1).numpy(), probabilities, atol=1e-4, rtol=1e-4)
    assert costs["frames"] == 18 == len(rows) and costs["scans"] == len(
        {frames.scan_ids[row] for row in rows}
    )
    assert costs["bytes_after"] == (exported / costs["file"]).stat().st_size < costs["bytes_before"]

    def right(inputs: torch.Tensor) -> torch.Tensor:
        """A classifier that knows: batches come in the order of the rows."""
        nonlocal seen
        seen += len(inputs)
        return (
            nn.functional.one_hot(torch.from_numpy(frames.labels[rows[seen - len(inputs) : seen]]), 14) * 9.0
        )

    seen = 0
    assert plane_f1(right, frames, rows, inputs) == 1.0
    assert costs["macro_f1_before"] == plane_f1(exact, frames, rows, inputs) < 1
    quantised = OnnxTower(exported / costs["file"])
    assert costs["macro_f1_after"] == plane_f1(quantised, frames, rows, inputs)


def test_a_plane_model_is_scored_on_scans_that_it_did_not_train_on(planes: Path, tmp_path: Path) -> None:
    """Those that its own split says, and else those of the set's."""
    frames, file = read_frames(str(planes), "planes", PLANE_SIZE), tmp_path / "splits.json"
    scans = sorted(set(frames.scan_ids))

    def scans_of(file: Path) -> list[set[str]]:
        return [{frames.scan_ids[row] for row in rows} for rows in plane_rows(frames, file)]

    own = {
        split: {s for s, of in zip(frames.scan_ids, frames.splits, strict=True) if of == split}
        for split in set(frames.splits)
    }
    assert scans_of(file) == [own["train"], own["validation"]]
    write_scan_splits(file, [ScanSplit(tuple(scans[1:]), (scans[0],)), ScanSplit((scans[0],), (scans[1],))])
    assert scans_of(file) == [set(scans[1:]), {scans[0]}]
    write_scan_splits(file, [ScanSplit(("of another set",), ("and another",))])
    assert scans_of(file) == [own["train"], own["validation"]]
    write_scan_splits(file, [ScanSplit((scans[0],), ("gone",))])
    with pytest.raises(ExportError, match="no labelled frame in validation"):
        plane_rows(frames, file)


def of_video(folder: Path) -> list[str]:
    return ["--plane_model", str(write_plane_model(folder / "p", DualRepForVideoClassification))]


def of_other_classes(folder: Path) -> list[str]:
    return ["--plane_model", str(write_plane_model(folder / "p", classes=2))]


@pytest.mark.parametrize(("make", "words"), [(of_video, "sees clips"), (of_other_classes, "other classes")])
def test_a_plane_model_that_does_not_fit(
    make: Callable[[Path], list[str]],
    words: str,
    model: Path,
    clips: Path,
    planes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    need_onnx()
    flags = ["--tower", "image", "--int8", "true", "--calibrate", str(clips), "--rows", "2"]
    flags += [*make(tmp_path), "--plane_set", str(planes)]
    assert main([str(model), str(tmp_path / "out"), *flags]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tower", "speech"], "tower is 'speech'"),
        (["--format", "tflite"], "format is 'tflite'"),
        (["--int8", "true"], "calibrate is None"),
        (["--int8", "true", "--calibrate", "x", "--format", "torch_export"], "int8 is True"),
        (["--plane_model", "x"], "plane_set is None"),
        (["--twoer", "image"], "Did you mean tower"),
    ],
)
def test_flags_that_make_no_sense(
    flags: list[str], words: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(model), str(tmp_path / "out"), *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("export.py: ") and words in said and not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    need_onnx()

    def said(*words: str) -> str:
        assert main(list(words)) == 2
        return capsys.readouterr().err

    assert "Name the model and the folder" in said(str(model))
    assert "no folder with a model" in said(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    planes = write_plane_model(tmp_path / "planes")
    assert "holds a DualRepForImageClassification" in said(str(planes), str(tmp_path / "out"))
    mute = write_model(tmp_path / "mute", use_audio=False)
    assert "no audio tower" in said(str(mute), str(tmp_path / "out"), "--tower", "audio")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "image.json").write_text("{}")
    assert "--overwrite true" in said(str(model), str(tmp_path / "old"))


def test_without_the_optional_packages_it_says_how_to_get_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main([str(model), str(tmp_path / "out"), "--tower", "image"]) == 2
    assert "uv sync --group export" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_dimensional_speech_alone_is_not_quantised(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    need_onnx()
    source = write_model(tmp_path / "model", conv_dim=1)
    flags = ["--tower", "audio", "--int8", "true", "--calibrate", str(clips)]
    assert main([str(source), str(tmp_path / "out"), *flags]) == 2
    assert "conv_dim is 2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("conv_dim", [1, 2])
def test_towers_of_full_size(conv_dim: int, tmp_path: Path) -> None:
    need_onnx()
    torch.manual_seed(0)
    whole = DualRepModel(DualRepConfig(audio_config={"conv_dim": conv_dim})).eval()
    spread_statistics(whole)
    whole.audio_model.norm.running_mean.fill_(-50.0)
    whole.audio_model.norm.running_var.fill_(225.0)
    for name in ("video", "audio", "image") if conv_dim == 2 else ("audio",):
        module = EmbeddingTower(whole, name).eval()
        program = export_program(module, example_inputs(whole.config, name, 2))
        save_onnx(program, module, tmp_path / "tower.onnx")
        assert (
            check_export(OnnxTower(tmp_path / "tower.onnx"), module, whole.config).greatest_difference <= 1e-4
        )


@pytest.mark.slow
def test_the_command_as_a_process(model: Path, tmp_path: Path) -> None:
    need_onnx()
    words = [sys.executable, "-m", "train.export", str(model), str(tmp_path), "--tower", "image"]
    done = subprocess.run(
        words, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "image.onnx: within" in done.stdout and "processors stay in Python" in done.stdout
