"""Where fine-tuning starts: towers out of saved models, new ones, ImageNet's, and what is refused."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from tiny_models import tiny_batch, tiny_config, tiny_model
from torchvision.models import ResNet18_Weights, resnet18
from transformers import ResNetConfig

from modeling_dualrep import (
    DualRepForImageClassification,
    DualRepForSaliencyPrediction,
    DualRepForVideoClassification,
    DualRepImageModel,
    DualRepModel,
)
from modeling_dualrep.convert_weights import image_from_torchvision
from train.finetune_arguments import FinetunePlanesArguments
from train.starting_model import (
    StartingModelError,
    given_config_fields,
    read_config_fields,
    starting_config,
    starting_model,
)

NAMES = {0: "first", 1: "second", 2: "third"}
HEAD = {"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}}
TOWERS = [
    (DualRepForImageClassification, "image_model"),
    (DualRepForVideoClassification, "video_model"),
    (DualRepForSaliencyPrediction, "image_model"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pretraining folder."""
    folder = tmp_path_factory.mktemp("pretrained")
    tiny_model().save_pretrained(folder)
    return str(folder)


def assert_same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(("model_class", "tower"), TOWERS)
def test_a_saved_model_gives_its_tower(folder: str, model_class: type, tower: str) -> None:
    model = starting_model(model_class, folder, {}, **HEAD)
    assert type(model) is model_class and model.config.id2label == NAMES and model.config.num_labels == 3
    assert_same(getattr(model, tower), getattr(tiny_model(), tower))


def test_a_fine_tuned_folder_gives_its_tower_under_a_new_head(folder: str, tmp_path: Path) -> None:
    fine_tuned = starting_model(DualRepForImageClassification, folder, {}, **HEAD)
    fine_tuned.save_pretrained(tmp_path)
    again = starting_model(DualRepForImageClassification, str(tmp_path), {}, **HEAD)
    assert_same(again.image_model, fine_tuned.image_model)
    assert not torch.equal(again.classifier.weight, fine_tuned.classifier.weight)
    other = starting_model(
        DualRepForImageClassification, str(tmp_path), {}, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}
    )
    assert other.classifier.weight.shape == (2, 6) and other.config.id2label == {0: "a", 1: "b"}


def test_heads_and_random_towers_follow_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        fields = tiny_config().to_dict()
        model = starting_model(DualRepForImageClassification, "random", fields, **HEAD)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(("model_class", "tower"), TOWERS)
def test_a_linear_probe_trains_the_head_alone(folder: str, model_class: type, tower: str) -> None:
    probe = starting_model(model_class, folder, {}, linear_probe=True).train()
    trained = {name.split(".")[0] for name, weight in probe.named_parameters() if weight.requires_grad}
    assert tower not in trained and len(trained) == 1 and not getattr(probe, tower).training
    inputs = tiny_batch(4)[model_class.main_input_name]
    probe(inputs)
    assert_same(getattr(probe, tower), getattr(tiny_model(), tower))
    whole = starting_model(model_class, folder, {tower.replace("model", "config"): {"freeze": True}})
    assert all(weight.requires_grad for weight in whole.parameters()), "the option alone decides"


def test_fields_go_over_those_of_the_folder(folder: str) -> None:
    config = starting_config(folder, {"saliency_decoder_size": 8, "image_config": {"image_size": 12}})
    assert config.saliency_decoder_size == 8 and config.image_config.image_size == 12
    assert config.image_config.hidden_sizes == tiny_config().image_config.hidden_sizes


def test_a_configuration_can_be_taken_without_its_weights(folder: str) -> None:
    fields = {"output_dir": "out", "dataset": "set", "max_steps": 1, "model": "random"}
    arguments = FinetunePlanesArguments(**fields, config_from=folder, model_config={"temperature": 0.2})
    model = starting_model(DualRepForImageClassification, "random", given_config_fields(arguments), **HEAD)
    assert model.config.image_config.hidden_sizes == tiny_config().image_config.hidden_sizes
    assert model.config.temperature == 0.2
    plain = FinetunePlanesArguments(**fields, model_config={"temperature": 0.2})
    assert given_config_fields(plain) == {"temperature": 0.2}


@pytest.mark.parametrize("fails", [False, True])
def test_imagenet_weights_are_torchvision_s(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    published = resnet18().state_dict()

    def get_state_dict(self: ResNet18_Weights, **options: object) -> dict[str, torch.Tensor]:
        if fails:
            raise URLError("no network")
        return published

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", get_state_dict)
    if fails:
        with pytest.raises(StartingModelError, match=r"cannot be downloaded .*no network"):
            starting_model(DualRepForImageClassification, "imagenet", {}, **HEAD)
        return
    model = starting_model(DualRepForImageClassification, "imagenet", {}, **HEAD)
    for name, value in image_from_torchvision(published).items():
        assert torch.equal(model.image_model.state_dict()[name], value), name
    with pytest.raises(StartingModelError, match="Leave image_config out of model_config"):
        starting_model(DualRepForImageClassification, "imagenet", {"image_config": {"embedding_size": 8}})


def test_imagenet_is_refused_for_clips() -> None:
    with pytest.raises(StartingModelError, match="--video kinetics"):
        starting_model(DualRepForVideoClassification, "imagenet", tiny_config().to_dict(), **HEAD)


def test_models_that_cannot_be_used_are_refused_in_sentences(folder: str, tmp_path: Path) -> None:
    def refusal(model_class: type, model: str, fields: dict) -> str:
        with pytest.raises(StartingModelError) as caught:
            starting_model(model_class, model, fields, **HEAD)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "the folder has no config.json" in refusal(
        DualRepForImageClassification, str(tmp_path / "empty"), {}
    )
    nowhere = str(tmp_path / "nowhere")
    assert f"There is no DualRep model {nowhere!r}" in refusal(DualRepForImageClassification, nowhere, {})
    ResNetConfig().save_pretrained(tmp_path / "resnet")
    assert "model_type is 'resnet'" in refusal(DualRepForImageClassification, str(tmp_path / "resnet"), {})
    DualRepForImageClassification(tiny_config()).save_pretrained(tmp_path / "image")
    assert "gives no video tower" in refusal(DualRepForVideoClassification, str(tmp_path / "image"), {})
    DualRepModel(tiny_config(use_image=False)).save_pretrained(tmp_path / "no_image")
    assert "gives no image tower" in refusal(DualRepForImageClassification, str(tmp_path / "no_image"), {})
    DualRepImageModel(tiny_config().image_config).save_pretrained(tmp_path / "tower")
    assert "model_type is 'dualrep_image'" in refusal(
        DualRepForImageClassification, str(tmp_path / "tower"), {}
    )
    wider = {"image_config": {"hidden_sizes": [4, 12]}}
    assert "does not fit model_config" in refusal(DualRepForImageClassification, folder, wider)
    misspelt = {"image_config": {"freze": True}}
    assert "Under `model_config`" in refusal(DualRepForImageClassification, "random", misspelt)


def test_what_is_read_of_a_configuration_makes_it_again(folder: str) -> None:
    again = starting_config("random", read_config_fields(folder))
    assert again.to_diff_dict() == starting_config(folder, {}).to_diff_dict()
