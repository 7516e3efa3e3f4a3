"""Checkpoints: complete or absent, found again, refused when of another run."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from modeling_dualrep.configuration_dualrep import DualRepConfig
from train.checkpoint import (
    CheckpointError,
    Progress,
    architecture,
    check_checkpoint,
    describe_run,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    saved_steps,
)

ORDER = {"seed": 0, "data_hash": "abc"}


def small_run() -> tuple[Accelerator, torch.nn.Module, torch.optim.Optimizer, Progress]:
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    return accelerator, model, optimizer, progress


def one_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()


def save(accelerator: Accelerator, checkpoints: Path, step: int, total_limit: int = 3) -> Path:
    description = describe_run(DualRepConfig(), ORDER)
    return save_checkpoint(accelerator, checkpoints, step, description, total_limit)


def test_weights_optimizer_randomness_and_progress_come_back(tmp_path: Path) -> None:
    accelerator, model, optimizer, progress = small_run()
    one_step(model, optimizer)
    progress.step, progress.history = 7, [{"step": 7.0, "loss": 0.5}]
    folder = save(accelerator, tmp_path, 7)
    one_step(model, optimizer)
    undisturbed = [parameter.clone() for parameter in model.parameters()]
    again, other_model, other_optimizer, other_progress = small_run()
    load_checkpoint(again, folder)
    assert (other_progress.step, other_progress.history) == (7, [{"step": 7.0, "loss": 0.5}])
    one_step(other_model, other_optimizer)
    for one, other in zip(undisturbed, other_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_last_points_at_the_newest_and_the_oldest_are_removed(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    for step in (5, 10, 100, 20):
        save(accelerator, tmp_path, step, total_limit=2)
    assert saved_steps(tmp_path) == [20, 100]
    assert find_checkpoint("last", tmp_path) == tmp_path / "20"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["100", "20", "last"]


def test_without_symbolic_links_last_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    accelerator, *_ = small_run()
    save(accelerator, tmp_path, 3)
    save(accelerator, tmp_path, 6)
    assert (tmp_path / "last").is_file()
    assert find_checkpoint("last", tmp_path) == tmp_path / "6"


def test_a_checkpoint_being_written_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, *_ = small_run()
    save(accelerator, tmp_path, 3)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(accelerator, tmp_path, 6)
    assert saved_steps(tmp_path) == [3]
    assert find_checkpoint("last", tmp_path) == tmp_path / "3"
    monkeypatch.undo()
    save(accelerator, tmp_path, 6)
    assert find_checkpoint("last", tmp_path) == tmp_path / "6"


def test_nothing_to_resume_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*start anew"):
        find_checkpoint("last", tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        find_checkpoint(str(tmp_path), tmp_path)


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    folder = save(accelerator, tmp_path, 3)
    assert find_checkpoint(str(folder), tmp_path / "elsewhere") == folder


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"projection_dim": 8}, "projection_dim is 512, this run's is 8"),
        ({"video_config": {"hidden_sizes": [8], "depths": [1]}}, "video_config.depths"),
        ({"audio_config": {"conv_dim": 2}}, "audio_config.conv_dim is 1, this run's is 2"),
        ({"image_config": {"embedding_size": 8}}, "image_config.embedding_size is 64, this run's is 8"),
    ],
)
def test_another_architecture_is_refused_naming_both(tmp_path: Path, fields: dict, named: str) -> None:
    accelerator, *_ = small_run()
    folder = save(accelerator, tmp_path, 3)
    with pytest.raises(CheckpointError, match="another architecture") as refusal:
        check_checkpoint(folder, describe_run(DualRepConfig(**fields), ORDER))
    assert named in str(refusal.value)


def test_another_order_of_the_data_is_refused(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    folder = save(accelerator, tmp_path, 3)
    with pytest.raises(CheckpointError, match="seed is 0, this run's is 1"):
        check_checkpoint(folder, describe_run(DualRepConfig(), {**ORDER, "seed": 1}))


def test_what_changes_no_weight_may_change(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    folder = save(accelerator, tmp_path, 3)
    changed = DualRepConfig(
        temperature=0.5, video_config={"freeze": True}, audio_config={"block_dropout": 0.0}
    )
    check_checkpoint(folder, describe_run(changed, ORDER))


def test_the_architecture_names_every_size() -> None:
    names = architecture(DualRepConfig())
    for name in (
        "projection_dim",
        "video_config.hidden_sizes",
        "audio_config.num_mel_bins",
        "image_config.depths",
    ):
        assert name in names
