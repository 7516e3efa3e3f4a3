"""Loading clips as pretraining does: against a bare loop over the same shards, against video files, and on
several cores."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn.functional import interpolate

from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.schema import AUDIO, FRAMES, SAMPLING_RATE_HZ, clips_config_name
from datasets_scripts.simulate_scans import SimulationParameters, simulate_scans
from modeling_dualrep.processing_dualrep import DualRepProcessor
from train.arguments import PretrainArguments, require
from train.clip_order import SeededBatches
from train.clip_planes import recording_of_scan
from train.cpu_cores import available_cores
from train.cpu_memory import keep_freed_memory
from train.pretrain import build_processor, build_triples
from train.timing import BenchmarkResult, Ratio, alternating_rounds, median_ratio, median_seconds
from train.triples import (
    ClipKey,
    decode_audio,
    decode_frames,
    list_clips,
    log_mel,
    open_clips,
    training_batches,
)

BARE_BAR, VIDEO_BAR, SCALING_BAR = 0.8, 8.0, 0.85
LEAST_WORKERS, MOST_WORKERS = 2, 4
WORKER_ROUNDS = 7  # their best counts, for which a few are enough
VIDEO_FILE_CLIPS = 16  # in a round: they take long


@dataclass(frozen=True)
class LoaderArguments:
    """Loading clips against a bare loop, against video files, and on several cores.

    Args:
        scans: simulated recordings that the clips are cut from.
        scan_seconds: length of a recording.
        clip_seconds: length of a clip; one begins every second.
        image_size: height and width of the recordings' pictures in pixels; clips keep them so.
        batch_size: clips a batch.
        batches: that are loaded in a round.
        rounds: how often each way is timed, in turns.
        model: fields of DualRepConfig; by default the full size.
    """

    scans: int = 8
    scan_seconds: float = 40.0
    clip_seconds: float = 6.0
    image_size: int = 160
    batch_size: int = 16
    batches: int = 12
    rounds: int = 25
    model: dict | None = None

    def __post_init__(self) -> None:
        for name in ("scans", "batch_size", "batches", "rounds"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "scan_seconds", self.scan_seconds >= self.clip_seconds > 0, "at least clip_seconds")


@dataclass(frozen=True)
class LoadedSet:
    """The clips, their recordings, and how a run takes them.

    Args:
        recordings, clips: folders.
        config: name of the clips' configuration.
        run: as pretraining would be told.
        processor: of the model.
    """

    recordings: Path
    clips: Path
    config: str
    run: PretrainArguments
    processor: DualRepProcessor


def benchmark_loader(arguments: LoaderArguments) -> BenchmarkResult:
    """Clips a second: the loader on one core to a bare loop and to video files, many workers to one.

    The loader reads in a seeded order, decodes, varies, and makes batches, whose pixels stay bytes until they
    are on the device. The bare loop reads the same shards row group by row group, decodes as many frames and
    the sound, and computes the log-mel.
    From a video file a clip's span is decoded, its frames scaled, its sound decoded and made a log-mel.
    """
    torch.set_num_threads(1)
    keep_freed_memory(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        loaded = make_set(arguments, Path(folder))
        bytes_per_clip = stored_bytes_per_clip(loaded)
        clips = arguments.batches * arguments.batch_size
        batches, bare, of_video_files = (
            batches_of(loaded, arguments, workers=0),
            bare_clips(loaded),
            clips_of_video_files(loaded, arguments),
        )
        seconds = alternating_rounds(
            {
                "loader": lambda: take(batches, arguments.batches),
                "bare": lambda: take(bare, clips),
                "video_files": lambda: take(of_video_files, min(clips, VIDEO_FILE_CLIPS)),
            },
            arguments.rounds,
        )
        workers = min(MOST_WORKERS, available_cores() - 1)
        rates = worker_rates(loaded, arguments, workers) if workers >= LEAST_WORKERS else {}
    of_all_clips = clips / min(clips, VIDEO_FILE_CLIPS)
    seconds["video_files"] = [value * of_all_clips for value in seconds["video_files"]]
    details = {
        "seconds": seconds,
        "clips_per_second": clips / median_seconds(seconds)["loader"],
        "clips_per_second_of_workers": {str(number): rate for number, rate in rates.items()},
        "bytes_per_clip": bytes_per_clip,
    }
    return BenchmarkResult(loader_ratios(seconds, rates), details)


def loader_ratios(seconds: dict[str, list[float]], rates: dict[int, float]) -> list[Ratio]:
    """The loader beside the two others; and its workers beside one, if there are cores for several."""
    to_bare, to_video = (median_ratio(seconds, other, "loader") for other in ("bare", "video_files"))
    ratios = [
        Ratio("loader / bare loop, clips a second", to_bare, BARE_BAR, False),
        Ratio("loader / decoding from mp4, clips a second", to_video, VIDEO_BAR, False),
    ]
    if rates:
        workers = max(rates)
        share = rates[workers] / (workers * rates[1])
        return [*ratios, Ratio(f"{workers} workers / {workers} times one", share, SCALING_BAR, False)]
    # One core is the training process's.
    needed = f"needs {LEAST_WORKERS + 1} cores"
    return [*ratios, Ratio("N workers / N times one", None, SCALING_BAR, False, skipped=needed)]


def make_set(arguments: LoaderArguments, folder: Path) -> LoadedSet:
    """Simulated recordings and their clips."""
    recordings, clips = folder / "recordings", folder / "clips"
    simulation = SimulationParameters(
        scans=arguments.scans, scan_seconds=arguments.scan_seconds, image_size=arguments.image_size
    )
    simulate_scans(recordings, simulation)
    cutting = ClipParameters(
        clip_seconds=arguments.clip_seconds, stride_seconds=1.0, frame_size=arguments.image_size
    )
    prepare_clips(recordings, clips, cutting)
    config = clips_config_name(arguments.clip_seconds)
    run = PretrainArguments(
        output_dir=str(folder / "run"),
        dataset=str(clips),
        dataset_config=config,
        max_steps=1,
        model=arguments.model or {},
    )
    return LoadedSet(recordings, clips, config, run, build_processor(run.model_config()))


def stored_bytes_per_clip(loaded: LoadedSet) -> float:
    """Size of the training shards over the number of their clips."""
    shards = (loaded.clips / "data" / loaded.config).glob("train-*.parquet")
    clips = list_clips(str(loaded.clips), loaded.config, "train")
    return sum(shard.stat().st_size for shard in shards) / len(clips)


def batches_of(loaded: LoadedSet, arguments: LoaderArguments, workers: int) -> Iterator[object]:
    """Endless batches as pretrain.py takes them."""
    triples = build_triples(loaded.run, loaded.run.model_config(), loaded.processor, augmented=True)
    count = len(list_clips(str(loaded.clips), loaded.config, "train"))
    rows = open_clips(str(loaded.clips), loaded.config, "train")
    return iter(training_batches(triples, SeededBatches(rows, count, arguments.batch_size, seed=0), workers))


def worker_rates(loaded: LoadedSet, arguments: LoaderArguments, workers: int) -> dict[int, float]:
    """Clips a second with one worker and with several, once all have begun; the best of the rounds."""
    rates = {1: 0.0, workers: 0.0}
    for _ in range(min(arguments.rounds, WORKER_ROUNDS)):
        for number in rates:
            batches = batches_of(loaded, arguments, number)
            take(batches, 2 * number + 1)
            began_s = time.perf_counter()
            take(batches, arguments.batches * number)
            clips = arguments.batches * number * arguments.batch_size
            rates[number] = max(rates[number], clips / (time.perf_counter() - began_s))
            del batches  # ends its workers, before others begin
    return rates


def bare_clips(loaded: LoadedSet) -> Iterator[object]:
    """Endless clips: 14 frames and the log-mel, straight from the shards."""
    num_frames = loaded.run.model_config().num_frames
    for path in cycle(sorted((loaded.clips / "data" / loaded.config).glob("train-*.parquet"))):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group).to_pylist():
                stride = len(row[FRAMES]) / num_frames
                frames = decode_frames([row[FRAMES][int(number * stride)] for number in range(num_frames)])
                yield frames, log_mel(loaded.processor, decode_audio(row[AUDIO]))


def clips_of_video_files(loaded: LoadedSet, arguments: LoaderArguments) -> Iterator[object]:
    """Endless clips: the same ones, from the recordings themselves."""
    files = recording_of_scan(loaded.recordings, loaded.clips, loaded.config)
    keys = list_clips(str(loaded.clips), loaded.config, "train")
    num_frames = loaded.run.model_config().num_frames
    for key in cycle(keys):
        video = files[key.scan_id].video
        waveform = span_of_sound(video, key, arguments.clip_seconds)
        yield span_of_frames(video, key, arguments, num_frames), log_mel(loaded.processor, waveform)


def span_of_frames(video: Path, key: ClipKey, arguments: LoaderArguments, num_frames: int) -> torch.Tensor:
    """So many frames of the clip, at the size that clips are stored in."""
    frames = []
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        container.seek(int(key.start_s / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time >= key.start_s + arguments.clip_seconds:
                break
            if frame.time >= key.start_s:
                frames.append(frame.to_ndarray(format="gray"))
    chosen = np.stack(frames)[np.linspace(0, len(frames) - 1, num_frames).astype(int)]
    size = [arguments.image_size, arguments.image_size]
    return interpolate(torch.from_numpy(chosen)[:, None].float(), size, mode="bilinear", antialias=True)


def span_of_sound(video: Path, key: ClipKey, clip_seconds: float) -> np.ndarray:
    """float32 (samples,) of the clip at 32 kHz."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLING_RATE_HZ)
    parts = []
    with av.open(str(video)) as container:
        stream = container.streams.audio[0]
        container.seek(int(key.start_s / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time >= key.start_s + clip_seconds:
                break
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(parts)[: int(clip_seconds * SAMPLING_RATE_HZ)]


def take(items: Iterator[object], count: int) -> None:
    """Asks for so many and drops them."""
    for _ in islice(items, count):
        pass
