"""Projects the speed of pretraining on many H100 GPUs, on paper, and what breaks first.

python -m train.projection --step STEP.json --loader LOADER.json [--output FILE.json]

STEP.json and LOADER.json are what `python train/benchmark.py step` (or gpu) and `loader` write with --output.
"""

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from modeling_dualrep.modeling_dualrep import DualRepModel
from train.arguments import COMMAND_LINE, ArgumentsError, build, help_text, read_flags, require
from train.projected_step import MOST_GPUS, Cluster, ProjectedStep, Workload, breaking_points, project

PAPER_CLIPS = 10_457  # of 6 s
GPU = "H100"
STEP_BENCHMARKS = ("step", "gpu")
LOADER_BENCHMARKS = ("loader",)
RATE, BYTES = "clips_per_second", "bytes_per_clip"  # among a benchmark's details


@dataclass(frozen=True)
class ProjectionArguments:
    """What a projection is made from.

    The rate of one GPU comes from exactly one of `step`, `clips_per_second_per_gpu` and
    `model_flops_utilisation`, the loader's from one of `loader` and `loader_clips_per_second_per_core`.

    Args:
        step: JSON of the benchmark of a training step.
        step_speedup: how many times as fast an H100 makes the step; must be given where another machine was
            measured.
        clips_per_second_per_gpu: of the step on one H100, as you state it.
        model_flops_utilisation: share of the H100's dense bf16 rate that the FLOPs of the towers reach; the
            rate of the step follows.
        loader: JSON of the benchmark of the loader.
        loader_clips_per_second_per_core: of one worker, as you state it.
        loader_core_speedup: how many times as fast a core of the nodes is as the one that was measured.
        bytes_per_clip: of a clip in its Parquet file; by default that of the set that `loader` read.
        clips_per_gpu: batch of each GPU; that of the measured step, where one is given.
        clip_seconds: length of a clip's sound, for the FLOPs of the speech tower.
        training_clips: in the set; by default the paper's of 6 s.
        collectives: calls of a step that the processes wait for, to see what fewer would save.
        gpus: how many, a column each.
        tolerated_share: what a part may add to the time of computing, and what the losses may keep of the
            memory, before it counts as broken.
        cluster: the nodes.
    """

    step: str | None = None
    step_speedup: float | None = None
    clips_per_second_per_gpu: float | None = None
    model_flops_utilisation: float | None = None
    loader: str | None = None
    loader_clips_per_second_per_core: float | None = None
    loader_core_speedup: float = 1.0
    bytes_per_clip: float | None = None
    clips_per_gpu: int = 32
    clip_seconds: float = 6.0
    training_clips: int = PAPER_CLIPS
    collectives: int = Workload.collectives
    gpus: tuple[int, ...] = (1, 8, 64, 512)
    tolerated_share: float = 0.1
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float):
                require(self, f.name, value > 0, "above 0")
        for name in ("model_flops_utilisation", "tolerated_share"):
            value = getattr(self, name)
            require(self, name, value is None or value <= 1, "at most 1")
        require(self, "clips_per_gpu", self.clips_per_gpu >= 2, "at least 2: a clip alone has no negatives")
        self._require_one("step", "clips_per_second_per_gpu", "model_flops_utilisation")
        self._require_one("loader", "loader_clips_per_second_per_core")
        has_step = self.step is not None or self.step_speedup is None
        require(self, "step_speedup", has_step, "left out: no measured step is given to scale")
        has_bytes = self.bytes_per_clip is not None or self.loader is not None
        require(self, "bytes_per_clip", has_bytes, "given where no benchmark of the loader is")
        require(self, "gpus", bool(self.gpus) and min(self.gpus) >= 1, "one or more numbers from 1 on")
        for count in self.gpus:
            self.cluster.nodes(count)

    def _require_one(self, *names: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ArgumentsError(
                f"Give exactly one of {', '.join(names)}, not {' and '.join(given) or 'none'}: without a "
                "stated source there is nothing to project."
            )


@dataclass(frozen=True)
class Projection:
    """What `--output` holds.

    Args:
        title: where the rate of one GPU comes from.
        workload, cluster: everything that was assumed.
        steps: one for each number of GPUs.
        breaking_points: see `breaking_points`.
    """

    title: str
    workload: Workload
    cluster: Cluster
    steps: list[ProjectedStep]
    breaking_points: dict[str, int | None]


def main(command_line: list[str] | None = None) -> int:
    """The command; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    if {"-h", "--help"} & set(words):
        print("\n\n".join([__doc__, help_text(ProjectionArguments), help_text(Cluster)]))
        return 0
    try:
        flags = read_flags(words)
        output = flags.pop("output", None)
        projection = make_projection(build(ProjectionArguments, flags, COMMAND_LINE))
        if output is not None:
            write_json(projection, Path(output))
    except ArgumentsError as error:
        print(f"projection.py: {error}", file=sys.stderr)
        return 2
    print(markdown(projection))
    return 0


def make_projection(arguments: ProjectionArguments) -> Projection:
    """Reads what was measured and projects it.

    Raises:
        ArgumentsError: a JSON that is none of the benchmark's, or was measured on another machine than an
            H100 with no speedup stated.
    """
    model = meta_model()
    rate, title = gpu_rate(arguments, model)
    workload = Workload(
        clips_per_gpu=arguments.clips_per_gpu,
        clips_per_second_per_gpu=rate,
        loader_clips_per_second_per_core=loader_rate(arguments),
        bytes_per_clip=bytes_per_clip(arguments),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_clips=arguments.training_clips,
        collectives=arguments.collectives,
        embedding_size=model.config.projection_dim,
    )
    steps = [project(workload, arguments.cluster, count) for count in arguments.gpus]
    points = breaking_points(workload, arguments.cluster, arguments.tolerated_share)
    return Projection(title, workload, arguments.cluster, steps, points)


def gpu_rate(arguments: ProjectionArguments, model: DualRepModel) -> tuple[float, str]:
    """Clips a second of one H100, and where they come from.

    Raises:
        ArgumentsError: the step was measured on another machine than an H100, and no speed-up is given.
    """
    if arguments.clips_per_second_per_gpu is not None:
        rate = arguments.clips_per_second_per_gpu
        return rate, f"Projected from a stated {rate:g} clips/s of one H100"
    if arguments.model_flops_utilisation is not None:
        flops = training_flops_per_clip(model, arguments.clip_seconds)
        share = arguments.model_flops_utilisation
        return share * arguments.cluster.bf16_flops / flops, (
            f"Projected from {flops / 1e9:.0f} GFLOPs a clip at an assumed {share:.0%} of the H100's dense "
            "bf16 rate: no step was measured"
        )
    measured = read_benchmark(arguments.step, STEP_BENCHMARKS, RATE)
    machine = measured["machine"]["gpu"] or measured["machine"]["cpu"]
    title = f"Projected from the step measured on {machine}"
    if arguments.step_speedup is not None:
        title += f", an H100 being assumed {arguments.step_speedup:g} times as fast"
        return measured["details"][RATE] * arguments.step_speedup, title
    if GPU not in machine:
        raise ArgumentsError(
            f"{arguments.step} was measured on {machine}, not on an H100. State --step_speedup, or give "
            "--clips_per_second_per_gpu or --model_flops_utilisation in its place."
        )
    return measured["details"][RATE], title


def loader_rate(arguments: ProjectionArguments) -> float:
    """Clips a second that one worker decodes on a core of the nodes."""
    rate = arguments.loader_clips_per_second_per_core
    if rate is None:
        rate = read_benchmark(arguments.loader, LOADER_BENCHMARKS, RATE)["details"][RATE]
    return rate * arguments.loader_core_speedup


def bytes_per_clip(arguments: ProjectionArguments) -> float:
    """Size of a clip in its Parquet file, as stated or as the loader's benchmark had it."""
    if arguments.bytes_per_clip is not None:
        return arguments.bytes_per_clip
    return read_benchmark(arguments.loader, LOADER_BENCHMARKS, BYTES)["details"][BYTES]


def read_benchmark(path: str, names: tuple[str, ...], detail: str) -> dict[str, Any]:
    """What one of these benchmarks wrote.

    Raises:
        ArgumentsError: another file, a benchmark that was skipped, or one without this detail.
    """
    wanted = f"Give what `python train/benchmark.py {names[0]} --output FILE.json` wrote."
    try:
        measured = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentsError(f"{path} cannot be read: {error}. {wanted}") from error
    if not isinstance(measured, dict) or "benchmark" not in measured or measured["benchmark"] not in names:
        raise ArgumentsError(f"{path} is not of the benchmark {' or '.join(names)}. {wanted}")
    if measured["skipped"] is not None:
        raise ArgumentsError(f"{path}: the benchmark was skipped: {measured['skipped']}")
    if detail not in measured["details"]:
        raise ArgumentsError(f"{path} has no {detail!r} among its details. {wanted}")
    return measured


def meta_model() -> DualRepModel:
    """The paper's model without any values, to count on."""
    with torch.device("meta"):
        return DualRepModel(DualRepConfig())


def training_flops_per_clip(model: DualRepModel, clip_seconds: float) -> float:
    """Operations of the towers, forth and back, as PyTorch counts them: two for a multiplication with its
    addition.

    Args:
        model: on the meta device.
        clip_seconds: length of the clip's sound.
    """
    video, image = model.config.video_config, model.config.image_config
    extractor = DualRepFeatureExtractor()
    mel_frames = round(clip_seconds * extractor.sampling_rate / extractor.hop_length)
    inputs: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
        (model.get_video_features, (1, video.num_frames, 3, video.image_size, video.image_size)),
        (model.get_audio_features, (1, mel_frames, model.config.audio_config.num_mel_bins)),
        (model.get_image_features, (1, 3, image.image_size, image.image_size)),
    ]
    model.train()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        for embed, shape in inputs:
            embed(torch.empty(shape)).pooler_output.sum().backward()
    return float(counter.get_total_flops())


def write_json(projection: Projection, path: Path) -> None:
    """Writes everything, with the seconds and rates of every step.

    Raises:
        ArgumentsError: the file cannot be written.
    """
    contents = dataclasses.asdict(projection)
    for step, fields in zip(projection.steps, contents["steps"], strict=True):
        fields |= {"seconds": step.seconds, "clips_per_second": step.clips_per_second, "limit": step.limit}
    try:
        path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArgumentsError(f"output {path} cannot be written: {error}.") from error


def markdown(projection: Projection) -> str:
    """The title, a column for each number of GPUs, what breaks when, every assumption and its source."""
    steps, workload = projection.steps, projection.workload
    rows: dict[str, Callable[[ProjectedStep], str]] = {
        "clips a second, given clips enough": lambda step: f"{step.clips_per_second:,.0f}",
        "hangs on": lambda step: step.limit,
        "GPUs could take, clips/s": lambda step: f"{step.gpu_rate:,.0f}",
        "workers decode, clips/s": lambda step: f"{step.loader_rate:,.0f}",
        "storage gives, clips/s": lambda step: f"{step.storage_rate:,.0f}",
        "step, ms": lambda step: f"{1e3 * step.seconds:.1f}",
        "of it computing, ms": lambda step: f"{1e3 * step.computing_seconds:.1f}",
        **{
            f"of it {name}, ms": lambda step, name=name: f"{1e3 * step.exposed_seconds[name]:.2f}"
            for name in steps[0].exposed_seconds
        },
        "losses keep, MB a GPU": lambda step: f"{step.losses_bytes / 1e6:,.1f}",
        "clips a batch": lambda step: f"{step.gpus * workload.clips_per_gpu:,}",
        f"batches an epoch of {workload.training_clips:,} clips": lambda step: (
            f"{step.batches_per_epoch:,}" if step.batches_per_epoch else "none: too few clips"
        ),
    }
    lines = [f"**{projection.title}**", "", table_row(["GPUs", *(str(step.gpus) for step in steps)])]
    lines.append("|---" * (1 + len(steps)) + "|")
    lines += [table_row([name, *(shown(step) for step in steps)]) for name, shown in rows.items()]
    lines += ["", "What breaks first:", "", table_row(["resource", "breaks at GPUs"]), "|---|---|"]
    in_order = sorted(projection.breaking_points.items(), key=lambda item: item[1] or MOST_GPUS + 1)
    lines += [table_row([name, str(point or f"beyond {MOST_GPUS:,}")]) for name, point in in_order]
    for part in (workload, projection.cluster):
        values = [
            f"- {name}: {value:,}" if isinstance(value, int) else f"- {name}: {value:.4g}"
            for name, value in dataclasses.asdict(part).items()
        ]
        lines += ["", "Assumed:", "", *values, "", "```text", inspect.cleandoc(type(part).__doc__), "```"]
    return "\n".join(lines)


def table_row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
