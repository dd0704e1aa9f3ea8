"""The part of a picture that is to be shown, where a container says so beside the codec: MP4's clean aperture, Matroska's
crop.

FFmpeg's demuxers read both but PyAV does not hand them on, so the few bytes are looked up here. Whatever is odd in them
counts as if they were not there: they come from outside, and a picture that is shown whole is no harm.
"""

import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from refiner.data.display import Crop

UNCROPPED: Crop = (0, 0, 0, 0)
# Of a file at most so many boxes or elements are looked at: it may hold millions.
MOST_PARTS = 10_000

# ISO/IEC 14496-12: from the file down to a track's sample entries, and 12.1.4: the clean aperture.
_TO_ENTRIES = (b"mdia", b"minf", b"stbl", b"stsd")
_ENTRIES_AT = 8  # version, flags, count
_ENTRY_BOXES_AT = 78  # the fields of a visual sample entry
# Adobe's Video File Format 10.1, E.2: a header (of pictures, sound or both) and the size of the tag before it, which is 0.
_FLV, _FLV_BYTES = re.compile(rb"FLV\x01[\x01\x04\x05]\0\0\0\x09\0{4}"), 13
# RFC 9559 (Matroska).
_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0
_CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # left, top, right, bottom


class Part(NamedTuple):
    """A box of MP4 or an element of Matroska."""

    kind: bytes | int
    start: int  # of its content in the file
    end: int


def aperture(file: BinaryIO, container: str, index: int, size: tuple[int, int]) -> Crop:
    """Pixels of a video's stored pictures that are not shown.

    Args:
        file: the video; its position stays.
        container: FFmpeg's name of its format.
        index: of the stream in it.
        size: width and height of a stored picture.

    Returns:
        Left, top, right, bottom; zeros where nothing is said, or nonsense.
    """
    before = file.tell()
    try:
        if "mov" in container:
            crop = _of_mp4(file, index, size)
        elif "matroska" in container:
            crop = _of_matroska(file, index)
        else:
            crop = UNCROPPED
    except (struct.error, ZeroDivisionError, IndexError, StopIteration):
        return UNCROPPED
    finally:
        file.seek(before)
    left, top, right, bottom = crop
    sane = min(crop) >= 0 and left + right < size[0] and top + bottom < size[1]
    return crop if sane else UNCROPPED


def is_followed(file: BinaryIO, container: str) -> bool:
    """Whether behind an MP4 or FLV file another one begins, as where recordings were joined with `cat`: FFmpeg and players stop
    at the end of the first, or lose what is about it. (Of other formats they go on.)

    Args:
        file: the video; its position stays.
        container: FFmpeg's name of its format.
    """
    before = file.tell()
    try:
        if container == "flv":
            file.seek(_FLV_BYTES)
            return any(_FLV.search(piece) for piece in _overlapping(file, _FLV_BYTES))
        if "mov" not in container:
            return False
        return [box.kind for box in boxes(file, 0, _length(file))].count(b"moov") > 1
    except struct.error:
        return False
    finally:
        file.seek(before)


def _overlapping(file: BinaryIO, by: int) -> Iterator[bytes]:
    """The rest of a file in pieces, each with the last bytes of the one before."""
    last = b""
    while piece := file.read(1 << 20):
        yield last + piece
        last = piece[-by:]


def _of_mp4(file: BinaryIO, index: int, size: tuple[int, int]) -> Crop:
    movie = _only(boxes(file, 0, _length(file)), b"moov")
    tracks = [box for box in boxes(file, *movie[1:]) if box.kind == b"trak"]
    inside = tracks[index]
    for kind in _TO_ENTRIES:
        inside = _only(boxes(file, *inside[1:]), kind)
    entry = next(boxes(file, inside.start + _ENTRIES_AT, inside.end))
    clap = _only(boxes(file, entry.start + _ENTRY_BOXES_AT, entry.end), b"clap")
    n = struct.unpack(">IIIIiIiI", _read(file, clap.start, 32))
    width, height, right_by, down_by = (Fraction(n[i], n[i + 1]) for i in range(0, 8, 2))
    # its middle is moved from the picture's; whole pixels are cut, as players do
    left = round((size[0] - width) / 2 + right_by)
    top = round((size[1] - height) / 2 + down_by)
    return left, top, size[0] - left - round(width), size[1] - top - round(height)


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Part]:
    """The boxes of a part of an MP4 file, up to the first that is damaged; the file's position moves."""
    for _ in range(MOST_PARTS):
        if start + 8 > end:
            return
        length, kind = struct.unpack(">I4s", _read(file, start, 8))
        content = start + 8
        if length == 1:
            (length,) = struct.unpack(">Q", _read(file, content, 8))
            content += 8
        stop = end if length == 0 else start + length
        if stop < content or stop > end:
            return
        yield Part(kind, content, stop)
        start = stop


def _of_matroska(file: BinaryIO, index: int) -> Crop:
    segment = _only(_elements(file, 0, _length(file)), _SEGMENT)
    tracks = _only(_elements(file, *segment[1:]), _TRACKS)
    entries = [element for element in _elements(file, *tracks[1:]) if element.kind == _TRACK]
    video = _only(_elements(file, *entries[index][1:]), _VIDEO)
    said = {e.kind: int.from_bytes(_read(file, e.start, e.end - e.start)) for e in _elements(file, *video[1:])
            if e.kind in _CROPS and e.end - e.start <= 8}  # fmt: skip
    left, top, right, bottom = (said.get(kind, 0) for kind in _CROPS)
    return left, top, right, bottom


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[Part]:
    for _ in range(MOST_PARTS):
        if start + 2 > end:
            return
        head = _read(file, start, 12, at_least=2)
        id_bytes = 9 - head[0].bit_length()
        length_bytes = 9 - head[id_bytes].bit_length()
        kind = int.from_bytes(head[:id_bytes])
        content = start + id_bytes + length_bytes
        value = int.from_bytes(head[id_bytes : id_bytes + length_bytes]) & ((1 << 7 * length_bytes) - 1)
        unknown = value == (1 << 7 * length_bytes) - 1  # a live stream's
        stop = end if unknown else content + value
        if kind == _CLUSTER or (stop > end and kind != _SEGMENT):
            return
        yield Part(kind, content, min(stop, end))
        start = stop


def _only(parts: Iterator[Part], kind: bytes | int) -> Part:
    return next(part for part in parts if part.kind == kind)


def _read(file: BinaryIO, start: int, count: int, at_least: int | None = None) -> bytes:
    file.seek(start)
    content = file.read(count)
    if len(content) < (count if at_least is None else at_least):
        raise struct.error("the file ends early")
    return content


def _length(file: BinaryIO) -> int:
    return file.seek(0, 2)
