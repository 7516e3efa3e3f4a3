"""What do the losses of a pretrained model see? Whether they notice the speech of other clips, and whether
the hardest negatives show the plane that they are pushed away from.

python -m train.probe_objective FOLDER NAME=MODEL [NAME=MODEL ...] --output FILE.json

FOLDER is the benchmark's set for pretraining, clips and recordings (`datasets_scripts/benchmark_sets.py`),
and each MODEL a folder that pretraining wrote with all terms. Measured on clips that pretraining held out and
in which somebody speaks, dealt into batches of the size that the benchmark trains on, many times.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datasets_scripts.schema import BACKGROUND, PLANES
from modeling_dualrep import DualRepModel, DualRepProcessor
from modeling_dualrep.losses import anchored_similarities, cosine_similarities
from train.clip_planes import planes_of_clips
from train.pretrained import load_pretrained
from train.probes import CONFIG, run_probe
from train.triples import evaluation_triples, gallery_batches, list_clips, open_clips

SPLIT, MINIMUM_SPEECH_FRACTION = "validation", 0.05
CLIP_SECONDS = 6.0
BATCH, DEALS = 64, 20
NEEDED = ("audio", "image", "contrastive_loss", "similarity_loss")
EMBEDS = (
    "video_embeds",
    "audio_embeds",
    "video_similarity_embeds",
    "audio_similarity_embeds",
    "image_similarity_embeds",
)


@dataclass(frozen=True)
class EmbeddedClips:
    """Clips with speech, embedded; each tensor (clips, projection_dim) by its name in `DualRepOutput`."""

    clip_ids: list[str]
    embeds: dict[str, Tensor]


def main(command_line: Sequence[str] | None = None) -> int:
    """The command."""
    return run_probe("probe_objective", __doc__, probe_objectives, command_line)


def probe_objectives(folder: Path, models: dict[str, Path], batch: int = BATCH) -> dict[str, float]:
    """By model, in how many of the batches' anchors the speech that stands beside a video comes out as the
    most similar in the batch, plain and fused (eq. 3 and 4), be it the video's own or another clip's; and how
    often the hardest negative (eq. 11-12) shows the plane of its anchor.

    Args:
        folder: with `clips` and `recordings`.
        models: folders by name.
        batch: clips in a batch.

    Raises:
        ValueError: a model that cannot be loaded or lacks a term, or fewer clips with speech than a batch.
    """
    keys = list_clips(str(folder / "clips"), CONFIG, SPLIT)
    named = planes_of_clips(keys, folder / "recordings", folder / "clips", CONFIG, CLIP_SECONDS)
    metrics: dict[str, float] = {}
    for name, path in models.items():
        model, processor = load_with_all_terms(path)
        clips = embed_clips(model, processor, folder / "clips")
        if len(clips.clip_ids) < batch:
            raise ValueError(
                f"Only {len(clips.clip_ids)} of the clips held out in {folder} have speech, but a batch "
                f"takes {batch}."
            )
        planes = torch.tensor([plane_number(named[clip_id]) for clip_id in clips.clip_ids])
        metrics |= {"clips/number": float(len(planes)), "clips/chance": 1 / batch}
        metrics |= _means(_batch_measures(model, clips, planes, batch), name)
    return metrics


def load_with_all_terms(path: Path) -> tuple[DualRepModel, DualRepProcessor]:
    """A pretrained model that has every loss with every modality.

    Raises:
        ValueError: it cannot be loaded, or lacks one.
    """
    model, processor = load_pretrained(str(path))
    if not all(getattr(model.config, f"use_{part}") for part in NEEDED):
        raise ValueError(f"The model in {path} was not pretrained with all terms: give one that was.")
    return model, processor


@torch.inference_mode()
def embed_clips(model: DualRepModel, processor: DualRepProcessor, dataset: Path) -> EmbeddedClips:
    """The held-out clips of a set that have speech, as in evaluation."""
    triples = evaluation_triples(model.config, processor, MINIMUM_SPEECH_FRACTION)
    clip_ids: list[str] = []
    found: dict[str, list[Tensor]] = {name: [] for name in EMBEDS}
    for ids, batch in gallery_batches(triples, open_clips(str(dataset), CONFIG, SPLIT), BATCH):
        outputs = model(**batch)
        sounding = batch["audio_mask"]
        clip_ids += [clip_id for clip_id, sounds in zip(ids, sounding, strict=True) if sounds]
        for name, of_batches in found.items():
            of_batches.append(outputs[name][sounding])
    return EmbeddedClips(clip_ids, {name: torch.cat(of_batches) for name, of_batches in found.items()})


def plane_number(plane: str) -> int:
    """Its place among the planes; -1 for background, which is no plane to share."""
    return -1 if plane == BACKGROUND else PLANES.index(plane)


def _batch_measures(
    model: DualRepModel, clips: EmbeddedClips, planes: Tensor, batch: int
) -> Iterator[dict[str, Tensor]]:
    """For each batch, whether what a measure asks for holds, by anchor."""
    chance = torch.Generator().manual_seed(0)
    for _ in range(DEALS):
        order = torch.randperm(len(planes), generator=chance)
        for rows in order[: len(order) // batch * batch].split(batch):
            embeds = {name: values[rows] for name, values in clips.embeds.items()}
            yield speech_found(model, embeds) | same_plane_negatives(embeds, planes[rows])


@torch.inference_mode()
def speech_found(model: DualRepModel, embeds: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whether the speech beside a video is the batch's most similar to it: (batch,) bool by measure.

    Of another clip, each speech stands beside the video of the next: a loss that hears it cannot find it.

    Args:
        model: with the fusion of eq. 1.
        embeds: `video_embeds` and `audio_embeds`, (batch, projection_dim).
    """
    video, own = embeds["video_embeds"], embeds["audio_embeds"]
    found = {}
    for name, speech in (("own", own), ("other", own.roll(1, dims=0))):
        found[f"{name}_speech_first"] = _is_first(cosine_similarities(video, speech))
        found[f"{name}_speech_first_fused"] = _is_first(_fused_similarities(model, video, speech))
    return found


def _fused_similarities(model: DualRepModel, video: Tensor, speech: Tensor) -> Tensor:
    """As the fused loss of the model compares them (eq. 4): (batch, batch)."""
    if model.config.fuse_candidates_with_anchor_video:
        speech_parts, video_parts = model.audio_fusion.parts(speech, video)
        return anchored_similarities(video, video_parts, speech_parts)
    return cosine_similarities(video, model.audio_fusion(speech, video))


def _is_first(similarities: Tensor) -> Tensor:
    """Whether an anchor's own candidate is more similar to it than all others; a tie is not."""
    return (similarities >= similarities.diagonal()[:, None]).sum(dim=1) == 1


def same_plane_negatives(embeds: dict[str, Tensor], planes: Tensor) -> dict[str, Tensor]:
    """Whether negatives show the plane of their anchor: (anchors that show a plane,) by measure.

    Args:
        embeds: `video_similarity_embeds`, `audio_similarity_embeds` and `image_similarity_embeds`.
        planes: (batch,) numbers, -1 where a clip shows none.
    """
    own = torch.eye(len(planes), dtype=torch.bool)
    same = (planes[:, None] == planes[None]) & ~own
    shows = planes >= 0
    video = embeds["video_similarity_embeds"]
    found = {"same_plane_in_batch": same.any(dim=1)[shows]}
    found["same_plane_of_negatives"] = same.sum(dim=1)[shows] / (len(planes) - 1)
    for other in ("audio", "image"):
        similarities = cosine_similarities(video, embeds[f"{other}_similarity_embeds"])
        hardest = similarities.masked_fill(own, -torch.inf).argmax(dim=1)
        found[f"same_plane_of_hardest_{other}"] = same.gather(1, hardest[:, None])[:, 0][shows]
    return found


def _means(of_batches: Iterator[dict[str, Tensor]], name: str) -> dict[str, float]:
    gathered: dict[str, list[Tensor]] = {}
    for measures in of_batches:
        for measure, values in measures.items():
            gathered.setdefault(measure, []).append(values.float())
    return {f"{name}/{measure}": torch.cat(values).mean().item() for measure, values in gathered.items()}


if __name__ == "__main__":
    sys.exit(main())
