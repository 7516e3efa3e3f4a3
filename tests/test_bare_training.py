"""What a training step is measured against: the same tensors, precision, layout and optimizer."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from benchmark_helpers import TINY_MODEL
from transformers import BatchFeature

from modeling_dualrep import DualRepConfig, DualRepVideoConfig, DualRepVideoModel
from modeling_dualrep.configuration_dualrep import DualRepAudioConfig
from modeling_dualrep.image_resnet import DualRepImageModel
from modeling_dualrep.tower import DualRepTower
from train.bare_training import (
    PlainModel,
    bare_towers_steps,
    benchmarked_run,
    model_inputs,
    plain_steps,
    random_batch,
    training_steps,
)
from train.benchmark_step import pretraining
from train.pixels import PixelStatistics
from train.pretrain import build_processor
from train.training_run import TrainingRun


@pytest.fixture(autouse=True)
def forget_accelerate() -> Iterator[None]:
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


@pytest.fixture
def optimizers(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.Adam]:
    """Those that are built, in their order."""
    built = []
    adam = torch.optim.Adam

    def build(*arguments, **named):
        built.append(adam(*arguments, **named))
        return built[-1]

    monkeypatch.setattr(torch.optim, "Adam", build)
    return built


def tiny_run(precision: str) -> TrainingRun:
    return benchmarked_run(pretraining(TINY_MODEL, precision, 0, compiled=False), "cpu")


def tiny_batch(clips: int = 3) -> BatchFeature:
    return random_batch(DualRepConfig(**TINY_MODEL), clips, clip_seconds=0.5, seed=0)


def test_the_random_batch_is_as_the_loader_gives_it_and_the_processor_would_lay_it_out() -> None:
    config = DualRepConfig(**TINY_MODEL)
    batch = random_batch(config, 2, clip_seconds=0.5, seed=0)
    bytes_of = {name: batch[name] for name in ("pixel_values_videos", "pixel_values")}
    assert {values.dtype for values in bytes_of.values()} == {torch.uint8}
    processor = build_processor(config)
    videos, images = (list(values) for values in bytes_of.values())
    expected = processor(videos=videos, images=images, return_tensors="pt")
    sound = torch.rand(2, 16000).numpy()
    expected |= processor.feature_extractor(list(sound), sampling_rate=32000, return_tensors="pt")
    inputs = model_inputs(config, batch, torch.device("cpu"))
    assert sorted(inputs) == sorted(expected)
    for name, values in inputs.items():
        assert (values.shape, values.dtype) == (expected[name].shape, expected[name].dtype), name
        assert values.stride() == expected[name].stride(), name
        assert name not in bytes_of or torch.equal(values, expected[name]), name
    assert batch["audio_mask"].all()


def test_every_timed_step_makes_numbers_of_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, batch = [], tiny_batch()
    normaliser = PixelStatistics.batch_normaliser

    def noted(self, device):
        normalise = normaliser(self, device)
        return lambda clips: (seen.append(clips.dtype), normalise(clips))[1]

    monkeypatch.setattr(PixelStatistics, "batch_normaliser", noted)
    training_steps(tiny_run("no"), batch, steps=3)()
    assert seen == [torch.uint8] * 6, "videos and frames of each step"


def test_the_step_is_the_training_loop_s() -> None:
    run = tiny_run("no")
    before = {name: weight.clone() for name, weight in run.model.named_parameters()}
    training_steps(run, tiny_batch(), steps=2)()
    assert run.progress.step == 2 and len(run.progress.history) == 1
    training_steps(run, tiny_batch(), steps=1)()
    assert run.progress.step == 3 and run.progress.skipped_steps == 0
    assert all(not torch.equal(weight, before[name]) for name, weight in run.model.named_parameters())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_bare_towers_have_the_run_s_weights_tensors_layout_and_precision(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen = {}
    for tower in (DualRepVideoModel, DualRepImageModel):
        forward = tower.forward

        def keep(self, inputs, *arguments, forward=forward, **named):
            output = forward(self, inputs, *arguments, **named)
            strides = [weight.stride() for weight in self.parameters()]
            values = [weight.detach().clone() for weight in self.parameters()]
            key = (inputs.dtype, inputs.stride(), output.pooler_output.dtype, strides)
            seen.setdefault(type(self).__name__, []).append((self, inputs.clone(), key, values))
            return output

        monkeypatch.setattr(tower, "forward", keep)
    run, batch = tiny_run(precision), tiny_batch()
    bare = bare_towers_steps(run, batch, steps=1)
    training_steps(run, batch, steps=1)()
    bare()
    assert sorted(seen) == ["DualRepImageModel", "DualRepVideoModel"]
    for (ours, inputs, key, values), (theirs, other_inputs, other_key, other_values) in seen.values():
        assert ours is not theirs and theirs.training
        assert torch.equal(inputs, other_inputs) and key == other_key
        assert all(torch.equal(one, other) for one, other in zip(values, other_values, strict=True))
        assert key[2] == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_the_bare_towers_learn_and_the_run_s_do_not(optimizers: list) -> None:
    run = tiny_run("no")
    optimizers.clear()
    before = [weight.clone() for weight in run.model.parameters()]
    bare_towers_steps(run, tiny_batch(), steps=2)()
    assert all(torch.equal(one, other) for one, other in zip(run.model.parameters(), before, strict=True))
    (optimizer,) = optimizers
    (group,) = optimizer.param_groups
    (of_run,) = run.optimizer.param_groups
    for name in ("lr", "weight_decay", "fused"):
        assert group[name] == of_run[name]
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}
    of_towers = sum(
        len(list(tower.parameters())) for tower in run.model.children() if isinstance(tower, DualRepTower)
    )
    assert len(group["params"]) == of_towers == len(optimizer.state)


def test_the_plain_model_s_towers_are_as_large_as_ours() -> None:
    plain = PlainModel(DualRepAudioConfig(hidden_sizes=[4], num_mel_bins=8), projection_dim=5)
    video = DualRepVideoModel(DualRepVideoConfig())
    for ours, theirs in (
        (video, plain.video),
        (DualRepImageModel(DualRepConfig().image_config), plain.image),
    ):
        head = sum(weight.numel() for weight in theirs.fc.parameters())
        count = sum(weight.numel() for weight in theirs.parameters()) - head
        assert sum(weight.numel() for weight in ours.parameters()) == count
        assert theirs.fc.out_features == 5


def test_the_plain_loop_learns_in_float32_and_pytorch_s_own_layout(optimizers: list) -> None:
    steps = plain_steps(DualRepConfig(**TINY_MODEL), tiny_batch(), torch.device("cpu"), steps=3)
    (optimizer,) = optimizers
    weights = optimizer.param_groups[0]["params"]
    before = [weight.clone() for weight in weights]
    steps()
    assert all(weight.dtype == torch.float32 and weight.is_contiguous() for weight in weights)
    assert {int(optimizer.state[weight]["step"]) for weight in weights} == {3}
    changed = [not torch.equal(*pair) for pair in zip(weights, before, strict=True)]
    assert sum(changed) > len(changed) - 5, "all but some that the loss does not depend on"
