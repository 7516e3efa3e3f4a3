"""Does a speech tower hear what is said? A linear probe tells a remark's plane by the tower's features, of
whole remarks in clips of 6 s, and of parts of remarks in clips of 2 s.

python -m train.probe_speech FOLDER NAME=MODEL [NAME=MODEL ...] --output FILE.json

FOLDER is the benchmark's set for pretraining, clips and recordings (`datasets_scripts/benchmark_sets.py`),
and each MODEL a folder that pretraining wrote. Beside them stands a tower with drawn weights, `drawn`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datasets_scripts.benchmark_description import (
    PART,
    PLANE_REMARK,
    WHOLE,
    read_remarks,
    speech_of,
    whole_remarks,
)
from datasets_scripts.schema import PLANES
from datasets_scripts.shards import read_info
from datasets_scripts.simulated_speech import Remark
from modeling_dualrep import DualRepConfig, DualRepModel
from train.clip_planes import recording_of_scan
from train.pretrain import build_processor
from train.probes import run_probe
from train.triples import decode_audio, log_mel, open_clips

FOLDS, PENALTY, BATCH = 5, 1e-2, 32
# Clips and what of a remark they hold.
HELD = {"whole": ("medium", WHOLE), "part": ("large", PART)}


@dataclass(frozen=True)
class RemarkClips:
    """Log-mels (time, mel), planes (clips,) and scans of clips with remarks about the picture."""

    features: list[Tensor]
    labels: Tensor
    scans: list[str]

    def drawn(self, number: int) -> "RemarkClips":
        """So many of them, the same ones every time."""
        order = torch.randperm(len(self.scans), generator=torch.Generator().manual_seed(0))[:number]
        picked = sorted(order.tolist())
        features, scans = ([values[place] for place in picked] for values in (self.features, self.scans))
        return RemarkClips(features, self.labels[picked], scans)


def main(command_line: Sequence[str] | None = None) -> int:
    """The command."""
    return run_probe("probe_speech", __doc__, probe_towers, command_line)


def probe_towers(folder: Path, models: dict[str, Path]) -> dict[str, float]:
    """Share of remarks whose plane a linear classifier names, by model and by how much of the remark the clip
    holds: as many clips of each, none of one scan on both sides.

    Args:
        folder: with `clips` and `recordings`.
        models: folders by name.
    """
    whole = {name: DualRepModel.from_pretrained(path) for name, path in models.items()}
    config = next(iter(whole.values())).config
    torch.manual_seed(0)
    towers = {"drawn": DualRepModel(config)} | whole
    heard = {held: clips_with_remarks(folder, config, *of) for held, of in HELD.items()}
    number = min(len(clips.scans) for clips in heard.values())
    metrics = {"clips/number": float(number)}
    for held, clips in heard.items():
        drawn = clips.drawn(number)
        metrics[f"clips/most_frequent_share_{held}"] = drawn.labels.bincount().max().item() / number
        for name, model in towers.items():
            pooled = pooled_features(model, drawn.features)
            metrics[f"{name}/accuracy_{held}"] = probe_accuracy(pooled, drawn.labels, drawn.scans)
    return metrics


def clips_with_remarks(folder: Path, model: DualRepConfig, config: str, contents: str) -> RemarkClips:
    """The clips of all splits that hold so much of a remark about the picture.

    Args:
        folder: with `clips` and `recordings`.
        model: what takes the log-mels.
        config: of the clips.
        contents: as `speech_of` says it.

    Raises:
        ValueError: there is no such clip.
    """
    files = recording_of_scan(folder / "recordings", folder / "clips", config)
    remarks = {scan_id: read_remarks(recording.video.parent) for scan_id, recording in files.items()}
    seconds = read_info(folder / "clips", config)["clip_seconds"]
    processor = build_processor(model)
    features, labels, scans = [], [], []
    for split in ("train", "validation"):
        for row in open_clips(str(folder / "clips"), config, split):
            clip = remarks[row["scan_id"]], row["start_s"], row["start_s"] + seconds
            if speech_of(*clip) == contents:
                features.append(log_mel(processor, decode_audio(row["audio"])))
                labels.append(PLANES.index(plane_said(*clip)))
                scans.append(row["scan_id"])
    if not labels:
        raise ValueError(f"No {config} clip of {folder} holds {contents}.")
    return RemarkClips(features, torch.tensor(labels), scans)


def plane_said(remarks: Sequence[Remark], start_s: float, end_s: float) -> str:
    """The plane of the remark that a clip holds most of: of a whole one, where it holds any."""
    about = [remark for remark in remarks if remark.kind == PLANE_REMARK]
    heard = whole_remarks(about, start_s, end_s) or about
    return max(heard, key=lambda remark: min(remark.end_s, end_s) - max(remark.start_s, start_s)).label


@torch.inference_mode()
def pooled_features(model: DualRepModel, features: Sequence[Tensor]) -> Tensor:
    """(clips, hidden) of the speech tower."""
    model.eval()
    batches = [torch.stack(list(features[start : start + BATCH])) for start in range(0, len(features), BATCH)]
    return torch.cat([model.audio_model(batch).pooler_output for batch in batches]).float()


def probe_accuracy(features: Tensor, labels: Tensor, scans: Sequence[str], folds: int = FOLDS) -> float:
    """Accuracy of multinomial logistic regression with an L2 penalty, over folds of whole scans.

    Args:
        features: (clips, hidden).
        labels: (clips,) class numbers.
        scans: of each clip.
        folds: how many parts the scans are dealt into; each is tested on once.
    """
    fold_of_scan = {scan: number % folds for number, scan in enumerate(sorted(set(scans)))}
    fold = torch.tensor([fold_of_scan[scan] for scan in scans])
    features = (features - features.mean(dim=0)) / features.std(dim=0).clamp_min(1e-4)
    right = 0
    for number in range(folds):
        train, test = fold != number, fold == number
        weight, bias = fit_linear(features[train], labels[train], int(labels.max()) + 1)
        right += int(((features[test] @ weight + bias).argmax(dim=1) == labels[test]).sum())
    return right / len(labels)


def fit_linear(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight (hidden, classes) and bias of the logistic regression, by L-BFGS."""
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=150)

    def penalised_loss() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(features @ weight + bias, labels) + PENALTY * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(penalised_loss)
    return weight.detach(), bias.detach()


if __name__ == "__main__":
    sys.exit(main())
