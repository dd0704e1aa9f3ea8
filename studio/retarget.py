"""Real motion on a drawn body: AIST++'s keypoints drive a dancer of other proportions.

What carries over are directions and contacts: the trunk's and the head's orientation, where each arm's bones point, and,
scaled to the dancer's legs, where hips and ankles are. What is rendered is the dancer, and the truth is the dancer's own
joints: an error of this fit makes another motion, never a wrong annotation. That is also why motions may be varied: danced
in the mirror, faster or slower, facing elsewhere, the legs of one with the arms of another, and by somebody who holds himself
otherwise.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from refiner.data.aistpp import FPS, SPLITS, Dataset
from refiner.errors import UserError
from refiner.geometry import mirror, rotation_matrix
from refiner.skeleton import INDEX
from studio.body import Dancer
from studio.motion import Motion, arm_rotations, collar_and_shoulder, leg_rotations, soles, unit
from studio.rig import (
    HEAD,
    L_ANKLE,
    L_COLLAR,
    L_ELBOW,
    L_FOOT,
    L_HAND,
    L_HIP,
    L_KNEE,
    L_SHOULDER,
    L_WRIST,
    NECK,
    NUM_BONES,
    PELVIS,
    SPINE1,
    SPINE2,
    SPINE3,
    forward_kinematics,
)

PAD = 30  # frames before and after a window, so that filters and splines have no ends inside it
# Triangulated joints tremble by 1–3 cm. Standard deviations of the filter, in frames of 1/60 s: of the joints, and of
# directions between joints that lie close together (hips, ears).
_CALM, _CALM_SHORT = 1.6, 4.0
# How high a joint is, metres, when what it belongs to stands, kneels, leans or lies on the floor.
_IN_CONTACT = {"ankle": 0.08, "knee": 0.06, "hip": 0.10, "wrist": 0.02, "elbow": 0.03, "shoulder": 0.08}
# The dancer's flesh around bones that may touch the floor: radii in metres at 1.75 m.
_FLESH = {HEAD: 0.09, NECK: 0.06, SPINE2: 0.10, PELVIS: 0.10} | {
    bone + side: radius
    for bone, radius in ((L_HIP, 0.08), (L_KNEE, 0.05), (L_SHOULDER, 0.06), (L_ELBOW, 0.04), (L_WRIST, 0.03), (L_HAND, 0.02))
    for side in (0, 1)
}  # fmt: skip
# How far a foot in the air is pointed, radians, and what else is tried where it would be in the floor.
_POINTED = (0.35, 0.7, 1.05, 1.3, 0.0, -0.35)
_COVER = 2  # frames: standard deviation of the filter of how far a dancer is pulled down or lifted up
TEMPO = (0.8, 1.25)  # how much slower and faster than it was captured
# What nine cameras see: how far from the stage's centre a window may have its own, and how far it may travel, metres.
_OFF_CENTRE, _TRAVEL = 0.5, 2.4
# How far a motion may be danced otherwise than it was captured: standard deviations in radians of how arms, trunk and head are
# turned and, as logarithms, of how far elbows are bent and how wide the stance is; and how low it may be, as a share of the
# hips' height.
_ARM, _TRUNK, _NOD, _ELBOW, _STANCE, _LOW = 0.35, 0.12, 0.2, 0.35, 0.2, 0.12
_BENT = 2.7  # radians: an elbow bends no further
# Bones of a dancer that move with the chest where two windows are danced at once.
_UPPER = [SPINE1, SPINE2, SPINE3, NECK, HEAD] + [
    bone + side for bone in (L_COLLAR, L_SHOULDER, L_ELBOW, L_WRIST, L_HAND) for side in (0, 1)
]


@dataclass(frozen=True, slots=True)
class Source:
    """A window of a real sequence, and how it is danced."""

    sequence: str
    index: int  # of the sequence among all sources
    start: int  # frame
    mirrored: bool = False
    tempo: float = 1.0  # frames of the sequence in 1/60 s
    heading: float = 0.0  # how far it is turned about the vertical, radians
    upper: "Source | None" = None  # the window that chest, arms and head dance; None: this one
    varied: int | None = None  # a seed: arms, trunk, head and stance are otherwise; None: as captured


class TooShort(UserError):
    """A sequence has no window of the length asked for."""


def sources(root: str, pattern: tuple[str, ...]) -> dict[str, list[str]]:
    """Sequences of an AIST++ folder that can drive dancers, by split, in the order in which they take turns.

    The official split where it is there, else one in which the longest sequences train (`pattern`: the splits by turns). A
    sequence is in one split only, so that no dancer of another split moves like it. A long one has more turns than a
    short one: as the square root of its length.

    Raises:
        UserError: there are fewer than three, or a split would have none.
    """
    data = Dataset(Path(root))
    names = [name for name in data.sequences if name not in data.ignored]
    sizes = {n: (data.annotations / "keypoints3d" / f"{n}.pkl").stat().st_size for n in names}
    if (data.annotations / "splits").is_dir():
        known = set(names)
        by_split = {split: [n for n in data.split(split) if n in known] for split in SPLITS}
    else:
        ordered = sorted(names, key=lambda n: (-sizes[n], n))
        by_split = {split: [n for i, n in enumerate(ordered) if pattern[i % len(pattern)] == split] for split in SPLITS}
    empty = [split for split, members in by_split.items() if not members]
    if empty:
        raise UserError(
            f"{root} has {len(names)} motions in annotations/keypoints3d, none of them for the split {empty[0]}: "
            "give at least three, so that each split has its own"
        )
    return {split: _turns({name: sizes[name] for name in members}) for split, members in by_split.items()}


def _turns(sizes: dict[str, int]) -> list[str]:
    """Names, each as often as the square root of its size says against the smallest, evenly mixed."""
    smallest = min(sizes.values())
    turns = []
    for place, (name, size) in enumerate(sizes.items()):
        count = max(1, round((size / smallest) ** 0.5))
        turns += [((turn + 0.5) / count, place, name) for turn in range(count)]
    return [name for *_, name in sorted(turns)]


def draw_source(root: str, sequence: str, index: int, seconds: float, seed: int) -> Source:
    """A window of a sequence, somewhere in it, as it is or in the mirror, at a tempo and with a heading of its own.

    Raises:
        TooShort: the sequence is, even danced slowly.
    """
    rng = np.random.default_rng(seed)
    last, wanted = len(Dataset(Path(root)).keypoints3d(sequence)) - 1, seconds * FPS
    if last < np.ceil(wanted * TEMPO[0]):
        raise TooShort(
            f"{sequence} in {root} lasts {last / FPS:.1f} s: render sequences of at most "
            f"{np.floor(last / FPS / TEMPO[0] * 10) / 10:.1f} s with --seconds"
        )
    tempo = min(float(np.exp(rng.uniform(*np.log(TEMPO)))), last / wanted)
    start = int(rng.integers(last - int(wanted * tempo) + 1))
    return Source(sequence, index, start, bool(rng.random() < 0.5), tempo, float(rng.uniform(-np.pi, np.pi)))


def recombined(root: str, source: Source, others: list[tuple[str, int]], seconds: float, seed: int) -> Source:
    """The window with a chest, arms and a head that dance another one, if its legs stand: hands that carry stay with them.

    Args:
        root: AIST++ folder.
        source: what the legs dance.
        others: sequences of the same split with their indices, from which the other window is drawn.
        seconds: length of the clip.
        seed: what is drawn from.
    """
    if not _on_its_feet(_window(root, source, seconds)):
        return source
    rng = np.random.default_rng(seed)
    others = [other for other in others if other[1] != source.index] or others
    for i in rng.permutation(len(others)):
        try:
            return replace(source, upper=draw_source(root, *others[i], seconds, int(rng.integers(2**32))))
        except TooShort:
            continue
    return source


def varied_source(source: Source, seed: int) -> Source:
    """The window danced otherwise (see `varied`); where two are danced at once, each in its own way."""
    upper = source.upper and replace(source.upper, varied=seed + 1)
    return replace(source, varied=seed, upper=upper)


def perform(root: str, source: Source, dancer: Dancer, seconds: float, floor: float) -> Motion:
    """A dancer performs a window of a real sequence.

    Args:
        root: AIST++ folder.
        source: which window.
        dancer: who performs.
        seconds: length of the clip.
        floor: height of the floor in the world, metres.
    """
    times = _times(seconds)
    motion = retarget(_window(root, source, seconds), times, dancer, floor)
    if source.upper is not None:
        motion.rotations[:, _UPPER] = retarget(_window(root, source.upper, seconds), times, dancer, floor).rotations[
            :, _UPPER
        ]
    return _above(motion, dancer, floor)


def _times(seconds: float) -> np.ndarray:
    """(T,) seconds: a clip's moments and some before and after it."""
    return np.arange(-PAD, int(np.ceil(seconds * FPS)) + 1 + PAD) / FPS


def _window(root: str, source: Source, seconds: float) -> np.ndarray:
    """(T, 17, 3) the poses of a window at `_times`, metres, on the stage, the floor at zero."""
    from scipy.interpolate import CubicSpline

    poses = Dataset(Path(root)).keypoints3d(source.sequence)
    poses[..., 1] -= ground(poses)
    at = source.start + _times(seconds) * FPS * source.tempo
    first, last = max(int(at[0]) - PAD, 0), int(at[-1]) + PAD
    poses = _filled(poses)[first:last]
    poses = CubicSpline(np.arange(len(poses)), poses)(np.clip(at - first, 0, len(poses) - 1))
    if source.mirrored:
        poses = mirror(poses)
    if source.varied is not None:
        poses = varied(poses, np.random.default_rng(source.varied))
    return _on_stage(turned_about_y(poses, source.heading))


def varied(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same motion by somebody who holds arms, trunk and head otherwise and stands wider or lower, the whole clip long.

    The moving body stays what it was: bones keep their lengths, elbows bend the way they do, and what is changed is changed
    alike in all frames, in the chest's own frame.

    Args:
        poses: (T, 17, 3) world (y up), metres, the floor at zero.
        rng: what is drawn from.
    """
    poses = poses.copy()

    def points(*names: str) -> list[int]:
        return [INDEX[f"{side}_{name}"] for name in names for side in ("left", "right")]

    def turn(moved: list[int], about: np.ndarray, deviation: float) -> None:
        """Turns points about a point (T, 3) by an angle of their own, as the chest sees it."""
        shoulders = poses[:, INDEX["left_shoulder"]] - poses[:, INDEX["right_shoulder"]]
        spine = poses[:, points("shoulder")].mean(1) - poses[:, points("hip")].mean(1)
        chest = _frame(unit(shoulders), spine)
        rotation = chest @ rotation_matrix(rng.normal(0, deviation, 3)) @ np.swapaxes(chest, -1, -2)
        poses[:, moved] = about[:, None] + np.einsum("tij,tkj->tki", rotation, poses[:, moved] - about[:, None])

    face = [INDEX["nose"], *points("eye", "ear")]
    hips = poses[:, points("hip")].mean(1)
    turn([*face, *points("shoulder", "elbow", "wrist")], hips, _TRUNK)
    turn(face, poses[:, points("shoulder")].mean(1), _NOD)
    for side in ("left", "right"):
        shoulder, elbow, wrist = (INDEX[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        turn([elbow, wrist], poses[:, shoulder], _ARM)
        upper, fore = unit(poses[:, elbow] - poses[:, shoulder]), poses[:, wrist] - poses[:, elbow]
        bend = np.arccos(np.clip((upper * unit(fore)).sum(-1), -1, 1))
        more = np.minimum(bend * np.exp(rng.normal(0, _ELBOW)), np.maximum(bend, _BENT)) - bend
        axis = unit(np.cross(upper, fore) + 1e-9)
        poses[:, wrist] = poses[:, elbow] + np.einsum("tij,tj->ti", rotation_matrix(axis * more[:, None]), fore)
    wider, lower = rng.normal(0, _STANCE), rng.uniform(0, _LOW)
    ahead = _frame(
        unit(poses[:, INDEX["left_hip"]] - poses[:, INDEX["right_hip"]]), np.broadcast_to((0.0, 1, 0), hips.shape)
    )
    above = [*face, *points("shoulder", "elbow", "wrist", "hip")]
    for side in ("left", "right"):
        hip, knee, ankle = (poses[:, INDEX[f"{side}_{joint}"]].copy() for joint in ("hip", "knee", "ankle"))
        foot = ankle + (ankle - hips) * (1, 0, 1) * np.expm1(wider)
        poses[:, INDEX[f"{side}_ankle"]] = foot
        poses[:, INDEX[f"{side}_knee"]] = _knee(hip - lower * hips * (0, 1, 0), foot, hip, knee, ankle, ahead[:, :, 2])
    poses[:, above, 1] -= lower * hips[:, None, 1]
    return poses


def _knee(
    hip: np.ndarray,
    ankle: np.ndarray,
    old_hip: np.ndarray,
    old_knee: np.ndarray,
    old_ankle: np.ndarray,
    ahead: np.ndarray,
) -> np.ndarray:
    """(T, 3) where the knee is when hip and ankle move: as far from both as it was, and on the same side of the leg."""
    thigh, shank = (np.linalg.norm(old_knee - end, axis=-1) for end in (old_hip, old_ankle))
    distance = np.linalg.norm(ankle - hip, axis=-1)
    along = unit(ankle - hip)
    # a straight leg does not say where its knee points: the pelvis does
    out = old_knee - old_hip + 0.04 * ahead
    out = unit(out - (out * along).sum(-1, keepdims=True) * along)
    share = np.clip((thigh**2 - shank**2 + distance**2) / (2 * np.maximum(distance, 1e-6)), 0, thigh)
    return hip + along * share[:, None] + out * np.sqrt(thigh**2 - share**2)[:, None]


def turned_about_y(points: np.ndarray, angle: float) -> np.ndarray:
    """(..., 3) turned about the vertical; a positive angle turns z towards x."""
    return points @ rotation_matrix(np.array([0.0, angle, 0.0])).T


def _on_stage(poses: np.ndarray) -> np.ndarray:
    """Moved to where the cameras look. Who travels further than they see dances as on a treadmill."""
    path = poses[:, [INDEX["left_hip"], INDEX["right_hip"]]].mean(1) * (1, 0, 1)  # (T, 3)
    way = path[-PAD] - path[PAD]
    too_far = max(0.0, 1 - _TRAVEL / max(float(np.linalg.norm(way)), 1e-9))
    drift = (
        way * too_far * np.linspace(-PAD / (len(path) - 2 * PAD), 1 + PAD / (len(path) - 2 * PAD), len(path))[:, None]
    )
    path = (path - drift)[PAD:-PAD]
    centre = (path.min(0) + path.max(0)) / 2
    off = float(np.linalg.norm(centre))
    return poses - (drift + centre * max(0.0, 1 - _OFF_CENTRE / max(off, 1e-9)))[:, None]


def ground(poses: np.ndarray) -> float:
    """Height of the floor under a sequence, from the joints that come nearest to it: (T, 17, 3) metres, y up; NaN are gaps."""
    return min(
        float(np.nanpercentile(poses[:, INDEX[f"{side}_{joint}"], 1], 2)) - height
        for joint, height in _IN_CONTACT.items()
        for side in ("left", "right")
    )


def _on_its_feet(poses: np.ndarray) -> bool:
    """Whether the trunk is upright over both hips, and these well over the lower foot, all the time."""
    hips = poses[:, [INDEX["left_hip"], INDEX["right_hip"]]].mean(1)
    trunk = unit(poses[:, [INDEX["left_shoulder"], INDEX["right_shoulder"]]].mean(1) - hips)
    feet = poses[:, [INDEX["left_ankle"], INDEX["right_ankle"]], 1].min(1)
    return bool((trunk[:, 1] > 0.7).all() and (hips[:, 1] - feet > 0.45).all())


def _filled(poses: np.ndarray) -> np.ndarray:
    """Gaps (NaN) bridged in a straight line."""
    whole = np.isfinite(poses).all((1, 2))
    if whole.all():
        return poses
    at = np.arange(len(poses))
    flat = poses.reshape(len(poses), -1)
    return np.stack([np.interp(at, at[whole], column[whole]) for column in flat.T], axis=1).reshape(poses.shape)


def _calm(track: np.ndarray, frames: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(track, frames, axis=0, mode="nearest")


def _covered(track: np.ndarray) -> np.ndarray:
    """A smooth track that is nowhere below this one: the filter is no wider than the maximum that it smooths."""
    from scipy.ndimage import maximum_filter1d

    return _calm(maximum_filter1d(track, 8 * _COVER + 1, mode="nearest"), _COVER)


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(..., 3, 3) axes with x as given and y as near to the given one as it can be."""
    x = unit(x)
    y = unit(y - (y * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def _share(rotations: np.ndarray, parts: tuple[float, ...], limit: float) -> list[np.ndarray]:
    """(T, 3, 3) -> a rotation for each part of a chain, together the whole (about one axis); no further than `limit`."""
    from scipy.spatial.transform import Rotation

    vectors = Rotation.from_matrix(rotations).as_rotvec()
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = vectors * np.minimum(1, limit / np.maximum(angle, 1e-9))
    return [rotation_matrix(vectors * part) for part in parts]


def retarget(poses: np.ndarray, times: np.ndarray, dancer: Dancer, floor: float) -> Motion:
    """Drives a dancer with triangulated joints.

    Args:
        poses: (T, 17, 3) world (y up), metres, at 60 Hz, without gaps, the floor at zero.
        times: (T,) seconds.
        dancer: who performs.
        floor: height of the floor that the dancer stands on, metres.
    """
    poses = _calm(poses, _CALM)

    def joint(name: str) -> np.ndarray:
        return poses[:, INDEX[name]]

    def middle(name: str) -> np.ndarray:
        return (joint(f"left_{name}") + joint(f"right_{name}")) / 2

    def across(name: str) -> np.ndarray:
        return _calm(unit(joint(f"left_{name}") - joint(f"right_{name}")), _CALM_SHORT)

    offsets = dancer.offsets
    upright, at_rest = forward_kinematics(np.tile(np.eye(3), (NUM_BONES, 1, 1)), np.zeros(3), offsets)
    rest = dancer.joints(upright, at_rest)  # (17, 3) in the zero pose

    def rest_middle(name: str) -> np.ndarray:
        return (rest[INDEX[f"left_{name}"]] + rest[INDEX[f"right_{name}"]]) / 2

    left = np.array([1.0, 0, 0])
    # the trunk: hips and shoulders each have a line across, the spine between them is common
    spine, rest_spine = middle("shoulder") - middle("hip"), rest_middle("shoulder") - rest_middle("hip")
    pelvis = _frame(across("hip"), spine) @ _frame(left, rest_spine).T
    chest = _frame(across("shoulder"), spine) @ _frame(left, rest_spine).T
    # the head: the line between the ears, and the face
    face, rest_face = middle("eye") - middle("ear"), rest_middle("eye") - rest_middle("ear")
    head = _frame(across("ear"), _calm(unit(face), _CALM_SHORT)) @ _frame(left, rest_face).T

    rotations = np.tile(np.eye(3), (len(poses), NUM_BONES, 1, 1))
    rotations[:, PELVIS] = pelvis
    bend = _share(np.swapaxes(pelvis, -1, -2) @ chest, (0.3, 0.35, 0.35), 1.3)
    for bone, rotation in zip((SPINE1, SPINE2, SPINE3), bend, strict=True):
        rotations[:, bone] = rotation
    chest = pelvis @ bend[0] @ bend[1] @ bend[2]
    nod = _share(np.swapaxes(chest, -1, -2) @ head, (0.45, 0.55), 1.3)
    rotations[:, NECK], rotations[:, HEAD] = nod

    # as long in the legs as the dancer is
    def length(a: str, b: str) -> float:
        return float(np.median(np.linalg.norm(joint(a) - joint(b), axis=-1)))

    theirs = sum(length(f"{s}_hip", f"{s}_knee") + length(f"{s}_knee", f"{s}_ankle") for s in ("left", "right")) / 2
    ours = np.linalg.norm(offsets[L_KNEE]) + np.linalg.norm(offsets[L_ANKLE])
    scale = float(ours / theirs)

    def place(points: np.ndarray) -> np.ndarray:
        return points * scale + (0, floor + dancer.build.sole - _IN_CONTACT["ankle"] * scale, 0)

    ankles = [place(joint("left_ankle")), place(joint("right_ankle"))]
    for ankle in ankles:  # no foot goes through the floor
        ankle[:, 1] = np.maximum(ankle[:, 1], floor + dancer.build.sole)
    hips = [np.einsum("tij,j->ti", pelvis, offsets[L_HIP + side]) for side in (0, 1)]
    root = place(middle("hip")) - (hips[0] + hips[1]) / 2
    # legs that would have to be longer than they are pull the body down
    reach, pull = 0.99 * ours, np.zeros(len(root))
    for side in (0, 1):
        gap = root + hips[side] - ankles[side]
        level = np.linalg.norm(gap[:, [0, 2]], axis=1)
        top = np.sqrt(np.maximum(reach**2 - level**2, (0.2 * ours) ** 2))
        pull = np.maximum(pull, gap[:, 1] - top)
    root[:, 1] -= _covered(pull)

    ahead = pelvis[:, :, 2]
    for side, (name, sign) in enumerate((("left", 1), ("right", -1))):
        upper, fore = (
            joint(f"{name}_elbow") - joint(f"{name}_shoulder"),
            joint(f"{name}_wrist") - joint(f"{name}_elbow"),
        )
        shoulder, elbow = arm_rotations(
            np.einsum("tji,tj->ti", chest, upper), np.einsum("tji,tj->ti", chest, fore), sign
        )
        rotations[:, 13 + side], rotations[:, 16 + side] = collar_and_shoulder(shoulder, sign)
        rotations[:, L_ELBOW + side] = elbow

        # where even that does not do, the foot comes nearer
        hip = root + hips[side]
        gap = ankles[side] - hip
        ankle = ankles[side] - unit(gap) * _covered(np.maximum(np.linalg.norm(gap, axis=-1) - reach, 0))[:, None]
        theirs_hip, theirs_knee, theirs_ankle = (joint(f"{name}_{j}") for j in ("hip", "knee", "ankle"))
        along = unit(theirs_ankle - theirs_hip)
        out = theirs_knee - theirs_hip
        out = out - (out * along).sum(-1, keepdims=True) * along
        # a straight leg does not say where its knee points: the pelvis does
        pole = _calm(out + 0.04 * (ahead - (ahead * along).sum(-1, keepdims=True) * along), _CALM)
        thigh, shank = leg_rotations(hip, ankle, pole, offsets[L_KNEE + side], offsets[L_ANKLE + side])
        rotations[:, L_HIP + side] = np.swapaxes(pelvis, -1, -2) @ thigh
        rotations[:, L_KNEE + side] = np.swapaxes(thigh, -1, -2) @ shank
        foot = _foot(dancer, side, shank, ankle, floor)
        rotations[:, L_ANKLE + side] = np.swapaxes(shank, -1, -2) @ foot
    return Motion(times, rotations, root)


def _foot(dancer: Dancer, side: int, shank: np.ndarray, ankle: np.ndarray, floor: float) -> np.ndarray:
    """(T, 3, 3) a foot in the world. Keypoints end at the ankle: near the floor it lies flat, above it hangs from the shank."""
    sign = 1 if side == 0 else -1
    ahead = shank[:, :, 2] + 0.25 * sign * shank[:, :, 0]  # toes point a little outwards
    level = unit(_calm(ahead * (1, 0, 1), _CALM_SHORT) + 1e-6)
    zero = np.zeros(len(level))
    flat = _frame(np.stack([level[:, 2], zero, -level[:, 0]], axis=1), np.broadcast_to([0.0, 1.0, 0.0], level.shape))
    tip = dancer.offsets[L_FOOT + side] + (0, -dancer.build.sole - dancer.offsets[L_FOOT + side][1], 0.085)
    heel = np.array([0, -dancer.build.sole, -0.07])

    def below(foot: np.ndarray) -> np.ndarray:
        return np.minimum((foot @ tip)[:, 1], (foot @ heel)[:, 1]) + ankle[:, 1] < floor

    # off the floor toes point; a shank that lies (kneeling, rolling) has the foot as pointed or bent as there is room for
    bent = np.full(len(shank), _POINTED[0])
    for angle in _POINTED[1:]:
        stuck = below(shank @ rotation_matrix(bent[:, None] * (1.0, 0, 0)))
        bent = np.where(stuck & (shank[:, 1, 1] < 0.7), angle, bent)
    hanging = shank @ rotation_matrix(_calm(bent, _CALM_SHORT)[:, None] * (1.0, 0, 0))
    height = ankle[:, 1] - floor - dancer.build.sole
    # only under a shank that stands is there a flat foot
    standing = np.clip((shank[:, 1, 1] - 0.2) / 0.4, 0, 1)
    free = np.clip((height - 0.02) / 0.14, 0, 1)
    free = _calm(1 - (1 - free * free * (3 - 2 * free)) * standing, _CALM)
    turn = np.swapaxes(flat, -1, -2) @ hanging
    for _ in range(12):  # what would reach through the floor is turned back towards flat
        through = below(flat @ _partial(turn, free)) & (standing > 0.5)
        free = np.where(through, free * 0.75, free)
    return flat @ _partial(turn, np.where(through, 0, free))


def _above(motion: Motion, dancer: Dancer, floor: float) -> Motion:
    """The same motion lifted smoothly wherever anything of the dancer would be in the floor: hands, knees, head, back."""
    turned, placed = forward_kinematics(motion.rotations, motion.root, dancer.offsets)
    size = dancer.build.height / 1.75
    deep = floor - soles(dancer, turned, placed)[..., 1].min(-1)
    for bone, radius in _FLESH.items():
        deep = np.maximum(deep, floor + radius * size - placed[:, bone, 1])
    return Motion(motion.times, motion.rotations, motion.root + _covered(np.maximum(deep, 0))[:, None] * (0, 1.0, 0))


def _partial(rotations: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(T, 3, 3) each by a share of its own, 0 … 1."""
    from scipy.spatial.transform import Rotation

    return rotation_matrix(Rotation.from_matrix(rotations).as_rotvec() * share[:, None])
