"""The Trainer as fine-tuning uses it: order, weighted loss, log lines; splits and decoded frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from frame_set_helpers import FRAME_SIZE, TINY_CONFIG, frame_rows, frame_set, write_set
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from modeling_dualrep import DualRepConfig, DualRepForImageClassification
from train.finetune_arguments import FinetunePlanesArguments
from train.finetuning import (
    FinetuningTrainer,
    choose_splits,
    decoded_frames,
    draw_label_share,
    finetune,
    seed_of_split,
    training_arguments,
)
from train.loop import DivergedError
from train.row_order import RowOrder
from train.scan_splits import ScanSplit, ScanSplitError, write_scan_splits


@pytest.fixture(autouse=True)
def own_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers keeps the precision in the environment, accelerate for the life of a process."""
    from accelerate.state import AcceleratorState

    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)


def run_arguments(output_dir: Path, **fields: object) -> FinetunePlanesArguments:
    defaults = {"model": "random", "dataset": "set", "max_steps": 4, "per_device_train_batch_size": 4}
    return FinetunePlanesArguments(output_dir=str(output_dir), **{**defaults, "logging_steps": 2, **fields})


class Noise(Dataset):
    """Random pixels; remembers which rows were asked for."""

    def __init__(self, rows: int = 12, label: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(rows, 3, FRAME_SIZE, FRAME_SIZE, generator=generator)
        self.labels = torch.arange(rows) % 3 if label is None else torch.full((rows,), label)
        self.asked: list[object] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        self.asked.append(key)
        row = key[1] if isinstance(key, tuple) else key
        return {"pixel_values": self.pixels[row], "labels": self.labels[row]}


def tiny_classifier() -> DualRepForImageClassification:
    torch.manual_seed(0)
    return DualRepForImageClassification(DualRepConfig(**TINY_CONFIG, num_labels=3))


def test_training_lowers_the_loss_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = run_arguments(tmp_path, max_steps=20, logging_steps=10, learning_rate=1e-2)
    model = finetune(tiny_classifier(), arguments, Noise(), 0, "Split 1 of 2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"Split 1 of 2: step {step} of 20" for step in (10, 20)]
    first, last = (float(line.rsplit(" ", 1)[1]) for line in lines)
    assert last < first and not model.training
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is saved on the way"


def test_rows_come_in_the_order_given_epoch_after_epoch(tmp_path: Path) -> None:
    noise, order = Noise(), RowOrder(np.arange(12), seed=0)
    arguments = run_arguments(tmp_path, max_steps=None, num_train_epochs=2)
    finetune(tiny_classifier(), arguments, noise, 0, "run", order=order)
    expected = []
    for epoch in (0, 1):
        order.set_epoch(epoch)
        expected += list(order)
    assert noise.asked == expected


def test_without_an_order_rows_are_shuffled_by_the_seed(tmp_path: Path) -> None:
    def asked(seed: int) -> list[object]:
        noise = Noise()
        finetune(tiny_classifier(), run_arguments(tmp_path, max_steps=3), noise, seed, "run")
        return noise.asked

    assert sorted(asked(0)) == list(range(12)) and asked(0) == asked(0) != asked(1)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = finetune(tiny_classifier(), run_arguments(tmp_path), Noise(), seed, "run")
        return torch.cat([weight.flatten() for weight in model.parameters()])

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("class_weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_the_loss_weighs_each_row_by_its_class(tmp_path: Path, class_weights: torch.Tensor | None) -> None:
    model, noise = tiny_classifier().eval(), Noise()
    trainer = FinetuningTrainer(
        model, training_arguments(run_arguments(tmp_path), 0), class_weights=class_weights
    )
    inputs = {"pixel_values": noise.pixels, "labels": noise.labels}
    loss, outputs = trainer.compute_loss(model, dict(inputs), return_outputs=True)
    weights = torch.ones(3) if class_weights is None else class_weights
    chosen = outputs.logits.log_softmax(1)[torch.arange(12), noise.labels]
    expected = -(weights[noise.labels] * chosen).sum() / weights[noise.labels].sum()
    torch.testing.assert_close(loss, expected)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    noise = Noise()
    noise.pixels[5] = float("nan")
    with pytest.raises(DivergedError, match=r"Split 1: the loss up to step \d is nan. Lower learning_rate"):
        finetune(tiny_classifier(), run_arguments(tmp_path), noise, 0, "Split 1")


def test_precision_is_accelerate_s_unless_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_arguments(run_arguments(tmp_path), 0).mixed_precision == "no"
    assert training_arguments(run_arguments(tmp_path, mixed_precision="bf16"), 0).mixed_precision == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert training_arguments(run_arguments(tmp_path), 0).mixed_precision == "bf16"
    assert training_arguments(run_arguments(tmp_path, mixed_precision="no"), 0).mixed_precision == "no"


def test_half_precision_trains_and_leaves_a_model_of_full_precision(tmp_path: Path) -> None:
    half = finetune(tiny_classifier(), run_arguments(tmp_path, mixed_precision="bf16"), Noise(), 0, "run")
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in half.parameters())
    again = tiny_classifier().eval()
    again.load_state_dict(half.state_dict())
    with torch.no_grad():
        assert torch.equal(half(Noise().pixels).logits, again(Noise().pixels).logits)


def test_splits_are_those_that_the_run_asks_for(tmp_path: Path) -> None:
    scans = [f"s{number}" for number in range(9)]
    stored = frame_set([0] * 9, scans, splits=["train"] * 6 + ["test"] * 3)
    drawn = choose_splits(run_arguments(tmp_path, num_splits=3), stored)
    assert [(len(split.train), len(split.test)) for split in drawn] == [(6, 3)] * 3
    folds = choose_splits(run_arguments(tmp_path, split_method="group_k_fold", num_splits=3), stored)
    assert sorted(scan for split in folds for scan in split.test) == scans
    given = choose_splits(run_arguments(tmp_path, split_method="given"), stored)
    assert given == [ScanSplit(tuple(scans[:6]), tuple(scans[6:]))]
    assert choose_splits(run_arguments(tmp_path, num_splits=3, seed=1), stored) != drawn
    write_scan_splits(tmp_path / "splits.json", folds)
    kept = run_arguments(tmp_path, split_file=str(tmp_path / "splits.json"))
    assert choose_splits(kept, stored) == folds
    with pytest.raises(ScanSplitError, match="scans that the set does not have"):
        choose_splits(kept, frame_set([0, 1], ["s1", "x"]))
    with pytest.raises(ScanSplitError, match="Patient p has scans on both sides"):
        choose_splits(kept, frame_set([0] * 9, scans, patients=["p"] * 9))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_a_share_of_the_labels_is_drawn_of_each_class_alike(
    classes: list[int], share: float, seed: int
) -> None:
    labels, rows = np.array(classes), 3 * np.arange(len(classes)) + 1
    kept = draw_label_share(rows, share, seed, labels)
    assert list(kept) == sorted(set(kept)) and set(kept) <= set(rows)
    for label in set(classes):
        of_class = rows[labels == label]
        assert np.isin(kept, of_class).sum() == max(1, round(share * len(of_class)))
    assert np.array_equal(kept, draw_label_share(rows, share, seed, labels))


def test_without_classes_the_share_is_of_all_and_another_seed_draws_others() -> None:
    rows = np.arange(1000)
    assert draw_label_share(rows, 1.0, 0) is rows
    few, others = (draw_label_share(rows, 0.05, seed) for seed in (0, 1))
    assert len(few) == len(others) == 50 and not np.array_equal(few, others)
    assert 300 < few.mean() < 700, "from all over the set"
    assert len(draw_label_share(rows[:10], 0.01, 0)) == 1


@pytest.mark.parametrize("frame_memory", ["memory", "memory_map"])
def test_frames_are_decoded_to_where_they_are_wanted(tmp_path: Path, frame_memory: str) -> None:
    folder = write_set(tmp_path / "set", {"train": frame_rows(1)})
    arguments = run_arguments(tmp_path / "runs" / "out", dataset=str(folder), frame_memory=frame_memory)
    with decoded_frames(arguments, 8) as decoded:
        assert decoded.frames.shape == (6, 8, 8, 3)
        assert isinstance(decoded.frames, np.memmap) == (frame_memory == "memory_map")
    assert not list((tmp_path / "runs").glob("*")) and not (tmp_path / "runs" / "out").exists()


def test_each_split_of_each_run_has_a_seed_of_its_own(tmp_path: Path) -> None:
    runs = [run_arguments(tmp_path, seed=seed) for seed in (0, 1)]
    assert len({seed_of_split(run, number) for run in runs for number in (1, 2, 3)}) == 6
