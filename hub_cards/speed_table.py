"""What train/benchmark.py measured and train/projection.py made of it, as tables."""

from collections.abc import Sequence
from typing import Any

# With fewer, an epoch is hardly more than a step.
BATCHES_AN_EPOCH = 5


def speed_table(results: Sequence[dict[str, Any]]) -> str:
    """Every ratio with its bar, as Markdown.

    Args:
        results: what the benchmarks wrote as JSON.
    """
    lines = [
        _measured_on(results),
        "",
        "| benchmark | ratio | measured | bar | holds |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        if result["skipped"] is not None and not result["ratios"]:
            lines.append(f"| {result['benchmark']} | skipped: {result['skipped']} | | | |")
        lines += [_row(result["benchmark"], ratio) for ratio in result["ratios"]]
    return "\n".join(lines)


def _measured_on(results: Sequence[dict[str, Any]]) -> str:
    """The machines and the code of the rows."""
    rows_of: dict[str, list[str]] = {}
    for result in results:
        machine = result["machine"]
        where = f"{machine['gpu'] or machine['cpu']} with {machine['cores']} cores"
        rows_of.setdefault(f"{where}, by the code {result['code_version']}", []).append(result["benchmark"])
    if len(rows_of) == 1:
        return f"On {next(iter(rows_of))}:"
    parts = [f"{how} ({', '.join(rows)})" for how, rows in rows_of.items()]
    return f"On {'; on '.join(parts)}:"


def _row(benchmark: str, ratio: dict[str, Any]) -> str:
    bar = f"{'at most' if ratio['is_at_most'] else 'at least'} {ratio['bar']:g}"
    # Files of before single ratios were skipped do not name it.
    lacking = ratio.get("skipped")
    measured = f"skipped: {lacking}" if lacking else f"{ratio['value']:.3f}"
    holds = "" if lacking else "yes" if ratio["holds"] else "no"
    return f"| {benchmark} | {ratio['name']} | {measured} | {bar} | {holds}{' ' if holds else ''}|"


def projection_table(projection: dict[str, Any]) -> str:
    """Clips a second on so many GPUs and what they hang on, as Markdown.

    Args:
        projection: what `python -m train.projection` wrote as JSON.
    """
    steps = projection["steps"]
    rows = {
        "GPUs": [str(step["gpus"]) for step in steps],
        "clips a second": [f"{step['clips_per_second']:,.0f}" for step in steps],
        "hangs on": [step["limit"] for step in steps],
        "clips a batch": [f"{step['gpus'] * projection['workload']['clips_per_gpu']:,}" for step in steps],
    }
    breaking = {name: gpus for name, gpus in projection["breaking_points"].items() if gpus is not None}
    first = min(breaking, key=breaking.__getitem__)
    header, *others = (f"| {title} | {' | '.join(cells)} |" for title, cells in rows.items())
    return "\n".join(
        [
            f"{projection['title']}:",
            "",
            header,
            "|---" * (1 + len(steps)) + "|",
            *others,
            "",
            f"What breaks first: {first}, at {breaking[first]} GPUs.",
            "",
            _reservations(projection),
        ]
    )


def _reservations(projection: dict[str, Any]) -> str:
    """What of the projection is a guess, and up to where the set is large enough for it."""
    storage, workload = projection["cluster"]["storage_bandwidth"], projection["workload"]
    clips, of_gpu = workload["training_clips"], workload["clips_per_gpu"]
    gpus = [2**power for power in range(32) if clips // (2**power * of_gpu) >= BATCHES_AN_EPOCH]
    most = max(gpus, default=0)
    return (
        f"The {storage / 1e9:g} GB/s with which a node reads clips are an assumption. A set of {clips:,} "
        f"clips makes at least {BATCHES_AN_EPOCH} batches an epoch on up to {most} GPUs."
    )
