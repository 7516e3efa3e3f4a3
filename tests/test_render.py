"""The card says what the files of a run say, and nothing that was not measured."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState
from card_folders import (
    DATA_HASH,
    RETRIEVAL,
    plane_metrics,
    without_intervals,
    write_image_planes,
    write_pretrained,
    write_saliency,
    write_video_planes,
)
from frame_set_helpers import frame_rows, write_set
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from test_finetune_planes import run as run_finetune_planes

from datasets_scripts.schema import PLANES
from hub_cards.card_facts import CardError, read_facts
from hub_cards.card_results import eval_results, retrieval_table, with_spread
from hub_cards.render import TEMPLATES, hub_id, main, render_card, write_card
from modeling_dualrep import DualRepAudioModel

HUB_CARDS = Path(__file__).resolve().parents[1] / "hub_cards"
# Keys of https://github.com/huggingface/hub-docs/blob/main/modelcard.md
KNOWN_KEYS = {
    "base_model",
    "library_name",
    "license",
    "metrics",
    "model-index",
    "pipeline_tag",
    "tags",
}
WRITERS = {
    "pretrained": write_pretrained,
    "image_planes": write_image_planes,
    "video_planes": write_video_planes,
    "saliency": write_saliency,
}
DATA = {
    "config": "medium",
    "clip_seconds": 6.0,
    "clips": {"train": 2093, "validation": 147},
    "data_hash": DATA_HASH,
}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each kind, with its card."""
    folder = WRITERS[request.param](tmp_path_factory.mktemp(request.param) / "model")
    write_card(folder)
    return folder


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    return write_pretrained(tmp_path / "demo-model")


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_the_metadata_is_what_the_hub_takes(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    data = ModelCard.load(folder / "README.md").data
    assert set(yaml.safe_load(text.split("---\n")[1])) <= KNOWN_KEYS
    assert (data.license, data.library_name) == ("apache-2.0", "transformers")
    assert "fetal-ultrasound" in data.tags
    expected = {
        "DualRepModel": "feature-extraction",
        "DualRepForImageClassification": "image-classification",
        "DualRepForVideoClassification": "video-classification",
        "DualRepForSaliencyPrediction": "image-feature-extraction",
    }
    (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
    assert data.pipeline_tag == expected[architecture]


def test_the_results_go_through_the_model_index_and_back(folder: Path) -> None:
    results = eval_results(read_facts(folder))
    loaded = ModelCard.load(folder / "README.md").data
    assert loaded.eval_results == results and loaded.model_name == "model"
    name, again = model_index_to_eval_results(eval_results_to_model_index("model", results))
    assert (name, again) == ("model", results)
    measured = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert results and {result.metric_value for result in results} <= set(measured.values())
    assert {result.dataset_args["data_hash"] for result in results} == {DATA_HASH}


def test_the_card_says_what_every_card_must(folder: Path) -> None:
    text = ModelCard.load(folder / "README.md").text
    for part in (
        "# model",
        "not for diagnosis",
        "seed 3",
        DATA_HASH,
        "`tiny`",
        "0 (a)",
        "## Limits and biases",
        "Apache-2.0",
        "10.1109/ISBI56570.2024.10635693",
        "@software{dualrep",
        "trust_remote_code=True",
    ):
        assert part in text, part
    assert not re.search(r"\{\{ |\{%|None|Undefined", text)
    assert str(folder) not in text


def test_every_picture_of_the_card_is_in_the_folder(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures and all((folder / picture).is_file() for picture in pictures)


@pytest.mark.parametrize("template", sorted(set(TEMPLATES.values())))
def test_no_number_is_typed_into_a_template(template: str) -> None:
    """But the year of the paper, and what code needs."""
    text = (HUB_CARDS / template).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|\{\{.*?\}\}|\{%.*?%\}", "", text, flags=re.DOTALL)
    assert not re.search(r"\d", prose.replace("ISBI 2024", "").replace("Apache-2.0", ""))


def test_the_citation_is_of_this_version() -> None:
    """It has an address once pyproject.toml has one."""
    project = tomllib.loads((HUB_CARDS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    software = (HUB_CARDS / "citation.md").read_text(encoding="utf-8").split("@software")[1]
    assert f"version = {{{project['version']}}}" in software and re.search(r"year += \{\d{4}\}", software)
    addresses = set(project.get("urls", {}).values())
    assert set(re.findall(r"https?://[^}]+", software)) <= addresses
    assert not addresses or "url" in software


def test_other_numbers_give_another_card(folder: Path, tmp_path: Path) -> None:
    """Every number of the results section is from metrics.json: with all of them changed, all are others."""
    facts = read_facts(folder)
    section = ModelCard.load(folder / "README.md").text.split("## Results")[1].split("## Training")[0]
    cells = re.findall(r"\d+\.\d+", section)
    shifted = {name: value + 0.111 for name, value in facts.metrics.items()}
    for path in ("config.json", "recipe.yaml"):
        (tmp_path / path).write_bytes((folder / path).read_bytes())
    (tmp_path / "metrics.json").write_text(json.dumps({**facts.measured, "metrics": shifted}))
    other = render_card(tmp_path).text.split("## Results")[1].split("## Training")[0]
    others = re.findall(r"\d+\.\d+", other)
    assert len(cells) == len(others) > 5
    assert all(one != another for one, another in zip(cells, others, strict=True))


def test_the_numbers_of_a_pretrained_model(pretrained: Path) -> None:
    text = render_card(pretrained).text
    assert "gallery of 100 clips" in text
    assert "| frame to video | 31.0% (21.0% to 51.0%) | 35.0% (25.0% to 55.0%) | 40.0% (" in text
    assert "In brackets, the 95% interval" in text
    assert "| speech to video | 11.0% | 15.0% | 20.0% |" in text
    assert "| speech of another plane, same voice | 0.8% | 4.0% | 8.0% |" in text
    assert "| chance | 1.0% | 5.0% | 10.0% |" in text
    assert "Speech to video: 85.0% of the queries do not find" in text
    assert "| max steps | 3 |" in text
    assert "| temperature | 0.1 |" in text


def test_what_was_not_measured_is_not_in_the_table() -> None:
    silent = {name: value for name, value in RETRIEVAL.items() if "speech" not in name}
    assert "speech" not in retrieval_table(silent) and "frame to video" in retrieval_table(silent)


def test_a_run_without_held_out_scans_says_so(tmp_path: Path) -> None:
    card = render_card(write_pretrained(tmp_path, metrics={"train/loss": 1.0}))
    assert "no held-out scans" in card.text and "recall" not in card.text
    assert card.data.eval_results is None and card.data.metrics is None


def test_means_stand_with_deviation_and_range() -> None:
    metrics = {"test/f1": 0.5, "test/f1_std": 0.1, "split_1/f1": 0.4, "split_2/f1": 0.6, "split_2/f1_a": 0.9}
    assert with_spread(metrics, "test/f1", "{:.1%}") == "50.0% (10.0%; 40.0% to 60.0%)"
    assert with_spread({"test/f1": 0.5}, "test/f1", "{:.1%}") == "50.0%"
    prior = {"center_prior/kld": 1.0, "center_prior/kld_std": 0.5, **metrics}
    assert with_spread(prior, "center_prior/kld", "{:.2f}") == "1.00 (0.50)"


def test_intervals_stand_before_the_deviation() -> None:
    metrics = {"test/f1": 0.5, "test/f1_low": 0.3, "test/f1_high": 0.7, "split_1/f1": 0.4, "split_2/f1": 0.6}
    assert with_spread(metrics, "test/f1", "{:.1%}") == "50.0% (30.0% to 70.0%)"
    assert (
        with_spread(metrics | {"test/f1_std": 0.1}, "test/f1", "{:.1%}") == "50.0% (30.0% to 70.0%; ± 10.0%)"
    )


def test_the_model_index_holds_the_intervals(folder: Path) -> None:
    measured = json.loads((folder / "metrics.json").read_text())["metrics"]
    results = ModelCard.load(folder / "README.md").data.eval_results
    with_interval = [result for result in results if result.metric_args is not None]
    assert with_interval
    for result in with_interval:
        (low,) = {measured[name] for name in measured if measured[name] == result.metric_args["low"]}
        assert low < result.metric_value < result.metric_args["high"]
        assert (result.metric_args["confidence"], result.metric_args["resampled"]) == (0.95, "scans")


def test_metrics_without_intervals_give_a_card_too(folder: Path, tmp_path: Path) -> None:
    """As runs left them before there were any."""
    facts = read_facts(folder)
    for path in ("config.json", "recipe.yaml"):
        (tmp_path / path).write_bytes((folder / path).read_bytes())
    older = {**facts.measured, "metrics": without_intervals(facts.metrics)}
    (tmp_path / "metrics.json").write_text(json.dumps(older))
    card = render_card(tmp_path)
    assert "% interval" not in card.text and "±" not in card.text
    assert all(result.metric_args is None for result in card.data.eval_results)
    if facts.kind.endswith("planes"):
        assert "(standard deviation; lowest to highest split)" in card.text
        assert re.search(r"\| macro average \| 33\.0% \(1\.4%; 32\.0% to 34\.0%\)", card.text)


def test_the_weakest_planes_are_named_and_those_that_no_frame_shows(tmp_path: Path) -> None:
    folder = write_image_planes(tmp_path)
    metrics = plane_metrics(tuple(name for name in PLANES if name != "lips"))
    metrics |= {f"{split}/f1_kidneys": 0.125 for split in ("test", "split_1", "split_2")}
    change(folder / "metrics.json", metrics=metrics)
    text = render_card(folder).text
    assert "Weakest by F1: kidneys (12.5%" in text
    assert "No test frame shows lips: nothing is known" in text and "| lips |" not in text
    assert "2 splits" in text


def test_a_saliency_card_says_how_far_the_centre_prior_gets(tmp_path: Path) -> None:
    text = render_card(write_saliency(tmp_path)).text
    assert "reaches a KLD of 1.50 where this model reaches 1.00" in text
    assert "On split 1 this model reaches a KLD of 1.00, one that started from random weights 1.25." in text
    assert "scans of one split" in text


def test_the_set_is_described_where_it_describes_itself(pretrained: Path) -> None:
    assert "| the set |" not in render_card(pretrained).text
    (pretrained / "data.json").write_text(json.dumps(DATA))
    text = render_card(pretrained).text
    assert "| clip seconds | 6 |" in text and "| clips | train 2093, validation 147 |" in text
    assert "Simulated" not in text and "split by patient" in text


def test_a_simulated_run_says_that_it_is_one(pretrained: Path) -> None:
    recipe = yaml.safe_load((pretrained / "recipe.yaml").read_text())
    (pretrained / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "simulation": {"scans": 3}}))
    text = render_card(pretrained).text
    assert "synthetic pictures, synthetic speech, no patient" in text
    assert "It has seen simulated recordings alone" in text


def test_where_the_weights_are_from_is_told_without_a_path(pretrained: Path) -> None:
    recipe = yaml.safe_load((pretrained / "recipe.yaml").read_text())
    recipe["video_weights"] = {"source": "kinetics", "path": "/home/somebody/weights.pth"}
    recipe["audio_weights"] = {"source": "/home/somebody/run", "path": None}
    recipe["speech_words"] |= {"steps": 500, "words": 100}
    (pretrained / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    text = render_card(pretrained).text
    assert "| video weights | kinetics |" in text and "| audio weights | another model of this kind |" in text
    assert "| everyday words taught before | 100 |" in text
    assert "somebody" not in text


def test_a_gpu_is_named_before_the_processor(pretrained: Path) -> None:
    machine = {"cpu": "A processor", "cores": 4, "gpu": None, "torch": "2.14"}
    change(pretrained / "metrics.json", machine=machine)
    assert "A processor (4 cores)" in render_card(pretrained).text
    change(pretrained / "metrics.json", machine={**machine, "gpu": "A GPU"})
    assert "A GPU (4 cores)" in render_card(pretrained).text


def test_a_task_model_names_its_base(tmp_path: Path) -> None:
    folder = write_image_planes(tmp_path)
    assert "started from random weights" in render_card(folder).text
    card = render_card(folder, "clinic/planes", "clinic/base")
    assert card.data.base_model == "clinic/base"
    assert "`clinic/base`" in card.text
    assert card.text.count('"clinic/planes"') == 2 and "# planes" in card.text


@pytest.mark.parametrize("template", sorted(set(TEMPLATES.values())))
def test_no_card_links_to_one_hub(template: str) -> None:
    """A private hub has other addresses: a link without a host is one of whichever hub shows the card."""
    assert "huggingface.co" not in (HUB_CARDS / template).read_text(encoding="utf-8")


def test_rendering_anew_keeps_the_base(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_image_planes(tmp_path)
    assert main([str(folder), "--base_model", "clinic/base"]) == 0
    assert main([str(folder), "--model_id", "clinic/planes"]) == 0
    assert ModelCard.load(folder / "README.md").data.base_model == "clinic/base"
    assert "README.md" in capsys.readouterr().out


def test_a_tower_points_to_its_whole(pretrained: Path, tmp_path: Path) -> None:
    DualRepAudioModel.from_pretrained(pretrained).save_pretrained(tmp_path / "tower")
    card = render_card(tmp_path / "tower", base_model="clinic/base")
    assert "The speech tower" in card.text and "`clinic/base`" in card.text
    assert card.data.eval_results is None and card.data.base_model == "clinic/base"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("random", None),
        ("imagenet", None),
        ("clinic/base", "clinic/base"),
        ("a/b/c", None),
        ("/abs/run", None),
    ],
)
def test_a_model_is_an_id_unless_it_is_something_here(model: str, expected: str | None) -> None:
    assert hub_id(model) == expected


def test_a_folder_here_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "base").mkdir(parents=True)
    assert hub_id("runs/base") is None and hub_id("runs/other") == "runs/other"


@pytest.mark.parametrize(
    ("file", "contents", "sentence"),
    [
        ("metrics.json", None, "a card needs the files that training writes"),
        ("metrics.json", "{", "is damaged"),
        ("metrics.json", '{"metrics": {}}', "lacks recipe, seed"),
        ("recipe.yaml", None, "cannot be read"),
        ("recipe.yaml", "- 1", "holds no fields"),
        ("config.json", '{"architectures": ["BertModel"]}', "none of DualRep's"),
        ("config.json", "{}", "none of DualRep's"),
    ],
)
def test_a_folder_without_its_facts_gives_a_sentence(
    file: str, contents: str | None, sentence: str, pretrained: Path, capsys: pytest.CaptureFixture
) -> None:
    (pretrained / file).unlink()
    if contents is not None:
        (pretrained / file).write_text(contents)
    with pytest.raises(CardError, match=re.escape(sentence)):
        read_facts(pretrained)
    assert main([str(pretrained)]) == 2
    assert capsys.readouterr().err.startswith("render: ")
    assert not (pretrained / "README.md").exists()


def test_an_id_that_the_hub_refuses_is_refused(pretrained: Path) -> None:
    with pytest.raises(CardError, match="no name of a model on the Hub"):
        render_card(pretrained, "clinic/a model")


def test_a_failed_card_leaves_the_older_one(pretrained: Path) -> None:
    older = write_card(pretrained).read_text()
    (pretrained / "metrics.json").unlink()
    with pytest.raises(CardError):
        write_card(pretrained)
    assert (pretrained / "README.md").read_text() == older
    assert not list(pretrained.glob("*.partial")) and not list(pretrained.glob(".*.partial"))


def test_fine_tuning_leaves_a_card(tmp_path: Path) -> None:
    """By the command's own function; its set says of itself what data.json then holds."""
    AcceleratorState._reset_state(reset_partial_state=True)
    frames = write_set(tmp_path / "set", {"train": frame_rows(6, 3)})
    info = frames / "data" / "planes" / "info.json"
    info.write_text(json.dumps({"config": "planes", "frame_size": 16, "data_hash": DATA_HASH}))
    folder = run_finetune_planes(frames, tmp_path / "planes", max_steps=1)
    card = ModelCard.load(folder / "README.md")
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert {result.metric_value for result in card.data.eval_results} <= set(metrics.values())
    assert (folder / "data.json").read_bytes() == info.read_bytes()
    assert "| frame size | 16 |" in card.text and DATA_HASH in card.text
    assert "pictures/confusion_matrix.png" in card.text and "pictures/reliability.png" in card.text


def test_card_data_of_ours_and_of_the_hub_agree(folder: Path) -> None:
    """What huggingface_hub makes of the metadata is what was meant, field by field."""
    card = render_card(folder)
    again = ModelCard(str(card))
    assert isinstance(again.data, ModelCardData) and again.data.to_dict() == card.data.to_dict()
    assert str(again) == str(card)
