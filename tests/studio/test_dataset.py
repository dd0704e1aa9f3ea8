"""The studio's truth is what is seen in its pictures, it is the same every time, and it lies on disk as AIST++ does."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from refiner import UserError
from refiner.data import aistpp
from refiner.data.aistpp import CAMERAS, FPS, METRES_PER_UNIT, SPLITS, Dataset, Name, write_pickle
from refiner.data.multiview import triangulate
from refiner.data.video import Frame, probe
from refiner.estimators.mediapipe import PoseEstimator
from refiner.estimators.mediapipe_assets import model_path
from refiner.geometry import azimuth, mirror, procrustes, to_virtual_camera
from refiner.skeleton import BONES, INDEX, to_coco
from studio import rig
from studio.bodies.drawn import Dancer
from studio.bodies.person import Person
from studio.cameras import FLOOR
from studio.dataset import Spec, Take, is_whole, plan, prepare
from studio.motion.limbs import soles, turned_about_y
from studio.motion.retarget import perform
from studio.motion.sources import Source
from studio.pictures.renderer import Renderer
from studio.pictures.stage import Set

SIZE = (640, 360)


def spec(**changes) -> Spec:
    return Spec(**{"sequences": 3, "seconds": 0.5, "fps": 10, "seed": 7, "size": SIZE} | changes)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def takes() -> list[Take]:
    return plan(spec())


@pytest.mark.parametrize("bodies", ["drawn", "makehuman"])
def test_every_joint_projects_onto_the_body_in_every_view_and_lies_behind_its_surface(bodies):
    size = (960, 540)
    for take in plan(spec(bodies=bodies, size=size)):
        renderer = Renderer(take.dancer, take.room.light, FLOOR)
        turned, placed = take.bones(np.array([0.1, 0.4]))
        joints = take.dancer.joints(turned, placed)
        for i in range(2):
            posed = renderer.pose(turned[i], placed[i])
            for camera in take.cameras.values():
                depth = renderer.depth(posed, camera)
                at = np.rint(camera.project(joints[i])).astype(int)  # (17, 2) x, y
                inside = ((at >= 0) & (at < size)).all(1)
                seen = depth[at[inside, 1], at[inside, 0]]
                # eyes and nose lie on the surface: at 7 mm to the pixel one of them may just miss
                assert np.isfinite(seen).mean() > 0.9
                body = np.flatnonzero(inside) >= INDEX["left_shoulder"]
                assert (seen[body] < camera.to_camera(joints[i])[inside][body, 2] + 0.01).all()


@pytest.mark.parametrize("body", [Dancer, Person])
@pytest.mark.parametrize("seed", range(4))
def test_the_truth_of_the_face_is_the_depth_of_its_pixel(seed, body):
    dancer = body.draw(seed)
    rotations, root = np.tile(np.eye(3), (rig.NUM_BONES, 1, 1)), np.array([0.2, FLOOR + 0.95, -0.1])
    turned, placed = rig.forward_kinematics(rotations, root, dancer.offsets)
    joints = dancer.joints(turned, placed)
    take = plan(spec(size=(1920, 1080), seed=seed))[0]
    renderer = Renderer(dancer, take.room.light, FLOOR)
    posed = renderer.pose(turned, placed)
    for camera, names in (("c01", ("nose", "left_eye", "right_eye")), ("c09", ("nose", "left_eye", "right_eye"))):
        lens = take.cameras[camera]
        depth = renderer.depth(posed, lens)
        for name in names:
            x, y = np.rint(lens.project(joints[INDEX[name]])).astype(int)
            assert depth[y, x] == pytest.approx(lens.to_camera(joints[INDEX[name]])[2], abs=0.01), (camera, name)


def test_a_dancer_who_faces_c01_shows_each_camera_the_side_that_it_stands_on(takes):
    dancer = takes[0].dancer
    placed = rig.forward_kinematics(
        np.tile(np.eye(3), (rig.NUM_BONES, 1, 1)), np.array([0, FLOOR + 0.95, 0]), dancer.offsets
    )
    pose = dancer.joints(*placed)
    angles = [azimuth(to_virtual_camera(takes[0].cameras[c].to_camera(pose))) for c in CAMERAS]
    expected = np.array([0, 45, 90, 135, 180, -135, -90, -45, 0])
    assert np.abs((angles - expected + 180) % 360 - 180).max() < 8


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        take = plan(spec(seed=seed, seconds=0.2))[1]
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


def test_dancers_of_one_choreography_move_alike_and_not_the_same():
    takes = plan(spec(sequences=10, seconds=3))
    poses = {i: takes[i].joints(np.arange(90) / 30) for i in (3, 4, 5, 7, 8, 9)}

    def apart(a: int, b: int) -> float:
        return float(np.linalg.norm(procrustes(poses[a], poses[b]) - poses[b], axis=-1).mean())

    assert takes[3].name.dance == takes[4].name.dance and takes[7].name.dance == takes[8].name.dance
    for one, same, other in ((3, 4, 5), (7, 8, 9)):
        assert 0.01 < apart(one, same) < 0.75 * apart(one, other)


def test_bodies_differ_and_are_people():
    builds = [Dancer.draw(seed).build for seed in range(200)]
    heights = np.array([build.height for build in builds])
    assert heights.min() >= 1.50 and heights.max() <= 1.95 and heights.std() > 0.05


@pytest.mark.parametrize("number", range(10))
def test_a_dance_keeps_to_what_a_body_can_do(number):
    take = plan(spec(sequences=10, seconds=4))[number]
    times = np.arange(4 * FPS) / FPS
    turned, placed = take.bones(times)
    joints = take.dancer.joints(turned, placed)
    lengths = np.linalg.norm(joints[:, BONES[:8, 0]] - joints[:, BONES[:8, 1]], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), rtol=1e-9)
    lowest = soles(take.dancer, turned, placed)[..., 1].min(-1) - FLOOR
    assert lowest.min() > -0.003
    assert (lowest < 0.01).mean() > 0.6  # more often on the floor than in the air
    assert_moves_like_people(joints, speed=9, acceleration=120)
    assert np.linalg.norm(joints[..., [0, 2]], axis=-1).max() < 2.2  # metres from the middle: in all nine pictures
    # a foot that stands, stands still
    ankles = joints[:, [INDEX["left_ankle"], INDEX["right_ankle"]]]
    standing = ankles[..., 1] < FLOOR + take.dancer.build.sole + 1e-4  # (T, 2)
    still = standing[1:] & standing[:-1]
    assert np.linalg.norm(np.diff(ankles, axis=0), axis=-1)[still].max(initial=0) * FPS < 0.15
    assert standing.any()


def assert_moves_like_people(joints: np.ndarray, speed: float, acceleration: float) -> None:
    """m/s and m/s² that 99.5 % of values stay below; of the three real sequences the fastest has 7.5 and 256."""
    assert np.percentile(np.linalg.norm(np.diff(joints, axis=0), axis=-1) * FPS, 99.5) < speed
    assert np.percentile(np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1) * FPS**2, 99.5) < acceleration
    for a, b, c in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
        for side in ("left", "right"):
            first, middle, last = (joints[:, INDEX[f"{side}_{name}"]] for name in (a, b, c))
            u, v = first - middle, last - middle
            cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
            assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).min() > 20


def test_mediapipe_finds_the_dancers_from_all_nine_sides_and_tells_front_from_back():
    model, turned, seen, take = model_path(), [], 0, plan(spec(size=(1280, 720)))[0]
    renderer = Renderer(take.dancer, take.room.light, FLOOR)
    bones = take.bones(np.arange(4) / 30)
    truth = take.dancer.joints(*bones)
    moments = [renderer.pose(*moment) for moment in zip(*bones, strict=True)]
    for camera in take.cameras.values():
        stage = Set(take.room, camera)
        with PoseEstimator(model) as pose:
            for i, moment in enumerate(moments):
                found = pose.estimate(Frame(i, i * 33333, stage.shoot(renderer, moment)))
                if found is not None:
                    seen += 1
                    error = azimuth(to_coco(found.world)) - azimuth(camera.to_camera(truth[i]))
                    turned.append(abs((error + 180) % 360 - 180))
    assert seen >= 0.95 * 9 * 4
    assert np.mean(np.array(turned) < 45) > 0.9


@pytest.mark.parametrize("bodies", ["drawn", "makehuman"])
def test_the_truth_is_where_nine_views_of_mediapipe_see_the_joints(bodies):
    model, distances = model_path(), {"marked": [], "joints": []}
    for take in plan(spec(size=(1280, 720), bodies=bodies)):
        renderer = Renderer(take.dancer, take.room.light, FLOOR)
        bones = take.bones(np.array([0.2]))
        moment = renderer.pose(bones[0][0], bones[1][0])
        image, weights = np.zeros((9, 17, 2)), np.zeros((9, 17))
        for view, camera in enumerate(take.cameras.values()):
            with PoseEstimator(model) as pose:
                found = pose.estimate(Frame(0, 0, Set(take.room, camera).shoot(renderer, moment)))
            if found is not None:
                image[view], weights[view] = to_coco(found.image), to_coco(found.visibility[:, None])[:, 0]
        seen = triangulate(list(take.cameras.values()), image, weights).points
        for name, rows in distances.items():
            rows.append(np.linalg.norm(getattr(take.dancer, name)(*bones)[0] - seen, axis=-1))
    marked, joints = (np.median(distances[name], axis=0) for name in ("marked", "joints"))  # (17,) m
    assert marked.mean() < 0.03
    assert marked.mean() < 0.8 * joints.mean()  # closer than the skeleton's own joints


# --- on disk ----------------------------------------------------------------------------------------------------------


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
    assert not is_whole(root, takes[0])
    assert takes[0].missing(root) == list(CAMERAS[1:8])


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


# --- real motion ------------------------------------------------------------------------------------------------------


def captured(root: Path, source: Source, seconds: float) -> np.ndarray:
    """(n, 17, 3) the frames of a window, as near to its moments as they are, in the mirror and turned as it is danced."""
    frames = np.rint(source.start + np.arange(round(seconds * FPS)) * source.tempo).astype(int)
    poses = Dataset(root).keypoints3d(source.sequence)[frames]
    return turned_about_y(mirror(poses) if source.mirrored else poses, source.heading)


def test_real_motion_carries_over_to_other_bodies(aistpp: Path):
    takes = plan(spec(sequences=6, seconds=2, motions=str(aistpp), settings=str(aistpp), real_share=1.0))
    members = {split: {take.name.dance for take in takes if take.split == split} for split in SPLITS}
    assert all(len(dances) == 1 for dances in members.values()) and len(set.union(*members.values())) == 3
    for take in takes:
        turned, placed = take.bones(np.arange(2 * FPS) / FPS)
        joints = take.dancer.joints(turned, placed)
        source = captured(aistpp, take.source, 2)
        # bodies differ in proportions by some centimetres
        assert np.linalg.norm(procrustes(joints, source) - source, axis=-1).mean() < 0.06
        facing = azimuth(joints * (1, -1, -1)) - azimuth(source * (1, -1, -1))
        assert np.median(np.abs((facing + 180) % 360 - 180)) < 10
        assert soles(take.dancer, turned, placed)[..., 1].min() > FLOOR - 0.005
        quicker = max(1, take.source.tempo)
        assert_moves_like_people(joints, speed=9 * quicker, acceleration=120 * quicker**2)


def test_real_and_drawn_motion_can_be_told_apart_and_both_are_in_every_split(aistpp: Path):
    takes = plan(spec(sequences=20, motions=str(aistpp), real_share=0.5))
    for split in SPLITS:
        kinds = [take.name.situation for take in takes if take.split == split]
        assert {"sRM", "sBM"} == set(kinds)


def test_a_motion_that_is_too_short_is_named(aistpp: Path):
    with pytest.raises(UserError, match=r"lasts 9\.6 s: .* at most 11\.9 s"):
        plan(spec(sequences=3, seconds=13, motions=str(aistpp), real_share=1.0))


def test_gaps_in_a_real_motion_are_bridged(aistpp: Path, tmp_path):
    name = "gJS_sBM_cAll_d03_mJS2_ch07"
    whole = Dataset(aistpp).keypoints3d(name)
    gaps = whole / METRES_PER_UNIT
    gaps[20:23] = gaps[40, 9] = np.nan
    write_pickle(tmp_path / "annotations/keypoints3d" / f"{name}.pkl", {"keypoints3d": gaps})
    dancer, times = Dancer.draw(0), np.arange(60) / FPS
    poses = [
        dancer.joints(
            *rig.forward_kinematics(
                *perform(str(root), Source(name, 0, 0, False), dancer, 1, FLOOR).at(times), dancer.offsets
            )
        )
        for root in (aistpp, tmp_path)
    ]
    assert np.abs(poses[0] - poses[1]).max() < 0.03


def test_a_size_of_another_shape_than_the_real_cameras_is_refused(aistpp: Path, tmp_path):
    with pytest.raises(UserError, match="--size 1280 720"):
        prepare(tmp_path, spec(size=(640, 480), settings=str(aistpp)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280)])
def test_free_viewpoints_keep_the_dancer_in_the_picture_from_everywhere(size):
    takes = plan(spec(sequences=30, viewpoints="free", size=size))
    cameras = [camera for take in takes for camera in take.cameras.values()]
    person = np.array([[0, FLOOR, 0], [0, FLOOR + 1.75, 0], [0, FLOOR + 0.9, 0]])
    seen = np.stack([camera.project(person) for camera in cameras])
    assert (np.abs(seen[:, 2] - np.array(size) / 2) < 0.25 * np.array(size)).all()
    tall = np.linalg.norm(seen[:, 1] - seen[:, 0], axis=-1) / size[1]
    assert tall.min() > 0.3 and tall.max() < 1.0
    positions = np.stack([camera.position for camera in cameras])
    heights = positions[:, 1] - FLOOR
    assert heights.min() < 0.6 and heights.max() > 2.2
    around = np.degrees(np.arctan2(positions[:, 0], positions[:, 2])) % 360
    assert (np.histogram(around, 12, (0, 360))[0] > 8).all()
    # none stands in another's picture, where the dancer would be drawn over it
    places = np.stack([camera.position for camera in takes[0].cameras.values()])[:, None, [0, 2]]
    assert np.linalg.norm(places - takes[0].room.things[:, [1, 3]], axis=-1).min() > 0.3
