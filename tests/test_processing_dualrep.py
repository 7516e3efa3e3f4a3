"""A raw triple becomes the model's inputs, here and in a process that has transformers but not us."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoVideoProcessor
from transformers.dynamic_module_utils import get_imports

import modeling_dualrep
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.processing_dualrep import DualRepProcessor
from modeling_dualrep.video_processing_dualrep import DualRepVideoProcessor

RATE = 32000
AUTO_CLASSES = {
    "feature_extractor": AutoFeatureExtractor,
    "image_processor": AutoImageProcessor,
    "video_processor": AutoVideoProcessor,
}

# Runs where neither this package nor torchaudio can be imported.
ELSEWHERE = """
import sys
sys.modules["modeling_dualrep"] = sys.modules["torchaudio"] = None
import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoVideoProcessor

folder, triple_file, features_file = sys.argv[1:]
triple = torch.load(triple_file)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
extractor, images, videos = (
    auto_class.from_pretrained(folder, trust_remote_code=True)
    for auto_class in (AutoFeatureExtractor, AutoImageProcessor, AutoVideoProcessor)
)
whole = processor(**triple, sampling_rate=32000, return_tensors="pt")
parts = {
    **extractor(triple["audio"], sampling_rate=32000, return_tensors="pt"),
    **images(triple["images"], return_tensors="pt"),
    **videos(triple["videos"], return_tensors="pt"),
}
try:
    processor(audio=triple["audio"], sampling_rate=16000)
except ValueError as error:
    message = str(error)
torch.save({"whole": dict(whole), "parts": parts, "message": message}, features_file)
"""


def make_processor(**video_fields: object) -> DualRepProcessor:
    return DualRepProcessor(
        DualRepFeatureExtractor(), DualRepImageProcessor(), DualRepVideoProcessor(**video_fields)
    )


def triple(batch_size: int = 2) -> dict[str, list]:
    """Clips, waveforms (the last one missing) and frames."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, 14, 3, 48, 64)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    waveforms = [0.1 * torch.randn(RATE // 4, generator=generator) for _ in range(batch_size - 1)]
    return {"videos": list(clips), "audio": [*waveforms, None], "images": list(clips[:, 3])}


def test_a_triple_becomes_the_inputs_of_the_model():
    features = make_processor()(**triple(), sampling_rate=RATE, return_tensors="pt")
    shapes = {name: tuple(values.shape) for name, values in features.items()}
    assert shapes == {
        "pixel_values_videos": (2, 14, 3, 128, 128),
        "input_features": (2, 26, 64),
        "audio_mask": (2,),
        "pixel_values": (2, 3, 128, 128),
    }
    assert features["audio_mask"].tolist() == [True, False]
    assert set(shapes) == set(make_processor().model_input_names)
    assert torch.equal(features["pixel_values_videos"][:, 3], features["pixel_values"])


def test_each_input_goes_to_its_part():
    processor, inputs = make_processor(), triple()
    whole = processor(**inputs, sampling_rate=RATE, return_tensors="pt")
    audio = processor.feature_extractor(inputs["audio"], sampling_rate=RATE, return_tensors="pt")
    images = processor.image_processor(inputs["images"], return_tensors="pt")
    videos = processor.video_processor(inputs["videos"], return_tensors="pt")
    for features in (audio, images, videos):
        for name, values in features.items():
            assert torch.equal(whole[name], values)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("videos", {"pixel_values_videos"}),
        ("audio", {"input_features", "audio_mask"}),
        ("images", {"pixel_values"}),
    ],
)
def test_one_input_alone_is_enough(name, outputs):
    features = make_processor()(**{name: triple()[name]}, sampling_rate=RATE, return_tensors="np")
    assert set(features) == outputs
    assert all(isinstance(values, np.ndarray) and len(values) == 2 for values in features.values())


def test_options_reach_their_part():
    features = make_processor()(
        **triple(),
        sampling_rate=RATE,
        return_tensors="pt",
        num_frames=4,
        padding="max_length",
        max_length=RATE,
    )
    assert features["pixel_values_videos"].shape[1] == 4
    assert features["input_features"].shape[1] == 101


def test_bad_calls_are_refused():
    processor, inputs = make_processor(), triple()
    with pytest.raises(ValueError, match="given nothing"):
        processor(sampling_rate=RATE)
    with pytest.raises(ValueError, match="no option 'sample_rate'"):
        processor(**inputs, sample_rate=RATE)
    with pytest.raises(ValueError, match="pass sampling_rate together with audio"):
        processor(**inputs)
    with pytest.raises(ValueError, match="2 of pixel_values_videos, 1 of pixel_values"):
        processor(videos=inputs["videos"], images=inputs["images"][:1], return_tensors="pt")


def test_saved_and_loaded_alike(tmp_path):
    processor = make_processor(num_frames=6)
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists(), "the parts would overwrite each other's file"
    features = processor(**triple(), sampling_rate=16000, return_tensors="pt")
    for loaded in (DualRepProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is DualRepProcessor
        assert loaded.to_dict() == processor.to_dict()
        again = loaded(**triple(), sampling_rate=16000, return_tensors="pt")
        assert all(torch.equal(again[name], values) for name, values in features.items())


@pytest.mark.parametrize("part", AUTO_CLASSES)
def test_a_part_loads_from_the_folder_of_the_whole(tmp_path, part):
    processor = make_processor(num_frames=6)
    processor.save_pretrained(tmp_path)
    loaded = AUTO_CLASSES[part].from_pretrained(tmp_path)
    assert type(loaded) is type(getattr(processor, part))
    assert loaded.to_dict() == getattr(processor, part).to_dict()


@pytest.mark.parametrize("part", AUTO_CLASSES)
def test_a_misspelt_field_in_the_saved_file_is_refused(tmp_path, part):
    make_processor().save_pretrained(tmp_path)
    saved = tmp_path / "processor_config.json"
    fields = json.loads(saved.read_text())
    fields[part]["hop_lenght"] = 160
    saved.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="no field 'hop_lenght'"):
        DualRepProcessor.from_pretrained(tmp_path)


def test_the_saved_folder_works_where_this_package_is_absent(tmp_path):
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    elsewhere.mkdir()
    processor = make_processor()
    processor.save_pretrained(folder)
    torch.save(triple(), tmp_path / "triple.pt")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    files = [folder, tmp_path / "triple.pt", tmp_path / "features.pt"]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *files], cwd=elsewhere, env=environment, check=True)
    there = torch.load(tmp_path / "features.pt")
    expected = processor(**triple(), sampling_rate=RATE, return_tensors="pt")
    for features in (there["whole"], there["parts"]):
        assert set(features) == set(expected)
        assert all(torch.equal(features[name], values) for name, values in expected.items())
    assert "install the torchaudio" in there["message"]


def test_published_files_ask_for_nothing_unusual(tmp_path):
    make_processor().save_pretrained(tmp_path)
    published = sorted(path.name for path in tmp_path.glob("*.py"))
    assert published == [
        "feature_extraction_dualrep.py",
        "image_processing_dualrep.py",
        "processing_dualrep.py",
        "video_processing_dualrep.py",
    ]
    package = Path(modeling_dualrep.__file__).parent
    wanted = {name for file in published for name in get_imports(package / file)}
    assert wanted - sys.stdlib_module_names == {"PIL", "numpy", "torch", "torchvision", "transformers"}
