"""Does a speech tower hear what is said? A linear probe tells a remark's plane by the tower's features.

python -m train.probe_speech FOLDER NAME=MODEL [NAME=MODEL ...] --output FILE.json

FOLDER is the benchmark's set for pretraining, clips and recordings (`datasets_scripts/benchmark_sets.py`),
and each MODEL a folder that pretraining wrote. Beside them stands a tower with drawn weights, `drawn`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datasets_scripts.benchmark_description import PLANE_REMARK, read_remarks, whole_remarks
from datasets_scripts.schema import PLANES
from modeling_dualrep import DualRepConfig, DualRepModel
from train.clip_planes import recording_of_scan
from train.pretrain import build_processor
from train.probes import CLIP_SECONDS, CONFIG, run_probe
from train.triples import decode_audio, log_mel, open_clips

FOLDS, PENALTY, BATCH = 5, 1e-2, 32


def main(command_line: Sequence[str] | None = None) -> int:
    """The command."""
    return run_probe("probe_speech", __doc__, probe_towers, command_line)


def probe_towers(folder: Path, models: dict[str, Path]) -> dict[str, float]:
    """Share of remarks whose plane a linear classifier names, by model; clips of one scan are never on both
    sides.

    Args:
        folder: with `clips` and `recordings`.
        models: folders by name.
    """
    whole = {name: DualRepModel.from_pretrained(path) for name, path in models.items()}
    config = next(iter(whole.values())).config
    features, labels, scans = remarks_of_clips(folder, config)
    torch.manual_seed(0)
    towers = {"drawn": DualRepModel(config)} | whole
    counts = labels.bincount()
    metrics = {
        "clips/number": float(len(labels)),
        "clips/most_frequent_share": counts.max().item() / len(labels),
    }
    for name, model in towers.items():
        pooled = pooled_features(model, features)
        metrics[f"{name}/accuracy"] = probe_accuracy(pooled, labels, scans)
    return metrics


def remarks_of_clips(folder: Path, config: DualRepConfig) -> tuple[list[Tensor], Tensor, list[str]]:
    """Log-mels (time, mel), planes (clips,) and scans of clips that hold a whole remark about the picture.

    Raises:
        ValueError: there is no such clip.
    """
    files = recording_of_scan(folder / "recordings", folder / "clips", CONFIG)
    remarks = {scan_id: read_remarks(recording.video.parent) for scan_id, recording in files.items()}
    processor = build_processor(config)
    features, labels, scans = [], [], []
    for split in ("train", "validation"):
        for row in open_clips(str(folder / "clips"), CONFIG, split):
            of_clip = whole_remarks(remarks[row["scan_id"]], row["start_s"], row["start_s"] + CLIP_SECONDS)
            planes = [remark.label for remark in of_clip if remark.kind == PLANE_REMARK]
            if planes:
                features.append(log_mel(processor, decode_audio(row["audio"])))
                labels.append(PLANES.index(planes[0]))
                scans.append(row["scan_id"])
    if not labels:
        raise ValueError(f"No clip of {folder} holds a whole remark about the picture.")
    return features, torch.tensor(labels), scans


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
