"""Models and batches as small as they get, for every test that needs one."""

from typing import Any

import torch

from modeling_dualrep import DualRepConfig, DualRepModel

FRAMES = 3
SIZE = 8
MEL_BINS = 8
SPECTROGRAM_FRAMES = 8


def tiny_config(**fields: Any) -> DualRepConfig:
    """All three towers of two stages of a few channels; `fields` as DualRepConfig takes them."""
    towers = {
        "video_config": {
            "hidden_sizes": [4, 6],
            "depths": [1, 1],
            "stem_hidden_size": 3,
            "image_size": SIZE,
            "num_frames": FRAMES,
        },
        "audio_config": {
            "hidden_sizes": [4, 6],
            "num_mel_bins": MEL_BINS,
            "block_dropout": 0.0,
            "embedding_dropout": 0.0,
        },
        "image_config": {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "image_size": SIZE},
    }
    return DualRepConfig(**{**towers, "projection_dim": 6, **fields})


def tiny_model(training: bool = False, **fields: Any) -> DualRepModel:
    """The same weights at every call; `fields` as DualRepConfig takes them."""
    torch.manual_seed(0)
    return DualRepModel(tiny_config(**fields)).train(training)


def tiny_batch(
    batch: int, mask: list[bool] | None = None, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Random inputs of all three towers, with `audio_mask` where one is given."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = {
        "pixel_values_videos": draw(FRAMES, 3, SIZE, SIZE),
        "input_features": draw(SPECTROGRAM_FRAMES, MEL_BINS),
        "pixel_values": draw(3, SIZE, SIZE),
    }
    return inputs if mask is None else inputs | {"audio_mask": torch.tensor(mask)}
