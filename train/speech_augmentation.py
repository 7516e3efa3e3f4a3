"""Varies the log-mel of a clip, so that a model learns what is said and not how a recording sounds."""

import random

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from train.arguments import SpeechAugmentationArguments

# The widest mask: eight of 64 bins, 0.6 s of the 10 ms frames.
MASKED_BINS, MASKED_FRAMES = 8, 60


def vary_log_mel(features: Tensor, arguments: SpeechAugmentationArguments, draw: random.Random) -> Tensor:
    """The log-mel of the same words by another voice in another room, with parts left out.

    Args:
        features: float32 (time, mel) in dB.
        arguments: how much of what.
        draw: where the choices come from; none are made of what is off.

    Returns:
        float32 (another time, mel), never the tensor that came in unless all is off.
    """
    if arguments.stretch:
        features = stretch_time(features, (1 + arguments.stretch) ** draw.uniform(-1, 1))
    if arguments.shift_bins:
        features = shift_pitch(features, draw.randint(-arguments.shift_bins, arguments.shift_bins))
    if arguments.gain_db:
        features = features + draw.uniform(-arguments.gain_db, arguments.gain_db)
    if arguments.masks:
        features = features.clone()
        mean = features.mean()
    for _ in range(arguments.masks):
        features[_span(features.shape[0], MASKED_FRAMES, draw)] = mean
        features[:, _span(features.shape[1], MASKED_BINS, draw)] = mean
    return features


def stretch_time(features: Tensor, factor: float) -> Tensor:
    """Slower speech (above 1) or quicker, the pitch unchanged; features are (time, mel)."""
    frames = max(1, round(len(features) * factor))
    return interpolate(features.T[None], size=frames, mode="linear")[0].T


def shift_pitch(features: Tensor, bins: int) -> Tensor:
    """Everything so many mel bins lower (above 0) or higher; what comes in at the edge repeats it."""
    mel = features.shape[1]
    return features[:, (torch.arange(mel) + bins).clamp(0, mel - 1)]


def _span(length: int, widest: int, draw: random.Random) -> slice:
    width = draw.randint(0, min(widest, length // 4))
    start = draw.randint(0, length - width)
    return slice(start, start + width)
