"""The README's fine-tuning with transformers alone runs as it is printed."""

import re
from pathlib import Path

import pytest
from card_folders import python_blocks, run_elsewhere, write_inputs, write_pretrained

from hub_cards.render import NO_ID, render_card

README = Path(__file__).resolve().parents[1] / "README.md"
MODEL_ID = re.compile(r'^model_id = "(.+)"$', re.MULTILINE)
LONGEST = 40
CHECK = """
assert trainer.state.global_step == 100 and trainer.evaluate()["eval_accuracy"] == 1
from transformers import pipeline
scores = pipeline("image-classification", model="planes", trust_remote_code=True)("frame.png")
assert {score["label"] for score in scores} == {"femur", "lips"} and scores[0]["label"] == "femur"
"""


def training_example(markdown: str) -> str:
    """The one block of a text that trains on a folder of pictures."""
    (block,) = (block for block in python_blocks(markdown) if '"imagefolder"' in block)
    return block


def test_the_example_is_short_and_that_of_the_cards(tmp_path: Path) -> None:
    example = training_example(README.read_text(encoding="utf-8"))
    assert len(example.splitlines()) < LONGEST
    of_card = training_example(render_card(write_pretrained(tmp_path)).text)
    assert MODEL_ID.sub(f'model_id = "{NO_ID}"', example) == of_card


@pytest.mark.slow
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    """In a process without this package, on pictures that two planes tell apart by their brightness."""
    example = training_example(README.read_text(encoding="utf-8"))
    write_pretrained(write_inputs(tmp_path) / MODEL_ID.search(example)[1])
    run_elsewhere(tmp_path, example + CHECK)
