"""What must not be published is found wherever it was planted, and is not repeated; a clean set passes."""

import datetime
import getpass
import hashlib
import io
import json
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from tiny_recordings import SIZE, even_times, tone, write_video

from datasets_scripts import privacy_check
from datasets_scripts.burned_in_text import FoundText
from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.prepare_planes import PlaneParameters, prepare_planes
from datasets_scripts.privacy_check import TEXT_ON_A_FRAME, Finding, check_privacy, main
from datasets_scripts.private_words import Identifiers, telling_forms, words_of
from datasets_scripts.simulated_anatomy import draw_patient
from datasets_scripts.simulated_probe import ProbePath, holds_of
from datasets_scripts.simulated_ultrasound import Renderer, draw_style
from datasets_scripts.simulated_visits import plan_visits
from datasets_scripts.stored_metadata import metadata_texts
from datasets_scripts.text_on_frames import TextOnFrames

FOLDER, PATIENT = "Moreau_Lea", "MRN-448812"
DICOM = {
    "PatientName": "Okafor^Ngozi",
    "PatientID": "P7",
    "PatientBirthDate": "19880214",
    "AccessionNumber": "20993317",
    "InstitutionName": "Saint Elsewhere",
    "ReferringPhysicianName": "Szymanowska^Ilse",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "StationName": "",
    "DeviceSerialNumber": None,
}


def write_dicom(path: Path) -> None:
    """A DICOM file without pixels."""
    header = pydicom.Dataset()
    for keyword, value in DICOM.items():
        setattr(header, keyword, value)
    header.SOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True)
    header.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with recordings `in`, and a clean `set` of clips and planes of them."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, patient in ((FOLDER, PATIENT), ("visit_1", "12"), ("train", "Quint"), ("a", None)):
        scan = folder / "in" / name
        write_video(scan / "scan.mp4", even_times(2.2), sound=tone(2.2))
        (scan / "planes.csv").write_text("start_s,end_s,label\n0.5,1.5,femur\n")
        (scan / "scan.json").write_text(json.dumps({"patient_id": patient}))
    clips = ClipParameters(clip_seconds=2.0, frames_per_clip=3, frame_size=SIZE)
    prepare_clips(folder / "in", folder / "set", clips, workers=1)
    prepare_planes(folder / "in", folder / "set", PlaneParameters(frame_size=SIZE), workers=1)
    write_dicom(folder / "in" / "cine" / "Haversham.dcm")
    return folder


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(prepared, tmp_path / "work"))


def found(folder: Path) -> list[Finding]:
    """All but text on frames, which takes longer to look for."""
    return check_privacy(folder / "set", folder / "in", text_on_frames="skip")


def first_shard(folder: Path, config: str = "large") -> Path:
    return sorted((folder / "set" / "data" / config).glob("train-*.parquet"))[0]


def change_column(folder: Path, column: str, change: Callable, config: str = "large") -> str:
    """Change the first value of a column; returns the name of the file in the set."""
    path = first_shard(folder, config)
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0][column] = change(rows[0][column])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return path.relative_to(folder / "set").as_posix()


def add_column(folder: Path, name: str, values: list) -> None:
    path = first_shard(folder)
    table = pq.read_table(path)
    pq.write_table(table.append_column(name, pa.array((values * len(table))[: len(table)])), path)


def add_to_card(folder: Path, text: str) -> None:
    with (folder / "set" / "README.md").open("a", encoding="utf-8") as card:
        card.write(text + "\n")


# A clean set.


def test_a_clean_set_passes(folder, capsys):
    assert main([str(folder / "set"), "--recordings", str(folder / "in")]) == 0
    shards = list((folder / "set").rglob("*.parquet"))
    rows = sum(pq.read_metadata(path).num_rows for path in shards)
    told = f"{len(shards)} shards, {rows} rows and 4 text files were read: nothing was found.\n"
    assert capsys.readouterr().out == told
    assert main([str(folder / "set")]) == 0
    assert check_privacy(folder / "set") == []


def test_a_card_may_hold_links_formulae_and_dates_of_these_years(folder):
    today = datetime.date.today().isoformat()
    add_to_card(
        folder,
        f"Released on {today}; see <https://example.org/a/b/{today}> and [this](docs/x.md), 3 km/h and/or "
        "`x^2`, </b>, data/large/train-*.parquet, hf://datasets/a/b, ../up/one, loss 0.19850214, none of 12.",
    )
    assert found(folder) == []


# Identifiers of the recordings.

PLANTED = (
    "Moreau_Lea", "moreau lea", "MOREAU-LEA", "x/moreau_lea.png", "mrn 448812", "okafor", "Ngozi", "P7",
    "1988-02-14", "14.02.1988", "19880214", "20993317", "saint_elsewhere", "Szymanowska", "Quint",
    "1.2.826.0.1.3680043.8.498.1", "haversham",
)  # fmt: skip


@pytest.mark.parametrize("text", PLANTED)
def test_an_identifier_in_a_text_file_is_found_and_not_repeated(folder, text, capsys):
    add_to_card(folder, f"The (first) one is {text}, as said.")
    lines = len((folder / "set" / "README.md").read_text().splitlines())
    command = [str(folder / "set"), "--recordings", str(folder / "in"), "--text-on-frames", "skip"]
    assert main(command) == 1
    *told, summary = capsys.readouterr().out.splitlines()
    assert told and all(line.startswith(f"README.md, line {lines}: ") for line in told)
    assert summary.endswith(f": {len(told)} findings.")
    joined = "".join(words_of("".join(told)))
    assert "".join(words_of(text)) not in joined and "okafor" not in joined and "448812" not in joined


def test_kinds_say_where_an_identifier_is_from(folder):
    add_to_card(folder, f"{FOLDER} {PATIENT} Haversham Okafor Elsewhere Saint Elsewhere")
    assert {finding.kind.removesuffix(" of the recordings") for finding in found(folder)} == {
        "name of a folder or file",
        "patient_id",
        "DICOM PatientName",
        "DICOM InstitutionName",
    }


@pytest.mark.parametrize(
    "text", ["Moreaux Leanne", "xMRN-448812", "P70", "train", "a", "12", "scan", "209933170", "none", "None"]
)
def test_parts_of_words_own_words_and_short_ones_are_not_found(folder, text):
    add_to_card(folder, f"The (first) one is {text}, as said.")
    assert found(folder) == []


def test_a_short_number_is_found_where_it_is_a_whole_value(folder):
    (folder / "set" / "note.json").write_text(json.dumps({"rows": 12, "of": "12"}))
    (finding,) = found(folder)
    assert (finding.file, finding.row, finding.masked) == ("note.json", 1, "… of 2 characters")


def test_identifiers_escaped_in_json_are_found(folder):
    (folder / "in" / "Müller").mkdir()
    (folder / "set" / "note.json").write_text(json.dumps({"of": "visit Mu\u0308ller"}))
    assert "\\u" in (folder / "set" / "note.json").read_text()
    assert [finding.file for finding in found(folder)] == ["note.json"]


@pytest.mark.parametrize("column", ["frames", "audio"])
def test_a_path_kept_beside_bytes_is_found(folder, column):
    def name(value):
        first = value[0] if column == "frames" else value
        first["path"] = f"{FOLDER}.jpg"
        return value

    file = change_column(folder, column, name)
    (finding,) = found(folder)
    place = "frames[0].path" if column == "frames" else "audio.path"
    assert (finding.file, finding.column, finding.row) == (file, place, 0)


def test_parquet_metadata_names_of_columns_and_of_files_are_searched(folder):
    path = first_shard(folder)
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"made": f"of {PATIENT}".encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    add_column(folder, FOLDER, ["x"])
    path.rename(path.with_name(f"train-{FOLDER}.parquet"))
    findings = found(folder)
    assert {finding.kind for finding in findings} == {
        "name of a folder or file of the recordings",
        "patient_id of the recordings",
    }
    assert not any("moreau" in str(finding).casefold() or "448812" in str(finding) for finding in findings)


def test_without_recordings_the_reports_beside_the_set_tell_their_names(folder):
    add_to_card(folder, f"{FOLDER} and {PATIENT}")
    (finding,) = check_privacy(folder / "set")
    assert finding.kind == "name of a folder or file of the recordings"


def test_the_numbers_of_shards_are_not_taken_for_identifiers(folder):
    shard = first_shard(folder)
    number = shard.name.split("-")[1]
    (folder / "in" / number).mkdir()
    (folder / "in" / shard.stem.split("-")[3]).mkdir()
    assert found(folder) == []
    shard.rename(shard.with_name(f"{number}-{shard.name}"))
    (finding,) = found(folder)
    assert number not in finding.file.split("-")[0]


def test_the_start_in_a_clip_id_is_not_taken_for_an_identifier(folder):
    (folder / "in" / "0000000").mkdir()
    assert found(folder) == []


# Metadata of stored pictures and sounds.


def png_with_text(after_pixels: bool) -> bytes:
    text, encoded = PngInfo(), io.BytesIO()
    text.add_text("Description", f"visit of {PATIENT}", zip=True)
    if after_pixels:
        text.chunks[0] = (*text.chunks[0], True)
        text.chunks = [(*chunk[:2], True) for chunk in text.chunks]
    Image.new("L", (4, 4)).save(encoded, "PNG", pnginfo=text)
    return encoded.getvalue()


def jpeg(**options) -> bytes:
    encoded = io.BytesIO()
    Image.new("L", (4, 4)).save(encoded, "JPEG", **options)
    return encoded.getvalue()


def exif(tag: int, value: object) -> bytes:
    tags = Image.Exif()
    tags[tag] = value
    return tags.tobytes()


PICTURES = {
    "PNG text": png_with_text(False),
    "PNG text after the pixels": png_with_text(True),
    "JPEG comment": jpeg(comment=f"visit of {PATIENT}"),
    "EXIF": jpeg(exif=exif(0x010E, PATIENT)),
    "EXIF in UTF-16": jpeg(exif=exif(0x9C9D, f"visit of {PATIENT}".encode("utf-16-le"))),
    "appended": jpeg() + PATIENT.encode(),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_metadata_of_a_stored_picture_are_searched(folder, kind):
    file = change_column(folder, "image", lambda _: {"bytes": PICTURES[kind], "path": None}, config="planes")
    (finding,) = found(folder)
    assert (finding.file, finding.column, finding.row) == (file, "image.bytes", 0)
    assert finding.kind == "patient_id of the recordings"


def test_a_picture_among_many_and_a_picture_file_are_searched(folder):
    def replace_third(frames):
        frames[2]["bytes"] = PICTURES["JPEG comment"]
        return frames

    change_column(folder, "frames", replace_third)
    (folder / "set" / "sheet.png").write_bytes(PICTURES["PNG text"])
    assert [(finding.column, finding.row) for finding in found(folder)] == [
        ("frames[2].bytes", 0),
        (None, None),
    ]


def flac_with_comment(comment: str) -> bytes:
    """FLAC of silence with a Vorbis comment, the block written by hand."""
    encoded = io.BytesIO()
    soundfile.write(encoded, np.zeros(640, np.float32), 32_000, format="FLAC")
    raw, text = encoded.getvalue(), comment.encode()
    vendor = b"reference libFLAC 1.2.1 20070917"
    block = struct.pack("<I", len(vendor)) + vendor + struct.pack("<II", 1, len(text)) + text
    head = raw[:4] + bytes([raw[4] & 0x7F]) + raw[5:42]
    return head + bytes([0x84]) + len(block).to_bytes(3) + block


def test_vorbis_comments_are_searched_and_the_encoders_date_is_none_of_birth(folder):
    change_column(folder, "audio", lambda _: {"bytes": flac_with_comment("TITLE=sound"), "path": None})
    assert found(folder) == []
    file = change_column(
        folder, "audio", lambda _: {"bytes": flac_with_comment(f"TITLE={PATIENT}"), "path": None}
    )
    (finding,) = found(folder)
    assert (finding.file, finding.column) == (file, "audio.bytes")


def test_bytes_that_cannot_be_read_are_a_finding(folder):
    change_column(folder, "audio", lambda _: {"bytes": b"RIFF....WAVE" + PATIENT.encode(), "path": None})
    (folder / "set" / "scan.mp4").write_bytes(bytes(range(256)))
    path = first_shard(folder, "planes")
    path.write_bytes(path.read_bytes()[:-20])
    kinds = sorted(finding.kind for finding in found(folder))
    assert kinds == [
        "bytes of a form that this check does not read",
        "file of a form that this check does not read",
        "shard that cannot be read",
    ]


def test_a_picture_without_text_says_nothing():
    assert not any("Description" in text for text in metadata_texts(jpeg()))
    assert metadata_texts(b"none") is None


def test_arrays_of_numbers_are_read_to_their_end_and_others_refused():
    def stored(array):
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    numbers = stored(np.zeros((3, 4), dtype=np.float16))
    assert not any("Jane" in text for text in metadata_texts(numbers))
    assert any("Jane Roe" in text for text in metadata_texts(numbers + b"Jane Roe"))
    assert metadata_texts(stored(np.array(["Jane Roe"]))) is None
    assert metadata_texts(numbers[:-2]) is None


# What its form gives away.


@pytest.mark.parametrize(
    "path",
    [
        "/home/lea/scans/1.mp4", "see /mnt/x, or", '{"path": "/data/y/z"}', "C:\\Users\\lea", '"D:\\\\scans"',
        "e:/scans/1.mp4", "\\\\server\\share\\x", "file:///srv/x", "(/Volumes/x)", "input=/var/x",
    ],
)  # fmt: skip
def test_absolute_paths_are_found(path):
    assert [kind for kind, _ in telling_forms(path)] == ["absolute path"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Doe^Jane", "name in the form of DICOM"),
        ("for van der Berg^Anna^^Dr.", "name in the form of DICOM"),
        ("Łęcka^Ł", "name in the form of DICOM"),
        ("1990-01-31", "date of birth"),
        ("31.1.1990 or so", "date of birth"),
        ("01/31/1990", "date of birth"),
        ("19900131", "date of birth"),
        ("1990-01-31T10:00", "date of birth"),
        ("birth_date: 2025-01-31", "date of birth"),
        ("DOB 31/01/2025", "date of birth"),
    ],
)
def test_names_of_dicom_and_dates_of_birth_are_found(text, kind):
    assert [found for found, _ in telling_forms(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "x^2", "x^n", "m/s", "1990-13-31", "31.31.1990", "1850-01-01", "0.19900131", "19900131.5",
        "a19900131", "https://host/a/b", "s3://a/b/c", "a/b/c", "~/a/b", "word / word / word", "</p></a>",
        "ratio 4:3",
    ],
)  # fmt: skip
def test_other_texts_are_not_taken_for_them(text):
    assert list(telling_forms(text)) == []


@pytest.mark.parametrize(
    "date",
    [
        "2021-03-31", "31.03.2021", "31/3/2021", "03/31/2021", "20210331", "2021:03:31 10:11:12",
        "31 March 2021", "31-Mar-2021", "31st Mar. 2021", "March 31, 2021", "on MARCH 31ST 2021",
    ],
)  # fmt: skip
def test_dates_of_these_years_are_found_where_any_is(date):
    assert [found for found, _ in telling_forms(date, any_date=True)] == ["date"]
    assert list(telling_forms(date)) == []
    of_birth = date.replace("2021", "1990")
    assert [found for found, _ in telling_forms(of_birth)] == ["date of birth"]


@pytest.mark.parametrize(
    "text", ["31 Feb 2021", "in May 2021", "may 3 of 2021", "2099-01-01", "12 mars 2021"]
)
def test_what_is_no_date_is_not_found(text):
    assert list(telling_forms(text, any_date=True)) == []


def test_the_date_of_a_scan_is_found_in_columns_and_metadata_but_may_stand_in_the_card(folder):
    add_to_card(folder, "Released on 31 March 2021.")
    assert found(folder) == []
    add_column(folder, "note", ["scanned 31 March 2021"])
    change_column(folder, "image", lambda _: {"bytes": jpeg(comment="2021:03:31"), "path": None}, "planes")
    assert {(finding.column, finding.kind) for finding in found(folder)} == {
        ("note", "date"),
        ("image.bytes", "date"),
    }


@pytest.mark.parametrize("value", ["Doe^Jane", "/home/lea/x", "1990-01-31", datetime.date(1990, 1, 31)])
def test_forms_in_a_column_are_found(folder, value):
    add_column(folder, "note", [value])
    assert {(finding.column, finding.row) for finding in found(folder)} >= {("note", 0)}


def test_a_column_of_birth_dates_is_found_by_its_name(folder):
    add_column(folder, "birth_year", [1990])
    (finding,) = found(folder)
    assert (finding.column, finding.kind) == ("birth_year", "column of dates of birth")


def test_the_names_of_machine_and_user_are_found(folder, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "orchid.ward4.example")
    monkeypatch.setattr(getpass, "getuser", lambda: "lwestwick")
    assert found(folder) == []
    add_to_card(folder, "Made by lwestwick on orchid.")
    (folder / "set" / "log.txt").write_text("orchid.ward4.example\n")
    kinds = [(finding.file, finding.kind) for finding in found(folder)]
    assert sorted(set(kinds)) == [
        ("README.md", "host name"),
        ("README.md", "user name"),
        ("log.txt", "host name"),
    ]


# Text on frames.


def picture_of(text: str | None, seed: int = 0) -> bytes:
    """Simulated ultrasound of 160 pixels as JPEG, with text on it."""
    rng = np.random.default_rng(seed)
    path = ProbePath(holds_of(plan_visits(6.0, rng), 6.0, draw_patient(rng), rng), rng)
    hold, pose, other, share = path.at(1.0)
    renderer = Renderer(draw_style(rng), 160, rng)
    picture = Image.fromarray(renderer.picture(hold.tissue, pose, other.tissue, share))
    if text is not None:
        ImageDraw.Draw(picture).text((40, 80), text, 255, ImageFont.load_default(14))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def show(folder: Path, texts: dict[int, str]) -> tuple[str, list[str]]:
    """Simulated pictures in a shard of planes, with text on those of some rows; file and scan of each row."""
    path = first_shard(folder, "planes")
    table = pq.read_table(path)
    rows = table.to_pylist()
    assert len(rows) >= 2
    for number, row in enumerate(rows):
        row["image"]["bytes"] = picture_of(texts.get(number), number)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return path.relative_to(folder / "set").as_posix(), [row["scan_id"] for row in rows]


def test_text_on_a_frame_is_found_with_its_place_and_what_it_says(folder, capsys):
    file, scans = show(folder, {1: "DOE JANE"})
    findings = check_privacy(folder / "set", folder / "in", frames_a_scan=None)
    (finding,) = findings
    assert (finding.file, finding.column, finding.row) == (file, "image", 1)
    assert finding.kind == TEXT_ON_A_FRAME and finding.read.replace(" ", "") == "DOEJANE"
    assert finding.scan == scans[1] and f"scan {scans[1]}: text on a frame, read as 'DOE" in str(finding)
    command = [str(folder / "set"), "--frames-a-scan", "all"]
    assert main(command) == 1
    assert str(finding) in capsys.readouterr().out
    assert main([*command, "--text-on-frames", "report"]) == 0
    told = capsys.readouterr().out
    assert str(finding) in told and "1 texts on frames are reported and do not count." in told
    assert main([*command, "--text-on-frames", "skip"]) == 0
    assert "DOE" not in capsys.readouterr().out


def test_simulated_frames_without_text_pass(folder):
    show(folder, {})
    assert check_privacy(folder / "set", frames_a_scan=None) == []


def test_some_pictures_of_each_scan_are_read(monkeypatch):
    looked = []
    monkeypatch.setattr(
        "datasets_scripts.text_on_frames.find_text",
        lambda picture: (
            looked.append(picture[0, 0, 0]) or [FoundText(str(picture[0, 0, 0]), 1.0, (0, 0, 1, 1))]
        ),
    )
    texts, told = TextOnFrames(3), []
    for row in range(10):
        value = [{"bytes": png_of(100 * (row % 2) + row), "path": None}, {"bytes": b"fLaC", "path": None}]
        told += texts.row("large", "a.parquet", "frames", row, "ab"[row % 2], value)
    assert looked == [0, 2, 4, 2, 101, 103, 105, 103]  # each of the first three, and their median
    assert [(picture.row, text) for picture, text in told[:3]] == [(0, "0"), (2, "2"), (4, "4")]
    assert list(texts.rest()) == []
    few = TextOnFrames(3)
    assert list(few.row("large", "a.parquet", "image", 0, "a", {"bytes": png_of(7), "path": None})) == []
    assert [(picture.column, text) for picture, text in few.rest()] == [("image", "7")]


def png_of(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (grey,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"text_on_frames": "maybe"}, "must be fail or report or skip"), ({"frames_a_scan": 0}, "must be 1 or")],
)
def test_other_choices_for_frames_are_refused(folder, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_privacy(folder / "set", **arguments)


# Keys and hashes.


def test_the_key_is_found_as_a_file_and_inside_another(folder):
    shutil.copy(folder / "set.key", folder / "set" / "notes.txt")
    key = (folder / "set.key").read_text().strip()
    add_to_card(folder, f"The key is {key}.")
    assert {(finding.file, finding.kind) for finding in found(folder)} == {
        ("notes.txt", "key file inside the set"),
        ("notes.txt", "key of the hashed identifiers"),
        ("README.md", "key of the hashed identifiers"),
    }
    assert not any(key[:8] in str(finding) for finding in found(folder))


def test_a_key_of_another_set_is_found_by_its_form_and_name(folder):
    (folder / "set" / "other.txt").write_text("0f" * 32 + "\n")
    (folder / "set" / "my.key").write_text("secret")
    assert [finding.kind for finding in found(folder)] == ["key file inside the set"] * 2


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("scan_id", "visit-17"),
        ("scan_id", "0123456789ABCDEF"),
        ("scan_id", None),
        ("clip_id", "visit-17_0000000"),
        ("clip_id", "0123456789abcdef"),
    ],
)
def test_identifiers_that_are_no_keyed_hashes_are_found(folder, column, value):
    file = change_column(folder, column, lambda _: value)
    (finding,) = found(folder)
    assert (finding.file, finding.column, finding.row) == (file, column, 0)
    assert finding.kind == "identifier that is no keyed hash"
    assert str(value) not in str(finding)


def test_patients_and_scans_of_the_splits_must_be_keyed_hashes(folder):
    path = folder / "set" / "splits.json"
    splits = json.loads(path.read_text())
    path.write_text(json.dumps({**splits, "train": {**splits["train"], "case-5": ["case-5-1"]}}))
    assert [finding.kind for finding in found(folder)] == ["identifier that is no keyed hash"] * 2
    path.write_text("{}")
    assert [finding.kind for finding in found(folder)] == ["splits that cannot be read"]


def test_hashes_without_a_key_are_found(folder):
    change_column(folder, "scan_id", lambda _: hashlib.sha256(FOLDER.encode()).hexdigest()[:16])
    (finding,) = found(folder)
    assert finding.kind == "hash without a key of a name of a folder or file of the recordings"


# Whole words.

LETTERS = st.text("abcxyzABCÄé0189", min_size=3, max_size=8).filter(lambda text: not text.isdecimal())
SEPARATORS = st.text(" _-.,^/()\n", min_size=1, max_size=3)


def holds(identifier: str, text: str) -> bool:
    identifiers = Identifiers()
    identifiers.add(identifier, "name")
    return any(identifiers.found(text))


@given(st.lists(LETTERS, min_size=1, max_size=3), LETTERS, LETTERS, SEPARATORS, SEPARATORS, SEPARATORS)
def test_an_identifier_is_found_between_separators_in_any_case(parts, left, right, before, between, after):
    identifier, written = "_".join(parts), between.join(parts)
    for text in (written, written.upper().lower(), f"{left}{before}{written}{after}{right}", after + written):
        assert holds(identifier, text)


@given(LETTERS, LETTERS)
def test_an_identifier_within_a_longer_word_is_not_found(identifier, more):
    assert not holds(identifier, identifier + more)
    assert not holds(identifier, more + identifier)


@given(st.lists(LETTERS, min_size=2, max_size=4, unique_by=str.casefold))
def test_all_the_words_must_be_there_in_their_order(words):
    assert holds(" ".join(words), ", ".join(words))
    assert not holds(" ".join(words), ", ".join(words[:-1]))
    assert not holds(" ".join(words), ", ".join(words[::-1]))


# What cannot be checked.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["absent"], "absent is no folder"),
        (["in"], "holds no shard"),
        (["set", "--recordings", "absent"], "absent is no folder"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(folder, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("privacy_check: ") and complaint in told


@pytest.mark.parametrize(
    ("name", "content"), [("scan.json", b"{"), ("x.dcm", bytes(128) + b"DICM\2\0\0\0UL\4\0\1")]
)
def test_recordings_whose_identifiers_cannot_be_read_are_told(folder, capsys, name, content):
    (folder / "in" / name).write_bytes(content)
    assert main([str(folder / "set"), "--recordings", str(folder / "in")]) == 2
    assert name in capsys.readouterr().err


def test_what_is_not_pushed_is_not_searched(folder):
    (folder / "set" / ".git").mkdir()
    (folder / "set" / ".git" / "config").write_text(PATIENT)
    assert found(folder) == []
    assert privacy_check.NOT_PUSHED == ".git"
