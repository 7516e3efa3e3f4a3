"""What train/benchmark.py measured and train/projection.py made of it, as tables."""

from collections.abc import Sequence
from typing import Any


def speed_table(results: Sequence[dict[str, Any]]) -> str:
    """Every ratio with its bar, as Markdown.

    Args:
        results: what the benchmarks wrote as JSON, all on one machine.
    """
    machine = results[0]["machine"]
    lines = [
        f"On {machine['gpu'] or machine['cpu']}, {machine['cores']} cores:",
        "",
        "| benchmark | ratio | measured | bar | holds |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        name = result["benchmark"]
        if result["skipped"] is not None:
            lines.append(f"| {name} | skipped: {result['skipped']} | | | |")
        for ratio in result["ratios"]:
            bar = f"{'at most' if ratio['is_at_most'] else 'at least'} {ratio['bar']:g}"
            holds = "yes" if ratio["holds"] else "no"
            lines.append(f"| {name} | {ratio['name']} | {ratio['value']:.3f} | {bar} | {holds} |")
    return "\n".join(lines)


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
        ]
    )
