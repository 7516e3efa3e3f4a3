"""A classifier along a recording: planted brightness, and a model that can do nothing but see it."""

import csv
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import FRAMES, SIZE, tiny_config, tiny_model
from tiny_recordings import even_times, tone, write_video
from torch import nn

from datasets_scripts.media_streams import Frame
from datasets_scripts.recordings import PlaneInterval
from datasets_scripts.schema import PLANES
from modeling_dualrep import (
    DualRepForImageClassification,
    DualRepForVideoClassification,
    DualRepImageProcessor,
    DualRepVideoProcessor,
)
from train import timeline
from train.timeline import (
    Picture,
    Row,
    Timeline,
    TimelineError,
    main,
    open_scan,
    run_timeline,
    smoothed,
    write_timeline,
)
from train.timeline_picture import at_most, column_edges

SQUARE = {"height": SIZE, "width": SIZE}
# Grey values of the three classes, and of the frames: five a second, in blocks of a second and more.
GREYS = {"femur": 40, "abdomen": 130, "lips": 220}
BLOCKS = [30, 20, 40, 50, 44, *[120, 110, 130, 140, 125], *[230, 215, 240, 235, 220], *[60, 60, 60]]
PREDICTED = [*["femur"] * 5, *["abdomen"] * 5, *["lips"] * 5, *["femur"] * 3]


def normalised(grey: float) -> float:
    """What the first channel of `pixel_values` holds for a grey value."""
    return (grey / 255 - DualRepImageProcessor.image_mean[0]) / DualRepImageProcessor.image_std[0]


@torch.no_grad()
def brightness_model() -> DualRepForImageClassification:
    """Classes are the nearest of `GREYS`; all weights are zero but those on one way through the tower."""
    model = DualRepForImageClassification(tiny_config(id2label=dict(enumerate(GREYS)))).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
        if name.endswith("shortcut.convolution"):
            module.weight[0, 0] = 1.0
    stem = model.image_model.embedder.embedder
    stem.convolution.weight[0, 0, 3, 3] = 1.0
    stem.normalization.bias.fill_(5.0)  # keeps dark pictures above the rectifier
    tower_outputs = [5.0 + normalised(grey) for grey in GREYS.values()]
    model.classifier.weight.zero_()
    for number, centre in enumerate(tower_outputs):  # -4 (x - centre)^2 but for what all classes share
        model.classifier.weight[number, 0], model.classifier.bias[number] = 8 * centre, -4 * centre**2
    return model


def save(model: nn.Module, folder: Path) -> str:
    video = isinstance(model, DualRepForVideoClassification)
    processor = DualRepVideoProcessor(size=SQUARE, num_frames=FRAMES) if video else image_processor()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def image_processor() -> DualRepImageProcessor:
    return DualRepImageProcessor(size=SQUARE)


def grey_pictures(greys: list[int], border: int | None = None) -> list[np.ndarray]:
    """(64, 64, 3) pictures of one grey; with `border`, the outer 16 pixels have another."""
    pictures = [np.full((64, 64, 3), grey if border is None else border, np.uint8) for grey in greys]
    for picture, grey in zip(pictures, greys, strict=True):
        picture[16:48, 16:48] = grey
    return pictures


def grey_video(path: Path, greys: list[int] = BLOCKS, rate: float = 5, border: int | None = None) -> Path:
    return write_video(path, even_times(len(greys) / rate, rate), grey_pictures(greys, border))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(brightness_model(), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted recording with its true intervals, one of a plane that the model does not know."""
    folder = tmp_path_factory.mktemp("patient_smith")
    (folder / "planes.csv").write_text("start_s,end_s,label\n0,1,femur\n1,2,abdomen\n2,3,kidneys\n")
    return grey_video(folder / "scan.mp4")


@pytest.fixture(scope="module")
def written(scan: Path, model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "timeline"
    assert main([str(scan), "--model", model_folder, "--output_dir", str(folder)]) == 0
    return folder


def test_the_table_says_what_was_planted(written: Path) -> None:
    table = read_table(written / "timeline.csv")
    assert list(table[0]) == ["time_s", "predicted", *GREYS]
    assert [row["predicted"] for row in table] == PREDICTED
    assert [float(row["time_s"]) for row in table] == pytest.approx(np.arange(len(BLOCKS)) / 5, abs=1e-3)
    for grey, row in zip(BLOCKS, table, strict=True):
        logits = [-4 * (normalised(grey) - normalised(centre)) ** 2 for centre in GREYS.values()]
        expected = torch.tensor(logits).softmax(dim=0).tolist()
        assert [float(row[plane]) for plane in GREYS] == pytest.approx(expected, abs=0.03)


def test_the_best_frame_is_the_likeliest_of_those_where_the_plane_is_predicted(written: Path) -> None:
    best = {row["plane"]: row for row in read_table(written / "best_frames.csv")}
    # Outer classes are likeliest at their end of the scale, the middle one at its centre.
    expected = {"femur": (0.2, 20), "abdomen": (1.4, 130), "lips": (2.4, 240)}
    assert {plane: float(row["time_s"]) for plane, row in best.items()} == pytest.approx(
        {plane: time_s for plane, (time_s, _) in expected.items()}, abs=1e-3
    )
    table = {row["time_s"]: row for row in read_table(written / "timeline.csv")}
    for plane, (_, grey) in expected.items():
        assert table[best[plane]["time_s"]][plane] == best[plane]["probability"]
        with Image.open(written / "best_frames" / f"{plane}.png") as picture:
            assert picture.size == (64, 64) and abs(np.asarray(picture).mean() - grey) < 3
    assert {path.stem for path in (written / "best_frames").iterdir()} == set(GREYS)


def test_a_plane_that_is_never_predicted_has_no_best_frame(tmp_path: Path) -> None:
    found = run_timeline(
        open_scan(grey_video(tmp_path / "a.mp4", [40, 220])), brightness_model(), image_processor()
    )
    assert [best.plane for best in found.best_frames] == ["femur", "lips"]
    write_timeline(found, tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out" / "best_frames").iterdir()} == {"femur", "lips"}


def test_the_picture_shows_bands_intervals_and_frames(written: Path) -> None:
    with Image.open(written / "timeline.png") as picture:
        assert picture.width > 1000 and picture.height > 300
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    outline = np.array([0, 191, 255])  # deepskyblue, in no other part of the picture
    assert (np.abs(colours - outline).max(axis=1) < 8).sum() > 200
    for grey in (20, 130, 240):
        assert (np.abs(colours.astype(int) - grey).max(axis=1) <= 3).sum() > 5000, "a best frame is missing"


def test_no_name_of_the_recording_is_in_what_is_written(written: Path, scan: Path) -> None:
    names = (b"patient_smith", b"scan.mp4", str(scan).encode(), str(scan.parent.parent).encode())
    files = [path for path in written.rglob("*") if path.is_file()]
    assert len(files) == 6
    assert not any(name in file.read_bytes() for name in names for file in files)


def test_true_intervals_come_with_the_folder_and_with_its_video(scan: Path) -> None:
    expected = (PlaneInterval(0, 1, "femur"), PlaneInterval(1, 2, "abdomen"), PlaneInterval(2, 3, "kidneys"))
    for path in (scan, scan.parent):
        found = run_timeline(open_scan(path), brightness_model(), image_processor())
        assert found.intervals == expected and len(found.times_s) == len(BLOCKS)


def test_the_crop_of_the_scan_is_what_the_model_sees_and_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text('{"crop": [16, 20, 48, 44]}')
    video = grey_video(tmp_path / "scan.mp4", border=255)
    stretched = DualRepImageProcessor(size=SQUARE, do_pad=False)
    found = run_timeline(open_scan(video), brightness_model(), stretched)
    assert [found.planes[plane] for plane in found.predicted] == PREDICTED
    assert {best.pixels.shape for best in found.best_frames} == {(24, 32, 3)}


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_do_not_matter(scan: Path, batch_size: int) -> None:
    found = run_timeline(open_scan(scan), brightness_model(), image_processor(), batch_size=batch_size)
    assert [found.planes[plane] for plane in found.predicted] == PREDICTED
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


def test_a_picture_that_stays_is_classified_once(tmp_path: Path) -> None:
    video = grey_video(tmp_path / "slow.mp4", [40, 130, 220], rate=1)
    found = run_timeline(open_scan(video), brightness_model(), image_processor(), frames_per_second=10)
    assert found.times_s.tolist() == [0, 1, 2]


def test_fewer_pictures_a_second_are_those_at_their_times(scan: Path) -> None:
    found = run_timeline(open_scan(scan), brightness_model(), image_processor(), frames_per_second=1)
    assert found.times_s == pytest.approx([0, 1, 2, 3])
    assert found.predicted.tolist() == [0, 1, 2, 0]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=30),
    st.integers(0, 40),
    st.randoms(use_true_random=False),
)
def test_smoothing_is_the_mean_over_the_window(steps: list[int], window: int, chance) -> None:
    times = np.cumsum(steps).tolist()
    values = np.array([[chance.random(), chance.random()] for _ in times])
    rows = [Row(Picture(float(time), None), value) for time, value in zip(times, values, strict=True)]
    expected = [
        values[[abs(other - time) <= window / 2 for other in times]].mean(axis=0).tolist() for time in times
    ]
    given_back = list(smoothed(iter(rows), window))
    assert [row.time_s for row in given_back] == times
    np.testing.assert_allclose([row.probabilities for row in given_back], expected)


def test_smoothing_removes_a_flash(tmp_path: Path) -> None:
    video = grey_video(tmp_path / "a.mp4", [40, 40, 40, 220, 40, 40, 40])
    arguments = (brightness_model(), image_processor())
    assert run_timeline(open_scan(video), *arguments).predicted.tolist() == [0, 0, 0, 2, 0, 0, 0]
    calm = run_timeline(open_scan(video), *arguments, smoothing_seconds=1.0)
    assert calm.predicted.tolist() == [0] * 7 and [best.plane for best in calm.best_frames] == ["femur"]
    assert calm.best_frames[0].probability == calm.probabilities[:, 0].max()


class CountedPictures:
    """A long recording that counts how many of its pictures are alive at once."""

    name, notes = "long", SimpleNamespace(crop=None)

    def __init__(self, pictures: int) -> None:
        self.pictures, self.alive, self.most_alive = pictures, 0, 0

    def planes(self) -> None:
        return None

    def frames_at(self, times_s: Iterator[float]) -> Iterator[Frame]:
        for number, time_s in zip(range(self.pictures), times_s, strict=False):
            yield Frame(time_s, 0.2, lambda number=number: self.picture(number))

    def picture(self, number: int) -> np.ndarray:
        pixels = np.full((8, 8, 3), number * 37 % 256, np.uint8)
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(pixels, self.gone)
        return pixels

    def gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("smoothing_seconds", [0.0, 2.0])
def test_memory_does_not_grow_with_the_recording(smoothing_seconds: float) -> None:
    gc.collect()
    recording = CountedPictures(400)
    found = run_timeline(
        recording, brightness_model(), image_processor(), batch_size=8, smoothing_seconds=smoothing_seconds
    )
    assert len(found.times_s) == 400
    assert recording.most_alive <= 2 * 8 + len(GREYS) + 5 * smoothing_seconds + 4


@pytest.fixture(scope="module")
def video_model() -> DualRepForVideoClassification:
    torch.manual_seed(0)
    return DualRepForVideoClassification(tiny_config(num_labels=4)).eval()


def test_a_video_model_sees_every_clip(video_model: DualRepForVideoClassification, tmp_path: Path) -> None:
    greys = [20, 60, 90, 30, 200, 150, 70, 240, 10, 110, 180, 50]
    video = grey_video(tmp_path / "a.mp4", greys, rate=6)
    processor = DualRepVideoProcessor(size=SQUARE, num_frames=FRAMES)
    # Three frames of half a second are those of the file; every third of them begins a clip.
    found = run_timeline(open_scan(video), video_model, processor, 2, clip_seconds=0.5, batch_size=2)
    assert found.times_s == pytest.approx((np.arange(0, 12, 3) + 1) / 6, abs=1e-4)
    pixels = [frame.read_pixels() for frame in open_scan(video).frames()]
    clips = [pixels[first : first + FRAMES] for first in range(0, 12, 3)]
    with torch.inference_mode():
        logits = video_model(**processor(clips, return_tensors="pt")).logits
    np.testing.assert_allclose(found.probabilities, logits.softmax(dim=1), atol=1e-6)
    for best in found.best_frames:
        np.testing.assert_array_equal(best.pixels, pixels[round(best.time_s * 6)])


def test_a_video_model_is_loaded_by_its_folder(
    video_model: DualRepForVideoClassification, scan: Path, tmp_path: Path
) -> None:
    folder = save(video_model, tmp_path / "model")
    command = [str(scan), "--model", folder, "--output_dir", str(tmp_path / "out"), "--clip_seconds", "1"]
    assert main(command) == 0
    assert list(read_table(tmp_path / "out" / "timeline.csv")[0])[2:] == [f"LABEL_{n}" for n in range(4)]
    assert main([*command[:-3], str(tmp_path / "other"), "--clip_seconds", "60"]) == 2


def test_a_recording_shorter_than_a_clip_says_so(
    video_model: DualRepForVideoClassification, scan: Path
) -> None:
    processor = DualRepVideoProcessor(size=SQUARE, num_frames=FRAMES)
    with pytest.raises(TimelineError, match=r"scan\.mp4: .*shorter than one clip of 60 s"):
        run_timeline(open_scan(scan), video_model, processor, clip_seconds=60)


def refused(command: list[str], output_dir: Path, capsys: pytest.CaptureFixture) -> str:
    """What the command says that it must not have run; it leaves nothing behind."""
    before = sorted(output_dir.parent.iterdir())
    capsys.readouterr()
    assert main([*command, "--output_dir", str(output_dir)]) == 2
    assert sorted(output_dir.parent.iterdir()) == before
    said = capsys.readouterr().err
    message = said.splitlines()[-1]
    assert message.startswith("timeline.py: ") and "Traceback" not in said
    return message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.mp4", "There is no recording"),
        ("text.mp4", "no video that FFmpeg reads"),
        ("sound.wav", "holds no video"),
        ("empty.mp4", "empty"),
        ("several", "holds 2 recordings"),
        ("nothing", "holds 0 recordings"),
        ("cut.avi", "cut short"),
    ],
)
def test_what_is_no_recording_is_refused(
    name: str, says: str, model_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "nothing").mkdir()
    if name == "sound.wav":
        write_video(tmp_path / name, sound=tone(1.0), codecs=("", "pcm_s16le"))
    if name == "several":
        grey_video(tmp_path / name / "a.mp4", [40])
        grey_video(tmp_path / name / "b.mp4", [40])
    if name == "cut.avi":
        whole = write_video(
            tmp_path / name, even_times(6, 10), grey_pictures([40, 130] * 30), codecs=("mjpeg", "")
        )
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert says in refused([str(tmp_path / name), "--model", model_folder], tmp_path / "out", capsys)


def broken_model(what: str, folder: Path) -> str:
    """The folder of a model that a timeline cannot be made with."""
    if what == "pretraining":
        tiny_model().save_pretrained(folder)
    elif what == "without processor":
        brightness_model().save_pretrained(folder)
    elif what == "without weights":
        save(brightness_model(), folder)
        (folder / "model.safetensors").unlink()
    elif what == "diverged":
        model = brightness_model()
        model.classifier.bias.data.fill_(float("nan"))
        save(model, folder)
    elif what in ("a/b", "twice"):
        model = brightness_model()
        model.config.id2label = {0: "femur", 1: "lips", 2: "lips" if what == "twice" else what}
        save(model, folder)
    return str(folder)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", "no folder with a model"),
        ("pretraining", "holds a DualRepModel, which tells no planes apart"),
        ("without processor", "cannot be loaded"),
        ("without weights", "cannot be loaded"),
        ("diverged", "no numbers"),
        ("a/b", "'a/b' cannot name a file"),
        ("twice", "two classes of one name"),
    ],
)
def test_what_is_no_classifier_is_refused(
    what: str, says: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = broken_model(what, tmp_path / "model")
    assert says in refused([str(scan), "--model", folder], tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--frames_per_second", "0"], "frames_per_second"),
        (["--frames_per_second", ".inf"], "frames_per_second"),
        (["--batch_size", "0"], "batch_size"),
        (["--smoothing_seconds", "-1"], "smoothing_seconds"),
        (["--clip_seconds", "0"], "clip_seconds"),
        (["--frame_per_second", "5"], "Did you mean frames_per_second"),
    ],
)
def test_flags_are_checked(
    flags: list[str],
    says: str,
    scan: Path,
    model_folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    assert says in refused([str(scan), "--model", model_folder, *flags], tmp_path / "out", capsys)


def test_the_recording_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "Name the recording first" in refused(["--model", "x"], tmp_path / "out", capsys)
    assert main(["--help"]) == 0 and "frames_per_second 5.0" in capsys.readouterr().out


def test_other_files_and_older_timelines_are_not_written_over(
    scan: Path, model_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, command = tmp_path / "out", [str(scan), "--model", model_folder]
    folder.mkdir()
    (folder / "thesis.txt").touch()
    assert "files that no timeline wrote" in refused(
        [*command, "--overwrite_output_dir", "true"], folder, capsys
    )
    (folder / "thesis.txt").unlink()
    (folder / "best_frames").mkdir()
    (folder / "best_frames" / "kidneys.png").touch()
    assert "holds a timeline" in refused(command, folder, capsys)
    assert "is a file" in refused(command, scan, capsys)
    assert main([*command, "--output_dir", str(folder), "--overwrite_output_dir", "true"]) == 0
    assert {path.stem for path in (folder / "best_frames").iterdir()} == set(GREYS)


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(timeline, "save_timeline_picture", fail)
    empty = Timeline(("femur",), np.zeros(1), np.ones((1, 1)), (), None)
    with pytest.raises(OSError, match="disk full"):
        write_timeline(empty, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_columns_of_the_picture_lie_around_their_times() -> None:
    assert column_edges(np.array([0.0, 1.0, 3.0])).tolist() == [-0.5, 0.5, 2.0, 4.0]
    assert column_edges(np.array([2.0])).tolist() == [1.5, 2.5]


def test_a_long_recording_keeps_its_short_planes_in_the_picture() -> None:
    edges, probabilities = np.arange(1001.0), np.zeros((1000, 2))
    probabilities[[0, 777, 999], 1] = 1, 0.9, 0.8
    few_edges, few = at_most(30, edges, probabilities)
    assert few.shape == (30, 2) and few_edges.shape == (31,)
    assert (few_edges[0], few_edges[-1]) == (0, 1000) and (np.diff(few_edges) > 0).all()
    (places,) = few[:, 1].nonzero()
    assert few[places, 1].tolist() == [1, 0.9, 0.8]
    assert few_edges[places[1]] <= 777 < few_edges[places[1] + 1]
    assert at_most(1000, edges, probabilities) == (edges, probabilities)


@pytest.fixture(scope="module")
def plane_model() -> DualRepForImageClassification:
    """Random weights, 14 planes, told apart by how a picture differs from grey."""
    torch.manual_seed(0)
    model = DualRepForImageClassification(tiny_config(id2label=dict(enumerate(PLANES)))).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(10)
    return model


@pytest.mark.media
def test_the_real_planes_go_through(
    media: Path, plane_model: DualRepForImageClassification, tmp_path: Path
) -> None:
    files = sorted((media / "fetal_planes").glob("*.png"))
    pictures = [np.asarray(Image.open(file).convert("RGB"))[:734, :974] for file in files]
    still = [picture for picture in pictures for _ in range(5)]
    video = write_video(tmp_path / "planes.mp4", even_times(len(files), 5), still)
    folder = save(plane_model, tmp_path / "model")
    assert main([str(video), "--model", folder, "--output_dir", str(tmp_path / "out")]) == 0
    table = read_table(tmp_path / "out" / "timeline.csv")
    assert len(table) == 5 * 13 and list(table[0]) == ["time_s", "predicted", *PLANES]
    for best in read_table(tmp_path / "out" / "best_frames.csv"):
        shown = pictures[int(float(best["time_s"]))]
        with Image.open(tmp_path / "out" / "best_frames" / f"{best['plane']}.png") as picture:
            assert picture.size == (974, 734)
            assert np.abs(np.asarray(picture).astype(int) - shown).mean() < 5


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "last_s"),
    [
        ("ultrasound_video/butterfly-ocular-phantom.mp4", 29.0),
        ("ultrasound_video/clarius-ocular-short.mp4", None),
        ("ultrasound_video/sonosite-anon-eye1-video.mp4", None),
        ("ultrasound_dicom/examples_ybr_color.dcm", 0.967),
        ("fetal_planes/LIPS.png", 0.0),
    ],
)
def test_real_recordings_go_through(
    media: Path, plane_model: DualRepForImageClassification, tmp_path: Path, name: str, last_s: float | None
) -> None:
    recording = open_scan(media / name)
    found = run_timeline(recording, plane_model, image_processor(), frames_per_second=2)
    assert (np.diff(found.times_s) > 0).all() and len(found.best_frames) >= 1
    assert {best.pixels.shape for best in found.best_frames} == {(recording.height, recording.width, 3)}
    if last_s is not None:
        assert found.times_s[-1] == pytest.approx(last_s, abs=0.3)
    write_timeline(found, tmp_path / "out")
    assert len(read_table(tmp_path / "out" / "timeline.csv")) == len(found.times_s)
