"""Two processes against one with all the clips: the same loss, the same gradients."""

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from tiny_models import tiny_batch, tiny_config
from torch.nn.parallel import DistributedDataParallel

from modeling_dualrep import DualRepModel
from modeling_dualrep.distributed import gather_rows

PROCESSES = 2
# Rows with sound differ a process, down to one and to none.
MASKS = {
    "all sound": [True] * 6,
    "one process silent": [True, True, True, False, False, False],
    "uneven": [True, False, True, True, False, False],
    "a row each": [False, True, False, False, False, True],
    "one row in all": [False, True, False, False, False, False],
    "one clip a process": [True, True],
}
MODELS = {
    "paper": {},
    "anchored": {"fuse_candidates_with_anchor_video": True, "negatives": "mean"},
    "no image": {"use_image": False},
    "similarity alone": {"use_image": False, "use_contrastive_loss": False},
}


def build(name: str) -> DualRepModel:
    """In evaluation mode, since BatchNorm in training takes the statistics of its process alone."""
    torch.manual_seed(0)
    return DualRepModel(tiny_config(**MODELS[name])).double().eval()


def whole_batch(model: str, mask: str) -> dict[str, torch.Tensor]:
    batch = tiny_batch(len(MASKS[mask]), mask=MASKS[mask], dtype=torch.float64)
    if not tiny_config(**MODELS[model]).use_image:
        del batch["pixel_values"]
    return batch


def step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict:
    """The loss, its terms and all gradients of one batch."""
    model.zero_grad(set_to_none=True)
    output = model(**batch, return_loss=True)
    output.loss.backward()
    return {
        "loss": output.loss.detach(),
        "terms": {term: value.detach() for term, value in output.loss_terms.items()},
        "num_audio_clips": output.num_audio_clips,
        "gradients": {
            name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()
        },
    }


def work_of_one_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=PROCESSES
    )
    steps = {}
    for name in MODELS:
        # It raises at the next batch where a parameter has taken no part in one.
        model = DistributedDataParallel(build(name))
        for mask in MASKS:
            batch = whole_batch(name, mask)
            half = {key: values.chunk(PROCESSES)[rank] for key, values in batch.items()}
            steps[f"{name}, {mask}"] = step(model, half)
    try:
        gather_rows({"rows": torch.zeros(3 + rank, 2)})
    except ValueError as error:
        steps["uneven batches"] = str(error)
    torch.save(steps, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def by_process(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of the processes found; they are started once for all tests, since that takes seconds."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work_of_one_process, (folder,), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("model", MODELS)
def test_two_processes_equal_one(by_process: list[dict], model: str, mask: str) -> None:
    expected = step(build(model), whole_batch(model, mask))
    assert expected["num_audio_clips"] == sum(MASKS[mask])
    for steps in by_process:
        torch.testing.assert_close(steps[f"{model}, {mask}"], expected, rtol=1e-6, atol=1e-6)


def test_uneven_batches_are_refused_in_every_process(by_process: list[dict]) -> None:
    for steps in by_process:
        assert steps["uneven batches"].startswith("The processes hold batches of [3, 4] rows")


def test_one_process_keeps_its_rows() -> None:
    tensors = {"rows": torch.ones(3, 2)}
    assert gather_rows(tensors) is tensors
