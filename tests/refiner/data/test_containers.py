"""Files as recorders, converters and people make them: every picture comes through, once, at its time."""

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from refiner import UserError
from refiner.data import containers, video

W, H, N, RATE = 192, 112, 30, 25


def picture(number: int, size: tuple[int, int] = (W, H)) -> np.ndarray:
    """Blue rises with the number."""
    rgb = np.full((size[1], size[0], 3), 90, dtype=np.uint8)
    rgb[..., 2] = 40 + 6 * number
    return rgb


def put(container: Any, stream: Any, numbers: Any, at: Callable[[int], int] = lambda i: i) -> None:
    for i in numbers:
        frame = av.VideoFrame.from_ndarray(picture(i, (stream.width, stream.height)), format="rgb24")
        frame.pts, frame.time_base = at(i), Fraction(1, RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def added(
    container: Any, codec: str, pix_fmt: str = "yuv420p", size: tuple[int, int] = (W, H), b: int = 0, **options: str
) -> Any:
    stream = container.add_stream(codec, rate=RATE, options=options)
    stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
    if b:
        stream.codec_context.max_b_frames = b
    return stream


def made(path: Path, codec: str = "libx264", muxer: dict[str, str] | None = None, count: int = N, **how: Any) -> Path:
    with av.open(str(path), "w", options=muxer or {}) as container:
        put(container, added(container, codec, **how), range(count))
    return path


def told(path: Path) -> tuple[list[int], list[int], list[str]]:
    """Milliseconds and brightness of blue of each picture, and what was said."""
    notes = [*video.probe(path).notes]
    frames = [(f.timestamp_us, f.rgb[..., 2].mean()) for f in video.frames(path, say=notes.append)]
    return [us // 1000 for us, _ in frames], [round(blue) for _, blue in frames], notes


def is_whole(path: Path, count: int = N) -> bool:
    times, blue, notes = told(path)
    steady = np.abs(np.diff(times) - 1000 / RATE) <= 1
    return not notes and len(times) == count and steady.all() and (np.diff(blue) >= 0).all() and times[0] == 0


HEVC = {"x265-params": "log-level=none"}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("hevc.mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le", **HEVC}),
        ("raw.hevc", {"codec": "libx265", **HEVC}),
        ("vp9.webm", {"codec": "libvpx-vp9", "deadline": "realtime"}),
        ("see-through.webm", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "deadline": "realtime"}),
        ("see-through.mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}),
        ("live.webm", {"codec": "libvpx-vp9", "deadline": "realtime", "muxer": {"live": "1"}}),  # no length, no index
        ("parts.mp4", {"g": "5", "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
        ("odd.mkv", {"pix_fmt": "yuv444p", "size": (853, 481)}),
        ("b.avi", {"b": 2}),
        ("b4.avi", {"codec": "mpeg4", "b": 2}),
        ("jpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("b.h264", {"b": 2}),
        ("raw.h264", {}),
        ("b.m2v", {"codec": "mpeg2video", "b": 2}),
        ("b.mxf", {"codec": "mpeg2video", "b": 2}),
        ("b.m2ts", {"b": 2, "muxer": {"mpegts_m2ts_mode": "1"}}),
        ("film.dv", {"codec": "dvvideo", "size": (720, 576)}),
        ("film.flv", {"codec": "flv"}),
        ("film.wmv", {"codec": "wmv2"}),
        ("film.ivf", {"codec": "libvpx-vp9", "deadline": "realtime"}),
    ],
)
def test_each_kind_of_file_gives_each_picture_once_at_its_time(tmp_path, name, how):
    path = made(tmp_path / name, **how)
    assert is_whole(path) and video.probe(path).fps == RATE


@pytest.mark.parametrize(("name", "how"), [("a.h264", {"b": 2}), ("a.hevc", {"codec": "libx265", **HEVC})])
def test_a_stream_without_a_container_goes_at_its_codecs_rate(tmp_path, name, how):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(how.get("codec", "libx264"), rate=60, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        put(container, stream, range(12), lambda i: i)
    assert video.probe(path).fps == 60
    assert [frame.timestamp_us for frame in video.frames(path)] == [round(i * 1e6 / 60) for i in range(12)]


def test_what_is_no_regular_file_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "live.mp4")
    with pytest.raises(UserError, match="save it as a file"):
        video.probe(tmp_path / "live.mp4")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".gif"])
def test_a_video_of_one_picture_is_one(tmp_path, suffix, count):
    how = {"codec": "gif", "pix_fmt": "rgb8"} if suffix == ".gif" else {}
    assert is_whole(made(tmp_path / f"short{suffix}", count=count, **how), count)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_an_avi_without_its_index_is_read_to_the_end(tmp_path, codec):
    content = made(tmp_path / "a.avi", codec, b=2).read_bytes()
    path = tmp_path / "recorder stopped.avi"
    path.write_bytes(content[: content.rindex(b"idx1")])
    assert is_whole(path)


def test_a_demuxer_that_asks_to_be_asked_again_is(tmp_path):
    """FFmpeg's transport stream demuxer does (EAGAIN), behind some damaged places; here another one says so in between."""

    class Asking:
        def __init__(self, container: Any, times: int) -> None:
            self.container, self.times = container, times

        def demux(self, streams: Any) -> Any:
            for packet in self.container.demux(streams):
                yield packet
                if self.times:
                    self.times -= 1
                    raise BlockingIOError

    for times in (3, containers.MOST_AGAIN):
        with av.open(str(made(tmp_path / "clip.ts"))) as container:
            taken = list(containers.packets(Asking(container, times), container.streams.video))
        assert sum(packet.size > 0 for packet in taken) == N


def test_a_fragmented_mp4_is_read_up_to_its_last_whole_fragment(tmp_path):
    content = made(tmp_path / "a.mp4", g="5", muxer={"movflags": "frag_keyframe+empty_moov"}).read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: content.rindex(b"moof") - 4])
    assert is_whole(tmp_path / "a.mp4", 28)
    (tmp_path / "a.mp4").write_bytes(content[: content.rindex(b"moof") - 12])
    with pytest.raises(UserError, match="is truncated"):
        told(tmp_path / "a.mp4")


def test_the_clock_of_a_transport_stream_may_pass_its_end(tmp_path):
    made(tmp_path / "a.ts", b=2)
    path = tmp_path / "wrapped.ts"
    options = {"mpegts_copyts": "1", "avoid_negative_ts": "disabled"}
    with av.open(str(tmp_path / "a.ts")) as source, av.open(str(path), "w", options=options) as target:
        stream, shift = target.add_stream_from_template(source.streams.video[0]), 0
        for packet in source.demux(video=0):
            if packet.size and packet.pts is not None and packet.dts is not None:
                shift = shift or (1 << 33) - 45_000 - packet.dts  # half a second before 33 bits of 90 kHz are over
                packet.stream, packet.pts, packet.dts = stream, packet.pts + shift, packet.dts + shift
                target.mux(packet)
    assert is_whole(path)


@pytest.mark.parametrize("skipped", [0, 10])
def test_an_edit_list_says_where_a_video_begins(tmp_path, skipped):
    path = made(tmp_path / "edited.mp4", b=2, g="30")
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    length, start, rate = struct.unpack(">IiI", content[at : at + 12])
    content[at : at + 12] = struct.pack(">IiI", length - 40 * skipped, start + 512 * skipped, rate)
    path.write_bytes(content)
    assert is_whole(path, N - skipped)
    assert told(path)[1][0] == pytest.approx(40 + 6 * skipped, abs=3)


def test_a_gifs_own_delays_are_kept(tmp_path):
    delays = [7, 3, 11, 50, 2, 100]  # hundredths of a second
    with av.open(str(tmp_path / "a.gif"), "w") as container:
        stream = added(container, "gif", "rgb8")
        stream.codec_context.time_base = Fraction(1, 100)
        for i, at in enumerate(np.cumsum([0, *delays])):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = int(at), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert (np.diff(told(tmp_path / "a.gif")[0]) == np.multiply(delays, 10)).all()


def put_silence(container: Any, sound: Any, count: int) -> None:
    for i in range(count):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 1024 * i
        container.mux(sound.encode(frame))
    container.mux(sound.encode())


def test_sound_before_the_pictures_and_longer_than_they_are_changes_nothing(tmp_path):
    for suffix in (".mp4", ".mkv", ".ts"):
        path = tmp_path / f"sound first{suffix}"
        with av.open(str(path), "w") as container:
            sound, stream = container.add_stream("aac", rate=44_100, layout="mono"), added(container, "libx264")
            put_silence(container, sound, 150)
            put(container, stream, range(N), lambda i: i + 20)
        assert is_whole(path), suffix


# The kind of the other stream -> its codec, how many pictures it has, when the last one comes, how it is marked.
BESIDE = {
    "another video, not the default": ("libx264", 30, 29, 0, "2 videos"),
    "a thumbnail": ("libx264", 2, 1, int(Disposition.default), "2 videos"),
    "a picture": ("mjpeg", 1, 0, int(Disposition.default), "a single picture"),
    "a picture that is shown for long": ("mjpeg", 1, 100, int(Disposition.default), "a single picture"),
    "a picture after the end": ("mjpeg", 1, 99, 0, "a single picture"),
}


@pytest.mark.parametrize("order", [("other", "video"), ("video", "other"), ("sound", "other", "video")], ids="-".join)
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("kind", BESIDE)
def test_of_several_streams_the_one_that_moves_is_read(tmp_path, kind, suffix, order):
    codec, count, last, marked, says = BESIDE[kind]
    path = tmp_path / f"two{suffix}"
    with av.open(str(path), "w") as container:
        streams = {}
        for name in order:
            if name == "sound":
                streams[name] = container.add_stream("aac", rate=44_100, layout="mono")
            elif name == "video":
                streams[name] = added(container, "libx264")
                streams[name].disposition = Disposition.default if not marked else Disposition(0)
            else:
                size = (2 * W, 2 * H) if codec == "mjpeg" else (64, 64)
                streams[name] = added(container, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", size)
                streams[name].disposition = Disposition(marked)
        if "sound" in streams:
            put_silence(container, streams["sound"], 40)
        put(container, streams["video"], range(N))
        put(container, streams["other"], range(count), lambda i: i if count > 1 else last)
    times, _, notes = told(path)
    info = video.probe(path)
    assert (info.width, info.height) == (W, H) and len(times) == N and len(notes) == 1 and says in notes[0]


def test_a_cover_is_no_video_and_a_picture_is_called_one(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound, cover = container.add_stream("aac", rate=44_100, layout="mono"), added(container, "mjpeg", "yuvj420p")
        cover.disposition = Disposition.attached_pic
        put_silence(container, sound, 40)
        put(container, cover, [0])
    with pytest.raises(UserError, match="holds a still picture and audio, not a video"):
        video.probe(tmp_path / "song.mp4")
    for codec, pix_fmt, called in (
        ("mjpeg", "yuvj420p", "JPEG"),
        ("png", "rgb24", "PNG"),
        ("libwebp", "yuv420p", "WebP"),
    ):
        context: Any = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt, context.time_base = W, H, pix_fmt, Fraction(1, RATE)
        frame = av.VideoFrame.from_ndarray(picture(0), format="rgb24").reformat(format=pix_fmt)
        content = b"".join(bytes(p) for p in [*context.encode(frame), *context.encode()])
        for name in ("a.jpg", "renamed.mp4"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=rf"{name} is a picture \({called}\), not a video"):
                video.probe(tmp_path / name)


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("mp4", {}), ("mov", {}), ("flv", {}), ("mkv", {}), ("ts", {}), ("avi", {"codec": "mpeg4"}),
        ("mp4", {"muxer": {"movflags": "faststart"}}),
        ("mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}, "g": "10"}),
    ],
)  # fmt: skip
def test_recordings_joined_by_cat_are_read_whole_or_it_is_said(tmp_path, ending, how):
    path = made(tmp_path / f"part.{ending}", **how)
    assert not any("another one begins" in note for note in told(path)[2])
    path.write_bytes(path.read_bytes() * 2)
    times, _, notes = told(path)
    assert (len(times) == 2 * N) != any("another one begins" in note for note in notes), (len(times), notes)


def test_pixels_of_another_shape_on_the_way_are_shown_as_such(tmp_path):
    """Recordings whose pixels have different shapes, joined; B pictures come out late, after the next one's header."""
    parts = []
    for aspect in (1, 2):
        with av.open(str(tmp_path / f"{aspect}.ts"), "w") as container:
            stream = added(container, "libx264", b=2)
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
            put(container, stream, range(N))
        parts.append((tmp_path / f"{aspect}.ts").read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    sizes = [frame.size for frame in video.frames(tmp_path / "both.ts")]
    assert sizes == [(W, H)] * N + [(2 * W, H)] * N
