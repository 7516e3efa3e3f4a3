"""Pictures of a run: loss curves, the similarity matrix of speech and video, embeddings in two dimensions."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

DOTS_PER_INCH = 110
PICTURED_CLIPS = 1000  # a picture has no more points than that, and their matrix fits into memory


def save_loss_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """The loss and its terms over the steps.

    Args:
        history: one dict a logged step: `step`, `loss`, its terms, `learning_rate`.
        path: PNG file to write.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    names = [name for name in history[0] if name not in ("step", "learning_rate")] if history else []
    steps = [row["step"] for row in history]
    for name in names:
        values = [row[name] for row in history]
        axes.plot(steps, values, label=name.replace("_", " "), linewidth=2.2 if name == "loss" else 1.2)
    axes.set(xlabel="step", ylabel="loss", title="Loss and its terms")
    axes.grid(alpha=0.3)
    if names:
        axes.legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def save_similarity_matrix(speech: Tensor, video: Tensor, groups: Sequence[str], path: Path) -> None:
    """Cosine similarity of every clip's speech to every clip's video, clips of a group side by side.

    Of more than a thousand clips, some are taken, evenly over the groups.

    Args:
        speech, video: (clips, features), row i of both from the same clip.
        groups: (clips,) what each clip shows; the clips are ordered by it.
        path: PNG file to write.
    """
    order = sorted(range(len(groups)), key=lambda index: groups[index])
    order = order[:: -(-len(order) // PICTURED_CLIPS)]
    similarity = normalize(speech[order], dim=1) @ normalize(video[order], dim=1).T
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.subplots()
    limit = similarity.abs().max().item()
    picture = axes.imshow(similarity.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(picture, ax=axes, label="cosine similarity", shrink=0.8)
    _name_groups(axes, [groups[index] for index in order])
    axes.set(xlabel="video", ylabel="speech", title="Speech and video of held-out clips")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def save_embedding_map(embeds: dict[str, tuple[Tensor, Sequence[str]]], path: Path) -> None:
    """The two principal components of embeddings, a panel each, coloured by group.

    Args:
        embeds: name of the panel: (clips, features) and what each clip shows.
        path: PNG file to write.
    """
    figure = Figure(figsize=(5 * len(embeds) + 2.5, 5), layout="constrained")
    panels = figure.subplots(1, len(embeds), squeeze=False)[0]
    names = sorted({group for _, groups in embeds.values() for group in groups})
    for axes, (title, (vectors, groups)) in zip(panels, embeds.items(), strict=True):
        points, shares = principal_components(normalize(vectors, dim=1))
        for index, name in enumerate(names):
            own = [row for row, group in enumerate(groups) if group == name]
            style = {"color": f"C{index % 10}", "marker": "osD^v"[index // 10 % 5]}
            axes.scatter(points[own, 0], points[own, 1], s=22, label=name.replace("_", " "), **style)
        axes.set(
            title=title, xlabel=f"component 1 ({shares[0]:.0%})", ylabel=f"component 2 ({shares[1]:.0%})"
        )
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center", fontsize="small", frameon=False
    )
    figure.savefig(path, dpi=DOTS_PER_INCH)


def principal_components(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Projections (rows, 2) on the two directions of largest variance, and their shares of it (2,)."""
    centred = (vectors - vectors.mean(dim=0)).double()
    left, singular_values, _ = torch.linalg.svd(centred, full_matrices=False)
    variances = singular_values.square()
    return left[:, :2] * singular_values[:2], variances[:2] / variances.sum().clamp(min=1e-12)


def _name_groups(axes: Axes, ordered: Sequence[str]) -> None:
    begin, middles, names = 0, [], []
    for name, members in groupby(ordered):
        end = begin + len(list(members))
        for line in (axes.axhline, axes.axvline):
            line(end - 0.5, color="black", linewidth=0.4)
        middles.append((begin + end - 1) / 2)
        names.append(name.replace("_", " "))
        begin = end
    axes.set_xticks(middles, names, rotation=60, ha="right", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(middles, names, fontsize="small")
