"""How much of what a pretrained model would still learn comes from the similarity losses?

python -m train.probe_gradients FOLDER NAME=MODEL [NAME=MODEL ...] --output FILE.json

FOLDER is the benchmark's set for pretraining, clips and recordings (`datasets_scripts/benchmark_sets.py`),
and each MODEL a folder that pretraining wrote with all terms. Measured in training mode on clips that
pretraining held out, in batches of the size that the benchmark trains on.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import BatchFeature

from modeling_dualrep import DualRepModel, DualRepProcessor
from train.probe_objective import BATCH, MINIMUM_SPEECH_FRACTION, SPLIT, load_with_all_terms
from train.probes import CONFIG, run_probe
from train.triples import evaluation_triples, gallery_batches, open_clips

TOWERS = ("video", "image")
KINDS = ("similarity", "contrastive")


def main(command_line: Sequence[str] | None = None) -> int:
    """The command."""
    return run_probe("probe_gradients", __doc__, probe_gradients, command_line)


def probe_gradients(folder: Path, models: dict[str, Path], batch: int = BATCH) -> dict[str, float]:
    """By model and tower, the share that MMSL (eq. 13) has in the gradient, and whether its gradient points
    where that of MMCL does: means over the batches of what `gradients_compared` gives.

    Args:
        folder: with `clips`.
        models: folders by name.
        batch: clips in a batch.

    Raises:
        ValueError: a model that cannot be loaded or lacks a term, or fewer clips than a batch.
    """
    metrics: dict[str, float] = {}
    for name, path in models.items():
        model, processor = load_with_all_terms(path)
        torch.manual_seed(0)  # the speech tower drops features
        batches = _batches(model, processor, folder, batch)
        compared = [gradients_compared(model.train(), inputs) for inputs in batches]
        metrics["clips/number"] = float(len(compared) * batch)
        for measure in compared[0]:
            metrics[f"{name}/{measure}"] = sum(of_batch[measure] for of_batch in compared) / len(compared)
    return metrics


def _batches(
    model: DualRepModel, processor: DualRepProcessor, folder: Path, batch: int
) -> Iterator[BatchFeature]:
    """Whole batches of the clips held out, all scans mixed."""
    clips = list(open_clips(str(folder / "clips"), CONFIG, SPLIT))
    if len(clips) < batch:
        raise ValueError(f"Only {len(clips)} clips are held out in {folder}, but a batch takes {batch}.")
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0)).tolist()
    whole = [clips[place] for place in order[: len(clips) // batch * batch]]
    triples = evaluation_triples(model.config, processor, MINIMUM_SPEECH_FRACTION)
    for _, inputs in gallery_batches(triples, whole, batch):
        yield inputs


def gradients_compared(model: DualRepModel, inputs: BatchFeature) -> dict[str, float]:
    """The gradients of MMSL, s, and of MMCL, c, as they are weighed in eq. 13, at the weights of a tower.

    Args:
        model: with all terms.
        inputs: a batch as pretraining takes it.

    Returns:
        By measure and tower: `similarity_share_of_...`, |s| / (|s| + |c|); `direction_of_...`, the cosine of
        s and c, 0 where one of them is zero.
    """
    terms = model(**inputs, return_loss=True).loss_terms
    compared = {}
    for tower in TOWERS:
        weights = [weight for weight in getattr(model, f"{tower}_model").parameters() if weight.requires_grad]
        similarity, contrastive = (_gradient(terms, kind, weights) for kind in KINDS)
        share = similarity.norm() / (similarity.norm() + contrastive.norm())
        compared[f"similarity_share_of_{tower}"] = share.item()
        compared[f"direction_of_{tower}"] = cosine_similarity(similarity, contrastive, dim=0).item()
    return compared


def _gradient(terms: dict[str, Tensor], kind: str, weights: list[Tensor]) -> Tensor:
    """Of the sum of the terms of a kind, all weights in one row."""
    total = torch.stack([value for name, value in terms.items() if name.endswith(f"_{kind}")]).sum()
    gradients = torch.autograd.grad(total, weights, retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


if __name__ == "__main__":
    sys.exit(main())
