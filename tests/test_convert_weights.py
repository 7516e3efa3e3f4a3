"""Published weights reach the towers, and files that do not fit are refused with a sentence."""

from pathlib import Path

import pytest
import torch
from panns_reference import Cnn14, save_checkpoint
from torchvision.models import resnet18, resnet34, resnet50
from torchvision.models.video import r2plus1d_18, r3d_18
from tower_helpers import assert_same_tensors, draw_batch_norms

from modeling_dualrep import convert_weights
from modeling_dualrep.audio_cnn14 import DualRepAudioModel
from modeling_dualrep.configuration_dualrep import (
    DualRepAudioConfig,
    DualRepConfig,
    DualRepImageConfig,
    DualRepVideoConfig,
)
from modeling_dualrep.convert_weights import (
    audio_from_panns,
    image_from_torchvision,
    load_tower_weights,
    video_from_torchvision,
)
from modeling_dualrep.image_resnet import DualRepImageModel
from modeling_dualrep.modeling_dualrep import DualRepModel
from modeling_dualrep.video_r2plus1d import DualRepVideoModel

WIDTHS = [4, 6, 8, 10, 12, 14]
TINY_AUDIO = DualRepAudioConfig(conv_dim=2, hidden_sizes=WIDTHS)
TINY_IMAGE = DualRepImageConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1])


@pytest.fixture
def panns_file(tmp_path):
    torch.manual_seed(0)
    return save_checkpoint(draw_batch_norms(Cnn14(mel_bins=64, widths=WIDTHS)), tmp_path / "Cnn14.pth")


@pytest.fixture
def resnet18_file(tmp_path):
    torch.manual_seed(0)
    torch.save(draw_batch_norms(resnet18()).state_dict(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def meta(network):
    with torch.device("meta"):
        return network().state_dict()


@pytest.mark.parametrize(
    ("network", "convert", "tower", "config"),
    [
        (r2plus1d_18, video_from_torchvision, DualRepVideoModel, DualRepVideoConfig),
        (resnet18, image_from_torchvision, DualRepImageModel, DualRepImageConfig),
    ],
)
def test_every_published_weight_but_the_classifier_has_its_place(network, convert, tower, config):
    published = meta(network)
    with torch.device("meta"):
        own = tower(config()).state_dict()
    weights = convert(published)
    assert len(weights) == len(published) - 2
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in own.items()
    }


@pytest.mark.parametrize(
    ("network", "convert", "odd"),
    [
        (r3d_18, video_from_torchvision, r"R\(2\+1\)D-18.*layer1\.0\.conv1\.0\.weight"),
        (resnet50, image_from_torchvision, None),
        (r2plus1d_18, image_from_torchvision, r"ResNet18.*layer1\.0\.conv1\.0\.0\.weight"),
    ],
)
def test_another_network_is_refused(network, convert, odd):
    if odd is None:
        # ResNet50 has ResNet18's names and more: it shows when the weights meet the tower.
        with pytest.raises(ValueError, match="does not fit DualRepImageModel"):
            convert_weights._load(DualRepImageModel(TINY_IMAGE), convert(meta(network)), "resnet50")
    else:
        with pytest.raises(ValueError, match=odd):
            convert(meta(network))


def test_local_file_of_torchvision_is_loaded(resnet18_file):
    tower = DualRepImageModel(DualRepImageConfig())
    load_tower_weights(tower, "imagenet", resnet18_file)
    assert_same_tensors(tower.state_dict(), image_from_torchvision(torch.load(resnet18_file)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("source", "weights", "network", "build"),
    [
        ("kinetics", "torchvision.models.video.R2Plus1D_18_Weights", r2plus1d_18, DualRepVideoModel),
        ("imagenet", "torchvision.models.ResNet18_Weights", resnet18, DualRepImageModel),
    ],
)
def test_without_a_file_torchvisions_weights_are_fetched(source, weights, network, build, monkeypatch):
    published, asked = network().state_dict(), []

    def get_state_dict(self, *args, **kwargs):
        asked.append((str(self), kwargs))
        return published

    monkeypatch.setattr(f"{weights}.get_state_dict", get_state_dict)
    tower = build(build.config_class())
    load_tower_weights(tower, source)
    ((name, options),) = asked
    assert name.endswith(("KINETICS400_V1", "IMAGENET1K_V1")) and options["check_hash"]
    convert = {"kinetics": video_from_torchvision, "imagenet": image_from_torchvision}[source]
    assert_same_tensors(tower.state_dict(), convert(published), rtol=0, atol=0)


def test_panns_file_is_loaded_without_what_is_not_the_towers(panns_file):
    weights = audio_from_panns(panns_file)
    tower = DualRepAudioModel(TINY_AUDIO)
    load_tower_weights(tower, "panns", panns_file)
    assert_same_tensors(tower.state_dict(), weights, rtol=0, atol=0)


def test_panns_file_of_current_torch_and_numpy_is_loaded_too(panns_file):
    checkpoint = {"model": Cnn14(mel_bins=64, widths=WIDTHS).state_dict()}
    torch.save(checkpoint, panns_file)
    assert "norm.weight" in audio_from_panns(panns_file)


def test_file_older_than_the_batch_counter_is_loaded(panns_file):
    model = torch.load(panns_file, weights_only=False)["model"]
    older = {name: tensor for name, tensor in model.items() if not name.endswith("num_batches_tracked")}
    torch.save({"model": older}, panns_file)
    tower = DualRepAudioModel(TINY_AUDIO)
    load_tower_weights(tower, "panns", panns_file)
    torch.testing.assert_close(tower.norm.weight, model["bn0.weight"])


def test_panns_file_with_a_weight_too_many_is_refused(panns_file):
    model = Cnn14(mel_bins=64, widths=WIDTHS).state_dict()
    torch.save({"model": {**model, "pre_conv0.weight": torch.zeros(1)}}, panns_file)
    with pytest.raises(
        ValueError, match=r"Cnn14\.pth is not of PANNs' CNN14, which has no pre_conv0\.weight"
    ):
        audio_from_panns(panns_file)


def test_panns_file_with_a_weight_too_few_is_refused(panns_file):
    model = Cnn14(mel_bins=64, widths=WIDTHS).state_dict()
    del model["conv_block2.bn1.running_mean"]
    torch.save({"model": model}, panns_file)
    with pytest.raises(ValueError, match=r"Cnn14\.pth does not fit.* lacks blocks\.1\.norm1\.running_mean"):
        load_tower_weights(DualRepAudioModel(TINY_AUDIO), "panns", panns_file)


def test_file_of_another_size_is_refused_with_both_shapes(panns_file):
    config = DualRepAudioConfig(conv_dim=2, hidden_sizes=[5, *WIDTHS[1:]])
    tower = DualRepAudioModel(config)
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    expected = r"Cnn14\.pth .*blocks\.0\.conv1\.weight has shape \(4, 1, 3, 3\) there and \(5, 1, 3, 3\)"
    with pytest.raises(ValueError, match=expected):
        load_tower_weights(tower, "panns", panns_file)
    assert_same_tensors(tower.state_dict(), before, rtol=0, atol=0)


def test_deeper_network_of_the_same_family_is_refused(tmp_path):
    with torch.device("meta"):
        deeper = resnet34().state_dict()
    file = tmp_path / "resnet34.pth"
    torch.save({name: torch.zeros(()).expand(tensor.shape) for name, tensor in deeper.items()}, file)
    with pytest.raises(
        ValueError, match=r"resnet34\.pth does not fit DualRepImageModel.*stages\.0\.2\.layer"
    ):
        load_tower_weights(DualRepImageModel(DualRepImageConfig()), "imagenet", file)


def test_panns_weights_for_a_tower_over_time_ask_for_two_dimensions(panns_file):
    with pytest.raises(ValueError, match="conv_dim is 1: set conv_dim=2"):
        load_tower_weights(DualRepAudioModel(DualRepAudioConfig(hidden_sizes=WIDTHS)), "panns", panns_file)


def test_panns_weights_need_a_path():
    with pytest.raises(ValueError, match=r"need the path of their file.*https://zenodo\.org"):
        load_tower_weights(DualRepAudioModel(TINY_AUDIO), "panns")


def test_weights_for_another_tower_are_refused(panns_file):
    with pytest.raises(
        ValueError, match="panns weights are for DualRepAudioModel, not for DualRepImageModel"
    ):
        load_tower_weights(DualRepImageModel(TINY_IMAGE), "panns", panns_file)


def test_file_with_an_unknown_source_is_refused(panns_file):
    with pytest.raises(ValueError, match=r"Cnn14\.pth needs a source of weights among .*, not 'pann'"):
        load_tower_weights(DualRepAudioModel(TINY_AUDIO), "pann", panns_file)


def test_unknown_source_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="'kinetic' is none of 'kinetics', 'imagenet', 'panns', nor the folder"
    ):
        load_tower_weights(DualRepImageModel(TINY_IMAGE), "kinetic")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        (b"<html>not found</html>", "cannot be read as a PyTorch checkpoint"),
        (b"", "cannot be read as a PyTorch checkpoint"),
    ],
)
def test_unreadable_file_is_named(tmp_path, content, message):
    file = tmp_path / "weights.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_tower_weights(DualRepImageModel(TINY_IMAGE), "imagenet", file)
    assert str(file) in str(error.value)


def test_truncated_file_is_named(resnet18_file):
    resnet18_file.write_bytes(resnet18_file.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"resnet18\.pth cannot be read"):
        load_tower_weights(DualRepImageModel(TINY_IMAGE), "imagenet", resnet18_file)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


@pytest.mark.parametrize("inside", ["model", "sampler"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch, inside):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, inside: Harmful()}, "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth cannot be read"):
        audio_from_panns(Path("weights.pth"))
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("content", "message"), [({"state": {}}, "no entry 'model'"), ([1, 2], "holds a list, not a dictionary")]
)
def test_file_laid_out_otherwise_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights\.pth.* {message}"):
        audio_from_panns(tmp_path / "weights.pth")


def test_tower_takes_the_weights_of_a_dualrep_folder(tmp_path):
    trained = draw_batch_norms(DualRepImageModel(TINY_IMAGE))
    trained.save_pretrained(tmp_path)
    tower = DualRepImageModel(TINY_IMAGE)
    load_tower_weights(tower, str(tmp_path))
    assert_same_tensors(tower.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_dualrep_folder_of_another_size_is_refused(tmp_path):
    DualRepImageModel(TINY_IMAGE).save_pretrained(tmp_path)
    wider = DualRepImageModel(DualRepImageConfig(embedding_size=4, hidden_sizes=[4, 7], depths=[1, 1]))
    with pytest.raises(ValueError, match=r"stages\.1\.0\.\w+.* has shape \(6, .* and \(7, "):
        load_tower_weights(wider, str(tmp_path))


def test_folder_without_the_tower_is_refused(tmp_path):
    DualRepAudioModel(TINY_AUDIO).save_pretrained(tmp_path)
    DualRepImageModel(TINY_IMAGE).config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks weights of DualRepImageModel: .*Give the folder"):
        load_tower_weights(DualRepImageModel(TINY_IMAGE), str(tmp_path))


@pytest.fixture
def small_default_model(monkeypatch):
    """The command writes the full size; the tests' audio and video towers are small."""

    def small(audio_config):
        return DualRepConfig(
            video_config={"stem_hidden_size": 5, "hidden_sizes": [4], "depths": [1]},
            audio_config={"conv_dim": audio_config.conv_dim, "hidden_sizes": WIDTHS},
            projection_dim=8,
        )

    monkeypatch.setattr(convert_weights, "DualRepConfig", small)


def test_command_writes_a_model_with_the_weights_given(
    tmp_path, resnet18_file, panns_file, small_default_model
):
    convert_weights.main(["--image", str(resnet18_file), "--audio", str(panns_file), str(tmp_path / "model")])
    written = DualRepModel.from_pretrained(tmp_path / "model")
    image = image_from_torchvision(torch.load(resnet18_file))
    assert_same_tensors(written.image_model.state_dict(), image, rtol=0, atol=0)
    assert_same_tensors(written.audio_model.state_dict(), audio_from_panns(panns_file), rtol=0, atol=0)
    assert not written.video_model.stem.norm.running_mean.any()


def test_command_without_panns_weights_leaves_the_audio_over_time(
    tmp_path, resnet18_file, small_default_model
):
    convert_weights.main(["--image", str(resnet18_file), str(tmp_path / "model")])
    assert DualRepConfig.from_pretrained(tmp_path / "model").audio_config.conv_dim == 1


def test_command_spares_a_folder_in_use_and_says_so(tmp_path, resnet18_file, capsys):
    with pytest.raises(SystemExit):
        convert_weights.main(["--image", str(resnet18_file), str(tmp_path)])
    assert f"{tmp_path} already holds files. Give a new folder." in capsys.readouterr().err
