"""A run's folder as small as it gets, and a Hub to push it to, from this process or from a child."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import HubStandIn
from PIL import Image
from tiny_models import FRAMES, MEL_BINS, SIZE, tiny_model

from modeling_dualrep import (
    DualRepFeatureExtractor,
    DualRepForImageClassification,
    DualRepImageProcessor,
    DualRepProcessor,
    DualRepVideoProcessor,
)

ROOT = Path(__file__).resolve().parents[1]
TOKEN, READER, STRANGER = "hf_writersecret", "hf_readersecret", "hf_strangersecret"
PART_BYTES = 2**14
CARD = """---
license: apache-2.0
---

# Tiny

```python
model = AutoModel.from_pretrained("PATH_OR_HUB_ID", trust_remote_code=True)
```
"""
METRICS = {
    "metrics": {"validation/accuracy": 0.5},
    "recipe": "tiny",
    "seed": 0,
    "code_version": "0.1",
    "data_hash": "abc",
    "machine": {"cpu": "some", "cores": 1, "gpu": None, "torch": "2"},
}


def write_run(folder: Path) -> Path:
    """What a pretraining leaves, with checkpoints and logs beside it."""
    tiny_model().save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    DualRepProcessor(
        DualRepFeatureExtractor(feature_size=MEL_BINS),
        DualRepImageProcessor(size=size),
        DualRepVideoProcessor(size=size, num_frames=FRAMES),
    ).save_pretrained(folder)
    (folder / "recipe.yaml").write_text("output_dir: /home/me/runs/tiny\ndataset: org/clips\nmodel: null\n")
    _write_rest(folder)
    for name in ("checkpoints/step_1/optimizer.bin", "logs/events.out", "predictions.parquet", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not published")
    return folder


def write_task_run(folder: Path, run: Path) -> Path:
    """What a fine-tuning on planes leaves."""
    DualRepForImageClassification.from_pretrained(run, num_labels=3).save_pretrained(folder)
    DualRepImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    (folder / "recipe.yaml").write_text("model: runs/tiny\n")
    _write_rest(folder)
    return folder


def _write_rest(folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "README.md").write_text(CARD)
    (folder / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "pictures" / "loss_curves.png")


@contextmanager
def hub_in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """A stand-in that huggingface_hub in this process talks to, as TOKEN, without waiting."""
    hub = new_hub()
    with hub.running() as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        urls = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", urls)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def new_hub() -> HubStandIn:
    """A stand-in that knows one who writes, and one who reads."""
    return HubStandIn({TOKEN: "me"}, {READER: "reader"}, PART_BYTES)


def run_child(
    address: str, home: Path, *command: str, token: str | None = TOKEN, cwd: Path = ROOT, **settings: str
) -> subprocess.CompletedProcess[str]:
    """A Python process whose Hub is at this address, with a cache of its own and nothing of this one's."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))
    }
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(home), **settings}
    if token is not None:
        environment["HF_TOKEN"] = token
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=cwd, capture_output=True, text=True, timeout=120
    )
