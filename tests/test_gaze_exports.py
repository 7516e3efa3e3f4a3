"""Gaze from eye trackers' exports: one simulated look in every format, and what does not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_scripts.eyelink_text import read_eyelink
from datasets_scripts.gaze_exports import read_gaze
from datasets_scripts.recording_errors import SidecarError
from datasets_scripts.scan_notes import ScanNotes

# The picture lies here on a screen of 1920 x 1080, and the tracker's clock is this far behind the video's.
SCREEN = (320.0, 180.0, 1600.0, 900.0)
SIZE = np.array([1920, 1080])
SHARES = tuple(np.array(SCREEN) / [*SIZE, *SIZE])
OFFSET_S = -7.25
TIMES_S = 10 + np.arange(40) / 125


def looks(seed: int = 0) -> np.ndarray:
    """(40, 3): time of the tracker, x, y in 0..1 of the screen, all of them seen."""
    return np.column_stack([TIMES_S, np.random.default_rng(seed).uniform(0.05, 0.95, (40, 2))])


def in_video(gaze: np.ndarray) -> np.ndarray:
    """What is to be read of `looks`."""
    left, top, right, bottom = SCREEN
    x, y = gaze[:, 1] * SIZE[0], gaze[:, 2] * SIZE[1]
    return np.column_stack([gaze[:, 0] + OFFSET_S, (x - left) / (right - left), (y - top) / (bottom - top)])


def read(path: Path, text: str | bytes, screen: tuple | None = SCREEN, offset_s: float | None = OFFSET_S):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_gaze(path, "a", ScanNotes(screen=screen, gaze_offset_s=offset_s))


def table(columns: list[str], rows: list[list], separator: str = "\t") -> str:
    return "\n".join(separator.join(map(str, row)) for row in [columns, *rows]) + "\n"


# A writer a format: samples to text. A sample of NaN is one that the tracker lost.


def tobii_lab(gaze: np.ndarray, unit: str = "μs", ticks: float = 1e6, decimal: str = ".") -> str:
    columns = [
        f"Recording timestamp [{unit}]",
        "Sensor",
        "Participant name",
        "Recording name",
        "Event",
        *(f"Gaze point {eye} {axis} [DACS px]" for eye in ("left", "right") for axis in "XY"),
        "Gaze point left X [DACS mm]",
        "Validity left",
        "Validity right",
        "Eye movement type",
    ]
    rows = [[0, "", "P1", "Recording1", "RecordingStart", *[""] * 8]]
    for time_s, x, y in gaze:
        lost = np.isnan(x)
        place = [""] * 4 if lost else [x * 1920 - 3, y * 1080 + 2, x * 1920 + 3, y * 1080 - 2]
        flags = ["Invalid"] * 2 if lost else ["Valid"] * 2
        kind = "EyesNotFound" if lost else "Fixation"
        place = [str(number).replace(".", decimal) for number in place]
        head = [round(time_s * ticks), "Eye Tracker", "P1", "Recording1", ""]
        rows += [[*head, *place, 12.5, *flags, kind], [round(time_s * ticks) + 1, "Mouse", "P1", *[""] * 10]]
    return table(columns, rows)


def tobii_studio(gaze: np.ndarray) -> bytes:
    columns = [
        "RecordingTimestamp",
        "GazePointX (ADCSpx)",
        "GazePointY (ADCSpx)",
        "ValidityLeft",
        "ValidityRight",
    ]
    rows = [
        [round(t * 1000), *(["", "", 4, 4] if np.isnan(x) else [x * 1920, y * 1080, 0, 4])]
        for t, x, y in gaze
    ]
    return ("StudioVersionRec\t3.4.8\n\n" + table(columns, rows)).encode("utf-16")


def gazepoint(gaze: np.ndarray) -> str:
    columns = ["MEDIA_ID", "CNT", "TIME(2024/01/01 10:00:00.000)", "TIMETICK(f=10000000)", "FPOGX", "FPOGY"]
    columns += ["FPOGV", "BPOGX", "BPOGY", "BPOGV", "BKID", ""]
    rows = [
        [0, n, f"{t:.5f}", 0, 0.1, 0.1, 1, *([0, 0, 0, 3] if np.isnan(x) else [x, y, 1, 0]), ""]
        for n, (t, x, y) in enumerate(gaze)
    ]
    return table(columns, rows, ",")


def gazepoint_eyes(gaze: np.ndarray) -> str:
    columns = ["TIME", "LPOGX", "LPOGY", "LPOGV", "RPOGX", "RPOGY", "RPOGV", "BPOGX", "BPOGY", "BPOGV"]
    rows = [
        [t, *([0, 0, 0, 5, 5, 0] if np.isnan(x) else [x - 0.01, y, 1, x + 0.01, y, 1]), 0.3, 0.3, 1]
        for t, x, y in gaze
    ]
    return table(columns, rows, ",")


def pupil_core(gaze: np.ndarray) -> str:
    columns = ["gaze_timestamp", "world_index", "confidence", "norm_pos_x", "norm_pos_y", "base_data"]
    rows = [
        [t, 0, *([0.2, 0.5, 0.5] if np.isnan(x) else [0.98, x, 1 - y]), f"{t}-0 {t}-1"] for t, x, y in gaze
    ]
    return table(columns, rows, ",")


def pupil_surface(gaze: np.ndarray) -> str:
    columns = [
        "world_timestamp",
        "world_index",
        "gaze_timestamp",
        "x_norm",
        "y_norm",
        "on_surf",
        "confidence",
    ]
    rows = [[t, 0, t, x, 1 - y, True, 0.0 if np.isnan(x) else 0.9] for t, x, y in gaze]
    return table(columns, rows, ",")


def neon(gaze: np.ndarray) -> str:
    columns = ["recording id", "timestamp [ns]", "gaze x [px]", "gaze y [px]", "worn", "blink id"]
    rows = [
        ["r", round(t * 1e9), *([7, 7, 1.0, 4] if np.isnan(x) else [x * 1920, y * 1080, 1.0, ""])]
        for t, x, y in gaze
    ]
    return table(columns, rows, ",")


def neon_surface(gaze: np.ndarray) -> str:
    columns = ["timestamp [ns]", "gaze detected on surface", "worn"]
    columns += [f"gaze position on surface {axis} [normalized]" for axis in "xy"]
    rows = [[round(t * 1e9), True, *([0.0, 7, 7] if np.isnan(x) else [1.0, x, y])] for t, x, y in gaze]
    return table(columns, rows, ",")


def smi(gaze: np.ndarray) -> str:
    columns = ["Time", "Type", "Trial", "L POR X [px]", "L POR Y [px]", "R POR X [px]", "R POR Y [px]"]
    rows = [[round(gaze[0, 0] * 1e6), "MSG", 1, "# Message: scan.bmp"]]
    for t, x, y in gaze:
        place = [0.0] * 4 if np.isnan(x) else [x * 1920 - 4, y * 1080, x * 1920 + 4, y * 1080]
        rows.append([round(t * 1e6), "SMP", 1, *(f"{number:.4f}" for number in place)])
    return "## [BeGaze]\n## Sample Rate:\t125\n##\n" + table(columns, rows)


def eyelink(gaze: np.ndarray, eyes: str = "LR") -> str:
    """Two blocks; where samples are lost, a blink, in which the tracker gives places at its beginning."""
    words = " ".join({"L": "LEFT", "R": "RIGHT"}[eye] for eye in eyes)
    head = f"MSG\t1 Patientin M\xfcller\nSTART\t{{}} {words} SAMPLES EVENTS\nPRESCALER 1\n"
    head += f"EVENTS\tGAZE\t{words}\tRATE\t125.00\tTRACKING\tCR\nSAMPLES\tGAZE\t{words}\tRATE\t125.00\n"
    lines, is_closed = ["** CONVERTED FROM a.edf using edfapi 3.1", "**", head.format(1)], False
    for number, (time_s, x, y) in enumerate(gaze):
        time_ms = round(time_s * 1000)
        if np.isnan(x) != is_closed:
            is_closed = not is_closed
            lines += [f"{'S' if is_closed else 'E'}BLINK {eye} {time_ms} 9 9" for eye in eyes]
        shift = {"L": -2, "R": 2} if len(eyes) == 2 else {eyes: 0}
        values = [
            ". . 0.0"
            if is_closed and number % 2
            else f"{x * 1920 + shift[eye]:.4f} {y * 1080:.4f} 512.0"
            if not is_closed
            else "555.0 999.0 200.0"
            for eye in eyes
        ]
        lines.append(f"{time_ms}\t {' '.join(values)}\t.....")
        if number == 19:
            lines += [f"END\t{time_ms} SAMPLES EVENTS RES 1 1", head.format(2)]
    return "\n".join(lines) + "\n"


WRITERS: dict[str, tuple[str, Callable, tuple]] = {
    "tobii_lab": ("gaze.tsv", tobii_lab, SCREEN),
    "tobii_lab_ms": ("gaze.tsv", lambda gaze: tobii_lab(gaze, "ms", 1e3), SCREEN),
    "tobii_lab_comma": ("gaze.tsv", lambda gaze: tobii_lab(gaze, "µs", decimal=","), SCREEN),
    "tobii_studio": ("gaze.txt", tobii_studio, SCREEN),
    "gazepoint": ("gaze.csv", gazepoint, SHARES),
    "gazepoint_eyes": ("gaze.csv", gazepoint_eyes, SHARES),
    "pupil_core": ("gaze.csv", pupil_core, SHARES),
    "pupil_surface": ("gaze.csv", pupil_surface, SHARES),
    "neon": ("gaze.csv", neon, SCREEN),
    "neon_surface": ("gaze.csv", neon_surface, SHARES),
    "smi": ("gaze.txt", smi, SCREEN),
    "eyelink": ("gaze.asc", lambda gaze: eyelink(gaze).encode("latin-1"), SCREEN),
    "eyelink_left": ("gaze.asc", lambda gaze: eyelink(gaze, "L").encode("latin-1"), SCREEN),
    "eyelink_right": ("gaze.asc", lambda gaze: eyelink(gaze, "R").encode("latin-1"), SCREEN),
}
everything = pytest.mark.parametrize("kind", WRITERS)


@everything
def test_every_export_gives_the_same_gaze(tmp_path, kind):
    file, write, screen = WRITERS[kind]
    gaze = looks()
    gaze[12:17, 1:] = np.nan
    found = read(tmp_path / file, write(gaze), screen)
    np.testing.assert_allclose(found, in_video(gaze), atol=2e-6)
    assert found.dtype == np.float64


@everything
def test_without_the_notes_a_tracker_is_refused_and_told_what_to_write(tmp_path, kind):
    file, write, screen = WRITERS[kind]
    with pytest.raises(
        SidecarError, match=r"^a: gaze\.\w+ .*begins at 10\.000 s.*gaze_offset_s.*: -10\.000 if"
    ):
        read(tmp_path / file, write(looks()), screen, None)
    with pytest.raises(SidecarError, match=r"put screen into scan\.json"):
        read(tmp_path / file, write(looks()), None)
    other = SHARES if screen == SCREEN else SCREEN
    with pytest.raises(SidecarError, match=r"places in (pixels|fractions), and screen"):
        read(tmp_path / file, write(looks()), other)


@everything
def test_a_clock_that_starts_anew_is_refused_and_small_steps_back_are_put_in_order(tmp_path, kind):
    file, write, screen = WRITERS[kind]
    gaze = looks()
    gaze[[20, 21]] = gaze[[21, 20]]
    expected = in_video(gaze[np.argsort(gaze[:, 0])])
    np.testing.assert_allclose(read(tmp_path / file, write(gaze), screen), expected, atol=2e-6)
    with pytest.raises(SidecarError, match=r"clock goes back from 10\.312 to 10\.000 s"):
        read(tmp_path / file, write(np.concatenate([looks(), looks()])), screen)


@everything
def test_samples_beside_the_picture_stay_and_lie_beside_it(tmp_path, kind):
    file, write, screen = WRITERS[kind]
    gaze = looks()
    gaze[5, 1:] = (0.02, 0.98)
    x, y = read(tmp_path / file, write(gaze), screen)[5, 1:]
    assert x < 0 and y > 1


# Eyes, validity, rows.


def test_of_two_eyes_those_that_are_valid_count(tmp_path):
    lines = tobii_lab(looks()).split("\n")
    (left, right), number = [lines[2].split("\t")[5:7], lines[2].split("\t")[7:9]], 2
    for flags, expected in (("Valid\tInvalid", left), ("Invalid\tValid", right), ("Invalid\tInvalid", None)):
        changed = lines[number].replace("Valid\tValid", flags)
        found = read(tmp_path / "gaze.tsv", "\n".join([lines[0], changed, *lines[3:]]))[0, 1:]
        if expected is None:
            assert np.isnan(found).all()
        else:
            size = np.array([SCREEN[2] - SCREEN[0], SCREEN[3] - SCREEN[1]])
            np.testing.assert_allclose(found * size + SCREEN[:2], np.array(expected, dtype=float))


@pytest.mark.parametrize(("code", "is_seen"), [(0, True), (1, True), (2, False), (3, False), (4, False)])
def test_studio_codes_of_two_and_above_are_not_trusted(tmp_path, code, is_seen):
    columns = ["RecordingTimestamp", "GazePointLeftX (ADCSpx)", "GazePointLeftY (ADCSpx)", "ValidityLeft"]
    rows = [[1000 + 8 * n, 500, 500, code] for n in range(5)]
    found = read(tmp_path / "gaze.tsv", table(columns, rows))
    assert (~np.isnan(found[:, 1:])).all() == is_seen == (~np.isnan(found[:, 1:])).any()


@pytest.mark.parametrize("ticks", [1e3, 1e6])
@pytest.mark.parametrize("rate_hz", [30, 60, 250, 1000, 1200])
def test_a_time_without_a_unit_is_told_from_the_rate(tmp_path, ticks, rate_hz):
    columns = ["Recording timestamp", "Gaze point X", "Gaze point Y"]
    rows = [[round(n / rate_hz * ticks), 500, 500] for n in range(100)]
    found = read(tmp_path / "gaze.tsv", table(columns, rows), offset_s=0.0)
    np.testing.assert_allclose(found[:, 0], np.arange(100) / rate_hz, atol=0.6e-3)


def test_an_eyelink_blink_closes_its_eye_alone(tmp_path):
    text = "SAMPLES GAZE LEFT RIGHT RATE 500\nSTART 100\n"
    text += "100 10 20 5 30 40 5 .....\nSBLINK L 102\n102 11 21 5 31 41 5 .....\n104 . . 0 32 42 5 C....\n"
    text += "EBLINK L 102 104 4\n106 13 23 5 . . 0 .....\nEND 106\n"
    (tmp_path / "gaze.asc").write_text(text)
    ((times_ms, eyes),) = read_eyelink(tmp_path / "gaze.asc", "a", 100)
    np.testing.assert_array_equal(times_ms, [100, 102, 104, 106])
    nan = [np.nan] * 2
    np.testing.assert_array_equal(eyes[0], [[10, 20], nan, nan, [13, 23]])
    np.testing.assert_array_equal(eyes[1], [[30, 40], [31, 41], [32, 42], nan])


TOBII = ["Recording timestamp [ms]", "Gaze point X", "Gaze point Y", "Eye movement type"]
SMI = ["Time", "Type", "L POR X [px]", "L POR Y [px]", "L Event Info"]


@pytest.mark.parametrize(
    ("columns", "row", "lost", "screen"),
    [
        (TOBII, ["{ms}", 500, 500, "Unclassified"], {3: "EyesNotFound"}, SCREEN),
        (["TIME", "BPOGX", "BPOGY", "BPOGV", "BKID"], ["{s}", 0.5, 0.5, 1, 0], {4: 3}, SHARES),
        (["TIME", "BPOGX", "BPOGY", "BPOGV", "BKID"], ["{s}", 0.5, 0.5, 1, 0], {3: 0}, SHARES),
        (["timestamp [ns]", "gaze x [px]", "gaze y [px]", "blink id"], ["{ns}", 5, 5, ""], {3: 1}, SCREEN),
        (
            ["timestamp [ns]", "gaze x [px]", "gaze y [px]", "worn"],
            ["{ns}", 5, 5, "True"],
            {3: "False"},
            SCREEN,
        ),
        (["gaze_timestamp", "x_norm", "y_norm", "confidence"], ["{s}", 0.5, 0.5, 0.6], {3: 0.59}, SHARES),
        (SMI, ["{us}", "SMP", 500, 500, "Fixation"], {4: "Blink"}, SCREEN),
        (SMI, ["{us}", "SMP", 0, 500, "Fixation"], {3: 0}, SCREEN),
    ],
)
def test_each_mark_of_a_lost_eye_counts_alone(tmp_path, columns, row, lost, screen):
    rows = []
    for number in range(5):
        ticks = {unit: 8 * number * scale for unit, scale in {"ms": 1, "us": 1000, "ns": 10**6}.items()}
        cells = [str(cell).format(**ticks, s=0.008 * number) for cell in row]
        rows.append([lost.get(place, cell) if number == 3 else cell for place, cell in enumerate(cells)])
    found = read(tmp_path / "gaze.txt", table(columns, rows), screen)
    np.testing.assert_array_equal(np.isnan(found[:, 1:]).all(axis=1), [False, False, False, True, False])
    np.testing.assert_array_equal(np.isnan(found[:, 1:]).any(axis=1), [False, False, False, True, False])


# Our own.


def test_our_own_is_read_as_it_is_and_moved_by_an_offset_alone(tmp_path):
    text = "time_s,x,y\n0.5,0.1,0.2\n0.25,,\n0.25,nan,0.3\n"
    expected = np.array([[0.5, 0.1, 0.2], [0.25, np.nan, np.nan], [0.25, np.nan, 0.3]])
    for separator in ",\t;":
        own = text.replace(",", separator)
        np.testing.assert_array_equal(read(tmp_path / "gaze.csv", own, None, None), expected)
    found = read(tmp_path / "gaze.csv", text, None, 2.0)
    np.testing.assert_array_equal(found, expected + np.array([2.0, 0.0, 0.0]))
    with pytest.raises(SidecarError, match="take it out"):
        read(tmp_path / "gaze.csv", text)
    assert read(tmp_path / "gaze.csv", "time_s,x,y\n", None, None).shape == (0, 3)


# What does not fit.


@pytest.mark.parametrize(
    "text", ["when,where\n1,2\n", '{"gaze": [1, 2]}', "\n\n", "a\x00b", "1,2,3\n4,5,6\n"]
)
def test_an_unknown_export_is_named_with_its_columns_and_the_known_ones(tmp_path, text):
    with pytest.raises(SidecarError) as raised:
        read(tmp_path / "gaze.csv", text)
    message = str(raised.value)
    assert message.startswith("a: gaze.csv: its columns (" + text.split("\n")[0].split(",")[0])
    for known in ("time_s, x, y", "Tobii", "EyeLink", "Gazepoint", "Pupil Labs Core", "Neon", "SMI"):
        assert known in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfea", "no CSV text"),
        (b"time_s,x\xe4,y\n", "no CSV text"),
        (table(["TIME", "BPOGX", "BPOGY"], [["0", "0", "0"], ["1s", "0", "0"]], ","), "line 3: TIME is '1s'"),
        (
            table(["TIME", "BPOGX", "BPOGY"], [["0", "left", "0"]], ","),
            "line 2: BPOGX is 'left', not a number",
        ),
        (table(["TIME", "BPOGX", "BPOGY"], [["0", "0"]], ","), "line 2: BPOGY is None"),
        (table(["TIME", "BPOGX", "BPOGY"], [["", "0", "0"]], ","), "line 2: TIME is ''"),
        (table(["TIME", "BPOGX", "BPOGY"], [["inf", "0", "0"]], ","), "line 2: TIME is 'inf', not a time"),
        (table(["TIME", "BPOGX", "BPOGY"], [], ","), "no sample"),
        (table(["TIME", "BPOGX", "BPOGY"], [["0", "0", "0"]], ","), "no tracker's rate"),
        (table(["TIME", "FPOGX", "FPOGY"], [[n, 0, 0] for n in range(5)], ","), "1 s apart.*not fixations"),
        (
            table(
                ["Recording timestamp", "Gaze point X", "Gaze point Y"], [[n * 200, 1, 1] for n in range(5)]
            ),
            "200 apart.*with its unit",
        ),
        (
            tobii_lab(looks()).replace("P1\tRecording1\t\t", "P2\tRecording1\t\t", 1),
            "several by its Participant",
        ),
        ("SAMPLES HREF LEFT RATE 500\n1 2 3 4\n", "not GAZE"),
        ("START 1 LEFT\n1 2 3 4\n", "line 2: no line SAMPLES"),
        ("SAMPLES GAZE LEFT RIGHT\n1 2 3 4 .....\n", "line 2: '1 2 3 4 .....' is no sample of 2 eyes"),
        ("SAMPLES GAZE LEFT\n1 2\n", "no sample of 1 eyes"),
        ("SAMPLES GAZE LEFT\nSBLINK\n", "no sample"),
    ],
)
def test_a_damaged_export_is_refused_by_a_sentence(tmp_path, text, message):
    with pytest.raises(SidecarError, match=message) as raised:
        read(tmp_path / "gaze.txt", text, SHARES)
    assert str(raised.value).startswith("a: gaze.txt")
    assert str(raised.value).endswith(".")


@given(st.sampled_from(list(WRITERS)), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_an_export_with_bytes_changed_or_cut_is_read_or_refused_never_more(tmp_path_factory, kind, seed):
    file, write, screen = WRITERS[kind]
    text, chance = write(looks()), np.random.default_rng(seed)
    data = bytearray(text if isinstance(text, bytes) else text.encode())
    for place in chance.integers(0, len(data), chance.integers(1, 6)):
        data[place] = chance.integers(0, 256)
    data = data[: chance.integers(0, len(data))] if chance.random() < 0.3 else data
    try:
        found = read(tmp_path_factory.getbasetemp() / f"{kind}-{file}", bytes(data), screen)
    except SidecarError as error:
        assert str(error).endswith(".")
    else:
        assert found.shape[1] == 3
        assert np.isfinite(found[:, 0]).all()


def test_a_long_export_is_read_in_parts(tmp_path, monkeypatch):
    for file, text in (("gaze.tsv", tobii_lab(looks())), ("gaze.asc", eyelink(looks()))):
        monkeypatch.undo()
        whole = read(tmp_path / file, text)
        monkeypatch.setattr("datasets_scripts.gaze_exports.ROWS_AT_ONCE", 7)
        np.testing.assert_array_equal(read(tmp_path / file, text), whole)
