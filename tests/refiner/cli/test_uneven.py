"""Videos whose pictures change their size on the way, or do not come as their header says: one lens angle, one time line."""

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from refiner.cli.report import POINTS, ROOM
from refiner.data import records, video
from refiner.skeleton import INDEX
from tests.refiner.cli.test_video import called

pytestmark = pytest.mark.slow
COUNT = 20
ANKLES = [INDEX["left_ankle"], INDEX["right_ankle"]]


@pytest.fixture(scope="module")
def dance(tmp_path_factory) -> list[np.ndarray]:
    """COUNT pictures of a rendered dancer, 200 × 360."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("dance")
    (take, *_) = plan(Spec(sequences=1, seconds=COUNT / 20, fps=20, seed=4, size=(640, 360)))
    take.film(root, ["c01"])
    return [frame.rgb[:, 220:420].copy() for frame in video.frames(take.video(root, "c01"))]


def encoded(path: Path, pictures: list[np.ndarray], times_ms: list[int] | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "12"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = times_ms[number] if times_ms else 50 * number, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_each_picture_has_the_lens_of_its_own_size(dance, tmp_path):
    twice = [cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for picture in dance]
    parts = [encoded(tmp_path / f"{n}.ts", p).read_bytes() for n, p in enumerate((dance, twice, dance))]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    done = called("video", tmp_path / "joined.ts", "--overlay", "--json", "--out", tmp_path / "out")
    report = json.loads(done.stdout)["report"]
    assert report["frames"] == 3 * COUNT and any("change their size" in note for note in report["notes"])
    path = tmp_path / "out/joined.refined.parquet"
    table = records.read_table(path, records.REFINED)
    beside = records.beside(path, (ROOM, POINTS))
    frames = records.column(table, "frame")
    assert len(frames) == 3 * COUNT
    room = records.column(beside, "room").reshape(-1, 17, 3)
    first, second, third = (room[frames // COUNT == part] for part in range(3))
    for other in (second, third):
        assert np.abs(other[:, ANKLES, 1].mean() - first[:, ANKLES, 1].mean()) < 0.05
        assert np.abs(other[..., 2].mean() - first[..., 2].mean()) < 0.15  # as far from the camera
    points = records.column(beside, "points").reshape(-1, 17, 2)
    np.testing.assert_allclose(points[frames // COUNT == 1], 2 * points[frames // COUNT == 0], atol=25)
    overlay = list(video.frames(tmp_path / "out/joined.overlay.mp4"))
    assert len(overlay) == 3 * COUNT and len({frame.size for frame in overlay}) == 1


TIMES = {
    "high speed": [n * 1000 // 120 for n in range(COUNT)],
    "a pause": [50 * n + (2000 if n >= 10 else 0) for n in range(COUNT)],
    "two rates": [66 * n if n < 10 else 660 + 33 * (n - 10) for n in range(COUNT)],
}


@pytest.mark.parametrize("kind", TIMES)
def test_every_file_has_the_time_of_the_rows(dance, tmp_path, kind):
    times = TIMES[kind]
    path = encoded(tmp_path / "clip.mkv", dance, times)
    done = called("video", path, "--to", "bvh", "trc", "csv", "--overlay", "--json", "--out", tmp_path / "out")
    report = json.loads(done.stdout)["report"]
    assert any("unevenly apart" in note for note in report["notes"]) == (kind == "two rates")
    assert any("its header says" in note for note in report["notes"]) == (kind == "high speed")
    table = records.read_table(tmp_path / "out/clip.refined.parquet", records.REFINED)
    stamps = records.column(table, "timestamp_us")
    assert np.abs(stamps / 1000 - times).max() < 1
    overlay = [frame.timestamp_us for frame in video.frames(tmp_path / "out/clip.overlay.mp4")]
    assert np.abs(np.array(overlay) - stamps).max() < 1000
    text = (tmp_path / "out/clip.bvh").read_text()
    frames, step = (float(text.split(word)[1].split()[0]) for word in ("Frames:", "Frame Time:"))
    assert abs((frames - 1) * step - times[-1] / 1000) < step
    assert step == pytest.approx(min(np.diff(times)) / 1000, rel=0.06)
    trc = [line.split("\t") for line in (tmp_path / "out/clip.trc").read_text().splitlines()[6:]]
    assert abs(float(trc[-1][1]) - times[-1] / 1000) < step
