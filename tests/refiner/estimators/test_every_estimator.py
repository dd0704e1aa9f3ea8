"""What any video may do to an estimator, tried on each of them: formats, turned pictures, sizes, nobody, somebody again."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from refiner import UserError
from refiner.data import records, video
from refiner.data.video import Frame
from refiner.estimators import named
from refiner.estimators.blazepose.crop import Region, crop
from refiner.estimators.blazepose.picture import picture_of
from refiner.estimators.mediapipe_assets import model_path
from refiner.estimators.observe import ahead, observe

WAYS = {
    "mediapipe": {"estimator": "mediapipe"},
    "blazepose": {"estimator": "blazepose"},
    "two-looks": {"estimator": "blazepose", "looks": 2, "smoothing": "none"},
    "two-threads": {"estimator": "blazepose", "threads": 2},
}
SIZE = (540, 960)  # width, height of the real person here
FORMATS = {
    "yuv420p": "libx264", "yuvj420p": "libx264", "yuv420p10le": "libx264", "yuv422p": "libx264", "yuv444p": "libx264",
    "gray": "libx264", "yuv422p10le": "libx264", "nv12": "rawvideo", "bgr0": "ffv1",
}  # fmt: skip


@pytest.fixture(scope="module")
def person(real_people) -> list[np.ndarray]:
    """A real person, twelve successive frames."""
    import cv2

    frames = itertools.islice(video.frames(real_people / "cam01.mp4"), 12)
    return [np.ascontiguousarray(cv2.resize(frame.rgb, SIZE, interpolation=cv2.INTER_AREA)) for frame in frames]


@pytest.fixture(params=WAYS)
def watched(request, tmp_path):
    """Observes a video with each of the estimators; the table, or the error."""

    def watch(path: Path):
        out = tmp_path / "observations.parquet"
        observe(video=str(path), out=str(out), model=str(model_path()), **WAYS[request.param])
        table = records.read_table(out, records.OBSERVATIONS)
        return {name: records.column(table, name) for name in ("detected", "world", "image", "visibility")}

    return watch


def film(
    path: Path,
    pictures: list[np.ndarray],
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    matrix: int = Colorspace.ITU709,
    full: bool = False,
) -> Path:
    """A video in that format, which says which colours it has."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(60), options={"crf": "8"} if codec == "libx264" else {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        colour_range = ColorRange.JPEG if full or pix_fmt == "yuvj420p" else ColorRange.MPEG
        if pix_fmt.startswith("yuv"):
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, colour_range
        for number, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
                format=pix_fmt, dst_colorspace=matrix, dst_color_range=colour_range
            )
            frame.pts, frame.time_base = number, Fraction(1, 60)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def assert_the_person(seen: dict[str, np.ndarray], width: float = SIZE[0]) -> None:
    assert seen["detected"].all()
    hips = seen["image"][:, 23:25].mean(1)
    assert (np.abs(hips - (0.39 * width, 0.38 * SIZE[1] / SIZE[0] * width)) < 0.03 * width).all()
    assert (np.ptp(seen["world"][..., 1], axis=1) > 1.2).all() and (np.ptp(seen["world"][..., 1], axis=1) < 2.2).all()


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_every_pixel_format_shows_the_person(watched, person, tmp_path, pix_fmt):
    assert_the_person(watched(film(tmp_path / "clip.mkv", person[:4], pix_fmt, FORMATS[pix_fmt])))


@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709, Colorspace.FCC, Colorspace.SMPTE240M])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full range"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p10le"])
def test_a_crop_has_the_colours_of_the_picture(tmp_path, pix_fmt, matrix, full):
    """From the planes as from RGB: matrix and range are the file's."""
    y, x = np.mgrid[0:96, 0:128]
    rgb = np.stack([40 + x, 60 + y, 200 - x], axis=-1).astype(np.uint8)
    path = film(tmp_path / "clip.mkv", [rgb] * 3, pix_fmt, matrix=matrix, full=full)
    frame = next(video.frames(path))
    region = Region(60.3, 50.1, 70.0, 0.3)
    fast = crop(picture_of(frame), region, 64).astype(int)
    slow = crop(picture_of(Frame(0, 0, frame.rgb)), region, 64).astype(int)
    exact = crop(picture_of(Frame(0, 0, rgb)), region, 64).astype(int)
    assert np.abs(fast - slow).mean() < 2.5 and np.abs(fast - slow).max() < 12
    assert np.abs(fast - exact).mean() < 3
    assert (picture_of(frame).to_rgb is not None) == (pix_fmt in ("yuv420p", "yuvj420p"))


@pytest.mark.parametrize("orientation", range(8))
def test_a_turned_or_mirrored_picture_is_seen_upright_from_its_planes(person, tmp_path, orientation):
    """The eight orientations that a display matrix may ask for."""
    from refiner.data.display import Display

    transposed, flip_x, flip_y = bool(orientation & 1), bool(orientation & 2), bool(orientation & 4)
    stored = person[0]
    path = film(tmp_path / "clip.mkv", [stored] * 2)
    frame = next(video.frames(path))
    display = Display((stored.shape[1], stored.shape[0]), transposed=transposed, flip_x=flip_x, flip_y=flip_y)
    turned = Frame(0, 0, picture=frame.picture, display=display)
    region = Region(200.2, 340.7, 300.0, 0.4)
    fast = crop(picture_of(turned), region, 128).astype(int)
    slow = crop(picture_of(Frame(0, 0, display.rgb(frame.picture))), region, 128).astype(int)
    assert picture_of(turned).to_rgb is not None
    assert np.abs(fast - slow).mean() < 3


def test_what_is_no_whole_video_is_refused_and_leaves_no_file(watched, person, tmp_path):
    whole = film(tmp_path / "whole.mp4", person).read_bytes()
    for name, content in (("cut", whole[: len(whole) * 2 // 3]), ("text", b"no video\n" * 99), ("empty", b"")):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}\.mp4"):
            watched(path)
    assert not list(tmp_path.glob("*.parquet"))


def test_nobody_at_all(watched, tmp_path):
    grey = np.full((96, 128, 3), 120, dtype=np.uint8)
    seen = watched(film(tmp_path / "clip.mp4", [grey] * 5))
    assert not seen["detected"].any() and not seen["world"].any()


def test_a_person_who_leaves_and_comes_back(watched, person, tmp_path):
    grey = np.full_like(person[0], 120)
    seen = watched(film(tmp_path / "clip.mp4", [*person[:4], *[grey] * 4, *person[8:]]))
    assert seen["detected"].tolist() == [True] * 4 + [False] * 4 + [True] * 4
    assert not seen["world"][4:8].any()


def test_a_picture_that_changes_its_size_in_mid_stream(person):
    import cv2

    half = [np.ascontiguousarray(cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)) for rgb in person]
    pictures = [*person[:4], *half[4:8], *person[8:]]
    for way in (WAYS["blazepose"], WAYS["two-looks"], WAYS["mediapipe"]):
        options = {name: value for name, value in way.items() if name != "estimator"}
        with named(way["estimator"], **options).open() as watching:
            seen = [watching.estimate(Frame(i, 16_667 * i, rgb)) for i, rgb in enumerate(pictures)]
        assert all(o is not None for o in seen)
        for observation, rgb in zip(seen, pictures, strict=True):
            assert abs(observation.image[23:25, 0].mean() / rgb.shape[1] - 0.39) < 0.06


def test_a_video_decoded_ahead_is_the_same_and_its_errors_arrive(person, tmp_path):
    path = film(tmp_path / "clip.mp4", person)
    frames, early = list(video.frames(path)), list(ahead(video.frames(path)))
    assert [f.timestamp_us for f in early] == [f.timestamp_us for f in frames]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(early, frames, strict=True))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UserError, match=r"cut\.mp4"):
        list(ahead(video.frames(cut)))
    taken = ahead(video.frames(path))
    next(taken)
    taken.close()  # who leaves early leaves no thread behind
    import threading

    assert not [t for t in threading.enumerate() if t.name == "decoding"]


def test_two_looks_leave_a_column_that_readers_of_one_need_not_know(person, tmp_path):
    path, out = film(tmp_path / "clip.mp4", person[:3]), tmp_path / "a.parquet"
    observe(video=str(path), out=str(out), model=str(model_path()), estimator="blazepose", looks=2)
    wide = records.read_table(out, records.OBSERVATIONS.append(records.LOOKS_DIFFER))
    assert records.column(wide, "looks_differ").shape == (3, 33, 3) and records.column(wide, "looks_differ").any()
    assert records.read_table(out, records.OBSERVATIONS).column_names == records.OBSERVATIONS.names
