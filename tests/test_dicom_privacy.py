"""Of a DICOM file the pixels and their times come into a set; no tag that tells of a patient does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from test_recordings import write_cine

from datasets_scripts.clips import ClipParameters
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.prepare_gaze import GazeParameters, prepare_gaze
from datasets_scripts.prepare_planes import PlaneParameters, prepare_planes
from datasets_scripts.privacy_check import main as privacy_check

FRAMES, FRAME_MS = 60, 50
# A value of every kind that names somebody, some place, some machine or some day; none stands elsewhere.
TAGS = {
    "PatientName": "Haversham^Ottilie^^Dr",
    "PatientID": "PID-7741-XK",
    "OtherPatientIDs": "OPID-5512-QZ",
    "PatientBirthDate": "19870423",
    "PatientBirthName": "Winterbourne^Ottilie",
    "PatientMotherBirthName": "Quillfeather^Agnes",
    "PatientAge": "036Y",
    "PatientWeight": "61.739",
    "PatientAddress": "17 Larkspur Crescent",
    "PatientTelephoneNumbers": "+44 7700 900461",
    "PatientComments": "twin pregnancy, anxious",
    "EthnicGroup": "Sorbian",
    "AdditionalPatientHistory": "previous caesarean",
    "InstitutionName": "Saint Wendreda Infirmary",
    "InstitutionAddress": "Fenland Row 3",
    "InstitutionalDepartmentName": "Antenatal Ward 9",
    "ReferringPhysicianName": "Okonkwo^Chidi",
    "OperatorsName": "Lindqvist^Signe",
    "PerformingPhysicianName": "Moreau^Lea",
    "StationName": "USROOM-4417",
    "Manufacturer": "Sonocorp",
    "ManufacturerModelName": "Echowave 7300",
    "DeviceSerialNumber": "SN-88213-T",
    "SoftwareVersions": "EW7.3.19b",
    "ProtocolName": "Anomaly Scan Fenland",
    "StudyDate": "20260214",
    "SeriesDate": "20260215",
    "ContentDate": "20260216",
    "AcquisitionDateTime": "20260217101112.131415",
    "StudyTime": "091723.456",
    "StudyDescription": "Second trimester anomaly",
    "SeriesDescription": "Cine of the heart, left",
    "ImageComments": "patient moved",
    "AccessionNumber": "ACC-00917",
    "StudyID": "ST-66120",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.7391",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.7392",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.7393",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.7394",
}
PRIVATE, NESTED = "private note on Haversham", "Grimsditch^Nora"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Clips, frames with planes and frames with gaze of one cine that is full of such tags."""
    folder = tmp_path_factory.mktemp("dicom")
    scan = folder / "recordings" / "0001"
    scan.mkdir(parents=True)
    file = write_cine(scan / "scan.dcm", FRAMES, FrameTime=FRAME_MS, **TAGS)
    cine = pydicom.dcmread(file)
    cine.private_block(0x0099, "EXAMPLE", create=True).add_new(1, "LO", PRIVATE)
    request = pydicom.Dataset()
    request.RequestingPhysician = NESTED
    cine.RequestAttributesSequence = [request]
    cine.file_meta.MediaStorageSOPInstanceUID = TAGS["SOPInstanceUID"]
    cine.preamble = PRIVATE.encode().ljust(128, b"\0")
    cine.save_as(file)
    (scan / "planes.csv").write_text("start_s,end_s,label\n0,2,femur\n")
    gaze = "".join(f"{place / 60:.4f},0.5,0.5\n" for place in range(180))
    (scan / "gaze.csv").write_text("time_s,x,y\n" + gaze)
    recordings, output = folder / "recordings", folder / "set"
    prepare_clips(recordings, output, ClipParameters(2.0, frames_per_clip=4, frame_size=16), workers=1)
    prepare_planes(recordings, output, PlaneParameters(frame_size=16), workers=1)
    prepare_gaze(recordings, output, GazeParameters(frame_size=16), workers=1)
    return output


def values_of(value: object) -> Iterator[bytes]:
    """Every text and every run of bytes within a value of a shard."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from values_of(each)
    elif value is not None:
        yield value if isinstance(value, bytes) else str(value).encode()


def contents_of(output: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file of a set, of each value uncompressed, and of its shards' metadata."""
    for path in sorted(each for each in output.rglob("*") if each.is_file()):
        yield path.name, path.name.encode() + path.read_bytes()
        if path.suffix == ".parquet":
            shard = pq.ParquetFile(path)
            for metadata in (shard.metadata.metadata, shard.schema_arrow.metadata):
                yield path.name, b"\n".join(part for pair in (metadata or {}).items() for part in pair)
            for batch in shard.iter_batches():
                for value in values_of(pa.Table.from_batches([batch]).to_pylist()):
                    yield path.name, value


def forms_of(value: str) -> Iterator[bytes]:
    """A value as it stands in the tag, and its parts and other ways to write it."""
    yield value.encode()
    yield value.encode("utf-16-le")
    for part in value.replace("^", " ").split():
        if len(part) > 4 and not part.islower():
            yield part.encode()
    if len(value) == 8 and value.isdecimal():
        yield f"{value[:4]}-{value[4:6]}-{value[6:]}".encode()


def test_no_value_of_a_tag_is_anywhere_in_the_set(prepared):
    planted = {keyword: list(forms_of(value)) for keyword, value in TAGS.items()}
    planted |= {"private": list(forms_of(PRIVATE)), "nested": list(forms_of(NESTED))}
    read = list(contents_of(prepared))
    assert sum(name.endswith(".parquet") for name, _ in read) > 100, "rows of three configurations"
    told = {
        (keyword, name)
        for name, raw in read
        for keyword in planted
        for form in planted[keyword]
        if form in raw
    }
    assert told == set()


def test_the_values_would_be_found(prepared, tmp_path):
    """The same search finds what is carried: a tag in a column, in metadata, and in the end of a picture."""
    table = pq.read_table(next(prepared.rglob("*.parquet")))
    table = table.append_column("who", pa.array([TAGS["PatientName"]] * len(table)))
    table = table.replace_schema_metadata({"from": TAGS["StationName"]})
    table = table.append_column("picture", pa.array([b"\xff\xd8" + NESTED.encode()] * len(table)))
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "info.json").write_text(json.dumps({"made": TAGS["StudyDate"]}))
    whole = b"".join(raw for _, raw in contents_of(tmp_path))
    for value in (TAGS["PatientName"], TAGS["StationName"], NESTED, TAGS["StudyDate"]):
        assert value.encode() in whole


def test_the_privacy_check_is_content(prepared, capsys):
    recordings = prepared.parent / "recordings"
    command = [str(prepared), "--recordings", str(recordings), "--text-on-frames", "skip"]
    assert privacy_check(command) == 0, capsys.readouterr().out
