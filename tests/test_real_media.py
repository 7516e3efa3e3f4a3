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


# Every file of the real media, and why it is left out; None where it is kept. Clips are of 0.9 s.
LEFT_OUT = {
    **dict.fromkeys(
        [f"fetal_planes/{name}.png" for name in ("3VV", "4CH", "ABDOMINAL", "BRAIN-CB", "BRAIN-TV", "FEMUR")]
        + [f"fetal_planes/{name}.png" for name in ("KIDNEYS", "LIPS", "LVOT", "PROFILE", "RVOT")]
        + [f"fetal_planes/SPINE-{name}.png" for name in ("CORONAL", "SAGITTAL")]
        + ["odd_media/corrupt.jpg"],
        ("NotARecordingError", "a single picture holds no clip"),
    ),
    "odd_media/nasa_13013.mp4": None,
    "odd_media/sine_mono_s16.wav": ("NoVideoError", "the file holds no video, at most sound"),
    "odd_media/test_non_zero_start.mp4": ("TooShortError", "shorter than one clip"),
    "odd_media/testsrc2_odd_height_and_width_444.mp4": ("NoSectorError", "Nothing in the picture moves"),
    "ultrasound_dicom/ExplVR_BigEnd.dcm": ("NoSectorError", "Nothing in the picture moves"),
    **dict.fromkeys(
        [f"ultrasound_dicom/examples_{name}.dcm" for name in ("jpeg2k", "palette", "rgb_color")],
        ("TooShortError", "shorter than one clip"),
    ),
    "ultrasound_dicom/examples_ybr_color.dcm": None,
    "ultrasound_video/butterfly-ocular-phantom.mp4": None,
    "ultrasound_video/clarius-ocular-short.mp4": None,
    "ultrasound_video/sonosite-anon-eye1-video.mp4": None,
    "ultrasound_with_speech/70ms-003_cal_dark_theme.mp4": None,
    "ultrasound_with_speech/70ms-003_cal_light_theme.mp4": None,
}


def test_every_real_file_has_its_row_in_the_report(media: Path, tmp_path: Path):
    """By the defaults of the command, in one run; what has no row is what is written about the files."""
    command = [sys.executable, "-m", "datasets_scripts.prepare_clips", str(media), str(tmp_path / "set")]
    options = ["--clip-seconds", "0.9", "--workers", "2", "--sheet", str(tmp_path / "sheet.png")]
    printed = run(*command, *options)
    (report,) = tmp_path.glob("set.*.report.json")
    rows = {row["name"]: row for row in json.loads(report.read_text())["recordings"]}
    named = {name for name in rows if (media / name).is_file()}
    without = {file.relative_to(media).as_posix() for file in media.rglob("*") if file.is_file()} - named
    assert {Path(name).name for name in without} == {"LICENSE", "README.md"}
    assert {name: row["error"] for name, row in rows.items()} == {
        name: reason and reason[0] for name, reason in LEFT_OUT.items()
    }
    for name, reason in LEFT_OUT.items():
        if reason is None:
            assert rows[name]["rows"] > 0
        else:
            assert (
                rows[name]["left_out"].startswith(f"{name}: {reason[1]}")
                and rows[name]["left_out"] in printed
            )
    assert rows["odd_media/nasa_13013.mp4"]["counts"]["sectors_of_the_whole_picture"] == 1
    assert len(rows["ultrasound_dicom/examples_rgb_color.dcm"]["texts"]) > 10
    assert (tmp_path / "sheet.png").exists() and report.with_suffix(".html").exists()
