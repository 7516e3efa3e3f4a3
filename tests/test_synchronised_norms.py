"""SyncBatchNorm: where it goes, and that nothing else changes."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_models import tiny_batch, tiny_model
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from modeling_dualrep.tower import batch_norm_statistics_kept
from train.arguments import ArgumentsError, PretrainArguments
from train.synchronised_norms import synchronise_batch_norm
from train.training_run import prepare_run

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh_accelerate() -> None:
    """accelerate keeps its precision for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def norms(model: torch.nn.Module) -> dict[str, type]:
    return {name: type(layer) for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}


def test_all_but_the_audios_norms_are_synchronised() -> None:
    model = tiny_model(training=True)
    before = norms(model)
    synchronise_batch_norm(model, GPU, processes=2)
    after = norms(model)
    assert after.keys() == before.keys()
    for name, kind in after.items():
        assert kind is (before[name] if name.startswith("audio_") else SyncBatchNorm), name
    parts = {name.split(".")[0] for name, kind in after.items() if kind is SyncBatchNorm}
    assert parts == {"video_model", "image_model", "video_similarity", "image_similarity"}


def test_weights_names_and_values_stay() -> None:
    """One process alone computes with it what it computes without."""
    plain, model = tiny_model(training=True), tiny_model(training=True)
    weights = dict(model.named_parameters())
    synchronise_batch_norm(model, GPU, processes=2)
    assert all(parameter is weights[name] for name, parameter in model.named_parameters())
    outputs = [each(**tiny_batch(4), return_loss=True) for each in (plain, model)]
    torch.testing.assert_close(*map(dict, outputs))
    torch.testing.assert_close(plain.state_dict(), model.state_dict())


def test_a_single_row_and_the_gradient_cache_go_with_it() -> None:
    model = tiny_model(training=True)
    synchronise_batch_norm(model, GPU, processes=2)
    head = model.video_similarity
    before = {name: value.clone() for name, value in head.named_buffers()}
    assert head(torch.randn(1, 6)).isfinite().all()
    torch.testing.assert_close(dict(head.named_buffers()), before, rtol=0, atol=0)
    with batch_norm_statistics_kept(head):
        head(torch.randn(3, 6))
    torch.testing.assert_close(dict(head.named_buffers()), before, rtol=0, atol=0)
    model(**tiny_batch(4), return_loss=True, gradient_cache_clips=2).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_one_process_has_nothing_to_synchronise() -> None:
    model = tiny_model(training=True)
    before = norms(model)
    synchronise_batch_norm(model, GPU, processes=1)
    assert norms(model) == before


def test_a_cpu_is_refused() -> None:
    with pytest.raises(ArgumentsError, match="sync_batch_norm is True, but must be False on a CPU"):
        synchronise_batch_norm(tiny_model(), CPU, processes=2)
    arguments = PretrainArguments(output_dir="none", dataset="none", max_steps=1, sync_batch_norm=True)
    with pytest.raises(ArgumentsError, match="sync_batch_norm is True"):
        prepare_run(Accelerator(cpu=True), arguments, tiny_model(), max_steps=1)
