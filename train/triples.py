"""Streams (video, speech, frame) triples from the clips that `prepare_clips` wrote.

The main process reads undecoded rows in a seeded order and hands each to a worker that decodes it. So the
order does not depend on the number of workers, and a run takes up at any step by skipping rows that were
never decoded.
"""

import hashlib
import io
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import soundfile
import torch
from datasets import IterableDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_image
from transformers import BatchFeature, ProcessorMixin

from datasets_scripts.schema import (
    AUDIO,
    CLIP_ID,
    FRAMES,
    SAMPLING_RATE_HZ,
    SCAN_ID,
    SOUND_COLUMNS,
    SPEECH_FRACTION,
    START_S,
    clips_features,
)
from modeling_dualrep import DualRepConfig
from train.arguments import AugmentationArguments, SpeechAugmentationArguments
from train.augmentation import augment_frames
from train.clip_order import ClipsError, SeededBatches
from train.pixels import PixelStatistics
from train.stored_rows import Row, StoredRowsError, open_rows
from train.stored_sound import Spectrograms, StoredSound


@dataclass(frozen=True)
class ClipKey:
    """Which clip a row is: enough to choose a gallery and to find its plane, without its pictures."""

    clip_id: str
    scan_id: str
    start_s: float


def open_clips(
    dataset: str, config: str, split: str, columns: Sequence[str] | None = None
) -> IterableDataset:
    """One split's rows as a stream, images and sound left encoded.

    Args:
        dataset: folder that `prepare_clips` or `prepare_clips_without_waveform` wrote, its URL, or id of a
            dataset on the Hub.
        config: medium, large, or any other clip length the dataset holds.
        split: train or validation.
        columns: read these alone; None reads all.

    Raises:
        StoredRowsError: no such dataset, configuration, split or column, with what there is.
    """
    if columns is not None:
        return open_rows(dataset, config, split, columns, select=True)
    rows = open_rows(dataset, config, split, [name for name in clips_features() if name != AUDIO])
    if not set(SOUND_COLUMNS) & set(rows.features):
        raise StoredRowsError(
            f"The rows of {config!r} in {dataset!r} have no column {', '.join(SOUND_COLUMNS[:-1])} or "
            f"{SOUND_COLUMNS[-1]}: write them with `python -m datasets_scripts.prepare_clips`, or with "
            "train.prepare_clips_without_waveform."
        )
    return rows


def list_clips(dataset: str, config: str, split: str) -> list[ClipKey]:
    """The keys of all clips of a split, in the order they are stored; pictures and sound are not read."""
    rows = open_clips(dataset, config, split, columns=(CLIP_ID, SCAN_ID, START_S))
    return [ClipKey(row[CLIP_ID], row[SCAN_ID], row[START_S]) for row in rows]


def draw_clips(keys: Sequence[ClipKey], clips: int | None, seed: int) -> list[ClipKey]:
    """So many of the clips, or all where there are not more, in their order; None takes all."""
    if clips is None or clips >= len(keys):
        return list(keys)
    drawn = random.Random(seed).sample(range(len(keys)), clips)
    return [keys[index] for index in sorted(drawn)]


def only_clips(rows: IterableDataset, keys: Sequence[ClipKey]) -> IterableDataset:
    """The rows of these clips alone, in as many shards."""
    wanted = {key.clip_id for key in keys}
    return rows.filter(wanted.__contains__, input_columns=CLIP_ID)


def choose_gallery(keys: Sequence[ClipKey], clips: int, clips_per_scan: int = 5) -> list[ClipKey]:
    """Clips to search among: from as many scans as give at least `clips_per_scan` each, evenly spaced in
    each.

    A gallery of one clip a scan would be solved by telling scans apart; several a scan ask for what is shown.
    Scans that have fewer clips are taken last.
    """
    scans: dict[str, list[ClipKey]] = {}
    for key in sorted(keys, key=lambda key: (key.scan_id, key.start_s)):
        scans.setdefault(key.scan_id, []).append(key)
    chosen: list[ClipKey] = []
    for has_enough in (True, False):
        group = [of_scan for of_scan in scans.values() if (len(of_scan) >= clips_per_scan) is has_enough]
        counts = _share_out(clips - len(chosen), [len(of_scan) for of_scan in group], clips_per_scan)
        for of_scan, count in zip(group, counts, strict=True):
            chosen += [of_scan[int((i + 0.5) * len(of_scan) / count)] for i in range(count)]
    return chosen


def _share_out(total: int, capacities: Sequence[int], first_share: int) -> list[int]:
    """How many to take of each: `first_share` of each in turn, then more of each in rounds, up to `total`."""
    counts = [0] * len(capacities)
    share = first_share
    while sum(counts) < min(total, sum(capacities)):
        for index, capacity in enumerate(capacities):
            room = total - sum(counts)
            counts[index] += min(max(0, min(share, capacity) - counts[index]), room)
        share += 1
    return counts


def read_rows(dataset: str, config: str, split: str, clip_ids: Sequence[str]) -> list[Row]:
    """The undecoded rows of these clips, in the order of `clip_ids`."""
    wanted = set(clip_ids)
    found = {row[CLIP_ID]: row for row in open_clips(dataset, config, split) if row[CLIP_ID] in wanted}
    return [found[clip_id] for clip_id in clip_ids]


def pick_frames(stored: int, num_frames: int, draw: random.Random | None = None) -> tuple[list[int], int]:
    """Which of a clip's stored frames are its video, evenly spaced, and which one is the single frame.

    The single frame is none of the video's wherever more than `num_frames` are stored, so that the two cannot
    be matched as equal pictures.

    Args:
        stored: frames of the clip as stored.
        num_frames: frames of the video.
        draw: None takes the same frames every time (evaluation).

    Raises:
        ValueError: fewer frames are stored than a video has.
    """
    if stored < num_frames:
        raise ValueError(f"{stored} frames are stored, fewer than the {num_frames} of a video")
    stride = stored / num_frames
    phase = draw.randrange(int(stride)) if draw else 0
    video = [int(phase + index * stride) for index in range(num_frames)]
    others = [index for index in range(stored) if index not in video] or list(range(stored))
    return video, draw.choice(others) if draw else others[len(others) // 2]


def check_splits(training: Sequence[ClipKey], held_out: Sequence[ClipKey]) -> None:
    """Raises ClipsError where a scan stands on both sides."""
    shared = {key.scan_id for key in training} & {key.scan_id for key in held_out}
    if shared:
        raise ClipsError(
            f"{len(shared)} scans stand in train and in validation, {min(shared)} among them: "
            "cut the clips anew."
        )


class Waveforms(Spectrograms):
    """Waveforms, of which the processor makes the log-mels."""

    column = AUDIO

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor
        self.width = processor.feature_extractor.feature_size

    def read(self, stored: dict[str, Any]) -> Tensor | None:
        """float32 (time, mel) in dB of a clip's FLAC; None for digital silence."""
        return log_mel(self.processor, decode_audio(stored))


class Triples(Dataset):
    """Decodes rows: `triples[epoch, row]` is what the model sees of the clip in that epoch.

    Args:
        processor: DualRepProcessor; its feature extractor makes the log-mel.
        num_frames: frames of the video.
        video_size, image_size: height and width of the video's frames and of the single frame in pixels.
        seed: of the choice of frames and the augmentation.
        augmentation: of the frames; None gives the same triple in every epoch (evaluation).
        speech_augmentation: of the log-mel, where the frames are varied; None leaves it as it is.
        minimum_speech_fraction: a clip with less speech counts as without usable sound.
        use_audio, use_image: False leaves the modality out, for a model without that tower.
        keep_in_memory: keep what was decoded for the next epoch.
        near_duplicate_seconds: clips of one scan that start in the same window of this length are one group,
            whose clips do not count as negatives of each other; None: there are no groups.
        sound: how the rows keep it; None: as waveforms.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        num_frames: int,
        video_size: int,
        image_size: int,
        seed: int,
        augmentation: AugmentationArguments | None = None,
        speech_augmentation: SpeechAugmentationArguments | None = None,
        minimum_speech_fraction: float = 0.0,
        use_audio: bool = True,
        use_image: bool = True,
        keep_in_memory: bool = False,
        near_duplicate_seconds: float | None = None,
        sound: StoredSound | None = None,
    ) -> None:
        self.processor = processor
        self.num_frames = num_frames
        self.video_size = video_size
        self.image_size = image_size
        self.seed = seed
        self.augmentation = augmentation
        self.speech_augmentation = speech_augmentation
        self.minimum_speech_fraction = minimum_speech_fraction
        self.use_audio = use_audio
        self.use_image = use_image
        self.kept_frames: dict[str, Tensor] | None = {} if keep_in_memory else None
        self.kept_sound: dict[str, Tensor | None] | None = {} if keep_in_memory else None
        self.near_duplicate_seconds = near_duplicate_seconds
        self.sound = sound or Waveforms(processor)
        self.statistics = PixelStatistics(
            processor.image_processor.image_mean, processor.image_processor.image_std
        )

    def __getitem__(self, epoch_and_row: tuple[int, Row]) -> dict[str, Any]:
        epoch, row = epoch_and_row
        draw = random.Random(f"{self.seed}/{epoch}/{row[CLIP_ID]}") if self.augmentation else None
        try:
            video_indices, image_index = pick_frames(len(row[FRAMES]), self.num_frames, draw)
            frames = self._frames(row, [*video_indices, image_index])
            video, image = frames[:-1], frames[-1:]
            if draw:
                video = augment_frames(video, self.video_size, self.augmentation, draw)
                image = augment_frames(image, self.image_size, self.augmentation, draw)
            sound = self._sound(row)
            if draw and self.speech_augmentation and sound is not None:
                sound = self.sound.vary(sound, self.speech_augmentation, draw)
        except (ValueError, RuntimeError) as error:
            raise ClipsError(f"Clip {row[CLIP_ID]} cannot be used: {error}. Cut the clips anew.") from error
        triple = {"clip_id": row[CLIP_ID], "video": video, "image": image[0], self.sound.model_input: sound}
        if self.near_duplicate_seconds is not None:
            triple["clip_group"] = clip_group(row[SCAN_ID], row[START_S], self.near_duplicate_seconds)
        return triple

    def _frames(self, row: Row, indices: list[int]) -> Tensor:
        if self.kept_frames is None:
            return decode_frames([row[FRAMES][index] for index in indices])
        if row[CLIP_ID] not in self.kept_frames:
            self.kept_frames[row[CLIP_ID]] = decode_frames(row[FRAMES])
        return self.kept_frames[row[CLIP_ID]][indices]

    def _sound(self, row: Row) -> Tensor | None:
        if self.kept_sound is None:
            return self._read_sound(row)
        if row[CLIP_ID] not in self.kept_sound:
            self.kept_sound[row[CLIP_ID]] = self._read_sound(row)
        return self.kept_sound[row[CLIP_ID]]

    def _read_sound(self, row: Row) -> Tensor | None:
        if not self.use_audio or row[SPEECH_FRACTION] < self.minimum_speech_fraction:
            return None
        stored = row[self.sound.column]
        return None if stored is None else self.sound.read(stored)

    def collate(self, triples: list[dict[str, Any]]) -> tuple[list[str], BatchFeature]:
        """The ids of the clips and a batch: for the model as it is, or, of varied clips, after
        `normalised_batches`.
        """
        batch = self._pixel_values(triples)
        if self.near_duplicate_seconds is not None:
            batch["clip_groups"] = torch.tensor([triple["clip_group"] for triple in triples])
        if self.use_audio:
            sounds = [triple[self.sound.model_input] for triple in triples]
            batch["audio_mask"] = torch.tensor([of_clip is not None for of_clip in sounds])
            batch[self.sound.model_input] = self.sound.batch(sounds)
        return [triple["clip_id"] for triple in triples], batch

    def _pixel_values(self, triples: list[dict[str, Any]]) -> BatchFeature:
        images = [triple["image"] for triple in triples] if self.use_image else None
        videos = [triple["video"] for triple in triples]
        if self.augmentation is None:
            return self.processor(videos=videos, images=images, return_tensors="pt")
        # A random view has the model's size already; it stays in bytes until it is on the device.
        batch = {"pixel_values_videos": stack_views(videos)}
        if images is not None:
            batch["pixel_values"] = stack_views(images)
        return BatchFeature(batch)


def evaluation_triples(
    config: DualRepConfig,
    processor: ProcessorMixin,
    minimum_speech_fraction: float = 0.0,
    use_image: bool = True,
) -> Triples:
    """How clips become inputs of a model that is not trained: the same ones every time.

    Args:
        config: of the model; modalities without a tower are left out.
        processor: of the model.
        minimum_speech_fraction: a clip with less speech counts as without usable sound.
        use_image: False leaves out the single frame.
    """
    return Triples(
        processor,
        config.num_frames,
        config.video_config.image_size,
        config.image_config.image_size,
        seed=0,
        minimum_speech_fraction=minimum_speech_fraction,
        use_audio=config.use_audio,
        use_image=config.use_image and use_image,
    )


def stack_views(views: Sequence[Tensor]) -> Tensor:
    """uint8 (views, [frames,] channels, height, width): 1 channel where all are grey, else 3."""
    if len({view.shape[-3] for view in views}) > 1:
        views = [view.expand(*view.shape[:-3], 3, -1, -1) for view in views]
    return torch.stack(list(views))


def clip_group(scan_id: str, start_s: float, window_seconds: float) -> int:
    """The group of a clip: one number, the same in every process, for a scan and a window of its time.

    Windows lie side by side, so that two clips a little apart may fall into neighbouring ones.
    """
    window = f"{scan_id}/{math.floor(start_s / window_seconds)}"
    return int.from_bytes(hashlib.blake2b(window.encode(), digest_size=8).digest(), "big", signed=True)


def decode_frames(encoded: Sequence[dict[str, Any]]) -> Tensor:
    """uint8 (frames, channels, height, width) of encoded images: 1 channel where all are grey, else 3."""
    buffers = [torch.frombuffer(bytearray(image["bytes"]), dtype=torch.uint8) for image in encoded]
    return stack_views([decode_image(buffer) for buffer in buffers])


def decode_audio(encoded: dict[str, Any]) -> np.ndarray:
    """float32 (samples,) of a clip's FLAC at 32 kHz.

    Raises:
        ValueError: it has another sampling rate.
    """
    waveform, sampling_rate_hz = soundfile.read(io.BytesIO(encoded["bytes"]), dtype="float32")
    if sampling_rate_hz != SAMPLING_RATE_HZ:
        raise ValueError(f"its sound has {sampling_rate_hz} Hz in place of {SAMPLING_RATE_HZ} Hz")
    return waveform if waveform.ndim == 1 else waveform.mean(axis=1)


def log_mel(processor: ProcessorMixin, waveform: np.ndarray) -> Tensor | None:
    """The log-mel spectrogram (time, mel) of a 32 kHz waveform (samples,); None for digital silence."""
    extracted = processor.feature_extractor(waveform, sampling_rate=SAMPLING_RATE_HZ, return_tensors="pt")
    return extracted["input_features"][0] if extracted["audio_mask"][0] else None


def training_batches(
    triples: Triples, order: SeededBatches, workers: int, pin_memory: bool = False
) -> DataLoader:
    """Endless batches of varied clips, decoded by `workers` processes; pixels are still bytes."""
    # A generator of its own: the loader draws a number at its start, which would move the model's random
    # state.
    return DataLoader(
        triples,
        batch_sampler=order,
        collate_fn=triples.collate,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(0),
    )


def normalised_batches(
    batches: Iterable[tuple[list[str], BatchFeature]], statistics: PixelStatistics, device: torch.device
) -> Iterator[tuple[list[str], BatchFeature]]:
    """The batches with their pixels on the device, normalised there: on the way they are a twelfth as large.

    Args:
        batches: of `training_batches`.
        statistics: of the processor.
    """
    normalise = statistics.batch_normaliser(device)
    for clip_ids, batch in batches:
        pixels = {
            name: normalise(batch[name].to(device, non_blocking=True))
            for name in ("pixel_values_videos", "pixel_values")
            if name in batch
        }
        yield clip_ids, BatchFeature({**batch, **pixels})


def gallery_batches(
    triples: Triples, rows: Iterable[Row], batch_size: int
) -> Iterator[tuple[list[str], BatchFeature]]:
    """Batches of these rows, in their order, for evaluation."""
    remaining = iter(rows)
    while batch := [triples[0, row] for row in islice(remaining, batch_size)]:
        yield triples.collate(batch)
