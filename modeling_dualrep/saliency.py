"""Saliency: the decoder from feature maps to a map of where people look, and the losses of such maps.

The decoder is a feature pyramid (Lin et al., 2017) over the image tower; its optional centre bias is a learnt
Gaussian, in the manner of DeepGaze (Kümmerer et al., 2015). The losses follow Cornia et al. (2018).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, log_softmax, relu

# Share of the picture's height and width that the centre bias has as its first standard deviation.
CENTER_SIGMA = 0.25
SUM_TOLERANCE = 1e-3
EPSILON = 1e-12


class SaliencyDecoder(nn.Module):
    """Feature maps at falling resolutions to the logarithm of a probability map.

    Every map is brought to `size` channels and added to the upsampled coarser one; a 3 x 3 and a 1 x 1
    convolution make one map of the finest, which is resized and normalised over its pixels.

    Args:
        in_channels: of the feature maps, finest first.
        size: channels of the decoder.
        center_bias: add a learnt Gaussian around the middle.
    """

    def __init__(self, in_channels: Sequence[int], size: int, center_bias: bool) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, size, kernel_size=1) for channels in in_channels)
        self.mix = nn.Conv2d(size, size, kernel_size=3, padding=1)
        self.to_map = nn.Conv2d(size, 1, kernel_size=1)
        self.center_bias = CenterBias() if center_bias else None

    def forward(self, feature_maps: Sequence[Tensor], height: int, width: int) -> Tensor:
        """(batch, height, width), whose exponentials are above 0 and sum to 1 a picture."""
        merged = self.laterals[-1](feature_maps[-1])
        for lateral, finer in zip(reversed(self.laterals[:-1]), reversed(feature_maps[:-1]), strict=True):
            merged = lateral(finer) + _resize(merged, finer.shape[-2:])
        logits = _resize(self.to_map(relu(self.mix(relu(merged)))), (height, width))[:, 0].float()
        if self.center_bias is not None:
            logits = logits + self.center_bias(height, width)
        return log_softmax(logits.flatten(1), dim=1).unflatten(1, (height, width))


class CenterBias(nn.Module):
    """The logarithm of a Gaussian over the picture, up to a constant; its place and widths are learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.empty(2))
        self.log_sigma = nn.Parameter(torch.empty(2))

    def forward(self, height: int, width: int) -> Tensor:
        """(height, width) of -((y - y0) / s_y)^2 / 2 - ((x - x0) / s_x)^2 / 2, in shares of the picture."""
        like = self.center
        rows = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        columns = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        sigma = self.log_sigma.exp()
        from_row = ((rows - self.center[0]) / sigma[0]).square()
        from_column = ((columns - self.center[1]) / sigma[1]).square()
        return -(from_row[:, None] + from_column[None, :]) / 2


def kl_divergence_loss(log_saliency_maps: Tensor, targets: Tensor) -> Tensor:
    """KLD(target || prediction) = sum over pixels of t (log t - log p), mean over the batch.

    Args:
        log_saliency_maps: (batch, height, width), logarithms of maps that sum to 1.
        targets: (batch, height, width), non-negative, sum 1; pixels of 0 add nothing.
    """
    return (torch.xlogy(targets, targets) - targets * log_saliency_maps).sum(dim=(1, 2)).mean()


def correlation_loss(saliency_maps: Tensor, targets: Tensor) -> Tensor:
    """Minus Pearson's correlation of the pixels of two maps (batch, height, width), mean over the batch."""
    prediction, target = (_centred(maps.flatten(1)) for maps in (saliency_maps, targets))
    norms = prediction.norm(dim=1) * target.norm(dim=1)
    return -((prediction * target).sum(dim=1) / norms.clamp(min=EPSILON)).mean()


def scanpath_loss(saliency_maps: Tensor, fixation_counts: Tensor) -> Tensor:
    """Minus the normalised scanpath saliency: the standardised map at the fixations, mean over the batch.

    Args:
        saliency_maps: (batch, height, width).
        fixation_counts: (batch, height, width), at least one fixation each.
    """
    prediction, counts = _centred(saliency_maps.flatten(1)), fixation_counts.flatten(1)
    deviation = prediction.square().sum(dim=1, keepdim=True) / (prediction.shape[1] - 1)
    standardised = prediction / deviation.sqrt().clamp(min=EPSILON)
    return -((standardised * counts).sum(dim=1) / counts.sum(dim=1)).mean()


def check_target_maps(labels: Tensor, shape: Sequence[int]) -> None:
    """Raises ValueError unless `labels` are probability maps of this shape (batch, height, width)."""
    _check_map_shape("labels", labels, shape)
    if not torch.isfinite(labels).all() or (labels < 0).any():
        raise ValueError("labels hold NaN, infinite or negative values, but must be probability maps.")
    sums = labels.sum(dim=(1, 2))
    wrong = (sums - 1).abs() > SUM_TOLERANCE
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels must sum to 1 over each picture, but map {first} of the batch sums to "
            f"{sums[first].item():g}. Divide a map by its sum; leave a picture without fixations out."
        )


def check_fixation_counts(fixation_counts: Tensor | None, shape: Sequence[int]) -> None:
    """Raises ValueError unless every picture of the batch has a fixation."""
    if fixation_counts is None:
        raise ValueError('saliency_loss="kld_cc_nss" needs fixation_counts beside the labels.')
    _check_map_shape("fixation_counts", fixation_counts, shape)
    if not (fixation_counts.sum(dim=(1, 2)) > 0).all() or (fixation_counts < 0).any():
        raise ValueError("fixation_counts must be numbers of fixations, at least one a picture.")


def _check_map_shape(argument: str, maps: Tensor, shape: Sequence[int]) -> None:
    if tuple(maps.shape) != tuple(shape):
        raise ValueError(
            f"{argument} has shape {tuple(maps.shape)}, but the saliency maps have {tuple(shape)} "
            "(batch, height, width)."
        )


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=1, keepdim=True)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
