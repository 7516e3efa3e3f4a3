"""Weights are published whole, as safetensors, and with no NaN among them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_model

from hub_cards.push_errors import PushError
from hub_cards.weights_check import check_weights, weight_files


def test_weights_in_parts_are_known_by_their_index(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path, max_shard_size="20KB")
    parts = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert weight_files(tmp_path) == ["model.safetensors.index.json", *parts]
    (tmp_path / parts[-1]).unlink()
    with pytest.raises(PushError, match=f"names {parts[-1]}, which is not beside it"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(PushError, match="is no index of weights"):
        weight_files(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_single_wrong_value_is_found(dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    tensors = {"a": torch.ones(4, 5, dtype=dtype), "b": torch.ones(3), "steps": torch.tensor(3)}
    save_file(tensors, tmp_path / "sound.safetensors")
    check_weights(tmp_path / "sound.safetensors")
    tensors["a"][2, 3] = value
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(PushError, match="weights a hold NaN"):
        check_weights(tmp_path / "wrong.safetensors")
