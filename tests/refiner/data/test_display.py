"""Pictures as players show them: every orientation, pixel shape and order of streams, against FFmpeg's own filters."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from refiner.data import video
from refiner.data.display import Display

W, H = 192, 112
# (a, b, c, d) of the display matrix -> FFmpeg's filters for it, as its autorotation sets them up (fftools, ffmpeg_filter.c).
ORIENTATIONS = {
    (1, 0, 0, 1): "null",
    (0, 1, -1, 0): "transpose=clock",
    (-1, 0, 0, -1): "hflip,vflip",
    (0, -1, 1, 0): "transpose=cclock",
    (-1, 0, 0, 1): "hflip",
    (1, 0, 0, -1): "vflip",
    (0, 1, 1, 0): "transpose=cclock_flip",
    (0, -1, -1, 0): "transpose=clock_flip",
}
ASPECTS = (Fraction(1), Fraction(4, 3), Fraction(16, 11), Fraction(3, 4))


def scene(seed: int = 0, size: tuple[int, int] = (W, H)) -> np.ndarray:
    """Smooth, and different in every corner, (H, W, 3) uint8."""
    width, height = size
    coarse = np.random.default_rng(seed).integers(30, 220, (4, 6, 3)).astype(np.uint8)
    picture = av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(
        width=width, height=height, interpolation="BICUBIC"
    )
    return picture.to_ndarray(format="rgb24")


def filmed(path: Path, matrix: tuple[int, ...], aspect: Fraction, streams: tuple[str, ...] = ("video",)) -> Path:
    """A video with that display matrix and those pixels; "thumbnail": another stream, shorter and smaller."""
    with av.open(str(path), "w") as container:
        made = []
        for kind in streams:
            stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
            width, height = (W, H) if kind == "video" else (64, 64)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if kind == "video":
                stream.codec_context.sample_aspect_ratio = aspect
                a, b, c, d = (v << 16 for v in matrix)
                stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
            made.append((stream, kind, (width, height)))
        for i in range(30):
            for stream, kind, size in made:
                if kind == "video" or i < 2:
                    frame = av.VideoFrame.from_ndarray(scene(0 if kind == "video" else 1, size), format="rgb24")
                    frame.pts, frame.time_base = i, Fraction(1, 25)
                    container.mux(stream.encode(frame))
        for stream, *_ in made:
            container.mux(stream.encode())
    return path


def filtered(path: Path, filters: str) -> np.ndarray:
    """The largest stream's first picture through FFmpeg's filters, (H, W, 3) uint8."""
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda s: s.codec_context.width)
        picture = next(container.decode(stream))
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=stream)]
        for step in filters.split(","):
            name, _, arguments = step.partition("=")
            nodes.append(graph.add(name, arguments or None))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        graph.push(picture)
        return graph.pull().to_ndarray(format="rgb24")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_each_orientation_and_pixel_shape_is_shown_as_ffmpeg_shows_it(tmp_path, matrix):
    orders = (("video",), ("thumbnail", "video"), ("video", "thumbnail"))
    for aspect, streams in itertools.product(ASPECTS, orders):
        path = filmed(tmp_path / "clip.mp4", matrix, aspect, streams)
        size = (round(W * aspect), H) if aspect >= 1 else (W, round(H / aspect))
        expected = filtered(path, f"scale={size[0]}:{size[1]}:flags=bicubic,{ORIENTATIONS[matrix]}")
        frames = list(video.frames(path))
        info = video.probe(path)
        assert len(frames) == 30 and frames[0].rgb.flags.c_contiguous
        assert (info.width, info.height) == frames[0].size == expected.shape[1::-1]
        assert psnr(frames[0].rgb, expected) > 40, (aspect, streams)
        assert len(info.notes) == len(streams) - 1
        # where a point lies in the decoded planes: the luma there is that of the shown picture
        x, y = 0.3 * info.width, 0.7 * info.height
        column, row = frames[0].display.to_decoded @ (x, y, 1)
        plain = Display((W, H)).rgb(frames[0].picture)
        difference = plain[int(row), int(column)].astype(int) - frames[0].rgb[int(y), int(x)]
        assert np.abs(difference).max() < 24


def test_a_matrix_or_an_aspect_that_means_nothing_changes_nothing(tmp_path):
    path = filmed(tmp_path / "clip.mp4", (0, 0, 0, 0), Fraction(1000, 1))
    assert next(video.frames(path)).size == (W, H)
