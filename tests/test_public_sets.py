"""Public sets in tiny copies of their layouts: every picture under its own label, split and patient."""

import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw, ImageFont
from tiny_recordings import number_of, numbered_picture

from datasets_scripts.burned_in_text import find_text
from datasets_scripts.class_map import SONONET_MAP, ClassMap, ClassMapError, read_class_map
from datasets_scripts.clips import place_in_square, resize_to_square
from datasets_scripts.contact_sheet import GREEN, RED, TILE
from datasets_scripts.preparation import PrepareError, StrictError
from datasets_scripts.privacy_check import main as privacy_check
from datasets_scripts.public_set_layouts import LAYOUTS, FetalPlanesDb, Hub, ImageFolder, PublicSetError
from datasets_scripts.public_set_rows import PictureParameters, StillPicture
from datasets_scripts.public_sets import main, prepare_public_set, read_public_set
from datasets_scripts.schema import PLANES, PLANES_CONFIG, UNLABELLED, planes_features
from datasets_scripts.shards import read_info

REPOSITORY = Path(__file__).resolve().parents[1]
HEADER = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
# Name, patient, plane, brain plane and split of each picture; the picture shows its number in this list.
FETAL_PLANES = [
    ("Patient00001_Plane2_1_of_1", 1, "Fetal abdomen", "Not A Brain", 1),
    ("Patient00001_Plane3_1_of_4", 1, "Fetal brain", "Trans-ventricular", 1),
    ("Patient00001_Plane3_2_of_4", 1, "Fetal brain", "Trans-cerebellum", 1),
    ("Patient00001_Plane3_3_of_4", 1, "Fetal brain", "Trans-thalamic", 1),
    ("Patient00001_Plane3_4_of_4", 1, "Fetal brain", "Other", 1),
    ("Patient00002_Plane4_1_of_1", 2, "Maternal cervix", "Not A Brain", 0),
    ("Patient00002_Plane5_1_of_1", 2, "Fetal femur", "Not A Brain", 0),
    ("Patient00002_Plane6_1_of_1", 2, "Fetal thorax", "Not A Brain", 0),
    ("Patient00003_Plane1_1_of_1", 3, "Other", "Not A Brain", 0),
    ("Patient00003_Plane5_1_of_1", 3, "Fetal femur", "Not A Brain", 0),
]
EXPECTED = {  # number in the list: split, patient, our plane
    0: ("train", 1, "abdomen"),
    1: ("train", 1, "brain_transventricular"),
    2: ("train", 1, "brain_transcerebellar"),
    4: ("train", 1, "background"),
    5: ("test", 2, "background"),
    6: ("test", 2, "femur"),
    9: ("test", 3, "femur"),
}


def write_picture(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbered_picture(number)).save(path)
    return path


def write_fetal_planes(folder: Path, rows: list[tuple] = FETAL_PLANES, header: str = HEADER) -> Path:
    """The set as it is published: blanks behind `Train` and behind its values."""
    lines = [header]
    for number, (name, patient, plane, brain_plane, train) in enumerate(rows):
        write_picture(folder / "Images" / f"{name}.png", number)
        lines.append(f"{name};{patient};{plane};{brain_plane};Op. 1;Voluson E6;{train} ")
    (folder / "FETAL_PLANES_DB_data.csv").write_text("\n".join(lines) + "\n")
    return folder


def load(out: Path) -> DatasetDict:
    """The written set; with a cache of its own, since datasets tells folders of one name by nothing else."""
    return load_dataset(str(out), PLANES_CONFIG, cache_dir=str(out.with_name("cache_of_" + out.name)))


def shown(row: dict) -> int:
    """The number that the picture of a row shows."""
    return number_of(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))))


def plane(row: dict) -> str | None:
    return None if row["label"] == UNLABELLED else PLANES[row["label"]]


def labels_of(rows) -> dict[int, str | None]:
    return {shown(row): plane(row) for row in rows}


def test_fetal_planes_db_gives_each_picture_its_split_label_and_patient(tmp_path):
    rows = list(read_public_set("fetal_planes_db", write_fetal_planes(tmp_path)))
    patient_of_scan = {}
    for row in rows:
        split, patient, name = EXPECTED[shown(row)]
        assert (row["split"], plane(row), row["time_s"]) == (split, name, None)
        assert patient_of_scan.setdefault(row["scan_id"], patient) == patient
    assert len(rows) == len(EXPECTED)
    assert sorted(patient_of_scan.values()) == [1, 2, 3]
    assert set(rows[0]) == {*planes_features(), "split"}


def test_the_written_set_loads_with_its_own_splits(tmp_path):
    source, out = write_fetal_planes(tmp_path / "set"), tmp_path / "out"
    report = prepare_public_set("fetal_planes_db", source, out, PictureParameters(frame_size=32))
    splits = load(out)
    assert {name: rows.num_rows for name, rows in splits.items()} == {"train": 4, "test": 3}
    for name, rows in splits.items():
        assert rows.features == planes_features()
        for row in rows:
            split, _, expected = EXPECTED[number_of(np.asarray(row["image"]))]
            assert (name, rows.features["label"].int2str(row["label"])) == (split, expected)
            assert row["image"].size == (32, 32) and row["image"].format == "JPEG"
    assert not set(splits["train"]["scan_id"]) & set(splits["test"]["scan_id"])
    assert report.frames == {
        "train": {"abdomen": 1, "brain_transventricular": 1, "brain_transcerebellar": 1, "background": 1},
        "test": {"femur": 2, "background": 1},
    }
    assert report.scans == {"train": 1, "test": 2}
    assert report.labels_left_out == {"Fetal brain/Trans-thalamic": 1, "Fetal thorax": 1, "Other": 1}
    info = read_info(out, PLANES_CONFIG)
    assert (info["layout"], info["frame_size"], info["frames"]) == ("fetal_planes_db", 32, report.frames)
    assert info["data_hash"] == report.data_hash


def test_nothing_in_the_set_tells_a_name_or_a_patient_number(tmp_path):
    source, out = write_fetal_planes(tmp_path / "set"), tmp_path / "out"
    prepare_public_set("fetal_planes_db", source, out)
    for path in out.rglob("*"):
        if path.is_file():
            assert b"Patient0" not in path.read_bytes() and str(source).encode() not in path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out",
        "out.key",
        "out.planes.report.html",
        "out.planes.report.json",
        "set",
    ]


def test_scan_ids_depend_on_the_key_and_the_data_hash_does_not(tmp_path):
    source = write_fetal_planes(tmp_path / "set")
    reports = [prepare_public_set("fetal_planes_db", source, tmp_path / name) for name in ("a", "b")]
    scans = [set(load(tmp_path / name)["train"]["scan_id"]) for name in ("a", "b")]
    again = prepare_public_set("fetal_planes_db", source, tmp_path / "c", key_file=tmp_path / "a.key")
    same = set(load(tmp_path / "c")["train"]["scan_id"])
    assert scans[0] == same != scans[1] and all(re.fullmatch("[0-9a-f]{16}", scan) for scan in same)
    assert reports[0].data_hash == reports[1].data_hash == again.data_hash
    write_picture(source / "Images" / f"{FETAL_PLANES[6][0]}.png", 77)  # of the test split
    changed = prepare_public_set("fetal_planes_db", source, tmp_path / "d")
    assert changed.data_hash != again.data_hash


def test_missing_unlisted_and_damaged_pictures_are_counted(tmp_path):
    source = write_fetal_planes(tmp_path / "set")
    images = source / "Images"
    (images / f"{FETAL_PLANES[0][0]}.png").unlink()
    damaged = images / f"{FETAL_PLANES[6][0]}.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    write_picture(images / "unlisted.png")
    report = prepare_public_set("fetal_planes_db", source, tmp_path / "out")
    assert report.ignored == ("Images/unlisted.png",)
    missing, cut = report.left_out
    assert (
        missing
        == "FETAL_PLANES_DB_data.csv, line 2: there is no picture Images/Patient00001_Plane2_1_of_1.png."
    )
    assert cut.startswith("Patient00002_Plane5_1_of_1: cannot be decoded")
    assert sum(sum(classes.values()) for classes in report.frames.values()) == len(EXPECTED) - 2
    kept = json.loads((tmp_path / "out.planes.report.json").read_text())
    assert kept["left_out"] == list(report.left_out) and "2 pictures were left out" in report.summary()
    with pytest.warns(UserWarning, match=r"no picture|cannot be decoded"):
        assert len(list(read_public_set("fetal_planes_db", source))) == len(EXPECTED) - 2


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_strict_stops_at_the_first_picture_and_leaves_nothing(tmp_path, fault):
    source = write_fetal_planes(tmp_path / "set")
    picture = source / "Images" / f"{FETAL_PLANES[6][0]}.png"
    picture.unlink() if fault == "missing" else picture.write_bytes(b"no picture")
    with pytest.raises(StrictError, match=FETAL_PLANES[6][0]):
        prepare_public_set("fetal_planes_db", source, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def changed(number: int, field: int, value: object) -> list[tuple]:
    rows = [list(row) for row in FETAL_PLANES]
    rows[number][field] = value
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (changed(9, 1, 1), r"Patient 1 is in two splits.*_Plane5_1_of_1 in test"),
        (changed(9, 4, "yes"), r"line 11: Train is 'yes'; it must be 1 or 0"),
        (changed(9, 1, ""), r"line 11: Patient_num is empty"),
        ([*FETAL_PLANES, FETAL_PLANES[9]], r"line 12: Patient00003_Plane5_1_of_1 is listed a second time"),
        (changed(9, 2, "a;b"), r"line 11: 8 values in 7 columns"),
    ],
)
def test_a_csv_that_contradicts_itself_is_refused_by_its_line(tmp_path, rows, complaint):
    with pytest.raises(PublicSetError, match=complaint):
        read_public_set("fetal_planes_db", write_fetal_planes(tmp_path, rows))


def test_an_unknown_label_names_its_line_and_the_known_labels(tmp_path):
    source = write_fetal_planes(tmp_path, changed(8, 2, "Fetal foot"))
    with pytest.raises(ClassMapError, match=r"line 10: .*'Fetal foot'.*Fetal abdomen.*spine_coronal"):
        read_public_set("fetal_planes_db", source)
    with pytest.raises(ClassMapError, match=r"'Fetal brain/Coronal'"):
        read_public_set("fetal_planes_db", write_fetal_planes(tmp_path, changed(1, 3, "Coronal")))


def test_a_folder_without_the_csv_or_its_columns_is_told(tmp_path):
    with pytest.raises(PublicSetError, match=r"There is no folder .*Images"):
        read_public_set("fetal_planes_db", tmp_path)
    write_fetal_planes(tmp_path, header=HEADER.replace("Patient_num", "Patient"))
    with pytest.raises(PublicSetError, match=r"has the columns Image_name, Patient, .*needs .*Patient_num"):
        read_public_set("fetal_planes_db", tmp_path)
    (tmp_path / FetalPlanesDb.csv_name).unlink()
    with pytest.raises(PublicSetError, match=r"no FETAL_PLANES_DB_data\.csv"):
        read_public_set("fetal_planes_db", tmp_path)


def test_a_class_map_of_ones_own_decides_otherwise(tmp_path):
    source = write_fetal_planes(tmp_path / "set")
    labels = {"/".join(row[2:4]) if row[2] == "Fetal brain" else row[2]: "leave_out" for row in FETAL_PLANES}
    class_map = ClassMap(labels | {"Other": "background", "Fetal thorax": "heart_four_chamber"}, "mine")
    rows = read_public_set("fetal_planes_db", source, class_map)
    assert labels_of(rows) == {7: "heart_four_chamber", 8: "background"}


def test_class_folders_flat_names_and_other_files(tmp_path):
    write_picture(tmp_path / "FEMUR" / "a.png", 1)
    write_picture(tmp_path / "brain-tv" / "deep" / "b.PNG", 2)
    write_picture(tmp_path / "kidneys" / "c.bmp", 3)
    write_picture(tmp_path / "SPINE-CORONAL_07.png", 4)
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / "FEMUR" / ".hidden.png").write_bytes(b"")
    report = prepare_public_set("image_folder", tmp_path, tmp_path.with_name("folders_out"))
    assert report.ignored == ("FEMUR/.hidden.png", "LICENSE") and not report.left_out
    rows = list(read_public_set("image_folder", tmp_path))
    assert labels_of(rows) == {1: "femur", 2: "brain_transventricular", 3: "kidneys", 4: "spine_coronal"}
    assert {row["split"] for row in rows} == {"train"} and len({row["scan_id"] for row in rows}) == 4


def test_splits_above_the_classes_are_honoured(tmp_path):
    for number, path in enumerate(["train/FEMUR/a.png", "test/FEMUR/a.png", "validation/LIPS_2.png"]):
        write_picture(tmp_path / path, number)
    rows = list(read_public_set("image_folder", tmp_path))
    splits = {shown(row): row["split"] for row in rows}
    assert splits == {0: "train", 1: "test", 2: "validation"}
    assert len({row["scan_id"] for row in rows}) == 3
    write_picture(tmp_path / "FEMUR" / "a.png")
    with pytest.raises(PublicSetError, match="holds the splits test, train, validation and also FEMUR"):
        read_public_set("image_folder", tmp_path)


def test_a_pattern_tells_the_patients(tmp_path):
    for number, path in enumerate(["FEMUR/p1_a.png", "LIPS/p1_b.png", "LIPS/p2_a.png"]):
        write_picture(tmp_path / "train" / path, number)
    by_patient = ImageFolder(patient_pattern=r"^(?P<patient>p\d+)_")
    scans = {shown(row): row["scan_id"] for row in read_public_set(by_patient, tmp_path)}
    assert scans[0] == scans[1] != scans[2]
    write_picture(tmp_path / "test" / "LIPS" / "p2_c.png", 3)
    with pytest.raises(PublicSetError, match="Patient p2 is in two splits"):
        read_public_set(by_patient, tmp_path)
    write_picture(tmp_path / "test" / "LIPS" / "x.png", 4)
    with pytest.raises(PublicSetError, match=r"test/LIPS/x\.png: .*finds no patient in 'x\.png'"):
        read_public_set(by_patient, tmp_path)


@pytest.mark.parametrize(("pattern", "complaint"), [("(", "no regular expression"), (r"p\d", "has no group")])
def test_a_pattern_without_a_patient_is_refused(pattern, complaint):
    with pytest.raises(ValueError, match=complaint):
        ImageFolder(patient_pattern=pattern)


def test_an_unknown_class_folder_is_an_error_that_lists_the_known(tmp_path):
    write_picture(tmp_path / "FOOT" / "a.png")
    with pytest.raises(ClassMapError, match=r"FOOT/a\.png: .*'FOOT'.*ABDOMINAL.*brain_transcerebellar"):
        read_public_set("image_folder", tmp_path)


def test_hc18_gives_unlabelled_frames_and_no_outlines(tmp_path):
    names = ["training_set/001_HC", "training_set/001_2HC", "training_set/002_HC", "test_set/001_HC"]
    for number, name in enumerate(names):
        write_picture(tmp_path / "set" / f"{name}.png", number)
    write_picture(tmp_path / "set" / "training_set" / "001_HC_Annotation.png", 99)
    (tmp_path / "set" / "training_set_pixel_size_and_HC.csv").write_text("filename\n")
    rows = list(read_public_set("hc18", tmp_path / "set"))
    assert labels_of(rows) == dict.fromkeys(range(4))
    assert {shown(row): row["split"] for row in rows} == {0: "train", 1: "train", 2: "train", 3: "test"}
    scans = {shown(row): row["scan_id"] for row in rows}
    assert scans[0] == scans[1] and len(set(scans.values())) == 3
    report = prepare_public_set("hc18", tmp_path / "set", tmp_path / "out")
    assert report.frames == {"train": {"unlabelled": 3}, "test": {"unlabelled": 1}}
    assert report.ignored == ("training_set/001_HC_Annotation.png",)
    splits = load(tmp_path / "out")
    assert set(splits["train"]["label"]) == set(splits["test"]["label"]) == {UNLABELLED}


def test_hc18_takes_no_class_map_and_needs_its_folders(tmp_path):
    with pytest.raises(PublicSetError, match="no training_set or test_set"):
        read_public_set("hc18", tmp_path)
    with pytest.raises(PublicSetError, match="takes no class map"):
        read_public_set("hc18", tmp_path, ClassMap({}, "mine"))


@pytest.fixture
def hub_set(tmp_path) -> Path:
    """A Parquet data set with a ClassLabel, in two splits; the last row has no label."""
    pictures = [write_picture(tmp_path / "pictures" / f"{number}.png", number) for number in range(5)]
    features = Features(
        {"scan": ImageFeature(), "view": ClassLabel(names=["LIPS", "4CH"]), "woman": Value("int64")}
    )

    def split(numbers: list[int], labels: list[int | None], women: list[int]) -> Dataset:
        scans = [{"bytes": pictures[number].read_bytes(), "path": None} for number in numbers]
        return Dataset.from_dict({"scan": scans, "view": labels, "woman": women}, features=features)

    folder = tmp_path / "hub"
    sets = DatasetDict(
        {"train": split([0, 1, 2], [0, 1, 1], [7, 7, 8]), "test": split([3, 4], [0, None], [9, 9])}
    )
    for name, rows in sets.items():
        rows.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


HUB = Hub(image_column="scan", label_column="view", patient_column="woman")


def test_a_hub_data_set_gives_the_same_columns(hub_set):
    rows = list(read_public_set(HUB, hub_set))
    assert labels_of(rows) == {
        0: "lips",
        1: "heart_four_chamber",
        2: "heart_four_chamber",
        3: "lips",
        4: None,
    }
    assert {shown(row): row["split"] for row in rows} == {
        0: "train",
        1: "train",
        2: "train",
        3: "test",
        4: "test",
    }
    scans = {shown(row): row["scan_id"] for row in rows}
    assert scans[0] == scans[1] and scans[3] == scans[4] and len(set(scans.values())) == 3
    alone = read_public_set(Hub(image_column="scan", label_column="view"), hub_set)
    assert len({row["scan_id"] for row in alone}) == 5


def test_a_folder_with_a_card_is_read_as_it_is_now(tmp_path):
    """datasets would take what it has kept of another folder of the same name."""
    for number, side in enumerate(["first", "second"]):
        source = write_picture(tmp_path / side / "source" / f"LIPS_{number}.png", number).parent
        prepare_public_set("image_folder", source, tmp_path / side / "same_name")
    read = [labels_of(read_public_set("hub", tmp_path / side / "same_name")) for side in ("first", "second")]
    assert read == [{0: "lips"}, {1: "lips"}]


@pytest.mark.parametrize(
    ("layout", "complaint"),
    [
        (Hub(image_column="scan", label_column="label"), "no column label; it has scan, view, woman"),
        (Hub(image_column="view", label_column="view"), "column view holds no images"),
        (Hub(image_column="scan", label_column="view", configuration="none"), "cannot be loaded"),
    ],
)
def test_a_hub_data_set_that_does_not_fit_is_told(hub_set, layout, complaint):
    with pytest.raises(PublicSetError, match=complaint):
        read_public_set(layout, hub_set)


def test_a_hub_layout_of_image_files_is_read_through_its_text_column(tmp_path):
    for split, number in (("train", 1), ("test", 2)):
        write_picture(tmp_path / split / "a.png", number)
        (tmp_path / split / "metadata.csv").write_text("file_name,view\na.png,FEMUR\n")
    rows = list(read_public_set(Hub(label_column="view"), tmp_path))
    assert {shown(row): (row["split"], plane(row)) for row in rows} == {
        1: ("train", "femur"),
        2: ("test", "femur"),
    }


def test_pictures_are_squared_with_black_and_cropped(tmp_path):
    slope = np.add.outer(np.arange(40) * 2, np.arange(80) * 2)
    picture = np.repeat(slope[:, :, None], 3, axis=2).astype(np.uint8)
    picture[:, :20] = 255  # the text beside the scan
    Image.fromarray(picture).save(tmp_path / "LIPS.png")

    def stored(parameters: PictureParameters) -> np.ndarray:
        (row,) = read_public_set("image_folder", tmp_path, None, parameters)
        return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")).astype(int)

    whole = stored(PictureParameters(frame_size=80))
    assert whole.shape == (80, 80, 3) and whole[:16].max() < 8 and whole[-16:].max() < 8
    assert whole[24:56, 2:14].min() > 230
    cropped = stored(PictureParameters(frame_size=60, crop=(20, 0, 80, 40)))
    exact = np.asarray(resize_to_square(Image.fromarray(picture[:, 20:]), 60)).astype(int)
    assert np.abs(cropped - exact).mean() < 2 < np.abs(whole[10:70, 10:70] - exact).mean()


def test_pictures_of_any_8_bit_mode_are_read_and_others_left_out(tmp_path):
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK"):
        path = tmp_path / mode / ("a.tif" if mode == "CMYK" else "a.png")
        path.parent.mkdir()
        Image.fromarray(numbered_picture(5)).convert(mode).save(path)
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "deep" / "a.png")
    class_map = ClassMap({path.name: "lips" for path in tmp_path.iterdir()}, "mine")
    reasons: list[str] = []
    rows = list(read_public_set("image_folder", tmp_path, class_map, on_left_out=reasons.append))
    assert [shown(row) for row in rows] == [5] * 6
    assert len(reasons) == 1 and reasons[0].startswith("deep/a.png: has 'I;16' pixels")


@pytest.mark.parametrize("crop", [(0, 0, 65, 64), (0, 0, 64, 65)])
def test_a_crop_beyond_the_picture_leaves_it_out(tmp_path, crop):
    write_picture(tmp_path / "LIPS.png")
    with pytest.warns(UserWarning, match="does not lie within the picture of 64 x 64 pixels"):
        assert not list(read_public_set("image_folder", tmp_path, None, PictureParameters(crop=crop)))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"frame_size": 8}, "frame_size is 8"),
        ({"seed": -1}, "seed is -1"),
        ({"crop": (4, 0, 4, 9)}, "crop is"),
        ({"crop": (-1, 0, 4, 9)}, "crop is"),
    ],
)
def test_parameters_out_of_range_are_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        PictureParameters(**fields)


def test_any_damage_to_a_picture_is_reported(tmp_path):
    whole = write_picture(tmp_path / "LIPS.png", 3).read_bytes()
    chance = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in chance.integers(0, len(whole), 4):
            damaged[place] ^= 1 << int(chance.integers(8))
        (tmp_path / "LIPS.png").write_bytes(damaged[: chance.integers(1, len(whole) + 1)])
        reasons: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = list(read_public_set("image_folder", tmp_path, on_left_out=reasons.append))
        assert len(rows) + len(reasons) == 1


def test_an_output_folder_that_cannot_be_used_is_refused(tmp_path):
    source, out = tmp_path / "set", tmp_path / "out"
    write_picture(source / "LIPS.png")
    prepare_public_set("image_folder", source, out)
    with pytest.raises(PublicSetError, match="already has the configuration planes; --overwrite"):
        prepare_public_set("image_folder", source, out)
    write_picture(source / "FEMUR.png")
    prepare_public_set("image_folder", source, out, overwrite=True)
    assert len(list(load_dataset(str(out), PLANES_CONFIG, streaming=True)["train"])) == 2
    with pytest.raises(PublicSetError, match="one inside the other"):
        prepare_public_set("image_folder", source, source / "out")
    (out / "splits.json").write_text("{}")
    with pytest.raises(PublicSetError, match="is made of recordings"):
        prepare_public_set("image_folder", source, out, overwrite=True)


def test_a_set_of_which_nothing_is_kept_is_refused(tmp_path):
    write_picture(tmp_path / "set" / "LIPS.png")
    with pytest.raises(PublicSetError, match="No picture was kept"):
        prepare_public_set(
            "image_folder",
            tmp_path / "set",
            tmp_path / "out",
            class_map=ClassMap({"LIPS": "leave_out"}, "mine"),
        )
    assert not (tmp_path / "out").exists()


def test_an_unknown_layout_is_told():
    with pytest.raises(
        PublicSetError, match="no layout 'folder'; choose one of fetal_planes_db, image_folder"
    ):
        read_public_set("folder", "anywhere")


def test_the_command_takes_the_options_of_its_layout(tmp_path, capsys):
    for name in ("p1_a", "p1_b", "p2_a"):
        write_picture(tmp_path / "set" / "THIGH" / f"{name}.png")
    (tmp_path / "map.yaml").write_text("labels: {THIGH: femur}")
    options = ["--class-map", str(tmp_path / "map.yaml"), "--patient-pattern", r"(?P<patient>p\d)"]
    options += ["--frame-size", "16", "--crop", "0", "0", "32", "64", "--sector", "whole", "--text", "ignore"]
    assert main(["image_folder", str(tmp_path / "set"), str(tmp_path / "out"), *options]) == 0
    assert "train: 3 frames of 2 scans (femur 3)." in capsys.readouterr().out
    info = read_info(tmp_path / "out", PLANES_CONFIG)
    assert (info["frame_size"], info["crop"], info["class_map"]) == (16, [0, 0, 32, 64], {"THIGH": "femur"})


def test_the_command_says_in_a_sentence_what_is_wrong(tmp_path, capsys):
    write_picture(tmp_path / "set" / "FOOT.png")
    arguments = ["image_folder", str(tmp_path / "set"), str(tmp_path / "out")]
    assert main(arguments) == 2
    assert main([*arguments, "--frame-size", "2"]) == 2
    assert main([*arguments, "--class-map", str(tmp_path / "none.yaml")]) == 2
    assert main([arguments[0], str(tmp_path / "none"), arguments[2]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("public_sets: ") for line in lines)
    (tmp_path / "set" / "LIPS.png").write_bytes(b"no picture")
    (tmp_path / "set" / "FOOT.png").unlink()
    assert main([*arguments, "--strict"]) == 1


# What a machine wrote on the pictures.

SIZE, BOX = 320, (40, 40, 280, 260)  # the sector of written_picture()
MARGIN_TEXT, SECTOR_TEXT = "DOE JANE 03.12.2015", "OKAFOR"
FOUND_AND_BLANKED = PictureParameters(frame_size=240, sector="found", text="blank")


def write_written_picture(path: Path, text: str = SECTOR_TEXT) -> Path:
    """Speckle in a box, a name and a date above it, and text on it."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    left, top, right, bottom = BOX
    pixels[top:bottom, left:right] = np.minimum(rng.rayleigh(40, (bottom - top, right - left)), 200)
    picture = Image.fromarray(pixels).convert("RGB")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    draw.text((60, 10), MARGIN_TEXT, "white", font)
    draw.text((110, 140), text, "white", font, stroke_width=2, stroke_fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def stored_texts(out: Path) -> list[str]:
    rows = load(out)["train"]
    return [text.text for row in rows for text in find_text(np.asarray(row["image"].convert("RGB")))]


def told(out: Path) -> dict[str, dict]:
    report = json.loads(out.with_name(f"{out.name}.planes.report.json").read_text())
    return {each["name"]: each for each in report["pictures"]}


def test_what_is_written_on_pictures_is_blanked_and_told(tmp_path):
    write_written_picture(tmp_path / "set" / "LIPS.png")
    write_written_picture(tmp_path / "set" / "FEMUR.png", "")
    out = tmp_path / "out"
    report = prepare_public_set("image_folder", tmp_path / "set", out, FOUND_AND_BLANKED)
    assert stored_texts(out) == []
    for row in load(out)["train"]:
        pixels = np.asarray(row["image"].convert("L"))
        assert pixels[20:220, 10:60].mean() > 20, "the speckle fills the square"
    assert told(out)["LIPS.png"]["texts"] == [SECTOR_TEXT] and told(out)["FEMUR.png"]["texts"] == []
    assert report.counts == {"train": {"texts_on_sector": 1}} and "texts_on_sector 1" in report.summary()
    page = (tmp_path / "out.planes.report.html").read_text()
    assert SECTOR_TEXT in page and "LIPS.png" in page and "FEMUR.png" in page
    info = read_info(out, PLANES_CONFIG)
    assert (info["sector"], info["text"]) == ("found", "blank")
    assert not any(SECTOR_TEXT.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize("text", ["report", "ignore", "leave_out"])
def test_text_is_told_passed_over_or_left_out(tmp_path, text):
    write_written_picture(tmp_path / "set" / "LIPS.png")
    write_written_picture(tmp_path / "set" / "FEMUR.png", "")
    out = tmp_path / "out"
    parameters = PictureParameters(frame_size=240, sector="found", text=text)
    report = prepare_public_set("image_folder", tmp_path / "set", out, parameters)
    lips = told(out)["LIPS.png"]
    assert lips["texts"] == ([] if text == "ignore" else [SECTOR_TEXT])
    assert (lips["error"], lips["rows"]) == (("TextOnSectorError", 0) if text == "leave_out" else (None, 1))
    assert stored_texts(out) == ([] if text == "leave_out" else [SECTOR_TEXT])
    assert report.left_out == (
        ("LIPS.png: text lies on what would be kept of it; look at it.",) if text == "leave_out" else ()
    )


def test_a_picture_without_a_sector_is_left_out_with_a_remedy(tmp_path):
    write_written_picture(tmp_path / "set" / "LIPS.png", "")
    Image.new("RGB", (SIZE, SIZE), (90, 90, 90)).save(tmp_path / "set" / "FEMUR.png")
    source, parameters = tmp_path / "set", PictureParameters(sector="found")
    report = prepare_public_set("image_folder", source, tmp_path / "out", parameters)
    (reason,) = report.left_out
    assert reason.startswith("FEMUR.png: no ultrasound sector is found") and "--sector whole" in reason
    with pytest.raises(StrictError, match=r"FEMUR\.png"):
        prepare_public_set("image_folder", source, tmp_path / "strict", parameters, strict=True)


def test_a_crop_is_kept_and_blanked_outside_of_the_sector(tmp_path):
    write_written_picture(tmp_path / "LIPS.png", "")
    parameters = PictureParameters(frame_size=SIZE, crop=(0, 0, SIZE, SIZE), sector="found")
    (row,) = read_public_set("image_folder", tmp_path, None, parameters)
    pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("L"))
    assert pixels[:36].max() < 12 and pixels[60:240, 60:260].mean() > 20


def test_the_sheet_has_a_tile_a_picture_and_lies_outside_of_the_set(tmp_path):
    write_written_picture(tmp_path / "set" / "LIPS.png")
    write_written_picture(tmp_path / "set" / "FEMUR.png", "")
    (tmp_path / "set" / "KIDNEYS.png").write_bytes(b"no picture")
    source, sheet = tmp_path / "set", tmp_path / "sheets" / "sheet.png"
    prepare_public_set("image_folder", source, tmp_path / "out", FOUND_AND_BLANKED, sheet=sheet)
    shown = np.asarray(Image.open(sheet))
    assert shown.shape[1] == 2 * (TILE + 4)
    assert (shown == GREEN).all(axis=-1).sum() > 400 and (shown == RED).all(axis=-1).sum() > 40
    assert [path.name for path in sheet.parent.iterdir()] == ["sheet.png"]
    for wrong in (tmp_path / "new" / "sheet.png", tmp_path / "sheet.jpg"):
        with pytest.raises(PrepareError, match="cannot be the sheet"):
            prepare_public_set("image_folder", source, tmp_path / "new", sheet=wrong)


def test_each_layout_has_defaults_of_its_own_in_the_command(tmp_path, capsys):
    """What was de-identified and published is kept whole; a folder of somebody's pictures is not."""
    write_written_picture(tmp_path / "set" / "LIPS.png")
    arguments = ["image_folder", str(tmp_path / "set"), str(tmp_path / "out")]
    assert main([*arguments, "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "texts_on_sector 1" in capsys.readouterr().out and (tmp_path / "sheet.png").exists()
    assert main([*arguments, "--overwrite", "--sector", "whole", "--text", "ignore"]) == 0
    assert read_info(tmp_path / "out", PLANES_CONFIG)["sector"] == "whole"
    chosen = {name: (kind.default_sector, kind.default_text) for name, kind in LAYOUTS.items()}
    assert chosen == {
        "fetal_planes_db": ("whole", "ignore"),
        "image_folder": ("found", "blank"),
        "hc18": ("whole", "ignore"),
        "hub": ("whole", "report"),
    }


def run_on_real_planes(media: Path, out: Path, *options: str) -> None:
    command = [sys.executable, "-m", "datasets_scripts.public_sets", "image_folder"]
    done = subprocess.run(
        [*command, str(media / "fetal_planes"), str(out), *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.media
def test_the_real_planes_load_under_our_names(media, tmp_path):
    run_on_real_planes(media, tmp_path / "out", "--sector", "whole", "--text", "ignore")
    rows = load(tmp_path / "out")["train"]
    assert sorted(rows["label"]) == list(range(13)) and len(set(rows["scan_id"])) == 13
    names = {"FEMUR": "femur", "BRAIN-CB": "brain_transcerebellar", "3VV": "heart_three_vessel_trachea"}
    for file, name in names.items():
        (row,) = [row for row in rows if rows.features["label"].int2str(row["label"]) == name]
        real = Image.open(media / "fetal_planes" / f"{file}.png").convert("RGB")
        difference = np.asarray(row["image"], float) - np.asarray(resize_to_square(real, 160), float)
        assert row["image"].size == (160, 160) and np.abs(difference).mean() < 4


@pytest.mark.slow
@pytest.mark.media
def test_no_date_or_setting_of_the_machine_is_stored_of_the_real_planes(media, tmp_path):
    """By the defaults of the command; where text stands on a picture, what is stored of it is black."""
    size, out = 640, tmp_path / "out"
    run_on_real_planes(media, out, "--frame-size", str(size), "--sheet", str(tmp_path / "sheet.png"))
    assert not told(out).keys() ^ {f"{file.stem}.png" for file in (media / "fetal_planes").glob("*.png")}
    rows = {PLANES[row["label"]]: np.asarray(row["image"].convert("RGB")) for row in load(out)["train"]}
    for file in sorted((media / "fetal_planes").glob("*.png")):
        whole = np.asarray(Image.open(file).convert("RGB"))
        left, top, right, bottom = StillPicture(file.name, whole).box("found")
        place = place_in_square(right - left, bottom - top, size)
        stored, scale = rows[read_class_map(SONONET_MAP).labels[file.stem]], place.width / (right - left)
        written = find_text(whole)
        assert len(written) >= 5, "date, time, depth and settings"
        for x, y, end, below in (text.box for text in written):
            if end <= left or x >= right or below <= top or y >= bottom:
                continue  # cut off
            x, end = (round((min(max(edge, left), right) - left) * scale) + place.left for edge in (x, end))
            y, below = (round((min(max(edge, top), bottom) - top) * scale) + place.top for edge in (y, below))
            lines = slice(y + (below - y) // 4, below - (below - y) // 4)  # the box around them is wider
            assert (stored[lines, x:end] > 60).mean() < 0.02, (file.name, x, y)
    assert privacy_check([str(out)]) == 0, "it reads every picture, and finds no text"
