"""Video files as they come: every width, turned, deep, uneven in time, cut off, empty, or no video at all."""

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
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(number):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = (times[i] if times else 20 * i), Fraction(1, 1000)
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


def test_a_truncated_video_is_refused_wherever_it_is_cut(tmp_path):
    content = written(tmp_path / "whole.mp4", 200).read_bytes()
    for share in (0.5, 0.9, 0.999):
        path = tmp_path / "cut.mp4"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match=r"cut\.mp4 is (truncated|no video)"):
            list(video.frames(path))


def test_a_file_that_is_no_video_is_named_with_its_reason(tmp_path):
    empty, text, sound = (tmp_path / name for name in ("empty.mp4", "text.mp4", "sound.mp4"))
    empty.touch()
    text.write_text("this is no video\n" * 100)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reasons = {
        empty: "is empty",
        text: "is no video that can be read",
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
            with pytest.raises(UserError, match=rf"{name} is (in none of the formats|no video)"):
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
