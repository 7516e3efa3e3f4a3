"""Real ultrasound, with and without a voice, from recordings to a loaded model, by the README's commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clips_helpers import TINY_MODEL
from transformers import AutoModel, AutoProcessor

from datasets_scripts.recordings import find_recordings, open_recording
from train.metrics_file import read_metrics

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.media]


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pretrained(recordings: Path, folder: Path, batch_size: int) -> Path:
    """Cuts clips of 2 s, pretrains a tiny model on them, and returns its folder."""
    clips, model = folder / "clips", folder / "model"
    python = sys.executable
    run(python, "-m", "datasets_scripts.prepare_clips", str(recordings), str(clips), "--clip-seconds", "2")
    fields = {
        "--dataset": str(clips),
        "--output_dir": str(model),
        "--max_steps": "3",
        "--per_device_train_batch_size": str(batch_size),
        "--num_train_epochs": "1",
        "--model": json.dumps(TINY_MODEL),
    }
    launcher = str(Path(python).with_name("accelerate"))
    flags = [word for pair in fields.items() for word in pair]
    run(launcher, "launch", "train/pretrain.py", "train/recipes/paper_large.yaml", *flags)
    return model


@pytest.mark.parametrize(("name", "batch_size"), [("ultrasound_with_speech", 2), ("ultrasound_video", 4)])
def test_real_recordings_become_a_model_that_loads(media: Path, tmp_path: Path, name: str, batch_size: int):
    model_folder = pretrained(media / name, tmp_path, batch_size)
    model, processor = AutoModel.from_pretrained(model_folder), AutoProcessor.from_pretrained(model_folder)
    recording = open_recording(find_recordings(media / name)[0])
    frames = [frame.read_pixels() for frame in recording.frames_at([0.1 * number for number in range(14)])]
    sound = recording.sound()
    waveform = None if sound is None else sound.window(0.0, 2.0)
    inputs = processor(
        videos=[frames], images=[frames[0]], audio=[waveform], sampling_rate=32_000, return_tensors="pt"
    )
    assert inputs["audio_mask"].tolist() == [name == "ultrasound_with_speech"]
    with torch.inference_mode():
        outputs = model(**inputs)
    assert outputs.video_embeds.isfinite().all() and outputs.video_embeds.abs().sum() > 0
    assert bool(outputs.audio_embeds.abs().sum() > 0) == (waveform is not None)
    metrics = read_metrics(model_folder / "metrics.json")["metrics"]
    has_speech_recall = "validation/speech_to_video_recall_at_5" in metrics
    assert has_speech_recall == (name == "ultrasound_with_speech")
