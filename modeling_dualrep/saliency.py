"""Saliency: the decoder from feature maps to a map of where people look, and the losses of such maps.

The decoder is a feature pyramid (Lin et al., 2017); its optional centre bias is added to the logits, as in
DeepGaze (Kümmerer et al., 2015).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, log_softmax, relu
from transformers import initialization as init

# First standard deviation of the centre bias, as a share of the picture's height and width.
CENTER_SIGMA = 0.25
# The weights of SAM (Cornia et al., 2018), 10 KLD - 2 CC - NSS, divided by that of KLD.
CC_WEIGHT = 0.2
NSS_WEIGHT = 0.1
# How far the sum of a label may be from 1: single precision over a large picture needs less.
SUM_TOLERANCE = 1e-3
# A map that deviates from its mean by less than this share of its norm is constant up to rounding.
CONSTANT_SHARE = 1e-4


class SaliencyDecoder(nn.Module):
    """Feature maps at falling resolutions to the logarithm of a probability map.

    Every map is brought to `size` channels and added to the upsampled coarser ones; a 3 x 3 and a 1 x 1
    convolution make one map of the finest, which is resized to the picture and normalised over its pixels.

    Args:
        in_channels: of the feature maps, finest first.
        size: channels of the decoder.
        center_bias: add a learnt Gaussian to the logits.
    """

    def __init__(self, in_channels: Sequence[int], size: int, center_bias: bool) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, size, kernel_size=1) for channels in in_channels)
        self.mix = nn.Conv2d(size, size, kernel_size=3, padding=1)
        self.to_map = nn.Conv2d(size, 1, kernel_size=1)
        self.center_bias = CenterBias() if center_bias else None

    def forward(self, feature_maps: Sequence[Tensor], height: int, width: int) -> Tensor:
        """(batch, height, width), at least in single precision; the exponentials sum to 1 over a picture."""
        merged = self.laterals[-1](feature_maps[-1])
        for lateral, finer in zip(reversed(self.laterals[:-1]), reversed(feature_maps[:-1]), strict=True):
            merged = lateral(finer) + _resize(merged, *finer.shape[-2:])
        logits = _precise(self.to_map(relu(self.mix(relu(merged)))))
        logits = _resize(logits, height, width)[:, 0]
        if self.center_bias is not None:
            logits = logits + self.center_bias(height, width)
        return log_softmax(logits.flatten(1), dim=1).unflatten(1, (height, width))


class CenterBias(nn.Module):
    """The logarithm of a Gaussian over the picture, up to a constant; its centre and widths are learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.empty(2))
        self.log_sigma = nn.Parameter(torch.empty(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The middle of the picture, `CENTER_SIGMA` wide."""
        init.constant_(self.center, 0.5)
        init.constant_(self.log_sigma, math.log(CENTER_SIGMA))

    def forward(self, height: int, width: int) -> Tensor:
        """(height, width) of -(((y - y0) / s_y)^2 + ((x - x0) / s_x)^2) / 2, in shares of the picture."""
        center, sigma = _precise(self.center), _precise(self.log_sigma).exp()
        rows, columns = (
            (torch.arange(pixels, device=center.device, dtype=center.dtype) + 0.5) / pixels
            for pixels in (height, width)
        )
        from_row = ((rows - center[0]) / sigma[0]).square()
        from_column = ((columns - center[1]) / sigma[1]).square()
        return -(from_row[:, None] + from_column[None, :]) / 2


def saliency_loss(
    name: str, log_saliency_maps: Tensor, labels: Tensor, fixation_counts: Tensor | None
) -> Tensor:
    """The loss of `DualRepForSaliencyPrediction`, a scalar.

    Args:
        name: "kld" for KLD(label || prediction), or "kld_cc_nss" for KLD - 0.2 CC - 0.1 NSS.
        log_saliency_maps: (batch, height, width), logarithms of maps that sum to 1.
        labels: (batch, height, width), maps that sum to 1.
        fixation_counts: (batch, height, width), fixations in each pixel, for the second alone.

    Raises:
        ValueError: labels or counts that are no such maps.
    """
    labels = labels.to(log_saliency_maps)
    check_labels(labels, log_saliency_maps.shape)
    loss = kl_divergence(log_saliency_maps, labels)
    if name == "kld":
        return loss.mean()
    if fixation_counts is None:
        raise ValueError('saliency_loss="kld_cc_nss" needs fixation_counts beside the labels.')
    fixation_counts = fixation_counts.to(log_saliency_maps)
    check_fixation_counts(fixation_counts, log_saliency_maps.shape)
    saliency_maps = log_saliency_maps.exp()
    correlation = correlation_coefficient(saliency_maps, labels)
    scanpath = normalized_scanpath_saliency(saliency_maps, fixation_counts)
    return (loss - CC_WEIGHT * correlation - NSS_WEIGHT * scanpath).mean()


def kl_divergence(log_saliency_maps: Tensor, labels: Tensor) -> Tensor:
    """(batch,) of KLD(label || prediction) = sum of q (log q - log p) over the pixels, 0 where q is 0.

    Args:
        log_saliency_maps: log p, (batch, height, width).
        labels: q, (batch, height, width).
    """
    return (torch.xlogy(labels, labels) - labels * log_saliency_maps).sum(dim=(1, 2))


def correlation_coefficient(saliency_maps: Tensor, labels: Tensor) -> Tensor:
    """(batch,) of Pearson's correlation between the pixels of maps (batch, height, width).

    It is 0 where one of the two maps is constant.
    """
    return (_unit_deviations(saliency_maps) * _unit_deviations(labels)).sum(dim=1)


def normalized_scanpath_saliency(saliency_maps: Tensor, fixation_counts: Tensor) -> Tensor:
    """(batch,) of the mean over fixations of (p - mean(p)) / std(p); the deviation is that of a sample.

    It is 0 for a constant map.

    Args:
        saliency_maps: p, (batch, height, width).
        fixation_counts: (batch, height, width), fixations in each pixel.
    """
    counts = fixation_counts.flatten(1)
    deviations = _unit_deviations(saliency_maps) * (counts.shape[1] - 1) ** 0.5
    return (deviations * counts).sum(dim=1) / counts.sum(dim=1)


def check_labels(labels: Tensor, shape: Sequence[int]) -> None:
    """Raises ValueError unless `labels` are probability maps of this shape (batch, height, width)."""
    _check_maps("labels", labels, shape)
    sums = labels.sum(dim=(1, 2))
    off = (sums - 1).abs() > SUM_TOLERANCE
    if off.any():
        first = int(off.nonzero()[0])
        raise ValueError(
            f"labels must sum to 1 over each picture, but map {first} of the batch sums to "
            f"{sums[first].item():g}: divide each map by its sum, and leave out pictures without fixations."
        )


def check_fixation_counts(fixation_counts: Tensor, shape: Sequence[int]) -> None:
    """Raises ValueError unless the (batch, height, width) counts have this shape, and each map a fixation."""
    _check_maps("fixation_counts", fixation_counts, shape)
    without = fixation_counts.sum(dim=(1, 2)) == 0
    if without.any():
        first = int(without.nonzero()[0])
        raise ValueError(
            f"fixation_counts must have a fixation in each picture, but map {first} of the batch has none: "
            "leave out pictures without fixations."
        )


def _check_maps(argument: str, maps: Tensor, shape: Sequence[int]) -> None:
    if maps.shape != shape:
        raise ValueError(
            f"{argument} has shape {tuple(maps.shape)}, but must be (batch, height, width) of the frames, "
            f"which is {tuple(shape)}."
        )
    # One comparison, so that a device is waited for once; NaN is in no range.
    if not ((maps >= 0) & (maps < torch.inf)).all():
        raise ValueError(
            f"{argument} must be finite and not negative, but holds NaN, infinite or negative values."
        )


def _unit_deviations(maps: Tensor) -> Tensor:
    """(batch, pixels) of deviations from a map's mean, of norm 1; of about 0 for a constant map."""
    rows = maps.flatten(1)
    deviations = rows - rows.mean(dim=1, keepdim=True)
    floor = CONSTANT_SHARE * rows.norm(dim=1, keepdim=True)
    return deviations / deviations.norm(dim=1, keepdim=True).maximum(floor)


def _precise(tensor: Tensor) -> Tensor:
    """At least single precision, in which the probability of one pixel is not lost."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _resize(maps: Tensor, height: int, width: int) -> Tensor:
    return interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
