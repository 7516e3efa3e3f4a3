"""DICOM cines in every form of pixels, written here from a known picture, and what their headers say."""

from fractions import Fraction

import av
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels import convert_color_space, get_decoder
from tiny_cines import (
    COLOURED,
    FRAMES,
    GREY,
    assert_pictures,
    grey_cine,
    grey_picture,
    header,
    jpeg,
    jpeg_2000,
    pictures_of,
    write,
    write_coded,
)

from datasets_scripts import recording_errors as errors
from datasets_scripts.dicom_cine import cine_frames, cine_start, sampled_cine_frames
from datasets_scripts.recordings import RecordingFiles, open_recording

# Uncompressed.

PLAIN = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big_endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
}


@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("planar", [0, 1], ids=["by_pixel", "by_plane"])
def test_uncompressed_colour_is_read_as_it_was_written(tmp_path, syntax, planar):
    order = (0, 1, 2) if planar == 0 else (2, 0, 1)
    pixels = np.stack([picture.transpose(order) for picture in COLOURED])
    cine = header(syntax, "RGB", PlanarConfiguration=planar)
    assert_pictures(write(tmp_path / "x.dcm", cine, pixels.tobytes()), COLOURED)


@pytest.mark.parametrize("syntax", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("bits", [12, 16])
def test_deep_grey_is_scaled_by_the_bits_stored(tmp_path, syntax, bits):
    pictures = [grey_picture(number, bits) for number in range(FRAMES)]
    order = ">u2" if syntax == uid.ExplicitVRBigEndian else "<u2"
    path = write(
        tmp_path / "x.dcm", header(syntax, "MONOCHROME2", bits), np.stack(pictures).astype(order).tobytes()
    )
    assert_pictures(path, [np.round(picture * (255 / (2**bits - 1))) for picture in pictures])


def test_deep_colour_is_scaled_by_the_bits_stored(tmp_path):
    pixels = np.stack(COLOURED).astype("<u2") << 4
    cine = header(uid.ExplicitVRLittleEndian, "RGB", 12)
    assert_pictures(write(tmp_path / "x.dcm", cine, pixels.tobytes()), COLOURED)


def test_a_full_ybr_picture_becomes_rgb(tmp_path):
    ybr = np.stack([convert_color_space(picture, "RGB", "YBR_FULL") for picture in COLOURED])
    path = write(tmp_path / "x.dcm", header(uid.ExplicitVRLittleEndian, "YBR_FULL"), ybr.tobytes())
    assert_pictures(path, COLOURED, tolerance=2)


def test_a_ybr_picture_with_half_of_its_colours_becomes_rgb(tmp_path):
    ybr = np.stack([convert_color_space(picture, "RGB", "YBR_FULL") for picture in COLOURED])
    first, second = ybr[:, :, 0::2], ybr[:, :, 1::2]
    halved = np.stack([first[..., 0], second[..., 0], first[..., 1], first[..., 2]], axis=-1)
    cine = header(uid.ExplicitVRLittleEndian, "YBR_FULL_422")
    assert_pictures(write(tmp_path / "x.dcm", cine, halved.tobytes()), COLOURED, tolerance=10)


def test_monochrome_1_is_dark_where_its_numbers_are_high(tmp_path):
    path = write(
        tmp_path / "x.dcm", header(uid.ExplicitVRLittleEndian, "MONOCHROME1"), np.stack(GREY).tobytes()
    )
    assert_pictures(path, [255 - picture for picture in GREY])


@pytest.mark.parametrize("bits", [8, 12])
def test_signed_grey_begins_at_its_lowest_number(tmp_path, bits):
    pictures = [grey_picture(number, bits) for number in range(FRAMES)]
    dtype = "i1" if bits == 8 else "<i2"
    signed = (np.stack(pictures).astype(int) - 2 ** (bits - 1)).astype(dtype)
    cine = header(uid.ExplicitVRLittleEndian, "MONOCHROME2", bits, PixelRepresentation=1)
    path = write(tmp_path / "x.dcm", cine, signed.tobytes())
    assert_pictures(path, [np.round(picture * (255 / (2**bits - 1))) for picture in pictures])


def test_what_old_files_keep_in_the_unused_bits_is_no_brightness(tmp_path):
    pixels = np.stack([grey_picture(number, 12) for number in range(FRAMES)])
    overlaid = (pixels | 0x8000).astype("<u2")
    path = write(
        tmp_path / "x.dcm", header(uid.ExplicitVRLittleEndian, "MONOCHROME2", 12), overlaid.tobytes()
    )
    assert_pictures(path, [np.round(picture * (255 / 4095)) for picture in pixels])


def test_a_window_shows_what_lies_within_it(tmp_path):
    """PS3.3, C.11.2.1.2.1: from centre - 0.5 - (width - 1) / 2 to as much above, after the rescaling."""
    pictures = [grey_picture(number, 12) for number in range(FRAMES)]
    rescaling = {"RescaleSlope": 2, "RescaleIntercept": -100, "RescaleType": "US"}
    cine = header(
        uid.ExplicitVRLittleEndian, "MONOCHROME2", 12, WindowCenter=2000, WindowWidth=1001, **rescaling
    )
    path = write(tmp_path / "x.dcm", cine, np.stack(pictures).astype("<u2").tobytes())
    shown = [
        np.clip(((2.0 * picture - 100 - 1999.5) / 1000 + 0.5) * 255, 0, 255).round() for picture in pictures
    ]
    assert_pictures(path, shown, tolerance=1)


def palette(entry_bits: int, upper_byte: bool = True) -> dict[str, object]:
    """A palette whose entry i is (i, 255 - i, i // 2)."""
    entries = np.arange(256)
    elements = {}
    for colour, values in (("Red", entries), ("Green", 255 - entries), ("Blue", entries // 2)):
        values = (values << 8 if upper_byte and entry_bits == 16 else values).astype(
            "<u2" if entry_bits == 16 else "u1"
        )
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, entry_bits]
        elements[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
    return elements


@pytest.mark.parametrize(("entry_bits", "upper_byte"), [(8, True), (16, True), (16, False)])
def test_a_palette_gives_its_colours(tmp_path, entry_bits, upper_byte):
    cine = header(uid.ExplicitVRLittleEndian, "PALETTE COLOR", **palette(entry_bits, upper_byte))
    path = write(tmp_path / "x.dcm", cine, np.stack(GREY).tobytes())
    assert_pictures(path, [np.stack([grey, 255 - grey, grey // 2], axis=-1) for grey in GREY])


# Compressed.


def jpeg_ls(picture: np.ndarray) -> bytes:
    """By FFmpeg, whose encoder is an independent one."""
    height, width = picture.shape[:2]
    encoder = av.CodecContext.create("jpegls", "w")
    encoder.width, encoder.height, encoder.time_base = width, height, Fraction(1, 25)
    encoder.pix_fmt = "rgb24" if picture.ndim == 3 else "gray" if picture.dtype == np.uint8 else "gray16le"
    frame = av.VideoFrame.from_ndarray(picture, format=encoder.pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def lossless_jpeg(picture: np.ndarray, bits: int) -> bytes:
    """Process 14, selection value 1 (ITU-T T.81, annex H): differences to the left, codes of 5 bit."""
    height, width = picture.shape
    values = picture.astype(int)
    left = np.empty_like(values)
    left[:, 1:], left[1:, 0], left[0, 0] = values[:, :-1], values[:-1, 0], 2 ** (bits - 1)
    text = []
    for difference in (((values - left + 32768) % 65536) - 32768).ravel().tolist():
        length = abs(difference).bit_length()
        text.append(f"{length:05b}")
        if 0 < length < 16:
            text.append(f"{difference if difference > 0 else difference + 2**length - 1:0{length}b}")
    coded = "".join(text)
    coded += "1" * (-len(coded) % 8)
    scan = int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\x00")
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    frame = b"\xff\xc3\x00\x0b" + bytes([bits]) + size + b"\x01\x01\x11\x00"
    table = (
        b"\xff\xc4" + (2 + 1 + 16 + 17).to_bytes(2, "big") + bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    )
    return b"\xff\xd8" + frame + table + b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + scan + b"\xff\xd9"


def needs(syntax: uid.UID) -> None:
    if not get_decoder(syntax).is_available:
        pytest.skip(f"no decoder for {syntax.name} is installed")


@pytest.mark.parametrize("subsampling", [0, 1], ids=["444", "422"])
def test_baseline_jpeg_in_colour_is_read(tmp_path, subsampling):
    colour = ("YBR_FULL", "YBR_FULL_422")[subsampling]
    coded = [jpeg(picture, subsampling=subsampling) for picture in COLOURED]
    assert_pictures(
        write_coded(tmp_path / "x.dcm", header(uid.JPEGBaseline8Bit, colour), coded), COLOURED, 10
    )


def test_baseline_jpeg_of_rgb_is_read(tmp_path):
    coded = [jpeg(picture, keep_rgb=True) for picture in COLOURED]
    assert_pictures(write_coded(tmp_path / "x.dcm", header(uid.JPEGBaseline8Bit, "RGB"), coded), COLOURED, 10)


def test_baseline_jpeg_that_calls_itself_rgb_and_is_not_is_read(tmp_path):
    """Some machines name the colours of the screen in the header and code YCbCr, as JFIF files do."""
    coded = [jpeg(picture, subsampling=0) for picture in COLOURED]
    assert_pictures(write_coded(tmp_path / "x.dcm", header(uid.JPEGBaseline8Bit, "RGB"), coded), COLOURED, 10)


def test_baseline_jpeg_in_grey_is_read(tmp_path):
    coded = [jpeg(picture) for picture in GREY]
    assert_pictures(
        write_coded(tmp_path / "x.dcm", header(uid.JPEGBaseline8Bit, "MONOCHROME2"), coded), GREY, 6
    )


@pytest.mark.parametrize("has_table", [True, False], ids=["offsets", "no_offsets"])
@pytest.mark.parametrize("fragments", [1, 3])
def test_frames_in_pieces_with_and_without_a_table_of_offsets(tmp_path, has_table, fragments):
    coded = [jpeg(picture) for picture in GREY]
    cine = header(uid.JPEGBaseline8Bit, "MONOCHROME2")
    path = write_coded(tmp_path / "x.dcm", cine, coded, has_bot=has_table, fragments_per_frame=fragments)
    assert_pictures(path, GREY, 6)


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1], ids=["any", "first"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_is_read_exactly(tmp_path, syntax, bits):
    needs(syntax)
    pictures = [grey_picture(number, bits) for number in range(FRAMES)]
    path = write_coded(
        tmp_path / "x.dcm",
        header(syntax, "MONOCHROME2", bits),
        [lossless_jpeg(picture, bits) for picture in pictures],
    )
    assert_pictures(path, [np.round(picture * (255 / (2**bits - 1))) for picture in pictures])


@pytest.mark.parametrize("bits", [8, 16])
def test_jpeg_ls_in_grey_is_read_exactly(tmp_path, bits):
    needs(uid.JPEGLSLossless)
    pictures = [grey_picture(number, bits) for number in range(FRAMES)]
    cine = header(uid.JPEGLSLossless, "MONOCHROME2", bits)
    path = write_coded(tmp_path / "x.dcm", cine, [jpeg_ls(picture) for picture in pictures])
    assert_pictures(path, [np.round(picture * (255 / (2**bits - 1))) for picture in pictures])


def test_jpeg_ls_in_colour_is_read_exactly(tmp_path):
    needs(uid.JPEGLSLossless)
    coded = [jpeg_ls(picture) for picture in COLOURED]
    assert_pictures(write_coded(tmp_path / "x.dcm", header(uid.JPEGLSLossless, "RGB"), coded), COLOURED)


def test_jpeg_2000_in_colour_is_read_exactly(tmp_path):
    coded = [jpeg_2000(picture) for picture in COLOURED]
    assert_pictures(write_coded(tmp_path / "x.dcm", header(uid.JPEG2000Lossless, "YBR_RCT"), coded), COLOURED)


@pytest.mark.parametrize("bits", [8, 16])
def test_jpeg_2000_in_grey_is_read_exactly(tmp_path, bits):
    pictures = [grey_picture(number, bits) for number in range(FRAMES)]
    cine = header(uid.JPEG2000Lossless, "MONOCHROME2", bits)
    path = write_coded(tmp_path / "x.dcm", cine, [jpeg_2000(picture) for picture in pictures])
    assert_pictures(path, [np.round(picture * (255 / (2**bits - 1))) for picture in pictures])


@pytest.mark.parametrize("form", ["colour", "grey", "deep", "palette"])
def test_rle_is_read_exactly(tmp_path, form):
    deep = [grey_picture(number, 16) for number in range(FRAMES)]
    extra = palette(16)
    colour, bits, pictures, expected, elements = {
        "colour": ("RGB", 8, COLOURED, COLOURED, {}),
        "grey": ("MONOCHROME2", 8, GREY, GREY, {}),
        "deep": ("MONOCHROME2", 16, deep, [np.round(picture / 257) for picture in deep], {}),
        "palette": (
            "PALETTE COLOR",
            8,
            GREY,
            [np.stack([grey, 255 - grey, grey // 2], axis=-1) for grey in GREY],
            extra,
        ),
    }[form]
    cine = header(uid.ExplicitVRLittleEndian, colour, bits, **elements)
    cine.PixelData = np.stack(pictures).tobytes()
    cine["PixelData"].VR = "OB" if bits == 8 else "OW"
    cine.compress(uid.RLELossless)
    cine.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    assert_pictures(tmp_path / "x.dcm", expected)


def test_pixels_without_a_decoder_name_the_package_that_brings_one(tmp_path, monkeypatch):
    path = write_coded(
        tmp_path / "x.dcm",
        header(uid.JPEGLosslessSV1, "MONOCHROME2"),
        [lossless_jpeg(picture, 8) for picture in GREY],
    )
    monkeypatch.setattr(pydicom.pixels.decoders.base.Decoder, "is_available", False)
    with pytest.raises(errors.DicomError, match=r"x\.dcm.*JPEG Lossless.*pip install python-gdcm"):
        pictures_of(path)


def test_a_video_inside_a_dicom_file_is_named(tmp_path):
    path = write_coded(tmp_path / "x.dcm", header(uid.MPEG4HP41, "YBR_FULL_422"), [b"\0" * 64])
    with pytest.raises(errors.DicomError, match=r"MPEG-4.*export the cine as mp4"):
        pictures_of(path)


# Time and scale.


@pytest.mark.parametrize(
    ("elements", "times"),
    [
        ({"FrameTime": 50, "CineRate": 1}, [0.0, 0.05, 0.1]),
        ({"FrameTime": None, "FrameTimeVector": [0, 40, 100]}, [0.0, 0.04, 0.14]),
        ({"FrameTime": None, "FrameTimeVector": [40, 40, 100]}, [0.0, 0.04, 0.14]),
        ({"FrameTime": None, "FrameTimeVector": [40, 100]}, [0.0, 0.04, 0.14]),
        (
            {"FrameTime": 50, "FrameTimeVector": [0, 40, 100], "FrameIncrementPointer": 0x00181065},
            [0, 0.04, 0.14],
        ),
        (
            {"FrameTime": 50, "FrameTimeVector": [0, 40, 100], "FrameIncrementPointer": 0x00181063},
            [0, 0.05, 0.1],
        ),
        ({"FrameTime": 0, "CineRate": 25}, [0.0, 0.04, 0.08]),
        ({"FrameTime": None, "CineRate": 25, "RecommendedDisplayFrameRate": 1}, [0.0, 0.04, 0.08]),
        ({"FrameTime": None, "RecommendedDisplayFrameRate": 25}, [0.0, 0.04, 0.08]),
    ],
)
def test_times_come_from_each_of_the_elements(tmp_path, elements, times):
    path = grey_cine(tmp_path / "x.dcm", **elements)
    assert [frame.time_s for frame in cine_frames(path, "x")] == pytest.approx(times)
    assert [frame.time_s for frame in sampled_cine_frames(path, "x", 5)] == pytest.approx(times)


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ({"FrameTime": None}, "neither FrameTime nor CineRate"),
        ({"FrameTime": 40_000}, "frame times do not fit"),
        ({"FrameTime": -40}, "neither FrameTime nor CineRate"),
        (
            {"FrameTime": None, "FrameTimeVector": [0, 40, 40, 40, 40]},
            "frame times do not fit a cine of 3 frames",
        ),
        ({"FrameTime": None, "FrameTimeVector": [0, 40, 0]}, "frame times do not fit"),
    ],
)
def test_a_cine_without_its_times_is_named(tmp_path, elements, sentence):
    with pytest.raises(errors.DicomError, match=rf"x\.dcm.*{sentence}"):
        pictures_of(grey_cine(tmp_path / "x.dcm", **elements))


def test_a_single_picture_needs_no_times(tmp_path):
    cine = header(uid.ExplicitVRLittleEndian, "RGB", frames=1, FrameTime=None)
    del cine.NumberOfFrames
    path = write(tmp_path / "x.dcm", cine, COLOURED[0].tobytes())
    assert_pictures(path, COLOURED[:1])


def region(x_mm: float, y_mm: float, width: int, spatial_format: int = 1, units: int = 3):
    one = pydicom.Dataset()
    one.RegionSpatialFormat, one.PhysicalUnitsXDirection, one.PhysicalUnitsYDirection = (
        spatial_format,
        units,
        units,
    )
    one.PhysicalDeltaX, one.PhysicalDeltaY = x_mm / 10, y_mm / 10
    one.RegionLocationMinX0, one.RegionLocationMinY0 = 0, 0
    one.RegionLocationMaxX1, one.RegionLocationMaxY1 = width, 20
    return one


def test_pixel_spacing_is_that_of_the_largest_picture_region(tmp_path):
    regions = [
        region(0.9, 0.9, 10),
        region(0.25, -0.5, 30),
        region(0.1, 0.1, 40, spatial_format=2),
        region(0.1, 0.1, 40, units=4),
    ]
    path = grey_cine(tmp_path / "x.dcm", SequenceOfUltrasoundRegions=regions, PixelSpacing=[3, 4])
    assert cine_start(path, "x").pixel_spacing_mm == pytest.approx((0.5, 0.25))
    assert cine_start(grey_cine(tmp_path / "y.dcm", PixelSpacing=[3, 4]), "y").pixel_spacing_mm == (3, 4)
    assert cine_start(grey_cine(tmp_path / "z.dcm"), "z").pixel_spacing_mm is None


def test_the_notes_know_the_spacing_better(tmp_path):
    path = grey_cine(tmp_path / "x.dcm", SequenceOfUltrasoundRegions=[region(0.25, 0.5, 30)])
    notes = tmp_path / "scan.json"
    for text, spacing in (("{}", (0.5, 0.25)), ('{"pixel_spacing_mm": 0.1}', (0.1, 0.1))):
        notes.write_text(text)
        recording = open_recording(RecordingFiles("x", path, notes=notes))
        assert recording.pixel_spacing_mm == pytest.approx(spacing)


# What bad input gets.


@pytest.mark.parametrize(
    ("elements", "error", "sentence"),
    [
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, errors.DicomError, "8 bit YBR_PARTIAL_420"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, errors.DicomError, "32 bit MONOCHROME2"),
        ({"HighBit": 5}, errors.DicomError, "are not read"),
        ({"Rows": 60_000, "Columns": 60_000}, errors.DamagedError, "60000 x 60000"),
    ],
)
def test_forms_that_are_not_read_are_named(tmp_path, elements, error, sentence):
    with pytest.raises(error, match=rf"x\.dcm.*{sentence}"):
        pictures_of(grey_cine(tmp_path / "x.dcm", **elements))


def test_a_warning_never_quotes_the_header(tmp_path, recwarn):
    cine = header(uid.ExplicitVRLittleEndian, "MONOCHROME2")
    path = write(tmp_path / "x.dcm", cine, np.stack(GREY).tobytes())
    data = path.read_bytes().replace(b"\x28\x00\x08\x00IS\x02\x003 ", b"\x28\x00\x08\x00IS\x02\x003!")
    path.write_bytes(data)
    with pytest.raises(errors.RecordingError):
        pictures_of(path)
    assert not [warning for warning in recwarn if "3!" in str(warning.message)]


@pytest.mark.media
def test_real_dicom_files_are_read(media):
    folder = media / "ultrasound_dicom"
    sizes = {path.name: pictures_of(path)[0].shape for path in sorted(folder.glob("*.dcm"))}
    assert sizes == {
        "ExplVR_BigEnd.dcm": (60, 80, 3),
        "examples_jpeg2k.dcm": (480, 640, 3),
        "examples_palette.dcm": (350, 800, 3),
        "examples_rgb_color.dcm": (240, 320, 3),
        "examples_ybr_color.dcm": (240, 320, 3),
    }
    assert cine_start(folder / "examples_ybr_color.dcm", "x").pixel_spacing_mm == pytest.approx(
        (0.5105, 0.5105), abs=1e-4
    )
