"""Pictures: files that open, and numbers behind them that hold."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from train.pictures import principal_components, save_embedding_map, save_loss_curves, save_similarity_matrix

PLANES = ["abdomen", "femur", "background"]


def check_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("L").getcolors(256)) > 10, "the picture is blank"


def test_loss_curves(tmp_path: Path) -> None:
    history = [
        {"step": s, "loss": 1 / s, "video_audio_contrastive": 2 / s, "learning_rate": 1e-3}
        for s in range(1, 9)
    ]
    save_loss_curves(history, tmp_path / "loss.png")
    check_picture(tmp_path / "loss.png")


def test_similarity_matrix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    groups = [PLANES[i % 3] for i in range(12)]
    save_similarity_matrix(torch.randn(12, 4), torch.randn(12, 4), groups, tmp_path / "matrix.png")
    check_picture(tmp_path / "matrix.png")


def test_of_many_clips_some_of_each_group_are_pictured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    draw = Axes.imshow

    def imshow(axes: Axes, matrix: np.ndarray, **options: object) -> object:
        shown.append(matrix)
        return draw(axes, matrix, **options)

    monkeypatch.setattr(Axes, "imshow", imshow)
    groups = [PLANES[i % 3] for i in range(2500)]
    vectors = torch.eye(3)[torch.arange(2500) % 3]
    save_similarity_matrix(vectors, vectors, groups, tmp_path / "matrix.png")
    (matrix,) = shown
    assert matrix.shape == (834, 834) and matrix.sum(axis=1).tolist() == [278.0] * 834


def test_embedding_map_with_panels_of_different_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    groups = [PLANES[i % 3] for i in range(12)]
    panels = {"video": (torch.randn(12, 4), groups), "speech": (torch.randn(7, 4), groups[:7])}
    save_embedding_map(panels, tmp_path / "map.png")
    check_picture(tmp_path / "map.png")


def test_principal_components_are_those_of_the_covariance() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(40, 5, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.2, 3.0, 0.5])
    points, shares = principal_components(vectors)
    eigenvalues, directions = torch.linalg.eigh(torch.cov(vectors.T))
    expected = (vectors - vectors.mean(dim=0)) @ directions[:, [-1, -2]]
    assert torch.allclose(points.abs(), expected.abs())
    assert torch.allclose(shares, eigenvalues[[-1, -2]] / eigenvalues.sum())


def test_equal_vectors_have_no_components_but_a_picture() -> None:
    points, shares = principal_components(torch.ones(5, 3))
    assert (points == 0).all() and not math.isnan(shares.sum())


@pytest.mark.parametrize("rows", [0, 1])
def test_a_short_history_still_gives_a_picture(tmp_path: Path, rows: int) -> None:
    save_loss_curves([{"step": 1, "loss": 1.0, "learning_rate": 1e-3}] * rows, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 0
