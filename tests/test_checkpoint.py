"""Checkpoints: complete or absent, found again, refused when of another run."""

import json
import os
import resource
import shutil
import warnings
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from pretrain_processes import CONTEXT, free_port
from tiny_models import tiny_batch, tiny_config, tiny_model

from modeling_dualrep.configuration_dualrep import DualRepConfig
from train.checkpoint import (
    CheckpointError,
    Progress,
    agree_on_checkpoint,
    architecture,
    check_checkpoint,
    describe_run,
    find_checkpoint,
    find_damage,
    load_checkpoint,
    remove_leftovers,
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


def save(accelerator: Accelerator, checkpoints: Path, step: int, total_limit: int = 3) -> Path | None:
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


def test_every_file_is_on_the_disk_before_the_checkpoint_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator, *_ = small_run()
    events: list[str] = []
    sync, rename = os.fsync, Path.rename

    def note_sync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    folder = save(accelerator, tmp_path, 3)
    partial, position = tmp_path / ".3.partial", events.index("rename")
    assert set(events[: position - 1]) == {str(partial / file.name) for file in folder.iterdir()}
    assert events[position - 1] == str(partial)
    assert events[position + 1 :] == [str(tmp_path)], "the name itself"


def test_what_is_removed_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, *_ = small_run()
    save(accelerator, tmp_path, 3)

    def die(path: Path, *_: object, **__: object) -> None:
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        save(accelerator, tmp_path, 6, total_limit=1)
    assert saved_steps(tmp_path) == [6]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    save(accelerator, tmp_path, 3)
    for name in (".6.partial", ".2.removed.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    (tmp_path / ".last.partial").symlink_to("6")
    remove_leftovers(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["3", "last"]
    remove_leftovers(tmp_path / "nowhere")


def test_a_run_that_goes_on_from_an_earlier_step_keeps_what_it_writes(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    for step in (100, 20):
        save(accelerator, tmp_path, step, total_limit=1)
    assert saved_steps(tmp_path) == [20]


LIMITS_BYTES = {"model.safetensors": 100, "optimizer.bin": 1000, "random_states_0.pkl": 9000}


@pytest.mark.parametrize("file", LIMITS_BYTES)
def test_a_file_that_cannot_be_written_leaves_the_earlier_checkpoint(tmp_path: Path, file: str) -> None:
    """Each of the libraries that write has an error of its own for it."""
    accelerator, *_ = small_run()
    first = save(accelerator, tmp_path, 3)
    limit = LIMITS_BYTES[file]
    assert (first / file).stat().st_size > limit
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.warns(
            UserWarning, match=r"of step 6 could not be written: .*last one is .*/3\. Make room"
        ):
            assert save(accelerator, tmp_path, 6) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["3", "last"]
    assert find_checkpoint("last", tmp_path) == first
    assert save(accelerator, tmp_path, 9) == find_checkpoint("last", tmp_path)


def test_an_error_of_the_program_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, *_ = small_run()

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(accelerator, "save_state", fail)
    with pytest.raises(RuntimeError, match="CUDA"):
        save(accelerator, tmp_path, 3)


def test_the_first_checkpoint_may_fail_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, *_ = small_run()
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError("no room")))
    with pytest.warns(UserWarning, match="no room. The run goes on; there is none yet"):
        assert save(accelerator, tmp_path, 3) is None


def truncate(folder: Path) -> str:
    os.truncate(folder / "optimizer.bin", 100)
    return "its optimizer.bin holds 100 bytes in place of"


def flip_a_bit(folder: Path) -> str:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    return "its model.safetensors is not what was written"


def remove_a_file(folder: Path) -> str:
    (folder / "random_states_0.pkl").unlink()
    return "its random_states_0.pkl is missing"


def truncate_the_description(folder: Path) -> str:
    os.truncate(folder / "checkpoint.json", 50)
    return "its checkpoint.json is missing or cannot be read"


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove_a_file, truncate_the_description])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    accelerator, *_ = small_run()
    for step in (3, 6, 9):
        save(accelerator, tmp_path, step)
    assert [find_damage(tmp_path / str(step)) for step in (3, 6, 9)] == [None] * 3
    what = damage(tmp_path / "9")
    with pytest.raises(CheckpointError, match=f"{tmp_path}/9 is damaged: {what}"):
        find_checkpoint(str(tmp_path / "9"), tmp_path)
    with pytest.warns(UserWarning, match=rf"/9 is damaged: {what}.*Resuming from {tmp_path}/6"):
        assert find_checkpoint("last", tmp_path) == tmp_path / "6"
    damage(tmp_path / "6")
    with pytest.warns(UserWarning, match=r"/9 is damaged.*/6 is damaged.*Resuming from .*/3"):
        assert find_checkpoint("last_or_new", tmp_path) == tmp_path / "3"
    damage(tmp_path / "3")
    for word in ("last", "last_or_new"):
        with pytest.raises(CheckpointError, match="There is no other to resume from"):
            find_checkpoint(word, tmp_path)


def test_a_pointer_to_nothing_gives_way_to_the_newest_before_it(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    for step in (3, 6):
        save(accelerator, tmp_path, step)
    shutil.rmtree(tmp_path / "6")
    assert find_checkpoint("last", tmp_path) == tmp_path / "3"
    (tmp_path / "last").unlink()
    assert find_checkpoint("last", tmp_path) == tmp_path / "3"


def test_nothing_to_resume_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*start anew, or give last_or_new"):
        find_checkpoint("last", tmp_path / "checkpoints")
    assert find_checkpoint("last_or_new", tmp_path / "checkpoints") is None
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        find_checkpoint(str(tmp_path), tmp_path)


def work_of_one_process(rank: int, port: int, folder: Path) -> None:
    """What two processes find where the second cannot write, and where the newest checkpoint is damaged."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    accelerator, *_ = small_run()
    checkpoints = folder / "checkpoints"
    found = {"first": save(accelerator, checkpoints, 3), "second": save(accelerator, checkpoints, 6)}
    save_state = accelerator.save_state
    if rank == 1:
        accelerator.save_state = lambda path: (_ for _ in ()).throw(OSError("no room at rank 1"))
    with warnings.catch_warnings(record=True) as given:
        found["third"] = save(accelerator, checkpoints, 9)
    accelerator.save_state = save_state
    found["warnings"] = [str(warning.message) for warning in given]
    if rank == 0:
        truncate(checkpoints / "6")
    found["resumed"] = agree_on_checkpoint(accelerator, "last", checkpoints)
    try:
        agree_on_checkpoint(accelerator, "last", folder)
    except CheckpointError as error:
        found["refusal"] = str(error)
    (folder / f"{rank}.txt").write_text(repr({name: str(value) for name, value in found.items()}))


def test_all_processes_decide_alike(tmp_path: Path) -> None:
    port = free_port()
    processes = [
        CONTEXT.Process(target=work_of_one_process, args=(rank, port, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (literal_eval((tmp_path / f"{rank}.txt").read_text()) for rank in range(2))
    assert "step 9 could not be written: no room at rank 1" in first.pop("warnings")
    assert second.pop("warnings") == "[]", "said once"
    assert first == second
    assert first["third"] == "None" and first["resumed"] == str(tmp_path / "checkpoints" / "3")
    assert "There is no checkpoint" in first["refusal"]
    assert not list((tmp_path / "checkpoints").glob(".*")), "nothing half written is left"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    folder = save(accelerator, tmp_path, 3)
    assert find_checkpoint(str(folder), tmp_path / "elsewhere") == folder


def model_run(
    fields: dict | None = None,
) -> tuple[Accelerator, torch.nn.Module, torch.optim.Optimizer, dict]:
    """A tiny model that a step was taken with, Adam for what is not frozen, and the run's description."""
    accelerator, model = Accelerator(cpu=True), tiny_model(training=True, **(fields or {}))
    adam = torch.optim.Adam([each for each in model.parameters() if each.requires_grad])
    description = describe_run(model.config, ORDER)
    model, adam = accelerator.prepare(model, adam)
    model(**tiny_batch(4), return_loss=True).loss.backward()
    adam.step()
    return accelerator, model, adam, description


@pytest.fixture
def saved_run(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """A checkpoint and the model that it is of."""
    accelerator, model, _, description = model_run()
    return save_checkpoint(accelerator, tmp_path, 3, description, total_limit=3), model


TOWERS = {name: config for name, config in tiny_config().to_dict().items() if name.endswith("_config")}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"projection_dim": 8}, "projection_dim is 6, this run's is 8"),
        (
            {"video_config": {**TOWERS["video_config"], "hidden_sizes": [4], "depths": [1]}},
            "video_config.depths",
        ),
        ({"audio_config": {**TOWERS["audio_config"], "conv_dim": 2}}, "conv_dim is 1, this run's is 2"),
        (
            {"image_config": {**TOWERS["image_config"], "embedding_size": 8}},
            "embedding_size is 4, this run's is 8",
        ),
        *(
            ({name: False}, f"{name} is True, this run's is False")
            for name in ("use_contrastive_loss", "use_similarity_loss", "use_audio", "use_image")
        ),
        *(
            ({tower: {**config, "freeze": True}}, f"{tower}.freeze is False, this run's is True")
            for tower, config in TOWERS.items()
        ),
    ],
)
def test_another_architecture_is_refused_naming_both(
    saved_run: tuple[Path, torch.nn.Module], fields: dict, named: str
) -> None:
    """With reason: what is refused could not be loaded."""
    folder, _ = saved_run
    with pytest.raises(CheckpointError, match="another architecture") as refusal:
        check_checkpoint(folder, describe_run(tiny_config(**fields), ORDER))
    assert named in str(refusal.value)
    with pytest.raises((RuntimeError, ValueError)):
        load_checkpoint(model_run(fields)[0], folder)


def test_another_order_of_the_data_is_refused(tmp_path: Path) -> None:
    accelerator, *_ = small_run()
    folder = save(accelerator, tmp_path, 3)
    with pytest.raises(CheckpointError, match="seed is 0, this run's is 1"):
        check_checkpoint(folder, describe_run(DualRepConfig(), {**ORDER, "seed": 1}))


def test_what_changes_no_weight_may_change(saved_run: tuple[Path, torch.nn.Module]) -> None:
    folder, saved = saved_run
    changed = {
        "temperature": 0.5,
        "negatives": "mean",
        "fuse_candidates_with_anchor_video": True,
        "video_config": {**TOWERS["video_config"], "convolution": "factorised", "num_frames": 4},
        "audio_config": {**TOWERS["audio_config"], "block_dropout": 0.5, "spec_augment": True},
    }
    check_checkpoint(folder, describe_run(tiny_config(**changed), ORDER))
    changed["video_config"]["num_frames"] = TOWERS["video_config"]["num_frames"]  # as the batch has them
    accelerator, model, adam, _ = model_run(changed)
    load_checkpoint(accelerator, folder)
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name
    assert all(state["step"] == 1 for state in adam.state.values())
    model(**tiny_batch(4), return_loss=True).loss.backward()
    adam.step()


def test_what_an_earlier_version_did_not_write_down_is_not_compared(
    saved_run: tuple[Path, torch.nn.Module],
) -> None:
    folder, _ = saved_run
    description = json.loads((folder / "checkpoint.json").read_text())
    del description["architecture"]["use_audio"]
    (folder / "checkpoint.json").write_text(json.dumps(description))
    check_checkpoint(folder, describe_run(tiny_config(use_audio=False), ORDER))
    del description["data_order"]["seed"]
    (folder / "checkpoint.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="seed is None, this run's is 0"):
        check_checkpoint(folder, describe_run(tiny_config(), ORDER))


def test_the_architecture_names_every_size() -> None:
    names = architecture(DualRepConfig())
    for name in (
        "projection_dim",
        "use_audio",
        "audio_config.freeze",
        "video_config.hidden_sizes",
        "audio_config.num_mel_bins",
        "image_config.depths",
    ):
        assert name in names
