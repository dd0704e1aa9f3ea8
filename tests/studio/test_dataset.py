"""A data set is the same every time, and it lies on disk as AIST++ does."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from refiner import UserError, files
from refiner.data import aistpp
from refiner.data.aistpp import CAMERAS, FPS, SPLITS, Dataset, Name
from refiner.data.video import probe
from studio.dataset import Take, plan, prepare
from tests.studio.specs import spec


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        take = plan(spec(seed=seed, seconds=0.2, size=(160, 96)))[1]
        take.write_annotations(tmp_path / folder)
        take.film(tmp_path / folder, ["c02"])
    first, again, other = (
        [digest(path) for path in sorted((tmp_path / folder).rglob("*")) if path.is_file()] for folder in "abc"
    )
    assert len(first) == 4
    assert first == again
    assert not set(first) & set(other)


def test_a_larger_dataset_begins_with_the_smaller_one():
    small, large = plan(spec(sequences=3)), plan(spec(sequences=30))
    for a, b in zip(small, large, strict=False):
        assert a.name == b.name and a.split == b.split
        np.testing.assert_array_equal(a.joints(np.array([0.0, 0.3])), b.joints(np.array([0.0, 0.3])))


def test_annotations_are_at_60_hz_whatever_rate_the_videos_have(tmp_path):
    truths = []
    for fps in (10, 25):
        take = plan(spec(fps=fps))[0]
        take.write_annotations(tmp_path / str(fps))
        truths.append(Dataset(tmp_path / str(fps)).keypoints3d(str(take.name)))
    np.testing.assert_array_equal(*truths)
    assert len(truths[0]) == 0.5 * FPS


def test_no_dancer_and_no_choreography_is_in_two_splits():
    takes = plan(spec(sequences=200))
    assert len({str(take.name) for take in takes}) == 200
    for what in (lambda take: take.name.dancer, lambda take: take.name.dance):
        members = {split: {what(take) for take in takes if take.split == split} for split in SPLITS}
        assert all(members.values())
        assert not members["train"] & members["val"]
        assert not members["train"] & members["test"]
        assert not members["val"] & members["test"]
    # and choreographies are shared within a split
    assert len({take.name.dance for take in takes}) < 200


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> tuple[Path, list[Take]]:
    root = tmp_path_factory.mktemp("studio")
    takes = prepare(root, spec(seconds=0.2, size=(160, 96)))
    for take in takes:
        take.write_annotations(root)
    takes[0].film(root, ["c01", "c09"])
    return root, takes


def test_the_dataset_reads_back_as_aistpp(dataset):
    root, takes = dataset
    data = Dataset(root)
    assert data.sequences == tuple(sorted(str(take.name) for take in takes))
    assert sum((data.split(split) for split in SPLITS), ()) and data.ignored == frozenset()
    for take in takes:
        assert Name.parse(str(take.name)) == take.name
        joints = take.joints(np.arange(12) / FPS)
        np.testing.assert_allclose(data.keypoints3d(str(take.name)), joints, atol=1e-9)
        seen, timestamps = data.keypoints2d(str(take.name))
        assert timestamps[1] == 16667
        for i, camera in enumerate(data.cameras(str(take.name)).values()):
            np.testing.assert_allclose(camera.project(joints), seen[i, ..., :2], atol=1e-3)
    info = probe(root / "videos" / f"{takes[0].name.with_camera('c09')}.mp4")
    assert (info.width, info.height, info.frames, info.fps) == (160, 96, 2, 10)


def test_annotation_files_have_the_keys_types_and_shapes_of_the_real_ones(dataset, aistpp: Path):
    root, takes = dataset
    for kind in ("keypoints3d", "keypoints2d", "motions"):
        real = _described(next((aistpp / "annotations" / kind).glob("*.pkl")))
        assert _described(root / "annotations" / kind / f"{takes[0].name}.pkl") == real
    ours = json.loads((root / "annotations/cameras" / f"{takes[0].setting}.json").read_text())
    theirs = json.loads((aistpp / "annotations/cameras/setting1.json").read_text())
    assert [set(camera) for camera in ours] == [set(camera) for camera in theirs]
    assert [camera["name"] for camera in ours] == [camera["name"] for camera in theirs]


def _described(path: Path) -> dict[str, object]:
    """Key -> type, and shape with the number of frames left out."""
    content = aistpp.read_pickle(path)
    frames = next(len(v) for k, v in content.items() if k in ("keypoints3d", "timestamps", "smpl_poses"))
    return {
        key: (value.dtype, tuple(-1 if n == frames else n for n in value.shape))
        if isinstance(value, np.ndarray)
        else type(value)
        for key, value in content.items()
    }


def test_a_sequence_is_whole_only_with_all_of_its_files(dataset):
    root, takes = dataset
    there = files.below(root)
    assert not takes[0].is_whole(there)
    assert takes[0].missing(there) == list(CAMERAS[1:8])


def test_datasets_numbered_apart_share_no_name_and_dance_the_same():
    near, far = plan(spec(sequences=4)), plan(spec(sequences=4, first_dancer=1001))
    assert not {str(take.name) for take in near} & {str(take.name) for take in far}
    times = np.arange(3) / FPS
    for a, b in zip(near, far, strict=True):
        np.testing.assert_array_equal(a.joints(times), b.joints(times))


def test_fewer_cameras_film_each_sequence_and_others_the_next():
    takes = plan(spec(sequences=8, cameras=3))
    assert all(len(set(take.filming)) == 3 for take in takes)
    assert len({tuple(take.filming) for take in takes}) > 4
    assert plan(spec(sequences=1))[0].filming == list(CAMERAS)


def test_other_options_and_foreign_folders_are_refused(dataset, tmp_path):
    root, takes = dataset
    same = takes[0].spec
    with pytest.raises(UserError, match="made with seed 7, not 8"):
        prepare(root, dataclasses.replace(same, seed=8))
    assert len(prepare(root, dataclasses.replace(same, sequences=1))) == 3
    (tmp_path / "annotations").mkdir()
    with pytest.raises(UserError, match="did not make"):
        prepare(tmp_path, same)


@pytest.mark.parametrize(
    "wrong",
    [{"sequences": 0}, {"seconds": 0}, {"fps": 0}, {"size": (641, 360)}, {"seed": -1}, {"real_share": 1.0}, {"cameras": 0},
     {"cameras": 10}, {"first_dancer": 0}],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_be_rendered_are_refused(wrong):
    with pytest.raises(UserError):
        spec(**wrong)


def test_real_and_drawn_motion_can_be_told_apart_and_both_are_in_every_split(aistpp: Path):
    takes = plan(spec(sequences=20, motions=str(aistpp), real_share=0.5))
    for split in SPLITS:
        kinds = [take.name.situation for take in takes if take.split == split]
        assert {"sRM", "sBM"} == set(kinds)


def test_a_size_of_another_shape_than_the_real_cameras_is_refused(aistpp: Path, tmp_path):
    with pytest.raises(UserError, match="--size 1280 720"):
        prepare(tmp_path, spec(size=(640, 480), settings=str(aistpp)))
    assert not list(tmp_path.iterdir())


def test_a_dataset_of_people_is_filmed_with_faults_and_not_mixed_with_another(tmp_path):
    takes = prepare(tmp_path, spec(bodies="makehuman", seconds=0.2, size=(160, 96), footage="camera"))
    assert takes[0].film(tmp_path, ["c01", "c05"]) == 4
    with pytest.raises(UserError, match="made with bodies makehuman, not drawn"):
        prepare(tmp_path, spec(bodies="drawn", seconds=0.2, size=(160, 96), footage="camera"))
    with pytest.raises(UserError, match="bodies 'wax'"):
        spec(bodies="wax")
