"""Opening video files: which formats are taken, how a file is opened without reaching for another one, which of its streams
is the video that players play.

The endpoint hands strangers' uploads to this. FFmpeg's demuxers include playlists and scripts (HLS, ffconcat, …) that name
other files, or themselves; none of those is on the list.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition

from refiner.data.aperture import aperture, is_followed
from refiner.data.display import Crop
from refiner.errors import UserError

# FFmpeg's demuxers that may open a file -> the suffixes of the files that people have in them.
FORMATS: dict[str, tuple[str, ...]] = {
    "mov": (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v"),
    "matroska": (".mkv", ".webm", ".mk3d"),
    "avi": (".avi", ".divx"),
    "mpeg": (".mpg", ".mpeg", ".vob", ".mpe", ".mod"),
    "mpegts": (".ts", ".mts", ".m2ts", ".m2t", ".tod"),
    "mpegvideo": (".m2v", ".m1v", ".mpv"),
    "asf": (".wmv", ".asf"),
    "flv": (".flv",),
    "ogg": (".ogv", ".ogg"),
    "gif": (".gif",),
    "mxf": (".mxf",),
    "dv": (".dv",),
    "ivf": (".ivf",),
    "h264": (".h264", ".264"),
    "hevc": (".h265", ".265", ".hevc"),
    "yuv4mpegpipe": (".y4m",),
}
# What counts as a video in a folder. A file that is named outright is taken whatever it is called.
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}

# Bytes that FFmpeg asks for at a time: from a store each is a request. A header and a first picture take a few.
READ_AT_ONCE = 1 << 18

# No camera films more than this (8K is 33 million); a header may promise 16384², which is a gigabyte a picture.
MOST_PIXELS = 1 << 26

# Streams of pictures that no player plays as the video: cover art, thumbnails, a layer of another stream.
_BESIDE = (
    Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
)  # fmt: skip
_SAME_LENGTH_S = 0.5  # streams of one recording differ by less
MOST_PACKETS = 200_000  # an hour or two of video, in which a second picture of a stream is looked for

MOST_AGAIN = 1_000  # times in a row that a demuxer may ask to be asked again

_FOLLOWED = (
    "behind this recording another one begins, which is read in part or not at all: files of this format cannot be joined "
    "by `cat`, `ffmpeg -f concat` joins them"
)

# Files of still pictures by their first bytes, and those in MP4's boxes by their brand.
_PICTURES = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"8BPS": "PSD",
}  # fmt: skip
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"avif": "AVIF"}


@dataclass(frozen=True, slots=True)
class Opened:
    """An open video file."""

    path: str  # as errors call it
    container: InputContainer
    stream: av.VideoStream  # the video that players play
    notes: tuple[str, ...]  # what a user should know of it, a sentence each
    crop: Crop  # of its stored pictures: what is not shown


@contextmanager
def opened(path: str | Path, file: BinaryIO | None = None) -> Iterator[Opened]:
    """Opens a video; FFmpeg's errors, here and while it is open, become one sentence.

    Args:
        path: the file.
        file: its content, where that is not a local file's; `path` then only names it.

    Raises:
        UserError: it is not a video, with the reason.
    """
    name = str(path).encode(errors="backslashreplace").decode()  # a name that is not UTF-8 can be printed, too
    with ExitStack() as stack:
        # FFmpeg gets an open file, never a name: "a:b.mp4" would be a protocol, "clip%d.mp4" a series, and what is no
        # UTF-8 could not be said.
        file = stack.enter_context(_local(Path(path), name)) if file is None else file
        try:
            container = stack.enter_context(_container(file, name))
            single: frozenset[int] = frozenset()
            if len(videos := _videos(container, name)) > 1:
                single = _single_pictures(container, videos)
                file.seek(0)  # a seek in the container may miss the first packets
                container = stack.enter_context(_container(file, name))
            stream, notes = _playing(container, name, single)
            size = stream.codec_context.width, stream.codec_context.height
            crop = aperture(file, container.format.name, stream.index, size)
            if is_followed(file, container.format.name):
                notes += (_FOLLOWED,)
            yield Opened(name, container, stream, notes, crop)
        except FFmpegError as error:
            raise _unreadable(name, error) from None


def _container(file: BinaryIO, name: str) -> InputContainer:
    if picture := _picture_format(file):
        raise UserError(f"{name} is a picture ({picture}), not a video: give a video")
    try:
        return av.open(file, "r", metadata_errors="replace", buffer_size=READ_AT_ONCE, options=_OPTIONS)
    except ArgumentError:  # not on the whitelist
        raise UserError(
            f"{name} is in none of the formats that are read ({', '.join(FORMATS)}): convert it to MP4"
        ) from None


def _picture_format(file: BinaryIO) -> str | None:
    """Of which format of still pictures a file is, by its first bytes, whatever it is called."""
    before = file.tell()
    head = file.read(12)
    file.seek(before)
    if head[:4] == b"RIFF":
        return "WebP" if head[8:] == b"WEBP" else None
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:])
    return next((name for start, name in _PICTURES.items() if head.startswith(start)), None)


def _unreadable(name: str, error: FFmpegError) -> UserError:
    return UserError(
        f"{name} is not a video that can be read ({error.strerror or error}): "
        "it is damaged, cut off, still being written, or something else; fetch it again"
    )


def _local(path: Path, name: str) -> BinaryIO:
    if path.is_dir():
        raise UserError(f"{name} is a folder, not a video")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{name} is not a file that can be read twice, as videos are: save it as a file")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"video {name} is missing") from None
    except OSError as error:
        raise UserError(f"video {name} cannot be opened: {error.strerror}") from None
    if not file.seek(0, 2):
        file.close()
        raise UserError(f"video {name} is empty (0 bytes): fetch it again")
    file.seek(0)
    return file


def _videos(container: InputContainer, name: str) -> list[av.VideoStream]:
    """The streams that may be the video.

    Raises:
        UserError: there are none.
    """
    streams = [s for s in container.streams.video if not s.disposition & _BESIDE]
    if not streams:
        kinds = sorted({s.type for s in container.streams} - {"video"})
        if container.streams.video:
            raise UserError(f"{name} holds {' and '.join(['a still picture', *kinds])}, not a video: give a video")
        raise UserError(f"{name} has no pictures (it holds {', '.join(kinds) or 'nothing'}): give a video")
    known = [s for s in streams if s.codec_context is not None]
    if not known:
        raise UserError(f"video {name} is in a codec that this FFmpeg cannot decode: convert it to H.264")
    return known


def packets(container: InputContainer, streams: Sequence[av.VideoStream]) -> Iterator[av.Packet]:
    """Every packet of these streams; the last ones are empty.

    A demuxer that met something damaged may say "try again" (EAGAIN) and go on behind it, as FFmpeg's own tools do.
    """
    again = 0
    while True:
        try:
            for packet in container.demux(streams):
                yield packet
                again = 0
            return
        except BlockingIOError:
            again += 1
            if again > MOST_AGAIN:
                raise


def _single_pictures(container: InputContainer, videos: list[av.VideoStream]) -> frozenset[int]:
    """Indices of the streams that hold one picture, such as a cover that is not marked as one. Reads packets."""
    count = {stream.index: 0 for stream in videos}
    with suppress(FFmpegError):  # a damaged end; what comes before it counts
        for packet in itertools.islice(packets(container, videos), MOST_PACKETS):
            count[packet.stream.index] += packet.size > 0
            if min(count.values()) > 1:
                break
    return frozenset(index for index, number in count.items() if number <= 1)


def _playing(container: InputContainer, name: str, single: frozenset[int]) -> tuple[av.VideoStream, tuple[str, ...]]:
    """The video that players play: the one marked as default, of several the longest, of these the largest picture.

    Muxers mark the first stream of a file as default if nobody says otherwise: one of less than half the length is a preview,
    and a single picture is no video, however long it is shown.

    Args:
        container: the file.
        name: its name, for errors.
        single: indices of streams of one picture.
    """
    streams = _videos(container, name)
    moving = [s for s in streams if s.index not in single] or streams
    longest = max(_length_s(container, s) for s in moving)

    def rank(stream: av.VideoStream) -> tuple[bool, float, int, int]:
        length = _length_s(container, stream)
        context = stream.codec_context
        return (
            bool(stream.disposition & Disposition.default) and length > longest / 2,
            longest if length > longest - _SAME_LENGTH_S else length,
            context.width * context.height,
            -stream.index,
        )

    best = max(moving, key=rank)
    width, height = best.codec_context.width, best.codec_context.height
    if width * height > MOST_PIXELS:
        raise UserError(
            f"video {name} has pictures of {width} × {height} pixels, more than can be read ({MOST_PIXELS:,} pixels): "
            "scale it down"
        )
    notes = []
    if len(moving) > 1:
        notes.append(
            f"there are {len(moving)} videos in it: stream {best.index} ({width} × {height}) is read, "
            "the one that players play"
        )
    if len(moving) < len(streams):
        notes.append(f"beside the video (stream {best.index}, {width} × {height}) there is a single picture in it")
    return best, tuple(notes)


def _length_s(container: InputContainer, stream: av.VideoStream) -> float:
    """How long a stream is, seconds, as far as its file says."""
    if tagged := tagged_end_s(container, stream):  # FFmpeg puts the longest stream's length where it knows no other
        return tagged
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def tagged_end_s(container: InputContainer, stream: av.VideoStream) -> float | None:
    """Where a Matroska stream ends, seconds, by the tag that FFmpeg and mkvmerge write (00:00:06.200000000)."""
    if "matroska" not in container.format.name:
        return None
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except (KeyError, ValueError):
        return None


# What cameras call the focal length as of 35 mm film, in the metadata of a file or of its pictures: Apple's key, and Exif's.
_FOCAL_35MM = re.compile(r"(?:^|[.:_])focal_?length\.?(?:_?in_?)?35mm(?:_equivalent|format|film)?$", re.IGNORECASE)
_FILM_MM = 36.0  # the longer side


def angle_of_view(source: Opened) -> float | None:
    """The lens's angle of view along the picture's longer side, degrees, where the file says it."""
    for key, value in {**source.container.metadata, **source.stream.metadata}.items():
        if _FOCAL_35MM.search(key):
            with suppress(ValueError):
                focal_mm = float(Fraction(value.strip()))
                if 5 <= focal_mm <= 400:
                    return math.degrees(2 * math.atan(_FILM_MM / 2 / focal_mm))
    return None
