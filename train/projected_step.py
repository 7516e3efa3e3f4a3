"""A training step on many GPUs, on paper: the seconds of its parts, and what feeds it.

The parts of a step of n GPUs, each with b clips: computing, as on one GPU alone; the losses, whose matrices
are b x n b; the all-gathers of embeddings, forth and with their gradients back; and what of the all-reduce of
the gradients the backward pass does not hide. Loader and storage run beside the step and bound its rate.
"""

import math
from dataclasses import dataclass

from modeling_dualrep.losses import ROWS_AT_A_TIME
from train.arguments import require

FLOAT32_BYTES = 4
BUCKET_BYTES = 25 * 2**20  # of DistributedDataParallel, by default
MOST_GPUS = 2**16


@dataclass(frozen=True)
class Cluster:
    """Nodes of H100 SXM GPUs; bandwidths are bytes a second, in one direction.

    Args:
        gpus_per_node: of a DGX H100.
        cores_per_gpu: CPU cores; a DGX H100 has two processors of 56.
        gpu_memory_bytes: H100 data sheet: 80 GB.
        gpu_memory_bandwidth: H100 data sheet: 3.35 TB/s.
        bf16_flops: a second; H100 data sheet: 989 TFLOPS, dense.
        fp32_flops: a second; H100 data sheet: 67 TFLOPS; the losses are computed in float32.
        nvlink_bandwidth: of a GPU; H100 data sheet: 900 GB/s in both directions together.
        network_bandwidth: of a GPU; InfiniBand NDR: 400 Gb/s.
        reached_bandwidth: share of both that transfers reach; NVIDIA's own test of two H100 reached 380 of
            450 GB/s (NVIDIA/nccl, issue 1264).
        nvlink_hop_seconds, network_hop_seconds: of one hop of a ring, as NCCL reckons with (its tuning.cc,
            protocol LL128).
        storage_bandwidth: that a node reads clips with; a guess, since no data sheet says it.
    """

    gpus_per_node: int = 8
    cores_per_gpu: int = 14
    gpu_memory_bytes: float = 80e9
    gpu_memory_bandwidth: float = 3.35e12
    bf16_flops: float = 989e12
    fp32_flops: float = 67e12
    nvlink_bandwidth: float = 450e9
    network_bandwidth: float = 50e9
    reached_bandwidth: float = 0.8
    nvlink_hop_seconds: float = 1.9e-6
    network_hop_seconds: float = 4.0e-6
    storage_bandwidth: float = 2e9

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(self, name, value > 0, "above 0")
        require(self, "cores_per_gpu", self.cores_per_gpu >= 2, "at least 2: one trains, another loads")
        is_power = self.gpus_per_node & (self.gpus_per_node - 1) == 0
        require(self, "gpus_per_node", is_power, "a power of two")

    def nodes(self, gpus: int) -> int:
        """Nodes that so many GPUs fill.

        Raises:
            ValueError: they leave a node partly empty.
        """
        if gpus > self.gpus_per_node and gpus % self.gpus_per_node:
            raise ValueError(f"{gpus} GPUs do not fill nodes of {self.gpus_per_node}.")
        return math.ceil(gpus / self.gpus_per_node)


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Args:
        clips_per_gpu: in a step.
        clips_per_second_per_gpu: of the step on one GPU alone, fed without waiting.
        loader_clips_per_second_per_core: decoded by one worker.
        bytes_per_clip: as stored.
        parameters: of the model.
        training_clips: in the set.
        worker_scaling: share of the loader's rate that is left a worker when there are many.
        embedding_size: numbers of an embedding.
        gathered_embeddings: embeddings of a clip that other processes take as candidates, with all losses and
            modalities.
        collectives: calls of a step that the processes wait for one after the other: gathers of the sizes of
            the batches, of all embeddings together and of which clips have sound, the gradients of the
            embeddings back, the losses' sums forth and back, whether the step is skipped, and BatchNorm's
            statistics. All are reckoned as rings, though NCCL has quicker trees for a few numbers.
        similarity_matrices: of clips_per_gpu rows, with all losses and modalities: two contrastive losses and
            two directions of ranking for each of speech and frame.
        kept_tensors: float32 tensors of the size of each such matrix that wait for the backward pass.
        similarity_passes: how often, forth and back, each such matrix is read or written.
        candidate_passes: the same of each gathered embedding.
        gradient_bytes: of a parameter's gradient in the all-reduce.
        backward_share: of computing, beside which the all-reduce runs.
    """

    clips_per_gpu: int
    clips_per_second_per_gpu: float
    loader_clips_per_second_per_core: float
    bytes_per_clip: float
    parameters: int
    training_clips: int
    worker_scaling: float = 0.85
    embedding_size: int = 512
    gathered_embeddings: int = 7
    collectives: int = 8
    similarity_matrices: int = 8
    kept_tensors: int = 3
    similarity_passes: int = 20
    candidate_passes: int = 10
    gradient_bytes: int = FLOAT32_BYTES
    backward_share: float = 2 / 3


@dataclass(frozen=True)
class ProjectedStep:
    """A step of so many GPUs.

    Args:
        gpus: how many.
        computing_seconds: as on one GPU alone.
        losses_seconds: more than the losses of one GPU's own clips take.
        all_gather_seconds: of embeddings, and of their gradients back.
        all_reduce_seconds: of the gradients, with what the backward pass hides.
        hidden_seconds: of the all-reduce.
        losses_bytes: that the losses keep for the backward pass, on each GPU.
        gpu_rate, loader_rate, storage_rate: clips a second that the GPUs train on, the workers decode and the
            storage gives, each if nothing else held it up.
        batches_per_epoch: none where the set is smaller than a batch.
    """

    gpus: int
    computing_seconds: float
    losses_seconds: float
    all_gather_seconds: float
    all_reduce_seconds: float
    hidden_seconds: float
    losses_bytes: float
    gpu_rate: float
    loader_rate: float
    storage_rate: float
    batches_per_epoch: int

    @property
    def exposed_seconds(self) -> dict[str, float]:
        """What each part adds to computing."""
        return {
            "losses": self.losses_seconds,
            "all-gather": self.all_gather_seconds,
            "all-reduce": self.all_reduce_seconds - self.hidden_seconds,
        }

    @property
    def seconds(self) -> float:
        """Of the whole step, fed without waiting."""
        return self.computing_seconds + sum(self.exposed_seconds.values())

    @property
    def clips_per_second(self) -> float:
        """What GPUs, workers and storage can do together, given clips enough."""
        return min(self.gpu_rate, self.loader_rate, self.storage_rate)

    @property
    def limit(self) -> str:
        """What the rate hangs on most."""
        if self.clips_per_second < self.gpu_rate:
            return "loader" if self.loader_rate <= self.storage_rate else "storage"
        parts = {"computing": self.computing_seconds, **self.exposed_seconds}
        return max(parts, key=parts.get)


def project(workload: Workload, cluster: Cluster, gpus: int) -> ProjectedStep:
    """A step of `gpus` GPUs.

    Raises:
        ValueError: they leave a node partly empty.
    """
    nodes = cluster.nodes(gpus)
    computing = workload.clips_per_gpu / workload.clips_per_second_per_gpu
    reduction = all_reduce_seconds(workload, cluster, gpus)
    hidden = min(reduction, workload.backward_share * computing)
    losses, gathers = losses_seconds(workload, cluster, gpus), all_gather_seconds(workload, cluster, gpus)
    step_seconds = computing + losses + gathers + reduction - hidden
    of_core = workload.loader_clips_per_second_per_core * workload.worker_scaling
    return ProjectedStep(
        gpus=gpus,
        computing_seconds=computing,
        losses_seconds=losses,
        all_gather_seconds=gathers,
        all_reduce_seconds=reduction,
        hidden_seconds=hidden,
        losses_bytes=losses_bytes(workload, gpus),
        gpu_rate=gpus * workload.clips_per_gpu / step_seconds,
        # One core a GPU trains.
        loader_rate=gpus * (cluster.cores_per_gpu - 1) * of_core,
        storage_rate=nodes * cluster.storage_bandwidth / workload.bytes_per_clip,
        batches_per_epoch=workload.training_clips // (gpus * workload.clips_per_gpu),
    )


def losses_seconds(workload: Workload, cluster: Cluster, gpus: int) -> float:
    """What the clips of the other GPUs add to the losses of one: products, and traffic of its memory."""
    others = (gpus - 1) * workload.clips_per_gpu
    pairs = workload.similarity_matrices * workload.clips_per_gpu * others
    # A product of matrices is one forth and two back, of two operations a pair and number.
    flops = 3 * 2 * pairs * workload.embedding_size
    numbers = workload.gathered_embeddings * others * workload.embedding_size
    moved = FLOAT32_BYTES * (workload.similarity_passes * pairs + workload.candidate_passes * numbers)
    return flops / cluster.fp32_flops + moved / cluster.gpu_memory_bandwidth


def losses_bytes(workload: Workload, gpus: int) -> float:
    """What the losses keep for the backward pass: all matrices, or a block of one where rows are many."""
    blocks_alone = workload.clips_per_gpu > ROWS_AT_A_TIME
    rows = ROWS_AT_A_TIME if blocks_alone else workload.similarity_matrices * workload.clips_per_gpu
    return rows * gpus * workload.clips_per_gpu * workload.kept_tensors * FLOAT32_BYTES


def all_gather_seconds(workload: Workload, cluster: Cluster, gpus: int) -> float:
    """Of the gathered embeddings and the reduce-scatter of their gradients, which moves as much, with the
    latency of every call of a step but for those of the all-reduce.
    """
    rows_bytes = workload.clips_per_gpu * workload.embedding_size * FLOAT32_BYTES
    nodes = cluster.nodes(gpus)
    latency = (gpus - nodes) * cluster.nvlink_hop_seconds + (nodes - 1) * cluster.network_hop_seconds
    transfer = 2 * workload.gathered_embeddings * ring_seconds(gpus * rows_bytes, cluster, gpus)
    return workload.collectives * latency + transfer


def all_reduce_seconds(workload: Workload, cluster: Cluster, gpus: int) -> float:
    """Of the gradients: a reduce-scatter and an all-gather, with the latency of a tree for each bucket."""
    total_bytes = workload.parameters * workload.gradient_bytes
    nodes = cluster.nodes(gpus)
    in_node = (gpus / nodes - 1) * cluster.nvlink_hop_seconds
    latency = 2 * (in_node + math.log2(nodes) * cluster.network_hop_seconds)
    buckets = math.ceil(total_bytes / BUCKET_BYTES)
    return buckets * latency + 2 * ring_seconds(total_bytes, cluster, gpus)


def ring_seconds(total_bytes: float, cluster: Cluster, gpus: int) -> float:
    """Every GPU receives what it lacks of `total_bytes`; of two kinds of links the slower one decides.

    Over NVLink each GPU takes (n - 1) / n of them. Between the nodes each node takes in its share once, by
    the adapters of all its GPUs together.
    """
    nodes = cluster.nodes(gpus)
    in_node = total_bytes * (gpus - 1) / gpus / cluster.nvlink_bandwidth
    adapters = cluster.network_bandwidth * gpus / nodes
    between_nodes = total_bytes * (nodes - 1) / nodes / adapters
    return max(in_node, between_nodes) / cluster.reached_bandwidth


def breaking_points(workload: Workload, cluster: Cluster, tolerated_share: float) -> dict[str, int | None]:
    """At how many GPUs each resource breaks: 1, 2, 4 and so on up to `MOST_GPUS`, None if at none of them.

    Losses, all-gather and all-reduce break where they add more than `tolerated_share` to the time of
    computing, the losses' memory where it takes more than that of a GPU's, loader and storage where they give
    less than the GPUs take, the clips where they make no batch.
    """
    points: dict[str, int | None] = {}
    for exponent in range(int(math.log2(MOST_GPUS)) + 1):
        step = project(workload, cluster, 2**exponent)
        tolerated_seconds = tolerated_share * step.computing_seconds
        is_broken = {name: added > tolerated_seconds for name, added in step.exposed_seconds.items()}
        is_broken |= {
            "losses' memory": step.losses_bytes > tolerated_share * cluster.gpu_memory_bytes,
            "loader": step.loader_rate < step.gpu_rate,
            "storage": step.storage_rate < step.gpu_rate,
            "clips": step.batches_per_epoch == 0,
        }
        for name, broken in is_broken.items():
            if points.get(name) is None:
                points[name] = step.gpus if broken else None
    return points
