"""What train/benchmark.py measured and train/projection.py made of it, as tables."""

from collections.abc import Sequence
from typing import Any

# With fewer, an epoch is hardly more than a step.
BATCHES_AN_EPOCH = 5


def speed_table(results: Sequence[dict[str, Any]]) -> str:
    """Every ratio with its bar, as Markdown, a table a machine; below them what benchmarks note.

    Args:
        results: what the benchmarks wrote as JSON.
    """
    of_machines: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        machine = result["machine"]
        name = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores"
        of_machines.setdefault(name, []).append(result)
    tables = [_table_of_machine(name, of_machine) for name, of_machine in of_machines.items()]
    notes = [result["details"]["notes"] for result in results if "notes" in result["details"]]
    return "\n\n".join([*tables, *notes])


def _table_of_machine(machine: str, results: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"On {machine}, by the code {_codes(results)}:",
        "",
        "| benchmark | ratio | measured | bar | holds |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        if result["skipped"] is not None and not result["ratios"]:
            lines.append(f"| {result['benchmark']} | skipped: {result['skipped']} | | | |")
        lines += [_row(result["benchmark"], ratio) for ratio in result["ratios"]]
    return "\n".join(lines)


def _codes(results: Sequence[dict[str, Any]]) -> str:
    """The code of each row."""
    of_versions: dict[str, list[str]] = {}
    for result in results:
        of_versions.setdefault(result["code_version"], []).append(result["benchmark"])
    if len(of_versions) == 1:
        return next(iter(of_versions))
    return "; ".join(f"{version} ({', '.join(names)})" for version, names in of_versions.items())


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
