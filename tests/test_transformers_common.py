"""The common tests that transformers runs over every model of its own, run over ours.

They come with its source distribution. The tables of skips list each test that does not apply, and why.
"""

import unittest
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_models import SIZE, tiny_batch, tiny_config
from transformers import PreTrainedConfig, PreTrainedModel
from transformers_sdist import Skips, import_common_tests, run_common_tests

from modeling_dualrep import (
    DualRepAudioModel,
    DualRepForImageClassification,
    DualRepForSaliencyPrediction,
    DualRepForVideoClassification,
    DualRepImageModel,
    DualRepModel,
    DualRepVideoModel,
)

BATCH = 3
STAGES = 2  # of every tower: as many hidden states

VIDEO, AUDIO, IMAGE = "pixel_values_videos", "input_features", "pixel_values"

NO_ATTENTION = "convolutions have no attention, so no implementations of it, no positions and no windows"
NO_TOKENS = "the models take no tokens and write none: no token embeddings to get, set, resize or pass"
NO_EXPERTS = "there is no mixture of experts"
NO_RENAMING = "no weight is renamed at loading"
NO_FLOAT32_LAYERS = "no layer asks to stay in float32"
NO_PLAN = "the models are too small to be cut into parts of a layer: they have no tensor parallel plan"
NO_CAPTURE = "hidden states are returned by the towers themselves, not captured by hooks"
NO_DEVICE = "needs an accelerator, or several"
SLOW = "transformers itself runs it with RUN_SLOW=1 alone"
ONE_CONFIG = "the configuration holds no other"
NO_LOSS = "a tower alone has no loss to train it with"
NO_CONFIG_OF_WHOLE = (
    "the folder of a tower has the tower's configuration, so a task model wants its own beside it: "
    "that it then takes the weights is in test_saved_models.py"
)
HIDDEN_STATES_OF_TOWERS = (
    "asks for hidden_states, which the towers and get_*_features give and are tested for; "
    "tuple against dict is in test_modeling_dualrep.py"
)

SKIPS: Skips = {
    NO_ATTENTION: (
        "test_attention_outputs",
        "test_attn_implementation_composite_models",
        "test_can_set_attention_dynamically*",
        "test_eager_matches_sdpa_inference_*",
        "test_flash_attn_*",
        "test_flex_attention_with_grads",
        "test_kernels_can_load_without_crashing",
        "test_model_rope_*",
        "test_resize_position_vector_embeddings",
        "test_sdpa_*",
        "test_sliding_window_mask",
        "test_vision_axial_rope",
    ),
    NO_TOKENS: (
        "test_causal_lm_loss_honors_shift_labels",
        "test_enable_input_require_grads_with_gradient_checkpointing",
        "test_encoder_decoder_loss_no_double_shift",
        "test_inputs_embeds",
        "test_model_get_set_embeddings",
        "test_resize_embeddings_untied*",
        "test_resize_tokens_embeddings*",
    ),
    NO_EXPERTS: (
        "test_eager_matches_batched_and_grouped_inference_*",
        "test_moe_models_record_router_logits",
        "test_output_router_logits_from_config",
    ),
    NO_RENAMING: ("test_can_load_from_already_mapped_keys", "test_reverse_loading_mapping"),
    NO_FLOAT32_LAYERS: ("test_keep_in_fp32_modules", "test_keep_in_fp32_modules_exist"),
    NO_PLAN: ("test_tied_head_has_a_tp_plan_entry", "test_tp_plan_matches_params"),
    NO_CAPTURE: ("test_can_capture_specific_layers_hidden_states", "test_capture_outputs_decorator"),
    NO_DEVICE: (
        "test_can_load_with_device_context_manager",
        "test_can_load_with_global_device_set",
        "test_cpu_offload",
        "test_disk_offload_bin",
        "test_disk_offload_safetensors",
        "test_model_parallelism",
    ),
    SLOW: ("test_torch_compile_for_training",),
}
SKIPS_OF_WHOLE: Skips = SKIPS | {
    HIDDEN_STATES_OF_TOWERS: (
        "test_hidden_states_output",
        "test_model_outputs_equivalence",
        "test_retain_grad_hidden_states_attentions",
    )
}
SKIPS_OF_TASK_MODELS: Skips = SKIPS | {NO_CONFIG_OF_WHOLE: ("test_correct_missing_keys",)}
SKIPS_OF_TOWERS: Skips = SKIPS | {
    ONE_CONFIG: ("test_internal_model_config_and_subconfig_are_same",),
    NO_LOSS: ("test_training", "test_training_gradient_checkpointing*"),
}

# The model, its configuration, what it is given, the skips, the last two axes of its first hidden state.
CASES: list[
    tuple[type[PreTrainedModel], Callable[[], PreTrainedConfig], tuple[str, ...], Skips, tuple[int, int]]
] = [
    (DualRepModel, tiny_config, (VIDEO, AUDIO, IMAGE), SKIPS_OF_WHOLE, (0, 0)),
    (DualRepVideoModel, lambda: tiny_config().video_config, (VIDEO,), SKIPS_OF_TOWERS, (4, 4)),
    (DualRepAudioModel, lambda: tiny_config().audio_config, (AUDIO,), SKIPS_OF_TOWERS, (4, 4)),
    (DualRepImageModel, lambda: tiny_config().image_config, (IMAGE,), SKIPS_OF_TOWERS, (2, 2)),
    (DualRepForVideoClassification, tiny_config, (VIDEO,), SKIPS_OF_TASK_MODELS, (4, 4)),
    (DualRepForImageClassification, tiny_config, (IMAGE,), SKIPS_OF_TASK_MODELS, (2, 2)),
    (DualRepForSaliencyPrediction, tiny_config, (IMAGE,), SKIPS_OF_TASK_MODELS, (2, 2)),
]


class ModelTester:
    """What the common tests ask of a model: a configuration, inputs, and how large its outputs are."""

    batch_size = BATCH
    num_hidden_layers = STAGES
    expected_num_hidden_layers = STAGES

    def __init__(
        self,
        config: Callable[[], PreTrainedConfig],
        inputs: tuple[str, ...],
        has_loss: bool,
        last_axes: tuple[int, int],
    ) -> None:
        self.config = config
        self.inputs = inputs
        self.is_training = has_loss
        self.seq_length, self.hidden_size = last_axes

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        batch = tiny_batch(BATCH)
        return self.config(), {name: batch[name] for name in self.inputs}


def model_case(
    common: ModuleType,
    model: type[PreTrainedModel],
    config: Callable[[], PreTrainedConfig],
    inputs: tuple[str, ...],
    skips: Skips,
    last_axes: tuple[int, int],
) -> type[unittest.TestCase]:
    class DualRepModelTest(common.ModelTesterMixin, unittest.TestCase):
        all_model_classes = (model,)
        has_attentions = False
        test_resize_embeddings = False
        test_can_init_all_missing_weights_before_2023 = True
        # They want the channels last, and feature maps have them first.
        skip_test_audio_features_output_shape = True
        skip_test_image_features_output_shape = True
        skip_test_video_features_output_shape = True

        def setUp(self) -> None:
            self.model_tester = ModelTester(config, inputs, NO_LOSS not in skips, last_axes)
            for reason in (NO_TOKENS, NO_CONFIG_OF_WHOLE, HIDDEN_STATES_OF_TOWERS):
                if reason in skips and self._testMethodName in skips[reason]:
                    self.skipTest(reason)

        def _prepare_for_class(
            self, inputs_dict: dict[str, Any], model_class: type[PreTrainedModel], return_labels: bool = False
        ) -> dict[str, Any]:
            inputs_dict = super()._prepare_for_class(inputs_dict, model_class, return_labels)
            if return_labels and model_class is DualRepModel:
                inputs_dict["return_loss"] = True
            elif return_labels and model_class is DualRepForSaliencyPrediction:
                inputs_dict["labels"] = torch.full((BATCH, SIZE, SIZE), 1 / SIZE**2)
            elif return_labels and self.model_tester.is_training:
                inputs_dict["labels"] = torch.zeros(BATCH, dtype=torch.long)
            return inputs_dict

        def _hidden_states_of_a_tower(self) -> int:
            return STAGES

        _audio_features_get_expected_num_hidden_states = _hidden_states_of_a_tower
        _image_features_get_expected_num_hidden_states = _hidden_states_of_a_tower
        _video_features_get_expected_num_hidden_states = _hidden_states_of_a_tower

    return DualRepModelTest


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case[0].__name__ for case in CASES])
def test_the_common_tests_of_transformers_pass(monkeypatch, pytestconfig, case) -> None:
    common = import_common_tests("test_modeling_common", monkeypatch, pytestconfig)
    run_common_tests(model_case(common, *case), skips=case[3], at_least=60)


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "video_config", "audio_config", "image_config"])
def test_the_common_tests_of_configurations_pass(monkeypatch, pytestconfig, name) -> None:
    common = import_common_tests("test_configuration_common", monkeypatch, pytestconfig)
    config = tiny_config() if name is None else getattr(tiny_config(), name)
    fields = {field: getattr(config, field) for field in type(config).own_fields() - set(config.sub_configs)}
    common.ConfigTester(
        unittest.TestCase(),
        config_class=type(config),
        has_text_modality=False,
        common_properties=[],
        **fields,
    ).run_common_tests()
