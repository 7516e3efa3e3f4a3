"""The projection's inputs, its refusals, and what it writes."""

import json
from pathlib import Path

import pytest

from train.projected_step import Cluster
from train.projection import main, meta_model, training_flops_per_clip

STATED = ("--loader_clips_per_second_per_core", "40", "--bytes_per_clip", "400000")


def write_benchmark(path: Path, name: str, gpu: str | None = None, **fields: object) -> str:
    """As `train/benchmark.py` writes it, as far as the projection reads it."""
    contents = {
        "benchmark": name,
        "skipped": None,
        "details": {"clips_per_second": 800.0},
        "machine": {"gpu": gpu, "cpu": "a processor", "cores": 4},
    }
    path.write_text(json.dumps(contents | fields))
    return str(path)


def projected(tmp_path: Path, *words: str) -> dict:
    output = tmp_path / "projection.json"
    assert main([*words, "--output", str(output)]) == 0
    return json.loads(output.read_text())


def refusal(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_flops_are_three_times_the_forward_pass_and_mostly_the_video_tower_s() -> None:
    flops = training_flops_per_clip(meta_model(), clip_seconds=6.0)
    video = 3 * 2 * 47.4e9  # multiplications with additions of R(2+1)D-18 at 14 x 128 x 128, forward
    assert video < flops < 1.05 * video
    longer = training_flops_per_clip(meta_model(), clip_seconds=12.0)
    assert flops < longer < 1.05 * flops, "only the speech tower sees the length"


def test_from_flops_at_a_stated_utilisation(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    contents = projected(tmp_path, "--model_flops_utilisation", "0.4", *STATED)
    rate = contents["workload"]["clips_per_second_per_gpu"]
    assert rate == pytest.approx(0.4 * 989e12 / training_flops_per_clip(meta_model(), 6.0))
    assert [step["gpus"] for step in contents["steps"]] == [1, 8, 64, 512]
    assert contents["steps"][0]["gpu_rate"] == pytest.approx(rate)
    for step in contents["steps"]:
        rates = (step["gpu_rate"], step["loader_rate"], step["storage_rate"])
        assert step["clips_per_second"] == min(rates)
    assert contents["workload"]["parameters"] == sum(p.numel() for p in meta_model().parameters())
    printed = capsys.readouterr().out
    assert "at an assumed 40% of the H100's dense bf16 rate: no step was measured" in printed
    assert "| GPUs | 1 | 8 | 64 | 512 |" in printed
    assert "| batches an epoch of 10,457 clips | 326 | 40 | 5 | none: too few clips |" in printed
    assert "of a GPU; H100 data sheet: 900 GB/s in both directions" in printed, "sources are named"
    assert f"- nvlink_bandwidth: {Cluster.nvlink_bandwidth:.4g}" in printed
    assert all(f"| {name} | " in printed for name in contents["breaking_points"])


def test_from_a_stated_rate_and_another_cluster(tmp_path: Path) -> None:
    words = ("--clips_per_second_per_gpu", "900", "--gpus", "[2,4]", "--cluster.gpus_per_node", "4")
    contents = projected(tmp_path, *words, *STATED)
    assert contents["workload"]["clips_per_second_per_gpu"] == 900
    assert [step["storage_rate"] for step in contents["steps"]] == [5000.0, 5000.0]
    packed = projected(tmp_path, *words, *STATED, "--collectives", "2")
    for before, after in zip(contents["steps"], packed["steps"], strict=True):
        assert after["all_gather_seconds"] < before["all_gather_seconds"]


@pytest.mark.parametrize("name", ["step", "gpu"])
def test_from_a_step_measured_on_an_h100(tmp_path: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    step = write_benchmark(tmp_path / "step.json", name, gpu="NVIDIA H100 80GB HBM3")
    contents = projected(tmp_path, "--step", step, *STATED)
    assert contents["workload"]["clips_per_second_per_gpu"] == 800
    assert "Projected from the step measured on NVIDIA H100 80GB HBM3**" in capsys.readouterr().out


def test_another_machine_s_step_is_scaled_only_as_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    step = write_benchmark(tmp_path / "step.json", "step")
    said = refusal(capsys, "--step", step, *STATED)
    assert "measured on a processor, not on an H100. State --step_speedup" in said
    contents = projected(tmp_path, "--step", step, "--step_speedup", "2.5", *STATED)
    assert contents["workload"]["clips_per_second_per_gpu"] == 2000
    assert "an H100 being assumed 2.5 times as fast" in contents["title"]


def test_the_loader_s_measured_rate_is_scaled_only_as_stated(tmp_path: Path) -> None:
    loader = write_benchmark(tmp_path / "loader.json", "loader", details={"clips_per_second": 30.0})
    words = ("--clips_per_second_per_gpu", "900", "--loader", loader, "--bytes_per_clip", "400000")
    assert projected(tmp_path, *words)["workload"]["loader_clips_per_second_per_core"] == 30
    faster = projected(tmp_path, *words, "--loader_core_speedup", "1.5")
    assert faster["workload"]["loader_clips_per_second_per_core"] == 45


def test_the_size_of_a_clip_is_that_of_the_loader_s_set(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    details = {"clips_per_second": 30.0, "bytes_per_clip": 250000.0}
    words = ("--clips_per_second_per_gpu", "900", "--loader")
    loader = write_benchmark(tmp_path / "loader.json", "loader", details=details)
    assert projected(tmp_path, *words, loader)["workload"]["bytes_per_clip"] == 250000
    stated = projected(tmp_path, *words, loader, "--bytes_per_clip", "400000")
    assert stated["workload"]["bytes_per_clip"] == 400000
    without = write_benchmark(tmp_path / "without.json", "loader", details={"clips_per_second": 30.0})
    assert "no 'bytes_per_clip' among its details" in refusal(capsys, *words, without)


def test_refusals_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rate = ("--clips_per_second_per_gpu", "900")
    assert "exactly one of step, clips_per_second_per_gpu" in refusal(capsys, *STATED)
    assert "not clips_per_second_per_gpu and model_flops" in refusal(
        capsys, *rate, "--model_flops_utilisation", "0.4", *STATED
    )
    assert "exactly one of loader, " in refusal(capsys, *rate, *STATED[2:])
    assert "bytes_per_clip is None" in refusal(capsys, *rate, *STATED[:2])
    assert "step_speedup is 2.0" in refusal(capsys, *rate, *STATED, "--step_speedup", "2.0")
    assert "12 GPUs do not fill nodes of 8" in refusal(capsys, *rate, *STATED, "--gpus", "[12]")
    assert "cores_per_gpu is 1" in refusal(capsys, *rate, *STATED, "--cluster.cores_per_gpu", "1")
    assert "model_flops_utilisation is 40.0" in refusal(capsys, "--model_flops_utilisation", "40.0", *STATED)
    assert "no field 'gpu'" in refusal(capsys, *rate, *STATED, "--gpu", "8")
    nowhere = str(tmp_path / "nowhere" / "file.json")
    assert "cannot be read" in refusal(capsys, "--step", nowhere, *STATED)
    assert "cannot be written" in refusal(capsys, *rate, *STATED, "--output", nowhere)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"benchmark": "planes"}, "not of the benchmark step or gpu"),
        ({"skipped": "no GPU here"}, "was skipped: no GPU here"),
        ({"details": {}}, "no 'clips_per_second' among its details"),
    ],
    ids=["another", "skipped", "no rate"],
)
def test_a_file_without_a_measured_rate_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, fields: dict, text: str
) -> None:
    step = write_benchmark(tmp_path / "step.json", "step", gpu="H100")
    contents = json.loads(Path(step).read_text()) | fields
    Path(step).write_text(json.dumps(contents))
    assert text in refusal(capsys, "--step", step, *STATED)


def test_help_is_printed(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "--clips_per_second_per_gpu" in printed and "--network_bandwidth" in printed
