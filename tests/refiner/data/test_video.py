"""Video files as they come: every width, turned, deep, uneven in time, cut off, empty, or no video at all."""

import gc
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from refiner import UserError
from refiner.data import video

W, H = 1080, 96  # 1080 is a width whose rows FFmpeg pads


def picture(number: int, width: int = W, height: int = H) -> np.ndarray:
    """Red rises to the right, green downwards, blue with the number: says where a pixel belongs and when."""
    rgb = np.zeros((height, width, 3), dtype=np.uint8)
    rgb[..., 0] = np.linspace(20, 230, width)[None]
    rgb[..., 1] = np.linspace(20, 230, height)[:, None]
    rgb[..., 2] = 40 + 8 * number
    return rgb


def encode(path: Path, number: int = 8, *, codec: str = "libx264", pix_fmt: str = "yuv420p", times=None) -> Path:
    """A video through plain PyAV, for what `VideoWriter` does not write. `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=50, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = W, H, pix_fmt
        base = Fraction(1, 50 if codec == "mpeg2video" else 1000)  # which knows only usual rates
        stream.codec_context.time_base = base
        for i in range(number):
            frame = av.VideoFrame.from_ndarray(picture(i % 25), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(times[i] if times else 20 * i, 1000) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def written(path: Path, number: int = 30) -> Path:
    with video.VideoWriter(path, (W, H), 60) as writer:
        for i in range(number):
            writer.write(picture(i % 20))
    return path


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b.astype(int)).mean()) < 4


def test_what_is_written_comes_back_in_place_colour_and_time(tmp_path):
    path = written(tmp_path / "clip.mp4")
    assert video.probe(path) == video.VideoInfo(W, H, 60.0, 30, 0.5)
    frames = list(video.frames(path))
    assert [f.index for f in frames] == list(range(30))
    assert [f.timestamp_us for f in frames] == [round(i * 1e6 / 60) for i in range(30)]
    for frame in frames[:20]:
        assert frame.rgb.flags.c_contiguous and close(frame.rgb, picture(frame.index))
    strided = list(video.frames(path, stride=7))
    assert [f.index for f in strided] == [0, 7, 14, 21, 28]
    assert np.array_equal(strided[2].rgb, frames[14].rgb)
    assert np.array_equal(video.read_frame(path, 11), frames[11].rgb)
    with pytest.raises(UserError, match="has 30 frames: there is no frame 30"):
        video.read_frame(path, 30)


def test_the_same_pictures_give_the_same_file(tmp_path):
    assert written(tmp_path / "a.mp4").read_bytes() == written(tmp_path / "b.mp4").read_bytes()


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), video.VideoWriter(tmp_path / "clip.mp4", (W, H), 60) as writer:
        writer.write(picture(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="must be even"):
        video.VideoWriter(tmp_path / "clip.mp4", (W, H + 1), 60)


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p", "yuv444p10le"])
def test_deep_and_full_colour_video_is_read(tmp_path, pix_fmt):
    frames = list(video.frames(encode(tmp_path / "clip.mp4", pix_fmt=pix_fmt)))
    assert len(frames) == 8 and all(close(f.rgb, picture(f.index)) for f in frames)


def test_uneven_frame_rates_keep_each_frames_own_time(tmp_path):
    times = [0, 20, 40, 90, 100, 250, 270, 400]
    frames = list(video.frames(encode(tmp_path / "clip.mkv", times=times)))
    assert [f.timestamp_us // 1000 for f in frames] == times


def test_a_video_filmed_sideways_is_put_upright(tmp_path):
    path = written(tmp_path / "clip.mp4", 4)
    content = path.read_bytes()
    # the identity matrix of the track's header -> a quarter turn clockwise (the display matrix that phones write)
    track = content.index(b"tkhd")
    identity = b"".join(v.to_bytes(4, "big") for v in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    turned = b"".join(v.to_bytes(4, "big", signed=True) for v in (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000))
    at = content.index(identity, track)
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    info = video.probe(path)
    assert (info.width, info.height) == (H, W)
    for frame in video.frames(path):
        assert frame.rgb.flags.c_contiguous and close(frame.rgb, np.rot90(picture(frame.index), -1))


@pytest.mark.parametrize("group", [1, 12])
def test_a_picture_that_was_let_go_holds_no_memory(tmp_path, group):
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": str(group)})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(60):
            picture = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")  # no scene ends, so no group
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    gc.collect()
    gc.disable()  # which comes by when it likes, and a 4K picture is 12 MB
    try:
        before = [id(thing) for thing in gc.get_objects() if isinstance(thing, av.VideoFrame)]
        for _ in video.frames(tmp_path / "clip.mp4"):
            pass
        kept = [t for t in gc.get_objects() if isinstance(t, av.VideoFrame) and id(t) not in before]
    finally:
        gc.enable()
    assert len(kept) <= 1  # the last, at most


def test_a_truncated_video_is_refused_wherever_it_is_cut(tmp_path):
    content = written(tmp_path / "whole.mp4", 200).read_bytes()
    for share in (0.5, 0.9, 0.999):
        path = tmp_path / "cut.mp4"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match=r"cut\.mp4 is (truncated|not a video)"):
            list(video.frames(path))


def test_a_file_that_is_no_video_is_named_with_its_reason(tmp_path):
    empty, text, sound = (tmp_path / name for name in ("empty.mp4", "text.mp4", "sound.mp4"))
    empty.touch()
    text.write_text("this is not a video\n" * 100)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reasons = {
        empty: "is empty",
        text: "is not a video that can be read",
        sound: "no pictures .it holds audio",
        tmp_path / "nowhere.mp4": "is missing",
        tmp_path: "is a folder",
    }
    for path, reason in reasons.items():
        for read in (video.probe, lambda p: list(video.frames(p))):
            with pytest.raises(UserError, match=reason) as caught:
                read(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "script", ["ffconcat version 1.0\nfile {name}\n", "#EXTM3U\n#EXTINF:1\n{name}\n#EXT-X-ENDLIST\n"]
)
def test_a_script_that_names_other_files_is_no_video(tmp_path, script):
    written(tmp_path / "clip.mp4")
    for name in ("script.mp4", "script.m3u8", "script.ffconcat"):
        path = tmp_path / name
        path.write_text(script.format(name="clip.mp4"))
        for read in (video.probe, lambda p: list(video.frames(p))):
            with pytest.raises(UserError, match=rf"{name} is (in none of the formats|not a video)"):
                read(path)


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "clip%03d.mp4", "concat:clip.mp4", b"clip\xff.mp4", "-clip.mp4", "clip\n.mp4"]
)
def test_a_name_is_only_a_name(tmp_path, name):
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name))))
    written(tmp_path / "clip.mp4").rename(path)
    assert video.probe(path).frames == len(list(video.frames(path))) == 30
    path.write_bytes(b"no video")
    with pytest.raises(UserError) as caught:
        video.probe(path)
    str(caught.value).encode()  # can be printed anywhere


def test_a_frame_carries_its_planes_and_where_in_them_a_point_lies(tmp_path):
    frame = next(video.frames(written(tmp_path / "clip.mp4")))
    assert frame.size == (W, H) == (frame.picture.width, frame.picture.height)
    np.testing.assert_array_equal(frame.display.to_decoded, [[1, 0, 0], [0, 1, 0]])
    assert len(frame.picture.planes) == 3 and frame.rgb is frame.rgb


def packets(path: Path) -> bytes:
    """A transport stream of 60 pictures, a key picture every 20."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "g": "20", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for i in range(60):
            picture_i = picture(i % 20)
            picture_i[:, i * 16 : i * 16 + 40] = 255  # something that moves
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_i, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_a_transport_stream_that_lost_packets_keeps_the_rest_and_says_so(tmp_path):
    path = tmp_path / "clip.ts"
    content = packets(path)
    whole = list(video.frames(path))
    assert len(whole) == 60 and not any(f.damaged or f.joined for f in whole)
    size = 188
    middle = len(content) // 2 // size * size
    path.write_bytes(content[:middle] + content[middle + size :])
    notes: list[str] = []
    kept = list(video.frames(path, say=notes.append))
    assert 55 <= len(kept) <= 60 and len(notes) == 1 and "packets are damaged" in notes[0]
    damaged = [f.index for f in kept if f.damaged]
    assert damaged and 15 < damaged[0] <= damaged[-1] < 45  # up to the next key picture
    for frame in kept:
        if not frame.damaged:
            assert any(
                np.array_equal(frame.rgb, other.rgb) for other in whole if other.timestamp_us == frame.timestamp_us
            )


@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".m2v", ".h264"])
def test_recordings_that_were_joined_with_cat_go_on(tmp_path, suffix):
    parts = tmp_path / f"part{suffix}"
    encode(parts, codec="libx264" if suffix in (".ts", ".h264") else "mpeg2video")
    alone = list(video.frames(parts))
    path = tmp_path / f"both{suffix}"
    path.write_bytes(parts.read_bytes() * 2)
    frames = list(video.frames(path))
    assert len(frames) == 2 * len(alone)
    steps = np.diff([f.timestamp_us for f in frames])
    assert np.abs(steps - np.median(steps)).max() <= 1000
    for a, b in zip(alone, frames[len(alone) :], strict=True):
        assert close(a.rgb, b.rgb)
    if suffix in (".ts", ".mpg"):
        assert [f.index for f in frames if f.joined] == [len(alone)]


def test_a_late_start_is_no_truncation_and_a_lost_tail_is(tmp_path):
    path = encode(tmp_path / "late.mkv", times=[5000 + 20 * i for i in range(8)])
    assert [f.timestamp_us for f in video.frames(path)] == [20_000 * i for i in range(8)]
    assert video.probe(path).duration_s == pytest.approx(0.16, abs=0.03)
    late = encode(tmp_path / "long.mkv", 100, times=[5000 + 20 * i for i in range(100)]).read_bytes()
    path.write_bytes(late[: len(late) // 2])
    with pytest.raises(UserError, match="truncated"):
        list(video.frames(path))
