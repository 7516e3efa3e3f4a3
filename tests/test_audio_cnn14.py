"""The audio tower is PANNs' CNN14, over time and mel as published, or over time alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panns_reference import Cnn14, save_checkpoint
from tower_helpers import assert_same_tensors, draw_batch_norms

from modeling_dualrep import audio_cnn14
from modeling_dualrep.audio_cnn14 import DualRepAudioModel, mask_stripes
from modeling_dualrep.configuration_dualrep import DualRepAudioConfig
from modeling_dualrep.convert_weights import AUDIO_RULES, PANNS_NOT_NEEDED, _rename, audio_from_panns

WIDTHS = [4, 6, 8, 10, 12, 14]
FRAMES_OF_TWO_SECONDS = 201


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def converted(network):
    return _rename(network.state_dict(), AUDIO_RULES, PANNS_NOT_NEEDED, "the reference", "CNN14")


def decibels(*shape):
    return 10 * torch.randn(shape) - 30


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_published_checkpoint_gives_the_published_embedding(training, tmp_path):
    reference = draw_batch_norms(Cnn14(mel_bins=64, widths=WIDTHS))
    tower = DualRepAudioModel(DualRepAudioConfig(conv_dim=2, hidden_sizes=WIDTHS))
    tower.load_state_dict(audio_from_panns(save_checkpoint(reference, tmp_path / "Cnn14.pth")))
    assert_equal_embeddings(tower, reference, decibels(3, FRAMES_OF_TWO_SECONDS, 64), training)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_over_time_it_is_the_same_network_with_mel_bins_as_channels(training):
    reference = draw_batch_norms(Cnn14(mel_bins=64, widths=WIDTHS, dimensions=1))
    tower = DualRepAudioModel(DualRepAudioConfig(conv_dim=1, hidden_sizes=WIDTHS))
    tower.load_state_dict(converted(reference))
    assert_equal_embeddings(tower, reference, decibels(3, FRAMES_OF_TWO_SECONDS, 64), training)


def assert_equal_embeddings(tower, reference, spectrograms, training):
    # In float64: what is compared is the network, not the order of roundings.
    tower.double().train(training), reference.double().train(training)
    spectrograms = spectrograms.double()
    embeddings = []
    for network in (tower, reference):
        torch.manual_seed(1)  # the same dropout
        output = network(spectrograms)
        embeddings.append(output if network is reference else output.pooler_output)
        embeddings[-1].square().sum().backward()
    assert embeddings[0].abs().sum() > 0
    torch.testing.assert_close(embeddings[0], embeddings[1], rtol=0, atol=1e-5)
    assert_same_tensors(tower.state_dict(), converted(reference), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        tower.blocks[0].conv1.weight.grad, reference.conv_block1.conv1.weight.grad, rtol=1e-3, atol=1e-4
    )


def test_full_size_is_the_published_one():
    widths = [64, 128, 256, 512, 1024, 2048]
    with torch.device("meta"):
        published = Cnn14(mel_bins=64, widths=widths, classes=527)
        tower = DualRepAudioModel(DualRepAudioConfig(conv_dim=2))
    # The number of parameters that Kong et al. (2020) print, with the classifier of 527 classes.
    assert sum(weight.numel() for weight in published.parameters()) == 80_753_615
    shapes = {name: tensor.shape for name, tensor in converted(published).items()}
    assert {name: tensor.shape for name, tensor in tower.state_dict().items()} == shapes


@pytest.mark.parametrize("conv_dim", [1, 2])
def test_new_convolutions_are_drawn_as_panns_draw_them(conv_dim):
    tower = DualRepAudioModel(DualRepAudioConfig(conv_dim=conv_dim, hidden_sizes=[32, 48]))
    for weight in (tower.blocks[1].conv2.weight, tower.embedding.linear.weight):
        fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(weight)
        bound = (6 / (fan_in + fan_out)) ** 0.5
        torch.testing.assert_close(weight.abs().max().item(), bound, rtol=0.02, atol=0)
        torch.testing.assert_close(weight.std().item(), bound / 3**0.5, rtol=0.05, atol=0)
    assert not tower.embedding.linear.bias.any()


@pytest.mark.parametrize(
    ("conv_dim", "sizes"), [(1, [(4, 20), (6, 10), (8, 10)]), (2, [(4, 20, 4), (6, 10, 2), (8, 10, 2)])]
)
def test_every_block_but_the_last_halves_the_map(conv_dim, sizes):
    config = DualRepAudioConfig(conv_dim=conv_dim, num_mel_bins=8, hidden_sizes=WIDTHS[:3])
    output = DualRepAudioModel(config)(decibels(2, 41, 8), output_hidden_states=True)
    assert [tuple(feature_map.shape[1:]) for feature_map in output.hidden_states] == sizes


@pytest.mark.parametrize("conv_dim", [1, 2])
def test_shortest_clip_is_taken_and_a_shorter_one_refused(conv_dim):
    tower = DualRepAudioModel(DualRepAudioConfig(conv_dim=conv_dim, hidden_sizes=WIDTHS)).eval()
    assert tower(decibels(1, 32, 64)).pooler_output.shape == (1, 14)
    with pytest.raises(ValueError, match=r"input_features has shape \(1, 31, 64\).*time at least 32"):
        tower(decibels(1, 31, 64))


@pytest.mark.parametrize("shape", [(1, 40, 32), (40, 64), (1, 1, 40, 64)])
def test_wrong_shape_names_the_argument(shape):
    tower = DualRepAudioModel(DualRepAudioConfig(hidden_sizes=WIDTHS))
    with pytest.raises(ValueError, match=r"input_features has shape \(.*\(batch, time, mel\) with mel = 64"):
        tower(torch.zeros(shape))


def test_too_few_mel_bins_for_the_pooling_are_refused():
    with pytest.raises(ValueError, match="num_mel_bins is 16, but must be at least 32"):
        DualRepAudioModel(DualRepAudioConfig(conv_dim=2, num_mel_bins=16, hidden_sizes=WIDTHS))


def test_dropout_of_the_configuration_is_used():
    config = DualRepAudioConfig(hidden_sizes=WIDTHS, block_dropout=0.0, embedding_dropout=0.0)
    tower, clip = DualRepAudioModel(config).train(), decibels(2, 64, 64)
    assert torch.equal(tower(clip).pooler_output, tower(clip).pooler_output)


@pytest.mark.parametrize("conv_dim", [1, 2])
def test_spec_augment_masks_in_training_alone_and_where_asked(conv_dim, monkeypatch):
    masked = []
    monkeypatch.setattr(audio_cnn14, "mask_stripes", lambda x: masked.append(x.shape) or mask_stripes(x))
    clip = decibels(2, 64, 64)
    for spec_augment in (False, True):
        config = DualRepAudioConfig(conv_dim=conv_dim, hidden_sizes=WIDTHS, spec_augment=spec_augment)
        tower = DualRepAudioModel(config)
        tower.eval()(clip)
        assert masked == []
        tower.train()(clip)
        assert masked == ([(2, 64, 64)] if spec_augment else [])


@pytest.mark.parametrize("conv_dim", [1, 2])
def test_spec_augment_masks_the_normalised_spectrogram(conv_dim, monkeypatch):
    seen = []
    monkeypatch.setattr(audio_cnn14, "mask_stripes", lambda x: seen.append(x) or torch.zeros_like(x))
    config = DualRepAudioConfig(
        conv_dim=conv_dim, hidden_sizes=WIDTHS, spec_augment=True, block_dropout=0.0, embedding_dropout=0.0
    )
    tower = DualRepAudioModel(config)
    first, second = tower(decibels(2, 64, 64)).pooler_output, tower(decibels(2, 64, 64)).pooler_output
    assert torch.equal(first, second), "what the mask hides is not heard"
    torch.testing.assert_close(seen[0].mean(dim=(0, 2)), torch.zeros(64), rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(1, 1200), mel_bins=st.integers(1, 128), seed=st.integers(0, 2**31))
def test_spec_augment_never_masks_more_than_a_quarter(frames, mel_bins, seed):
    torch.manual_seed(seed)
    masked = mask_stripes(torch.ones(64, mel_bins, frames)) == 0
    assert masked.flatten(1).float().mean(dim=1).max() <= 0.25


def test_spec_augment_of_a_two_second_clip():
    clips = torch.ones(3000, 64, FRAMES_OF_TWO_SECONDS)
    masked = mask_stripes(clips) == 0
    shares = masked.flatten(1).float().mean(dim=1)
    assert 0.2 < shares.max() <= 0.25
    assert len(shares.unique()) > 100, "each clip is masked anew"
    for cells, length, max_width in (
        (masked.all(dim=1), FRAMES_OF_TWO_SECONDS, 13),
        (masked.all(dim=2), 64, 4),
    ):
        # Whole frames and whole mel bins: at most two stripes of up to max_width, anywhere on the axis.
        starts = cells & ~torch.nn.functional.pad(cells, (1, 0))[:, :length]
        assert starts.sum(dim=1).max() == 2
        assert cells.sum(dim=1).max() == 2 * max_width
        assert cells.any(dim=0).all()
    assert torch.equal(masked, masked.all(dim=1)[:, None, :] | masked.all(dim=2)[:, :, None])


def test_spec_augment_of_a_long_clip_stays_within_what_panns_mask():
    masked = mask_stripes(torch.ones(40, 128, 2000)) == 0
    assert masked.all(dim=1).sum(dim=1).max() <= 2 * 63
    assert masked.all(dim=2).sum(dim=1).max() <= 2 * 7


def test_spec_augment_keeps_what_it_does_not_mask():
    clips = torch.randn(4, 64, 300) + 5
    augmented = mask_stripes(clips)
    assert torch.equal(augmented[augmented != 0], clips[augmented != 0])
    assert (augmented == 0).any()
