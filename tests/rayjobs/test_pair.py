"""Rendered dancers, seen by MediaPipe, meet their exact truth; what is paired is whole, or not there at all."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayjobs import pair
from refiner import UserError
from refiner.command import to_json
from refiner.data import aistpp, manifest, records
from refiner.estimators.base import EstimatorInfo
from refiner.geometry import to_virtual_camera
from refiner.skeleton import hips_midpoint

pytestmark = pytest.mark.cluster


@pytest.fixture
def options(studio_dataset, studio_observations, tmp_path):
    given = {
        "observations": str(studio_observations),
        "dataset": str(studio_dataset.root),
        "out": str(tmp_path / "pairs"),
    }
    return lambda **changes: pair.Options(**given | changes)


def test_rendered_dancers_are_paired_with_their_exact_truth(studio_dataset, options, tmp_path):
    summary = pair.run(options())
    assert summary.videos == 4 * 9 and not summary.videos_left_out
    assert sum(summary.pairs.values()) + sum(summary.frames_left_out.values()) == summary.frames == 4 * 9 * 12
    assert sum(summary.frames_left_out.values()) < 0.1 * summary.frames
    assert summary.fingerprint == records.fingerprint(tmp_path / "pairs", aistpp.SPLITS)
    seen = set()
    for split in aistpp.SPLITS:
        pairs = records.read_pairs(tmp_path / "pairs", split)
        assert set(pairs.sequence) == set(studio_dataset.split(split)) and not seen & set(pairs.sequence)
        seen |= set(pairs.sequence)
        assert set(pairs.camera) == set(aistpp.CAMERAS)
        assert np.abs(hips_midpoint(pairs.ground_truth)).max() < 1e-5
        error = np.abs(pairs.corrupted - pairs.ground_truth).mean((0, 1)) * 100
        assert error[:2].max() < 8 and 3 < error[2] < 20  # cm: the image plane is good, depth is not
        assert summary.mediapipe_depth_cm[split] == pytest.approx(error[2], rel=1e-4)
        one = pairs.take(np.flatnonzero((pairs.camera == "c04") & (pairs.sequence == pairs.sequence[0])))
        truth = studio_dataset.keypoints3d(one.sequence[0])[one.frame]  # at 60 frames/s the frame is the annotation
        expected = to_virtual_camera(studio_dataset.cameras(one.sequence[0])["c04"].to_camera(truth))
        assert np.allclose(one.ground_truth, expected, atol=1e-5)
    assert json.loads((tmp_path / "pairs" / pair.SUMMARY).read_text())["fingerprint"] == summary.fingerprint
    assert (tmp_path / "pairs" / pair.PLOTS).read_bytes().startswith(b"\x89PNG")


def test_the_same_again_gives_the_same_and_another_split_leaves_nothing_of_the_first(options, tmp_path):
    first = pair.run(options())
    assert pair.run(options()) == first
    other = pair.run(options(split_by="choreography"))
    assert sum(other.pairs.values()) == sum(first.pairs.values()) and other.fingerprint != first.fingerprint
    files = [path.name for path in (tmp_path / "pairs").rglob("*.parquet")]
    assert len(files) == len(set(files)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


def test_a_run_that_fails_leaves_the_pairs_as_they_were(options, tmp_path):
    first = pair.run(options())
    nothing = tmp_path / "nothing"
    (nothing / "annotations").mkdir(parents=True)
    with pytest.raises(UserError, match=r"pose_train\.txt is missing"):
        pair.run(options(dataset=str(nothing)))
    assert json.loads((tmp_path / "pairs" / pair.SUMMARY).read_text())["fingerprint"] == first.fingerprint
    shutil.rmtree(nothing)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


def test_videos_that_cannot_be_paired_say_why_and_the_others_go_on(studio_observations, options, tmp_path):
    folder = tmp_path / "observations"
    shutil.copytree(studio_observations, folder)
    shutil.rmtree(folder / "failures", ignore_errors=True)
    some = sorted(folder.glob("*.parquet"))
    some[0].rename(folder / "holiday.parquet")
    stranger = aistpp.Name.parse(some[1])
    some[1].rename(folder / f"{aistpp.Name(**{**as_dict(stranger), 'music': 'mBR9'})}.parquet")
    hide_people(some[12], frames=2)
    some[3].write_bytes(some[3].read_bytes()[:-100])
    summary = pair.run(options(observations=str(folder)))
    assert summary.frames_left_out["nobody detected"] >= 2
    written = json.loads((tmp_path / "pairs" / pair.SUMMARY).read_text())
    assert {key: value for key, value in written.items() if key != "problems"} == json.loads(
        json.dumps(to_json(summary))
    )
    assert summary.videos == 36 and sum(summary.videos_left_out.values()) == 3
    problems = written["problems"]
    assert "not a complete Parquet file" in problems[some[3].stem]
    assert "not an AIST++ name" in problems["holiday"]
    assert [r for v, r in problems.items() if "mBR9" in v] == ["its sequence is in none of the dataset's splits"]


def test_videos_with_the_same_fault_are_counted_together(make_pairs, tmp_path):
    problems = {f"v{i}": f"the person in the video is {i / 10} body heights away" for i in range(2)} | {"w": "gone"}
    path = tmp_path / "one.parquet"
    pairs = make_pairs(1)
    records.write_atomically(pairs.to_table(), path, {})
    useful = {
        "split": "train", "pairs": 3, "frames": 3, "left_out": Counter(), "depth_error_m": 0.1,
        "described": manifest.described(pairs, path, "train"),
    }  # fmt: skip
    summary = pair.summarise([useful], problems, 4, EstimatorInfo(), "official")
    assert sorted(summary.videos_left_out.values()) == [1, 2] and summary.videos_left_out["gone"] == 1


def hide_people(path: Path, frames: int) -> None:
    """The observations as they would be if nobody had been detected in the first frames."""
    data = pq.read_table(path)
    detected = np.array(data.column("detected").to_pylist())
    detected[:frames] = False
    at = data.schema.get_field_index("detected")
    pq.write_table(data.set_column(at, data.schema.field(at), pa.array(detected)), path)


def as_dict(name: aistpp.Name) -> dict[str, str]:
    return {
        field: getattr(name, field) for field in ("genre", "situation", "camera", "dancer", "music", "choreography")
    }


def test_wrong_folders_are_named(studio_observations, options, tmp_path):
    with pytest.raises(UserError, match="there are no observations in"):
        pair.run(options(observations=str(tmp_path)))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="something else made it"):
        pair.run(options(out=str(mine)))
    assert (mine / "thesis.tex").exists()
    folder = tmp_path / "mixed"
    shutil.copytree(studio_observations, folder)
    path = sorted(folder.glob("*.parquet"))[0]
    data = pq.read_table(path)
    made_by = json.dumps(json.loads(data.schema.metadata[b"estimator"]) | {"version": "0.9"})
    pq.write_table(data.replace_schema_metadata({**data.schema.metadata, b"estimator": made_by.encode()}), path)
    with pytest.raises(UserError, match="made by different estimators"):
        pair.run(options(observations=str(folder)))
