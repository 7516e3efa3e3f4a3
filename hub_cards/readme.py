"""Writes the numbers of the README from kept results.

python -m hub_cards.readme
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hub_cards.card_results import RECALL_AT
from hub_cards.speed_table import projection_table, speed_table

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
README = FOLDER.parent / "README.md"
BEGIN = "<!-- {name} results: written by `python -m hub_cards.readme` from hub_cards/results -->"
END = "<!-- end of {name} results -->"
ROWS = {
    "frame to video": "validation/image_to_video_recall",
    "speech to video": "validation/speech_to_video_recall",
    "speech of another plane, same voice": "control/speech_to_video_recall",
    "chance": "validation/chance_recall",
}
# What the models for planes start from, by the kept file of each.
STARTS = {
    "pretrained": "the demo's model",
    "random": "random weights",
    "probe_pretrained": "the demo's model, frozen",
    "probe_random": "random weights, frozen",
}
PLANE_COLUMNS = {"precision": "precision", "recall": "recall", "f1": "F1"}
# The benchmarks in the order of the table, by the kept file of each.
SPEED = (
    "step",
    "cpu",
    "gpu",
    "loader",
    "retrieval",
    "planes",
    "prepare",
    "four_cores/loader",
    "four_cores/planes",
)
# The tables of train/reproduce.py that the README shows, by the names of their CSV files: the paper's, and
# what goes beyond them.
PAPER = (
    "table_1_planes",
    "table_1_planes_frozen",
    "table_2_saliency",
    "table_2_saliency_frozen",
    "table_3_planes",
    "table_3_planes_frozen",
    "table_3_plane_clips_frozen",
    "claims",
)
FURTHER = (
    "table_controls_planes",
    "table_controls_planes_frozen",
    "table_relevance_planes",
    "table_relevance_planes_frozen",
    "table_options_planes",
    "table_options_planes_frozen",
    "table_lengths_planes",
    "table_lengths_planes_frozen",
    "table_longer_planes",
    "table_longer_planes_frozen",
    "table_balance_planes",
    "table_balance_planes_frozen",
    "table_towers_planes",
    "table_towers_planes_frozen",
    "table_video_tower_plane_clips_frozen",
    "table_saliency_parts_saliency",
    "table_saliency_parts_saliency_frozen",
    "table_saliency_longer_saliency_frozen",
    "table_labels_planes",
    "table_labels_planes_frozen",
    "pretrainings",
)
# Speech towers that a linear probe was put on, and their names in the kept files.
PROBED = {
    "drawn weights": ["drawn"],
    "as printed, medium": ["printed_medium"],
    "best setting, medium: taught everyday words, then frozen": ["best_medium"],
}
PROBED_DIMENSIONS = {
    "over time": ["over_time_0", "over_time_1"],
    "over time and mel, half as wide": ["over_time_and_mel_1", "over_time_and_mel_2"],
}
# How much of a remark the clips held that the towers heard.
HELD = {
    "whole": "a whole remark about the picture, in 6 s",
    "part": "a part of one, in 2 s",
}
# Of pretrained models whose losses were probed, by their names in the kept file; and what was asked.
OBJECTIVES = {"printed_medium": "as printed, medium", "best_medium": "best setting, medium"}
OBJECTIVE_COLUMNS = {
    "own_speech_first": "own speech found",
    "own_speech_first_fused": "own speech found, fused",
    "other_speech_first_fused": "another clip's taken for it, fused",
    "same_plane_of_hardest_audio": "hardest speech of the same plane",
    "same_plane_of_hardest_image": "hardest frame of the same plane",
}
# What MMSL's gradient was compared by in these models: shares, and directions, which are no percentages.
GRADIENT_COLUMNS = {
    "similarity_share_of_video": ("share of MMSL, video tower", "{:.1%}"),
    "direction_of_video": ("cosine with MMCL's, video tower", "{:.2f}"),
    "similarity_share_of_image": ("share of MMSL, image tower", "{:.1%}"),
    "direction_of_image": ("cosine with MMCL's, image tower", "{:.2f}"),
}
GAZE_ROWS = {
    "test": "the demo's model",
    "center_prior": "centre prior: the mean map, whatever the frame",
    "split_1": "the demo's model, first split",
    "random": "random weights, first split",
}
GAZE_COLUMNS = {
    "kld": "KLD ↓",
    "sim": "SIM ↑",
    "nss": "NSS ↑",
    "cc": "CC ↑",
    "shuffled_auc": "shuffled AUC ↑",
    "information_gain": "information gain ↑",
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


def planes_table(results: dict[str, dict[str, Any]]) -> str:
    """Macro precision, recall and F1 over the splits as the paper's Table 1 has them, as Markdown.

    Args:
        results: contents of metrics.json by what the model started from, a key of STARTS.
    """
    lines = [_header("start", PLANE_COLUMNS.values())]
    for name, title in STARTS.items():
        metrics = results[name]["metrics"]
        cells = [_mean_and_deviation(metrics, f"test/{column}", "{:.1%}") for column in PLANE_COLUMNS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gaze_table(metrics: dict[str, float]) -> str:
    """Scores of the saliency maps as the paper's Table 2 has them, as Markdown."""
    lines = [_header("map", GAZE_COLUMNS.values())]
    for group, title in GAZE_ROWS.items():
        cells = [_mean_and_deviation(metrics, f"{group}/{column}", "{:.2f}") for column in GAZE_COLUMNS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def benchmark_tables(texts: dict[str, str], names: Sequence[str]) -> str:
    """Those of these names below each other, as Markdown.

    Args:
        texts: of each table by its name, as train/reproduce.py writes them into tables.json.
        names: of the tables.
    """
    return "\n".join(texts[name].replace("## ", "#### ", 1) for name in names).strip()


def ceiling_line(metrics: dict[str, float]) -> str:
    """What supervised training with many labels reaches on the benchmark, in a sentence."""
    return f"Supervised training on many times the labels reaches a macro F1 of {metrics['test/f1']:.1%}."


def probe_table(metrics: dict[str, float], probed: dict[str, list[str]]) -> str:
    """How often a linear probe on a speech tower names the plane of a remark, as Markdown.

    Args:
        metrics: as `python -m train.probe_speech` writes them.
        probed: names there by title, those of one row together.
    """
    lines = [_header("plane named by the speech tower", HELD.values())]
    for title, names in probed.items():
        cells = [_of_seeds([metrics[f"{name}/accuracy_{held}"] for name in names]) for held in HELD]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    cells = [f"{metrics[f'clips/most_frequent_share_{held}']:.1%}" for held in HELD]
    lines.append("| the most frequent plane, always | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{metrics['clips/number']:.0f} clips of each kind."])


def contents_table(clips: dict[str, Any]) -> str:
    """How much of a remark the clips of pretraining hold, as Markdown.

    Args:
        clips: that part of what `benchmark_description.describe` writes.
    """
    described = {config: of_config["train"] for config, of_config in clips.items()}
    contents = next(iter(described.values()))["share_of_clips"]
    lines = [_header("clips", ["number", *contents])]
    for config, of_config in described.items():
        shares = [f"{share:.1%}" for share in of_config["share_of_clips"].values()]
        lines.append(f"| {config} | {of_config['clips']:,} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def objective_table(metrics: dict[str, float]) -> str:
    """What the losses of pretrained models see, as Markdown.

    Args:
        metrics: as `python -m train.probe_objective` writes them.
    """
    lines = [_header("in a batch of held-out clips", OBJECTIVE_COLUMNS.values())]
    for name, title in OBJECTIVES.items():
        cells = [f"{metrics[f'{name}/{column}']:.1%}" for column in OBJECTIVE_COLUMNS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    chance, negatives = metrics["clips/chance"], metrics[f"{name}/same_plane_of_negatives"]
    cells = [f"{share:.1%}" for share in (chance, chance, chance, negatives, negatives)]
    return "\n".join([*lines, "| chance | " + " | ".join(cells) + " |"])


def gradient_table(metrics: dict[str, float]) -> str:
    """How much the similarity losses pull at the towers of pretrained models, and whereto, as Markdown.

    Args:
        metrics: as `python -m train.probe_gradients` writes them.
    """
    lines = [_header("gradient", [title for title, _ in GRADIENT_COLUMNS.values()])]
    for name, title in OBJECTIVES.items():
        cells = [form.format(metrics[f"{name}/{column}"]) for column, (_, form) in GRADIENT_COLUMNS.items()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def int8_table(int8: dict[str, Any]) -> str:
    """What int8 costs a classifier of planes, and what it saves, as Markdown.

    Args:
        int8: that part of the JSON that `python -m train.export` wrote of it.
    """
    lines = [_header("a plane model", ["macro F1", "file"])]
    for title, when in (("single precision", "before"), ("int8", "after")):
        kilobytes = int8[f"bytes_{when}"] / 1000
        lines.append(f"| {title} | {int8[f'macro_f1_{when}']:.1%} | {kilobytes:,.0f} kB |")
    frames = f"{int8['frames']:,} frames of {int8['scans']} scans that it was not trained on."
    return "\n".join([*lines, "", frames])


def tables() -> dict[str, str]:
    """The table of every block of the README, from the kept results."""
    planes = {start: _kept(f"planes_{start}") for start in STARTS}
    return {
        "demo": demo_table(demo_results()),
        "planes": planes_table(planes),
        "benchmark": benchmark_tables(_kept("benchmark/tables"), PAPER),
        "further": benchmark_tables(_kept("benchmark/tables"), FURTHER),
        "ceiling": ceiling_line(_kept("benchmark/ceiling")["metrics"]),
        "probe": probe_table(_kept("benchmark/speech_probe")["metrics"], PROBED),
        "dimensions": probe_table(_kept("benchmark/speech_dimensions_probe")["metrics"], PROBED_DIMENSIONS),
        "contents": contents_table(_kept("benchmark/description")["clips"]),
        "objective": objective_table(_kept("benchmark/objective_probe")["metrics"]),
        "gradient": gradient_table(_kept("benchmark/gradient_probe")["metrics"]),
        "int8": int8_table(_kept("int8/planes")["int8"]),
        "gaze": gaze_table(_kept("gaze")["metrics"]),
        "speed": speed_table([_kept(f"speed/{name}") for name in SPEED]),
        "projection": projection_table(_kept("speed/projection")),
    }


def with_results(readme: str, name: str, table: str) -> str:
    """The README with the table between its markers.

    Raises:
        ValueError: the markers are missing.
    """
    begin, end = BEGIN.format(name=name), END.format(name=name)
    block = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not block.search(readme):
        raise ValueError(
            f"README.md lacks the lines {begin!r} and {end!r}: put them where the table belongs."
        )
    return block.sub(lambda _: f"{begin}\n{table}\n{end}", readme)


def current_readme() -> str:
    """The README as the kept results make it."""
    readme = README.read_text(encoding="utf-8")
    for name, table in tables().items():
        readme = with_results(readme, name, table)
    return readme


def _kept(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _header(first: str, columns: Iterable[str]) -> str:
    names = [first, *columns]
    return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def _mean_and_deviation(metrics: dict[str, float], name: str, form: str) -> str:
    deviation = f"{name}_std"
    over_splits = f" ({form.format(metrics[deviation])})" if deviation in metrics else ""
    return form.format(metrics[name]) + over_splits


def _of_seeds(values: Sequence[float]) -> str:
    shown = [f"{value:.1%}" for value in values]
    return shown[0] if len(set(shown)) == 1 else ", ".join(shown)


def main() -> int:
    """Writes the README anew."""
    README.write_text(current_readme(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
