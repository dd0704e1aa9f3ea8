"""BVH as its exporters write it: each dialect's joints are where forward kinematics of its own numbers puts them."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refiner import UserError
from refiner.skeleton import INDEX
from studio.bvh import decoded, read_bvh
from studio.mocap import keypoints

# One body: joint -> parent, offset from it in metres (x left, y up, z ahead).
BODY = {
    "hips": ("", (0, 0, 0)), "spine": ("hips", (0, 0.12, 0)), "chest": ("spine", (0, 0.16, 0)),
    "neck": ("chest", (0, 0.22, 0)), "head": ("neck", (0, 0.1, 0.01)),
    "l_collar": ("chest", (0.03, 0.18, 0)), "l_shoulder": ("l_collar", (0.15, 0, 0)),
    "l_elbow": ("l_shoulder", (0.28, 0, 0)), "l_wrist": ("l_elbow", (0.25, 0, 0)),
    "r_collar": ("chest", (-0.03, 0.18, 0)), "r_shoulder": ("r_collar", (-0.15, 0, 0)),
    "r_elbow": ("r_shoulder", (-0.28, 0, 0)), "r_wrist": ("r_elbow", (-0.25, 0, 0)),
    "l_hip": ("hips", (0.09, -0.03, 0)), "l_knee": ("l_hip", (0, -0.43, 0)), "l_ankle": ("l_knee", (0, -0.41, 0)),
    "l_toe": ("l_ankle", (0, -0.06, 0.14)),
    "r_hip": ("hips", (-0.09, -0.03, 0)), "r_knee": ("r_hip", (0, -0.43, 0)), "r_ankle": ("r_knee", (0, -0.41, 0)),
    "r_toe": ("r_ankle", (0, -0.06, 0.14)),
}  # fmt: skip
ROLES = {f"{side}_{joint}": f"{side[0]}_{joint}" for side in ("left", "right")
         for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How an exporter writes BVH. `names`: in the order of BODY."""

    names: str
    order: str = "ZXY"  # of the rotations
    unit: float = 0.01  # metres
    z_up: bool = False
    positions_everywhere: bool = False
    end: str = "End Site"
    line: str = "\n"
    indent: str = "\t"
    rate: str = "0.0166667"
    brace_behind: bool = False  # "JOINT Head {"
    t_pose: int = 0  # frames of it in front


DIALECTS = {
    "cmu": Dialect(
        names="Hips LowerBack Spine1 Neck Head LeftShoulder LeftArm LeftForeArm LeftHand RightShoulder RightArm RightForeArm "
        "RightHand LeftUpLeg LeftLeg LeftFoot LeftToeBase RightUpLeg RightLeg RightFoot RightToeBase",
        order="ZYX", unit=0.0254 / 0.45, t_pose=1, rate="0.0083333",
    ),
    "mixamo": Dialect(
        names=re.sub(r"(\w+)", r"mixamorig:\1", "Hips Spine Spine2 Neck Head LeftShoulder LeftArm LeftForeArm LeftHand "
        "RightShoulder RightArm RightForeArm RightHand LeftUpLeg LeftLeg LeftFoot LeftToeBase RightUpLeg RightLeg RightFoot "
        "RightToeBase"),
        order="XYZ", line="\r\n", brace_behind=True, rate="0.033333",
    ),
    "rokoko": Dialect(
        names="Hips Spine Spine4 Neck Head LeftShoulder LeftArm LeftForeArm LeftHand RightShoulder RightArm RightForeArm "
        "RightHand LeftThigh LeftShin LeftFoot LeftToe RightThigh RightShin RightFoot RightToe",
        order="YXZ", positions_everywhere=True, rate="0.01", indent="  ",
    ),
    "xsens": Dialect(
        names="Hips Chest Chest4 Neck Head LeftCollar LeftShoulder LeftElbow LeftWrist RightCollar RightShoulder RightElbow "
        "RightWrist LeftHip LeftKnee LeftAnkle LeftToe RightHip RightKnee RightAnkle RightToe",
        order="YXZ", t_pose=1, rate="0.00416667",
    ),
    "lafan1": Dialect(
        names="Hips Spine Spine2 Neck Head LeftShoulder LeftArm LeftForeArm LeftHand RightShoulder RightArm RightForeArm "
        "RightHand LeftUpLeg LeftLeg LeftFoot LeftToe RightUpLeg RightLeg RightFoot RightToe",
        order="ZYX", rate="0.033333",
    ),
    "rocketbox": Dialect(
        names="Bip01 Pelvis|Bip01 Spine|Bip01 Spine2|Bip01 Neck|Bip01 Head|Bip01 L Clavicle|Bip01 L UpperArm|Bip01 L Forearm|"
        "Bip01 L Hand|Bip01 R Clavicle|Bip01 R UpperArm|Bip01 R Forearm|Bip01 R Hand|Bip01 L Thigh|Bip01 L Calf|Bip01 L Foot|"
        "Bip01 L Toe0|Bip01 R Thigh|Bip01 R Calf|Bip01 R Foot|Bip01 R Toe0",
        order="ZXY", z_up=True, end="End effector", rate="0.0333333",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Performance:
    """What somebody does, in numbers that a file can carry: BODY's joints, T frames."""

    root: np.ndarray  # (T, 3) metres
    angles: np.ndarray  # (T, J, 3) degrees, in the file's order of axes


def performance(dialect: Dialect, frames: int = 40, seed: int = 0) -> Performance:
    rng, time = np.random.default_rng(seed), np.arange(frames)[:, None, None] / 30
    angles = 15 * np.sin(
        2 * np.pi * time * rng.uniform(0.2, 0.8, (1, len(BODY), 3)) + rng.uniform(0, 6, (len(BODY), 3))
    )
    joints = list(BODY)
    for side in "lr":  # knees bend, and forwards
        knee = np.zeros((frames, 3))
        knee[:, dialect.order.index("X")] = 35 + 25 * np.sin(time[:, 0, 0] * 3 + (side == "l"))
        angles[:, joints.index(f"{side}_knee")] = knee
    angles[:, joints.index("hips")] /= 3
    root = np.stack([0.2 * time[:, 0, 0], 0.9 + 0 * time[:, 0, 0], 0.3 * time[:, 0, 0]], axis=-1)
    return Performance(root.round(7), angles.round(5))


def axis_turn(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "X": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "Y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "Z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def forward_kinematics(dialect: Dialect, motion: Performance) -> dict[str, np.ndarray]:
    """Joint -> (T, 3) metres, y up: frame by frame, joint by joint, from the numbers alone."""
    placed = {joint: np.zeros((len(motion.root), 3)) for joint in BODY}
    for t in range(len(motion.root)):
        turned: dict[str, np.ndarray] = {}
        for j, (joint, (parent, offset)) in enumerate(BODY.items()):
            local = np.eye(3)
            for axis, angle in zip(dialect.order, motion.angles[t, j], strict=True):
                local = local @ axis_turn(axis, angle)
            if parent:
                placed[joint][t] = placed[parent][t] + turned[parent] @ np.array(offset)
                turned[joint] = turned[parent] @ local
            else:
                placed[joint][t], turned[joint] = motion.root[t], local
    return placed


Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # y up -> z up


def as_text(dialect: Dialect, motion: Performance) -> str:
    """The file that this exporter would write."""
    names = dict(zip(BODY, dialect.names.split("|") if "|" in dialect.names else dialect.names.split(), strict=True))
    motion = Performance(
        np.concatenate([motion.root[:1]] * dialect.t_pose + [motion.root]),
        np.concatenate([0 * motion.angles[:1]] * dialect.t_pose + [motion.angles]),
    )
    lines, columns = ["HIERARCHY"], []
    # a scene with z up has one more turn, in a root of its own
    world = Z_UP if dialect.z_up else np.eye(3)

    def joint(name: str, depth: int) -> None:
        parent, offset = BODY[name]
        offset = np.array(offset) / dialect.unit
        pad = dialect.indent * depth
        keyword = "JOINT" if parent or dialect.z_up else "ROOT"
        lines.append(f"{pad}{keyword} {names[name]}" + (" {" if dialect.brace_behind else ""))
        if not dialect.brace_behind:
            lines.append(f"{pad}{{")
        lines.append(f"{pad}{dialect.indent}OFFSET {' '.join(f'{v:.7f}' for v in offset)}")
        places = not parent or dialect.positions_everywhere
        channels = ["Xposition", "Yposition", "Zposition"] if places else []
        channels += [f"{axis}rotation" for axis in dialect.order]
        lines.append(f"{pad}{dialect.indent}CHANNELS {len(channels)} {' '.join(channels)} ")
        if not parent:
            columns.append(motion.root / dialect.unit)
        elif places:
            columns.append(np.tile(offset, (len(motion.root), 1)))
        columns.append(motion.angles[:, list(BODY).index(name)])
        children = [child for child, (of, _) in BODY.items() if of == name]
        for child in children:
            joint(child, depth + 1)
        if not children:
            lines.extend([f"{pad}{dialect.indent}{dialect.end}", f"{pad}{dialect.indent}{{", "OFFSET 0 1.5 0", "}"])
        lines.append(f"{pad}}}")

    if dialect.z_up:
        lines.extend(["ROOT Scene Root", "{", "OFFSET 0 0 0", "CHANNELS 3 Xrotation Yrotation Zrotation"])
        columns.append(np.tile([90.0, 0, 0], (len(motion.root), 1)))
        assert np.allclose(axis_turn("X", 90), world)
    joint("hips", 0)
    if dialect.z_up:
        lines.append("}")
    lines += ["MOTION", f"Frames: {len(motion.root)}", f"Frame Time: {dialect.rate}"]
    lines += [" ".join(f"{v:.7f}" for v in row) for row in np.concatenate(columns, axis=1)]
    return dialect.line.join(lines) + dialect.line


def distances(points: list[np.ndarray]) -> np.ndarray:
    """(T, P) between all pairs: what turning and moving the world leaves as it is."""
    stacked = np.stack(points, axis=1)
    return np.linalg.norm(stacked[:, :, None] - stacked[:, None], axis=-1).reshape(len(stacked), -1)


@pytest.mark.parametrize("name", DIALECTS)
def test_each_dialects_joints_are_where_forward_kinematics_puts_them(name):
    dialect = DIALECTS[name]
    motion = performance(dialect)
    truth = forward_kinematics(dialect, motion)
    capture = read_bvh(as_text(dialect, motion), name)
    placed = capture.world()[1][dialect.t_pose :] * dialect.unit
    names = dialect.names.split("|") if "|" in dialect.names else dialect.names.split()
    for joint, called in zip(BODY, names, strict=True):
        at = placed[:, capture.names.index(called)]
        expected = truth[joint] @ Z_UP.T if dialect.z_up else truth[joint]
        assert np.abs(at - expected).max() < 1e-4, joint
    rate = round(1 / float(dialect.rate), 1)
    assert np.allclose(np.diff(capture.times), 1 / round(rate))

    said: list[str] = []
    poses = keypoints(capture, name, say=said.append)
    # at 60 Hz, so every 60th of a second of the file; both ends are there
    seen = distances([poses[0:1, INDEX[role]] for role in ROLES])
    assert np.abs(seen - distances([truth[joint][0:1] for joint in ROLES.values()])).max() < 1e-4
    if rate in (30.0, 120.0, 240.0):
        every = max(1, round(rate / 60))
        ours, theirs = (poses[:: max(1, round(60 / rate))], {k: v[::every] for k, v in truth.items()})
        count = min(len(ours), len(theirs["hips"]))
        seen = distances([ours[:count, INDEX[role]] for role in ROLES])
        assert np.abs(seen - distances([theirs[joint][:count] for joint in ROLES.values()])).max() < 1e-4
    assert any("reference pose" in note for note in said) == bool(dialect.t_pose)


def plain(frames: int = 12) -> str:
    return as_text(DIALECTS["lafan1"], performance(DIALECTS["lafan1"], frames))


@pytest.mark.parametrize(
    ("written", "seconds", "noted"),
    [
        ("Frame Time: 0.0333333", 1 / 30, ""), ("Frame Time: .0333333", 1 / 30, ""), ("Frame Time:\t0.033333", 1 / 30, ""),
        ("Frame Time: 0,033333", 1 / 30, ""), ("frame time: 3.33333e-2", 0.0333333, ""), ("FrameTime: 0.0333333", 1 / 30, ""),
        ("Frame Time: 1/30", 1 / 30, ""), ("Frame Time: 0.0083", 1 / 120, ""), ("Frame Time: 0.033333 s", 1 / 30, ""),
        ("Frame Time: 0.0417083", 1001 / 24000, ""), ("Frame Time: 0.0171", 0.0171, ""),
        ("", 1 / 30, "Frame Time is missing"), ("Frame Time:", 1 / 30, "Frame Time is missing"),
        ("Frame Time: 0.000000", 1 / 30, "30 frames a second are assumed"), ("Frame Time: ?", 1 / 30, "assumed"),
        ("Frame Time: 120", 1 / 120, "must mean frames a second"), ("Frame Time: 33.3333", 1 / 30, "must mean milliseconds"),
    ],
)  # fmt: skip
def test_a_frame_time_is_read_however_it_is_written(written, seconds, noted):
    text = plain().replace("Frame Time: 0.033333\n", written + "\n" if written else "")
    capture = read_bvh(text, "x.bvh")
    assert np.diff(capture.times) == pytest.approx(seconds, rel=1e-9)
    assert noted in " ".join(capture.notes) and bool(capture.notes) == bool(noted)
    np.testing.assert_array_equal(capture.positions, read_bvh(plain(), "x.bvh").positions)


@pytest.mark.parametrize("frame_time", ["-0.033", "nan", "17000"])
def test_a_frame_time_that_means_nothing_is_refused_or_noted(frame_time):
    text = plain().replace("Frame Time: 0.033333", f"Frame Time: {frame_time}")
    try:
        assert read_bvh(text, "x.bvh").notes
    except UserError as error:
        assert "Frame Time" in str(error)


def test_the_frames_that_are_there_are_taken_and_the_difference_is_said():
    whole = read_bvh(plain(), "x.bvh")
    head, rows = plain().split("Frame Time: 0.033333\n")
    lines = rows.splitlines()
    cases = {
        "fewer": ("\n".join(lines[:9]) + "\n", 9),
        "more": ("\n".join(lines * 2) + "\n", 24),
        "cut in a row": ("\n".join(lines[:9]) + "\n" + lines[9][:40], 9),
        "cut in a number": ("\n".join(lines[:9]) + "\n" + lines[9][:-3], 9),
    }
    for name, (text, count) in cases.items():
        capture = read_bvh(f"{head}Frame Time: 0.033333\n{text}", "x.bvh")
        assert len(capture.times) == count, name
        assert f"has {count} frames, not 12" in capture.notes[0]
        np.testing.assert_array_equal(capture.rotations[:9], whole.rotations[:9])
    # broken into two lines each, blank lines between, no line's end at the end: still the same
    broken = "\n\n".join(
        f"{line[:60].rpartition(' ')[0]}\n {line[len(line[:60].rpartition(' ')[0]) :]}" for line in lines
    )
    capture = read_bvh(f"{head}Frame Time: 0.033333\n{broken}", "x.bvh")
    np.testing.assert_array_equal(capture.rotations, whole.rotations)
    assert not capture.notes
    with pytest.raises(UserError, match="frame 3 has 2 numbers for 66 channels"):
        read_bvh(f"{head}Frame Time: 0.033333\n" + "\n".join([*lines[:3], "1 2", *lines[3:]]), "x.bvh")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_byte_order_mark_and_any_encoding_are_read(encoding):
    text = plain().replace("Hips", "Hüfte")
    capture = read_bvh(decoded(text.encode(encoding)), "x.bvh")
    assert capture.names[0] == "Hüfte" and len(capture.times) == 12


WRITTEN_OTHERWISE = {
    "lines as on an old Mac": lambda text: text.replace("\n", "\r"),
    "keywords in small letters": lambda text: re.sub(
        r"\b(HIERARCHY|ROOT|JOINT|End Site|OFFSET|CHANNELS|MOTION|Frames|Frame Time|[XYZ](position|rotation))\b",
        lambda word: word[0].lower(), text),
    "EndSite": lambda text: text.replace("End Site", "EndSite"),
    "end sites with names": lambda text: text.replace("End Site", "End Site Tip of it"),
    "commas between numbers": lambda text: re.sub(r"(?<=\d) (?=[-\d])", ",", text),
    "commas and semicolons": lambda text: re.sub(r"(?<=\d) (?=[-\d])", ";", text.replace(".", ",")),
    "decimal commas in the rows only": lambda text: text.split("MOTION")[0] + "MOTION" + "Frame Time: 0.033333".join(
        part.replace(".", ",") for part in text.split("MOTION")[1].split("Frame Time: 0.033333")),
    "tabs": lambda text: text.replace(" ", "\t").replace("Frame\tTime", "Frame Time").replace("End\tSite", "End Site"),
    "values on the next line": lambda text: text.replace("Frames: ", "Frames:\n").replace("Time: ", "Time:\n"),
    "equals signs": lambda text: text.replace("Frames:", "Frames =").replace("Time:", "Time ="),
    "time before frames": lambda text: re.sub(r"(Frames: \d+\n)(Frame Time: .*\n)", r"\2\1", text),
    "frames as a decimal": lambda text: re.sub(r"Frames: (\d+)", r"Frames: \1.0", text),
    "UTF-16 without a mark": lambda text: decoded(text.encode("utf-16-le")),
    "an end of file of DOS": lambda text: text + "\x1a",
}  # fmt: skip


@pytest.mark.parametrize("way", WRITTEN_OTHERWISE)
def test_what_is_written_otherwise_is_the_same_motion(way):
    capture, plainly = read_bvh(WRITTEN_OTHERWISE[way](plain()), "x.bvh"), read_bvh(plain(), "x.bvh")
    np.testing.assert_array_equal(capture.positions, plainly.positions)
    np.testing.assert_array_equal(capture.rotations, plainly.rotations)
    np.testing.assert_array_equal(capture.times, plainly.times)
    assert capture.parents == plainly.parents and not capture.notes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.split("MOTION")[0], "must begin with HIERARCHY and go on to MOTION"),
        (lambda text: text.split("MOTION")[0] + "MOTION\n", "does not begin with 'Frames:'"),
        (lambda text: text.split("Frame Time")[0] + "Frame Time: 0.033333\n", "has 0 frames of motion"),
        (lambda text: text.replace("MOTION", "ROOT Prop\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\nMOTION"), "several roots"),
        (lambda text: text.replace("0.033333\n", "0.033333\nnan ", 1), "not finite|numbers for"),
        (lambda text: re.sub(r"(0.033333\n)\S+", r"\1-1.#IND", text), "-1.#IND"),
        (lambda text: text.replace("Zrotation", "Zrot"), "cannot be read near 'CHANNELS"),
        (lambda text: re.sub(r"CHANNELS \d+", "CHANNELS " + "9" * 5000, text), "cannot be read near 'CHANNELS"),
        (lambda text: re.sub(r"Frames: *\d+", "Frames: " + "9" * 5000, text), "MOTION part cannot be read"),
        (lambda text: re.sub(r"OFFSET +\S+", "OFFSET 1e300", text), "too large"),
        (lambda text: re.sub(r"(0.033333\n)\S+", r"\g<1>1e308", text), "too large"),
        (lambda text: text.replace("0.033333", "1e-300"), "give it the right Frame Time"),
        (lambda text: text.replace("0.033333", "1e-9"), "give it the right Frame Time"),
        (lambda text: "HIERARCHY" + "\n " * 200_000 + "x", "must begin with HIERARCHY and go on to MOTION"),
    ],
)
def test_what_cannot_be_read_is_one_short_sentence(change, says):
    with pytest.raises(UserError, match=says) as told:
        read_bvh(change(plain()), "x.bvh")
    assert "\n" not in str(told.value) and len(str(told.value)) < 250


def test_frames_that_are_not_counted_are_taken_and_it_is_said():
    capture = read_bvh(re.sub(r"Frames: \d+\n", "", plain()), "x.bvh")
    assert len(capture.times) == 12 and "does not say how many" in capture.notes[0]


def test_decimal_commas_are_points():
    np.testing.assert_array_equal(read_bvh(plain().replace(".", ","), "x").positions, read_bvh(plain(), "x").positions)


def test_a_reference_pose_in_front_is_left_out_and_one_that_is_danced_is_not():
    dialect = DIALECTS["lafan1"]
    motion = performance(dialect)
    for still in (1, 5):
        said: list[str] = []
        t_pose = Performance(
            np.concatenate([motion.root[:1]] * still + [motion.root]),
            np.concatenate([0 * motion.angles[:1]] * still + [motion.angles]),
        )
        poses = keypoints(read_bvh(as_text(dialect, t_pose), "x.bvh"), "x.bvh", say=said.append)
        np.testing.assert_allclose(poses, keypoints(read_bvh(as_text(dialect, motion), "x.bvh"), "x.bvh"), atol=1e-5)
        assert len(said) == 1 and f"x.bvh: its first {still} frames are a reference pose" in said[0]
    # out of the same pose in a second: that is motion
    ease = np.clip(np.arange(40) / 30, 0, 1)[:, None, None]
    out_of_it = Performance(motion.root, motion.angles * ease)
    said = []
    assert len(keypoints(read_bvh(as_text(dialect, out_of_it), "x.bvh"), "x.bvh", say=said.append)) == 79
    assert not said


@pytest.mark.parametrize("mean", [-6.0, -0.1, 0.0, 0.1, 6.0])
def test_nearly_straight_knees_are_no_exchange(mean):
    dialect = DIALECTS["lafan1"]
    motion = performance(dialect)
    for side in "lr":
        motion.angles[:, list(BODY).index(f"{side}_knee")] = 0
        motion.angles[:, list(BODY).index(f"{side}_knee"), dialect.order.index("X")] = mean
    text = as_text(dialect, motion)
    assert len(keypoints(read_bvh(text, "x.bvh"), "x.bvh")) == 79
    exchanged = text.replace("Left", "?").replace("Right", "Left").replace("?", "Right")
    with pytest.raises(UserError, match="left and right"):  # its toes say so
        keypoints(read_bvh(exchanged, "x.bvh"), "x.bvh")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_happens_to_a_file_it_is_motion_or_one_sentence(data):
    text = plain(3)
    words = ["{", "}", "JOINT x\n{", "End", "1e999", "nan", "-", "MOTION"]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 30))
        put = data.draw(st.one_of(st.text(max_size=8), st.sampled_from(words)))
        text = text[:at] + put + text[at + cut :]
    try:
        capture = read_bvh(text, "x.bvh")
        assert np.isfinite(capture.world()[1]).all()
        keypoints(capture, "x.bvh")
    except UserError as error:
        assert "x.bvh" in str(error) and "\n" not in str(error)
