"""Saliency: the decoder and its centre bias against their definitions, the losses against loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_dualrep.saliency import (
    CenterBias,
    SaliencyDecoder,
    correlation_coefficient,
    kl_divergence,
    normalized_scanpath_saliency,
    saliency_loss,
)

CHANNELS = [2, 3, 4, 5]


def probability_maps(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random maps in double precision, each of sum 1."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(batch, height, width, generator=generator, dtype=torch.float64) + 0.01
    return maps / maps.sum(dim=(1, 2), keepdim=True)


def feature_maps(height: int, width: int, batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    """Random feature maps as the image tower gives them for a picture of this size: at strides 4 to 32."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            batch, channels, math.ceil(height / stride), math.ceil(width / stride), generator=generator
        )
        for channels, stride in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]


def centre_of_mass(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean row and column of each map, as shares of the height and the width."""
    rows, columns = ((torch.arange(size) + 0.5) / size for size in maps.shape[1:])
    return (maps.sum(dim=2) * rows).sum(dim=1), (maps.sum(dim=1) * columns).sum(dim=1)


def kl_divergence_in_a_loop(prediction: np.ndarray, label: np.ndarray) -> float:
    return sum(q * math.log(q / p) for p, q in zip(prediction.flat, label.flat, strict=True) if q > 0)


def correlation_in_a_loop(prediction: np.ndarray, label: np.ndarray) -> float:
    pairs = list(zip(prediction.flat, label.flat, strict=True))
    mean_p, mean_q = prediction.mean(), label.mean()
    together = sum((p - mean_p) * (q - mean_q) for p, q in pairs)
    alone_p, alone_q = sum((p - mean_p) ** 2 for p, _ in pairs), sum((q - mean_q) ** 2 for _, q in pairs)
    return together / math.sqrt(alone_p * alone_q)


def scanpath_in_a_loop(prediction: np.ndarray, counts: np.ndarray) -> float:
    standardised = (prediction - prediction.mean()) / prediction.std(ddof=1)
    values = []
    for value, count in zip(standardised.flat, counts.flat, strict=True):
        values += [value] * int(count)
    return sum(values) / len(values)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(2, 6), seed=st.integers(0, 1000))
def test_the_losses_agree_with_loops_over_the_pixels(height: int, width: int, seed: int) -> None:
    maps, labels = probability_maps(3, height, width, seed), probability_maps(3, height, width, seed + 1)
    labels[:, 0, 0] = 0
    labels /= labels.sum(dim=(1, 2), keepdim=True)
    counts = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, maps.shape))
    counts[:, -1, -1] += 1
    expected = np.array(
        [
            (kl_divergence_in_a_loop(p, q), correlation_in_a_loop(p, q), scanpath_in_a_loop(p, n))
            for p, q, n in zip(maps.numpy(), labels.numpy(), counts.numpy(), strict=True)
        ]
    )
    losses = (
        kl_divergence(maps.log(), labels),
        correlation_coefficient(maps, labels),
        normalized_scanpath_saliency(maps, counts),
    )
    np.testing.assert_allclose(torch.stack(losses, dim=1), expected, rtol=1e-9, atol=1e-11)
    kld, cc, nss = expected.T
    for name, values in (("kld", kld), ("kld_cc_nss", kld - 0.2 * cc - 0.1 * nss)):
        np.testing.assert_allclose(saliency_loss(name, maps.log(), labels, counts), values.mean(), rtol=1e-9)


def test_a_map_that_is_the_label_has_no_divergence_and_full_correlation() -> None:
    maps = probability_maps(2, 5, 4)
    assert kl_divergence(maps.log(), maps) == pytest.approx([0, 0], abs=1e-12)
    assert correlation_coefficient(maps, maps) == pytest.approx([1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_map_has_losses_and_gradients(dtype: torch.dtype) -> None:
    """An untrained decoder may give one. CC and NSS are 0 there, and nothing is NaN."""
    logits = torch.zeros(1, 7, 9, dtype=dtype, requires_grad=True)
    log_maps = logits.flatten(1).log_softmax(dim=1).view_as(logits)
    labels, counts = probability_maps(1, 7, 9).to(dtype), torch.ones(1, 7, 9)
    assert correlation_coefficient(log_maps.exp(), labels).item() == pytest.approx(0, abs=0.01)
    assert normalized_scanpath_saliency(log_maps.exp(), counts).item() == pytest.approx(0, abs=0.01)
    loss = saliency_loss("kld_cc_nss", log_maps, labels, counts)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_a_pixel_without_probability_left_has_a_loss() -> None:
    """The logarithm is never taken of a probability that has become zero."""
    logits = torch.tensor([[[0.0, -500.0]]], requires_grad=True)
    log_maps = logits.flatten(1).log_softmax(dim=1).view_as(logits)
    assert log_maps.exp()[0, 0, 1] == 0
    loss = saliency_loss("kld", log_maps, torch.tensor([[[0.5, 0.5]]]), None)
    loss.backward()
    assert loss.item() == pytest.approx(250 - math.log(2)) and logits.grad.isfinite().all()


def test_labels_of_another_type_are_taken() -> None:
    maps, labels, counts = probability_maps(2, 5, 4), probability_maps(2, 5, 4, seed=1), torch.ones(2, 5, 4)
    expected = saliency_loss("kld_cc_nss", maps.log(), labels, counts)
    of_single = saliency_loss("kld_cc_nss", maps.log().float(), labels, counts.long())
    assert of_single.dtype == torch.float32
    assert of_single.item() == pytest.approx(expected.item(), rel=1e-5)


def changed(maps: torch.Tensor, row: int, value: float) -> torch.Tensor:
    maps = maps.clone()
    maps[row, 0, 0] = value
    return maps


LABELS, COUNTS = probability_maps(3, 4, 5), torch.ones(3, 4, 5)


@pytest.mark.parametrize(
    ("labels", "counts", "message"),
    [
        (LABELS[:, :3], COUNTS, r"labels has shape \(3, 3, 5\), but must be .* which is \(3, 4, 5\)"),
        (LABELS[:2], COUNTS, r"labels has shape \(2, 4, 5\)"),
        (LABELS[:, None], COUNTS, r"labels has shape \(3, 1, 4, 5\)"),
        (changed(LABELS, 1, float("nan")), COUNTS, "labels must be finite and not negative"),
        (changed(LABELS, 1, float("inf")), COUNTS, "labels must be finite and not negative"),
        (changed(LABELS, 1, -1e-6), COUNTS, "labels must be finite and not negative"),
        (LABELS * torch.tensor([1, 0, 1])[:, None, None], COUNTS, "map 1 of the batch sums to 0: divide"),
        (LABELS * torch.tensor([1, 1, 0.99])[:, None, None], COUNTS, "map 2 of the batch sums to 0.99"),
        (LABELS * torch.tensor([255, 1, 1])[:, None, None], COUNTS, "map 0 of the batch sums to 255"),
        (LABELS, None, "needs fixation_counts beside the labels"),
        (LABELS, COUNTS[:, :, :4], r"fixation_counts has shape \(3, 4, 4\)"),
        (LABELS, changed(COUNTS, 0, float("nan")), "fixation_counts must be finite and not negative"),
        (LABELS, changed(COUNTS, 0, float("inf")), "fixation_counts must be finite and not negative"),
        (LABELS, changed(COUNTS, 0, -1), "fixation_counts must be finite and not negative"),
        (LABELS, COUNTS * torch.tensor([1, 1, 0])[:, None, None], "map 2 of the batch has none"),
    ],
)
def test_maps_that_give_no_loss_are_refused(
    labels: torch.Tensor, counts: torch.Tensor | None, message: str
) -> None:
    log_maps = probability_maps(3, 4, 5, seed=2).log()
    with pytest.raises(ValueError, match=message):
        saliency_loss("kld_cc_nss", log_maps, labels, counts)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 75), width=st.integers(1, 75), center_bias=st.booleans())
def test_the_decoder_gives_probabilities_at_any_size(height: int, width: int, center_bias: bool) -> None:
    decoder = SaliencyDecoder(CHANNELS, 6, center_bias)
    log_maps = decoder(feature_maps(height, width), height, width)
    assert log_maps.shape == (2, height, width) and log_maps.isfinite().all()
    torch.testing.assert_close(log_maps.exp().sum(dim=(1, 2)), torch.ones(2))


def test_a_picture_is_decoded_by_itself() -> None:
    decoder, maps = SaliencyDecoder(CHANNELS, 6, True), feature_maps(40, 50)
    together = decoder(maps, 40, 50)
    alone = decoder([of_all[1:] for of_all in maps], 40, 50)
    torch.testing.assert_close(alone, together[1:])


def test_every_weight_of_the_decoder_learns() -> None:
    decoder = SaliencyDecoder(CHANNELS, 6, True)
    decoder(feature_maps(64, 64), 64, 64)[:, 10, 20].sum().backward()
    for name, parameter in decoder.named_parameters():
        # The softmax takes out what is added to all pixels alike.
        assert (parameter.grad.abs().max() > 1e-6) == (name != "to_map.bias"), name


def relay(gains: list[float]) -> SaliencyDecoder:
    """A decoder of one channel that passes each feature map on, times its gain."""
    decoder = SaliencyDecoder([1] * len(gains), 1, False)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        for lateral, gain in zip(decoder.laterals, gains, strict=True):
            lateral.weight.fill_(gain)
        decoder.mix.weight[0, 0, 1, 1] = 1
        decoder.to_map.weight.fill_(1)
    return decoder


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_a_feature_map_shows_stays_in_its_place(level: int) -> None:
    """On every level, in a picture that is not square."""
    height, width = 64, 96
    maps = [torch.zeros(1, 1, height // stride, width // stride) for stride in (4, 8, 16)]
    rows, columns = maps[level].shape[2:]
    row, column = rows // 4, columns * 2 // 3
    maps[level][0, 0, row, column] = 30
    log_maps = relay([1.0, 1.0, 1.0])(maps, height, width)
    mean_row, mean_column = centre_of_mass(log_maps.exp())
    assert mean_row.item() == pytest.approx((row + 0.5) / rows, abs=0.01)
    assert mean_column.item() == pytest.approx((column + 0.5) / columns, abs=0.01)


def test_the_levels_are_added() -> None:
    """Of constants, each times its gain, 2 * 3 + 1 * 5 is left before the softmax takes it out."""
    decoder = relay([2.0, 1.0])
    seen = []
    decoder.to_map.register_forward_hook(lambda module, inputs, output: seen.append(output))
    decoder([torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 2, 2), 5.0)], 16, 16)
    torch.testing.assert_close(seen[0], torch.full((1, 1, 4, 4), 11.0))


@pytest.mark.parametrize("center_bias", [False, True])
@pytest.mark.parametrize(("dtype", "wanted"), [(torch.bfloat16, torch.float32), (torch.float64,) * 2])
def test_maps_have_at_least_single_precision(
    dtype: torch.dtype, wanted: torch.dtype, center_bias: bool
) -> None:
    decoder = SaliencyDecoder(CHANNELS, 6, center_bias).to(dtype)
    log_maps = decoder([of_level.to(dtype) for of_level in feature_maps(200, 200)], 200, 200)
    assert log_maps.dtype == wanted
    torch.testing.assert_close(log_maps.exp().sum(dim=(1, 2)), torch.ones(2, dtype=wanted))


def test_the_centre_bias_is_a_gaussian() -> None:
    bias = CenterBias()
    with torch.no_grad():
        bias.center.copy_(torch.tensor([0.3, 0.6]))
        bias.log_sigma.copy_(torch.tensor([0.1, 0.2]).log())
    values = bias(4, 5)
    for row in range(4):
        for column in range(5):
            y, x = (row + 0.5) / 4, (column + 0.5) / 5
            expected = -(((y - 0.3) / 0.1) ** 2 + ((x - 0.6) / 0.2) ** 2) / 2
            assert values[row, column].item() == pytest.approx(expected, rel=1e-5)


def test_an_untrained_centre_bias_is_a_quarter_of_the_picture_wide() -> None:
    bias = CenterBias()(100, 200)
    assert bias[49:51, 99:101].min() > -0.001 and bias.argmax() == bias[49, 99:].argmax() + 49 * 200 + 99
    assert bias[24, 100].item() == pytest.approx(-((0.255 / 0.25) ** 2) / 2, abs=1e-3)
    assert bias[50, 49].item() == pytest.approx(-((0.2525 / 0.25) ** 2) / 2, abs=1e-3)


def test_the_centre_bias_is_added_to_the_logits() -> None:
    decoder = SaliencyDecoder(CHANNELS, 6, True)
    maps = feature_maps(32, 48)
    biased = decoder(maps, 32, 48)
    bias, decoder.center_bias = decoder.center_bias(32, 48), None
    expected = (decoder(maps, 32, 48) + bias).flatten(1).log_softmax(dim=1).view(2, 32, 48)
    torch.testing.assert_close(biased, expected)
