"""The launch files as accelerate and Slurm read them, and real runs as several processes."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import torch.distributed.run
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import _filter_args, prepare_multi_gpu_env
from clips_helpers import TINY_MODEL, make_row, write_clips
from torch.distributed.launcher.api import LaunchConfig
from waiting import wait_for

from train.arguments import merge, parse_arguments

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "train" / "launch"
PROCESSES = {"one_gpu": 1, "eight_gpus": 8, "two_nodes": 16, "two_cpu_processes": 2}
PROGRAMS = Path(sys.executable).parent
SLURM_SCRIPT = LAUNCH / "two_nodes.slurm"
STAGE_SCRIPT = LAUNCH / "reproduce_stage.sh"
# Frozen towers and no similarity head leave no BatchNorm in training, which would take the statistics of each
# process apart.
WITHOUT_BATCH_NORM = {
    "use_similarity_loss": False,
    **{tower: {"freeze": True} for tower in ("video_config", "audio_config", "image_config")},
}


def torchrun_plan(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[LaunchConfig, dict[str, str]]:
    """What `accelerate launch` with these words hands to torchrun, and the environment beside it."""
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert arguments.multi_gpu and not arguments.cpu, "accelerate would start one process"
    environment = prepare_multi_gpu_env(arguments)
    script = ["--training_script", arguments.training_script, "--training_script_args", ""]
    for_torchrun = _filter_args(arguments, torch.distributed.run.get_args_parser(), script)
    return torch.distributed.run.config_from_args(for_torchrun)[0], environment


def world_size(plan: LaunchConfig) -> int:
    assert plan.min_nodes == plan.max_nodes
    return plan.max_nodes * plan.nproc_per_node


def test_every_launch_file_is_tested() -> None:
    assert {path.stem for path in LAUNCH.glob("*.yaml")} == set(PROCESSES)
    scripts = {path.name for path in LAUNCH.iterdir() if path.suffix != ".yaml"}
    assert scripts == {SLURM_SCRIPT.name, STAGE_SCRIPT.name}


@pytest.mark.parametrize(("ends_by", "status"), [("exit 0", 0), ("exit 3", 3), ("exit 124", 0)])
def test_a_stage_packs_what_the_tables_need(tmp_path: Path, ends_by: str, status: int) -> None:
    """With a stand-in for Python, which leaves a folder as reproduce.py does; 124: its time was up."""
    result = tmp_path / "out" / "draw_0" / "planes" / "medium"
    stand_in = tmp_path / "bin" / "python"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/bash\necho "$@" > {tmp_path}/told\nmkdir -p {result} {tmp_path}/out/data\n'
        f"touch {result}/metrics.json {result}/model.safetensors {tmp_path}/out/data/clips\n{ends_by}\n"
    )
    stand_in.chmod(0o755)
    environment = os.environ | {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    words = ["bash", str(STAGE_SCRIPT), str(tmp_path / "out"), "--tables", "1"]
    assert subprocess.run(words, env=environment, cwd=ROOT).returncode == status
    told = (tmp_path / "told").read_text().split()
    assert told[-2:] == ["--tables", "1"] and (ROOT / told[told.index("--recipe") + 1]).is_file()
    with tarfile.open(tmp_path / "out.tar.gz") as packed:
        files = [member.name for member in packed.getmembers() if member.isfile()]
    assert files == ["out/draw_0/planes/medium/metrics.json"]


@pytest.mark.parametrize("name", PROCESSES)
def test_accelerate_reads_the_file_and_would_write_it_so(name: str, tmp_path: Path) -> None:
    """Its own class refuses unknown keys; what it writes again has the same keys and values."""
    config = load_config_from_file(str(LAUNCH / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig) and config.num_processes == PROCESSES[name]
    config.to_yaml_file(tmp_path / "again.yaml")
    written = yaml.safe_load((tmp_path / "again.yaml").read_text())
    assert written == yaml.safe_load((LAUNCH / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", [name for name in PROCESSES if PROCESSES[name] > 1])
def test_accelerate_would_start_as_many_processes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--config_file", str(LAUNCH / f"{name}.yaml"), "train/pretrain.py"]
    plan, environment = torchrun_plan(words, monkeypatch)
    assert world_size(plan) == PROCESSES[name]
    assert plan.max_nodes == (2 if name == "two_nodes" else 1)
    has_gpu = name != "two_cpu_processes"
    assert environment["ACCELERATE_MIXED_PRECISION"] == ("bf16" if has_gpu else "no")


def test_one_gpu_is_one_process_without_torchrun() -> None:
    words = ["--config_file", str(LAUNCH / "one_gpu.yaml"), "train/pretrain.py"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert not arguments.multi_gpu and not arguments.use_cpu
    assert (arguments.num_processes, arguments.gpu_ids, arguments.mixed_precision) == (1, "0", "bf16")


class Cluster:
    """Slurm's commands, faked in a folder: srun starts a task a node, which writes the words of its launch.

    Args:
        folder: a new one.
        nodes, gpus: of the job.
        task: what a task does after that, in bash; "$@" are the words.
    """

    def __init__(self, folder: Path, nodes: int = 2, gpus: int = 8, task: str = "") -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        programs = {
            "srun": (
                "while [[ $1 == --* ]]; do shift; done\nrm -f $SLURM/tasks\n"
                "for ((node = 0; node < SLURM_NNODES; node++)); do\n"
                'SLURM_NODEID=$node "$@" & echo $! >> $SLURM/tasks; done\nstatus=0\n'
                "for task in $(cat $SLURM/tasks); do wait $task || status=$?; done; exit $status"
            ),
            "accelerate": f'printf "%s\\n" "$@" > $SLURM/launch_$SLURM_NODEID\n{task}',
            "scontrol": (
                'if [ "$1" = show ]; then printf "%s\\n" localhost gpu-b gpu-c\n'
                'else echo "$@" >> $SLURM/scontrol_calls; fi'
            ),
            "scancel": 'echo "$@" >> $SLURM/scancel_calls; kill -TERM $(cat $SLURM/tasks)',
        }
        for name, lines in programs.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{lines}\n")
            (folder / "bin" / name).chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "SLURM": str(folder),
            "SLURM_NNODES": str(nodes),
            "SLURM_GPUS_ON_NODE": str(gpus),
            "SLURM_JOB_NODELIST": "gpu-[a-c]",
            "SLURM_JOB_ID": "1234567",
        }

    def submit(self, *words: str) -> subprocess.Popen:
        """Runs the script as the job's shell does, from the root of the repository."""
        return subprocess.Popen(["bash", str(SLURM_SCRIPT), *words], cwd=ROOT, env=self.environment)

    def launches(self) -> list[list[str]]:
        """The words of `accelerate` on each node."""
        return [path.read_text().splitlines() for path in sorted(self.folder.glob("launch_*"))]

    def calls(self, program: str) -> list[str]:
        path = self.folder / f"{program}_calls"
        return path.read_text().splitlines() if path.exists() else []


def test_the_slurm_script_is_valid_bash_with_a_notice_and_a_place_in_the_queue() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM_SCRIPT)]).returncode == 0
    text = SLURM_SCRIPT.read_text()
    header = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--requeue"} <= set(header)
    notice = next(line for line in header if line.startswith("--signal="))
    assert notice.startswith("--signal=B:TERM@") and int(notice.split("@")[1]) > 30
    code = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert text.index("#SBATCH --open-mode") < text.index(code[0]), "Slurm reads no #SBATCH after a command"


@pytest.mark.parametrize(("nodes", "gpus"), [(2, 8), (3, 4)])
def test_every_node_launches_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int, gpus: int
) -> None:
    cluster = Cluster(tmp_path, nodes, gpus)
    words = ["train/recipes/paper_medium.yaml", "runs/a run", "--dataset", "clips"]
    assert cluster.submit(*words).wait(timeout=30) == 0
    monkeypatch.chdir(ROOT)
    launches = cluster.launches()
    assert len(launches) == nodes
    for node, launch in enumerate(launches):
        assert launch[0] == "launch"
        plan, _ = torchrun_plan(launch[1:], monkeypatch)
        assert (world_size(plan), plan.max_nodes, plan.nproc_per_node) == (nodes * gpus, nodes, gpus)
        assert (plan.rdzv_configs["rank"], plan.rdzv_endpoint) == (node, "localhost:24567")
        script = launch.index("train/pretrain.py")
        arguments = parse_arguments(launch[script + 1 :], "unused")
        assert (arguments.output_dir, arguments.dataset) == ("runs/a run", "clips")
        assert arguments.expected_processes == nodes * gpus
        assert arguments.resume_from_checkpoint == "last_or_new"
    assert cluster.calls("scontrol") == []


@pytest.mark.parametrize(("status", "requeued"), [(3, True), (0, False)], ids=["unfinished", "finished"])
def test_the_notice_reaches_every_task_and_an_unfinished_job_queues_again(
    tmp_path: Path, status: int, requeued: bool
) -> None:
    task = (
        f'trap "sleep 0.3; touch $SLURM/saved_$SLURM_NODEID; exit {status}" TERM\n'
        "touch $SLURM/ready_$SLURM_NODEID\nwhile :; do sleep 0.05; done"
    )
    cluster = Cluster(tmp_path, task=task)
    job = cluster.submit("recipe.yaml", "out")
    wait_for(lambda: len(list(tmp_path.glob("ready_*"))) == 2, 30)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == status
    assert len(list(tmp_path.glob("saved_*"))) == 2, "the script waits until the checkpoint is written"
    assert cluster.calls("scancel") == ["--signal=TERM 1234567"]
    assert cluster.calls("scontrol") == (["requeue 1234567"] if requeued else [])


def test_a_run_that_fails_is_not_queued_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, task="exit 2")
    assert cluster.submit("recipe.yaml", "out").wait(timeout=30) == 2
    assert cluster.calls("scontrol") == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, some without sound, in four shards: one batch of 12, two of 6 or four of 3."""
    shards = [
        [make_row(f"train{shard}_{row}", f"scan{row}", float(shard), sound=shard != row) for row in range(3)]
        for shard in range(4)
    ]
    held_out = [make_row(f"validation{i}", f"held_out{i % 2}", float(i)) for i in range(4)]
    return write_clips(tmp_path_factory.mktemp("clips"), shards, [held_out])


def launcher(name: str, processes: int) -> list[str]:
    """The words before the script."""
    if name == "torchrun":
        return ["torchrun", "--standalone", "--nproc_per_node", str(processes)]
    config = ["--config_file", str(LAUNCH / "two_cpu_processes.yaml")]
    return ["accelerate", "launch", *config, "--num_processes", str(processes)]


def write_recipe(clips: Path, output_dir: Path, **fields: object) -> Path:
    """A recipe of four quick steps; its path."""
    recipe = {
        "dataset": str(clips),
        "output_dir": str(output_dir),
        "max_steps": 4,
        "mixed_precision": "no",
        "checkpointing_steps": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "evaluation_clips": 4,
        "report_to": "none",
        "model": TINY_MODEL,
    }
    path = output_dir.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(merge(recipe, fields)))
    return path


def launch_run(
    clips: Path, output_dir: Path, launched_by: list[str], **fields: object
) -> subprocess.CompletedProcess:
    """Runs train/pretrain.py on the clips until it ends."""
    program = str(PROGRAMS / launched_by[0])
    recipe = write_recipe(clips, output_dir, **fields)
    command = [program, *launched_by[1:], str(ROOT / "train" / "pretrain.py"), str(recipe)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170)


def history(output_dir: Path) -> list[dict[str, float]]:
    state = torch.load(output_dir / "checkpoints" / "last" / "custom_checkpoint_1.pkl", weights_only=False)
    return state["history"]


def assert_one_run_s_folder(done: subprocess.CompletedProcess, output_dir: Path) -> None:
    """The main process alone measured, and wrote the model."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Model, card, metrics.json and pictures:") == 1
    assert len(list(output_dir.rglob("metrics.json"))) == len(list(output_dir.rglob("config.json"))) == 1
    assert json.loads((output_dir / "metrics.json").read_text())["metrics"]["validation/gallery_clips"] == 4
    assert not (output_dir / ".unfinished").exists()


@pytest.mark.slow
def test_torchrun_trains_two_processes_together(clips: Path, tmp_path: Path) -> None:
    """On a machine without a GPU too, where accelerate by itself would let each of them train alone."""
    done = launch_run(
        clips,
        tmp_path / "out",
        launcher("torchrun", 2),
        per_device_train_batch_size=6,
        expected_processes=2,
    )
    assert_one_run_s_folder(done, tmp_path / "out")
    assert len(history(tmp_path / "out")) == 4


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_both_launchers_give_the_same_run(clips: Path, tmp_path: Path, processes: int) -> None:
    """From a folder, and from the URL of the same folder."""
    fields = {"per_device_train_batch_size": 12 // processes, "expected_processes": processes}
    histories = []
    for name, dataset in (("torchrun", str(clips)), ("accelerate", f"file://{clips}")):
        output_dir = tmp_path / name
        done = launch_run(clips, output_dir, launcher(name, processes), dataset=dataset, **fields)
        assert_one_run_s_folder(done, output_dir)
        histories.append(history(output_dir))
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_two_and_four_processes_train_as_one_with_all_their_clips(clips: Path, tmp_path: Path) -> None:
    """Each epoch is one batch, so that all see the same twelve clips a step, if no two ranks share a clip."""
    losses = {}
    for processes in (1, 2, 4):
        output_dir = tmp_path / str(processes)
        done = launch_run(
            clips,
            output_dir,
            launcher("torchrun", processes),
            model=WITHOUT_BATCH_NORM,
            per_device_train_batch_size=12 // processes,
            expected_processes=processes,
        )
        assert_one_run_s_folder(done, output_dir)
        losses[processes] = [row["loss"] for row in history(output_dir)]
    assert max(losses[1]) - min(losses[1]) > 1e-2, "the losses must differ from step to step"
    for processes in (2, 4):
        assert losses[processes] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_launch_that_ends_in_one_process_is_refused(clips: Path, tmp_path: Path) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one."""
    launched_by = ["accelerate", "launch", "--cpu", "--num_processes", "2"]
    done = launch_run(clips, tmp_path / "out", launched_by, expected_processes=2)
    assert done.returncode != 0
    assert "pretrain.py: expected_processes is 2, but the processes that train together are 1." in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_slurm_job_of_two_nodes_queues_again_at_a_notice_and_goes_on(clips: Path, tmp_path: Path) -> None:
    """Two launchers of one process each on this machine, as on two nodes that share a folder."""
    (tmp_path / "slurm").mkdir()
    cluster = Cluster(tmp_path / "slurm", nodes=2, gpus=1, task=f'exec {PROGRAMS / "accelerate"} "$@"')
    fields = {"per_device_train_batch_size": 6, "max_steps": 120, "checkpointing_steps": 20}
    recipe = str(write_recipe(clips, tmp_path / "out", **fields))
    output_dir, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    job = cluster.submit(recipe, str(output_dir))
    wait_for((output_dir / "checkpoints" / "20").exists, 100)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=180) != 0
    assert cluster.calls("scontrol") == ["requeue 1234567"]
    assert 20 < len(history(output_dir)) < 120, "a checkpoint beyond those that were due"
    for folder in (output_dir, undisturbed):
        assert cluster.submit(recipe, str(folder)).wait(timeout=300) == 0
    assert (output_dir / "metrics.json").is_file()
    assert len(history(output_dir)) == 120
    assert history(output_dir) == history(undisturbed)
