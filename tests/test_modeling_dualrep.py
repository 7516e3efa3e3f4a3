"""The whole model: embeddings, objective, masks, ablations, and what it refuses."""

import pytest
import torch
from tiny_models import tiny_batch, tiny_config, tiny_model

from modeling_dualrep import (
    DualRepConfig,
    DualRepForSaliencyPrediction,
    DualRepModel,
)
from modeling_dualrep.losses import (
    Negatives,
    anchored_contrastive_share,
    contrastive_loss,
    triplet_ranking_loss,
)
from modeling_dualrep.saliency import saliency_loss

AUDIO_TERMS = ["video_audio_contrastive", "fused_video_audio_contrastive", "video_audio_similarity"]
IMAGE_TERMS = ["video_image_contrastive", "fused_video_image_contrastive", "video_image_similarity"]
MASK = [True, False, True, True, False]


def saved_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_objective_is_equation_13() -> None:
    model = tiny_model(
        temperature=0.3, margin=0.7, contrastive_balance=0.8, audio_loss_weight=2.0, image_loss_weight=0.5
    )
    output = model(**tiny_batch(5), return_loss=True)
    expected = {}
    for other, weight in (("audio", 2.0), ("image", 0.5)):
        video, embeds, fused = (output[f"{name}_embeds"] for name in ("video", other, f"video_{other}"))
        expected[f"video_{other}_contrastive"] = weight * 0.8 * contrastive_loss(video, embeds, 0.3)
        expected[f"fused_video_{other}_contrastive"] = weight * 0.8 * contrastive_loss(video, fused, 0.3)
        spaces = output.video_similarity_embeds, output[f"{other}_similarity_embeds"]
        expected[f"video_{other}_similarity"] = weight * 0.2 * triplet_ranking_loss(*spaces, 0.7)
    assert list(output.loss_terms) == AUDIO_TERMS + IMAGE_TERMS
    torch.testing.assert_close(output.loss_terms, expected)
    torch.testing.assert_close(output.loss, sum(expected.values()))
    assert len({round(term.item(), 6) for term in expected.values()}) == 6
    assert output.num_audio_clips == 5


def test_embeddings_are_projections_fusions_and_heads_of_the_towers() -> None:
    model, batch = tiny_model(), tiny_batch(3)
    output = model(**batch)
    assert output.loss is None and output.loss_terms is None
    video = model.video_projection(model.video_model(batch["pixel_values_videos"]).pooler_output)
    audio = model.audio_projection(model.audio_model(batch["input_features"]).pooler_output)
    image = model.image_projection(model.image_model(batch["pixel_values"]).pooler_output)
    torch.testing.assert_close(
        dict(output),
        {
            "video_embeds": video,
            "audio_embeds": audio,
            "image_embeds": image,
            "video_audio_embeds": model.audio_fusion(audio, video),
            "video_image_embeds": model.image_fusion(image, video),
            "video_similarity_embeds": model.video_similarity(video),
            "audio_similarity_embeds": model.audio_similarity(audio),
            "image_similarity_embeds": model.image_similarity(image),
        },
    )


def test_candidates_can_be_fused_with_the_anchors_video() -> None:
    """It changes the fused terms, and those alone."""
    batch = tiny_batch(5)
    anchored = tiny_model(fuse_candidates_with_anchor_video=True, temperature=0.3)
    output, paper = (
        anchored(**batch, return_loss=True),
        tiny_model(temperature=0.3)(**batch, return_loss=True),
    )
    for other in ("audio", "image"):
        embeds, fusion = output[f"{other}_embeds"], getattr(anchored, f"{other}_fusion")
        video = output.video_embeds
        other_parts, video_parts = fusion.parts(embeds, video)
        negatives = Negatives.of_batch(5, video.device)
        expected = 0.5 * anchored_contrastive_share(video, video_parts, other_parts, negatives, 0.3)
        name = f"fused_video_{other}_contrastive"
        torch.testing.assert_close(output.loss_terms[name], expected)
        assert abs(output.loss_terms[name] - paper.loss_terms[name]) > 1e-3
        for same in (f"video_{other}_contrastive", f"video_{other}_similarity"):
            assert torch.equal(output.loss_terms[same], paper.loss_terms[same])


def test_negatives_of_the_ranking_losses_follow_the_configuration() -> None:
    output = tiny_model(negatives="mean")(**tiny_batch(5), return_loss=True)
    spaces = output.video_similarity_embeds, output.image_similarity_embeds
    mean = 0.5 * triplet_ranking_loss(*spaces, 0.2, "mean")
    torch.testing.assert_close(output.loss_terms["video_image_similarity"], mean)
    assert abs(mean - 0.5 * triplet_ranking_loss(*spaces, 0.2, "hardest")) > 1e-3


@pytest.mark.parametrize(
    ("fields", "terms", "absent"),
    [
        ({"use_audio": False}, IMAGE_TERMS, ["audio_model", "audio_projection", "audio_fusion"]),
        ({"use_image": False}, AUDIO_TERMS, ["image_model", "image_projection", "image_similarity"]),
        (
            {"use_contrastive_loss": False},
            ["video_audio_similarity", "video_image_similarity"],
            ["audio_fusion", "image_fusion"],
        ),
        (
            {"use_similarity_loss": False},
            AUDIO_TERMS[:2] + IMAGE_TERMS[:2],
            ["video_similarity", "audio_similarity", "image_similarity"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_ablations_leave_their_terms_and_weights_out(fields: dict, terms: list, absent: list) -> None:
    model, batch = tiny_model(training=True, **fields), tiny_batch(4)
    if "use_audio" in fields:
        del batch["input_features"]
    if "use_image" in fields:
        del batch["pixel_values"]
    output = model(**batch, return_loss=True)
    assert list(output.loss_terms) == terms
    torch.testing.assert_close(output.loss, sum(output.loss_terms.values()))
    assert not any(hasattr(model, name) for name in absent)
    output.loss.backward()
    assert all(gradient is not None for gradient in saved_gradients(model).values())
    assert (output.num_audio_clips is None) == ("use_audio" in fields)


@pytest.mark.parametrize("fields", [{}, {"fuse_candidates_with_anchor_video": True, "negatives": "mean"}])
def test_near_duplicates_are_no_negatives_in_any_term(fields: dict) -> None:
    """And where every clip is a group of its own, whatever its number, nothing changes."""
    model, batch = tiny_model(margin=2.0, **fields), tiny_batch(4)
    groups = torch.tensor([0, 1, 1, 0])
    grouped, plain = (
        model(**batch, return_loss=True, **options).loss_terms for options in ({"clip_groups": groups}, {})
    )
    assert list(grouped) == AUDIO_TERMS + IMAGE_TERMS
    assert all(abs(grouped[name] - plain[name]) > 1e-5 for name in plain)
    own = torch.tensor([3, 8, -2, 5])
    torch.testing.assert_close(model(**batch, return_loss=True, clip_groups=own).loss_terms, plain)


def test_without_two_groups_there_is_nothing_to_learn() -> None:
    """Not even where clips of another group are there, but have no sound: then the audio terms are zero."""
    model, batch = tiny_model(training=True), tiny_batch(4, mask=[True, True, True, False])
    output = model(**batch, return_loss=True, clip_groups=torch.tensor([1, 1, 1, 2]))
    assert [output.loss_terms[term].item() for term in AUDIO_TERMS] == [0, 0, 0]
    assert all(output.loss_terms[term] != 0 for term in IMAGE_TERMS)
    output.loss.backward()
    assert all(gradient.isfinite().all() for gradient in saved_gradients(model).values())
    output = model(**batch, return_loss=True, clip_groups=torch.tensor([1, 1, 1, 1]))
    assert output.loss == 0


def test_one_loss_alone_is_taken_whole() -> None:
    batch = tiny_batch(4)
    whole = tiny_model(contrastive_balance=0.25)
    terms = whole(**batch, return_loss=True).loss_terms
    for other_loss, share in (("use_similarity_loss", 0.25), ("use_contrastive_loss", 0.75)):
        model = tiny_model(contrastive_balance=0.25, **{other_loss: False})
        model.load_state_dict(whole.state_dict(), strict=False)
        left = model(**batch, return_loss=True).loss_terms
        torch.testing.assert_close(left, {name: terms[name] / share for name in left})


def test_what_a_silent_clip_holds_changes_nothing() -> None:
    """In training, not even as NaN: neither loss, nor gradient, nor the statistics of any BatchNorm."""
    results = []
    for filling in (0.0, float("nan")):
        model, batch = tiny_model(training=True), tiny_batch(5, mask=MASK)
        batch["input_features"][~batch["audio_mask"]] = filling
        output = model(**batch, return_loss=True)
        output.loss.backward()
        results.append((dict(output), saved_gradients(model), dict(model.named_buffers())))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert results[0][0]["num_audio_clips"] == 3


def test_silent_clips_are_as_left_out_of_the_audio_terms() -> None:
    model, batch = tiny_model(), tiny_batch(5, mask=MASK)
    output = model(**batch, return_loss=True)
    rows = batch.pop("audio_mask")
    of_sounding = model(**{name: values[rows] for name, values in batch.items()}, return_loss=True)
    of_all = model(**batch, return_loss=True)
    for term in AUDIO_TERMS:
        torch.testing.assert_close(output.loss_terms[term], of_sounding.loss_terms[term])
        assert abs(output.loss_terms[term] - of_all.loss_terms[term]) > 1e-4
    for term in IMAGE_TERMS:
        torch.testing.assert_close(output.loss_terms[term], of_all.loss_terms[term])
    for name in ("audio_embeds", "video_audio_embeds", "audio_similarity_embeds"):
        assert (output[name][~rows] == 0).all()
        torch.testing.assert_close(output[name][rows], of_sounding[name])


def test_silent_clips_stay_out_of_the_batch_norms_of_the_audio() -> None:
    """In training the sounding rows are embedded as if the others were not there."""
    batch = tiny_batch(5, mask=MASK)
    rows = batch["audio_mask"]
    masked = tiny_model(training=True)
    alone = tiny_model(training=True)
    output = masked(**batch)
    expected = alone(input_features=batch["input_features"][rows])
    torch.testing.assert_close(output.audio_similarity_embeds[rows], expected.audio_similarity_embeds)
    for name, statistic in masked.named_buffers():
        if name.startswith("audio"):
            torch.testing.assert_close(statistic, alone.get_buffer(name))


@pytest.mark.parametrize("sounding", [0, 1])
@pytest.mark.parametrize("fields", [{}, {"fuse_candidates_with_anchor_video": True}], ids=["", "anchored"])
def test_without_two_sounding_clips_the_audio_terms_are_zero(sounding: int, fields: dict) -> None:
    model, batch = (
        tiny_model(training=True, **fields),
        tiny_batch(4, mask=[True] * sounding + [False] * (4 - sounding)),
    )
    output = model(**batch, return_loss=True)
    assert [output.loss_terms[term].item() for term in AUDIO_TERMS] == [0, 0, 0]
    assert output.num_audio_clips == sounding
    torch.testing.assert_close(output.loss, sum(output.loss_terms[term] for term in IMAGE_TERMS))
    output.loss.backward()
    for name, gradient in saved_gradients(model).items():
        assert gradient is not None, f"{name} has no gradient, for which other processes would wait"
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["pixel_values_videos", "input_features", "pixel_values"])
def test_any_input_can_be_given_alone(name: str) -> None:
    model, batch = tiny_model(), tiny_batch(3)
    prefix = {"pixel_values_videos": "video", "input_features": "audio", "pixel_values": "image"}[name]
    output, whole = model(**{name: batch[name]}), model(**batch)
    assert set(output) == {f"{prefix}_embeds", f"{prefix}_similarity_embeds"}
    for key in output:
        assert torch.equal(output[key], whole[key])


def test_features_are_the_embeddings() -> None:
    model, batch = tiny_model(), tiny_batch(3)
    output = model(**batch)
    for kind, name in (
        ("video", "pixel_values_videos"),
        ("audio", "input_features"),
        ("image", "pixel_values"),
    ):
        get_features = getattr(model, f"get_{kind}_features")
        features = get_features(batch[name])
        assert torch.equal(features.pooler_output, output[f"{kind}_embeds"])
        assert features.last_hidden_state.shape[:2] == (3, 6)
        assert features.hidden_states is None
        assert len(get_features(batch[name], output_hidden_states=True).hidden_states) == 2


def test_a_tuple_holds_what_the_output_holds() -> None:
    model, batch = tiny_model(), tiny_batch(3)
    output, values = model(**batch, return_loss=True), model(**batch, return_loss=True, return_dict=False)
    assert isinstance(values, tuple) and len(values) == len(output)
    torch.testing.assert_close(values, output.to_tuple())
    assert torch.equal(values[0], output.loss)


def test_bad_inputs_are_refused() -> None:
    model, batch = tiny_model(training=True), tiny_batch(3)

    def without(name: str) -> dict:
        return {key: values for key, values in batch.items() if key != name}

    with pytest.raises(ValueError, match="was given nothing: pass pixel_values_videos"):
        model()
    with pytest.raises(ValueError, match="needs input_features too"):
        model(**without("input_features"), return_loss=True)
    with pytest.raises(ValueError, match="needs pixel_values too"):
        model(**without("pixel_values"), return_loss=True)
    with pytest.raises(ValueError, match="at least two clips, but got 1: make the batch larger"):
        model(**tiny_batch(1), return_loss=True)
    with pytest.raises(ValueError, match="3 of pixel_values_videos, 2 of input_features, 3 of pixel_values"):
        model(**without("input_features"), input_features=batch["input_features"][:2])
    with pytest.raises(ValueError, match=r"audio_mask has shape \(2,\).*one value a clip: \(3,\)"):
        model(**batch, audio_mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"input_features was given.*use_audio is False"):
        tiny_model(use_audio=False)(**batch)
    with pytest.raises(ValueError, match=r"pixel_values was given.*use_image is False"):
        tiny_model(use_image=False).get_image_features(batch["pixel_values"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_at_a_low_temperature(dtype: torch.dtype) -> None:
    """Throughout in that precision, a silent clip among the others."""
    model = tiny_model(training=True, temperature=0.01).to(dtype)
    batch = tiny_batch(4, mask=[True, True, False, True], dtype=dtype)
    output = model(**batch, return_loss=True)
    output.loss.backward()
    assert output.loss.dtype == torch.float32 and output.loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in saved_gradients(model).values())


def test_autocast_trains() -> None:
    model, batch = tiny_model(training=True, temperature=0.01), tiny_batch(4, mask=[True, True, False, True])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch, return_loss=True)
    output.loss.backward()
    assert all(gradient.isfinite().all() for gradient in saved_gradients(model).values())
    torch.testing.assert_close(
        output.loss, tiny_model(True, temperature=0.01)(**batch, return_loss=True).loss, rtol=0.2, atol=1
    )


def test_a_few_steps_learn_the_pairs_of_a_batch() -> None:
    model, batch = tiny_model(training=True), tiny_batch(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        output = model(**batch, return_loss=True)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append({name: term.item() for name, term in output.loss_terms.items()})
    assert all(losses[-1][name] < losses[0][name] - 0.05 for name in losses[0])


def test_a_frozen_tower_keeps_its_weights_and_statistics() -> None:
    config = tiny_config()
    config.audio_config.freeze = True
    model = DualRepModel(config).train()
    statistics = {name: value.clone() for name, value in model.audio_model.named_buffers()}
    model(**tiny_batch(4), return_loss=True).loss.backward()
    gradients = saved_gradients(model)
    assert all((gradient is None) == name.startswith("audio_model.") for name, gradient in gradients.items())
    assert all(torch.equal(model.audio_model.get_buffer(name), value) for name, value in statistics.items())


def test_the_full_size_is_the_papers() -> None:
    with torch.device("meta"):
        model = DualRepModel(DualRepConfig())
    assert [model.video_projection.in_features, model.audio_projection.in_features] == [512, 2048]
    assert model.image_projection.in_features == 512
    assert model.audio_fusion.projection.weight.shape == (512, 1024)
    millions = {
        name: sum(p.numel() for p in tower.parameters()) / 1e6
        for name, tower in model.named_children()
        if name.endswith("_model")
    }
    # R(2+1)D-18 without its classifier has 31.3 million weights, ResNet18 11.2.
    assert millions["video_model"] == pytest.approx(31.3, abs=0.05)
    assert millions["image_model"] == pytest.approx(11.18, abs=0.05)


def tiny_saliency_model(training: bool = False, **fields) -> DualRepForSaliencyPrediction:
    torch.manual_seed(0)
    return DualRepForSaliencyPrediction(tiny_config(saliency_decoder_size=8, **fields)).train(training)


def spots(pictures: int, size: int = 16) -> dict[str, torch.Tensor]:
    """Pictures with one bright spot each, at which everybody looked."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(2, size - 2, (pictures, 2), generator=generator)
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), dim=-1)
    squared = (grid[None] - places[:, None, None]).square().sum(dim=-1)
    labels = torch.exp(-squared / 4)
    counts = torch.zeros(pictures, size, size)
    counts[torch.arange(pictures), places[:, 0], places[:, 1]] = 3
    return {
        "pixel_values": 4 * labels[:, None].repeat(1, 3, 1, 1) - 1,
        "labels": labels / labels.sum(dim=(1, 2), keepdim=True),
        "fixation_counts": counts,
    }


@pytest.mark.parametrize("height, width", [(8, 8), (33, 50), (64, 7), (1, 1)])
def test_saliency_maps_are_probabilities_in_the_size_of_the_picture(height: int, width: int) -> None:
    """One picture is enough, in training too: the decoder has no BatchNorm."""
    model = tiny_saliency_model()
    model.saliency_decoder.train()
    output = model(torch.randn(1, 3, height, width))
    assert output.saliency_maps.shape == output.log_saliency_maps.shape == (1, height, width)
    assert (output.saliency_maps >= 0).all()
    assert output.saliency_maps.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(output.log_saliency_maps.exp(), output.saliency_maps)
    assert output.loss is None and output.hidden_states is None


def test_saliency_is_decoded_from_all_feature_maps() -> None:
    model, pictures = tiny_saliency_model(), tiny_batch(2)["pixel_values"]
    output = model(pictures, output_hidden_states=True)
    feature_maps = model.image_model.feature_maps(pictures)
    torch.testing.assert_close(output.hidden_states, feature_maps)
    assert torch.equal(output.log_saliency_maps, model.saliency_decoder(feature_maps, 8, 8))
    assert len(model.saliency_decoder.laterals) == len(feature_maps) == 2
    assert model.saliency_decoder.mix.out_channels == 8


@pytest.mark.parametrize("name", ["kld", "kld_cc_nss"])
def test_the_saliency_loss_is_the_configurations(name: str) -> None:
    batch = spots(3)
    output = tiny_saliency_model(saliency_loss=name)(**batch)
    expected = saliency_loss(name, output.log_saliency_maps, batch["labels"], batch["fixation_counts"])
    assert torch.equal(output.loss, expected)
    del batch["fixation_counts"]
    if name == "kld":
        assert torch.equal(tiny_saliency_model(saliency_loss=name)(**batch).loss, expected)
    else:
        with pytest.raises(ValueError, match="needs fixation_counts"):
            tiny_saliency_model(saliency_loss=name)(**batch)


def test_saliency_labels_that_sum_to_zero_are_refused() -> None:
    batch = spots(3)
    batch["labels"][1] = 0
    with pytest.raises(ValueError, match="map 1 of the batch sums to 0"):
        tiny_saliency_model()(**batch)


def test_a_centre_bias_is_there_where_it_is_asked_for() -> None:
    pictures = torch.zeros(1, 3, 64, 64)
    biased, plain = (
        tiny_saliency_model(saliency_center_bias=wanted)(pictures).saliency_maps[0]
        for wanted in (True, False)
    )
    assert biased[32, 32] > 5 * biased[2, 2] and plain[32, 32] < 2 * plain[2, 2]


@pytest.mark.parametrize(
    "fields", [{}, {"saliency_loss": "kld_cc_nss", "saliency_center_bias": True}], ids=["kld", "kld_cc_nss"]
)
def test_a_few_steps_learn_where_people_look(fields: dict) -> None:
    model, batch = tiny_saliency_model(training=True, **fields), spots(12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    divergences = []
    for _ in range(40):
        output = model(**batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        divergences.append(saliency_loss("kld", output.log_saliency_maps, batch["labels"], None).item())
    assert divergences[-1] < divergences[0] / 3


def test_a_linear_probe_of_saliency_learns_its_decoder_alone() -> None:
    config = tiny_config()
    config.image_config.freeze = True
    model = DualRepForSaliencyPrediction(config).train()
    statistics = {name: value.clone() for name, value in model.image_model.named_buffers()}
    model(**spots(2)).loss.backward()
    for name, gradient in saved_gradients(model).items():
        assert (gradient is None) == name.startswith("image_model."), name
    assert all(torch.equal(model.image_model.get_buffer(name), value) for name, value in statistics.items())


def test_gradient_checkpointing_does_not_change_what_saliency_learns() -> None:
    results = []
    for checkpointing in (False, True):
        model = tiny_saliency_model(training=True)
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(**spots(3)).loss.backward()
        results.append((saved_gradients(model), dict(model.named_buffers())))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_saliency_trains_in_half_precision(dtype: torch.dtype) -> None:
    model = tiny_saliency_model(training=True, saliency_loss="kld_cc_nss", saliency_center_bias=True).to(
        dtype
    )
    batch = spots(3)
    output = model(**batch | {"pixel_values": batch["pixel_values"].to(dtype)})
    output.loss.backward()
    assert output.saliency_maps.dtype == output.loss.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in saved_gradients(model).values())
