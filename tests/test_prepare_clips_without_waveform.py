"""Sets without waveforms, from recordings to a trained model: what they hold, and that they hold no more."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from clips_helpers import FRAME_SIZE, TINY_MODEL, tiny_processor
from datasets import load_dataset
from pretrain_processes import PretrainProcesses, no_process_left, results, write_recipe  # noqa: F401
from tiny_recordings import even_times, write_video
from transformers import AutoModel

from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.privacy_check import check_privacy
from datasets_scripts.schema import (
    AUDIO,
    SAMPLING_RATE_HZ,
    audio_embedding_clips_features,
    log_mel_clips_features,
)
from datasets_scripts.shards import read_info
from modeling_dualrep import DualRepConfig, DualRepModel
from train.arguments import PretrainArguments
from train.prepare_clips_without_waveform import (
    WithoutWaveformParameters,
    main,
    prepare_clips_without_waveform,
)
from train.pretrain import build_triples
from train.stored_sound import decode_array, encoded_sound, tower_sha256
from train.triples import decode_audio, gallery_batches, log_mel, open_clips

CLIP_SECONDS, SCANS, CLIPS, SILENT_CLIP = 1.0, 3, 4, 2
WAVEFORMS, LOG_MELS, EMBEDDINGS = "clips_1s", "clips_1s_log_mel", "clips_1s_audio_embedding"
CUT = {"clip_seconds": CLIP_SECONDS, "frame_size": FRAME_SIZE}
OPTIONS = ("--clip-seconds", "1", "--frame-size", "16", "--sector", "whole", "--speech-detector", "loudness")


def sound_of_scan(scan: int) -> np.ndarray:
    """(samples,) float32: other tones in each clip of a second, but one in which nothing sounds at all."""
    times = np.arange(round((CLIPS + 0.4) * SAMPLING_RATE_HZ)) / SAMPLING_RATE_HZ
    clip = times.astype(int)
    tones = 0.2 * np.sin(2 * np.pi * 220 * (1 + clip + CLIPS * scan) * times) * (1 - times % 1)
    return np.where(clip == SILENT_CLIP, 0, tones).astype(np.float32)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans, the sound of each beside its video."""
    folder = tmp_path_factory.mktemp("recordings")
    for scan in range(SCANS):
        write_video(folder / f"scan_{scan}" / "scan.mp4", even_times(CLIPS + 0.4))
        soundfile.write(folder / f"scan_{scan}" / "audio.wav", sound_of_scan(scan), SAMPLING_RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    DualRepModel(DualRepConfig(**TINY_MODEL)).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clips(recordings: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data set with the same clips in all three forms."""
    output = tmp_path_factory.mktemp("sets") / "clips"
    prepare_clips(recordings, output, ClipParameters(**CUT), workers=1)
    for sound in ("log_mel", "embedding"):
        parameters = WithoutWaveformParameters(sound=sound, model=str(model), **CUT)
        prepare_clips_without_waveform(recordings, output, parameters, workers=1)
    return output


def rows_of(clips: Path, config: str) -> dict[str, dict]:
    splits = load_dataset(str(clips), config, streaming=True)
    return {row["clip_id"]: row for split in splits.values() for row in split.decode(False)}


# What the sets hold.


def test_log_mels_are_those_of_the_stored_waveforms(clips: Path) -> None:
    waveforms, log_mels = rows_of(clips, WAVEFORMS), rows_of(clips, LOG_MELS)
    features = load_dataset(str(clips), LOG_MELS, split="train", streaming=True).features
    assert features == log_mel_clips_features()
    assert waveforms.keys() == log_mels.keys() and len(log_mels) == SCANS * CLIPS
    for clip_id, row in log_mels.items():
        expected = log_mel(tiny_processor(), decode_audio(waveforms[clip_id][AUDIO]))
        assert (expected is None) == (row["start_s"] == SILENT_CLIP)
        if expected is None:
            assert row["log_mel"] is None
        else:
            stored = decode_array(row["log_mel"])
            assert stored.dtype == np.float16 and stored.shape == (101, 64)
            np.testing.assert_allclose(stored, expected.numpy(), atol=0.032)
        rest = set(row) - {"log_mel"}
        assert {name: row[name] for name in rest} == {name: waveforms[clip_id][name] for name in rest}


def test_embeddings_are_those_of_the_tower(clips: Path, model: Path) -> None:
    waveforms, embeddings = rows_of(clips, WAVEFORMS), rows_of(clips, EMBEDDINGS)
    tower = DualRepModel.from_pretrained(model).audio_model.eval()
    features = load_dataset(str(clips), EMBEDDINGS, split="train", streaming=True).features
    assert features == audio_embedding_clips_features(tower.config.hidden_size)
    for clip_id, row in embeddings.items():
        if row["start_s"] == SILENT_CLIP:
            assert row["audio_embedding"] is None
            continue
        heard = log_mel(tiny_processor(), decode_audio(waveforms[clip_id][AUDIO]))
        with torch.inference_mode():
            expected = tower(heard[None]).pooler_output[0]
        torch.testing.assert_close(torch.tensor(row["audio_embedding"]), expected)
    different = {tuple(row["audio_embedding"] or ()) for row in embeddings.values()}
    assert len(different) == SCANS * (CLIPS - 1) + 1


def test_info_tells_the_encoder_and_no_path(clips: Path, model: Path) -> None:
    told = read_info(clips, LOG_MELS)["encoder"]
    assert told["column"] == "log_mel"
    assert told["log_mel"] == {
        "feature_size": 64,
        "sampling_rate": 32_000,
        "n_fft": 1024,
        "hop_length": 320,
        "min_frequency_hz": 50.0,
        "max_frequency_hz": 14_000.0,
    }
    of_tower = read_info(clips, EMBEDDINGS)["encoder"]
    tower = DualRepModel.from_pretrained(model).audio_model
    assert (of_tower["hidden_size"], of_tower["tower_sha256"]) == (8, tower_sha256(tower))
    assert str(model) not in json.dumps(read_info(clips, EMBEDDINGS))


def test_the_card_says_that_neither_is_an_anonymisation(clips: Path) -> None:
    card = " ".join((clips / "README.md").read_text().split())
    assert "speech can be rebuilt from log-mels, so this is no anonymisation" in card
    assert "a probe on embeddings tells words" in card
    assert card.count("## Clips with") == 3


def test_help_says_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "no anonymisation: speech can be rebuilt from log-mels" in said
    assert "--minimum-speech-fraction" in said and "--engine" in said


@pytest.mark.parametrize("config", [LOG_MELS, EMBEDDINGS])
def test_the_privacy_check_opens_them(clips: Path, recordings: Path, config: str) -> None:
    found = check_privacy(clips, recordings, text_on_frames="skip")
    assert not [finding for finding in found if config in finding.file]


# What they do not hold.

SOUND_FILES = (b"fLaC", b"RIFF", b"OggS", b"ID3")


def sound_in(folder: Path, waveforms: list[np.ndarray]) -> list[Path]:
    """Files that hold a sound file, or a quarter of a millisecond of samples in any plain form."""
    wanted = [
        *SOUND_FILES,
        *(
            form.tobytes()
            for samples in waveforms
            for form in (samples, samples.astype(float), (samples * 2**15).round().astype(np.int16))
        ),
    ]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(part in path.read_bytes() for part in wanted)]


@pytest.mark.parametrize("sound", ["log_mel", "embedding"])
def test_no_waveform_comes_to_the_disk_not_even_for_a_while(
    sound: str, recordings: Path, clips: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [decode_audio(row[AUDIO]) for row in rows_of(clips, WAVEFORMS).values() if row[AUDIO]]
    pieces = [samples[5000:5008] for samples in stored if samples.any()]
    place = tmp_path / "all"
    (place / "tmp").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place / "tmp"))
    parameters = WithoutWaveformParameters(sound=sound, model=str(model), **CUT)
    # It ends by an error when all is staged and the shards are written: there is no folder for the sheet.
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        prepare_clips_without_waveform(
            recordings, place / "out", parameters, workers=1, sheet=tmp_path / "file" / "sheet.png"
        )
    staged = list((place / "out.partial").rglob("*.arrow"))
    assert len(staged) == SCANS and list((place / "out.partial").rglob("*.parquet"))
    assert sound_in(place, pieces) == []
    prepare_clips_without_waveform(recordings, place / "out", parameters, workers=1)
    assert list((place / "out").rglob("*.parquet")) and sound_in(place, pieces) == []


def test_the_search_for_sound_finds_it(clips: Path, tmp_path: Path) -> None:
    samples = sound_of_scan(0)
    (tmp_path / "raw").write_bytes(b"." + samples[4000:6000].tobytes())
    np.save(tmp_path / "integers.npy", (samples * 2**15).round().astype(np.int16))
    (tmp_path / "nothing").write_bytes(samples[6000:7000].tobytes())
    found = sound_in(tmp_path, [samples[5000:5008]])
    assert sorted(path.name for path in found) == ["integers.npy", "raw"]
    shards = set((clips / "data" / WAVEFORMS).glob("*.parquet"))
    assert shards and shards == set(sound_in(clips, []))


# What is refused.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sound", "both"], "sound is both; it must be log_mel or embedding."),
        (["--sound", "embedding"], "model is None; it must be the folder of a DualRep model"),
        (["--model", "nowhere"], "nowhere is no folder of a DualRep model"),
    ],
)
def test_what_cannot_be_is_told(
    options: list[str],
    sentence: str,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(recordings), str(tmp_path / "out"), *OPTIONS, *options]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_clips_too_short_for_the_tower_are_refused(recordings: Path, model: Path, tmp_path: Path) -> None:
    deep = DualRepModel(DualRepConfig(**TINY_MODEL | {"audio_config": {"hidden_sizes": [4] * 8}}))
    deep.save_pretrained(tmp_path / "deep")
    tiny_processor().save_pretrained(tmp_path / "deep")
    parameters = WithoutWaveformParameters(sound="embedding", model=str(tmp_path / "deep"), **CUT)
    with pytest.raises(ValueError, match=r"clip_seconds is 1, too short .* takes 128 frames of 0\.01 s"):
        prepare_clips_without_waveform(recordings, tmp_path / "out", parameters)


# What the trainer makes of them.

STEPS = {"max_steps": 3, "logging_steps": 1, "per_device_train_batch_size": 6, "checkpointing_steps": 3}


@pytest.fixture(scope="module")
def trained(clips: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By configuration, the folder of a run in which the speech tower is that of the model, and frozen."""
    frozen = TINY_MODEL | {"audio_config": TINY_MODEL["audio_config"] | {"freeze": True}}
    fields = {"model": frozen, "audio_weights": {"source": str(model)}, "mixed_precision": "no"}
    folders = {
        config: tmp_path_factory.mktemp("runs") / config for config in (WAVEFORMS, LOG_MELS, EMBEDDINGS)
    }
    for config, folder in folders.items():
        PretrainProcesses(write_recipe(clips, folder, dataset_config=config, **STEPS, **fields)).succeed()
    return folders


@pytest.mark.parametrize(("config", "tolerance"), [(LOG_MELS, 5e-3), (EMBEDDINGS, 1e-4)])
def test_sets_without_waveforms_train_as_the_one_with_them(
    trained: dict[str, Path], config: str, tolerance: float
) -> None:
    found, expected = results(trained[config]), results(trained[WAVEFORMS])
    assert [entry.keys() for entry in found["history"]] == [entry.keys() for entry in expected["history"]]
    for entry, wanted in zip(found["history"], expected["history"], strict=True):
        assert entry == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    assert len({entry["video_audio_contrastive"] for entry in found["history"]}) == STEPS["max_steps"]
    assert found["metrics"].keys() == expected["metrics"].keys()
    assert "validation/speech_to_video_recall_at_1" in found["metrics"]


def test_what_embeddings_trained_is_loaded_with_the_tower_as_it_came(
    trained: dict[str, Path], model: Path
) -> None:
    folder = trained[EMBEDDINGS]
    assert "made the embeddings of the set" in folder.with_suffix(".log").read_text()
    loaded, given = AutoModel.from_pretrained(folder), AutoModel.from_pretrained(model)
    assert isinstance(loaded, DualRepModel)
    assert tower_sha256(loaded.audio_model) == tower_sha256(given.audio_model)
    for part in ("audio", "video"):
        trained_, drawn = (getattr(each, f"{part}_projection").weight for each in (loaded, given))
        assert not torch.equal(trained_, drawn)


def loss_and_gradients(
    clips: Path, config: str, rounded: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of a new tiny model without dropout, for all training clips; `rounded` are log-mels to float16."""
    audio = TINY_MODEL["audio_config"] | {"block_dropout": 0.0, "embedding_dropout": 0.0}
    fields = {"dataset_config": config, "max_steps": 1, "model": TINY_MODEL | {"audio_config": audio}}
    arguments = PretrainArguments("out", dataset=str(clips), **fields)
    rows = open_clips(str(clips), config, "train")
    torch.manual_seed(0)
    model = DualRepModel(arguments.model_config()).train()
    sound = encoded_sound(arguments, str(clips), list(rows.features), model.config)
    triples = build_triples(arguments, model.config, tiny_processor(), augmented=False, sound=sound)
    ((_, batch),) = gallery_batches(triples, list(rows), 100)
    if rounded:
        batch["input_features"] = batch["input_features"].half().float()
    loss = model(**batch, return_loss=True).loss
    loss.backward()
    return loss.detach(), {name: each.grad for name, each in model.named_parameters()}


def test_log_mels_teach_what_waveforms_teach(clips: Path) -> None:
    loss, gradients = loss_and_gradients(clips, LOG_MELS)
    same_loss, same_gradients = loss_and_gradients(clips, WAVEFORMS, rounded=True)
    assert torch.equal(loss, same_loss)
    torch.testing.assert_close(gradients, same_gradients)
    assert gradients["audio_model.blocks.0.conv1.weight"].norm() > 0
    torch.testing.assert_close(loss, loss_and_gradients(clips, WAVEFORMS)[0], rtol=2e-3, atol=0)


def test_a_set_that_does_not_fit_ends_in_a_sentence(clips: Path, tmp_path: Path) -> None:
    smaller = TINY_MODEL | {"audio_config": {"hidden_sizes": [8, 6]}}
    run = PretrainProcesses(
        write_recipe(clips, tmp_path / "out", dataset_config=EMBEDDINGS, **STEPS, model=smaller)
    )
    assert run.exit_statuses() == [2]
    (line,) = [line for line in run.log.read_text().splitlines() if "pretrain.py" in line]
    assert "have 8 numbers, but the model's speech tower gives 6" in line


@pytest.mark.slow
@pytest.mark.parametrize("sound", ["log_mel", "embedding"])
def test_the_commands_as_people_type_them(sound: str, recordings: Path, model: Path, tmp_path: Path) -> None:
    """Worker processes and all; the set has the same bytes whatever their number."""
    hashes = []
    for workers in ("1", "2"):
        arguments = [recordings, tmp_path / workers, "--sound", sound, "--model", model, "--workers", workers]
        arguments += ["--key-file", tmp_path / "key", *OPTIONS]
        command = [sys.executable, "-m", "train.prepare_clips_without_waveform", *map(str, arguments)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        (data,) = (tmp_path / workers / "data").iterdir()
        hashes.append(json.loads((data / "info.json").read_text())["data_hash"])
        shards = [pq.ParquetFile(path) for path in data.glob("*.parquet")]
        assert sum(shard.metadata.num_rows for shard in shards) == SCANS * CLIPS
    assert hashes[0] == hashes[1]
    recipe = write_recipe(tmp_path / "2", tmp_path / "out", dataset_config=data.name, **STEPS)
    command = [sys.executable, "train/pretrain.py", str(recipe)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    assert isinstance(AutoModel.from_pretrained(tmp_path / "out"), DualRepModel)
