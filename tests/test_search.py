"""Search by speech from recordings to hits: figures as in the evaluation of training, and the command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from clips_helpers import FRAME_SIZE, TINY_MODEL, tiny_processor
from PIL import Image
from search_helpers import CLIPS, RECIPE, write_model
from tiny_recordings import even_times, tone, write_video

from datasets_scripts import espeak
from datasets_scripts.clips import ClipParameters, cut_clips
from datasets_scripts.recordings import find_recordings, open_recording
from datasets_scripts.simulate_scans import SimulationParameters, simulate_scans
from datasets_scripts.simulated_speech import SpeechParameters
from modeling_dualrep import (
    DualRepConfig,
    DualRepForImageClassification,
    DualRepForVideoClassification,
    DualRepImageProcessor,
    DualRepModel,
    DualRepVideoProcessor,
)
from train.evaluation import embed_gallery, measure
from train.retrieval import positive_ranks, recall
from train.search import find, main, model_of
from train.search_index import SPEECH_EMBEDDING, VIDEO_EMBEDDING, SearchError, SearchIndex
from train.search_queries import Query, moment_query, picture_query, sound_query, text_query
from train.search_recordings import Indexer, fingerprint
from train.triples import Triples, decode_audio, gallery_batches

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "scans"
    speech = SpeechParameters(relevant_share=1.0, wrong_share=0.0, chat_share=0.0)
    simulate_scans(
        folder,
        SimulationParameters(scans=3, scan_seconds=8, image_size=32, frames_per_second=14, speech=speech),
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("search_model"))


@pytest.fixture(scope="module")
def index(recordings: Path, model: Path) -> Path:
    path = recordings.with_name("scans.parquet")
    assert main(["index", str(recordings), str(path), "--model", str(model)]) == 0
    return path


@pytest.fixture
def own(recordings: Path, index: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Recordings and index of a test's own, to change."""
    shutil.copytree(recordings, tmp_path / "scans")  # with its times of change
    shutil.copy(index, tmp_path / "scans.parquet")
    return tmp_path / "scans", tmp_path / "scans.parquet"


def run_index(folder: Path, path: Path, model: Path, *flags: str) -> int:
    return main(["index", str(folder), str(path), "--model", str(model), *flags])


def embedded_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of recordings, as they come to be embedded."""
    names, table = [], Indexer.table
    monkeypatch.setattr(
        Indexer, "table", lambda self, recording: names.append(recording.name) or table(self, recording)
    )
    return names


def test_the_index_holds_what_the_evaluation_of_training_compares(
    recordings: Path, model: Path, index: Path, tmp_path: Path
) -> None:
    """Recordings through the search on one side, through the evaluation of training on the other."""
    opened = SearchIndex(index)
    whole = DualRepModel.from_pretrained(model)
    triples = Triples(tiny_processor(), 14, FRAME_SIZE, FRAME_SIZE, seed=0, minimum_speech_fraction=0.1)
    scans = [open_recording(files) for files in find_recordings(recordings)]
    rows = [row for scan in scans for row in cut_clips(scan, scan.name, CLIPS)]
    gallery = embed_gallery(whole, gallery_batches(triples, rows, 8), torch.device("cpu"))
    spoken = gallery.has_sound
    assert opened.clips == len(rows) and 5 < spoken.sum() < len(rows)

    video = torch.cat([embeds for _, embeds in opened.blocks(VIDEO_EMBEDDING)])
    numbers, speech = (torch.cat(part) for part in zip(*opened.blocks(SPEECH_EMBEDDING), strict=True))
    torch.testing.assert_close(video, gallery.video)
    assert numbers.tolist() == spoken.nonzero().flatten().tolist()
    torch.testing.assert_close(speech, gallery.audio[spoken])

    ranks = []
    for number in numbers.tolist():
        hits = find(opened, Query(gallery.audio[number], VIDEO_EMBEDDING), len(rows))
        place = (rows[number]["scan_id"], rows[number]["start_s"])
        ranks.append(1 + [(hit.moment.recording, hit.moment.start_s) for hit in hits].index(place))
    expected = positive_ranks(gallery.audio[spoken], gallery.video, numbers)
    assert ranks == expected.tolist()
    assert recall(torch.tensor(ranks))[5] == measure(gallery)["speech_to_video_recall_at_5"]


def test_a_clips_own_sound_as_a_file_has_its_embedding(recordings: Path, index: Path, tmp_path: Path) -> None:
    opened = SearchIndex(index)
    searcher = model_of(opened)
    scan = open_recording(find_recordings(recordings)[0])
    row = next(row for row in cut_clips(scan, scan.name, CLIPS) if row["speech_fraction"] > 0.3)
    soundfile.write(tmp_path / "clip.wav", decode_audio(row["audio"]), 32_000, subtype="PCM_16")
    query = sound_query(tmp_path / "clip.wav", searcher, CLIPS)
    triples = searcher.triples(0.0)
    expected = searcher.embed([triples.collate([triples[0, row]])]).audio[0]
    torch.testing.assert_close(query.embedding, expected)
    assert query.note is None and query.column == VIDEO_EMBEDDING


def test_what_lies_in_the_index(recordings: Path, model: Path, index: Path) -> None:
    opened = SearchIndex(index)
    assert [each.name for each in opened.recordings] == [files.name for files in find_recordings(recordings)]
    assert ClipParameters(**opened.settings.clips) == CLIPS
    assert opened.settings.model == str(model.resolve()) and opened.settings.embedding_size == 8
    moments = opened.moments(range(opened.clips))
    assert all(moment.end_s == moment.start_s + 2 and moment.plane is None for moment in moments)
    assert [moment.start_s for moment in moments if moment.recording == moments[0].recording] == [*range(7)]


def test_nothing_new_is_embedded_again(
    own: tuple[Path, Path], model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, path = own
    names = embedded_names(monkeypatch)
    all_names = [files.name for files in find_recordings(folder)]
    before = SearchIndex(path).moments(range(SearchIndex(path).clips))
    assert run_index(folder, path, model) == 0 and names == []
    assert SearchIndex(path).moments(range(SearchIndex(path).clips)) == before

    changed = next((folder / all_names[1]).glob("scan.*"))
    os.utime(changed, (1, 1))
    shutil.rmtree(folder / all_names[0])
    shutil.copytree(folder / all_names[2], folder / "zz_new")
    capsys.readouterr()
    assert run_index(folder, path, model) == 0
    assert names == [all_names[1], "zz_new"]
    assert "2 recordings added or renewed, 1 kept, 1 removed, 0 left out." in capsys.readouterr().out
    assert sorted(each.name for each in SearchIndex(path).recordings) == [*all_names[1:], "zz_new"]
    opened = SearchIndex(path)
    video = torch.cat([embeds for _, embeds in opened.blocks(VIDEO_EMBEDDING)])
    names_of_rows = [moment.recording for moment in opened.moments(range(opened.clips))]
    rows = {name: [row for row, of in enumerate(names_of_rows) if of == name] for name in set(names_of_rows)}
    torch.testing.assert_close(video[rows["zz_new"]], video[rows[all_names[2]]])
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["scans", "scans.parquet"]


def test_a_run_that_was_ended_goes_on(
    recordings: Path, model: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / "new.parquet", Indexer.table
    third = find_recordings(recordings)[2].name

    def ended(self, recording):
        if recording.name == third:
            raise KeyboardInterrupt
        return table(self, recording)

    with monkeypatch.context() as patch:
        patch.setattr(Indexer, "table", ended)
        with pytest.raises(KeyboardInterrupt):
            run_index(recordings, path, model)
    assert not path.exists()
    names = embedded_names(monkeypatch)
    assert run_index(recordings, path, model) == 0 and names == [third]
    ours, whole = SearchIndex(path), SearchIndex(index)
    assert ours.recordings == whole.recordings
    for column in (VIDEO_EMBEDDING, SPEECH_EMBEDDING):
        for (rows, embeds), (other_rows, others) in zip(
            ours.blocks(column), whole.blocks(column), strict=True
        ):
            assert torch.equal(rows, other_rows) and torch.equal(embeds, others)


def test_damaged_and_short_recordings_stay_out_with_a_sentence(
    own: tuple[Path, Path], model: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, path = own
    (folder / "aa_broken.mp4").write_bytes(b"no video")
    write_video(folder / "short.mp4", even_times(0.5))
    assert run_index(folder, path, model) == 0
    said = capsys.readouterr().out
    assert "aa_broken.mp4: this is no video" in said and "1 left out" in said
    assert [each.clips for each in SearchIndex(path).recordings if each.name == "short.mp4"] == [0]


def test_a_recording_without_sound_is_found_by_what_it_shows_alone(model: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "scans" / "mute.mp4", even_times(4))
    assert run_index(tmp_path / "scans", tmp_path / "index.parquet", model) == 0
    opened = SearchIndex(tmp_path / "index.parquet")
    assert [len(rows) for rows, _ in opened.blocks(VIDEO_EMBEDDING)] == [3]
    assert [len(rows) for rows, _ in opened.blocks(SPEECH_EMBEDDING)] == [0]
    searcher = model_of(opened)
    assert find(opened, Query(torch.ones(8), SPEECH_EMBEDDING), 5) == []
    assert len(find(opened, text_query("a femur", searcher, CLIPS), 5)) == 3


def test_another_model_or_other_clips_are_refused(
    own: tuple[Path, Path], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, path = own
    other = write_model(tmp_path / "other", seed=1)
    for flags, words in (
        (("--model", str(other)), "it was made by another model"),
        (("--model", str(model), "--clips.stride_seconds", "0.5"), "stride_seconds is 1.0, not 0.5"),
    ):
        before = path.read_bytes()
        assert main(["index", str(folder), str(path), *flags]) == 2
        assert words in capsys.readouterr().err and path.read_bytes() == before
    assert main([str(path), "--record-text", "femur", "--model", str(other)]) == 2
    assert "made by another model than the one in" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pictures", "clips"])
def test_a_plane_model_names_the_planes(kind: str, recordings: Path, model: Path, tmp_path: Path) -> None:
    """Its classifier is made to say lips whatever it sees."""
    task = DualRepForImageClassification if kind == "pictures" else DualRepForVideoClassification
    classifier = task(DualRepConfig(**TINY_MODEL, id2label={0: "femur", 1: "lips"}))
    with torch.no_grad():
        classifier.classifier.weight.zero_()
        classifier.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    classifier.save_pretrained(tmp_path / "planes")
    size = {"height": FRAME_SIZE, "width": FRAME_SIZE}
    (DualRepImageProcessor if kind == "pictures" else DualRepVideoProcessor)(size=size).save_pretrained(
        tmp_path / "planes"
    )
    one = tmp_path / "scans"
    shutil.copytree(recordings / find_recordings(recordings)[0].name, one / "a")
    assert run_index(one, tmp_path / "i.parquet", model, "--plane_model", str(tmp_path / "planes")) == 0
    opened = SearchIndex(tmp_path / "i.parquet")
    assert {moment.plane for moment in opened.moments(range(opened.clips))} == {"lips"}


@pytest.mark.slow
def test_the_command_as_a_process(index: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "train.search", str(index), "--record-text", "four chambers", "--json"]
    done = subprocess.run([*words, "--top", "4"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["searched"] == VIDEO_EMBEDDING and [hit["rank"] for hit in told["hits"]] == [1, 2, 3, 4]
    opened = SearchIndex(index)
    hits = find(opened, text_query("four chambers", model_of(opened), CLIPS), 4)
    assert [(hit["recording"], hit["start_s"]) for hit in told["hits"]] == [
        (hit.moment.recording, hit.moment.start_s) for hit in hits
    ]
    similarities = [hit["similarity"] for hit in told["hits"]]
    assert similarities == sorted(similarities, reverse=True)


def spoken(path: Path, rate_hz: int = 22_050, channels: int = 1, repeat: int = 1) -> Path:
    waveform = np.tile(espeak.synthesize("here is the femur", espeak.Voice()), repeat)
    times = (
        np.arange(int(len(waveform) * rate_hz / espeak.SAMPLING_RATE_HZ)) * espeak.SAMPLING_RATE_HZ / rate_hz
    )
    resampled = np.interp(times, np.arange(len(waveform)), waveform)
    soundfile.write(path, np.repeat(resampled[:, None], channels, axis=1), rate_hz)
    return path


def test_any_rate_channels_and_loudness_say_the_same(index: Path, tmp_path: Path) -> None:
    searcher, parameters = model_of(SearchIndex(index)), replace(CLIPS, loudness_lufs=-23.0)

    def embedding(path: Path) -> torch.Tensor:
        return sound_query(path, searcher, parameters).embedding

    mono = embedding(spoken(tmp_path / "mono.wav"))
    stereo = embedding(spoken(tmp_path / "stereo.wav", channels=2))
    torch.testing.assert_close(stereo, mono, atol=1e-3, rtol=1e-2)
    eighth = soundfile.read(tmp_path / "mono.wav")[0] / 8
    soundfile.write(tmp_path / "quiet.wav", eighth, 22_050, subtype="FLOAT")
    torch.testing.assert_close(embedding(tmp_path / "quiet.wav"), mono, atol=1e-3, rtol=1e-2)
    telephone = embedding(spoken(tmp_path / "telephone.wav", rate_hz=8000))
    assert telephone.shape == mono.shape and telephone.isfinite().all()


def test_silence_that_no_recording_has_is_filled_up(index: Path, tmp_path: Path) -> None:
    """What reaches the speech tower: 2 s, the mean after a file's end, and no pause quieter than is heard."""
    searcher, heard = model_of(SearchIndex(index)), []
    norm = searcher.model.audio_model.norm
    norm.running_mean.fill_(-40.0)
    norm.running_var.fill_(100.0)
    searcher.model.audio_model.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    short = tmp_path / "short.wav"
    soundfile.write(short, soundfile.read(spoken(tmp_path / "whole.wav"))[0][:22_050], 22_050)
    sound_query(short, searcher, CLIPS)
    text_query("femur", searcher, CLIPS)
    from_file, from_text = (features[0] for features in heard)
    assert from_file.shape == from_text.shape == (201, 64)
    assert (from_file[101:] == -40).all() and from_file[:101].min() < -50
    assert (from_text[-20:] == -40).all() and from_text.min() == -50 and from_text.max() > -40


def test_a_long_remark_is_cut_and_says_so(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = spoken(tmp_path / "long.wav", repeat=4)
    assert main([str(index), str(path)]) == 0
    said = capsys.readouterr()
    assert "is longer than a clip: its first 2 s are searched for" in said.err
    assert said.out.splitlines()[0].split()[:2] == ["rank", "recording"] and len(said.out.splitlines()) == 11


def silent_wav(path: Path) -> Path:
    soundfile.write(path, np.zeros(32_000), 32_000)
    return path


def short_wav(path: Path) -> Path:
    soundfile.write(path, tone(0.1, 32_000), 32_000)
    return path


def mute_video(path: Path) -> Path:
    return write_video(path.with_suffix(".mp4"), even_times(1))


def text_file(path: Path) -> Path:
    path.write_text("no sound")
    return path


def empty_file(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path, "There is no sound file"),
        (silent_wav, "is silent for 1.0 s"),
        (short_wav, "lasts 0.10 s"),
        (mute_video, "holds no sound that FFmpeg reads"),
        (text_file, "holds no sound that FFmpeg reads"),
        (empty_file, "holds no sound that FFmpeg reads"),
    ],
)
def test_a_remark_that_cannot_be_heard(
    make: Callable[[Path], Path], words: str, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(index), str(make(tmp_path / "remark.wav"))]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Say what to search for"),
        (["--record-text", "femur", "--frame", "x.png"], "Say what to search for"),
        (["--recording", "scan.mp4"], "Say what to search for"),
        (["--record-text", "?!"], "nothing to say"),
        (["--record-text", "femur " * 51], "has 306 characters, but may have 300"),
        (["--record-text", "femur", "--top", "0"], "at least 1"),
        (["--frame", "nowhere.png"], "no picture that can be read"),
        (["--recording", "nowhere.mp4", "--at", "1"], "There is no recording"),
    ],
)
def test_other_questions_that_cannot_be_answered(
    words: list[str], sentence: str, index: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(index), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_voice_that_does_not_start_is_a_sentence(
    index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("espeakng_loader.get_data_path", lambda: str(tmp_path))
    assert main([str(index), "--record-text", "femur"]) == 2
    assert "did not start with the voices" in capsys.readouterr().err


@pytest.mark.parametrize(
    "case", ["no words", "empty", "absent", "flag", "folder", "no place", "task", "none"]
)
def test_an_index_that_cannot_be_made(
    case: str, recordings: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    DualRepForImageClassification(DualRepConfig(**TINY_MODEL)).save_pretrained(tmp_path / "task")
    index = str(tmp_path / "i.parquet")
    words, sentence = {
        "no words": ([], "Name the folder of recordings"),
        "empty": ([str(tmp_path / "empty"), index, "--model", str(model)], "holds no recordings"),
        "absent": ([str(tmp_path / "absent"), index, "--model", str(model)], "is no folder"),
        "flag": ([str(recordings), index, "--modle", str(model)], "Did you mean model"),
        "folder": ([str(recordings), str(tmp_path), "--model", str(model)], "is a folder"),
        "no place": ([str(recordings), str(tmp_path / "x" / "i"), "--model", str(model)], "make it first"),
        "task": (
            [str(recordings), index, "--model", str(tmp_path / "task")],
            "DualRepForImageClassification",
        ),
        "none": ([str(recordings), index, "--model", str(tmp_path / "empty")], "no folder with a model"),
    }[case]
    assert main(["index", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("search.py: ") and sentence in said and not Path(index).exists()


def test_a_picture_and_a_moment_find_remarks(
    recordings: Path, model: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    opened = SearchIndex(index)
    searcher = model_of(opened)
    video = torch.cat([embeds for _, embeds in opened.blocks(VIDEO_EMBEDDING)])
    scan = open_recording(find_recordings(recordings)[0])
    for at_s, start_s in ((4.0, 3), (0.0, 0), (7.9, None)):
        query = moment_query(scan, at_s, searcher, CLIPS)
        assert query.column == SPEECH_EMBEDDING
        if start_s is not None:
            torch.testing.assert_close(query.embedding, video[start_s])
    for at_s in (-1.0, 30.0):
        with pytest.raises(SearchError, match=r"no clip of 2 s around"):
            moment_query(scan, at_s, searcher, CLIPS)

    pixels = next(iter(scan.frames())).read_pixels()
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    assert picture_query(tmp_path / "frame.png", searcher, CLIPS).embedding.shape == (8,)
    assert main([str(index), "--frame", str(tmp_path / "frame.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["searched"] == SPEECH_EMBEDDING
    assert all(hit["speech_fraction"] >= 0.1 for hit in told["hits"])
    scan_file = str(next((recordings / scan.name).glob("scan.*")))
    assert main([str(index), "--recording", scan_file, "--at", "4", "--top", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_fingerprint_follows_what_decides_the_clips(recordings: Path, tmp_path: Path) -> None:
    shutil.copytree(recordings, tmp_path / "scans")
    files = find_recordings(tmp_path / "scans")[0]
    before = fingerprint(files)
    (files.video.parent / "planes.csv").write_text("start_s,end_s,label\n")
    assert fingerprint(find_recordings(tmp_path / "scans")[0]) == before
    (files.video.parent / "scan.json").write_text("{}")
    assert fingerprint(find_recordings(tmp_path / "scans")[0]) != before


def test_weights_that_are_no_numbers_are_told(
    recordings: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    diverged = DualRepModel.from_pretrained(model)
    with torch.no_grad():
        diverged.video_projection.bias[0] = torch.nan
    diverged.save_pretrained(tmp_path / "diverged")
    tiny_processor().save_pretrained(tmp_path / "diverged")
    (tmp_path / "diverged" / "recipe.yaml").write_text(RECIPE)
    assert run_index(recordings, tmp_path / "i.parquet", tmp_path / "diverged") == 2
    assert "training must have diverged" in capsys.readouterr().err
    assert not (tmp_path / "i.parquet").exists()
