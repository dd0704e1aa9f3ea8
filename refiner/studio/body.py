"""A dancer: a skeleton, and around it a smooth mesh with clothes, face and hair. All of it is drawn from one seed.

The skeleton is SMPL's tree of 24 joints with the same zero pose (a T, every bone's axes along the world's: x to the
dancer's left, y up, z forwards), so that joint rotations are `smpl_poses` as they stand. The surface is the zero set of
rounded cones and ellipsoids, blended smoothly within a material and cut sharply between two (a hem is a real edge),
meshed once with marching cubes in an A-pose.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from refiner.geometry import rotation_matrix
from refiner.skeleton import INDEX, NUM_JOINTS

PELVIS, L_HIP, R_HIP, SPINE1, L_KNEE, R_KNEE, SPINE2, L_ANKLE, R_ANKLE, SPINE3, L_FOOT, R_FOOT = range(12)
NECK, L_COLLAR, R_COLLAR, HEAD, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST, L_HAND, R_HAND = range(
    12, 24
)
NUM_BONES = 24
PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
# The bone of the other side.
MIRRORED_BONE = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])

# Joints of the body that are joints of the skeleton, too: COCO's joint -> ours.
_COCO_BONES = {
    "left_shoulder": L_SHOULDER,
    "right_shoulder": R_SHOULDER,
    "left_elbow": L_ELBOW,
    "right_elbow": R_ELBOW,
    "left_wrist": L_WRIST,
    "right_wrist": R_WRIST,
    "left_hip": L_HIP,
    "right_hip": R_HIP,
    "left_knee": L_KNEE,
    "right_knee": R_KNEE,
    "left_ankle": L_ANKLE,
    "right_ankle": R_ANKLE,
}

SKIN, TOP, BOTTOM, SHOES, HAIR = range(5)
NUM_MATERIALS = 5

# Grid spacings, metres: a pixel at 1080p is about 3.5 mm on the dancer.
BODY_SPACING, FINE_SPACING = 0.015, 0.008


def forward_kinematics(rotations: np.ndarray, root: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint rotations -> where every bone is.

    Args:
        rotations: (..., 24, 3, 3), each relative to its parent; the pelvis' to the world.
        root: (..., 3) the pelvis in the world, metres.
        offsets: (24, 3) each joint relative to its parent in the zero pose, metres.

    Returns:
        (..., 24, 3, 3) rotations and (..., 24, 3) positions, both in the world.
    """
    turned, placed = np.empty_like(rotations), np.empty((*rotations.shape[:-2], 3))
    for bone, parent in enumerate(PARENTS):
        if parent < 0:
            turned[..., bone, :, :], placed[..., bone, :] = rotations[..., bone, :, :], root
        else:
            turned[..., bone, :, :] = turned[..., parent, :, :] @ rotations[..., bone, :, :]
            placed[..., bone, :] = placed[..., parent, :] + turned[..., parent, :, :] @ offsets[bone]
    return turned, placed


@dataclass(frozen=True, kw_only=True)
class Build:
    """A body's proportions and girths. Lengths in metres, the rest relative to the average (1)."""

    height: float
    legs: float  # length of the legs
    arms: float  # length of the arms
    shoulders: float  # width
    hips: float  # width
    girth: float  # of the torso
    limbs: float  # girth of arms and legs
    bust: float  # 0 … 1

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Build":
        feminine = rng.random()
        return cls(
            height=float(np.clip(rng.normal(1.80 - 0.13 * feminine, 0.06), 1.50, 1.95)),
            legs=rng.uniform(0.95, 1.05),
            arms=rng.uniform(0.94, 1.06),
            shoulders=rng.uniform(0.97, 1.08) - 0.10 * feminine,
            hips=rng.uniform(0.93, 1.03) + 0.08 * feminine,
            girth=float(np.clip(rng.normal(1.0, 0.09), 0.86, 1.25)),
            limbs=float(np.clip(rng.normal(1.02 - 0.08 * feminine, 0.07), 0.85, 1.2)),
            bust=float(np.clip((feminine - 0.45) * 1.8, 0, 1)),
        )

    def offsets(self) -> np.ndarray:
        """(24, 3) each joint relative to its parent in the zero pose, metres.

        The averages are those of AIST++'s dancers (median bone lengths of their triangulated poses).
        """
        s = self.height / 1.75
        leg, arm, wide, hip = s * self.legs, s * self.arms, s * self.shoulders, s * self.hips
        o = np.zeros((NUM_BONES, 3))
        o[SPINE1] = 0, 0.115 * s, -0.005
        o[SPINE2] = 0, 0.125 * s, -0.004
        o[SPINE3] = 0, 0.080 * s, 0.004
        o[NECK] = 0, 0.200 * s, -0.012
        o[HEAD] = 0, 0.085 * s, 0.018
        for side, sign in ((0, 1), (1, -1)):
            o[L_HIP + side] = sign * 0.099 * hip, -0.055 * s, 0.0
            o[L_KNEE + side] = sign * -0.006, -0.388 * leg, 0.004
            o[L_ANKLE + side] = sign * -0.004, -0.375 * leg, -0.012
            o[L_FOOT + side] = sign * 0.012, -0.060 * s, 0.125 * s
            o[L_COLLAR + side] = sign * 0.050 * wide, 0.140 * s, -0.010
            o[L_SHOULDER + side] = sign * 0.116 * wide, 0.005 * s, -0.008
            o[L_ELBOW + side] = sign * 0.262 * arm, 0, -0.004
            o[L_WRIST + side] = sign * 0.242 * arm, 0, 0.004
            o[L_HAND + side] = sign * 0.085 * s, 0, 0
        return o

    @property
    def sole(self) -> float:
        """Height of the ankle joint above the sole, metres."""
        return 0.088 * self.height / 1.75


# --- the implicit surface ---------------------------------------------------------------------------------------------

_CONE, _ELLIPSOID = 0, 1
_ROUND = 0.012  # metres over which a cut edge is rounded


class _Shape:
    """Primitives of one body, in the bind pose: rows of numbers for `_evaluate`, and the bone that each belongs to."""

    def __init__(self, turned: np.ndarray, placed: np.ndarray) -> None:
        self.turned, self.placed = turned, placed
        self.rows: list[np.ndarray] = []
        self.bones: list[int] = []
        self.materials: list[int] = []

    def _at(self, bone: int, local: np.ndarray) -> np.ndarray:
        return self.placed[bone] + self.turned[bone] @ np.asarray(local, float)

    def _add(self, row: np.ndarray, bone: int, material: int, blend: float, cut: tuple | None, carve: bool) -> None:
        row[20] = -blend if carve else blend
        row[21:25] = 0, 0, 0, -1
        if cut is not None:
            point, normal = cut  # what lies on the normal's side is cut away
            n = self.turned[bone] @ np.asarray(normal, float)
            n /= np.linalg.norm(n)
            row[21:24], row[24] = n, n @ self._at(bone, point)
            row[25] = 1
        self.rows.append(row)
        self.bones.append(bone)
        self.materials.append(material)

    def cone(self, bone, a, b, ra, rb, *, material=SKIN, blend=0.03, cut=None, carve=False) -> None:
        """A capsule from a to b (bone's frame) whose radius goes from ra to rb."""
        row = np.zeros(26)
        row[0] = _CONE
        row[1:4], row[4:7], row[7], row[8] = self._at(bone, a), self._at(bone, b), ra, rb
        low = np.minimum(row[1:4] - ra, row[4:7] - rb)
        high = np.maximum(row[1:4] + ra, row[4:7] + rb)
        row[14:17], row[17:20] = low, high
        self._add(row, bone, material, blend, cut, carve)

    def ellipsoid(self, bone, centre, radii, *, turn=(0, 0, 0), material=SKIN, blend=0.03, cut=None, carve=False):
        """An ellipsoid about a point of the bone's frame, turned by a rotation vector."""
        row = np.zeros(26)
        row[0] = _ELLIPSOID
        row[1:4], row[4:7] = self._at(bone, centre), radii
        axes = self.turned[bone] @ rotation_matrix(np.array(turn, float))
        row[7:10], row[10:13] = axes[:, 0], axes[:, 1]
        extent = np.sqrt(((axes * np.asarray(radii)) ** 2).sum(1))
        row[14:17], row[17:20] = row[1:4] - extent, row[1:4] + extent
        self._add(row, bone, material, blend, cut, carve)


@njit(cache=True, nogil=True)
def _distance(row, x, y, z):
    """Signed distance (metres, negative inside) of a point to one primitive."""
    if row[0] == _CONE:
        bx, by, bz = row[4] - row[1], row[5] - row[2], row[6] - row[3]
        px, py, pz = x - row[1], y - row[2], z - row[3]
        r1, r2 = row[7], row[8]
        l2 = bx * bx + by * by + bz * bz
        rr = r1 - r2
        a2 = l2 - rr * rr
        il2 = 1.0 / l2
        yy = px * bx + py * by + pz * bz
        zz = yy - l2
        cx, cy, cz = px * l2 - bx * yy, py * l2 - by * yy, pz * l2 - bz * yy
        x2 = cx * cx + cy * cy + cz * cz
        y2 = yy * yy * l2
        z2 = zz * zz * l2
        k = np.sign(rr) * rr * rr * x2
        if np.sign(zz) * a2 * z2 > k:
            d = np.sqrt(x2 + z2) * il2 - r2
        elif np.sign(yy) * a2 * y2 < k:
            d = np.sqrt(x2 + y2) * il2 - r1
        else:
            d = (np.sqrt(x2 * a2 * il2) + yy * rr) * il2 - r1
    else:
        px, py, pz = x - row[1], y - row[2], z - row[3]
        ux = px * row[7] + py * row[8] + pz * row[9]
        uy = px * row[10] + py * row[11] + pz * row[12]
        wx = row[8] * row[12] - row[9] * row[11]
        wy = row[9] * row[10] - row[7] * row[12]
        wz = row[7] * row[11] - row[8] * row[10]
        uz = px * wx + py * wy + pz * wz
        ux, uy, uz = ux / row[4], uy / row[5], uz / row[6]
        k0 = np.sqrt(ux * ux + uy * uy + uz * uz)
        qx, qy, qz = ux / row[4], uy / row[5], uz / row[6]
        k1 = np.sqrt(qx * qx + qy * qy + qz * qz)
        d = k0 * (k0 - 1.0) / k1 if k1 > 1e-9 else -min(row[4], row[5], row[6])
    if row[25] == 1:
        # a rounded edge: marching cubes makes teeth of a sharp one
        cut = row[21] * x + row[22] * y + row[23] * z - row[24]
        h = max(_ROUND - abs(d - cut), 0.0) / _ROUND
        d = max(d, cut) + h * h * _ROUND * 0.25
    return d


@njit(cache=True, nogil=True)
def _evaluate(rows, origin, spacing, shape):
    """The smooth union of primitives on a grid; beyond a few centimetres of the nearest it stays at a constant."""
    far = 0.08
    field = np.full(shape, far)
    for p in range(rows.shape[0]):
        row = rows[p]
        blend = abs(row[20])
        low = np.empty(3, np.int64)
        high = np.empty(3, np.int64)
        for axis in range(3):
            low[axis] = max(0, int(np.floor((row[14 + axis] - far - origin[axis]) / spacing)))
            high[axis] = min(shape[axis], int(np.ceil((row[17 + axis] + far - origin[axis]) / spacing)) + 1)
        for i in range(low[0], high[0]):
            for j in range(low[1], high[1]):
                for k in range(low[2], high[2]):
                    d = _distance(row, origin[0] + i * spacing, origin[1] + j * spacing, origin[2] + k * spacing)
                    f = field[i, j, k]
                    if row[20] < 0:  # carved away
                        h = max(blend - abs(-d - f), 0.0) / blend
                        field[i, j, k] = max(f, -d) + h * h * blend * 0.25
                    else:
                        h = max(blend - abs(d - f), 0.0) / blend
                        field[i, j, k] = min(f, d) - h * h * blend * 0.25
    return field


@njit(cache=True, nogil=True)
def _bone_distances(rows, bones, points):
    """(V, 24) distance of each point to the flesh of each bone."""
    out = np.full((points.shape[0], NUM_BONES), 1.0)
    for v in range(points.shape[0]):
        for p in range(rows.shape[0]):
            d = _distance(rows[p], points[v, 0], points[v, 1], points[v, 2])
            out[v, bones[p]] = min(out[v, bones[p]], d)
    return out


# --- looks ------------------------------------------------------------------------------------------------------------

_SKINS = np.array(  # sRGB, from light to dark
    [(244, 208, 177), (231, 184, 143), (224, 172, 128), (198, 134, 93), (161, 102, 66), (116, 72, 46), (80, 50, 34)]
)
_HAIRS = np.array(
    [(28, 22, 20), (45, 31, 24), (84, 56, 36), (122, 84, 50), (196, 158, 98), (150, 60, 34), (120, 118, 116)]
)
_CLOTHS = np.array(
    [
        (236, 234, 228), (32, 33, 38), (120, 124, 130), (40, 62, 110), (176, 42, 46), (226, 178, 60), (52, 118, 96),
        (214, 108, 56), (132, 72, 140), (92, 150, 196), (200, 186, 160), (224, 132, 158), (74, 92, 60), (60, 42, 44),
    ]
)  # fmt: skip
_IRISES = np.array([(70, 46, 30), (66, 88, 108), (40, 30, 26)])
_WORN = np.array([16, 16, 12, 10, 7, 5, 6, 5, 3, 6, 8, 2, 6, 4]) / 106  # how often each is worn
_DENIM = np.array([(58, 82, 124), (34, 46, 74), (108, 134, 168), (38, 38, 44), (150, 136, 110), (92, 96, 84)])

PLAIN, STRIPES, LOGO, RAGLAN, CHECKS = range(5)  # patterns of the top


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0 … 255 -> linear light 0 … 1."""
    c = np.asarray(srgb, float) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Clothes, hair and colours (linear light)."""

    sleeves: float  # share of the arm that the top covers: 0.3 T-shirt … 1.9 long sleeves
    trousers: float  # share of the leg that the trousers cover: 0.8 shorts … 1.9 long
    loose: float  # how far the cloth stands off, metres
    hood: bool
    hair: str  # "short", "bob", "long", "tail", "bun", "afro", "cap", "beanie", "shaved"
    beard: bool
    pattern: int
    colours: (
        np.ndarray
    )  # (12, 3) skin, top, second colour of the top, bottom, seam, shoes, sole, hair, lips, iris, brows, hat
    head_covered: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, build: Build) -> "Look":
        skin = _SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.95, 1.04)
        hair_colour = _HAIRS[rng.choice(len(_HAIRS), p=[0.3, 0.25, 0.15, 0.1, 0.08, 0.05, 0.07])]
        top, second = _CLOTHS[rng.choice(len(_CLOTHS), 2, replace=False, p=_WORN)]
        bottom = _DENIM[rng.integers(len(_DENIM))] if rng.random() < 0.6 else _CLOTHS[rng.choice(len(_CLOTHS), p=_WORN)]
        if np.abs(np.subtract(top, bottom)).sum() < 90:  # a dancer all in one colour hides the waist, which few wear
            bottom = _DENIM[2] if np.mean(top) < 110 else _DENIM[1]
        styles = ["short", "short", "bob", "long", "tail", "bun", "afro", "cap", "beanie", "shaved"]
        weights = np.array([1.6, 1.6, 1, 1, 1, 1, 0.7, 1, 0.8, 0.6])
        weights[2:6] *= 0.3 + 1.7 * build.bust
        weights[9] *= 1 - 0.9 * build.bust
        hair = styles[rng.choice(len(styles), p=weights / weights.sum())]
        sleeves = [0.5, 0.6, 0.75, 1.92][rng.choice(4, p=[0.35, 0.25, 0.1, 0.3])]
        trousers = [0.85, 1.05, 1.86, 1.9][rng.choice(4, p=[0.15, 0.1, 0.4, 0.35])]
        sneakers = rng.choice([0, 1, 4, 3, 5])
        hat = _CLOTHS[rng.choice(len(_CLOTHS), p=_WORN)]
        colours = [
            skin, top, second, bottom, bottom * 0.55, _CLOTHS[sneakers], _CLOTHS[0 if rng.random() < 0.75 else 1],
            hair_colour, skin * (0.85, 0.69, 0.68), _IRISES[rng.choice(3, p=[0.45, 0.15, 0.4])],
            hair_colour * 0.7, hat,
        ]  # fmt: skip
        return cls(
            sleeves=float(sleeves),
            trousers=float(trousers),
            loose=float(rng.uniform(0.008, 0.022)),
            hood=bool(sleeves > 1.5 and rng.random() < 0.6),
            hair=hair,
            beard=bool(build.bust == 0 and rng.random() < 0.3),
            pattern=int(rng.choice(5, p=[0.25, 0.2, 0.25, 0.15, 0.15])),
            colours=linear(np.clip(np.array(colours, float), 0, 255)),
            head_covered=hair in ("cap", "beanie"),
        )


# --- the dancer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mesh:
    """A dancer's surface in the bind pose. V vertices, T triangles."""

    vertices: np.ndarray  # (V, 3) f32 m
    normals: np.ndarray  # (V, 3) f32
    triangles: np.ndarray  # (T, 3) i32, counter-clockwise from outside
    bones: np.ndarray  # (V, 4) i32
    weights: np.ndarray  # (V, 4) f32, sum 1
    materials: np.ndarray  # (V, 5) f32: distance to each material's surface; the least one is what is seen
    occlusion: np.ndarray  # (V,) f32: 1 open … 0 in a fold


@dataclass(frozen=True)
class Dancer:
    """One body with its clothes."""

    build: Build
    look: Look

    @classmethod
    def draw(cls, seed: int) -> "Dancer":
        """The dancer of a seed."""
        rng = np.random.default_rng([seed, 0xB0D7])
        build = Build.draw(rng)
        return cls(build, Look.draw(rng, build))

    @cached_property
    def offsets(self) -> np.ndarray:
        """(24, 3) the skeleton: each joint relative to its parent in the zero pose, metres."""
        return self.build.offsets()

    @cached_property
    def bind(self) -> tuple[np.ndarray, np.ndarray]:
        """((24, 3, 3), (24, 3)) the A-pose in which the surface is meshed: limbs apart, so that they do not grow together."""
        rotations = np.tile(np.eye(3), (NUM_BONES, 1, 1))
        for side, sign in ((0, 1), (1, -1)):
            rotations[L_COLLAR + side] = rotation_matrix(np.array([0, 0, -0.10 * sign]))
            rotations[L_SHOULDER + side] = rotation_matrix(np.array([0, 0, -0.70 * sign]))
            rotations[L_HIP + side] = rotation_matrix(np.array([0, 0, 0.13 * sign]))
            rotations[L_ANKLE + side] = rotation_matrix(np.array([0, 0, -0.13 * sign]))
        return forward_kinematics(rotations, np.zeros(3), self.offsets)

    @cached_property
    def mesh(self) -> Mesh:
        return _mesh(self)

    @cached_property
    def face(self) -> dict[str, np.ndarray]:
        """Nose, eyes (on the surface) and ears in the head's frame, metres."""
        return _face(self)

    def joints(self, turned: np.ndarray, placed: np.ndarray) -> np.ndarray:
        """(..., 24, 3, 3), (..., 24, 3) -> (..., 17, 3) the COCO joints, metres, world: the truth of what is rendered."""
        poses = np.empty((*placed.shape[:-2], NUM_JOINTS, 3))
        for name, bone in _COCO_BONES.items():
            poses[..., INDEX[name], :] = placed[..., bone, :]
        for name, local in self.face.items():
            poses[..., INDEX[name], :] = placed[..., HEAD, :] + turned[..., HEAD, :, :] @ local
        return poses


def _flesh(dancer: Dancer) -> _Shape:
    """The naked body. It is also what clothes are cut from, and what the skinning weights come from."""
    b = dancer.build
    s = b.height / 1.75
    o = dancer.offsets
    shape = _Shape(*dancer.bind)
    g, m = s * b.girth, s * b.limbs
    gz = g * b.girth**0.5  # girth shows in front before it shows at the sides
    add, ball = shape.cone, shape.ellipsoid

    ball(PELVIS, (0, -0.03 * s, -0.002), (0.158 * g * b.hips, 0.115 * s, 0.108 * gz), blend=0.05)
    ball(SPINE1, (0, 0.01 * s, 0.012), (0.135 * g, 0.13 * s, 0.098 * gz), blend=0.08)
    ball(SPINE2, (0, 0.0, 0.008), (0.142 * g * b.shoulders**0.5, 0.13 * s, 0.103 * gz), blend=0.08)
    ball(SPINE3, (0, 0.035 * s, -0.002), (0.155 * g * b.shoulders, 0.145 * s, 0.110 * gz), blend=0.08)
    for sign in (1, -1):
        side = 0 if sign > 0 else 1
        ball(PELVIS, (sign * 0.068 * g, -0.065 * s, -0.058 * gz), (0.085 * g, 0.095 * s, 0.080 * g), blend=0.05)
        bust = 0.030 + 0.035 * b.bust
        ball(
            SPINE3,
            (sign * 0.072 * g, (0.045 - 0.02 * b.bust) * s, 0.066 * gz),
            (0.075 * g, 0.068 * s, bust * g + 0.01),
            blend=0.05,
        )
        # neck to shoulder, and the shoulder's cap
        add(
            L_COLLAR + side,
            (sign * -0.02, 0.055 * s, 0),
            (sign * 0.10 * s, 0.012 * s, 0),
            0.048 * g,
            0.050 * m,
            blend=0.07,
        )
        ball(L_SHOULDER + side, (sign * 0.006, -0.002, 0), (0.062 * m, 0.060 * m, 0.061 * m), blend=0.05)
        elbow, wrist = o[L_ELBOW + side], o[L_WRIST + side]
        add(L_SHOULDER + side, (0, 0, 0), elbow * 0.45, 0.054 * m, 0.049 * m, blend=0.04)
        add(L_SHOULDER + side, elbow * 0.45, elbow, 0.049 * m, 0.039 * m, blend=0.03)
        add(L_ELBOW + side, (0, 0, 0), wrist * 0.3, 0.038 * m, 0.042 * m, blend=0.03)
        add(L_ELBOW + side, wrist * 0.3, wrist, 0.042 * m, 0.026 * m, blend=0.03)
        _hand(shape, side, sign, s, m)
        knee, ankle = o[L_KNEE + side], o[L_ANKLE + side]
        add(L_HIP + side, (sign * 0.004, -0.01, 0), knee * 0.5, 0.088 * m * g / s, 0.074 * m, blend=0.06)
        add(L_HIP + side, knee * 0.5, knee, 0.074 * m, 0.054 * m, blend=0.04)
        ball(L_KNEE + side, (0, 0, 0.010), (0.050 * m, 0.058 * m, 0.052 * m), blend=0.03)
        add(L_KNEE + side, (0, 0, 0), ankle * 0.3 + (0, 0, -0.010), 0.051 * m, 0.056 * m, blend=0.03)
        add(L_KNEE + side, ankle * 0.3 + (0, 0, -0.010), ankle, 0.056 * m, 0.036 * m, blend=0.04)
        add(L_ANKLE + side, (0, 0.02, 0), (0, -0.04 * s, 0.02), 0.036 * m, 0.034 * m, blend=0.03)
    add(NECK, (0, -0.04 * s, -0.004), o[HEAD] + (0, 0.02, 0.0), 0.057 * (g + s) / 2, 0.050 * (g + s) / 2, blend=0.045)
    _head(shape, b)
    return shape


def _hand(shape: _Shape, side: int, sign: int, s: float, m: float) -> None:
    bone, h = L_WRIST + side, s * 0.97
    shape.ellipsoid(bone, (sign * 0.050 * h, -0.002, 0.004), (0.052 * h, 0.017 * m, 0.040 * h), blend=0.02)
    shape.cone(bone, (0, 0, 0), (sign * 0.03 * h, 0, 0), 0.025 * m, 0.026 * m, blend=0.025)
    for finger, (z, length) in enumerate(((0.030, 0.068), (0.011, 0.078), (-0.009, 0.072), (-0.027, 0.056))):
        start = np.array([0.080 - 0.004 * abs(finger - 1), -0.002, z]) * h * (sign, 1, 1)
        middle = start + np.array([sign * length * 0.55, -0.010, 0]) * h
        tip = middle + np.array([sign * length * 0.42, -0.022, 0]) * h
        shape.cone(bone, start, middle, 0.0105 * h, 0.0098 * h, blend=0.012)
        shape.cone(bone, middle, tip, 0.0098 * h, 0.0078 * h, blend=0.008)
    thumb = np.array([sign * 0.022, -0.006, 0.030]) * h
    knuckle = thumb + np.array([sign * 0.034, -0.010, 0.026]) * h
    shape.cone(bone, thumb, knuckle, 0.016 * h, 0.012 * h, blend=0.02)
    shape.cone(bone, knuckle, knuckle + np.array([sign * 0.032, -0.006, 0.004]) * h, 0.0115 * h, 0.009 * h, blend=0.01)


def head_scale(build: Build) -> float:
    """Heads vary less than bodies."""
    return (build.height / 1.75) ** 0.6


# Points of the average head, metres from the head's joint. The face's paint (`render`) uses them, too.
EYE = np.array([0.0315, 0.108, 0.083])
MOUTH = np.array([0.0, 0.035, 0.09])
BROW_Y = 0.128


def _head(shape: _Shape, build: Build) -> None:
    h = head_scale(build)
    v = lambda *p: np.array(p) * h  # noqa: E731
    ball, add = shape.ellipsoid, shape.cone
    ball(HEAD, v(0, 0.142, -0.006), v(0.076, 0.094, 0.098), blend=0.02)  # skull
    ball(HEAD, v(0, 0.082, 0.034), v(0.062, 0.085, 0.062), blend=0.04)  # face
    ball(HEAD, v(0, 0.042, 0.034), v(0.051, 0.044, 0.056), blend=0.030)  # jaw
    ball(HEAD, v(0, 0.010, 0.074), v(0.020, 0.016, 0.018), blend=0.030)  # chin
    for sign in (1, -1):
        ball(HEAD, v(sign * 0.040, 0.078, 0.066), v(0.020, 0.018, 0.020), blend=0.03)  # cheeks
        ball(HEAD, v(sign * 0.030, 0.126, 0.078), v(0.026, 0.008, 0.012), blend=0.02)  # brow
        ball(HEAD, v(sign * 0.032, 0.107, 0.101), v(0.018, 0.012, 0.013), blend=0.014, carve=True)  # eye socket
        ball(HEAD, v(sign * EYE[0], EYE[1], 0.0735), v(0.0145, 0.0125, 0.0135), blend=0.006)  # eyeball and lids
        ball(HEAD, v(sign * 0.077, 0.095, -0.002), v(0.009, 0.031, 0.019), turn=(-0.15, sign * 0.35, 0), blend=0.010)
    add(HEAD, v(0, 0.110, 0.088), v(0, 0.073, 0.108), 0.008 * h, 0.0115 * h, blend=0.016)  # nose
    for sign in (1, -1):
        ball(HEAD, v(sign * 0.011, 0.069, 0.096), v(0.009, 0.008, 0.010), blend=0.010)
    ball(HEAD, v(0, 0.041, 0.086), v(0.021, 0.006, 0.009), blend=0.010)  # lips
    ball(HEAD, v(0, 0.030, 0.085), v(0.018, 0.006, 0.009), blend=0.010)


def _wardrobe(dancer: Dancer, flesh: _Shape) -> _Shape:
    """Clothes, shoes and hair around the flesh."""
    b, look = dancer.build, dancer.look
    s = b.height / 1.75
    o, g, m = dancer.offsets, s * b.girth, s * b.limbs
    gz = g * b.girth**0.5
    shape = _Shape(*dancer.bind)
    add, ball = shape.cone, shape.ellipsoid
    off = look.loose

    # the top: the flesh of the torso, standing off, down to a hem below the hips' crest
    for row, bone in zip(flesh.rows, flesh.bones, strict=True):
        if bone in (PELVIS, SPINE1, SPINE2, SPINE3, L_COLLAR, R_COLLAR):
            grown = row.copy()
            if row[0] == _CONE:
                grown[7:9] += 0.006 + 0.4 * off
            else:
                grown[4:7] += 0.010 + off * (1.0 if bone in (PELVIS, SPINE1, SPINE2) else 0.6)
            grown[14:17] -= 0.03
            grown[17:20] += 0.03
            if bone == PELVIS:
                hem = shape.placed[PELVIS][1] - 0.075 * s
                grown[21:25], grown[25] = (0, -1, 0, -hem), 1
                grown[20] = 0.05
            shape.rows.append(grown)
            shape.bones.append(bone)
            shape.materials.append(TOP)
    hem = -0.075 * s
    add(
        SPINE1, (0, 0.02 * s, 0.004), (0, -0.25 * s, 0.0), 0.108 * gz + off, 0.112 * gz + off,
        material=TOP, blend=0.08, cut=((0, hem - o[SPINE1][1], 0), (0, -1, 0)),
    )  # fmt: skip
    if look.hood:
        ball(SPINE3, (0, 0.155 * s, -0.085 * gz), (0.085, 0.060, 0.050), turn=(-0.5, 0, 0), material=TOP, blend=0.04)
        add(SPINE3, (-0.06, 0.165 * s, -0.03), (0.06, 0.165 * s, -0.03), 0.042, 0.042, material=TOP, blend=0.04)
    for sign in (1, -1):
        side = 0 if sign > 0 else 1
        elbow, wrist, knee, ankle = o[L_ELBOW + side], o[L_WRIST + side], o[L_KNEE + side], o[L_ANKLE + side]
        ball(L_SHOULDER + side, (sign * 0.004, 0, 0), np.full(3, 0.066 * m + 0.4 * off), material=TOP, blend=0.05)
        up = min(look.sleeves, 1.0)
        loose = off if look.sleeves < 1 else 0.7 * off
        short = dict(cut=(elbow * up, elbow)) if look.sleeves < 1 else {}
        add(
            L_SHOULDER + side, (0, 0, 0), elbow * up, 0.059 * m + 0.7 * loose, 0.050 * m + 1.3 * loose,
            material=TOP, blend=0.05, **short,
        )  # fmt: skip
        if look.sleeves > 1:
            end = wrist * (look.sleeves - 1)
            add(L_ELBOW + side, (0, 0, 0), wrist * 0.35, 0.047 * m + loose, 0.047 * m + loose, material=TOP, blend=0.03)
            add(
                L_ELBOW + side, wrist * 0.35, wrist, 0.047 * m + loose, 0.032 * m + 0.8 * loose,
                material=TOP, blend=0.03, cut=(end, wrist),
            )  # fmt: skip
        # the shirt falls over the hips, outside of the trousers
        over = 0.004 + 0.9 * off + 0.007
        add(
            L_HIP + side, (0, 0.01, -0.004), (sign * 0.004, -0.08 * s, -0.002), 0.094 * m * g / s + over,
            0.092 * m * g / s + over + 0.004, material=TOP, blend=0.06, cut=((0, hem + 0.055 * s - 0.012, 0), (0, -1, 0)),
        )  # fmt: skip
        # trousers: hips and legs
        wide = 0.004 + 0.9 * off
        down = min(look.trousers, 1.0)
        short = dict(cut=(knee * down, knee)) if look.trousers < 1 else {}
        add(
            L_HIP + side, (0, -0.01, -0.004), knee * 0.5, 0.094 * m * g / s + wide, 0.080 * m + wide,
            material=BOTTOM, blend=0.05, **short,
        )  # fmt: skip
        add(
            L_HIP + side, knee * 0.5, knee, 0.080 * m + wide, 0.064 * m + 1.2 * wide,
            material=BOTTOM, blend=0.03, **short,
        )  # fmt: skip
        if look.trousers > 1:
            end = ankle * (look.trousers - 1)
            add(
                L_KNEE + side, (0, 0, 0.004), ankle * 0.4, 0.062 * m + 1.2 * wide, 0.060 * m + 1.1 * wide,
                material=BOTTOM, blend=0.04, cut=(end, ankle) if look.trousers < 1.4 else None,
            )  # fmt: skip
            if look.trousers > 1.4:
                add(
                    L_KNEE + side, ankle * 0.4, ankle * 1.05, 0.060 * m + 1.1 * wide, 0.050 * m + 1.2 * wide,
                    material=BOTTOM, blend=0.04, cut=(end, ankle),
                )  # fmt: skip
        # shoes: a flat sole under a rounded upper
        sole = ((0, -b.sole, 0), (0, -1, 0))
        low = -b.sole + 0.030 * s
        z = o[L_FOOT + side][2]
        x = sign * 0.010
        kw = dict(material=SHOES, cut=sole)
        add(
            L_ANKLE + side,
            (0, low + 0.008, -0.030 * s),
            (x * 0.5, low + 0.012, 0.05 * s),
            0.040 * s,
            0.042 * s,
            blend=0.03,
            **kw,
        )
        add(L_ANKLE + side, (x * 0.5, low + 0.010, 0.04 * s), (x, low, z), 0.043 * s, 0.045 * s, blend=0.03, **kw)
        # at the ball the foot's own bone takes over, with the same plane in its frame
        drop = o[L_FOOT + side][1]
        toe = ((0, -b.sole - drop, 0), (0, -1, 0))
        add(
            L_FOOT + side, (0, low - drop, -0.01), (sign * -0.006, low - drop - 0.006, 0.052 * s), 0.044 * s, 0.034 * s,
            material=SHOES, blend=0.03, cut=toe,
        )  # fmt: skip
        add(
            L_ANKLE + side,
            (0, 0.012, 0.002),
            (0, -0.03 * s, 0.01),
            0.043 * m,
            0.046 * m,
            blend=0.03,
            material=SHOES,
            cut=((0, 0.018, 0), (0, 1, 0)),
        )
    for row, bone in zip(flesh.rows, flesh.bones, strict=True):
        if bone == PELVIS:
            grown = row.copy()
            grown[4:7] += 0.003 + 0.30 * off
            grown[14:17] -= 0.02
            grown[17:20] += 0.02
            shape.rows.append(grown)
            shape.bones.append(PELVIS)
            shape.materials.append(BOTTOM)
    _hair(shape, dancer)
    return shape


def _hair(shape: _Shape, dancer: Dancer) -> None:
    h = head_scale(dancer.build)
    v = lambda *p: np.array(p) * h  # noqa: E731
    style = dancer.look.hair
    kw = dict(material=HAIR)
    # the hairline: what lies before and below this plane is face
    line = (v(0, 0.165, 0.075), (0, -0.62, 0.80))
    cap = lambda grow, **more: shape.ellipsoid(  # noqa: E731
        HEAD, v(0, 0.146, -0.010), v(0.077 + grow, 0.094 + grow, 0.098 + grow), cut=line, blend=0.02, **kw, **more
    )
    if style == "shaved":
        cap(0.0012)
    elif style == "afro":
        shape.ellipsoid(
            HEAD,
            v(0, 0.165, -0.025),
            v(0.125, 0.120, 0.125),
            cut=(v(0, 0.165, 0.085), (0, -0.5, 0.86)),
            blend=0.02,
            **kw,
        )
    elif style == "cap":
        cap(0.004)
        shape.ellipsoid(
            HEAD, v(0, 0.160, -0.006), v(0.084, 0.088, 0.106), cut=(v(0, 0.160, 0), (0, -1, 0.10)), blend=0.01, **kw
        )
        shape.ellipsoid(HEAD, v(0, 0.166, 0.105), v(0.062, 0.008, 0.068), turn=(0.12, 0, 0), blend=0.012, **kw)
    elif style == "beanie":
        cap(0.003)
        shape.ellipsoid(
            HEAD, v(0, 0.150, -0.010), v(0.087, 0.108, 0.109), cut=(v(0, 0.150, 0.02), (0, -1, 0.22)), blend=0.01, **kw
        )
    else:
        cap(0.010)
        shape.ellipsoid(HEAD, v(0.010, 0.205, 0.045), v(0.062, 0.034, 0.055), turn=(0.35, 0, 0.15), blend=0.03, **kw)
        if style in ("bob", "long"):
            length = 0.02 if style == "bob" else -0.10
            for sign in (1, -1):
                shape.cone(
                    HEAD,
                    v(sign * 0.066, 0.14, -0.012),
                    v(sign * 0.078, length, -0.018),
                    0.026 * h,
                    0.022 * h,
                    blend=0.05,
                    **kw,
                )
            shape.ellipsoid(
                HEAD, v(0, 0.07 + length * 0.4, -0.072), v(0.078, 0.105 - length * 0.45, 0.040), blend=0.05, **kw
            )
        elif style == "tail":
            shape.ellipsoid(HEAD, v(0, 0.165, -0.112), v(0.024, 0.022, 0.024), blend=0.02, **kw)
            shape.cone(HEAD, v(0, 0.165, -0.125), v(0, 0.02, -0.155), 0.026 * h, 0.012 * h, blend=0.02, **kw)
        elif style == "bun":
            shape.ellipsoid(HEAD, v(0, 0.215, -0.075), v(0.042, 0.040, 0.042), blend=0.015, **kw)


# Blending widths of the bones' weights, metres: a spine bends over its whole length, a wrist does not.
_SOFTNESS = np.full(NUM_BONES, 0.018)
_SOFTNESS[[PELVIS, SPINE1, SPINE2, SPINE3]] = 0.030
_SOFTNESS[[L_WRIST, R_WRIST, L_HAND, R_HAND, HEAD, NECK]] = 0.012


def _tree_distance() -> np.ndarray:
    """(24, 24) how many joints lie between two bones."""
    steps = np.full((NUM_BONES, NUM_BONES), 99)
    np.fill_diagonal(steps, 0)
    for bone, parent in enumerate(PARENTS):
        if parent >= 0:
            steps[bone, parent] = steps[parent, bone] = 1
    for k in range(NUM_BONES):
        steps = np.minimum(steps, steps[:, k : k + 1] + steps[k : k + 1])
    return steps


def _mesh(dancer: Dancer) -> Mesh:
    """Meshes a dancer: the body coarsely, head and hands finely."""
    flesh = _flesh(dancer)
    clothes = _wardrobe(dancer, flesh)
    rows = np.array(flesh.rows + clothes.rows)
    bones = np.array(flesh.bones + clothes.bones)
    materials = np.array(flesh.materials + clothes.materials)

    placed = dancer.bind[1]
    h = head_scale(dancer.build)
    neck = placed[HEAD][1] - 0.012 * h  # where the fine mesh of the head takes over
    parts = []
    fine = np.array([L_WRIST, R_WRIST])
    lo, hi = rows[:, 14:17].min(0) - 0.03, rows[:, 17:20].max(0) + 0.03
    parts.append(_part(rows, materials, lo, np.array([hi[0], neck + 0.02, hi[2]]), BODY_SPACING))
    own = bones == HEAD
    lo, hi = rows[own, 14:17].min(0) - 0.03, rows[own, 17:20].max(0) + 0.03
    lo[1] = neck - 0.02  # the meshes overlap by two centimetres, in which they are the same surface
    parts.append(_part(rows, materials, lo, hi, FINE_SPACING))
    for bone in fine:
        own = bones == bone
        lo, hi = rows[own, 14:17].min(0) - 0.02, rows[own, 17:20].max(0) + 0.02
        forearm = own | (bones == PARENTS[bone])
        parts.append(_part(rows[forearm], materials[forearm], lo, hi, FINE_SPACING))
    # the coarse mesh leaves hands and head to the fine ones
    vertices, normals, fields, triangles = parts[0]
    nearest = np.argmin(_bone_distances(np.array(flesh.rows), np.array(flesh.bones), vertices), axis=1)
    drop = (nearest == HEAD) & (vertices[:, 1] > neck)
    for side, bone in enumerate(fine):
        axis = dancer.bind[0][bone][:, 0] * (1 if side == 0 else -1)
        drop |= (nearest == bone) & ((vertices - placed[bone]) @ axis > 0.012)
    triangles = triangles[~drop[triangles].all(1)]
    parts[0] = (vertices, normals, fields, triangles)

    vertices = np.concatenate([p[0] for p in parts])
    normals = np.concatenate([p[1] for p in parts])
    fields = np.concatenate([p[2] for p in parts])
    starts = np.cumsum([0] + [len(p[0]) for p in parts])
    triangles = np.concatenate([p[3] + start for p, start in zip(parts, starts[:-1], strict=True)])
    used, triangles = np.unique(triangles, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    vertices, normals, fields = vertices[used], normals[used], fields[used]

    weights, indices = _weights(flesh, vertices, triangles)
    occlusion = _occlusion(rows, vertices, normals)
    return Mesh(
        vertices.astype(np.float32),
        normals.astype(np.float32),
        triangles.astype(np.int32),
        indices.astype(np.int32),
        weights.astype(np.float32),
        fields.astype(np.float32),
        occlusion.astype(np.float32),
    )


def _part(rows, materials, low, high, spacing):
    """Marching cubes over a box: vertices, outward normals, distance to each material, triangles."""
    from scipy.ndimage import map_coordinates
    from skimage.measure import marching_cubes

    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    fields = np.stack(
        [_evaluate(rows[materials == m], low, spacing, shape) for m in range(NUM_MATERIALS)]
    )  # far from a material's primitives its field is a constant
    field = fields.min(0)
    points, faces, normals, _ = marching_cubes(
        field.astype(np.float32), 0.0, spacing=(spacing,) * 3, gradient_direction="ascent"
    )
    at = points.T / spacing
    values = np.stack([map_coordinates(f, at, order=1, mode="nearest") for f in fields], axis=1)
    # normals out of the field itself: smoother than those of the triangles
    gradient = np.stack([map_coordinates(g, at, order=1, mode="nearest") for g in np.gradient(field, spacing)], axis=1)
    normals = gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-9)
    points = points + low
    worn = np.isin(values.argmin(1), (TOP, BOTTOM))
    normals[worn] += _FOLDS * _creases(points[worn])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return points, normals, values, faces


_FOLDS = 0.16  # how far cloth's normals lean


def _creases(p: np.ndarray) -> np.ndarray:
    """(V, 3) m -> (V, 3) the gradient of a wavy field without a visible period, about unit length: folds in cloth."""
    x, y, z = p.T
    a = 31 * x + 13 * y + 2.3 * np.sin(17 * z + 5 * y)
    b = 37 * y - 19 * z + 1.9 * np.sin(23 * x)
    c = 24 * z + 29 * x + 2.1 * np.sin(19 * y)
    return np.stack([np.cos(a) + np.cos(c), 0.4 * np.cos(a) + 1.2 * np.cos(b), np.cos(c) - 0.6 * np.cos(b)], axis=1)


def _weights(flesh: _Shape, vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((V, 4) weights, (V, 4) bones): falling off with the distance to each bone's flesh, smoothed over the surface."""
    from scipy.sparse import coo_matrix

    distance = _bone_distances(np.array(flesh.rows), np.array(flesh.bones), vertices)
    nearest = distance.argmin(1)
    weights = np.exp(-np.maximum(distance - distance.min(1, keepdims=True), 0) / _SOFTNESS)
    # a hand beside a thigh is no part of it
    weights[_tree_distance()[nearest] > 2] = 0
    weights /= weights.sum(1, keepdims=True)
    a, b = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).T
    n = len(vertices)
    ones = np.ones(len(a))
    graph = coo_matrix((ones, (a, b)), (n, n)).tocsr() + coo_matrix((ones, (b, a)), (n, n)).tocsr()
    degree = np.maximum(np.asarray(graph.sum(1)), 1)
    for _ in range(6):
        weights = 0.5 * weights + 0.5 * (graph @ weights) / degree
    order = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(weights, order, 1)
    return weights / weights.sum(1, keepdims=True), order


@njit(cache=True, nogil=True)
def _openness(rows, vertices, normals):
    out = np.ones(vertices.shape[0])
    for v in range(vertices.shape[0]):
        dark = 0.0
        for step in range(1, 4):
            reach = 0.025 * step * step
            x = vertices[v, 0] + normals[v, 0] * reach
            y = vertices[v, 1] + normals[v, 1] * reach
            z = vertices[v, 2] + normals[v, 2] * reach
            nearest = reach
            for p in range(rows.shape[0]):
                if rows[p, 20] > 0:
                    nearest = min(nearest, _distance(rows[p], x, y, z))
            dark += (reach - max(nearest, 0.0)) / reach * (0.5 if step == 1 else 0.32)
        out[v] = max(0.25, 1.0 - dark)
    return out


def _occlusion(rows: np.ndarray, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(V,) how open the surface lies: free distance along the normal against distance gone (Evans 2006)."""
    return _openness(rows, vertices, normals)


def _face(dancer: Dancer) -> dict[str, np.ndarray]:
    """Nose and eyes in the head's frame, where a ray from in front meets the bare head; and the ears."""
    h = head_scale(dancer.build)
    shape = _Shape(*dancer.bind)
    _head(shape, dancer.build)
    rows, origin = np.array(shape.rows), dancer.bind[1][HEAD]
    points = {}
    for name, start, direction in (
        ("nose", (0, 0.073, 0.20), (0, 0, -1)),
        ("left_eye", (EYE[0], EYE[1], 0.20), (0, 0, -1)),
        ("right_eye", (-EYE[0], EYE[1], 0.20), (0, 0, -1)),
    ):
        at = origin + np.array(start) * h
        for _ in range(60):  # sphere tracing
            distance = _evaluate(rows, at, 1.0, (1, 1, 1))[0, 0, 0]
            if distance < 2e-4:
                break
            at = at + np.array(direction) * min(distance, 0.02)
        points[name] = at - origin
    # an ear is marked at its canal, not at its rim
    for name, sign in (("left_ear", 1), ("right_ear", -1)):
        points[name] = np.array([sign * 0.078, 0.095, 0.004]) * h
    return points
