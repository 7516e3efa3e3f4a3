"""Saliency metrics: how well a map of attention agrees with where people looked.

The definitions are those of Bylinskii et al. (2019) and of the code they published, in float64. A map is
(height, width). Fixations are (number, 2): x, y in 0..1, origin top left; a fixation falls on the pixel in
column min(int(x * width), width - 1) and row min(int(y * height), height - 1). As in the binary fixation maps
of that paper, a pixel with several fixations counts once; only the negatives of the shuffled AUC count as
often as they were looked at.

What is wrong is a ValueError: NaN or infinite values; maps of different size (nothing is resized); negative
values where probabilities are needed (KLD, plain SIM, information gain); a fixation outside 0..1.

What is in order but has no score is an UndefinedScoreError; the metric leaves the image out of that score's
mean and counts it: a constant map (no SIM, CC, NSS; AUCs are 0.5), one that sums to zero (no KLD, plain SIM,
information gain either), no fixations (no NSS, AUCs, information gain), none on other images (no shuffled
AUC), every pixel fixated (no AUC-Judd). README.md has this as a table.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike

# MATLAB's eps, 2.2e-16, which the published code adds to what it divides by and takes the logarithm of.
EPSILON = float(np.finfo(np.float64).eps)
# More fixations of other images than these are sampled: the score is the same to within a thousandth or two.
MOST_NEGATIVES = 10_000

DESCRIPTION = """\
Agreement of predicted saliency maps with maps and places of human fixations: Kullback-Leibler divergence,
similarity (after min-max, and plain), Pearson correlation, normalized scanpath saliency, AUC-Judd, shuffled
AUC, and information gain over a baseline in bits; in float64, after Bylinskii et al. (2019).
"""

CITATION = """\
@article{bylinskii2019different,
  title   = {What Do Different Evaluation Metrics Tell Us About Saliency Models?},
  author  = {Bylinskii, Zoya and Judd, Tilke and Oliva, Aude and Torralba, Antonio and Durand, Fr{\\'e}do},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {41}, number = {3}, pages = {740--757}, year = {2019}
}
@techreport{judd2012benchmark,
  title       = {A Benchmark of Computational Models of Saliency to Predict Human Fixations},
  author      = {Judd, Tilke and Durand, Fr{\\'e}do and Torralba, Antonio},
  institution = {Massachusetts Institute of Technology},
  number = {MIT-CSAIL-TR-2012-001}, year = {2012}
}
@article{borji2013quantitative,
  title   = {Quantitative Analysis of Human-Model Agreement in Visual Saliency Modeling: A Comparative Study},
  author  = {Borji, Ali and Sihite, Dicky N. and Itti, Laurent},
  journal = {IEEE Transactions on Image Processing},
  volume = {22}, number = {1}, pages = {55--69}, year = {2013}
}
@article{kummerer2015information,
  title   = {Information-theoretic model comparison unifies saliency metrics},
  author  = {K{\\"u}mmerer, Matthias and Wallis, Thomas S. A. and Bethge, Matthias},
  journal = {Proceedings of the National Academy of Sciences},
  volume = {112}, number = {52}, pages = {16054--16059}, year = {2015}
}
"""

INPUTS = """
Args:
    predictions: predicted maps, each (height, width), non-negative; they need not sum to 1.
    references: target maps, each of its prediction's size, non-negative.
    fixations: for each image its fixations (number, 2), x, y in 0..1; without them there are only the scores
        of two maps. To `compute` only, in the order in which the maps were added.
    other_fixations: for each image the fixations on other images, negatives of the shuffled AUC; by default
        those of all other images of this evaluation.
    baseline: one map (height, width) for all images, usually a centre prior, which information gain is over;
        without it there is no information gain.

Returns:
    kld, sim, sim_plain, cc, nss, auc_judd, shuffled_auc, information_gain: means over the images; a score
        that no image has is absent.
    left_out: for each score that some image lacks, how many images lack it for which reason.
"""


class UndefinedScoreError(ValueError):
    """Sound input for which a score has no value; the text is the reason."""


def kl_divergence(prediction: ArrayLike, target: ArrayLike) -> float:
    """Kullback-Leibler divergence of the prediction P from the target Q, in nats; 0 is best.

    sum Q log(eps + Q / (P + eps)), P and Q normalised to sum to 1.

    Args:
        prediction, target: (height, width), non-negative.

    Raises:
        ValueError: maps that are no probabilities, or of different size.
        UndefinedScoreError: a map that sums to zero.
    """
    prediction, target = _probabilities(prediction=prediction, target=target)
    return float((target * np.log(EPSILON + target / (prediction + EPSILON))).sum())


def similarity(prediction: ArrayLike, target: ArrayLike) -> float:
    """SIM, the histogram intersection sum min(P, Q), with each map first stretched to 0..1; 1 is best.

    The published code stretches so that a model gains nothing from a floor under its whole map.

    Args:
        prediction, target: (height, width); the smallest value, whatever it is, becomes 0.

    Raises:
        ValueError: maps that are not finite, or of different size.
        UndefinedScoreError: a constant map, which cannot be stretched.
    """
    maps = _maps(prediction=prediction, target=target)
    _require_variation(**maps)
    stretched = {name: values - values.min() for name, values in maps.items()}
    return float(np.minimum(*_probabilities(**stretched)).sum())


def plain_similarity(prediction: ArrayLike, target: ArrayLike) -> float:
    """SIM, the histogram intersection sum min(P, Q), of maps only normalised to sum to 1; 1 is best.

    As in pysaliency.

    Args:
        prediction, target: (height, width), non-negative.

    Raises:
        ValueError: maps that are no probabilities, or of different size.
        UndefinedScoreError: a map that sums to zero.
    """
    return float(np.minimum(*_probabilities(prediction=prediction, target=target)).sum())


def correlation_coefficient(prediction: ArrayLike, target: ArrayLike) -> float:
    """CC, Pearson's correlation of two maps over their pixels; 1 is best.

    Args:
        prediction, target: (height, width).

    Raises:
        ValueError: maps that are not finite, or of different size.
        UndefinedScoreError: a constant map.
    """
    maps = _maps(prediction=prediction, target=target)
    _require_variation(**maps)
    return float((_standardised(maps["prediction"]) * _standardised(maps["target"])).mean())


def normalized_scanpath_saliency(prediction: ArrayLike, fixations: ArrayLike) -> float:
    """NSS, the mean over fixated pixels of (P - mean(P)) / std(P); chance is 0, more is better.

    std is the sample standard deviation, with pixels - 1 in the denominator, as MATLAB's.

    Args:
        prediction: (height, width).
        fixations: (number, 2) x, y in 0..1.

    Raises:
        ValueError: a map that is not finite, or a fixation outside it.
        UndefinedScoreError: a constant map, or no fixations.
    """
    prediction = _maps(prediction=prediction)["prediction"]
    pixels = _fixated_pixels(fixations, prediction.shape)
    _require_variation(prediction=prediction)
    sample = np.sqrt((prediction.size - 1) / prediction.size)
    return float(_standardised(prediction).flat[pixels].mean() * sample)


def auc_judd(prediction: ArrayLike, fixations: ArrayLike) -> float:
    """Area under the ROC curve of fixated against all other pixels, thresholds at the fixated values only.

    The curve joins (0, 0), for each threshold t (share of other pixels >= t, share of fixated pixels >= t),
    and (1, 1) by straight lines. Equal values are one threshold, where the published code breaks ties by
    noise: the result is always the same, and a constant map gets 0.5.

    Between two thresholds the straight line lies above the true curve: for n fixated pixels a map that says
    nothing gets about 0.5 + 0.5 / (n + 1), 0.75 for a single one.

    Args:
        prediction: (height, width).
        fixations: (number, 2) x, y in 0..1.

    Raises:
        ValueError: a map that is not finite, or a fixation outside it.
        UndefinedScoreError: no fixations, or no pixel without one.
    """
    prediction = _maps(prediction=prediction)["prediction"]
    pixels = _fixated_pixels(fixations, prediction.shape)
    others = np.sort(np.delete(prediction, pixels))
    _require(others.size > 0, "every pixel is fixated")
    thresholds, counts = np.unique(prediction.flat[pixels], return_counts=True)
    hits = np.cumsum(counts[::-1]) / len(pixels)
    false_alarms = 1 - np.searchsorted(others, thresholds[::-1], side="left") / len(others)
    return float(np.trapezoid([0, *hits, 1], [0, *false_alarms, 1]))


def shuffled_auc(
    prediction: ArrayLike, fixations: ArrayLike, other_fixations: ArrayLike, seed: int = 0
) -> float:
    """Area under the ROC curve of fixated pixels against where people looked in other images.

    A bias to the centre gains nothing: both sides share it (Borji et al., 2013). The area is exact, the share
    of pairs in which the fixated pixel has the higher value, ties counted half. The published code takes the
    mean over random splits of the negatives, which tends to it with more splits and finer thresholds.

    Args:
        prediction: (height, width).
        fixations: (number, 2) x, y in 0..1.
        other_fixations: (number, 2) on other images, each counted; above 10,000 as many are drawn.
        seed: of that draw.

    Raises:
        ValueError: a map that is not finite, or a fixation outside it.
        UndefinedScoreError: no fixations, or none on other images.
    """
    prediction = _maps(prediction=prediction)["prediction"]
    pixels = _fixated_pixels(fixations, prediction.shape)
    negatives = _pixels(other_fixations, prediction.shape)
    _require(negatives.size > 0, "no fixations on other images")
    if len(negatives) > MOST_NEGATIVES:
        negatives = np.random.default_rng(seed).choice(negatives, MOST_NEGATIVES, replace=False)
    positive, negative = np.sort(prediction.flat[pixels]), prediction.flat[negatives]
    not_above = np.searchsorted(positive, negative, side="right")
    below = np.searchsorted(positive, negative, side="left")
    return float(1 - (not_above + below).mean() / (2 * len(positive)))


def information_gain(prediction: ArrayLike, fixations: ArrayLike, baseline: ArrayLike) -> float:
    """How many bits a fixation the prediction P tells more than the baseline B; 0 is no more than B.

    The mean over fixated pixels of log2(eps + P) - log2(eps + B), P and B normalised to sum to 1.

    Args:
        prediction: (height, width), non-negative.
        fixations: (number, 2) x, y in 0..1.
        baseline: (height, width), non-negative, usually a centre prior.

    Raises:
        ValueError: maps that are no probabilities, or of different size; a fixation outside them.
        UndefinedScoreError: a map that sums to zero, or no fixations.
    """
    prediction, baseline = _probabilities(prediction=prediction, baseline=baseline)
    pixels = _fixated_pixels(fixations, prediction.shape)
    return float(
        (np.log2(EPSILON + prediction.flat[pixels]) - np.log2(EPSILON + baseline.flat[pixels])).mean()
    )


def image_scores(
    prediction: ArrayLike,
    target: ArrayLike,
    fixations: ArrayLike | None = None,
    other_fixations: ArrayLike | None = None,
    baseline: ArrayLike | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """All scores of one image.

    Args:
        prediction, target, baseline: (height, width), non-negative.
        fixations, other_fixations: (number, 2) x, y in 0..1.

    Returns:
        The scores that these inputs allow, and for each that has no value the reason.

    Raises:
        ValueError: input that is wrong.
    """
    prediction, target = _map("prediction", prediction), _map("target", target)
    questions = {
        "kld": (kl_divergence, target),
        "sim": (similarity, target),
        "sim_plain": (plain_similarity, target),
        "cc": (correlation_coefficient, target),
    }
    if fixations is not None:
        questions["nss"] = (normalized_scanpath_saliency, fixations)
        questions["auc_judd"] = (auc_judd, fixations)
        if other_fixations is not None:
            questions["shuffled_auc"] = (shuffled_auc, fixations, other_fixations)
        if baseline is not None:
            questions["information_gain"] = (information_gain, fixations, baseline)
    scores, reasons = {}, {}
    for name, (score, *arguments) in questions.items():
        try:
            scores[name] = score(prediction, *arguments)
        except UndefinedScoreError as reason:
            reasons[name] = str(reason)
    return scores, reasons


class Saliency(evaluate.Metric):
    """The metric as `evaluate.load` of this folder gives it."""

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": maps, "references": maps}),
            reference_urls=["https://arxiv.org/abs/1604.03605", "https://github.com/cvzoya/saliency"],
        )

    def _compute(
        self,
        predictions: Sequence[ArrayLike],
        references: Sequence[ArrayLike],
        fixations: Sequence[ArrayLike | None] | None = None,
        other_fixations: Sequence[ArrayLike | None] | None = None,
        baseline: ArrayLike | None = None,
    ) -> dict[str, float | dict[str, dict[str, int]]]:
        images = len(predictions)
        if fixations is None:
            if other_fixations is not None or baseline is not None:
                raise ValueError("other_fixations and baseline serve only with fixations: give these too.")
            own = others = [None] * images
        else:
            own = _places_of_images("fixations", fixations, images)
            if other_fixations is None:
                others = _on_other_images(own)
            else:
                others = _places_of_images("other_fixations", other_fixations, images)
        scored = []
        for index, (prediction, target, *places) in enumerate(
            zip(predictions, references, own, others, strict=True)
        ):
            try:
                scored.append(image_scores(prediction, target, *places, baseline))
            except ValueError as error:
                raise ValueError(f"Image {index}: {error}") from error
        return _means(scored)


def _means(scored: Sequence[tuple[dict[str, float], dict[str, str]]]) -> dict[str, float | dict]:
    """The mean of each score over the images that have it, and why how many images have none."""
    values: dict[str, list[float]] = {}
    left_out: dict[str, Counter] = {}
    for scores, reasons in scored:
        for name, value in scores.items():
            values.setdefault(name, []).append(value)
        for name, reason in reasons.items():
            left_out.setdefault(name, Counter())[reason] += 1
    means = {name: float(np.mean(of_images)) for name, of_images in values.items()}
    return {**means, "left_out": {name: dict(counts) for name, counts in left_out.items()}}


def _places_of_images(name: str, given: Sequence[ArrayLike | None], images: int) -> list[np.ndarray]:
    """The fixations given for each image; None is as good as none."""
    if len(given) != images:
        raise ValueError(f"{name} are given for {len(given)} images, but there are {images} maps.")
    places = []
    for index, fixations in enumerate(given):
        try:
            places.append(_places([] if fixations is None else fixations))
        except ValueError as error:
            raise ValueError(f"{name} of image {index}: {error}") from error
    return places


def _on_other_images(places: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """For each image the fixations on all others."""
    joined = np.concatenate(places)
    end = 0
    for of_image in places:
        start, end = end, end + len(of_image)
        yield np.concatenate([joined[:start], joined[end:]])


def _map(name: str, values: ArrayLike) -> np.ndarray:
    """(height, width) float64, found to be finite."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {name} must be numbers in rows of the same length.") from error
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"The {name} has the shape {array.shape}, but must be (height, width).")
    if not np.isfinite(array).all():
        raise ValueError(f"The {name} holds NaN or infinite values, from which nothing can be computed.")
    return array


def _maps(**maps: ArrayLike) -> dict[str, np.ndarray]:
    """The maps as `_map` gives them, found to be of one size."""
    checked = {name: _map(name, values) for name, values in maps.items()}
    first, *others = checked
    for name in others:
        if checked[name].shape != checked[first].shape:
            raise ValueError(
                f"The {first} has {_size(checked[first])} pixels (height x width), the {name} "
                f"{_size(checked[name])}. Resize one of them first: here nothing is resized."
            )
    return checked


def _probabilities(**maps: ArrayLike) -> list[np.ndarray]:
    """The maps, found to be non-negative and normalised to sum to 1."""
    maps = _maps(**maps)
    for name, values in maps.items():
        if values.min() < 0:
            raise ValueError(
                f"The {name} holds the negative value {values.min():g}, but is taken as probabilities. "
                "Of log probabilities take the exponential first."
            )
    for name, values in maps.items():
        _require(values.max() > 0, f"the {name} sums to zero")
    # Divided by the maximum first, lest the sum of huge values be infinite.
    scaled = (values / values.max() for values in maps.values())
    return [values / values.sum() for values in scaled]


def _standardised(values: np.ndarray) -> np.ndarray:
    """With the mean 0 and the variance 1 over the pixels."""
    scaled = values / np.abs(values).max()
    centred = scaled - scaled.mean()
    return centred / np.sqrt(np.square(centred).mean())


def _places(fixations: ArrayLike) -> np.ndarray:
    """(number, 2) float64, found to be in 0..1."""
    places = np.asarray(fixations, dtype=np.float64)
    if places.size == 0:
        return places.reshape(0, 2)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(f"Fixations have the shape {places.shape}, but must be (number, 2): x, y in 0..1.")
    outside = ~((places >= 0) & (places <= 1)).all(axis=1)  # NaN lies nowhere
    if outside.any():
        x, y = places[outside][0]
        raise ValueError(
            f"{outside.sum()} of {len(places)} fixations lie outside the map, the first at x {x:g}, y {y:g}. "
            "Drop them, or give places in 0..1 of its width and height."
        )
    return places


def _pixels(fixations: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """(number,) the pixel of each fixation, counted row by row."""
    height, width = shape
    size = np.array([width, height])
    columns, rows = np.minimum((_places(fixations) * size).astype(np.int64), size - 1).T
    return rows * width + columns


def _fixated_pixels(fixations: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """Each fixated pixel once."""
    pixels = np.unique(_pixels(fixations, shape))
    _require(pixels.size > 0, "no fixations")
    return pixels


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise UndefinedScoreError(reason)


def _require_variation(**maps: np.ndarray) -> None:
    for name, values in maps.items():
        _require(values.max() > values.min(), f"the {name} is constant")


def _size(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))
