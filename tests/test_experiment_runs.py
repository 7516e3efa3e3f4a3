"""Making a run: a pretraining in its own process, a search on the inner split, a fine-tuning as it chose."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment_helpers import leave_result, small_experiments
from waiting import wait_for

from train.claims import claimed
from train.experiment_plan import Finetuning, Pretraining, RateSearch, Row
from train.experiment_runs import make, splits_with_all_classes, write_splits
from train.experiments import ExperimentError, Experiments, UnavailableError, inner_split_file, is_done
from train.finetune_arguments import FinetuneArguments
from train.loop import DivergedError
from train.metrics_file import write_metrics
from train.rate_search import SearchError, read_search
from train.scan_splits import ScanSplitError, random_splits
from train.starting_model import StartingModelError

PRETRAINED = Pretraining(0, "best", "medium", 0)


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    saliency = {"per_device_train_batch_size": 2}
    searches = {"saliency": {"learning_rates": [1e-3, 1e-2], "steps": [1, 2]}}
    made = small_experiments(tmp_path, searches=searches, finetuning={"saliency": saliency})
    write_splits(made, [RateSearch(0, "planes", Row("random"))])
    return made


def make_logged(experiments: Experiments, run: object) -> Path:
    """Makes a run as a worker does; returns its log."""
    path = experiments.output / "run.log"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as log, claimed(experiments.output / "lock") as lock:
        make(experiments, run, log, lock)
    return path


def pretrain_by(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Puts a script in the place of train/pretrain.py."""
    path = folder / "pretrain.py"
    path.write_text(script)
    monkeypatch.setattr("train.experiment_runs.PRETRAIN", path)


def test_a_pretraining_is_given_its_recipe_and_its_checkpoints_go(
    experiments: Experiments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys\nfrom pathlib import Path\nprint(Path(sys.argv[1]).read_text())\n"
    pretrain_by(monkeypatch, tmp_path, script)
    checkpoints = experiments.output / PRETRAINED.place / "checkpoints" / "2"
    checkpoints.mkdir(parents=True)
    printed = make_logged(experiments, PRETRAINED).read_text()
    assert "resume_from_checkpoint: last_or_new" in printed and "negatives: mean" in printed
    assert not checkpoints.parent.exists()
    assert (experiments.output / "recipes/draw_0/seed_0/best_medium.yaml").is_file()


@pytest.mark.parametrize(
    ("said", "status", "error", "text"),
    [
        ("pretrain.py: image_weights: no network", 2, UnavailableError, "^weights not available$"),
        (
            "pretrain.py: There is no dataset.",
            2,
            ExperimentError,
            "status 2: pretrain.py: There is no dataset",
        ),
        ("pretrain.py: image_weights: no network", 1, ExperimentError, "status 1"),
        ("", 3, ExperimentError, "status 3: It printed nothing"),
    ],
)
def test_a_pretraining_that_fails_says_why(
    experiments: Experiments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    status: int,
    error: type[Exception],
    text: str,
) -> None:
    pretrain_by(monkeypatch, tmp_path, f"import sys\nprint({said!r}, file=sys.stderr)\nsys.exit({status})\n")
    with pytest.raises(error, match=text):
        make_logged(experiments, PRETRAINED)


@pytest.fixture
def interrupted_when_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pretraining that leaves a note when it runs and when SIGTERM ends it; SIGINT ends this process."""
    note = tmp_path / "note.txt"
    script = (
        "import pathlib, signal, sys, time\n"
        f"note = pathlib.Path({str(note)!r})\n"
        "def end(*_):\n    note.write_text('checkpoint')\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\nnote.write_text('ready')\ntime.sleep(60)\n"
    )
    pretrain_by(monkeypatch, tmp_path, script)

    def interrupted(signal_number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    yield note
    signal.signal(signal.SIGINT, before)


def wait_until_ready(note: Path) -> None:
    wait_for(lambda: note.exists() and note.read_text() == "ready", 30)


def test_what_ends_this_process_ends_its_pretraining_first(
    experiments: Experiments, interrupted_when_it_runs: Path
) -> None:
    """By SIGTERM, at which it leaves a checkpoint."""
    note, began = interrupted_when_it_runs, time.monotonic()

    def interrupt() -> None:
        wait_until_ready(note)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # Which waits for the process.

    waiter = threading.Thread(target=interrupt, daemon=True)
    waiter.start()
    with pytest.raises(KeyboardInterrupt):
        make_logged(experiments, PRETRAINED)
    waiter.join()
    assert note.read_text() == "checkpoint" and time.monotonic() - began < 30


def test_what_ends_this_process_while_a_pretraining_starts_ends_it_too(
    experiments: Experiments, interrupted_when_it_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = interrupted_when_it_runs

    class InterruptedStart(subprocess.Popen):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            wait_until_ready(note)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("subprocess.Popen", InterruptedStart)
    with pytest.raises(KeyboardInterrupt):
        make_logged(experiments, PRETRAINED)
    assert note.read_text() == "checkpoint"


def copy_splits(experiments: Experiments, task: str) -> None:
    """Those of the frames with planes, for a task that the small set has no labels of."""
    splits = experiments.output / "draw_0" / "splits"
    for end in ("", "_inner"):
        (splits / f"{task}{end}.json").write_text((splits / f"planes{end}.json").read_text())


class Tuner:
    """In the place of a fine-tuning: leaves the metrics that its rate gives, or ends by an error."""

    def __init__(self, metric: str, scores: dict[float, float | Exception]) -> None:
        self.metric, self.scores, self.told = metric, scores, []

    def __call__(self, task: str, arguments: FinetuneArguments, row: Row) -> None:
        self.told.append(arguments)
        score = self.scores[arguments.learning_rate]
        if isinstance(score, Exception):
            raise score
        folder = Path(arguments.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_metrics(folder / "metrics.json", {self.metric: score}, recipe="x", seed=0, data_hash="y")


def test_a_search_sees_the_inner_split_alone_and_keeps_the_best(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RateSearch(0, "planes", Row("random"))
    tuner = Tuner("test/f1", {1e-3: 0.7, 1e-2: 0.2})
    monkeypatch.setattr("train.experiment_runs.finetune_run", tuner)
    make_logged(experiments, run)
    record = read_search(experiments.output / run.place)
    assert (record.choice.learning_rate, record.choice.max_steps, record.choice.score) == (1e-3, 1, 0.7)
    inner = str(inner_split_file(experiments.output, 0, "planes"))
    assert {arguments.split_file for arguments in tuner.told} == {inner}
    assert [(each.learning_rate, each.max_steps) for each in tuner.told] == [(1e-3, 1), (1e-2, 1), (1e-3, 2)]
    assert [path.name for path in (experiments.output / run.place).parent.iterdir()] == ["random.json"]


def test_a_lower_divergence_of_saliency_is_better_and_a_diverged_trial_is_worst(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_splits(experiments, "saliency")
    monkeypatch.setattr("train.experiments.data_hash", lambda dataset, config: "y")
    run = RateSearch(0, "saliency", Row("random"))
    monkeypatch.setattr("train.experiment_runs.finetune_run", Tuner("test/kld", {1e-3: 1.5, 1e-2: 0.5}))
    make_logged(experiments, run)
    assert read_search(experiments.output / run.place).choice.learning_rate == 1e-2
    (experiments.output / run.place).unlink()
    diverged = Tuner("test/kld", {1e-3: 1.5, 1e-2: DivergedError("no number")})
    monkeypatch.setattr("train.experiment_runs.finetune_run", diverged)
    make_logged(experiments, run)
    record = read_search(experiments.output / run.place)
    assert record.choice.learning_rate == 1e-3
    assert [trial.score for trial in record.trials] == [-1.5, None, -1.5]


def test_a_search_that_finds_nothing_says_so(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged = Tuner("test/f1", {rate: DivergedError("no number") for rate in (1e-3, 1e-2)})
    monkeypatch.setattr("train.experiment_runs.finetune_run", diverged)
    with pytest.raises(SearchError, match="diverged"):
        make_logged(experiments, RateSearch(0, "planes", Row("random")))


def test_only_imagenet_s_weights_may_be_missing(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Tuner("test/f1", {1e-3: StartingModelError("no network")})
    monkeypatch.setattr("train.experiment_runs.finetune_run", missing)
    with pytest.raises(UnavailableError, match=r"^weights not available$"):
        make_logged(experiments, RateSearch(0, "planes", Row("imagenet")))
    assert not is_done(experiments.output, RateSearch(0, "planes", Row("imagenet")))
    with pytest.raises(StartingModelError):
        make_logged(experiments, RateSearch(0, "planes", Row("random")))


def test_every_class_is_trained_on_in_every_split(experiments: Experiments) -> None:
    patients = {f"scan{number}": f"scan{number}" for number in range(9)}
    rare = {scan: {0, 1} if scan in ("scan3", "scan4") else {0} for scan in patients}
    splits = splits_with_all_classes(experiments.recipe, patients, rare, 5)
    assert len(splits) == 5 and all({"scan3", "scan4"} & set(split.train) for split in splits)
    common = {scan: {0, 1} for scan in patients}
    first = splits_with_all_classes(experiments.recipe, patients, common, 5)
    assert first == random_splits(patients, 5, experiments.recipe.train_share, experiments.recipe.split_seed)
    with pytest.raises(ScanSplitError, match="Of 1000 random splits of 9 scans, 0 have every class"):
        splits_with_all_classes(experiments.recipe, patients, {scan: {int(scan[4:])} for scan in patients}, 1)


def test_frames_cannot_be_learnt_on_a_model_without_an_image_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = small_experiments(
        tmp_path,
        pretrainings={"blind": {"fields": {"model": {"use_image": False}}}},
        rows={"blind": {"title": "x", "start": "blind"}},
        searches={"plane_clips_frozen": {"learning_rates": [1e-3], "steps": [1]}},
        finetuning={"plane_clips": {}},
    )
    write_splits(experiments, [RateSearch(0, "planes", Row("blind", "best"))])
    with pytest.raises(UnavailableError, match=r"^no image tower$"):
        make_logged(experiments, RateSearch(0, "planes", Row("blind", "best")))
    on_video = RateSearch(0, "plane_clips_frozen", Row("blind", "best"))
    write_splits(experiments, [on_video])
    with pytest.raises(UnavailableError, match=r"^no plane_clips in the data$"):
        make_logged(experiments, on_video)
    copy_splits(experiments, "plane_clips")
    monkeypatch.setattr("train.experiment_runs.finetune_run", tuner := Tuner("test/f1", {1e-3: 0.5}))
    make_logged(experiments, on_video)
    assert {(told.dataset_config, told.linear_probe) for told in tuner.told} == {("plane_clips", True)}


def test_a_fine_tuning_is_made_as_its_search_chose(
    experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row("random")
    leave_result(experiments, RateSearch(0, "planes", row))
    tuner = Tuner("test/f1", {1e-2: 0.5})
    monkeypatch.setattr("train.experiment_runs.finetune_run", tuner)
    make_logged(experiments, run := Finetuning(0, "planes", row, 1))
    (told,) = tuner.told
    assert (told.learning_rate, told.max_steps, told.seed, told.num_splits) == (1e-2, 1, 1, 2)
    assert is_done(experiments.output, run)
