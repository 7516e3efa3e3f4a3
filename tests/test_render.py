"""The card says what metrics.json says, and nothing that was not measured."""

from huggingface_hub import ModelCard

from hub_cards.render import render_model_card, results_table

METRICS = {"validation/gallery_clips": 100.0}
METRICS |= {f"validation/chance_recall_at_{k}": k / 100 for k in (1, 5, 10)}
METRICS |= {f"validation/image_to_video_recall_at_{k}": 0.3 + k / 100 for k in (1, 5, 10)}
CONTENTS = {
    "metrics": METRICS,
    "recipe": "demo",
    "seed": 3,
    "code_version": "0.1.0 (abc)",
    "data_hash": "f00",
    "machine": {"cpu": "A processor", "cores": 4, "gpu": None, "torch": "2.14"},
}


def test_the_card_holds_the_numbers_and_valid_front_matter() -> None:
    card = render_model_card(CONTENTS, "demo-model")
    again = ModelCard(str(card))
    assert again.data.license == "apache-2.0" and again.data.library_name == "transformers"
    for part in (
        "# demo-model",
        "100 clips",
        "35.0%",
        "10.0%",
        "`demo`",
        "seed 3",
        "f00",
        "A processor (4 cores)",
    ):
        assert part in again.text, part
    assert "{{" not in again.text


def test_what_was_not_measured_is_not_in_the_table() -> None:
    assert "speech" not in results_table(METRICS)
    measured = METRICS | {f"validation/speech_to_video_recall_at_{k}": k / 50 for k in (1, 5, 10)}
    assert "| speech to video | 2.0% | 10.0% | 20.0% |" in results_table(measured)


def test_a_gpu_is_named_before_the_processor() -> None:
    machine = {**CONTENTS["machine"], "gpu": "A GPU"}
    assert "A GPU (4 cores)" in render_model_card({**CONTENTS, "machine": machine}, "m").text


def test_a_run_without_held_out_scans_says_so() -> None:
    card = render_model_card({**CONTENTS, "metrics": {"train/loss": 1.0}}, "m")
    assert "no held-out scans" in card.text and "recall" not in card.text
