"""What metrics.json measured, as a card shows it: tables, sentences, entries of the model index."""

import re
from collections.abc import Iterable, Sequence

from huggingface_hub import EvalResult

from hub_cards.card_facts import IMAGE_PLANES, PRETRAINED, SALIENCY, CardFacts

RECALL_AT = (1, 5, 10)
NOTHING_MEASURED = "There were no held-out scans to measure this model on."
# Rows of the retrieval table by the names of their metrics.
QUERIES = {
    "frame to video": "validation/image_to_video",
    "speech to video": "validation/speech_to_video",
    "speech of another plane, same voice": "control/speech_to_video",
    "chance": "validation/chance",
}
PLANE_COLUMNS = {"precision": "precision", "recall": "recall", "f1": "F1"}
CALIBRATION = "expected_calibration_error"
MAPS = {"test": "this model", "center_prior": "centre prior: the mean map", "random": "random start, split 1"}
MAP_COLUMNS = {
    "kld": "KLD ↓",
    "sim": "SIM ↑",
    "nss": "NSS ↑",
    "cc": "CC ↑",
    "auc_judd": "AUC-Judd ↑",
    "shuffled_auc": "shuffled AUC ↑",
    "information_gain": "information gain ↑",
}
WEAKEST_CLASSES = 3
# That of the intervals whose ends metrics.json has as `<name>_low` and `<name>_high`.
CONFIDENCE = 0.95
PERCENT, PLAIN = "{:.1%}", "{:.2f}"


def results_text(facts: CardFacts) -> str:
    """What was measured, in Markdown, or that nothing was."""
    if not has_results(facts):
        return NOTHING_MEASURED
    if facts.kind == PRETRAINED:
        return _retrieval_text(facts.metrics)
    return _saliency_text(facts.metrics) if facts.kind == SALIENCY else _planes_text(facts)


def has_results(facts: CardFacts) -> bool:
    """Whether the model was measured on scans that it had not seen."""
    measured = "validation/gallery_clips" if facts.kind == PRETRAINED else "test/"
    return any(name.startswith(measured) for name in facts.metrics)


def found_limits(facts: CardFacts) -> list[str]:
    """What the measurements say against the model, a sentence each."""
    if not has_results(facts):
        return []
    if facts.kind == PRETRAINED:
        return _retrieval_limits(facts.metrics)
    return _saliency_limits(facts.metrics) if facts.kind == SALIENCY else _planes_limits(facts)


def eval_results(facts: CardFacts) -> list[EvalResult]:
    """The results as the model index takes them."""
    if not has_results(facts):
        return []
    if facts.kind == PRETRAINED:
        names = {
            f"{source}_recall_at_{k}": ("recall", f"recall at {k}, {title}")
            for title, source in QUERIES.items()
            for k in RECALL_AT
            if source.startswith("validation/") and title != "chance"
        }
        return _entries(facts, "feature-extraction", "retrieval of clips", "validation", names)
    if facts.kind == SALIENCY:
        names = {f"test/{name}": (name, title.split(" ")[0]) for name, title in MAP_COLUMNS.items()}
        return _entries(facts, "image-feature-extraction", "saliency of frames", "test", names)
    names = {f"test/{name}": (name, f"macro {title}") for name, title in PLANE_COLUMNS.items()}
    names["test/accuracy"] = ("accuracy", "accuracy")
    task = "image-classification" if facts.kind == IMAGE_PLANES else "video-classification"
    return _entries(facts, task, "standard planes", "test", names)


def with_spread(metrics: dict[str, float], name: str, form: str) -> str:
    """A value; behind it, where they were measured, its interval and its standard deviation over the splits.

    A metrics.json without intervals, as was written once, has the lowest and highest split instead.
    """
    spread = []
    interval = interval_of(metrics, name)
    if interval is not None:
        spread.append(_range(interval, form))
    if f"{name}_std" in metrics:
        spread.append(f"{'± ' if interval else ''}{form.format(metrics[f'{name}_std'])}")
    of_splits = _of_splits(metrics, name.split("/")[1]) if name.startswith("test/") else []
    if spread and interval is None and of_splits:
        spread.append(_range((min(of_splits), max(of_splits)), form))
    return form.format(metrics[name]) + (f" ({'; '.join(spread)})" if spread else "")


def interval_of(metrics: dict[str, float], name: str) -> tuple[float, float] | None:
    """Both ends of a metric's interval; None where it has none."""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return None if low is None or high is None else (low, high)


def retrieval_table(metrics: dict[str, float]) -> str:
    """Recall of each kind of query beside chance, as Markdown; what was not measured is left out."""
    rows = {
        title: [with_spread(metrics, f"{source}_recall_at_{k}", PERCENT) for k in RECALL_AT]
        for title, source in QUERIES.items()
        if f"{source}_recall_at_{RECALL_AT[0]}" in metrics
    }
    return _table("query", [f"recall at {k}" for k in RECALL_AT], rows)


def planes_table(facts: CardFacts) -> str:
    """Macro precision, recall and F1, then those of each class that a test frame shows, as Markdown."""
    endings = {"macro average": ""} | {name.replace("_", " "): f"_{_plain(name)}" for name in _classes(facts)}
    rows = {
        title: [with_spread(facts.metrics, f"test/{score}{ending}", PERCENT) for score in PLANE_COLUMNS]
        for title, ending in endings.items()
        if f"test/f1{ending}" in facts.metrics
    }
    return _table("plane", PLANE_COLUMNS.values(), rows)


def saliency_table(metrics: dict[str, float]) -> str:
    """Scores of the maps beside those of the centre prior, as Markdown."""
    rows = {
        title: [with_spread(metrics, f"{group}/{name}", PLAIN) for name in MAP_COLUMNS]
        for group, title in MAPS.items()
        if f"{group}/kld" in metrics
    }
    return _table("map", MAP_COLUMNS.values(), rows)


def number_of_splits(metrics: dict[str, float]) -> int:
    """How many splits a task model was measured on."""
    return len({name.split("/")[0] for name in metrics if name.startswith("split_")})


def _retrieval_text(metrics: dict[str, float]) -> str:
    return (
        f"On held-out scans, in a gallery of {metrics['validation/gallery_clips']:.0f} clips. A query finds "
        f"its own video among the first k; chance is what a random order finds.{_intervals_text(metrics)}\n\n"
        f"{retrieval_table(metrics)}"
    )


def _planes_text(facts: CardFacts) -> str:
    metrics = facts.metrics
    lines = [
        _over_splits_text(metrics),
        planes_table(facts),
        f"Accuracy {with_spread(metrics, 'test/accuracy', PERCENT)}, expected calibration error "
        f"{with_spread(metrics, f'test/{CALIBRATION}', PERCENT)}.",
    ]
    return "\n\n".join(lines)


def _saliency_text(metrics: dict[str, float]) -> str:
    return f"{_over_splits_text(metrics)}\n\n{saliency_table(metrics)}"


def _over_splits_text(metrics: dict[str, float]) -> str:
    splits, intervals = number_of_splits(metrics), _intervals_text(metrics)
    if splits == 1:
        return f"On the test scans of one split, none of which the model was trained on.{intervals}"
    spread = "after ±, standard deviation" if intervals else "standard deviation; lowest to highest split"
    return (
        f"Mean over {splits} splits by scan ({spread}), each on scans that its model was not trained "
        f"on.{intervals} The weights here are those of split 1."
    )


def _intervals_text(metrics: dict[str, float]) -> str:
    """What stands in brackets, where there are intervals."""
    if not any(interval_of(metrics, name) for name in metrics):
        return ""
    return (
        f" In brackets, the {CONFIDENCE:.0%} interval: what other scans to test on would give, by a "
        "bootstrap over the scans."
    )


def _retrieval_limits(metrics: dict[str, float]) -> list[str]:
    limits = []
    k = RECALL_AT[1]
    for title, source in QUERIES.items():
        name = f"{source}_recall_at_{k}"
        if title == "chance" or not source.startswith("validation/") or name not in metrics:
            continue
        missed = PERCENT.format(1 - metrics[name])
        missed_by_chance = PERCENT.format(1 - metrics[f"validation/chance_recall_at_{k}"])
        limits.append(
            f"{title.capitalize()}: {missed} of the queries do not find their clip among the first {k}; in a "
            f"random order {missed_by_chance} would not."
        )
    control = f"control/speech_to_video_recall_at_{k}"
    if control in metrics:
        limits.append(
            f"Speech of another plane by the same voice finds the clip among the first {k} in "
            f"{PERCENT.format(metrics[control])} of the cases, by voice, room and chance, not by its words."
        )
    return limits


def _planes_limits(facts: CardFacts) -> list[str]:
    metrics = facts.metrics
    scores = {name: f"test/f1_{_plain(name)}" for name in _classes(facts)}
    measured = {name: metric for name, metric in scores.items() if metric in metrics}
    weakest = sorted(measured, key=lambda name: metrics[measured[name]])[:WEAKEST_CLASSES]
    named = ", ".join(
        f"{name.replace('_', ' ')} ({with_spread(metrics, measured[name], PERCENT)})" for name in weakest
    )
    limits = [f"Weakest by F1: {named}."]
    unmeasured = [name.replace("_", " ") for name in scores if name not in measured]
    if unmeasured:
        limits.append(f"No test frame shows {', '.join(unmeasured)}: nothing is known of these.")
    limits.append(
        f"Its probabilities are off by {PERCENT.format(metrics[f'test/{CALIBRATION}'])} in the mean "
        "(expected calibration error)."
    )
    return limits


def _saliency_limits(metrics: dict[str, float]) -> list[str]:
    limits = [
        f"A map that is the same for every frame, the mean of the training maps, reaches a KLD of "
        f"{PLAIN.format(metrics['center_prior/kld'])} where this model reaches "
        f"{PLAIN.format(metrics['test/kld'])}: much of where people look is the middle."
    ]
    if "random/kld" in metrics:
        limits.append(
            f"On split 1 this model reaches a KLD of {PLAIN.format(metrics['split_1/kld'])}, one that "
            f"started from random weights {PLAIN.format(metrics['random/kld'])}."
        )
    return limits


def _entries(
    facts: CardFacts, task: str, title: str, split: str, names: dict[str, tuple[str, str]]
) -> list[EvalResult]:
    """An entry a metric that was measured, with its interval; `names` gives type and name of each."""
    data_hash = facts.measured["data_hash"]
    return [
        EvalResult(
            task_type=task,
            task_name=title,
            dataset_type="fetal-ultrasound",
            dataset_name=f"Fetal ultrasound, data hash {data_hash[:12]}",
            dataset_config=facts.recipe["dataset_config"],
            dataset_split=split,
            dataset_args={"data_hash": data_hash},
            metric_type=kind,
            metric_name=name,
            metric_value=facts.metrics[metric],
            metric_args=_interval_arguments(interval_of(facts.metrics, metric)),
        )
        for metric, (kind, name) in names.items()
        if metric in facts.metrics
    ]


def _interval_arguments(interval: tuple[float, float] | None) -> dict[str, float | str] | None:
    """An interval as the model index takes it, beside the value."""
    if interval is None:
        return None
    return {"low": interval[0], "high": interval[1], "confidence": CONFIDENCE, "resampled": "scans"}


def _range(ends: tuple[float, float], form: str) -> str:
    return " to ".join(map(form.format, ends))


def _of_splits(metrics: dict[str, float], name: str) -> list[float]:
    return [value for key, value in metrics.items() if re.fullmatch(rf"split_\d+/{re.escape(name)}", key)]


def _classes(facts: CardFacts) -> Sequence[str]:
    return [name for _, name in sorted(facts.config["id2label"].items(), key=lambda item: int(item[0]))]


def _plain(class_name: str) -> str:
    """A class's name in the letters that metrics.json takes."""
    return re.sub(r"[^a-z0-9]+", "_", class_name.lower()).strip("_")


def _table(first: str, columns: Iterable[str], rows: dict[str, list[str]]) -> str:
    header = [first, *columns]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows.items()]
    return "\n".join(lines)
