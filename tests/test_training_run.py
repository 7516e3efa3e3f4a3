"""A prepared run: optimizer, precision, memory layout, compiled towers; on a GPU, no waiting for it."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import islice, repeat
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from tiny_models import tiny_batch, tiny_config, tiny_model
from tower_helpers import assert_same_tensors
from transformers import BatchFeature

from modeling_dualrep import DualRepModel
from modeling_dualrep.tower import CheckpointedLayer, DualRepTower
from train.arguments import ArgumentsError, PretrainArguments
from train.loop import training_step
from train.pixels import PixelStatistics
from train.training_run import TrainingRun, compile_towers, prepare_run, prepared_batches
from train.triples import normalised_batches

STATISTICS = PixelStatistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(autouse=True)
def forget_accelerate() -> Iterator[None]:
    """accelerate keeps one precision for all that a process does."""
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()
    torch._dynamo.reset()


def make_run(
    model: DualRepModel, precision: str = "no", device: str = "cpu", **fields: object
) -> TrainingRun:
    AcceleratorState._reset_state()
    PartialState._reset_state()
    arguments = PretrainArguments(
        **{"output_dir": "", "dataset": "none", "max_steps": 5, "report_to": "none"} | fields
    )
    return prepare_run(Accelerator(mixed_precision=precision, cpu=device == "cpu"), arguments, model, 5)


def take_step(run: TrainingRun, clips: int = 3, **batch: object) -> dict[str, torch.Tensor]:
    run.model.train()
    return training_step(run, ["clip"] * clips, BatchFeature(tiny_batch(clips, **batch)))


def test_adam_takes_its_step_in_one_pass_over_the_weights_that_are_not_frozen() -> None:
    model = tiny_model(image_config={**tiny_config().image_config.to_dict(), "freeze": True})
    (group,) = make_run(model, learning_rate=0.25, weight_decay=0.5).optimizer.param_groups
    assert group["fused"] and (group["lr"], group["weight_decay"]) == (0.25, 0.5)
    frozen = {id(weight) for weight in model.image_model.parameters()}
    assert {id(weight) for weight in group["params"]} == {id(w) for w in model.parameters()} - frozen


def test_in_bf16_the_weights_and_what_is_saved_stay_float32(tmp_path: Path) -> None:
    run = make_run(tiny_model(), precision="bf16")
    take_step(run)
    model = run.accelerator.unwrap_model(run.model)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    moments = run.optimizer.state[next(iter(model.parameters()))]
    assert moments["exp_avg"].dtype == torch.float32
    model.save_pretrained(tmp_path)
    saved = DualRepModel.from_pretrained(tmp_path)
    assert saved.dtype == torch.float32
    assert_same_tensors(saved.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_in_bf16_the_towers_do_compute_in_bf16() -> None:
    run = make_run(tiny_model(), precision="bf16")
    seen = []
    run.model.video_model.register_forward_hook(lambda *of_call: seen.append(of_call[2].pooler_output.dtype))
    take_step(run)
    assert seen == [torch.bfloat16]


def test_weights_of_convolutions_are_kept_channels_last() -> None:
    model = make_run(tiny_model()).model
    of_video, of_image = model.video_model.stem.convolution.spatial.weight, model.image_model
    assert of_video.is_contiguous(memory_format=torch.channels_last_3d)
    weight = of_image.embedder.embedder.convolution.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_gradient_checkpointing_reaches_the_layers_of_every_tower() -> None:
    layers = [
        layer
        for layer in make_run(tiny_model(), gradient_checkpointing=True).model.modules()
        if isinstance(layer, CheckpointedLayer)
    ]
    assert len(layers) == 6 and all(layer.gradient_checkpointing for layer in layers)
    assert not any(
        layer.gradient_checkpointing
        for layer in make_run(tiny_model()).model.modules()
        if isinstance(layer, CheckpointedLayer)
    )


@pytest.mark.parametrize("fields", [{}, {"gradient_cache_clips": 2}])
def test_compiled_towers_take_the_same_steps(monkeypatch: pytest.MonkeyPatch, fields: dict) -> None:
    """Each traced as one graph, for any number of clips with sound; losses, weights and BatchNorm statistics
    are those of towers that are not compiled.
    """
    compiled_with = []
    compile_module = torch.nn.Module.compile

    def compile_quickly(module: torch.nn.Module, **options: object) -> None:
        compiled_with.append((type(module).__name__, options))
        compile_module(module, **{**options, "backend": "aot_eager"})

    monkeypatch.setattr(torch.nn.Module, "compile", compile_quickly)
    masks = ([True] * 6, [True] * 5 + [False], [True] * 3 + [False] * 3, [True] + [False] * 5, [False] * 6)

    def steps_of(run: TrainingRun) -> list[dict[str, torch.Tensor]]:
        return [take_step(run, clips=6, mask=mask, seed=seed) for seed, mask in enumerate(masks)]

    plain = make_run(tiny_model(), **fields)
    expected = steps_of(plain)
    state = {name: values.clone() for name, values in plain.model.state_dict().items()}
    assert not compiled_with
    compiled = make_run(tiny_model(), compile_towers=True, **fields)
    losses = steps_of(compiled)
    assert [name for name, _ in compiled_with] == [
        "DualRepVideoModel",
        "DualRepAudioModel",
        "DualRepImageModel",
    ]
    assert all(options["fullgraph"] and options["backend"] == "inductor" for _, options in compiled_with)
    for of_step, expected_of_step in zip(losses, expected, strict=True):
        assert_same_tensors(of_step, expected_of_step, rtol=1e-4, atol=1e-5)
    assert_same_tensors(compiled.model.state_dict(), state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "convolution"),
    [("video_model", "3d"), ("video_model", "factorised"), ("audio_model", "3d"), ("image_model", "3d")],
)
def test_a_tower_is_one_graph(name: str, convolution: str) -> None:
    video_config = tiny_config().video_config.to_dict() | {"convolution": convolution}
    model = tiny_model(training=True, video_config=video_config)
    inputs = tiny_batch(3)[getattr(model, name).main_input_name]
    reference = deepcopy(model)
    names = list(model.state_dict())
    compile_towers(model, backend="aot_eager")
    for in_bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            output = getattr(model, name)(inputs)
            expected = getattr(reference, name)(inputs)
        tolerance = {"rtol": 2e-2, "atol": 2e-2} if in_bf16 else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(output.pooler_output, expected.pooler_output, **tolerance)
        torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state, **tolerance)
    assert list(model.state_dict()) == names


def test_a_copy_of_a_compiled_tower_is_an_ordinary_one(tmp_path: Path) -> None:
    model = tiny_model()
    compile_towers(model, backend="aot_eager")
    copied = deepcopy(model.video_model)
    assert copied._compiled_call_impl is None and isinstance(copied, DualRepTower)
    model.save_pretrained(tmp_path)
    assert_same_tensors(
        DualRepModel.from_pretrained(tmp_path).state_dict(), model.state_dict(), rtol=0, atol=0
    )


@pytest.mark.parametrize("field", ["gradient_checkpointing", "sync_batch_norm"])
def test_what_breaks_the_graph_of_a_tower_is_refused_with_compilation(field: str) -> None:
    with pytest.raises(ArgumentsError, match=r"compile_towers is True, but must be False with gradient_"):
        PretrainArguments("out", dataset="clips", max_steps=1, compile_towers=True, **{field: True})


def test_a_tower_may_be_compiled_often() -> None:
    compile_towers(tiny_model(), backend="eager")
    assert torch._dynamo.config.recompile_limit >= 16


def stored_batch(mask: list[bool] | None) -> BatchFeature:
    """Four clips as the loader gives them: pixels are bytes, grey ones of one channel."""
    generator, inputs = torch.Generator().manual_seed(0), tiny_batch(4, mask=mask)
    for name in ("pixel_values_videos", "pixel_values"):
        *leading, _, height, width = inputs[name].shape
        inputs[name] = torch.randint(
            256, (*leading, 1, height, width), dtype=torch.uint8, generator=generator
        )
    return BatchFeature(inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("mask", [None, [True, False, True, True]])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_grad_norm": 1.0},
        {"compile_towers": True},
        {"gradient_cache_clips": 2},
        {"gradient_cache_clips": 2, "compile_towers": True},
    ],
)
def test_the_host_never_waits_for_the_gpu_in_a_step(mask: list[bool] | None, fields: dict) -> None:
    """From the bytes in pinned memory on, as a step of pretraining begins."""
    run = make_run(tiny_model(), precision="bf16", device="cuda", **fields)
    inputs = stored_batch(mask)
    pinned = BatchFeature({name: values.pin_memory() for name, values in inputs.items()})
    batches = prepared_batches(run, repeat((["a", "b", "c", "d"], pinned)), STATISTICS)
    run.model.train()
    for clip_ids, batch in islice(batches, 3):  # compilation and first allocations wait
        training_step(run, clip_ids, batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        training_step(run, *next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True])
def test_cached_gradients_leave_the_batch_in_bytes_and_take_the_same_steps(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """The towers make numbers of one chunk at a time."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda module, **options: compile_module(module, **{**options, "backend": "aot_eager"}),
    )
    stored = (["a", "b", "c", "d"], stored_batch([True, False, True, True]))
    fields, seen, states = {"gradient_cache_clips": 2, "compile_towers": compiled}, [], []
    for prepare in (prepared_batches, normalise_first):
        run = make_run(tiny_model(training=True), **fields)
        for clip_ids, batch in islice(prepare(run, repeat(stored), STATISTICS), 3):
            seen.append(batch["pixel_values_videos"].dtype)
            assert not training_step(run, clip_ids, batch)["skipped"]
        states.append({name: values.clone() for name, values in run.model.state_dict().items()})
    assert seen == [torch.uint8] * 3 + [torch.float32] * 3
    tolerance = 1e-5 if compiled else 0
    assert_same_tensors(*states, rtol=tolerance, atol=tolerance)


def normalise_first(run: TrainingRun, batches: Iterable, statistics: PixelStatistics) -> Iterator:
    """As without cached gradients."""
    return normalised_batches(batches, statistics, run.accelerator.device)


@pytest.mark.gpu
def test_compiled_for_the_gpu_the_towers_are_one_graph_each() -> None:
    run = make_run(tiny_model(), precision="bf16", device="cuda", compile_towers=True)
    for _ in range(2):
        losses = take_step(run)
    assert all(value.isfinite() for value in losses.values())
