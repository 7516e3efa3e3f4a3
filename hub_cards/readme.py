"""Writes the numbers of the README from kept results.

python -m hub_cards.readme
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hub_cards.render import RECALL_AT

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
README = FOLDER.parent / "README.md"
BEGIN = "<!-- demo results: written by `python -m hub_cards.readme` from hub_cards/results -->"
END = "<!-- end of demo results -->"
ROWS = {
    "frame to video": "validation/image_to_video_recall",
    "speech to video": "validation/speech_to_video_recall",
    "speech of another plane, same voice": "control/speech_to_video_recall",
    "chance": "validation/chance_recall",
}


def demo_results() -> list[dict[str, Any]]:
    """The kept results of the demo, one a seed."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("demo_seed*.json"))]


def demo_table(results: Sequence[dict[str, Any]]) -> str:
    """Recall of each kind of query, one value a seed, beside chance, as Markdown."""
    seeds = ", ".join(str(of_seed["seed"]) for of_seed in results)
    machine = results[0]["machine"]
    clips = results[0]["metrics"]["validation/gallery_clips"]
    lines = [
        f"Among {clips:.0f} clips, seeds {seeds}, on {machine['cpu']} with {machine['cores']} cores:",
        "",
        "| query | " + " | ".join(f"recall at {k}" for k in RECALL_AT) + " |",
        "|---|" + "---|" * len(RECALL_AT),
    ]
    for title, name in ROWS.items():
        cells = [_of_seeds([of_seed["metrics"][f"{name}_at_{k}"] for of_seed in results]) for k in RECALL_AT]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_results(readme: str, table: str) -> str:
    """The README with the table between its markers.

    Raises:
        ValueError: the markers are missing.
    """
    block = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not block.search(readme):
        raise ValueError(
            f"README.md lacks the lines {BEGIN!r} and {END!r}: put them where the table belongs."
        )
    return block.sub(lambda _: f"{BEGIN}\n{table}\n{END}", readme)


def _of_seeds(values: Sequence[float]) -> str:
    shown = [f"{value:.1%}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def main() -> int:
    """Writes the README anew."""
    README.write_text(
        with_results(README.read_text(encoding="utf-8"), demo_table(demo_results())), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
