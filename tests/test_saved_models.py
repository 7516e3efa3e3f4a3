"""What a saved folder gives to the whole model, to a tower alone, to task models and to pipelines."""

import fractions
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import FRAMES, SIZE, tiny_batch, tiny_config, tiny_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    ResNetConfig,
    ResNetModel,
    pipeline,
)

from datasets_scripts.schema import PLANES
from modeling_dualrep import (
    DualRepAudioModel,
    DualRepConfig,
    DualRepForImageClassification,
    DualRepForSaliencyPrediction,
    DualRepForVideoClassification,
    DualRepImageModel,
    DualRepImageProcessor,
    DualRepModel,
    DualRepVideoModel,
    DualRepVideoProcessor,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining folder."""
    folder = tmp_path_factory.mktemp("pretrained")
    tiny_model().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("clips", [1, 3])
def test_a_saved_model_gives_the_same_embeddings(folder: Path, clips: int) -> None:
    """To the last bit; one clip is the case in which the place of the weights in memory matters."""
    model, batch = AutoModel.from_pretrained(folder), tiny_batch(clips)
    assert isinstance(model, DualRepModel) and isinstance(AutoConfig.from_pretrained(folder), DualRepConfig)
    output, expected = model(**batch), tiny_model()(**batch)
    assert all(torch.equal(output[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("tower", "name", "argument"),
    [
        (DualRepVideoModel, "video_model", "pixel_values_videos"),
        (DualRepAudioModel, "audio_model", "input_features"),
        (DualRepImageModel, "image_model", "pixel_values"),
    ],
)
def test_one_tower_can_be_taken_out_of_the_whole(folder: Path, tower: type, name: str, argument: str) -> None:
    model, info = tower.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    inputs = tiny_batch(3)[argument]
    expected = getattr(tiny_model(), name)(inputs).pooler_output
    assert torch.equal(model(inputs).pooler_output, expected)


@pytest.mark.parametrize(
    ("auto_class", "task_model", "tower", "argument"),
    [
        (AutoModelForImageClassification, DualRepForImageClassification, "image_model", "pixel_values"),
        (
            AutoModelForVideoClassification,
            DualRepForVideoClassification,
            "video_model",
            "pixel_values_videos",
        ),
    ],
)
def test_a_task_model_loads_from_the_pretraining_folder(
    folder: Path, tmp_path: Path, auto_class: type, task_model: type, tower: str, argument: str
) -> None:
    model, info = auto_class.from_pretrained(folder, num_labels=14, output_loading_info=True)
    assert isinstance(model, task_model)
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    inputs, labels = tiny_batch(3)[argument], torch.tensor([0, 5, 13])
    features = getattr(tiny_model(), tower)(inputs).pooler_output
    assert torch.equal(getattr(model, tower)(inputs).pooler_output, features)
    output = model(**{argument: inputs}, labels=labels)
    assert output.logits.shape == (3, 14)
    torch.testing.assert_close(output.logits, model.classifier(features))
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    model.save_pretrained(tmp_path)
    again = auto_class.from_pretrained(tmp_path)
    assert torch.equal(again(**{argument: inputs}).logits, output.logits)


def test_a_folder_of_another_size_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"mismatch"):
        DualRepModel.from_pretrained(folder, config=tiny_config(projection_dim=4))


@pytest.fixture(scope="module")
def image_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tower and a head."""
    image_folder = tmp_path_factory.mktemp("classifier")
    DualRepForImageClassification.from_pretrained(folder, num_labels=3).save_pretrained(image_folder)
    return image_folder


@pytest.mark.parametrize(
    ("model", "lacking"),
    [
        (DualRepModel, "audio_model.blocks.0.conv1.weight"),
        (DualRepForVideoClassification, "video_model.stages.0.0"),
        (DualRepAudioModel, "blocks.0.conv1.weight"),
    ],
)
def test_a_folder_without_a_tower_is_refused(image_folder: Path, model: type, lacking: str) -> None:
    """transformers would draw the tower anew and go on."""
    message = (
        rf"{image_folder} was saved by another architecture than this {model.__name__}: it lacks {lacking}"
    )
    with pytest.raises(ValueError, match=message):
        model.from_pretrained(image_folder)
    _, info = model.from_pretrained(image_folder, output_loading_info=True)
    assert any(key.startswith(lacking) for key in info["missing_keys"])


def test_a_folder_of_a_task_model_gives_its_tower(image_folder: Path) -> None:
    tower, info = DualRepImageModel.from_pretrained(image_folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    inputs = tiny_batch(3)["pixel_values"]
    assert torch.equal(tower(inputs).pooler_output, tiny_model().image_model(inputs).pooler_output)


@pytest.fixture(scope="module")
def saliency_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image tower and a decoder."""
    saliency_folder = tmp_path_factory.mktemp("saliency")
    torch.manual_seed(1)
    DualRepForSaliencyPrediction.from_pretrained(
        folder, saliency_decoder_size=5, saliency_center_bias=True, saliency_loss="kld_cc_nss"
    ).save_pretrained(saliency_folder)
    return saliency_folder


def test_a_saliency_model_loads_from_the_pretraining_folder(folder: Path) -> None:
    model, info = DualRepForSaliencyPrediction.from_pretrained(
        folder, saliency_center_bias=True, output_loading_info=True
    )
    assert {key.partition(".")[0] for key in info["missing_keys"]} == {"saliency_decoder"}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    inputs = tiny_batch(3)["pixel_values"]
    assert torch.equal(
        model.image_model(inputs).pooler_output, tiny_model().image_model(inputs).pooler_output
    )
    assert model.saliency_decoder.center_bias.center.tolist() == [0.5, 0.5]
    assert model.saliency_decoder.center_bias.log_sigma.exp().tolist() == pytest.approx([0.25, 0.25])
    assert model(inputs).log_saliency_maps.isfinite().all()


def test_automodel_takes_each_folder_for_what_it_is(folder: Path, saliency_folder: Path) -> None:
    """And nothing is lost: the maps are the same to the last bit."""
    model, inputs = AutoModel.from_pretrained(saliency_folder), tiny_batch(3)["pixel_values"]
    assert type(model) is DualRepForSaliencyPrediction
    expected = DualRepForSaliencyPrediction.from_pretrained(saliency_folder)(inputs)
    assert torch.equal(model(inputs).saliency_maps, expected.saliency_maps)
    assert model.saliency_decoder.mix.out_channels == 5 and model.config.saliency_loss == "kld_cc_nss"
    assert type(AutoModel.from_config(model.config)) is DualRepForSaliencyPrediction
    for pretrained in (folder, str(folder)):
        assert type(AutoModel.from_pretrained(pretrained)) is DualRepModel
    assert type(AutoModel.from_config(DualRepConfig())) is DualRepModel


def test_a_saliency_folder_gives_its_tower(saliency_folder: Path) -> None:
    inputs, whole = tiny_batch(3)["pixel_values"], AutoModel.from_pretrained(saliency_folder)
    expected = whole.image_model(inputs).pooler_output
    classifier, info = AutoModelForImageClassification.from_pretrained(
        saliency_folder, num_labels=14, output_loading_info=True
    )
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"} and not info["unexpected_keys"]
    assert torch.equal(classifier.image_model(inputs).pooler_output, expected)
    tower, info = DualRepImageModel.from_pretrained(saliency_folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(tower(inputs).pooler_output, expected)


@pytest.mark.parametrize("model", [DualRepModel, DualRepForVideoClassification])
def test_a_saliency_folder_is_no_other_towers(saliency_folder: Path, model: type) -> None:
    message = f"saved by another architecture than this {model.__name__}: it lacks"
    with pytest.raises(ValueError, match=message):
        model.from_pretrained(saliency_folder)


@pytest.mark.parametrize(
    ("tower", "field", "task_models"),
    [
        (DualRepImageModel, "image_config", (DualRepForImageClassification, DualRepForSaliencyPrediction)),
        (DualRepVideoModel, "video_config", (DualRepForVideoClassification,)),
    ],
)
def test_a_task_model_loads_from_a_towers_folder(
    folder: Path, tmp_path: Path, tower: type, field: str, task_models: tuple[type, ...]
) -> None:
    """Given the configuration that the tower belongs in."""
    saved = tower.from_pretrained(folder)
    saved.save_pretrained(tmp_path)
    config = tiny_config(**{field: saved.config})
    inputs = tiny_batch(3)[tower.main_input_name]
    for task_model in task_models:
        model = task_model.from_pretrained(tmp_path, config=config)
        assert torch.equal(model.base_model(inputs).pooler_output, saved(inputs).pooler_output)
    wrong = DualRepForVideoClassification if tower is DualRepImageModel else DualRepForImageClassification
    with pytest.raises((RuntimeError, ValueError), match=r"mismatch|saved by another architecture"):
        wrong.from_pretrained(tmp_path, config=config)


@pytest.mark.parametrize(
    ("saved", "wanted", "message"), [([1, 1], [2, 1], "it lacks"), ([2, 1], [1, 1], "it holds as well")]
)
def test_a_folder_of_another_depth_is_refused(
    tmp_path: Path, saved: list, wanted: list, message: str
) -> None:
    def of_depths(depths: list[int]) -> DualRepConfig:
        config = tiny_config()
        config.video_config.depths = depths
        return config

    DualRepModel(of_depths(saved)).save_pretrained(tmp_path)
    for model in (DualRepModel, DualRepForVideoClassification):
        with pytest.raises(ValueError, match=f"{message} video_model.stages.0.1."):
            model.from_pretrained(tmp_path, config=of_depths(wanted))


def test_heads_that_a_folder_lacks_are_new(tmp_path: Path) -> None:
    tiny_model(use_similarity_loss=False).save_pretrained(tmp_path)
    model = DualRepModel.from_pretrained(tmp_path, use_similarity_loss=True).train()
    loss = model(**tiny_batch(3), return_loss=True).loss
    assert loss.isfinite()


def test_a_folder_of_another_library_model_is_refused(tmp_path: Path) -> None:
    ResNetModel(ResNetConfig(hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")).save_pretrained(
        tmp_path
    )
    for model in (DualRepModel, DualRepImageModel):
        with pytest.raises(ValueError, match="model_type is 'resnet', but must be 'dualrep"):
            model.from_pretrained(tmp_path)


def test_the_pipelines_of_transformers_take_the_task_models(folder: Path, tmp_path: Path) -> None:
    labels = {index: f"plane {index}" for index in range(14)}
    image = AutoModelForImageClassification.from_pretrained(folder, id2label=labels)
    image_processor = DualRepImageProcessor(size={"height": SIZE, "width": SIZE})
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    video_path = write_video(tmp_path / "clip.mp4")
    image.save_pretrained(tmp_path / "image")
    image_processor.save_pretrained(tmp_path / "image")
    scores = pipeline("image-classification", model=str(tmp_path / "image"))(Image.fromarray(frame), top_k=14)
    assert {score["label"] for score in scores} == set(labels.values())

    video = AutoModelForVideoClassification.from_pretrained(folder, id2label=labels)
    video.save_pretrained(tmp_path / "video")
    DualRepVideoProcessor(size={"height": SIZE, "width": SIZE}, num_frames=FRAMES).save_pretrained(
        tmp_path / "video"
    )
    scores = pipeline("video-classification", model=str(tmp_path / "video"))(str(video_path), top_k=14)
    assert {score["label"] for score in scores} == set(labels.values())
    assert sum(score["score"] for score in scores) == pytest.approx(1)


@pytest.mark.media
def test_real_planes_go_through_the_image_pipeline(media: Path, tmp_path: Path) -> None:
    """By a model that has learnt nothing: what it takes them for is not the matter."""
    names = {index: name for index, name in enumerate(PLANES)}
    torch.manual_seed(0)
    config = tiny_config(id2label=names, label2id={name: index for index, name in names.items()})
    DualRepForImageClassification(config).save_pretrained(tmp_path)
    DualRepImageProcessor().save_pretrained(tmp_path)
    classify = pipeline("image-classification", model=str(tmp_path))
    pictures = sorted(str(path) for path in (media / "fetal_planes").glob("*.png"))
    assert len(pictures) == 13
    for scores in classify(pictures, top_k=len(PLANES)):
        assert {score["label"] for score in scores} == set(PLANES)
        assert sum(score["score"] for score in scores) == pytest.approx(1)


def write_video(path: Path) -> Path:
    """A second of noise."""
    frames = np.random.default_rng(1).integers(0, 256, (10, 32, 48, 3), dtype=np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=fractions.Fraction(10))
        stream.width, stream.height = 48, 32
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
