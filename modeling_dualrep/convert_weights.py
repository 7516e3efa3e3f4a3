"""Weights published elsewhere, in the towers' own names.

torchvision's R(2+1)D-18 (Kinetics-400) and ResNet18 (ImageNet), and PANNs' CNN14 (AudioSet):

    python -m modeling_dualrep.convert_weights --video kinetics --image imagenet --audio Cnn14.pth OUT
"""

import argparse
import pickle
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .audio_cnn14 import DualRepAudioModel
from .configuration_dualrep import DualRepAudioConfig, DualRepConfig
from .image_resnet import DualRepImageModel
from .tower import DualRepTower
from .video_r2plus1d import DualRepVideoModel

PANNS_DOWNLOAD = "https://zenodo.org/record/3987831/files/Cnn14_mAP%3D0.431.pth"

# A rule is a pattern of the published name and, with its groups, our name. Stages and blocks count from 1
# there and from 0 here: {n} is group n as it stands, {n-} is group n less one.
VIDEO_RULES = {
    r"stem\.0\.(\w+)": "stem.convolution.spatial.{1}",
    r"stem\.1\.(\w+)": "stem.convolution.norm.{1}",
    r"stem\.3\.(\w+)": "stem.convolution.temporal.{1}",
    r"stem\.4\.(\w+)": "stem.norm.{1}",
    r"layer(\d+)\.(\d+)\.conv(\d)\.0\.0\.(\w+)": "stages.{1-}.{2}.convolution{3}.spatial.{4}",
    r"layer(\d+)\.(\d+)\.conv(\d)\.0\.1\.(\w+)": "stages.{1-}.{2}.convolution{3}.norm.{4}",
    r"layer(\d+)\.(\d+)\.conv(\d)\.0\.3\.(\w+)": "stages.{1-}.{2}.convolution{3}.temporal.{4}",
    r"layer(\d+)\.(\d+)\.conv(\d)\.1\.(\w+)": "stages.{1-}.{2}.norm{3}.{4}",
    r"layer(\d+)\.(\d+)\.downsample\.0\.(\w+)": "stages.{1-}.{2}.shortcut.convolution.{3}",
    r"layer(\d+)\.(\d+)\.downsample\.1\.(\w+)": "stages.{1-}.{2}.shortcut.norm.{3}",
}
IMAGE_RULES = {
    r"conv1\.(\w+)": "embedder.embedder.convolution.{1}",
    r"bn1\.(\w+)": "embedder.embedder.normalization.{1}",
    r"layer(\d+)\.(\d+)\.conv(\d)\.(\w+)": "stages.{1-}.{2}.layer.{3-}.convolution.{4}",
    r"layer(\d+)\.(\d+)\.bn(\d)\.(\w+)": "stages.{1-}.{2}.layer.{3-}.normalization.{4}",
    r"layer(\d+)\.(\d+)\.downsample\.0\.(\w+)": "stages.{1-}.{2}.shortcut.convolution.{3}",
    r"layer(\d+)\.(\d+)\.downsample\.1\.(\w+)": "stages.{1-}.{2}.shortcut.normalization.{3}",
}
AUDIO_RULES = {
    r"bn0\.(\w+)": "norm.{1}",
    r"conv_block(\d+)\.conv(\d)\.(\w+)": "blocks.{1-}.conv{2}.{3}",
    r"conv_block(\d+)\.bn(\d)\.(\w+)": "blocks.{1-}.norm{2}.{3}",
    r"fc1\.(\w+)": "embedding.linear.{1}",
}
TORCHVISION_CLASSIFIER = ("fc.",)
# The feature extractor computes the log-mel spectrogram, so PANNs' own STFT and mel filters are not needed.
PANNS_NOT_NEEDED = ("spectrogram_extractor.", "logmel_extractor.", "fc_audioset.")


def video_from_torchvision(
    state_dict: dict[str, Tensor], source: str = "The state dict"
) -> dict[str, Tensor]:
    """The state dict of torchvision's R(2+1)D-18 in the names of DualRepVideoModel, without the classifier.

    Raises ValueError, calling it `source`, for a name that network does not have.
    """
    return _rename(state_dict, VIDEO_RULES, TORCHVISION_CLASSIFIER, source, "torchvision's R(2+1)D-18")


def image_from_torchvision(
    state_dict: dict[str, Tensor], source: str = "The state dict"
) -> dict[str, Tensor]:
    """The state dict of torchvision's ResNet18 in the names of DualRepImageModel, without the classifier.

    Raises ValueError, calling it `source`, for a name that network does not have.
    """
    return _rename(state_dict, IMAGE_RULES, TORCHVISION_CLASSIFIER, source, "torchvision's ResNet18")


def audio_from_panns(checkpoint_path: str | Path) -> dict[str, Tensor]:
    """PANNs' CNN14 in the names of DualRepAudioModel (conv_dim=2), without STFT, mel filters and classifier.

    Raises ValueError if the file is no checkpoint of theirs, or has weights CNN14 does not have.
    """
    with _numpy_arrays_allowed():
        checkpoint = _read_checkpoint(Path(checkpoint_path))
    if "model" not in checkpoint:
        raise ValueError(
            f"{checkpoint_path} has no entry 'model', where PANNs keep their weights. "
            f"Give the checkpoint of CNN14 as published: {PANNS_DOWNLOAD}"
        )
    return _rename(checkpoint["model"], AUDIO_RULES, PANNS_NOT_NEEDED, str(checkpoint_path), "PANNs' CNN14")


def load_tower_weights(tower: DualRepTower, source: str, path: Path | None = None) -> None:
    """Puts weights trained elsewhere into a tower.

    Args:
        tower: the tower, changed in place.
        source: "kinetics" (video), "imagenet" (image), "panns" (audio), or the folder of a DualRep model.
        path: the file as published; None downloads torchvision's. PANNs' has to be given.

    Raises:
        ValueError: the source is not for this tower, or its weights do not fit it.
    """
    published = ", ".join(map(repr, PUBLISHED_WEIGHTS))
    if source in PUBLISHED_WEIGHTS:
        tower_class, read = PUBLISHED_WEIGHTS[source]
        if not isinstance(tower, tower_class):
            raise ValueError(
                f"{source} weights are for {tower_class.__name__}, not for {type(tower).__name__}."
            )
        weights = read(tower, path)
    elif path is not None:
        raise ValueError(f"The file {path} needs a source of weights among {published}, not {source!r}.")
    elif not (Path(source) / "config.json").is_file():
        raise ValueError(
            f"The source of weights {source!r} is none of {published}, "
            "nor the folder of a DualRep model, which has a config.json."
        )
    else:
        weights = _dualrep_weights(tower, source)
    _load(tower, weights, str(path or source))


def _kinetics_weights(tower: DualRepTower, path: Path | None) -> dict[str, Tensor]:
    from torchvision.models.video import R2Plus1D_18_Weights

    if path is None:
        return video_from_torchvision(R2Plus1D_18_Weights.KINETICS400_V1.get_state_dict(check_hash=True))
    return video_from_torchvision(_read_checkpoint(path), str(path))


def _imagenet_weights(tower: DualRepTower, path: Path | None) -> dict[str, Tensor]:
    from torchvision.models import ResNet18_Weights

    if path is None:
        return image_from_torchvision(ResNet18_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True))
    return image_from_torchvision(_read_checkpoint(path), str(path))


def _panns_weights(tower: DualRepTower, path: Path | None) -> dict[str, Tensor]:
    if tower.config.conv_dim != 2:
        raise ValueError(
            "PANNs' weights convolve over time and mel, and the audio tower's conv_dim is "
            f"{tower.config.conv_dim}: set conv_dim=2 in DualRepAudioConfig."
        )
    if path is None:
        raise ValueError(f"PANNs' weights need the path of their file. Download it from {PANNS_DOWNLOAD}")
    return audio_from_panns(path)


def _dualrep_weights(tower: DualRepTower, folder: str) -> dict[str, Tensor]:
    trained, report = type(tower).from_pretrained(folder, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(
            f"{folder} lacks weights of {type(tower).__name__}: {_some(report['missing_keys'])}. "
            "Give the folder of a DualRepModel or of that tower."
        )
    return trained.state_dict()


PUBLISHED_WEIGHTS = {
    "kinetics": (DualRepVideoModel, _kinetics_weights),
    "imagenet": (DualRepImageModel, _imagenet_weights),
    "panns": (DualRepAudioModel, _panns_weights),
}


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {path} to read weights from.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read as a PyTorch checkpoint of plain weights: download it anew."
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, not a dictionary of weights.")
    return checkpoint


def _numpy_arrays_allowed() -> AbstractContextManager:
    # Beside its weights, PANNs' file keeps the sampler of its training: arrays pickled by numpy 1, which call
    # numpy._core by its old name.
    numpy_core = np.empty(0).__reduce__()[0]
    return torch.serialization.safe_globals(
        [
            (numpy_core, "numpy.core.multiarray._reconstruct"),
            numpy_core,
            np.ndarray,
            np.dtype,
            np.dtypes.Int64DType,
        ]
    )


def _rename(
    state_dict: dict[str, Tensor], rules: dict[str, str], not_needed: Sequence[str], source: str, network: str
) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, tensor in state_dict.items():
        if name.startswith(tuple(not_needed)):
            continue
        ours = _name_by_rules(name, rules)
        if ours is None:
            unknown.append(name)
        else:
            renamed[ours] = tensor
    if unknown:
        raise ValueError(
            f"{source} is not of {network}, which has no {_some(unknown)}. Give that network's own file."
        )
    return renamed


def _name_by_rules(name: str, rules: dict[str, str]) -> str | None:
    for pattern, template in rules.items():
        match = re.fullmatch(pattern, name)
        if match:
            return re.sub(
                r"\{(\d)(-?)\}", lambda slot, match=match: _filled(match[int(slot[1])], slot[2]), template
            )
    return None


def _filled(group: str, less_one: str) -> str:
    return str(int(group) - 1) if less_one else group


def _load(tower: DualRepTower, weights: dict[str, Tensor], source: str) -> None:
    own = tower.state_dict()
    # Files older than the counter lack it; it serves nothing but a BatchNorm without momentum.
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unknown = [key for key in weights if key not in own]
    for keys, what in ((missing, "lacks"), (unknown, "has, and the tower has not,")):
        if keys:
            raise ValueError(
                f"{source} does not fit {type(tower).__name__}: it {what} {_some(keys)}. "
                "Set hidden_sizes and depths of the tower's configuration to those of the weights."
            )
    for key, tensor in weights.items():
        if own[key].shape != tensor.shape:
            raise ValueError(
                f"{source} does not fit {type(tower).__name__}: {key} has shape {tuple(tensor.shape)} there "
                f"and {tuple(own[key].shape)} in the tower. Give the tower the configuration of the weights."
            )
    tower.load_state_dict(weights, strict=False)


def _some(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def convert(video: str | None, image: str | None, audio: str | None, out: Path) -> None:
    """Writes a DualRepModel folder with the given published weights in its towers, the rest of it new.

    Args:
        video: "kinetics" to download, or torchvision's file; None leaves the tower new.
        image: "imagenet" to download, or torchvision's file; None leaves the tower new.
        audio: PANNs' file; None leaves the tower new, and over time alone.
        out: a folder that does not exist yet, or an empty one.

    Raises:
        ValueError: the folder holds files already, or published weights do not fit; see `load_tower_weights`.
    """
    from .modeling_dualrep import DualRepModel  # only this command needs more than the towers

    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} already holds files. Give a new folder.")
    audio_config = DualRepAudioConfig(conv_dim=2 if audio else 1)  # PANNs convolve over time and mel
    model = DualRepModel(DualRepConfig(audio_config=audio_config))
    wanted = [
        (model.video_model, "kinetics", video),
        (model.image_model, "imagenet", image),
        (model.audio_model, "panns", audio),
    ]
    for tower, source, file in wanted:
        if file is not None:
            load_tower_weights(tower, source, None if file == source else Path(file))
    model.save_pretrained(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: see the top of this file."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_dualrep.convert_weights",
        description="Writes a DualRepModel folder with published weights.",
    )
    parser.add_argument("--video", help="'kinetics', or torchvision's file of R(2+1)D-18")
    parser.add_argument("--image", help="'imagenet', or torchvision's file of ResNet18")
    parser.add_argument("--audio", help="PANNs' file of CNN14")
    parser.add_argument("out", type=Path, help="folder to write the DualRepModel to")
    try:
        convert(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
