"""Whether the pieces of a file lie end to end, as its container wants: a piece that was lost leaves a gap.

FFmpeg looks for the next frame it can read after such a gap and says nothing, so a file damaged in copying
would be a shorter recording. Seen are losses in Matroska (mkv, webm), AVI, GIF and Ogg, and transport streams
that end within a packet; mp4 and mov count their frames themselves, and transport streams their packets, so
that FFmpeg marks what follows a lost one as corrupt. MPEG program streams have neither a count nor an end,
and GIF has an end but no count, so whole packets or blocks that are lost cannot be missed. What lies within a
piece has no check sum in most codings: damage there is seen only where a decoder stumbles over it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from datasets_scripts.recording_errors import DamagedError, TruncatedError

TRANSPORT_PACKET_BYTES, TRANSPORT_MARK, OGG_MARK = 188, 0x47, b"OggS"

EBML, SEGMENT, CLUSTER, VOID, CHECKSUM = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xEC, 0xBF
# What a file, a segment and a cluster of Matroska hold (RFC 9559, section 5.1).
FILE_PARTS = frozenset({EBML, SEGMENT, VOID})
SEGMENT_PARTS = frozenset(
    {
        0x114D9B74,
        0x1549A966,
        0x1654AE6B,
        CLUSTER,
        0x1C53BB6B,
        0x1941A469,
        0x1043A770,
        0x1254C367,
        VOID,
        CHECKSUM,
    }
)
CLUSTER_PARTS = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, VOID, CHECKSUM})
UNKNOWN_LENGTH = -1


class _Gap(Exception):
    """What should start here does not."""


def check_structure(path: Path, name: str) -> None:
    """Walk over the pieces of the file without reading them.

    Raises:
        TruncatedError: the file ends before its last piece does.
        DamagedError: a piece does not start where the one before ends.
    """
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        check = _check_of(head)
        try:
            if check is not None:
                check(file, path.stat().st_size)
        except EOFError as error:
            raise TruncatedError(
                f"{name}: the file is cut short: it ends within one of its pieces; copy it again from the "
                "machine."
            ) from error
        except _Gap as error:
            raise DamagedError(
                f"{name}: a piece of the file is lost or damaged near byte {file.tell()}; copy it again from "
                "the machine."
            ) from error


def _check_of(head: bytes) -> Callable[[BinaryIO, int], None] | None:
    if head.startswith(EBML.to_bytes(4, "big")):
        return _check_matroska
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        return _check_avi
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _check_gif
    if head.startswith(OGG_MARK):
        return _check_ogg
    return _check_transport_stream if head[:1] == bytes([TRANSPORT_MARK]) else None


def _check_transport_stream(file: BinaryIO, size: int) -> None:
    if size % TRANSPORT_PACKET_BYTES:
        raise EOFError


def _check_matroska(file: BinaryIO, size: int) -> None:
    _check_elements(file, size, FILE_PARTS, is_file=True)


def _check_elements(file: BinaryIO, end: int, parts: frozenset[int], is_file: bool = False) -> bool:
    """Whether the elements up to `end` all say how long they are, so that the next may be looked for."""
    while file.tell() < end:
        identity, length = _ebml_number(file, keeps_mark=True), _ebml_number(file, keeps_mark=False)
        if identity not in parts:
            raise _Gap
        if length == UNKNOWN_LENGTH:  # written live, by a program that never came back to note it
            return False
        element_end = file.tell() + length
        if element_end > end:
            raise EOFError if is_file else _Gap
        within = {SEGMENT: SEGMENT_PARTS, CLUSTER: CLUSTER_PARTS}.get(identity)
        if within is not None and not _check_elements(file, element_end, within):
            return False
        if identity == SEGMENT:
            return True
        file.seek(element_end)
    return True


def _ebml_number(file: BinaryIO, keeps_mark: bool) -> int:
    """A number whose first set bit tells its length in bytes (RFC 8794, section 4)."""
    first = _read(file, 1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise _Gap
    number = int.from_bytes(bytes([first]) + _read(file, length - 1), "big")
    if keeps_mark:
        return number
    number -= 1 << 7 * length
    return UNKNOWN_LENGTH if number == (1 << 7 * length) - 1 else number


def _check_avi(file: BinaryIO, size: int) -> None:
    """Each RIFF, its lists, and the chunks of the list `movi`, which are the frames and the sound."""
    while size - file.tell() >= 12 and (header := _read(file, 12))[:4] == b"RIFF":
        end = file.tell() - 4 + int.from_bytes(header[4:8], "little")
        if end > size:
            raise EOFError
        for kind, chunk_end in _chunks(file, end):
            if kind == b"LIST" and _read(file, 4) == b"movi":
                for _ in _chunks(file, chunk_end):
                    pass


def _chunks(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int]]:
    """Name and end of each of the chunks that fill the file up to `end`, which they must."""
    while file.tell() + 8 <= end:
        header = _read(file, 8)
        kind, start = header[:4], file.tell()
        chunk_end = start + int.from_bytes(header[4:], "little")
        if chunk_end > end or not (kind.isascii() and kind.decode("ascii").isprintable()):
            raise _Gap
        yield kind, chunk_end
        file.seek(chunk_end + chunk_end % 2)


def _check_gif(file: BinaryIO, size: int) -> None:
    """The blocks of the GIF89a specification, up to its trailer."""
    _skip_colours(file, _read(file, 13)[10])
    while (block := _read(file, 1)) != b";":
        if block == b"!":
            _read(file, 1)
        elif block == b",":
            _skip_colours(file, _read(file, 9)[8])
            _read(file, 1)
        else:
            raise _Gap
        while length := _read(file, 1)[0]:
            file.seek(length, 1)
    if file.read().strip(b"\0"):  # frames behind a trailer that damage put there
        raise _Gap


def _check_ogg(file: BinaryIO, size: int) -> None:
    """The pages of RFC 3533, section 6."""
    while file.tell() < size:
        header = _read(file, 27)
        if header[:4] != OGG_MARK:
            raise _Gap
        file.seek(sum(_read(file, header[26])), 1)
        if file.tell() > size:
            raise EOFError


def _skip_colours(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 * 2 ** (flags % 8 + 1), 1)


def _read(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data
