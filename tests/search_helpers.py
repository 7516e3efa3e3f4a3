"""Small models that search, and small indices, for the tests of the search by speech."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from clips_helpers import TINY_MODEL, tiny_processor
from torch import Tensor

from datasets_scripts.clips import ClipParameters
from modeling_dualrep import DualRepConfig, DualRepModel
from train.nearest import Block
from train.search_index import IndexedRecording, IndexSettings, Moment, index_schema, index_table, write_index

RECIPE = "dataset_config: large\nclips:\n  clip_seconds: 2.0\n  frame_size: 16\n"
CLIPS = ClipParameters(
    clip_seconds=2.0, stride_seconds=1.0, frames_per_clip=28, minimum_speech_fraction=0.1, frame_size=16
)


def write_model(folder: Path, seed: int = 0, **fields: Any) -> Path:
    torch.manual_seed(seed)
    model = DualRepModel(DualRepConfig(**{**TINY_MODEL, **fields}))
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


SETTINGS = IndexSettings("folder", "0" * 64, 4, {"clip_seconds": 6.0})


def drawn(rows: int, features: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))


def blocks_of(embeds: Tensor, block_rows: int) -> Iterator[Block]:
    return zip(torch.arange(len(embeds)).split(block_rows), embeds.split(block_rows), strict=True)


def moments_of(name: str, clips: int) -> list[Moment]:
    return [
        Moment(name, 3.0 * clip, 3.0 * clip + 6, clip / 8, "femur" if clip % 2 else None)
        for clip in range(clips)
    ]


def write_recordings(path: Path, counts: dict[str, int], size: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """An index of recordings of so many clips, every third without speech; returns what it holds."""
    tables, parts = [], []
    for seed, (name, clips) in enumerate(counts.items()):
        video, speech = drawn(clips, size, seed), drawn(clips, size, seed + 100)
        has_speech = torch.arange(clips) % 3 != 2
        table = index_schema(size).empty_table()
        if clips:
            table = index_table(moments_of(name, clips), video, speech, has_speech)
        tables.append((IndexedRecording(name, f"print of {name}", clips), table))
        parts.append((video, speech, has_speech))
    write_index(path, IndexSettings("folder", "0" * 64, size, {"clip_seconds": 6.0}), tables)
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
