"""Weights that may be published: safetensors, every value of them a number."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hub_cards.push_errors import PushError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold a model's weights, its index of parts first where there is one.

    Raises:
        PushError: there are none, a part is missing, or there are pickled ones.
    """
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise PushError(
            f"{folder} holds {', '.join(pickled)}: a pickle can run code on whoever opens it. Save the model "
            f"with save_pretrained, which writes {WEIGHTS_FILE}, and move the pickle away."
        )
    if (folder / WEIGHTS_FILE).is_file():
        return [WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise PushError(f"{folder} holds no {WEIGHTS_FILE}: give the folder that a finished run left.")
    parts = sorted(set(_read_index(folder / INDEX_FILE).values()))
    missing = [name for name in parts if "/" in name or not (folder / name).is_file()]
    if missing:
        raise PushError(
            f"{folder / INDEX_FILE} names {missing[0]}, which is not beside it: save the model anew."
        )
    return [INDEX_FILE, *parts]


def check_weights(path: Path) -> None:
    """Raises PushError for a file that is no safetensors file, or for a tensor with NaN or infinity in it.

    One tensor at a time is read.
    """
    try:
        for name, tensor in _tensors(path):
            if not bool(torch.isfinite(tensor).all()):
                raise PushError(
                    f"{path}: the weights {name} hold NaN or infinity. The training diverged: push an "
                    "earlier checkpoint, or train again with a lower learning rate."
                )
    except SafetensorError as error:
        raise PushError(f"{path} is no whole safetensors file ({error}): save the model anew.") from error


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors file is not iterable
            yield name, file.get_tensor(name)


def _read_index(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise PushError(f"{path} is no index of weights: save the model anew.") from error
