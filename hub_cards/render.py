"""Writes a model's card from its metrics.json."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

TEMPLATE = Path(__file__).with_name("model_card.md")
QUERIES = ("image", "speech")
RECALL_AT = (1, 5, 10)


def render_model_card(contents: dict[str, Any], model_name: str) -> ModelCard:
    """The card of a pretrained model.

    Args:
        contents: the validated contents of metrics.json.
        model_name: heading of the card.
    """
    metrics = contents["metrics"]
    machine = contents["machine"]
    return ModelCard.from_template(
        ModelCardData(
            license="apache-2.0",
            library_name="transformers",
            pipeline_tag="feature-extraction",
            tags=["fetal-ultrasound", "audio-visual", "self-supervised"],
        ),
        template_path=str(TEMPLATE),
        model_name=model_name,
        results=results_text(metrics),
        machine=f"{machine['gpu'] or machine['cpu']} ({machine['cores']} cores)",
        **{name: contents[name] for name in ("recipe", "seed", "code_version", "data_hash")},
    )


def results_text(metrics: dict[str, float]) -> str:
    """What was measured on held-out scans, or that nothing was."""
    if "validation/gallery_clips" not in metrics:
        return "There were no held-out scans to measure this model on."
    return (
        f"On held-out scans, in a gallery of {metrics['validation/gallery_clips']:.0f} clips. A query finds "
        f"its own video among the first k; chance is what a random order finds.\n\n{results_table(metrics)}"
    )


def results_table(metrics: dict[str, float], split: str = "validation") -> str:
    """Recall of each kind of query beside chance, as a Markdown table; what was not measured is left out."""
    lines = ["| query | " + " | ".join(f"recall at {k}" for k in RECALL_AT) + " |"]
    lines.append("|---|" + "---|" * len(RECALL_AT))
    for query in QUERIES:
        names = [f"{split}/{query}_to_video_recall_at_{k}" for k in RECALL_AT]
        if names[0] in metrics:
            lines.append(
                f"| {query} to video | " + " | ".join(f"{metrics[name]:.1%}" for name in names) + " |"
            )
    chances = [metrics[f"{split}/chance_recall_at_{k}"] for k in RECALL_AT]
    lines.append("| chance | " + " | ".join(f"{chance:.1%}" for chance in chances) + " |")
    return "\n".join(lines)
