"""Every video of a folder is extracted once, and a bad one costs itself alone."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from rayjobs import extract
from refiner import UserError
from refiner.data import records, video
from refiner.estimators import mediapipe, named
from refiner.estimators.observe import is_done
from tests.connection import connection
from tests.waiting import get, wait_for

pytestmark = pytest.mark.cluster
EITHER = pytest.mark.parametrize("estimator", ["blazepose", "mediapipe"])  # blazepose-bf16: tests/refiner/estimators


def film(path: Path, frames: int = 12) -> Path:
    """A short video of nobody."""
    with video.VideoWriter(path, (128, 96), 60) as writer:
        for i in range(frames):
            writer.write(np.full((96, 128, 3), 100 + i % 100, dtype=np.uint8))
    return path


@pytest.fixture
def connected(cluster):
    """A connection whose workers can import this folder's modules."""
    with connection(cluster, {"PYTHONPATH": str(Path(__file__).parent)}):
        yield


def options(tmp_path, **changes) -> extract.Options:
    return extract.Options(videos=str(tmp_path / "videos"), out=str(tmp_path / "out"), **changes)


def observed(tmp_path) -> set[str]:
    return {path.stem for path in (tmp_path / "out").glob("*.parquet")}


@EITHER
def test_real_people_are_found_in_every_frame(cluster, real_people, tmp_path, estimator):
    run = extract.Options(videos=str(real_people), out=str(tmp_path / "out"), estimator=estimator)
    summary = extract.run(run)
    assert (summary.videos, summary.extracted, summary.frames, summary.detected) == (4, 4, 400, 400)
    for camera, width in (("cam01", 1080), ("cam02", 1080), ("cam03", 1088), ("cam04", 1088)):
        path = tmp_path / "out" / f"{camera}.parquet"
        data = records.read_table(path, records.OBSERVATIONS)
        assert data.column("frame").to_pylist() == list(range(100)) and set(data.column("video").to_pylist()) == {
            camera
        }
        image, world = records.column(data, "image"), records.column(data, "world")
        assert ((image > 0) & (image < (width, 1920))).mean() > 0.95
        assert 1.0 < np.median(np.ptp(world[..., 1], axis=1)) < 2.2  # metres from head to foot
        metadata = pq.read_schema(path).metadata
        assert json.loads(metadata[b"size"]) == [width, 1920] and json.loads(metadata[b"fps"]) == 60
        assert json.loads(metadata[b"estimator"])["name"] == named(estimator).info.name
    again = extract.run(run)
    assert (again.done_before, again.extracted) == (4, 0)


@EITHER
def test_poison_costs_itself_alone_within_bounded_attempts(connected, tmp_path, estimator):
    good = [film(tmp_path / "videos" / f"good{i}.mp4", 20 + i) for i in range(3)]
    for name in ("raise", "hang", "segfault", "once"):
        film(tmp_path / "videos" / f"{name}.mp4")
    (tmp_path / "videos/text.mp4").write_text("no video")
    (tmp_path / "videos/empty.mp4").touch()
    (tmp_path / "videos/cut.mp4").write_bytes(good[0].read_bytes()[:-200])
    (tmp_path / "videos/notes.txt").write_text("not taken for a video")
    run = options(tmp_path, observe="poison:observe", stall_s=10, actors=2, estimator=estimator)
    summary = extract.run(run)
    assert (summary.videos, summary.extracted, summary.failed, summary.frames) == (10, 4, 6, 20 + 21 + 22 + 12)
    assert observed(tmp_path) == {"good0", "good1", "good2", "once"}
    reasons = {}
    for path in (tmp_path / "out/failures").glob("*.json"):
        failure = json.loads(path.read_text())
        reasons[path.stem] = (failure["attempts"], failure["reason"])
        assert Path(failure["video"]).stem == path.stem
    assert set(reasons) == {"raise", "hang", "segfault", "text", "empty", "cut"}
    for name, attempts, reason in (
        ("raise", 2, "the filter graph is broken"), ("hang", 2, "no progress for 10 s"), ("segfault", 2, "SIGSEGV"),
        ("text", 1, "not a video that can be read"), ("empty", 1, "is empty"), ("cut", 1, "is truncated"),
    ):  # fmt: skip
        assert reasons[name][0] == attempts and reason in reasons[name][1]
    trace = json.loads((tmp_path / "out/failures/segfault.json").read_text())["traceback"]
    assert "string_at" in trace

    # what failed is left alone, until it is asked for; what was put right then leaves the failures
    again = extract.run(run)
    assert (again.done_before, again.failed_before, again.extracted, again.failed) == (4, 6, 0, 0)
    film(tmp_path / "videos/empty.mp4")
    (tmp_path / "videos/hang.mp4").unlink()  # nobody waits for it twice
    retried = extract.run(dataclasses.replace(run, retry_failed=True))
    assert (retried.extracted, retried.failed) == (1, 4) and "empty" in observed(tmp_path)
    assert not (tmp_path / "out/failures/empty.json").exists()
    assert not [p for p in (tmp_path / "out").rglob("*.part")]
    wait_for(prometheus_knows, pause_s=1)  # Ray reports every ten seconds


def prometheus_knows() -> bool:
    """Whether it sees the frames of an extraction, and both outcomes of videos."""
    metrics = get(f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}").text
    wanted = ("ray_extract_frames_total", "ray_extract_videos_total{", 'outcome="extracted"', 'outcome="failed"')
    return all(text in metrics for text in wanted)


def test_a_run_that_goes_wrong_as_a_whole_ends(connected, tmp_path):
    for i in range(6):
        film(tmp_path / "videos" / f"raise_late{i}.mp4")
    with pytest.raises(UserError, match=r"more than --max-failures.*the filter graph is broken"):
        extract.run(options(tmp_path, observe="poison:observe", actors=1, max_failures=2))
    assert len(list((tmp_path / "out/failures").iterdir())) < 6


def test_another_estimator_or_stride_is_not_what_was_asked_for(connected, tmp_path):
    film(tmp_path / "videos/a.mp4", 30)
    assert extract.run(options(tmp_path)).frames == 30
    assert extract.run(options(tmp_path, stride=4)).frames == 8
    data = records.read_table(tmp_path / "out/a.parquet", records.OBSERVATIONS)
    assert data.column("frame").to_pylist() == [0, 4, 8, 12, 16, 20, 24, 28] and not any(
        data.column("detected").to_pylist()
    )
    path = tmp_path / "out/a.parquet"
    estimator = mediapipe.MediaPipe().info
    written = {key: value for key, value in records.read_metadata(path).items() if key != "schema_version"}
    for change, done in (({"version": "0.9"}, False), ({"looks": 2}, False), ({}, True)):
        made_by = json.loads(written["estimator"]) | change
        records.write_atomically(data, path, {**written, "estimator": made_by})
        assert is_done(path, estimator, 4) == done
    of_older_files = {key: made_by[key] for key in ("name", "version", "model_sha256")}
    records.write_atomically(data, path, {**written, "estimator": of_older_files})
    assert is_done(path, estimator, 4)
    path.write_bytes(b"PAR1 cut off")  # not whole: not done
    assert extract.run(options(tmp_path, stride=4)).extracted == 1


def test_a_dry_run_says_what_it_will_take_and_does_nothing(cluster, real_people, tmp_path):
    film(tmp_path / "videos/a.mp4", 30)
    extract.run(options(tmp_path))
    for name in ("cam01", "cam03"):
        (tmp_path / f"videos/{name}.mp4").symlink_to(real_people / f"{name}.mp4")
    expected = extract.run(options(tmp_path, dry_run=True, stride=2, price=0.5, actors=3))
    assert (expected.videos, expected.done, expected.frames, expected.cores) == (
        3,
        0,
        115,
        3,
    )  # done, but not at this stride
    expected = extract.run(options(tmp_path, dry_run=True, price=0.5, actors=3))
    assert (expected.videos, expected.done, expected.frames) == (2, 1, 200)
    assert 2 < expected.ms_per_frame < 2000
    assert expected.core_hours == pytest.approx(200 * expected.ms_per_frame / 3.6e6)
    assert expected.cost == pytest.approx(0.5 * expected.core_hours)
    assert expected.core_hours / 3 <= expected.wall_hours <= expected.core_hours
    assert observed(tmp_path) == {"a"}


def test_what_is_asked_for_wrongly_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no videos found in .*videos"):
        extract.run(options(tmp_path))
    film(tmp_path / "videos/a.mp4")
    film(tmp_path / "videos/below/a.mp4")
    with pytest.raises(UserError, match="two videos have the same name"):
        extract.run(options(tmp_path))
    (tmp_path / "videos/below/a.mp4").unlink()
    with pytest.raises(UserError, match="no estimator 'kinect': choose mediapipe"):
        extract.run(options(tmp_path, estimator="kinect"))
    with pytest.raises(UserError, match="--stride is 0"):
        options(tmp_path, stride=0)


def test_short_videos_are_handed_out_together_and_long_ones_alone():
    def sizes(videos: list[float], actors: int) -> list[list[float]]:
        rows = [{"size": int(size * 1e6)} for size in videos]
        return [[row["size"] / 1e6 for row in task] for task in extract.tasks(rows, actors)]

    assert sizes([30, 4, 4, 4], 1) == [[30], [4], [4], [4]]
    assert [len(task) for task in sizes([0.1] * 40, 2)] == [8, 8, 6, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert sizes([5, 1, 0.6] + [0.4] * 9, 1)[:4] == [[5], [1], [0.6, 0.4, 0.4], [0.4, 0.4, 0.4]]
    assert list(extract.tasks([], 2)) == []
