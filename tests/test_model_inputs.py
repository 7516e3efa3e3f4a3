"""The model on what a speech tower gave before, and the inputs that it refuses."""

import pytest
import torch
from tiny_models import tiny_batch, tiny_model

from modeling_dualrep import DualRepModel

MASK = [True, False, True, True]


def pooled_batch(model: DualRepModel, mask: list[bool] | None) -> tuple[dict, dict]:
    """The same clips with spectrograms, and with what the model's own tower, in evaluation, gives of them."""
    batch = tiny_batch(4, mask)
    with torch.no_grad():
        pooled = model.audio_model.eval()(batch["input_features"]).pooler_output.clone()
    rest = {name: values for name, values in batch.items() if name != "input_features"}
    return batch, rest | {"audio_pooler_output": pooled}


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("anchored", [False, True])
def test_given_outputs_stand_in_for_the_tower(mask: list[bool] | None, anchored: bool) -> None:
    model = tiny_model(fuse_candidates_with_anchor_video=anchored)
    batch, pooled = pooled_batch(model, mask)
    expected, found = (model(**each, return_loss=True) for each in (batch, pooled))
    assert found.keys() == expected.keys()
    for name in set(found) - {"loss_terms"}:
        torch.testing.assert_close(found[name], expected[name])
    torch.testing.assert_close(found.loss_terms, expected.loss_terms)


def test_the_tower_is_not_run_and_the_rest_learns() -> None:
    model = tiny_model(training=True)
    _, pooled = pooled_batch(model, MASK)
    model.train()
    before = {name: values.clone() for name, values in model.audio_model.state_dict().items()}
    model(**pooled, return_loss=True, gradient_cache_clips=2).loss.backward()
    for name, values in model.audio_model.state_dict().items():
        assert torch.equal(values, before[name]), name
    assert all(weight.grad is None for weight in model.audio_model.parameters())
    assert model.audio_projection.weight.grad.norm() > 0
    assert all(
        weight.grad is not None
        for name, weight in model.named_parameters()
        if not name.startswith("audio_model.")
    )


def test_a_batch_without_any_sound_still_gives_every_weight_a_gradient() -> None:
    model = tiny_model(training=True)
    _, pooled = pooled_batch(model, [False] * 4)
    outputs = model.train()(**pooled, return_loss=True)
    assert outputs.num_audio_clips == 0 and (outputs.audio_embeds == 0).all()
    outputs.loss.backward()
    assert (model.audio_projection.weight.grad == 0).all()


def test_what_rows_without_sound_hold_changes_nothing() -> None:
    model = tiny_model()
    _, pooled = pooled_batch(model, MASK)
    expected = model(**pooled, return_loss=True)
    pooled["audio_pooler_output"][1] = torch.nan
    found = model(**pooled, return_loss=True)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.audio_embeds, expected.audio_embeds)


def test_speech_alone_is_embedded() -> None:
    model = tiny_model()
    batch, pooled = pooled_batch(model, None)
    alone = model(audio_pooler_output=pooled["audio_pooler_output"])
    torch.testing.assert_close(alone.audio_embeds, model(input_features=batch["input_features"]).audio_embeds)
    assert alone.video_embeds is None


def test_what_cannot_be_is_refused() -> None:
    model = tiny_model()
    batch, pooled = pooled_batch(model, None)
    both = batch | pooled
    with pytest.raises(ValueError, match="input_features and audio_pooler_output are both of the speech"):
        model(**both)
    with pytest.raises(ValueError, match=r"audio_pooler_output has shape \(4, 5\).*hidden_size = 6"):
        model(audio_pooler_output=torch.zeros(4, 5))
    with pytest.raises(ValueError, match="audio_pooler_output was given, but the model has no such tower"):
        tiny_model(use_audio=False)(audio_pooler_output=torch.zeros(4, 6))
    without_frame = {name: values for name, values in pooled.items() if name != "pixel_values"}
    with pytest.raises(ValueError, match="return_loss=True needs pixel_values too"):
        model(**without_frame, return_loss=True)
    with pytest.raises(ValueError, match="but there are 4 of pixel_values_videos"):
        model(**pooled | {"audio_pooler_output": torch.zeros(3, 6)})
