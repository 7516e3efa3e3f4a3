"""Find the recordings in a folder, and tell of every other file why it is none.

A scan's folder holds a video and its companions; in a folder without companions each video is a scan of its
own. Names lie: a DICOM file often has no suffix, or the end of a UID for one, so files that no suffix tells
are looked into. Nothing is passed over in silence but what is known to hold no scan. A folder or file that
links lead to again is read once: under two names, a scan could lie on both sides of the split.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from datasets_scripts.dicom_cine import is_dicom

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".avi", ".divx", ".mkv", ".mk3d", ".webm", ".wmv", ".asf", ".flv"}
    | {".f4v", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".mpv", ".m2p", ".vob", ".mod", ".ts", ".mts"}
    | {".m2ts", ".trp", ".mxf", ".dv", ".3gp", ".3g2", ".ogv", ".ogm", ".rm", ".rmvb", ".nut", ".ivf"}
    | {".y4m", ".mjpg", ".mjpeg", ".h264", ".264", ".h265", ".265", ".hevc", ".av1", ".obu", ".gif"}
    | {".dcm", ".dicom"}
)
SOUND_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".opus", ".ogg", ".m4a", ".aac", ".wma"})
PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif"}
    | {".jp2", ".j2k", ".pgm", ".ppm", ".pnm", ".tga"}
)

GAZE_FILE, PLANES_FILE, NOTES_FILE = "gaze.csv", "planes.csv", "scan.json"
# Exports of eye trackers as `gaze_exports` reads them.
GAZE_FILES = frozenset({GAZE_FILE, "gaze.tsv", "gaze.txt", "gaze.asc", "gaze.json"})
# What lies in folders of recordings and is no scan: the simulator's remarks, the index of a DICOM medium,
# what file managers leave, and what people write about the files.
KNOWN_FILES = frozenset({"remarks.csv", "dicomdir", "thumbs.db", "desktop.ini"})
ABOUT_FILES = re.compile(
    r"(readme|licen[cs]e|notice|copying|changelog|citation)[^.]*(\.(txt|md|rst|html|cff))?"
)


@dataclass(frozen=True)
class RecordingFiles:
    """The files of one recording; `name` is its path below the folder of recordings.

    `video` is None where a folder holds none, or several of which none is named `scan`. `ambiguous` are files
    of which there may be one and are several; such a recording is not opened. `no_recording` says why a file
    is none, and `unreadable` why a folder cannot be looked into: there is nothing to open in these.
    """

    name: str
    video: Path | None
    sound: Path | None = None
    gaze: Path | None = None
    planes: Path | None = None
    notes: Path | None = None
    ambiguous: tuple[Path, ...] = ()
    no_recording: str = ""
    unreadable: str = ""


def find_recordings(folder: Path) -> list[RecordingFiles]:
    """All recordings below a folder, in the order of their names; those that cannot be read are among them.

    Raises:
        NotADirectoryError: `folder` is no folder.
    """
    return [files for files in find_all_files(folder) if not files.no_recording]


def find_all_files(folder: Path) -> list[RecordingFiles]:
    """As `find_recordings`, and among them every other file, with the reason in `no_recording`.

    Left out are hidden files, the companions of scans, and such as READMEs and licences.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; name the folder that holds the recordings.")
    return list(_Search(folder).below(folder))


class _Search:
    """A walk over a folder that comes to no folder, and no recording, twice."""

    def __init__(self, root: Path):
        self._root = root
        # What lies here itself goes before links to it, whatever their names: a link that is added later
        # must not rename a scan.
        self._first_names: dict[str, str] = {}
        for parent, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(parent), *(Path(parent, name) for name in files)):
                if path == root or not (path.is_symlink() or path.name.startswith(".")):
                    self._first_names[os.path.realpath(path)] = self._name(path)

    def below(self, folder: Path) -> Iterator[RecordingFiles]:
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            if folder == self._root:
                raise
            yield RecordingFiles(self._name(folder), None, unreadable=error.strerror or str(error))
            return
        # Unlike those of Path, these raise nothing where even the kind of an entry may not be read.
        folders = [entry for entry in entries if os.path.isdir(entry)]
        files = [entry for entry in entries if not os.path.isdir(entry)]
        if any(map(_is_companion, files)):
            yield from self._of_a_scan(folder, files)
        elif not entries and folder != self._root:
            yield RecordingFiles(self._name(folder), video=None)
        else:
            yield from self._each_by_itself(files)
        for entry in folders:
            first = self._first_name(entry)
            if first is None:
                yield from self.below(entry)
            else:
                of = "the folder of all" if first == "." else first
                yield self._no_recording(entry, f"it is a link to {of}, whose scans are read there")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path != self._root else "."

    def _first_name(self, path: Path) -> str | None:
        """Under what other name the folder or file is read; None where it is read under this one."""
        first = self._first_names.setdefault(os.path.realpath(path), self._name(path))
        return None if first == self._name(path) else first

    def _no_recording(self, path: Path, reason: str) -> RecordingFiles:
        return RecordingFiles(self._name(path), None, no_recording=reason)

    def _each_by_itself(self, files: list[Path]) -> Iterator[RecordingFiles]:
        for file in filter(_may_be_a_scan, files):
            first = self._first_name(file)
            if first is not None:
                yield self._no_recording(file, f"it is a link to {first}, which is read under that name")
            elif _is_video(file) or file.suffix.lower() in SOUND_SUFFIXES:
                yield RecordingFiles(self._name(file), video=file)
            else:
                yield self._no_recording(file, _why_none(file))

    def _of_a_scan(self, folder: Path, files: list[Path]) -> Iterator[RecordingFiles]:
        videos = [file for file in files if not _is_companion(file) and _is_video(file)]
        named_scan = [file for file in videos if file.stem == "scan"]
        chosen = named_scan if len(named_scan) == 1 else videos
        scan = _scan(self._name(folder), chosen[0] if len(chosen) == 1 else None, files)
        first = scan.video and self._first_name(scan.video)
        reason = f"its video is a link to {first}, which is read under that name" if first else ""
        yield replace(scan, no_recording=reason)
        for file in filter(_may_be_a_scan, files):
            if file.suffix.lower() in SOUND_SUFFIXES:
                yield self._no_recording(
                    file, "sound beside a video is read where it is named audio alone; rename it"
                )
            elif file not in videos:
                yield self._no_recording(file, _why_none(file))
            elif scan.video not in (None, file):
                yield self._no_recording(
                    file, f"it lies beside {scan.video.name}, which is the scan; give it a folder of its own"
                )


def _scan(name: str, video: Path | None, files: list[Path]) -> RecordingFiles:
    by_name = {file.name: file for file in files}
    sounds = list(filter(_is_sound_beside, files))
    gazes = [file for file in files if file.name in GAZE_FILES]
    return RecordingFiles(
        name=name,
        video=video,
        sound=next(iter(sounds), None),
        gaze=next(iter(gazes), None),
        planes=by_name.get(PLANES_FILE),
        notes=by_name.get(NOTES_FILE),
        ambiguous=tuple(file for group in (sounds, gazes) if len(group) > 1 for file in group),
    )


def _is_sound_beside(file: Path) -> bool:
    return file.stem == "audio" and file.suffix.lower() in SOUND_SUFFIXES


def _is_companion(file: Path) -> bool:
    return file.name in {PLANES_FILE, NOTES_FILE} | GAZE_FILES or _is_sound_beside(file)


def _may_be_a_scan(file: Path) -> bool:
    """Whether it is none of the files that are known to lie beside scans."""
    name = file.name.lower()
    return not (_is_companion(file) or name in KNOWN_FILES or ABOUT_FILES.fullmatch(name))


def _is_video(file: Path) -> bool:
    """By its name or, where that tells nothing, its content; what cannot be read is told when opened."""
    suffix = file.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return not _is_special(file)
    if suffix in SOUND_SUFFIXES or _is_special(file):
        return False
    try:
        return is_dicom(file)
    except OSError:
        return suffix not in PICTURE_SUFFIXES


def _is_special(file: Path) -> bool:
    """A pipe, a socket or a device: reading one may never end."""
    return os.path.exists(file) and not os.path.isfile(file)


def _why_none(file: Path) -> str:
    if _is_special(file):
        return "it is a pipe, a socket or a device; leave it out"
    if file.suffix.lower() in PICTURE_SUFFIXES:
        return "a single picture holds no clip; `public_sets image_folder` makes labelled frames of pictures"
    return (
        "it is not named as a video is, and no DICOM file; if it is a video, let its name end in .mp4 or so"
    )
