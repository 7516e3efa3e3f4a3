"""A DICOM file holds as many frames as its header says, or it is refused."""

from pathlib import Path

import pytest
from pydicom import uid
from tiny_cines import GREY, grey_cine, header, jpeg, jpeg_2000, pictures_of, write_coded

from datasets_scripts import recording_errors as errors

CODED = {
    "plain": None,
    "jpeg": (uid.JPEGBaseline8Bit, jpeg),
    "jpeg_2000": (uid.JPEG2000Lossless, jpeg_2000),
}


def coded_cine(path: Path, form: str, **elements: object) -> Path:
    if CODED[form] is None:
        return grey_cine(path, **elements)
    syntax, encode = CODED[form]
    cine = header(syntax, "MONOCHROME2", **elements)
    return write_coded(path, cine, [encode(picture) for picture in GREY])


@pytest.mark.parametrize("form", CODED)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.99])
def test_a_cine_cut_short_anywhere_is_never_a_cine(tmp_path, form, share):
    whole = coded_cine(tmp_path / "whole.dcm", form).read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(errors.TruncatedError, match=r"cut\.dcm.*cut short.*3 frames"):
        pictures_of(path)


@pytest.mark.parametrize("form", CODED)
def test_frames_that_the_header_does_not_count_are_not_dropped(tmp_path, form):
    path = coded_cine(tmp_path / "x.dcm", form, NumberOfFrames=2)
    with pytest.raises(errors.DamagedError, match="says 2 frames and the file holds 3"):
        pictures_of(path)


@pytest.mark.parametrize("form", CODED)
def test_frames_that_the_header_makes_up_are_missed(tmp_path, form):
    path = coded_cine(tmp_path / "x.dcm", form, NumberOfFrames=2_000_000_000)
    with pytest.raises(errors.TruncatedError, match="only 3 of its 2000000000 frames"):
        pictures_of(path)


def test_files_that_hold_no_pixels_are_named(tmp_path):
    cine = header(uid.ExplicitVRLittleEndian, "MONOCHROME2")
    cine.save_as(tmp_path / "bare.dcm", enforce_file_format=True)
    del cine.Rows
    cine.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    for name in ("bare.dcm", "report.dcm"):
        with pytest.raises(errors.EmptyRecordingError, match=f"{name}.*no pixels"):
            pictures_of(tmp_path / name)
