"""Video files in and out: frames as RGB arrays with their own timestamps, and H.264 files written.

Reading serves the extraction and the endpoint; writing the studio and the reports. `containers` says which files are
taken, `display` how their pictures are shown.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import av
import numpy as np
from av.error import InvalidDataError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from refiner.data.clock import Promise, Seen, missing, rising
from refiner.data.containers import Opened, angle_of_view, opened, packets, tagged_end_s
from refiner.data.display import Display
from refiner.errors import UserError
from refiner.files import unfinished

# Of these formats the codec alone says what shape pixels have, and may say otherwise on the way, where recordings were joined.
_ASPECT_IN_CODEC = frozenset({"mpegts", "mpeg", "mpegvideo", "h264", "hevc"})
_STAMPLESS = (
    "h264",
    "hevc",
)  # streams without a container: FFmpeg makes up stamps of 25 fps, whatever rate the codec says
CLOCK = Fraction(1, 90_000)  # s, of files whose pictures come at their own times: MPEG's
MOST_FPS = 2000  # high-speed cameras; what is beyond is the clock's rate


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the header of a video says."""

    width: int  # pixels, as players show it: upright, square (see `Display`)
    height: int
    fps: float  # average; a variable frame rate has no other
    frames: int | None  # None where the container does not count them
    duration_s: float
    notes: tuple[str, ...] = ()  # what a user should know of it, a sentence each
    fov: float | None = None  # the lens's angle of view along the longer side, degrees, where the file says it


@dataclass(frozen=True, slots=True)
class Declared:
    """What a container says before a picture of it is decoded. It may lie: for limits, not for figures."""

    width: int  # pixels as coded, 0 where it does not say
    height: int
    frames: int  # as counted, or as they follow from rate and duration; 0 where it says neither
    duration_s: float  # 0 where it does not say
    streams: int  # of pictures, sound and whatever else


@dataclass(slots=True, eq=False)
class Frame:
    """One picture of a video: as decoded, and on demand as it is shown.

    `picture.planes` are the decoded Y, U and V; `display.to_decoded` says where in them a point of the shown picture lies.
    A picture that was drawn, not decoded, has only `rgb`.
    """

    index: int  # number in the video, from 0, whatever the stride
    timestamp_us: int  # from the start of the video
    _rgb: np.ndarray | None = None
    picture: av.VideoFrame | None = None
    display: Display | None = None
    joined: bool = False  # another take begins with it: recordings that were joined, a stream that reconnected
    damaged: bool = False  # made of what was left of damaged data, or of such a picture

    @property
    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8, C-contiguous, as players show it; converted when it is first asked for."""
        if self._rgb is None:
            assert self.picture is not None and self.display is not None  # it was decoded
            self._rgb = self.display.rgb(self.picture)
        return self._rgb

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as shown."""
        return (self.rgb.shape[1], self.rgb.shape[0]) if self.display is None else self.display.size


def probe(path: str | Path, file: BinaryIO | None = None) -> VideoInfo:
    """Reads a video's header and its first picture.

    Args:
        path: the file.
        file: its content, where that is not a local file's; `path` then only names it.

    Raises:
        UserError: it is not a video, with the reason.
    """
    with opened(path, file) as source:
        container, stream = source.container, source.stream
        stream.codec_context.thread_count = 1
        first = next((picture for packet in packets(container, [stream]) for picture in packet.decode()), None)
        if first is None:
            raise UserError(f"video {source.path} holds no picture that can be decoded: fetch it again")
        width, height = _displayed(source)(first, _Aspects(source).of(first)).size
        rate = _rate(stream)
        duration = _promise(source).length_s
        frames = stream.frames or (round(duration * rate) if duration and rate else None)
        fps = float(rate) if rate else (frames / duration if frames and duration else 0.0)
        duration = duration or (frames / fps if frames and fps else 0.0)
        return VideoInfo(width, height, fps, frames, duration, source.notes, angle_of_view(source))


def declared(path: str | Path) -> Declared:
    """Reads a video's header, and nothing else.

    Raises:
        UserError: it is not a video, with the reason.
    """
    with opened(path) as source:
        container, stream = source.container, source.stream
        rate = _rate(stream) or 0
        duration = _promise(source).length_s or 0.0
        return Declared(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            frames=max(stream.frames, round(duration * rate)),
            duration_s=duration,
            streams=len(container.streams),
        )


def frames(path: str | Path, stride: int = 1, say: Callable[[str], None] = lambda note: None) -> Iterator[Frame]:
    """Decodes a video on the calling thread, one picture at a time.

    Args:
        path: the file.
        stride: hands out every stride-th picture (all must be decoded, for they build on each other).
        say: called at the end with what is missing, a sentence, where some of it could be decoded nevertheless.

    Raises:
        UserError: it is not a video; or, after the last picture that can be decoded, it is truncated or damaged.
    """
    joined = damaged = False
    for frame in _decoded(path, say):
        joined, damaged = joined or frame.joined, damaged or frame.damaged
        if frame.index % stride == 0:
            frame.joined, frame.damaged = joined, damaged  # also of those that were left out
            joined = damaged = False
            yield frame


def read_frame(path: str | Path, index: int) -> np.ndarray:
    """One picture of a video, (H, W, 3) uint8 RGB.

    Raises:
        UserError: it is not a video, or ends before that picture.
    """
    last = -1
    for frame in _decoded(path):
        last = frame.index
        if last == index:
            return frame.rgb
    raise UserError(f"video {path} has {last + 1} frames: there is no frame {index}")


def _decoded(path: str | Path, say: Callable[[str], None] = lambda note: None) -> Iterator[Frame]:
    """A whole video, in order of presentation."""
    with opened(path) as source:
        stream, display, seen = source.stream, _displayed(source), Seen()
        # One thread: a core that has a whole video to itself loses by sharing it.
        stream.codec_context.thread_count = 1
        step_s = 1 / (_rate(stream) or Fraction(30))
        for (picture, damaged, aspect), timestamp_us, joined in rising(_pictures(source, seen), step_s):
            yield Frame(
                seen.frames, timestamp_us, picture=picture, display=display(picture, aspect),
                joined=joined, damaged=damaged,
            )  # fmt: skip
            seen.frames += 1
            seen.damaged += damaged
            seen.end_s = max(seen.end_s, timestamp_us * 1e-6 + float(step_s))
        note = missing(source.path, source.container.format.name, _promise(source), seen)
        if note:
            say(note)


# Whether it is damaged, and the shape of its pixels.
_Picture = tuple[av.VideoFrame, bool, Fraction | None]


def _pictures(source: Opened, seen: Seen) -> Iterator[tuple[_Picture, Fraction | None]]:
    """Pictures with their stamps in seconds. What cannot be decoded costs those that are built on it."""
    stream, damaged, first, aspects = source.stream, False, None, _Aspects(source)
    in_order, stampless = source.container.format.name == "avi", source.container.format.name in _STAMPLESS
    for packet in packets(source.container, [stream]):
        seen.packets += packet.size > 0
        if packet.is_corrupt:
            seen.beyond_end += 1
            damaged = True
        if packet.pts is not None and packet.size:
            first = packet.pts if first is None else min(first, packet.pts)
            end = packet.pts - first + (packet.duration or 0)
            seen.end_s = max(seen.end_s, float(end * packet.time_base))
        try:
            pictures = packet.decode()
        except InvalidDataError:
            seen.undecodable += 1
            damaged = True
            continue
        aspects.decoded(packet)
        for picture in pictures:
            if picture.key_frame and not picture.is_corrupt and not packet.is_corrupt:
                damaged = False
            damaged |= picture.is_corrupt
            # AVI has no stamps of presentation: FFmpeg makes them up in the order of decoding, wrong where there are B pictures
            ticks = None if stampless else picture.dts if in_order else picture.pts
            stamp = None if ticks is None or picture.time_base is None else Fraction(ticks) * picture.time_base
            yield (picture, damaged, aspects.of(picture)), stamp


def _rate(stream: av.VideoStream) -> Fraction | None:
    """Frames per second as the header says; some formats' says the ticks of their clock in its place."""
    rates = (stream.average_rate, stream.guessed_rate)
    if stream.container.format.name in _STAMPLESS:
        rates = rates[::-1]
    return next((Fraction(rate) for rate in rates if rate and rate <= MOST_FPS), None)


def _promise(source: Opened) -> Promise:
    """What the header says about how long the pictures go on."""
    container, stream = source.container, source.stream
    assert stream.time_base is not None  # FFmpeg gives each stream one
    start_s = float((stream.start_time or 0) * stream.time_base)
    counted = stream.frames or None
    end_s = tagged_end_s(container, stream)
    if end_s is None and stream.duration:
        return Promise(start_s, float(stream.duration * stream.time_base), None, counted)
    if end_s is None and len(container.streams) == 1 and container.duration:
        # the container's own figure counts sound, too, which may be longer than the pictures
        end_s = container.duration / av.time_base
    return Promise(start_s, None, end_s, counted)


class _Aspects:
    """Of which shape the pixels of each picture of a stream are: width over height."""

    def __init__(self, source: Opened) -> None:
        self._stream = source.stream
        self._in_codec = source.container.format.name in _ASPECT_IN_CODEC
        self._now = self._read = self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio
        self._coming: dict[int, Fraction] = {}  # by the stamp of the picture from which on it counts

    def decoded(self, packet: av.Packet) -> None:
        """A packet was decoded, and with it perhaps a new header, while pictures of earlier packets are still to come."""
        read = self._stream.codec_context.sample_aspect_ratio
        if self._in_codec and packet.size and read and read != self._read:
            self._read = read
            if packet.pts is None:
                self._now = read
            else:
                self._coming[packet.pts] = read

    def of(self, picture: av.VideoFrame) -> Fraction | None:
        """Of the next picture."""
        if picture.pts is not None and picture.pts in self._coming:
            self._now = self._coming.pop(picture.pts)
        return self._now


def _displayed(source: Opened) -> Callable[[av.VideoFrame, Fraction | None], Display]:
    """Says of each picture of a stream, and the shape of its pixels, how it is shown. They share one `Display` as long as that
    stays the same.
    """
    last: Display | None = None
    angle = 0

    def display(picture: av.VideoFrame, aspect: Fraction | None) -> Display:
        nonlocal last, angle
        # a display matrix comes with the container, or in a codec's key frames
        may_differ = bool(picture.key_frame) or picture.rotation != angle
        angle = picture.rotation
        now = Display.of(picture, aspect, source.crop, None if last is None or may_differ else last.turned)
        last = last if last is not None and now == last else now
        return last

    return display


def x264_options(crf: int, preset: str = "veryfast") -> dict[str, str]:
    """How this project encodes H.264: the same pictures give the same bytes."""
    # With AVX-512, x264's macroblock tree reads memory that nobody has written: without it the bytes are always the same.
    return {"crf": str(crf), "preset": preset, "mbtree": "0"}


def set_up(context: av.VideoCodecContext, size: tuple[int, int]) -> None:
    """Tells an encoder the size (width, height) of its pictures and their colours: players guess differently otherwise."""
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.thread_count = 1  # x264's output depends on the number of threads
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = ColorRange.MPEG


def as_yuv(rgb: np.ndarray, convert: VideoReformatter) -> av.VideoFrame:
    """A picture, (height, width, 3) uint8, as `set_up` has said that it comes."""
    return convert.reformat(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        threads=1,  # as many slices as there are cores would be converted apart, and not always to the same bytes
    )


class VideoWriter:
    """Writes an H.264 MP4 that every browser plays; the file appears under its name when it is whole.

        with VideoWriter("clip.mp4", size=(1280, 720), fps=60) as video:
            video.write(rgb)  # (720, 1280, 3) uint8

    The same pictures give the same bytes, on any number of cores and whatever else the process does.
    """

    def __init__(
        self, path: str | Path, size: tuple[int, int], fps: float | Fraction, *, crf: int = 20, preset: str = "veryfast"
    ) -> None:
        """Args:
        path: the file to write; folders above it are made.
        size: width, height in pixels, both even (H.264 halves the colour planes).
        fps: frames per second.
        crf: x264's quality, 0 lossless … 51 worst; 20 is hard to tell from the original.
        preset: x264's trade of time for size.
        """
        width, height = size
        if width % 2 or height % 2:
            raise ValueError(f"a video's width and height must be even, not {width} × {height}")
        self._size, self._path = (width, height), Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part = unfinished(self._path)
        self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "faststart"})
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate, options=x264_options(crf, preset))
        set_up(self._stream.codec_context, self._size)
        self._convert, self._written, self._last = VideoReformatter(), 0, -1

    def write(self, rgb: np.ndarray, timestamp_us: int | None = None) -> None:
        """Appends a picture.

        Args:
            rgb: (height, width, 3) uint8.
            timestamp_us: when it is shown, microseconds from the start, rising; None, of all pictures: at even times.
        """
        if rgb.shape != (self._size[1], self._size[0], 3) or rgb.dtype != np.uint8:
            raise ValueError(
                f"expected a {self._size[1]} × {self._size[0]} × 3 uint8 picture, not {rgb.shape} {rgb.dtype}"
            )
        picture = as_yuv(rgb, self._convert)
        context = self._stream.codec_context
        if timestamp_us is None:
            picture.pts, picture.time_base = self._written, 1 / context.framerate
        else:
            if not self._written:
                context.time_base = CLOCK
            self._last = max(round(timestamp_us * 1e-6 / CLOCK), self._last + 1)
            picture.pts, picture.time_base = self._last, CLOCK
        self._container.mux(self._stream.encode(picture))
        self._written += 1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)
