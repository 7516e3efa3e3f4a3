"""A pretraining run from clips to a model folder, its resumption, and its refusals."""

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from clips_helpers import TINY_MODEL, make_row, write_clips, write_small_set
from hub_helpers import hub_in_this_process
from huggingface_hub import HfApi
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

import train.pretrain
from train.arguments import PretrainArguments, build, merge
from train.checkpoint import CheckpointError, saved_steps
from train.interruption import RunInterruptedError
from train.metrics_file import read_metrics
from train.pretrain import find_clips, main, pretrain, results_text


@pytest.fixture(autouse=True)
def fresh_accelerate() -> None:
    """accelerate keeps its precision for the life of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def handler_of_sigterm() -> Iterator[None]:
    """What handles the signal before a test is put back after it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("clips"))


def recipe(clips: Path, output_dir: Path, **fields: object) -> dict:
    return merge(
        {
            "dataset": str(clips),
            "output_dir": str(output_dir),
            "max_steps": 6,
            "per_device_train_batch_size": 6,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "evaluation_clips": 8,
            "report_to": "none",
            "model": TINY_MODEL,
        },
        fields,
    )


def run(clips: Path, output_dir: Path, **fields: object) -> Path:
    AcceleratorState._reset_state(reset_partial_state=True)
    pretrain(build(PretrainArguments, recipe(clips, output_dir, **fields), "test"), "test")
    return output_dir


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def history(checkpoint: Path) -> list[dict]:
    return torch.load(checkpoint / "custom_checkpoint_1.pkl", weights_only=False)["history"]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def call(monkeypatch: pytest.MonkeyPatch, *command_line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *command_line])
    return main()


def test_a_run_leaves_a_folder_that_loads(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = run(clips, tmp_path / "out", evaluation_steps=3)
    for name in (
        "config.json",
        "README.md",
        "recipe.yaml",
        "pictures/loss_curves.png",
        "pictures/embeddings.png",
    ):
        assert (folder / name).is_file(), name
    assert (folder / "pictures" / "speech_video_similarity.png").is_file()
    assert not (folder / ".unfinished").exists()
    model = AutoModel.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert_same(weights(folder), {name: value.contiguous() for name, value in model.state_dict().items()})
    frame = torch.zeros(3, 20, 20, dtype=torch.uint8)
    inputs = processor(videos=[[frame] * 14], images=[frame], return_tensors="pt")
    assert model.eval()(**inputs).video_embeds.shape == (1, 8)
    metrics = read_metrics(folder / "metrics.json")
    assert metrics["metrics"]["validation/gallery_clips"] == 8
    assert 0 <= metrics["metrics"]["validation/speech_to_video_recall_at_5"] <= 1
    card = (folder / "README.md").read_text()
    assert f"{metrics['metrics']['validation/image_to_video_recall_at_5']:.1%}" in card
    printed = capsys.readouterr().out
    assert str(folder) in printed and "chance" in printed


def test_resuming_gives_the_losses_and_weights_of_the_undisturbed_run(clips: Path, tmp_path: Path) -> None:
    fields = {"checkpointing_steps": 2, "lr_scheduler_type": "cosine", "mean_negatives_steps": 3}
    whole = run(clips, tmp_path / "whole", **fields)
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped, symlinks=True)
    for step in (4, 6):
        shutil.rmtree(stopped / "checkpoints" / str(step))
    (stopped / "checkpoints" / "last").unlink()
    (stopped / "checkpoints" / "last").symlink_to("2")
    (stopped / "model.safetensors").unlink()
    run(clips, stopped, resume_from_checkpoint="last", **fields)
    assert history(stopped / "checkpoints" / "6") == history(whole / "checkpoints" / "6")
    assert [row["step"] for row in history(stopped / "checkpoints" / "6")] == [1, 2, 3, 4, 5, 6]
    assert_same(weights(stopped), weights(whole))


@pytest.mark.parametrize("evaluation", ["on the way", "in the end"])
@pytest.mark.parametrize("checkpointing_steps", [None, 3])
def test_sigterm_in_an_evaluation_leaves_a_checkpoint_at_once(
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluation: str,
    checkpointing_steps: int | None,
) -> None:
    """However long the gallery is; the resumed run ends as the undisturbed one."""
    fields = {"checkpointing_steps": checkpointing_steps, "mixed_precision": "bf16"}
    fields |= {"evaluation_steps": 4} if evaluation == "on the way" else {}
    whole = run(clips, tmp_path / "whole", **fields)
    batches, began = train.pretrain.gallery_batches, time.monotonic()

    def batches_of_hours(*told: object) -> Iterator[object]:
        for number, batch in enumerate(cycle(batches(*told))):
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as slow:
        slow.setattr(train.pretrain, "gallery_batches", batches_of_hours)
        with pytest.raises(RunInterruptedError, match="Pass --resume_from_checkpoint last"):
            run(clips, tmp_path / "stopped", **fields)
    assert time.monotonic() - began < 30
    step = 4 if evaluation == "on the way" else 6
    assert saved_steps(tmp_path / "stopped" / "checkpoints")[-1] == step
    run(clips, tmp_path / "stopped", resume_from_checkpoint="last", **fields)
    assert_same(weights(tmp_path / "stopped"), weights(whole))
    first, second = (read_metrics(folder / "metrics.json") for folder in (whole, tmp_path / "stopped"))
    assert first["metrics"] == second["metrics"]


def test_the_same_seed_gives_the_same_run_and_another_another(clips: Path, tmp_path: Path) -> None:
    first, again = (weights(run(clips, tmp_path / name)) for name in ("first", "again"))
    assert_same(first, again)
    other = weights(run(clips, tmp_path / "other", seed=1))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_epochs_are_counted_in_steps(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path / "out", max_steps=None, num_train_epochs=2, checkpointing_steps=4)
    assert saved_steps(tmp_path / "out" / "checkpoints") == [4, 8]


@pytest.mark.parametrize("composition", [{}, {"clips_of_scan_together": 2}, {"max_clips_of_scan": 4}])
def test_a_run_on_some_clips_sees_these_in_every_epoch_and_no_others(
    clips: Path, tmp_path: Path, composition: dict
) -> None:
    def seen(epochs: int, **fields: object) -> list[str]:
        told = build(PretrainArguments, recipe(clips, tmp_path, **fields, **composition), "test")
        order = find_clips(Accelerator(cpu=True), told, told.model_config()).order
        batches = islice(order, epochs * order.batches_per_epoch)
        return [row["clip_id"] for batch in batches for _, row in batch]

    twice = seen(epochs=2, max_train_clips=12)
    assert len(twice) == 24 and Counter(twice[:12]) == Counter(twice[12:]) and len(set(twice)) == 12
    assert set(seen(epochs=1, max_train_clips=12, seed=1)) != set(twice)
    everything = seen(epochs=1)
    assert len(set(everything)) == 24 and set(seen(epochs=1, max_train_clips=99)) == set(everything)


def test_resuming_on_other_clips_is_refused(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path, max_steps=2, checkpointing_steps=2, max_train_clips=12)
    with pytest.raises(CheckpointError, match="max_train_clips is 12, this run's is 18"):
        run(clips, tmp_path, max_steps=4, max_train_clips=18, resume_from_checkpoint="last")


@pytest.mark.parametrize(
    "ablation",
    [
        {"use_audio": False},
        {"use_image": False},
        {"use_similarity_loss": False},
        {"use_contrastive_loss": False},
        {"fuse_candidates_with_anchor_video": True, "negatives": "mean"},
    ],
    ids=lambda ablation: next(iter(ablation)),
)
def test_ablations_train_and_are_measured(clips: Path, tmp_path: Path, ablation: dict) -> None:
    folder = run(clips, tmp_path / "out", max_steps=2, model=ablation)
    names = read_metrics(folder / "metrics.json")["metrics"]
    assert ("validation/speech_to_video_recall_at_5" in names) == ablation.get("use_audio", True)
    assert ("validation/image_to_video_recall_at_5" in names) == ablation.get("use_image", True)
    assert "speech" in (folder / "README.md").read_text()


def test_clips_without_any_sound_train_the_image_terms(tmp_path: Path) -> None:
    def rows(name: str) -> list[dict]:
        return [make_row(f"{name}{i}", f"{name}_scan{i % 3}", float(i), sound=False) for i in range(9)]

    clips = write_clips(tmp_path / "clips", [rows("train")], [rows("validation")])
    names = read_metrics(run(clips, tmp_path / "out", max_steps=2) / "metrics.json")["metrics"]
    assert "validation/image_to_video_recall_at_5" in names
    assert not any("speech" in name for name in names)


def test_a_frozen_tower_with_given_weights_stays_as_it_was(clips: Path, tmp_path: Path) -> None:
    first = run(clips, tmp_path / "first", max_steps=2)
    frozen = {"image_config": {"freeze": True}}
    second = run(
        clips, tmp_path / "second", max_steps=2, model=frozen, seed=3, image_weights={"source": str(first)}
    )
    before, after = weights(first), weights(second)
    tower = [name for name in before if name.startswith("image_model.")]
    assert tower
    for name in tower:
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["video_projection.weight"], after["video_projection.weight"])


def test_bf16_is_accelerate_s(clips: Path, tmp_path: Path) -> None:
    folder = run(clips, tmp_path / "out", max_steps=2, mixed_precision="bf16")
    assert all(value.dtype != torch.bfloat16 for value in weights(folder).values())


def test_refusals_are_sentences_and_come_before_work(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "recipe.yaml"

    def refusal(*flags: str, **fields: object) -> str:
        path.write_text(yaml.safe_dump(recipe(clips, tmp_path / "new", **fields)))
        assert call(monkeypatch, str(path), *flags) == 2
        assert not (tmp_path / "new").exists(), "a refused run leaves nothing"
        return capsys.readouterr().err

    assert "learning_rat" in refusal(learning_rat=1)
    assert "fewer than a batch of 32" in refusal("--per_device_train_batch_size", "32")
    assert "'large'" in refusal("--dataset_config", "large")
    assert "'tempreature'" in refusal("--model.tempreature", "1")
    assert "image_weights" in refusal("--image_weights.source", str(tmp_path / "nothing"))
    assert "no checkpoint" in refusal("--resume_from_checkpoint", "last")
    assert "There is no recipe" in (call(monkeypatch, "nowhere.yaml"), capsys.readouterr().err)[1]


def test_another_run_s_folder_is_left_alone(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = run(clips, tmp_path / "out", max_steps=2, checkpointing_steps=2)
    path = tmp_path / "recipe.yaml"
    path.write_text((folder / "recipe.yaml").read_text())
    before = (folder / "model.safetensors").stat().st_mtime_ns

    def refusal(*flags: str) -> str:
        assert call(monkeypatch, str(path), *flags) == 2
        assert (folder / "model.safetensors").stat().st_mtime_ns == before
        return capsys.readouterr().err

    assert "checkpoints up to step 2" in refusal()
    assert "another recipe: its seed is 0, this run's is 1" in refusal("--seed", "1")
    resumed = ("--resume_from_checkpoint", "last")
    assert "projection_dim is 8, this run's is 16" in refusal(*resumed, "--model.projection_dim", "16")
    assert "seed is 0, this run's is 1" in refusal(*resumed, "--seed", "1")
    for field in ("use_audio", "use_image", "use_similarity_loss", "use_contrastive_loss"):
        named = f"{field} is True, this run's is False"
        assert named in refusal(*resumed, f"--model.{field}", "false")
    frozen = refusal(*resumed, "--model.audio_config.freeze", "true")
    assert "audio_config.freeze is False, this run's is True" in frozen
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert "no pretraining wrote" in refusal("--output_dir", str(tmp_path / "full"))
    shutil.rmtree(folder / "checkpoints")
    assert call(monkeypatch, str(path)) == 0, "the same recipe may run again"


def test_starting_anew_removes_the_old_checkpoints(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path / "out", max_steps=4, checkpointing_steps=2)
    run(clips, tmp_path / "out", max_steps=3, checkpointing_steps=3, overwrite_output_dir=True)
    assert saved_steps(tmp_path / "out" / "checkpoints") == [3]


def test_help_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert call(monkeypatch, "--help") == 0
    assert "--learning_rate" in capsys.readouterr().out


def test_the_table_leaves_out_what_was_not_measured() -> None:
    metrics = {"validation/gallery_clips": 100.0}
    metrics |= {f"validation/{name}_at_{k}": k / 100 for name in ("chance_recall",) for k in (1, 5, 10)}
    text = results_text(metrics, 20)
    assert "100 clips of 20 held-out scans" in text and "speech" not in text and "5.0%" in text


def test_a_finished_run_is_pushed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """To the name given, in private; a name that the Hub refuses is told before the training."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe(clips, tmp_path / "out", max_steps=1, checkpointing_steps=1)))
    with hub_in_this_process(monkeypatch) as hub:
        assert call(monkeypatch, str(path), "--push_to_hub", "no/such/name") == 2
        assert not (tmp_path / "out").exists() and not hub.repositories
        assert call(monkeypatch, str(path), "--push_to_hub", "me/dualrep") == 0
        assert "me/dualrep" in capsys.readouterr().out
        files = HfApi().list_repo_files("me/dualrep")
        assert hub.repositories["model", "me/dualrep"].private
    assert {"model.safetensors", "modeling_dualrep.py", "metrics.json", "README.md", "recipe.yaml"} <= set(
        files
    )
    assert not [name for name in files if "checkpoint" in name or name.startswith("logs")]


def test_metrics_are_those_of_the_saved_model(clips: Path, tmp_path: Path) -> None:
    """What metrics.json says can be measured again from the folder alone."""
    from train.evaluation import embed_gallery, measure
    from train.triples import Triples, choose_gallery, gallery_batches, list_clips, read_rows

    folder = run(clips, tmp_path / "out", max_steps=2)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    keys = choose_gallery(list_clips(str(clips), "medium", "validation"), 8)
    rows = read_rows(str(clips), "medium", "validation", [key.clip_id for key in keys])
    batches = gallery_batches(Triples(processor, 14, 16, 16, seed=0), rows, 6)
    again = measure(embed_gallery(model, batches, torch.device("cpu")))
    written = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert {name: written[f"validation/{name}"] for name in again} == pytest.approx(again)
    for name in (f"validation/{query}_to_video_recall_at_1" for query in ("image", "speech")):
        assert 0 <= written[f"{name}_low"] <= written[name] <= written[f"{name}_high"] <= 1
