"""The video tower is torchvision's R(2+1)D-18."""

import pytest
import torch
from torchvision.models.video import r2plus1d_18
from tower_helpers import assert_same_tensors, draw_batch_norms

from modeling_dualrep.configuration_dualrep import DualRepVideoConfig
from modeling_dualrep.convert_weights import video_from_torchvision
from modeling_dualrep.video_r2plus1d import DualRepVideoModel, TemporalConv3d

TINY = DualRepVideoConfig(stem_hidden_size=5, hidden_sizes=[4, 6, 8], depths=[1, 1, 1])


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    network = draw_batch_norms(r2plus1d_18())
    network.fc = torch.nn.Identity()
    return network


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_features_equal_torchvisions(reference, training):
    tower = DualRepVideoModel(DualRepVideoConfig())
    tower.load_state_dict(video_from_torchvision(reference.state_dict()))
    clip = torch.randn(1, 14, 3, 32, 32)
    tower.train(training), reference.train(training)
    with torch.no_grad():
        features = tower(clip).pooler_output
        expected = reference(clip.transpose(1, 2))
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    # The BatchNorm statistics too, which training moved.
    assert_same_tensors(
        tower.state_dict(), video_from_torchvision(reference.state_dict()), rtol=1e-5, atol=1e-6
    )


def test_gradients_equal_torchvisions(reference):
    tower = DualRepVideoModel(DualRepVideoConfig()).double()
    twin = r2plus1d_18().double()
    twin.fc = torch.nn.Identity()
    twin.load_state_dict(reference.state_dict())
    tower.load_state_dict(video_from_torchvision(reference.state_dict()))
    clip = torch.randn(2, 5, 3, 16, 16, dtype=torch.float64)
    tower(clip).pooler_output.square().sum().backward()
    twin(clip.transpose(1, 2)).square().sum().backward()
    expected = video_from_torchvision({name: weight.grad for name, weight in twin.named_parameters()})
    assert_same_tensors({name: weight.grad for name, weight in tower.named_parameters()}, expected)


def test_feature_maps_halve_after_the_first_stage():
    output = DualRepVideoModel(TINY)(torch.randn(2, 8, 3, 32, 48), output_hidden_states=True)
    sizes = [tuple(feature_map.shape) for feature_map in output.hidden_states]
    assert sizes == [(2, 4, 8, 16, 24), (2, 6, 4, 8, 12), (2, 8, 2, 4, 6)]
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.flatten(2).mean(-1))


@pytest.mark.parametrize("shape", [(1, 1, 3, 8, 8), (1, 3, 3, 17, 9), (1, 14, 3, 1, 1)])
def test_any_number_of_frames_and_any_size_are_taken(shape):
    assert DualRepVideoModel(TINY).eval()(torch.randn(shape)).pooler_output.shape == (1, 8)


def test_grey_video_is_taken_where_configured():
    config = DualRepVideoConfig(num_channels=1, stem_hidden_size=5, hidden_sizes=[4], depths=[1])
    assert DualRepVideoModel(config)(torch.randn(1, 2, 1, 8, 8)).pooler_output.shape == (1, 4)


@pytest.mark.parametrize("shape", [(1, 3, 14, 8, 8), (14, 3, 8, 8), (1, 0, 3, 8, 8)])
def test_wrong_shape_names_the_argument(shape):
    with pytest.raises(ValueError, match=r"pixel_values_videos has shape \(.*frames, channels.*channels = 3"):
        DualRepVideoModel(TINY)(torch.zeros(shape))


def test_channels_last_memory_format_is_kept_and_changes_nothing():
    tower = DualRepVideoModel(TINY).eval()
    clip = torch.randn(2, 4, 3, 16, 16)
    expected = tower(clip).last_hidden_state
    tower.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(tower(clip).last_hidden_state, expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        feature_map = tower(clip).last_hidden_state
    assert feature_map.is_contiguous(memory_format=torch.channels_last_3d)


def test_in_bfloat16_the_gradients_over_two_frames_are_those_of_float32():
    torch.manual_seed(0)
    layer = TemporalConv3d(64, 64, kernel_size=(3, 1, 1), padding=(1, 0, 0), bias=False)
    frames = torch.randn(32, 64, 2, 4, 4)

    def gradient(half_precision: bool) -> torch.Tensor:
        layer.weight.grad = None
        spoilt = torch.full((4_000_000,), float("nan"))  # what uninitialised memory may then hold
        del spoilt
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision):
            output = layer(frames)
        output.float().square().mean().backward()
        return layer.weight.grad

    expected = gradient(half_precision=False).clone()
    for _ in range(10):
        torch.testing.assert_close(gradient(half_precision=True), expected, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_factorised_convolutions_give_the_same_values_and_gradients(memory_format, training):
    torch.manual_seed(0)
    reference = draw_batch_norms(DualRepVideoModel(TINY)).double().train(training)
    config = DualRepVideoConfig(**{**TINY.to_diff_dict(), "convolution": "factorised"})
    factorised = DualRepVideoModel(config).double().train(training)
    factorised.load_state_dict(reference.state_dict())
    for tower in (reference, factorised):
        tower.to(memory_format=memory_format)
    clip = torch.randn(2, 5, 3, 18, 22, dtype=torch.float64)
    outputs = [tower(clip).last_hidden_state for tower in (reference, factorised)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for output in outputs:
        output.square().sum().backward()
    gradients = [{name: w.grad for name, w in tower.named_parameters()} for tower in (reference, factorised)]
    assert_same_tensors(gradients[1], gradients[0])
    assert_same_tensors(factorised.state_dict(), reference.state_dict())


def test_factorised_only_the_shortcuts_are_three_dimensional(monkeypatch):
    kernels = []
    forward = torch.nn.Conv3d.forward

    def count(layer, hidden_states):
        kernels.append(layer.kernel_size)
        return forward(layer, hidden_states)

    monkeypatch.setattr(torch.nn.Conv3d, "forward", count)
    for convolution, expected in (
        ("3d", {(1, 7, 7), (1, 3, 3), (3, 1, 1), (1, 1, 1)}),
        ("factorised", {(1, 1, 1)}),
    ):
        kernels.clear()
        tower = DualRepVideoModel(DualRepVideoConfig(**{**TINY.to_diff_dict(), "convolution": convolution}))
        tower(torch.randn(1, 4, 3, 16, 16))
        assert set(kernels) == expected


def test_another_kind_of_convolution_is_refused():
    with pytest.raises(ValueError, match=r"convolution is '2d', but must be '3d' or 'factorised'"):
        DualRepVideoConfig(convolution="2d")
