"""A step on many GPUs against numbers worked out by hand, and what must hold of any."""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from pretrain_processes import CONTEXT, free_port
from tiny_models import tiny_batch, tiny_model
from torch.distributed.nn import functional
from transformers import BatchFeature

from train.arguments import PretrainArguments
from train.loop import training_step
from train.projected_step import (
    Cluster,
    Workload,
    all_gather_seconds,
    all_reduce_seconds,
    breaking_points,
    losses_bytes,
    losses_seconds,
    project,
    ring_seconds,
)
from train.training_run import prepare_run

# Round numbers, and latencies that are easy to tell apart.
CLUSTER = Cluster(
    gpus_per_node=8,
    cores_per_gpu=11,
    gpu_memory_bytes=80e9,
    gpu_memory_bandwidth=2e12,
    fp32_flops=50e12,
    nvlink_bandwidth=400e9,
    network_bandwidth=25e9,
    reached_bandwidth=0.5,
    nvlink_hop_seconds=1e-6,
    network_hop_seconds=10e-6,
    storage_bandwidth=1e9,
)
WORKLOAD = Workload(
    clips_per_gpu=100,
    clips_per_second_per_gpu=1000.0,
    loader_clips_per_second_per_core=50.0,
    bytes_per_clip=1e6,
    parameters=100_000_000,
    training_clips=10_000,
    worker_scaling=0.8,
    embedding_size=500,
    collectives=10,
    backward_share=0.5,
)
rates = st.floats(1.0, 1e5)
gpu_counts = st.sampled_from([2**exponent for exponent in range(14)])


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    return replace(
        WORKLOAD,
        clips_per_gpu=draw(st.integers(2, 2000)),
        clips_per_second_per_gpu=draw(rates),
        loader_clips_per_second_per_core=draw(rates),
        bytes_per_clip=draw(st.floats(1e3, 1e8)),
        parameters=draw(st.integers(1, 10**10)),
    )


def test_one_gpu_does_what_it_does_alone() -> None:
    step = project(WORKLOAD, CLUSTER, 1)
    assert step.seconds == step.computing_seconds == 0.1
    assert set(step.exposed_seconds.values()) == {0.0}
    assert step.gpu_rate == pytest.approx(1000)
    assert step.batches_per_epoch == 100


def test_a_ring_within_a_node_and_between_nodes() -> None:
    # 7/8 of 16 GB over 400 GB/s, half of it reached; then 3/4 of 16 GB by eight adapters of 25 GB/s.
    assert ring_seconds(16e9, CLUSTER, 8) == pytest.approx(14e9 / 400e9 / 0.5)
    assert ring_seconds(16e9, CLUSTER, 32) == pytest.approx(12e9 / 200e9 / 0.5)
    assert ring_seconds(16e9, CLUSTER, 1) == 0
    fast_network = replace(CLUSTER, network_bandwidth=1e15)
    assert ring_seconds(16e9, fast_network, 32) == pytest.approx(15.5e9 / 400e9 / 0.5)


def test_all_gather() -> None:
    # 100 rows of 500 numbers of 4 bytes are 200 kB a GPU; seven embeddings, forth and back.
    assert all_gather_seconds(WORKLOAD, CLUSTER, 1) == 0
    in_node = 10 * 7 * 1e-6 + 14 * 1.6e6 * 7 / 8 / 200e9
    assert all_gather_seconds(WORKLOAD, CLUSTER, 8) == pytest.approx(in_node)
    # 31 hops, three of them between the nodes.
    four_nodes = 10 * (28 * 1e-6 + 3 * 10e-6) + 14 * 6.4e6 * 3 / 4 / 100e9
    assert all_gather_seconds(WORKLOAD, CLUSTER, 32) == pytest.approx(four_nodes)


def test_all_reduce() -> None:
    # 400 MB are 16 buckets of 25 MiB; a tree has 7 hops in the node and 2 between four nodes, up and down.
    assert all_reduce_seconds(WORKLOAD, CLUSTER, 1) == 0
    seconds = 16 * 2 * (7 * 1e-6 + 2 * 10e-6) + 2 * 400e6 * 3 / 4 / 100e9
    assert all_reduce_seconds(WORKLOAD, CLUSTER, 32) == pytest.approx(seconds)
    halved = replace(WORKLOAD, gradient_bytes=2)
    assert all_reduce_seconds(halved, CLUSTER, 32) == pytest.approx(seconds / 2)


def test_losses() -> None:
    # Against 100 clips of another GPU: 8 matrices of 10,000 pairs; 7 embeddings of 50,000 numbers.
    assert losses_seconds(WORKLOAD, CLUSTER, 1) == 0
    seconds = 6 * 80_000 * 500 / 50e12 + 4 * (20 * 80_000 + 10 * 350_000) / 2e12
    assert losses_seconds(WORKLOAD, CLUSTER, 2) == pytest.approx(seconds)
    assert losses_seconds(WORKLOAD, CLUSTER, 65) == pytest.approx(64 * seconds)
    # 8 matrices of 100 x 800, three tensors of 4 bytes each.
    assert losses_bytes(WORKLOAD, 8) == 8 * 80_000 * 12
    # With more rows than are taken at a time, a block of one matrix waits alone.
    assert losses_bytes(replace(WORKLOAD, clips_per_gpu=2048), 8) == 1024 * 16_384 * 12


def test_a_step_is_the_sum_of_its_parts_but_for_what_is_hidden() -> None:
    step = project(WORKLOAD, CLUSTER, 32)
    assert step.hidden_seconds == step.all_reduce_seconds < 0.05
    assert step.seconds == pytest.approx(0.1 + step.losses_seconds + step.all_gather_seconds)
    assert step.gpu_rate == pytest.approx(3200 / step.seconds)
    large = project(replace(WORKLOAD, parameters=10**11), CLUSTER, 32)
    assert large.hidden_seconds == pytest.approx(0.05)
    assert large.exposed_seconds["all-reduce"] == pytest.approx(large.all_reduce_seconds - 0.05)
    assert large.limit == "all-reduce"


def test_loader_and_storage_bound_the_rate() -> None:
    # Ten of eleven cores at 0.8 of 50 clips/s; a node's GB/s are 1000 clips/s.
    step = project(WORKLOAD, CLUSTER, 16)
    assert (step.loader_rate, step.storage_rate) == (pytest.approx(6400), pytest.approx(2000))
    assert (step.clips_per_second, step.limit) == (pytest.approx(2000), "storage")
    small = project(replace(WORKLOAD, bytes_per_clip=1e4), CLUSTER, 16)
    assert (small.clips_per_second, small.limit) == (pytest.approx(6400), "loader")
    fed = replace(WORKLOAD, bytes_per_clip=1e4, loader_clips_per_second_per_core=1e3)
    assert project(fed, CLUSTER, 16).limit == "computing"


def test_breaking_points() -> None:
    points = breaking_points(WORKLOAD, CLUSTER, tolerated_share=0.1)
    # 400 clips/s of the loader against 1000; 128 batches of 100 are more than the 10,000 clips.
    assert (points["loader"], points["clips"]) == (1, 128)
    # 8 GB are 8,333 times 0.96 MB.
    assert points["losses' memory"] == 16_384
    assert points["storage"] == 2, "one GPU takes exactly the node's 1000 clips/s"
    # What adds more than 10 ms to the 100 ms of computing.
    for name, point in (("losses", 1024), ("all-gather", 256)):
        assert points[name] == point
        before, at = (project(WORKLOAD, CLUSTER, gpus).exposed_seconds[name] for gpus in (point // 2, point))
        assert before < 0.01 < at
    assert points["all-reduce"] is None


@given(workloads(), gpu_counts)
def test_more_gpus_train_on_more_clips_unless_a_link_breaks(workload: Workload, gpus: int) -> None:
    fewer, more = (project(workload, CLUSTER, count) for count in (gpus, 2 * gpus))
    links = more.exposed_seconds["all-gather"] + more.exposed_seconds["all-reduce"]
    assert more.gpu_rate >= fewer.gpu_rate * (1 - 1e-9) or links > more.computing_seconds
    assert more.seconds >= fewer.seconds * (1 - 1e-9) or gpus < CLUSTER.gpus_per_node


@given(workloads(), st.sampled_from([1, 2, 4, 64]))
def test_what_feeds_the_gpus_grows_with_the_nodes(workload: Workload, nodes: int) -> None:
    one, many = (project(workload, CLUSTER, 8 * count) for count in (1, nodes))
    assert many.loader_rate == pytest.approx(nodes * one.loader_rate)
    assert many.storage_rate == pytest.approx(nodes * one.storage_rate)
    assert many.losses_bytes == nodes * one.losses_bytes, "linear in the global batch"


@given(workloads(), gpu_counts)
def test_nothing_beats_what_feeds_it(workload: Workload, gpus: int) -> None:
    step = project(workload, CLUSTER, gpus)
    assert step.clips_per_second <= min(step.loader_rate, step.storage_rate)
    assert step.gpu_rate <= gpus * workload.clips_per_second_per_gpu * (1 + 1e-9)
    assert 0 <= step.hidden_seconds <= step.all_reduce_seconds


class CountedCollectives:
    """Counts the calls between processes while it holds; those within another count as that one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.depth = 0

    def __enter__(self) -> "CountedCollectives":
        of_backward = [(functional._AllGather, "backward")]
        calls = [(torch.distributed, name) for name in ("all_gather", "all_reduce", "_broadcast_coalesced")]
        self.before = [(owner, name, getattr(owner, name)) for owner, name in (*of_backward, *calls)]
        for owner, name, call in self.before:
            setattr(owner, name, self._counted(f"{owner.__name__}.{name}", call))
        return self

    def __exit__(self, *error: object) -> None:
        for owner, name, call in self.before:
            setattr(owner, name, staticmethod(call) if isinstance(owner, type) else call)

    def _counted(self, name: str, call: Callable) -> Callable:
        def counted(*arguments: object, **named: object) -> object:
            if self.depth == 0:
                self.names.append(name)
            self.depth += 1
            try:
                return call(*arguments, **named)
            finally:
                self.depth -= 1

        return counted


def collectives_of_one_process(rank: int, port: int, folder: Path) -> None:
    """Notes the calls between processes of one step of the training loop."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    arguments = PretrainArguments("", dataset="none", max_steps=2, report_to="none", max_grad_norm=1.0)
    run = prepare_run(Accelerator(cpu=True, mixed_precision="bf16"), arguments, tiny_model(training=True), 2)
    batch = BatchFeature(tiny_batch(3, mask=[True, False, True], seed=rank))
    training_step(run, ["clip"] * 3, batch)
    with CountedCollectives() as counted:
        training_step(run, ["clip"] * 3, batch)
    (folder / f"{rank}.json").write_text(json.dumps(counted.names))


def test_the_collectives_are_those_of_a_training_step(tmp_path: Path) -> None:
    """Between two processes; those of the gradients of the weights are reckoned with apart."""
    port = free_port()
    processes = [
        CONTEXT.Process(target=collectives_of_one_process, args=(rank, port, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert Counter(first) == {
        "torch.distributed.all_gather": 3,
        "_AllGather.backward": 1,
        "torch.distributed.all_reduce": 3,
        "torch.distributed._broadcast_coalesced": 1,
    }
    assert len(first) == Workload.collectives


def test_partly_empty_nodes_and_impossible_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="12 GPUs do not fill nodes of 8"):
        project(WORKLOAD, CLUSTER, 12)
    assert CLUSTER.nodes(5) == 1
    for fields, text in (
        ({"network_bandwidth": 0.0}, "network_bandwidth is 0.0"),
        ({"cores_per_gpu": 1}, "cores_per_gpu is 1"),
        ({"gpus_per_node": 6}, "power of two"),
    ):
        with pytest.raises(ValueError, match=text):
            replace(CLUSTER, **fields)
