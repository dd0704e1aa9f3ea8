"""What is written is read back by other programs, and says the same."""

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from refiner import UserError, formats
from refiner.formats.motion import MARKERS, Motion
from refiner.formats.rig import NAMES, PARENTS, TREE, rig
from refiner.skeleton import INDEX, JOINTS

FPS = 30.0
# A person who stands with arms half raised, facing +z, y up, metres.
STANDING = {
    "nose": (0, 1.62, 0.12), "left_eye": (0.03, 1.66, 0.09), "right_eye": (-0.03, 1.66, 0.09),
    "left_ear": (0.07, 1.64, 0.0), "right_ear": (-0.07, 1.64, 0.0),
    "left_shoulder": (0.18, 1.42, 0), "right_shoulder": (-0.18, 1.42, 0),
    "left_elbow": (0.42, 1.30, 0.02), "right_elbow": (-0.42, 1.30, 0.02),
    "left_wrist": (0.58, 1.42, 0.14), "right_wrist": (-0.58, 1.42, 0.14),
    "left_hip": (0.1, 0.95, 0), "right_hip": (-0.1, 0.95, 0),
    "left_knee": (0.11, 0.52, 0.04), "right_knee": (-0.11, 0.52, 0.04),
    "left_ankle": (0.11, 0.09, -0.02), "right_ankle": (-0.11, 0.09, -0.02),
}  # fmt: skip
POSE = np.array([STANDING[name] for name in JOINTS], dtype=float)


def motion(poses: np.ndarray, keep: np.ndarray | None = None) -> Motion:
    rows = np.arange(len(poses)) if keep is None else np.flatnonzero(keep)
    return Motion(
        name="joey", fps=FPS, frames=rows, timestamps_us=np.round(rows / FPS * 1e6).astype(np.int64),
        joints=poses[rows], confidence=np.full((len(rows), 17), 0.75),
    )  # fmt: skip


def turned(axis: tuple[float, float, float], degrees: float, frames: int = 60) -> np.ndarray:
    """The standing person turned about an axis through the hips, arms and legs swinging and stretching meanwhile."""
    share = np.linspace(0, 1, frames)
    swing = 0.35 * np.sin(4 * np.pi * share)
    poses = np.repeat(POSE[None], frames, axis=0)
    for joint, sign in (("left_wrist", 1), ("right_wrist", -1), ("left_ankle", -1), ("right_ankle", 1)):
        middle = INDEX[joint.replace("wrist", "elbow").replace("ankle", "knee")]
        upper = INDEX[joint.replace("wrist", "shoulder").replace("ankle", "hip")]
        bend = Rotation.from_rotvec(np.outer(sign * swing, (1, 0, 0)))
        for j in (middle, INDEX[joint]):
            poses[:, j] = poses[:, upper] + bend.apply(POSE[j] - POSE[upper])
    hips = (POSE[INDEX["left_hip"]] + POSE[INDEX["right_hip"]]) / 2
    turn = Rotation.from_rotvec(np.outer(np.radians(degrees) * share, axis)).as_matrix()
    path = np.stack([share, 0 * share, 0 * share], -1)[:, None]
    return np.einsum("nij,nkj->nki", turn, poses - hips) + hips + path


def at(rigged_joints: np.ndarray) -> np.ndarray:
    """(N, J, 3) -> (N, 17, 3) those of them that are COCO's."""
    order = {coco: NAMES.index(name) for name, (_, coco) in TREE.items() if coco}
    return rigged_joints[:, [order[joint] for joint in JOINTS]]


MOTIONS = {
    "a turn on the spot": turned((0, 1, 0), 720),
    "a cartwheel": turned((0, 0, 1), -360),
    "a roll": turned((1, 0, 0), 360),
}


@pytest.mark.parametrize("poses", MOTIONS.values(), ids=MOTIONS.keys())
def test_rotations_put_the_joints_where_they_are_and_never_flip(poses):
    rigged = rig(poses, FPS)
    np.testing.assert_allclose(at(rigged.joints()), poses, atol=0.004)
    steps = Rotation.from_matrix((np.swapaxes(rigged.rotations[:-1], -1, -2) @ rigged.rotations[1:]).reshape(-1, 3, 3))
    # the whole turns by 12° a frame at most, the limbs by 5° about their joints
    assert np.degrees(steps.magnitude()).max() < 20


@pytest.mark.parametrize("poses", MOTIONS.values(), ids=MOTIONS.keys())
def test_bones_keep_their_lengths_whatever_the_poses_do(poses, rng):
    positions = rig(poses + rng.normal(0, 0.02, poses.shape), FPS).joints()
    for j, parent in enumerate(PARENTS[1:], 1):
        assert np.ptp(np.linalg.norm(positions[:, j] - positions[:, parent], axis=-1)) < 1e-9


@pytest.mark.parametrize("poses", MOTIONS.values(), ids=MOTIONS.keys())
def test_every_joint_has_a_place_of_its_own_and_every_bone_a_length(poses):
    """Blender draws bones without length anyhow, and retargeters drop them. A bone ends between the joints that follow it."""
    rigged = rig(poses, FPS)
    for j, name in enumerate(NAMES):
        followers = [rigged.offsets[child] for child, parent in enumerate(PARENTS) if parent == j]
        end = np.mean(followers, axis=0) if followers else rigged.tips[name]
        assert np.linalg.norm(end) > 0.01, name
    apart = np.linalg.norm(rigged.joints()[:, :, None] - rigged.joints()[:, None], axis=-1) + np.eye(len(NAMES))
    assert apart.min() > 0.01


def test_a_straight_arm_takes_its_twist_from_the_moments_around():
    poses = np.repeat(POSE[None], 40, axis=0)
    straight = slice(15, 25)
    for side in ("left", "right"):
        shoulder, elbow, wrist = (INDEX[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        poses[straight, wrist] = poses[straight, elbow] + (poses[straight, elbow] - poses[straight, shoulder])
    rng = np.random.default_rng(3)
    poses += rng.normal(0, 0.001, poses.shape)
    arms = [NAMES.index("LeftArm"), NAMES.index("RightArm")]
    turns = rig(poses, FPS).rotations[:, arms]
    steps = Rotation.from_matrix((np.swapaxes(turns[:-1], -1, -2) @ turns[1:]).reshape(-1, 3, 3)).magnitude()
    assert np.degrees(steps).max() < 8


def read_bvh(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Joint names, (N, J, 3) positions in metres by forward kinematics of the text itself, (N, channels) its numbers."""
    head, body = path.read_text().split("MOTION\n")
    names, offsets, parents, stack = [], [], [], []
    end_site = False
    for line in head.splitlines():
        words = line.split()
        if words[0] in ("ROOT", "JOINT"):
            names.append(words[1])
            parents.append(stack[-1] if stack else -1)
        elif words[:2] == ["End", "Site"]:
            end_site = True
        elif words[0] == "{":
            stack.append(-2 if end_site else len(names) - 1)
        elif words[0] == "}":
            stack.pop()
            end_site = False
        elif words[0] == "OFFSET" and not end_site:
            offsets.append([float(w) for w in words[1:]])
    numbers = np.loadtxt(body.splitlines()[2:], ndmin=2)
    turns = Rotation.from_euler("ZXY", numbers[:, 3:].reshape(-1, 3), degrees=True).as_matrix()
    turns = turns.reshape(len(numbers), len(names), 3, 3)
    places, whole = np.zeros((len(numbers), len(names), 3)), np.zeros_like(turns)
    for j, parent in enumerate(parents):
        if parent < 0:
            places[:, j], whole[:, j] = numbers[:, :3], turns[:, j]
        else:
            places[:, j] = places[:, parent] + whole[:, parent] @ np.array(offsets[j])
            whole[:, j] = whole[:, parent] @ turns[:, j]
    return names, places / 100, numbers


@pytest.mark.parametrize("poses", MOTIONS.values(), ids=MOTIONS.keys())
def test_bvh_says_the_rig_and_its_angles_never_jump(poses, tmp_path):
    names, joints, numbers = read_bvh(formats.write(motion(poses), tmp_path / "joey.bvh"))
    assert names[0] == "Hips" and {"LeftArm", "RightUpLeg", "Neck", "Head", "LeftFoot"} < set(names)
    expected = rig(poses, FPS).joints()
    np.testing.assert_allclose(joints, expected[:, [NAMES.index(n) for n in names]], atol=2e-4)
    # near gimbal lock single angles run fast, but no curve jumps by a half or a whole turn
    assert np.abs(np.diff(numbers[:, 3:], axis=0)).max() < 120


def by_blender(path: Path, moments: list[int]) -> list[list[dict[str, list[float]]]]:
    """Of each moment (numbers of frames), of each armature, its joints' places, z up."""
    script = Path(__file__).with_name("blender_joints.py")
    done = subprocess.run(
        ["blender", "--background", "--factory-startup", "--python-exit-code", "1", "--python", script, "--", path]
        + [f"{n / FPS:.6f}" for n in moments],
        capture_output=True, text=True,
    )  # fmt: skip
    if "No module named 'numpy'" in done.stdout + done.stderr:
        pytest.skip("Blender's Python lacks NumPy (apt-get install python3-numpy)")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("JOINTS "))
    return list(json.loads(line.removeprefix("JOINTS ")).values())


needs_blender = pytest.mark.skipif(
    shutil.which("blender") is None, reason="Blender is not installed (apt-get install blender)"
)


@pytest.mark.slow
@needs_blender
@pytest.mark.parametrize("ending", ["bvh", "glb"])
def test_blender_sees_the_same_joints(ending, tmp_path):
    poses = MOTIONS["a cartwheel"]
    moments = [0, 20, 45]
    expected = rig(poses, FPS).joints()
    seen = by_blender(formats.write(motion(poses), tmp_path / f"joey.{ending}"), moments)
    for n, (armature,) in zip(moments, seen, strict=True):
        for name, (x, y, z) in armature.items():
            np.testing.assert_allclose((x, z, -y), expected[n, NAMES.index(name)], atol=1e-3)


@pytest.mark.slow
@needs_blender
def test_blender_sees_both_people_of_a_glb(tmp_path):
    people = two()
    expected = [rig(person.even()[0].joints, FPS).joints() for person in people]
    moments = [5, 50]
    for n, armatures in zip(moments, by_blender(formats.write(people, tmp_path / "joey.glb"), moments), strict=True):
        assert len(armatures) == 2
        for joints, armature in zip(expected, armatures, strict=True):
            for name, (x, y, z) in armature.items():
                np.testing.assert_allclose((x, z, -y), joints[n, NAMES.index(name)], atol=1e-3)


def test_a_glb_is_sound_and_animates_every_joint(tmp_path):
    gltf = pytest.importorskip("pygltflib")
    poses = MOTIONS["a turn on the spot"]
    document = gltf.GLTF2().load(str(formats.write(motion(poses), tmp_path / "joey.glb")))
    blob = document.binary_blob()

    def values(accessor: int) -> np.ndarray:
        a = document.accessors[accessor]
        view = document.bufferViews[a.bufferView]
        kind = {gltf.FLOAT: "<f4", gltf.UNSIGNED_BYTE: "u1", gltf.UNSIGNED_SHORT: "<u2"}[a.componentType]
        return np.frombuffer(
            blob, kind, count=view.byteLength // np.dtype(kind).itemsize, offset=view.byteOffset
        ).reshape(a.count, -1)

    (animation,) = document.animations
    assert len(animation.channels) == len(NAMES) + 1
    for channel in animation.channels:
        sampler = animation.samplers[channel.sampler]
        assert np.allclose(values(sampler.input)[:, 0], np.arange(60) / FPS, atol=1e-5)
        if channel.target.path == "rotation":
            turns = values(sampler.output)
            np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1, atol=1e-5)
            assert (turns[1:] * turns[:-1]).sum(1).min() > 0.9  # never the long way round
    (primitive,) = document.meshes[0].primitives
    vertices = values(primitive.attributes.POSITION)
    assert values(primitive.indices).max() < len(vertices) and np.ptp(vertices[:, 1]) > 1.4


def test_trc_and_c3d_carry_the_markers_and_leave_out_what_was_not_seen(tmp_path):
    poses = MOTIONS["a turn on the spot"]
    keep = np.ones(60, dtype=bool)
    keep[20:25] = False
    moved = motion(poses, keep)
    lines = formats.write(moved, tmp_path / "joey.trc").read_text().splitlines()
    assert lines[0].endswith("joey.trc") and ".joey" not in lines[0]
    assert lines[3].split("\t")[2::3][: len(MARKERS)] == list(MARKERS) and lines[2].split("\t")[2:5] == [
        "60",
        "19",
        "mm",
    ]
    rows = [line.split("\t") for line in lines[6:]]
    assert len(rows) == 60 and not any(rows[22][2:]) and all(rows[10][2:])
    np.testing.assert_allclose(np.array(rows[10][2:53], float).reshape(17, 3) / 1000, poses[10], atol=1e-5)
    ezc3d = pytest.importorskip("ezc3d")
    content = ezc3d.c3d(str(formats.write(moved, tmp_path / "joey.c3d")))
    assert content["parameters"]["POINT"]["LABELS"]["value"] == list(MARKERS)
    points = content["data"]["points"]  # (4, markers, frames)
    np.testing.assert_allclose(points[:3, :17, 10].T / 1000, poses[10], atol=1e-5)
    assert np.isnan(points[:3, :, 22]).all() and content["parameters"]["POINT"]["RATE"]["value"][0] == FPS


def test_another_reader_of_c3d_says_the_same(tmp_path):
    c3d = pytest.importorskip("c3d")
    pytest.importorskip("ezc3d")
    poses = MOTIONS["a cartwheel"]
    with formats.write(motion(poses), tmp_path / "joey.c3d").open("rb") as file:
        reader = c3d.Reader(file)
        assert [label.strip() for label in reader.point_labels] == list(MARKERS)
        frames = [points for _, points, _ in reader.read_frames()]
    np.testing.assert_allclose(np.array(frames)[:, :17, :3] / 1000, poses, atol=1e-4)


def test_opensim_reads_the_trc(tmp_path):
    opensim = pytest.importorskip("opensim")
    poses = MOTIONS["a roll"]
    table = opensim.TimeSeriesTableVec3(str(formats.write(motion(poses), tmp_path / "joey.trc")))
    assert list(table.getColumnLabels()) == list(MARKERS) and table.getTableMetaDataString("Units") == "mm"
    nose = [table.getRowAtIndex(n)[0].to_numpy() for n in range(table.getNumRows())]
    np.testing.assert_allclose(np.array(nose) / 1000, poses[:, 0], atol=1e-5)


def test_tables_hold_every_number_and_its_unit(tmp_path):
    moved = motion(MOTIONS["a roll"])
    content = json.loads(formats.write(moved, tmp_path / "joey.json").read_text())
    assert content["joints"] == list(JOINTS) and content["unit"] == "m"
    np.testing.assert_allclose([f["pose"] for f in content["frames"]], moved.joints, atol=1e-5)
    with formats.write(moved, tmp_path / "joey.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[7]["left_wrist_z_m"]) == pytest.approx(moved.joints[7, INDEX["left_wrist"], 2], abs=1e-5)
    assert float(rows[7]["nose_confidence"]) == 0.75
    with np.load(formats.write(moved, tmp_path / "joey.npz")) as arrays:
        np.testing.assert_allclose(arrays["poses"], moved.joints, atol=1e-6)
        assert list(arrays["joint_names"]) == list(JOINTS)


def two() -> list[Motion]:
    """Joey turns on the spot; somebody else appears half-way through and rolls."""
    first, second = motion(MOTIONS["a turn on the spot"]), motion(MOTIONS["a roll"], np.arange(60) >= 30)
    span = float(first.seconds[0]), float(first.seconds[-1])
    return [replace(first, person=0, span_s=span), replace(second, person=1, span_s=span)]


@pytest.mark.parametrize("ending", formats.ONE_PERSON)
def test_of_several_people_each_has_a_file_and_all_begin_together(ending, tmp_path):
    if ending == "c3d":
        pytest.importorskip("ezc3d")
    files = formats.write_people(two(), tmp_path, "joey", ending)
    assert [file.name for file in files] == [f"joey.person0.{ending}", f"joey.person1.{ending}"]
    with pytest.raises(UserError, match="one person, not 2"):
        formats.write(two(), tmp_path / f"joey.{ending}")
    if ending == "bvh":
        joints = [read_bvh(file)[1] for file in files]
        assert len(joints[0]) == len(joints[1]) == 60
        assert np.abs(np.diff(joints[1][:30], axis=0)).max() < 1e-6 < np.abs(np.diff(joints[1][31:], axis=0)).max()
    if ending == "trc":
        rows = [line.split("\t") for line in files[1].read_text().splitlines()[6:]]
        assert len(rows) == 60 and not any(rows[29][2:]) and all(rows[30][2:])


def test_tables_of_several_people_have_their_numbers(tmp_path):
    people = two()
    with formats.write(people, tmp_path / "joey.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["person"] for row in rows] == ["0"] * 60 + ["1"] * 30 and rows[60]["frame"] == "30"
    content = json.loads(formats.write(people, tmp_path / "joey.json").read_text())
    assert [frame["person"] for frame in content["frames"]] == [0] * 60 + [1] * 30
    with np.load(formats.write(people, tmp_path / "joey.npz")) as arrays:
        assert arrays["person"].tolist() == [0] * 60 + [1] * 30 and len(arrays["poses"]) == 90
    alone = json.loads(formats.write(motion(POSE[None]), tmp_path / "one.json").read_text())
    assert "person" not in alone["frames"][0]


def test_a_glb_of_several_people_has_a_skeleton_for_each(tmp_path):
    gltf = pytest.importorskip("pygltflib")
    document = gltf.GLTF2().load(str(formats.write(two(), tmp_path / "joey.glb")))
    assert len(document.skins) == len(document.meshes) == len(document.materials) == 2
    (animation,) = document.animations
    targets = [channel.target.node for channel in animation.channels]
    for skin in document.skins:
        assert [document.nodes[j].name for j in skin.joints] == list(NAMES)
        assert sum(target in skin.joints for target in targets) == len(NAMES) + 1
    assert [document.nodes[n].name for n in document.scenes[0].nodes] == ["person 0", "person 1"]
    reached, todo = set(), list(document.scenes[0].nodes)
    while todo:
        reached.add(node := todo.pop())
        todo += document.nodes[node].children or []
    assert reached == set(range(len(document.nodes)))


@pytest.mark.parametrize("ending", formats.FORMATS)
def test_one_frame_is_a_motion_too(ending, tmp_path):
    if ending in ("glb", "c3d"):
        pytest.importorskip({"glb": "pygltflib", "c3d": "ezc3d"}[ending])
    assert formats.write(motion(POSE[None]), tmp_path / f"joey.{ending}").stat().st_size > 100


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="choose one of json, csv"):
        formats.write(motion(POSE[None]), tmp_path / "joey.fbx")
    with pytest.raises(UserError, match="cannot be written"):
        formats.write(motion(POSE[None]), tmp_path / "nowhere" / "joey.json")
    assert list(tmp_path.iterdir()) == []


def test_toes_of_who_stands_reach_the_floor():
    """Ankles are where `room` puts those of feet that stand, above a floor at 0; the shanks are upright."""
    from refiner.inference.room import ANKLE_HEIGHT_M

    stands = POSE.copy()
    for side in ("left", "right"):
        knee, ankle = INDEX[f"{side}_knee"], INDEX[f"{side}_ankle"]
        stands[ankle] = stands[knee] * (1, 0, 1) + (0, ANKLE_HEIGHT_M, 0)
    rigged = rig(np.repeat(stands[None], 5, axis=0), FPS)
    joints, turns = rigged.joints(), {}
    for j, (name, parent) in enumerate(zip(NAMES, PARENTS, strict=True)):
        turns[name] = rigged.rotations[0, j] if parent < 0 else turns[NAMES[parent]] @ rigged.rotations[0, j]
    for foot in ("LeftFoot", "RightFoot"):
        toe = joints[0, NAMES.index(foot)] + turns[foot] @ rigged.tips[foot]
        assert abs(toe[1]) < 0.02 and toe[2] > joints[0, NAMES.index(foot), 2] + 0.1
