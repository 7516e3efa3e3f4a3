"""What all three towers keep to: freezing, gradient checkpointing, saving and loading, form of the output."""

from unittest import mock

import pytest
import torch
from tower_helpers import assert_same_tensors, draw_batch_norms
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

from modeling_dualrep.audio_cnn14 import ConvBlock, DualRepAudioModel
from modeling_dualrep.configuration_dualrep import (
    DualRepAudioConfig,
    DualRepConfig,
    DualRepImageConfig,
    DualRepVideoConfig,
)
from modeling_dualrep.image_resnet import DualRepImageModel, ResNetBlock
from modeling_dualrep.tower import check_shape
from modeling_dualrep.video_r2plus1d import DualRepVideoModel, R2Plus1dBlock

VIDEO = {"stem_hidden_size": 5, "hidden_sizes": [4, 6], "depths": [2, 1]}
IMAGE = {"embedding_size": 4, "hidden_sizes": [4, 6, 8, 10], "depths": [1, 2, 1, 1]}
AUDIO = {"num_mel_bins": 8, "hidden_sizes": [4, 6, 8]}


def video(**fields):
    return (
        DualRepVideoModel(DualRepVideoConfig(**VIDEO, **fields)),
        torch.randn(2, 4, 3, 16, 16),
        R2Plus1dBlock,
    )


def image(**fields):
    return DualRepImageModel(DualRepImageConfig(**IMAGE, **fields)), torch.randn(2, 3, 64, 64), ResNetBlock


def audio_over_time(**fields):
    config = DualRepAudioConfig(**AUDIO, conv_dim=1, **fields)
    return DualRepAudioModel(config), 10 * torch.randn(2, 21, 8) - 30, ConvBlock


def audio_over_time_and_mel(**fields):
    config = DualRepAudioConfig(**AUDIO, conv_dim=2, **fields)
    return DualRepAudioModel(config), 10 * torch.randn(2, 21, 8) - 30, ConvBlock


every_tower = pytest.mark.parametrize("build", [video, image, audio_over_time, audio_over_time_and_mel])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@every_tower
def test_output_has_the_last_map_the_pooled_vector_and_on_demand_every_map(build):
    tower, inputs, _ = build()
    tower.eval()
    output = tower(inputs, output_hidden_states=True)
    assert isinstance(output, BaseModelOutputWithPoolingAndNoAttention)
    assert output.pooler_output.shape == (2, tower.config.hidden_size)
    assert [map.shape[1] for map in output.hidden_states] == list(tower.config.hidden_sizes)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert tower(inputs).hidden_states is None

    last, pooled = tower(inputs, return_dict=False)
    assert torch.equal(last, output.last_hidden_state)
    assert torch.equal(pooled, output.pooler_output)
    tower.config.output_hidden_states = True
    assert len(tower(**{tower.main_input_name: inputs}).hidden_states) == len(tower.config.hidden_sizes)


@every_tower
def test_gradient_reaches_every_parameter(build):
    tower, inputs, _ = build()
    tower(inputs).pooler_output.square().sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_tower
def test_frozen_tower_learns_nothing_and_keeps_its_statistics(build, tmp_path):
    tower, inputs, _ = build(freeze=True)
    draw_batch_norms(tower)
    tower.save_pretrained(tmp_path)
    for frozen in (tower, type(tower).from_pretrained(tmp_path)):
        before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
        torch.nn.Sequential(frozen).train()
        first, second = frozen(inputs).pooler_output, frozen(inputs).pooler_output
        assert not first.requires_grad
        assert torch.equal(first, second), "dropout is at work"
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
        assert_same_tensors(frozen.state_dict(), before, rtol=0, atol=0)


@every_tower
def test_new_frozen_tower_is_frozen_from_the_start(build):
    tower, _, _ = build(freeze=True)
    assert not tower.training
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@every_tower
def test_tower_that_is_not_frozen_trains_and_counts_batches(build):
    tower, inputs, _ = build()
    assert tower.training and all(parameter.requires_grad for parameter in tower.parameters())
    tower(inputs)
    assert all(
        count == 1 for name, count in tower.state_dict().items() if name.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize("use_reentrant", [False, True])
@every_tower
def test_gradient_checkpointing_recomputes_and_changes_nothing(build, use_reentrant):
    tower, inputs, block = build()
    draw_batch_norms(tower)
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}

    def train_once(expected_runs):
        tower.load_state_dict(before)
        tower.zero_grad()
        torch.manual_seed(1)
        with mock.patch.object(block, "compute", autospec=True, side_effect=block.compute) as compute:
            tower(inputs).pooler_output.square().sum().backward()
        assert compute.call_count == expected_runs
        gradients = {name: parameter.grad.clone() for name, parameter in tower.named_parameters()}
        return gradients, {name: tensor.clone() for name, tensor in tower.state_dict().items()}

    blocks = sum(isinstance(module, block) for module in tower.modules())
    gradients, state = train_once(expected_runs=blocks)
    tower.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    recomputed_gradients, recomputed_state = train_once(expected_runs=2 * blocks)
    assert_same_tensors(recomputed_gradients, gradients, rtol=1e-5, atol=1e-6)
    # BatchNorm statistics among them: the second run is the same batch and must not count again.
    assert_same_tensors(recomputed_state, state, rtol=0, atol=0)
    assert all(layer.momentum == 0.1 for layer in tower.modules() if hasattr(layer, "momentum"))


@every_tower
def test_saved_and_loaded_tower_is_bit_identical(build, tmp_path):
    tower, inputs, _ = build()
    draw_batch_norms(tower).eval()
    tower.save_pretrained(tmp_path)
    loaded = type(tower).from_pretrained(tmp_path)
    assert_same_tensors(loaded.state_dict(), tower.state_dict(), rtol=0, atol=0)
    assert torch.equal(loaded(inputs).pooler_output, tower(inputs).pooler_output)


@every_tower
def test_tower_built_on_the_meta_device_is_initialised_like_a_new_one(build):
    tower, _, _ = build()
    loaded = type(tower).from_pretrained(None, config=tower.config, state_dict={})
    buffers = dict(loaded.named_buffers())
    assert set(buffers) <= set(loaded.state_dict()), (
        "a buffer that is not saved comes back as uninitialised memory"
    )
    assert_same_tensors(buffers, dict(tower.named_buffers()), rtol=0, atol=0)
    # Loading draws the weights anew: their spread is compared, where there are enough of them to have one.
    for name, parameter in loaded.named_parameters():
        expected = tower.get_parameter(name)
        if expected.ndim > 1 and expected.numel() >= 100:
            torch.testing.assert_close(parameter.std(), expected.std(), rtol=0.3, atol=0)
        elif expected.ndim == 1:
            assert torch.equal(parameter, expected)


class ThreeTowers(PreTrainedModel):
    """As the full model keeps its towers."""

    config_class = DualRepConfig

    def __init__(self, config):
        super().__init__(config)
        self.video_model = DualRepVideoModel(config.video_config)
        self.image_model = DualRepImageModel(config.image_config)
        self.audio_model = DualRepAudioModel(config.audio_config)
        self.post_init()


def test_one_tower_loads_out_of_the_whole_model(tmp_path):
    config = DualRepConfig(video_config=VIDEO, image_config=IMAGE, audio_config={**AUDIO, "freeze": True})
    whole = draw_batch_norms(ThreeTowers(config))
    whole.save_pretrained(tmp_path)
    for name in ("video_model", "image_model", "audio_model"):
        tower = getattr(whole, name)
        loaded, report = type(tower).from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"]
        assert loaded.config.freeze == (name == "audio_model")
        assert_same_tensors(loaded.state_dict(), tower.state_dict(), rtol=0, atol=0)


def test_freezing_one_tower_leaves_the_others():
    config = DualRepConfig(video_config={**VIDEO, "freeze": True}, image_config=IMAGE, audio_config=AUDIO)
    whole = ThreeTowers(config).train()
    assert [whole.video_model.training, whole.image_model.training, whole.audio_model.training] == [
        False,
        True,
        True,
    ]
    trained = {name.split(".")[0] for name, parameter in whole.named_parameters() if parameter.requires_grad}
    assert trained == {"image_model", "audio_model"}


def test_new_weights_of_a_tower_inside_the_whole_keep_its_own_initialisation():
    whole = ThreeTowers(DualRepConfig(video_config=VIDEO, image_config=IMAGE, audio_config=AUDIO))
    weight = whole.image_model.embedder.embedder.convolution.weight
    torch.testing.assert_close(weight.std().item(), (2 / (4 * 7 * 7)) ** 0.5, rtol=0.15, atol=0)


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 2), (3, 9, 4)])
def test_wrong_shape_is_a_sentence(shape):
    with pytest.raises(ValueError) as error:
        check_shape("frames", torch.zeros(shape), ("batch", "size", "time"), {"size": 8}, {"time": 3})
    assert (
        str(error.value)
        == f"frames has shape {shape}, but must be (batch, size, time) with size = 8, time at least 3."
    )


def test_right_shape_passes():
    check_shape("frames", torch.zeros(3, 8, 3), ("batch", "size", "time"), {"size": 8}, {"time": 3})
