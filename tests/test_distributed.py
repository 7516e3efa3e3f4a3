"""Two processes, and four, against one with all the clips: the same loss, the same gradients."""

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from tiny_models import tiny_batch, tiny_config
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_dualrep import DualRepModel
from modeling_dualrep.distributed import gather_rows, sum_over_processes

PROCESS_COUNTS = [2, pytest.param(4, marks=pytest.mark.slow)]
CLIPS = 8
# Rows with sound differ a process, down to one and to none.
MASKS = {
    "all sound": [True] * 8,
    "one half silent": [True] * 4 + [False] * 4,
    "uneven": [True, False, True, True, True, False, False, False],
    "few": [False, True, False, False, False, False, True, True],
    "one row in all": [False, True, False, False, False, False, False, False],
    "no sound": [False] * 8,
}
MODELS = {
    "paper": {},
    "anchored": {"fuse_candidates_with_anchor_video": True, "negatives": "mean"},
    "no image": {"use_image": False},
    "no audio": {"use_audio": False, "margin": 1.0},
    "similarity alone": {"use_image": False, "use_contrastive_loss": False},
}
# Near-duplicates lie in one process and in different ones.
OPTIONS = {
    "plain": {},
    "near-duplicates": {"clip_groups": torch.tensor([5, 1, 5, 2, 1, 3, 4, 2])},
    "one group": {"clip_groups": torch.tensor([5] * 8)},
    "cached": {"gradient_cache_clips": 1},
}
CASES = {
    f"{model}, {mask}, {option}": (model, mask, option)
    for model in MODELS
    for mask in MASKS
    for option in OPTIONS
    if model in ("paper", "anchored") or option in ("plain", "cached")
}


# In training, two clips at a time; the heads' BatchNorm, of the similarity losses, is another matter.
CHUNKED = {"use_similarity_loss": False}
CHUNK = 2


def build(fields: dict, training: bool = False) -> DualRepModel:
    """In evaluation mode, since BatchNorm in training takes the statistics of its process alone."""
    torch.manual_seed(0)
    return DualRepModel(tiny_config(**fields)).double().train(training)


def whole_batch(model: str, mask: list[bool], seed: int = 0) -> dict[str, torch.Tensor]:
    """With some seeds the tiny embeddings of pictures are all but parallel: rounding picks the hardest."""
    batch = tiny_batch(len(mask), mask=mask, seed=seed, dtype=torch.float64)
    config = tiny_config(**MODELS[model])
    if not config.use_image:
        del batch["pixel_values"]
    if not config.use_audio:
        del batch["input_features"], batch["audio_mask"]
    return batch


def part_of_process(batch: dict, rank: int, processes: int) -> dict:
    """The rows that a process gets; what is no tensor all of them get."""
    return {
        name: values.chunk(processes)[rank] if isinstance(values, torch.Tensor) else values
        for name, values in batch.items()
    }


def step(model: torch.nn.Module, batch: dict) -> dict:
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


class SeenShapes(TorchDispatchMode):
    """The shapes of all that any operation makes, the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.shapes |= {tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
        return result


def work_of_one_process(rank: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=processes
    )
    # It raises at the next batch where a parameter has taken no part in one.
    models = {name: DistributedDataParallel(build(fields)) for name, fields in MODELS.items()}
    found = {}
    for case, (model, mask, option) in CASES.items():
        batch = whole_batch(model, MASKS[mask]) | OPTIONS[option]
        found[case] = step(models[model], part_of_process(batch, rank, processes))
    for model in MODELS:
        batch = whole_batch(model, [True] * processes, seed=4)
        found[f"{model}, one clip each"] = step(models[model], part_of_process(batch, rank, processes))
        with SeenShapes() as seen:
            step(models[model], part_of_process(whole_batch(model, MASKS["uneven"]), rank, processes))
        found[f"{model}, shapes"] = seen.shapes
    chunked = DistributedDataParallel(build(CHUNKED, training=True))
    for mask in MASKS:
        batch = whole_batch("paper", MASKS[mask]) | {"gradient_cache_clips": CHUNK}
        found[f"chunked, {mask}"] = step(chunked, part_of_process(batch, rank, processes))
    try:
        gather_rows({"rows": torch.zeros(3 + rank, 2)})
    except ValueError as error:
        found["uneven batches"] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module", params=PROCESS_COUNTS)
def by_process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of the processes found; they are started once for all tests, since that takes seconds."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work_of_one_process, (request.param, folder), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


def assert_all_found(by_process: list[dict], case: str, expected: dict) -> None:
    for found in by_process:
        torch.testing.assert_close(found[case], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_several_processes_equal_one(by_process: list[dict], case: str) -> None:
    """One process without the gradient cache, whether the others have it or not."""
    model, mask, option = CASES[case]
    groups = {name: values for name, values in OPTIONS[option].items() if name == "clip_groups"}
    expected = step(build(MODELS[model]), whole_batch(model, MASKS[mask]) | groups)
    if model != "no audio":
        assert expected["num_audio_clips"] == sum(MASKS[mask])
    assert_all_found(by_process, case, expected)


@pytest.mark.parametrize("model", MODELS)
def test_a_clip_a_process_is_enough(by_process: list[dict], model: str) -> None:
    expected = step(build(MODELS[model]), whole_batch(model, [True] * len(by_process), seed=4))
    assert_all_found(by_process, f"{model}, one clip each", expected)


@pytest.mark.parametrize("model", MODELS)
def test_a_process_holds_its_own_rows_of_the_similarities(by_process: list[dict], model: str) -> None:
    """None makes anything of (clips, clips), forwards or backwards."""
    for found in by_process:
        assert (CLIPS // len(by_process), CLIPS) in found[f"{model}, shapes"]
        assert (CLIPS, CLIPS) not in found[f"{model}, shapes"]


@pytest.mark.parametrize("mask", MASKS)
def test_in_training_chunks_are_normalised_alike_on_one_process_and_on_several(
    by_process: list[dict], mask: str
) -> None:
    batch = whole_batch("paper", MASKS[mask])
    expected = step(build(CHUNKED, training=True), batch | {"gradient_cache_clips": CHUNK})
    assert_all_found(by_process, f"chunked, {mask}", expected)


def test_uneven_batches_are_refused_in_every_process(by_process: list[dict]) -> None:
    sizes = [3 + rank for rank in range(len(by_process))]
    for found in by_process:
        assert found["uneven batches"].startswith(f"The processes hold batches of {sizes} rows")


def test_one_process_keeps_its_rows() -> None:
    tensors = {"rows": torch.ones(3, 2)}
    assert gather_rows(tensors) is tensors
    assert sum_over_processes(tensors["rows"]) is tensors["rows"]
