"""The ratios that train/benchmark.py measured, as a table."""

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
