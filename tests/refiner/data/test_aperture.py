"""What a container says is not to be shown is not shown, and whatever nonsense it says costs nothing."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refiner.data import video
from refiner.data.aperture import UNCROPPED, aperture
from tests.refiner.data.test_display import H, W, filmed, psnr

UPRIGHT = (1, 0, 0, 1)


def with_box(content: bytes, path: tuple[bytes, ...], box: bytes) -> bytes:
    """An MP4 whose index is at its end, with a box appended to another one."""
    edited, start = bytearray(content), 0
    for kind in path:
        at = edited.index(kind, start) - 4
        edited[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", edited, at)[0] + len(box))
        start = at + 8
    end = at + struct.unpack_from(">I", edited, at)[0] - len(box)
    edited[end:end] = box
    return bytes(edited)


def clap(width: Fraction, height: Fraction, right: Fraction, down: Fraction) -> bytes:
    numbers = [n for value in (width, height, right, down) for n in value.as_integer_ratio()]
    return struct.pack(">I4sIIIIiIiI", 40, b"clap", *numbers)


TO_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")


@pytest.mark.parametrize(
    ("width", "height", "right", "down", "crop"),
    [
        (176, 100, 0, 0, (8, 6, 8, 6)),
        (176, 112, Fraction(8), 0, (16, 0, 0, 0)),
        (Fraction(352, 2), 100, Fraction(-4), Fraction(6), (4, 12, 12, 0)),
        (400, 100, 0, 0, UNCROPPED),  # more than there is
        (100, 100, 90, 0, UNCROPPED),  # beyond its edge
    ],
)
def test_mp4s_clean_aperture_is_cut_out(tmp_path, width, height, right, down, crop):
    path = filmed(tmp_path / "clip.mp4", UPRIGHT, Fraction(1))
    (whole, *_) = (frame.rgb for frame in video.frames(path))
    box = clap(*map(Fraction, (width, height, right, down)))
    path.write_bytes(with_box(path.read_bytes(), TO_ENTRY, box))
    frames = list(video.frames(path))
    left, top, cut_right, bottom = crop
    assert len(frames) == 30
    assert (video.probe(path).width, video.probe(path).height) == (W - left - cut_right, H - top - bottom)
    np.testing.assert_array_equal(frames[0].rgb, whole[top : H - bottom, left : W - cut_right])


def test_matroskas_crop_is_cut_out(tmp_path):
    path = filmed(tmp_path / "clip.mkv", UPRIGHT, Fraction(1))
    (whole, *_) = (frame.rgb for frame in video.frames(path))
    content, unit = path.read_bytes(), b"\x54\xb2\x81"  # of the shown size; in its place: pixels less at the left
    at = content.index(unit)
    path.write_bytes(content[:at] + b"\x54\xcc\x81\x10" + content[at + 4 :])
    np.testing.assert_array_equal(next(video.frames(path)).rgb, whole[:, 16:])


def test_turned_pictures_are_cut_before_they_are_turned(tmp_path):
    path = filmed(tmp_path / "clip.mp4", (0, 1, -1, 0), Fraction(1))
    (whole, *_) = (frame.rgb for frame in video.frames(path))
    path.write_bytes(with_box(path.read_bytes(), TO_ENTRY, clap(*map(Fraction, (W - 8, H, 4, 0)))))
    np.testing.assert_array_equal(next(video.frames(path)).rgb, whole[8:])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_bytes_say_a_crop_leaves_some_of_the_picture(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    suffix, name = data.draw(st.sampled_from([("mp4", "mov,mp4,m4a"), ("mkv", "matroska,webm")]))
    path = folder / f"fuzz.{suffix}"
    if not path.exists():
        filmed(path, UPRIGHT, Fraction(4, 3))
        if suffix == "mp4":
            path.write_bytes(with_box(path.read_bytes(), TO_ENTRY, clap(*map(Fraction, (176, 100, 0, 0)))))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    mutant = folder / f"mutant.{suffix}"
    mutant.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with mutant.open("rb") as file:
        left, top, right, bottom = aperture(file, name, 0, (W, H))
        assert file.tell() == 0
    assert min(left, top, right, bottom) >= 0 and left + right < W and top + bottom < H


def test_of_two_moments_in_one_picture_one_is_shown(tmp_path: Path):
    """Interlaced: the odd rows are a moving square's, a fiftieth of a second later."""

    def moment(time: int) -> np.ndarray:
        picture = np.full((H, W, 3), 60, np.uint8)
        picture[30:80, 2 * time : 2 * time + 40] = 200
        return picture

    path = tmp_path / "interlaced.mp4"
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "x264-params": "tff=1", "flags": "+ildct+ilme"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for i in range(30):
            woven = moment(4 * i)
            woven[1::2] = moment(4 * i + 2)[1::2]
            frame = av.VideoFrame.from_ndarray(woven, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(video.frames(path))
    assert len(frames) == 30 and frames[0].picture.interlaced_frame
    for i in (5, 20):
        shown = frames[i].rgb
        assert shown.shape == (H, W, 3)
        middle = shown[35:75].astype(int)  # no comb: neighbouring rows agree, and they are the first moment's
        assert np.abs(np.diff(middle, axis=0)).max() < 30
        assert psnr(middle, moment(4 * i)[35:75]) > psnr(middle, moment(4 * i + 2)[35:75]) + 6
