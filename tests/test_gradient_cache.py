"""Gradient caching: the gradient of one graph over all chunks, in the memory of one."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_models import tiny_batch, tiny_config
from transformers import BatchFeature

from modeling_dualrep import DualRepModel
from modeling_dualrep.gradient_cache import in_chunks
from modeling_dualrep.objective import objective_terms
from modeling_dualrep.outputs import DualRepOutput
from train.arguments import ArgumentsError, PretrainArguments
from train.loop import training_step
from train.training_run import compile_towers, prepare_run

EXACT = {"rtol": 1e-10, "atol": 1e-10}
# Ten clips, four at a time, are chunks of 4, 3 and 3: of the last one none has sound, of the second one.
MASK = [True, True, False, True, False, True, False, False, False, False]
CHUNKS = [slice(0, 4), slice(4, 7), slice(7, 10)]
CLIPS_AT_A_TIME = 4
RANDOM_AUDIO = {"spec_augment": True, "block_dropout": 0.3, "embedding_dropout": 0.4}


@pytest.fixture(autouse=True)
def fresh_accelerate() -> None:
    """accelerate keeps its precision for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def build(training: bool, frozen: str | None = None, **fields: object) -> DualRepModel:
    """The same weights at every call, in float64; its audio tower draws stripes and dropout."""
    config = tiny_config(**fields)
    for name, value in RANDOM_AUDIO.items():
        setattr(config.audio_config, name, value)
    if frozen:
        getattr(config, f"{frozen}_config").freeze = True
    torch.manual_seed(0)
    return DualRepModel(config).double().train(training)


def batch_for(model: DualRepModel, mask: list[bool] = MASK, **inputs: object) -> dict:
    batch = tiny_batch(len(mask), mask=mask, dtype=torch.float64)
    # Long enough for stripes of some width.
    batch["input_features"] = torch.randn(len(mask), 48, 8, dtype=torch.float64)
    if not model.config.use_audio:
        del batch["input_features"], batch["audio_mask"]
    if not model.config.use_image:
        del batch["pixel_values"]
    return batch | inputs


def chunk_by_chunk(model: DualRepModel, batch: dict) -> DualRepOutput:
    """One graph in which the towers take the chunks one after the other, and the losses all embeddings."""
    embeds = {"video_embeds": [], "audio_embeds": [], "image_embeds": []}
    for chunk in CHUNKS:
        embeds["video_embeds"].append(
            model.get_video_features(batch["pixel_values_videos"][chunk]).pooler_output
        )
        if model.config.use_image:
            embeds["image_embeds"].append(
                model.get_image_features(batch["pixel_values"][chunk]).pooler_output
            )
        if model.config.use_audio:
            mask = batch["audio_mask"][chunk]
            of_chunk = embeds["video_embeds"][-1].new_zeros(len(mask), model.config.projection_dim)
            if mask.any():
                features = batch["input_features"][chunk][mask]
                of_chunk[mask] = model.get_audio_features(features).pooler_output
            embeds["audio_embeds"].append(of_chunk)
    embeds = {name: torch.cat(chunks) for name, chunks in embeds.items() if chunks}
    video, has_sound = embeds["video_embeds"], batch.get("audio_mask")
    for other in ("audio", "image"):
        if f"{other}_embeds" in embeds:
            rows = has_sound if other == "audio" else torch.ones(len(video), dtype=torch.bool)
            of_other = embeds[f"{other}_embeds"]
            for name in (f"video_{other}_embeds", f"{other}_similarity_embeds"):
                embeds[name] = torch.zeros_like(video)
            fusion = getattr(model, f"{other}_fusion")
            embeds[f"video_{other}_embeds"][rows] = fusion(of_other[rows], video[rows])
            embeds[f"{other}_parts"], embeds[f"video_parts_with_{other}"] = fusion.parts(of_other, video)
            embeds[f"{other}_similarity_embeds"][rows] = getattr(model, f"{other}_similarity")(of_other[rows])
    embeds["video_similarity_embeds"] = model.video_similarity(video)
    terms, _ = objective_terms(model.config, embeds, has_sound, batch.get("clip_groups"))
    return DualRepOutput(loss=sum(terms.values()), loss_terms=terms)


def after_step(model: DualRepModel, output: DualRepOutput) -> dict:
    """What a step leaves behind."""
    output.loss.backward()
    return {
        "terms": output.loss_terms,
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "statistics": dict(model.named_buffers()),
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fuse_candidates_with_anchor_video": True, "negatives": "mean"},
        {"use_audio": False},
        {"use_image": False},
        {"frozen": "video"},
        {"frozen": "audio"},
    ],
    ids=str,
)
def test_it_is_one_graph_over_all_chunks(fields: dict) -> None:
    """In training: gradients, and BatchNorm statistics that count each chunk once, as does the randomness."""
    cached, reference = build(True, **fields), build(True, **fields)
    batch = batch_for(cached, clip_groups=torch.tensor([0, 1, 2, 3, 0, 5, 6, 6, 8, 9]))
    results = []
    for model in (cached, reference):
        torch.manual_seed(1)
        if model is cached:
            output = model(**batch, return_loss=True, gradient_cache_clips=CLIPS_AT_A_TIME)
        else:
            output = chunk_by_chunk(model, batch)
        results.append(after_step(model, output) | {"next draw": torch.rand(3)})
    torch.testing.assert_close(*results, **EXACT)
    gradients = results[0]["gradients"]
    assert {name for name, gradient in gradients.items() if gradient is None} == {
        name for name, parameter in cached.named_parameters() if not parameter.requires_grad
    }
    assert any(gradient is not None and gradient.norm() > 1e-3 for gradient in gradients.values())
    for name, count in results[0]["statistics"].items():
        if name.startswith("video_model.") and name.endswith("num_batches_tracked"):
            assert count == (0 if fields.get("frozen") == "video" else 3)


@pytest.mark.parametrize("mask", [MASK, [True] * 10, [False] * 10, [False] * 9 + [True]], ids=sum)
@pytest.mark.parametrize("clips_at_a_time", [1, 4, 9, 10, 100])
def test_in_evaluation_mode_it_is_the_whole_batch_at_once(mask: list[bool], clips_at_a_time: int) -> None:
    results = []
    for clips in (None, clips_at_a_time):
        model = build(False)
        batch = batch_for(model, mask)
        batch["input_features"] = tiny_batch(10, dtype=torch.float64)["input_features"]
        output = model(**batch, return_loss=True, gradient_cache_clips=clips)
        results.append(after_step(model, output) | {"embeds": dict(output)})
    torch.testing.assert_close(*results, **EXACT)


def test_chunks_change_the_batch_norms_of_the_towers_alone() -> None:
    """In training every chunk has its own statistics; the heads keep those of the whole batch."""
    counts = {}
    for clips in (None, CLIPS_AT_A_TIME):
        model = build(True)
        model(**batch_for(model), return_loss=True, gradient_cache_clips=clips)
        counts[clips] = {
            name: count.item() for name, count in model.named_buffers() if name.endswith("batches_tracked")
        }
    for name, count in counts[CLIPS_AT_A_TIME].items():
        in_tower = name.split(".")[0].endswith("_model")
        # One of the three chunks holds no sound, so the audio tower never sees it.
        assert count == (counts[None][name] if not in_tower else 2 if name.startswith("audio") else 3), name


def test_gradient_checkpointing_goes_with_it() -> None:
    results = []
    for checkpointing in (False, True):
        model = build(True)
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(2)
        batch = batch_for(model)
        torch.manual_seed(1)
        output = model(**batch, return_loss=True, gradient_cache_clips=CLIPS_AT_A_TIME)
        results.append(after_step(model, output))
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.slow
def test_compiled_towers_go_with_it() -> None:
    """The second run of a chunk takes the graph of the first: each is compiled once a shape."""
    results = []
    for compiled in (False, True):
        model = build(True)
        torch.manual_seed(2)
        batch = batch_for(model, [True] * 8)
        for layer in model.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0  # compiled dropout draws other numbers
        model.audio_model.config.spec_augment = False
        if compiled:
            compile_towers(model, backend="aot_eager")
        output = model(**batch, return_loss=True, gradient_cache_clips=CLIPS_AT_A_TIME)
        results.append(after_step(model, output))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-8)


def test_the_chunks_are_as_large_as_they_can_be_alike() -> None:
    sizes: list[int] = []

    def embed(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return 2 * rows

    rows = torch.arange(10.0)[:, None]
    assert torch.equal(in_chunks(embed, (rows,), 4, torch.nn.Identity()), 2 * rows)
    assert sizes == [4, 3, 3]


def test_fewer_than_one_clip_at_a_time_are_refused() -> None:
    model = build(False)
    with pytest.raises(ValueError, match="gradient_cache_clips is 0, but must be at least 1"):
        model(**batch_for(model), gradient_cache_clips=0)


def peak_bytes(clips: int, clips_at_a_time: int | None, trace: Path) -> int:
    """Most memory that a step holds beyond what was there before it."""
    model = build(True)
    batch = {
        "pixel_values_videos": torch.randn(clips, 4, 3, 24, 24, dtype=torch.float64),
        "input_features": torch.randn(clips, 256, 8, dtype=torch.float64),
        "pixel_values": torch.randn(clips, 3, 48, 48, dtype=torch.float64),
    }
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        model(**batch, return_loss=True, gradient_cache_clips=clips_at_a_time).loss.backward()
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    totals = [event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]"]
    return max(totals) - totals[0]


def test_memory_is_that_of_one_chunk(tmp_path: Path) -> None:
    """Four times the clips, of which the whole batch's graph keeps all: only embeddings come on top."""
    few, many = (peak_bytes(clips, 8, tmp_path / "trace.json") for clips in (16, 64))
    at_once = peak_bytes(64, None, tmp_path / "trace.json")
    assert many < 1.2 * few
    assert at_once > 4 * many


@pytest.mark.parametrize("filling", [1.0, torch.nan])
def test_a_step_of_the_training_loop_takes_it(tmp_path: Path, filling: float) -> None:
    """Where the step is skipped, its second pass leaves no trace either."""
    arguments = PretrainArguments(
        output_dir=str(tmp_path), dataset="none", max_steps=1, gradient_cache_clips=CLIPS_AT_A_TIME
    )
    model = build(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = prepare_run(Accelerator(cpu=True), arguments, model, max_steps=1)
    batch = batch_for(model)
    batch["pixel_values_videos"][0] *= filling
    chunks: list[int] = []
    model.video_model.register_forward_hook(lambda module, inputs, output: chunks.append(len(inputs[0])))
    losses = training_step(run, [f"clip{number}" for number in range(10)], BatchFeature(batch))
    assert sorted(chunks) == [3, 3, 3, 3, 4, 4], "each chunk goes through twice"
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    if filling == 1.0:
        assert losses["loss"].isfinite() and len(changed) > 0.9 * len(before)
        assert model.video_model.stem.norm.num_batches_tracked == 3
    else:
        assert not changed


def test_fewer_clips_than_one_are_refused_before_work() -> None:
    with pytest.raises(ArgumentsError, match="gradient_cache_clips is 0, but must be at least 1"):
        PretrainArguments(output_dir="none", dataset="none", max_steps=1, gradient_cache_clips=0)


def test_mixed_precision_of_accelerate(tmp_path: Path) -> None:
    gradients = []
    for clips in (None, CLIPS_AT_A_TIME):
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        model = accelerator.prepare(build(False).float())
        batch = batch_for(accelerator.unwrap_model(model))
        batch = {
            name: values.float() if values.is_floating_point() else values for name, values in batch.items()
        }
        torch.manual_seed(1)
        batch["input_features"] = torch.randn(10, 48, 8)
        output = model(**batch, return_loss=True, gradient_cache_clips=clips)
        assert output.video_embeds.dtype == torch.float32
        accelerator.backward(output.loss)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
    assert abs(gradients[0].norm() / gradients[1].norm() - 1) < 0.05
