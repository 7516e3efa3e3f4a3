"""The image tower is torchvision's ResNet18."""

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from tower_helpers import assert_same_tensors, draw_batch_norms

from modeling_dualrep.configuration_dualrep import DualRepImageConfig
from modeling_dualrep.convert_weights import image_from_torchvision
from modeling_dualrep.image_resnet import DualRepImageModel

TINY = DualRepImageConfig(embedding_size=4, hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 1, 1])
STAGES = ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_features_and_feature_maps_equal_torchvisions(training):
    torch.manual_seed(0)
    reference = draw_batch_norms(resnet18())
    tower = DualRepImageModel(DualRepImageConfig())
    tower.load_state_dict(image_from_torchvision(reference.state_dict()))
    frames = torch.randn(2, 3, 64, 96)
    tower.train(training), reference.train(training)
    with torch.no_grad():
        output = tower(frames, output_hidden_states=True)
        expected = create_feature_extractor(reference, [*STAGES, "flatten"])(frames)
    torch.testing.assert_close(output.pooler_output, expected["flatten"], rtol=0, atol=1e-5)
    for feature_map, stage, stride in zip(output.hidden_states, STAGES, (4, 8, 16, 32), strict=True):
        assert feature_map.shape[2:] == (64 // stride, 96 // stride)
        torch.testing.assert_close(feature_map, expected[stage], rtol=1e-5, atol=1e-5)
    # The BatchNorm statistics too, which training moved.
    assert_same_tensors(
        tower.state_dict(), image_from_torchvision(reference.state_dict()), rtol=1e-5, atol=1e-6
    )


def test_feature_maps_are_had_without_the_pooled_features():
    tower = DualRepImageModel(TINY).eval()
    frames = torch.randn(1, 3, 40, 33)
    maps, output = tower.feature_maps(frames), tower(frames, output_hidden_states=True)
    assert [tuple(feature_map.shape[2:]) for feature_map in maps] == [(10, 9), (5, 5), (3, 3), (2, 2)]
    assert all(torch.equal(a, b) for a, b in zip(maps, output.hidden_states, strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_wrong_shape_names_the_argument(shape):
    with pytest.raises(ValueError, match=r"pixel_values has shape \(.*channels = 3"):
        DualRepImageModel(TINY)(torch.zeros(shape))
