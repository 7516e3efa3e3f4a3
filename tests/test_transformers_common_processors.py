"""The common tests that transformers runs over every processor of its own, run over ours.

They come with its source distribution. The tables of skips list each test that does not apply, and why.
"""

import fnmatch
import importlib
import io
import sys
import unittest
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from modeling_dualrep import (
    DualRepFeatureExtractor,
    DualRepImageProcessor,
    DualRepProcessor,
    DualRepVideoProcessor,
)

COMPILED = "compiles the processor, which transformers itself does with RUN_SLOW=1 and an accelerator alone"
ONE_BACKEND = "compares the torchvision with the PIL backend, and ours has the first alone"
IMMUTABLE = "changes size and mean in place, which transformers itself has made immutable"
OLD_VALIDATION = "asks for two ways to name the valid arguments that transformers itself has given up"
REPEATED_FRAMES = "wants too few frames refused, and ours repeats them: the model takes a fixed number"
NO_TEXT = "the processor has no tokenizer"
NO_CHAT = "the processor takes no chat template"
NO_TOKENS = "the processor makes no tokens of images, videos or audio"

# Names as patterns, since each kind of input makes a test of its own of some.
IMAGE_SKIPS = {
    COMPILED: ("test_can_compile_torchvision_backend",),
    ONE_BACKEND: (
        "test_backends_equivalence*",
        "test_save_load_backends*",
        "test_pil_can_run_without_torchvision",
    ),
    IMMUTABLE: ("test_override_instance_attributes_does_not_affect_other_instances",),
    OLD_VALIDATION: ("test_image_processor_preprocess_arguments",),
}
VIDEO_SKIPS = {
    COMPILED: ("test_can_compile_fast_video_processor",),
    IMMUTABLE: ("test_override_instance_attributes_does_not_affect_other_instances",),
    OLD_VALIDATION: ("test_video_processor_preprocess_arguments",),
    REPEATED_FRAMES: ("test_call_sample_frames",),
}
PROCESSOR_SKIPS = {
    NO_TEXT: (
        "test_doubly_passed_kwargs_*",
        "test_if_input_has_mismatching_tokens_and_mm_data",
        "test_kwargs_overrides_default_subprocessor_kwargs_*",
        "test_overlapping_text_image_kwargs_handling_*",
        "test_processor_text_has_no_visual",
        "test_structured_kwargs_nested_from_dict_*",
        "test_subprocessor_defaults_0_text",
        "test_subprocessor_defaults_preserved_by_kwargs_*",
        "test_tokenizer_decode_defaults",
        "test_unstructured_kwargs_*",
    ),
    NO_CHAT: ("test_apply_chat_template_*", "test_chat_template_*"),
    NO_TOKENS: ("test_get_num_multimodal_tokens_matches_processor_call*", "test_replacement_offsets"),
}

Case = Callable[[ModuleType], type[unittest.TestCase]]
Skips = dict[str, tuple[str, ...]]


class FeatureTester:
    """Features of seven lengths for the padding tests."""

    batch_size = 7
    feature_size = 64
    min_seq_length = 40
    max_seq_length = 208
    seq_length_diff = 28

    def prepare_feat_extract_dict(self) -> dict[str, Any]:
        return {"feature_size": 64, "sampling_rate": 32000, "hop_length": 160, "padding_value": 0.0}

    def prepare_inputs_for_common(self, equal_length: bool = False, numpify: bool = False) -> list:
        lengths = range(self.min_seq_length, self.max_seq_length + 1, self.seq_length_diff)
        shapes = [(self.max_seq_length if equal_length else length, self.feature_size) for length in lengths]
        features = [np.random.default_rng(0).standard_normal(shape) for shape in shapes]
        return features if numpify else [array.tolist() for array in features]


def feature_extraction_case(common: ModuleType) -> type[unittest.TestCase]:
    class DualRepFeatureExtractionTest(common.SequenceFeatureExtractionTestMixin, unittest.TestCase):
        feature_extraction_class = DualRepFeatureExtractor
        feat_extract_tester = FeatureTester()

    return DualRepFeatureExtractionTest


def image_processing_case(common: ModuleType) -> type[unittest.TestCase]:
    class ImageTester(common.ImageProcessingTester):
        def __init__(self, parent: unittest.TestCase) -> None:
            super().__init__(parent, size={"height": 18, "width": 20}, image_mean=[0.5] * 3, do_pad=True)

        def _get_image_processing_classes(self) -> dict[str, type]:
            return {"torchvision": DualRepImageProcessor}

    class DualRepImageProcessingTest(common.ImageProcessingTestMixin, unittest.TestCase):
        image_processor_tester_class = ImageTester
        test_cast_dtype = True

    return DualRepImageProcessingTest


def video_processing_case(common: ModuleType) -> type[unittest.TestCase]:
    class VideoTester:
        batch_size, num_frames, num_channels = 5, 8, 3

        def prepare_video_inputs(self, equal_resolution: bool = False, return_tensors: str = "pil") -> list:
            return common.prepare_video_inputs(
                self.batch_size, self.num_frames, self.num_channels, 30, 80, equal_resolution, return_tensors
            )

        def expected_output_video_shape(self, videos: list) -> list[int]:
            return [14, self.num_channels, 18, 18]

    class DualRepVideoProcessingTest(common.VideoProcessingTestMixin, unittest.TestCase):
        fast_video_processing_class = DualRepVideoProcessor
        video_processor_tester = VideoTester()
        video_processor_dict: ClassVar[dict[str, Any]] = {
            "size": {"shortest_edge": 20},
            "default_to_square": False,
            "do_center_crop": True,
            "crop_size": {"height": 18, "width": 18},
        }
        test_cast_dtype = True

        def setUp(self) -> None:
            super().setUp()
            self.video_processor_tester = VideoTester()

        @unittest.skip(REPEATED_FRAMES)
        def test_call_sample_frames(self) -> None: ...

    return DualRepVideoProcessingTest


def processing_case(common: ModuleType) -> type[unittest.TestCase]:
    # The tests pass audio without its rate, which ours asks for: it is set here as options can be.
    options = {"return_tensors": "pt", "sampling_rate": 32000}
    common.MODALITY_TEST_SPECS["audio"]["call_time_kwargs"] = options

    class DualRepProcessorTest(common.ProcessorTesterMixin, unittest.TestCase):
        processor_class = DualRepProcessor
        _setup_feature_extractor = DualRepFeatureExtractor
        _setup_image_processor = DualRepImageProcessor
        _setup_video_processor = DualRepVideoProcessor

        def get_processor(self, *args: Any, **kwargs: Any) -> DualRepProcessor:
            processor = super().get_processor(*args, **kwargs)
            processor.audio_kwargs = {"sampling_rate": 32000}
            return processor

    return DualRepProcessorTest


# The module of the common tests, what makes a test case of it, the skips, and how many tests run at least.
CASES: list[tuple[str, Case, Skips, int]] = [
    ("test_sequence_feature_extraction_common", feature_extraction_case, {}, 14),
    ("test_image_processing_common", image_processing_case, IMAGE_SKIPS, 20),
    ("test_video_processing_common", video_processing_case, VIDEO_SKIPS, 14),
    ("test_processing_common", processing_case, PROCESSOR_SKIPS, 19),
]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "case", "skips", "at_least"), CASES, ids=[case[0] for case in CASES])
def test_the_common_tests_of_transformers_pass(monkeypatch, pytestconfig, module, case, skips, at_least):
    from transformers_sdist import transformers_sdist_tests

    pytestconfig.addinivalue_line("markers", "torch_compile_test: a marker of transformers' own")
    # A script of transformers' repository that its source distribution leaves out; it fetches test files.
    fetch = ModuleType("fetch_hub_objects_for_ci")
    fetch.url_to_local_path = lambda url: url
    monkeypatch.setitem(sys.modules, fetch.__name__, fetch)
    monkeypatch.syspath_prepend(str(transformers_sdist_tests()))
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(case(importlib.import_module(f"tests.{module}")))
    result = unittest.TextTestRunner(stream=io.StringIO()).run(tests)
    failed = [f"{test.id()}\n{traceback}" for test, traceback in result.failures + result.errors]
    assert not failed, "\n".join(failed)
    skipped = {test.id().split(" ")[0].rpartition(".")[2] for test, _ in result.skipped}
    patterns = [pattern for names in skips.values() for pattern in names]
    unlisted = {name for name in skipped if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    assert not unlisted, "skipped without a reason in the table"
    assert [pattern for pattern in patterns if not fnmatch.filter(skipped, pattern)] == [], (
        "listed, but not skipped"
    )
    assert result.testsRun - len(skipped) >= at_least
