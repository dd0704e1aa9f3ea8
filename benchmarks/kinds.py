"""What `validate_poses` refuses: true poses of captured motion, and the same as each wrong kind of numbers, alone and by clip.

    python -m benchmarks.kinds --motions recordings/ --observations data/observations

Motion is seen from anywhere, with errors like MediaPipe's: depth squashed, a bias for each joint and clip, noise. Observations
are what the estimator really saw. Both are taken as they are, as children's, and lying on the side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner import UserError
from refiner.command import launch, log
from refiner.data import records
from refiner.inference.validation import validate_poses
from refiner.skeleton import INDEX, MIRROR, NUM_JOINTS, middle, root_centred, to_coco

EVERY = 3  # of 60 Hz
LENGTHS = (1, 5, 20, 60, 200)  # poses in a batch
DEPTHS = (
    2.7,
    4.3,
)  # z of image landmarks over that of world landmarks, both against x: see refiner/inference/stretched.py


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    motions: Path | None = None
    """Folder of BVH files."""
    observations: Path | None = None
    """Folder of observations."""
    seed: int = 0
    singles: int = 10
    """Of single poses of wrong kinds, every so manyth is sent; of true ones, all."""


def seen(motion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, 17, 3) metres, y up -> as MediaPipe might give them from somewhere around."""
    turn, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(-0.1, 0.5)
    x = motion[..., 0] * np.cos(turn) + motion[..., 2] * np.sin(turn)
    z = motion[..., 0] * np.sin(turn) - motion[..., 2] * np.cos(turn)  # away, and y down: still right-handed
    y = -motion[..., 1]
    poses = np.stack([x, y * np.cos(tilt) - z * np.sin(tilt), y * np.sin(tilt) + z * np.cos(tilt)], axis=-1)
    poses[..., 2] *= rng.uniform(0.7, 1.05)
    poses[..., 2] += rng.normal(0, 0.05, 17) + rng.normal(0, 0.02, poses.shape[:2])
    return root_centred(poses + rng.normal(0, 0.012, poses.shape))


def in_picture(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As image landmarks: shares of a picture in which the person takes 30 to 100 % of the height."""
    aspect = rng.choice([16 / 9, 9 / 16, 4 / 3, 1])
    size = np.ptp(poses, axis=1).max(0)
    scale = min(rng.uniform(0.3, 1) / size[1], aspect / size[0])
    return poses * scale / (aspect, 1, aspect) * (1, 1, rng.uniform(*DEPTHS))


def child(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A big head, short limbs, and 0.6 of the size."""
    shoulders = poses[:, 5:7].mean(1, keepdims=True)
    small = poses.copy()
    small[:, :5] = shoulders + 1.25 * (poses[:, :5] - shoulders)
    for joint, parent in ((7, 5), (8, 6), (9, 7), (10, 8), (13, 11), (14, 12), (15, 13), (16, 14)):
        small[:, joint] = small[:, parent] + 0.8 * (poses[:, joint] - poses[:, parent])
    return 0.6 * small


def lying(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned in the picture by up to a quarter, so that no head is lower than the feet."""
    turn = rng.uniform(-np.pi / 2, np.pi / 2)
    x, y = poses[..., 0], poses[..., 1]
    return np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y, poses[..., 2]], axis=-1)


def exchanged(*joints: str) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Left and right of these."""
    order = np.arange(NUM_JOINTS)
    for joint in joints:
        left, right = INDEX[f"left_{joint}"], INDEX[f"right_{joint}"]
        order[[left, right]] = right, left
    return lambda poses, rng: root_centred(poses[:, order])


def in_smpls_order(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first 17 of SMPL's 24, as far as COCO's tell them; the feet point where the hips face."""
    hips, neck, head = (middle(poses, joint) for joint in ("hip", "shoulder", "ear"))
    ahead = np.cross(poses[:, INDEX["left_hip"]] - poses[:, INDEX["right_hip"]], neck - hips)
    ahead *= 0.12 / np.linalg.norm(ahead, axis=-1, keepdims=True)

    def joint(name: str) -> np.ndarray:
        return poses[:, INDEX[name]]

    def spine(share: float) -> np.ndarray:
        return hips + share * (neck - hips)

    order = [
        hips, 0.6 * joint("left_hip") + 0.4 * hips, 0.6 * joint("right_hip") + 0.4 * hips, spine(0.25), joint("left_knee"),
        joint("right_knee"), spine(0.5), joint("left_ankle"), joint("right_ankle"), spine(0.6), joint("left_ankle") + ahead,
        joint("right_ankle") + ahead, neck, 0.6 * neck + 0.4 * joint("left_shoulder"),
        0.6 * neck + 0.4 * joint("right_shoulder"), head, joint("left_shoulder"),
    ]  # fmt: skip
    return root_centred(np.stack(order, axis=1))


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "true": lambda poses, rng: poses,
    "true, 0.6 of the size": lambda poses, rng: 0.6 * poses,
    "true, child": child,
    "true, lying": lying,
    "true, child, lying": lambda poses, rng: lying(child(poses, rng), rng),
    "image landmarks": lambda poses, rng: in_picture(poses, rng) + np.append(rng.uniform(0.35, 0.65, 2), 0),
    "image landmarks, centred": in_picture,
    "image landmarks, centred, lying": lambda poses, rng: in_picture(lying(poses, rng), rng),
    "pixels": lambda poses, rng: in_picture(poses, rng) * 1080 + (640, 540, 0),
    "millimetres": lambda poses, rng: poses * 1000,
    "feet": lambda poses, rng: poses / 0.3048,
    "backwards": lambda poses, rng: root_centred(poses[:, ::-1]),
    "y and z negated": lambda poses, rng: poses * (1, -1, -1),
    "y negated": lambda poses, rng: poses * (1, -1, 1),
    "mirrored": lambda poses, rng: poses * (-1, 1, 1),
    "mirrored, child": lambda poses, rng: child(poses, rng) * (-1, 1, 1),
    "left and right exchanged": lambda poses, rng: poses[:, MIRROR],
    "elbows and wrists exchanged": exchanged("elbow", "wrist"),
    "arms exchanged": exchanged("shoulder", "elbow", "wrist"),
    "knees and ankles exchanged": exchanged("knee", "ankle"),
    "legs exchanged": exchanged("hip", "knee", "ankle"),
    "SMPL's order": in_smpls_order,
}


def run(options: Options) -> dict[str, dict[str, str]]:
    rng = np.random.default_rng(options.seed)
    clips = [*_captured(options.motions, rng), *_observed(options.observations)]
    if not clips:
        raise UserError("there are no poses: give --motions or --observations")
    table: dict[str, dict[str, str]] = {}
    for kind, change in KINDS.items():
        table[kind] = {}
        for length in LENGTHS:
            parts = [clip[i : i + length] for clip in clips for i in range(0, len(clip) - length + 1, length)]
            if length == 1 and not kind.startswith("true"):
                parts = parts[:: options.singles]
            if not parts:
                continue
            refused = sum(_refused(change(part, rng)) for part in parts)
            table[kind][f"{length} poses"] = f"{refused:,} of {len(parts):,} ({refused / len(parts):.2%})"
            log(f"{kind}, {length} poses: {table[kind][f'{length} poses']} refused")
    return table


def _captured(folder: Path | None, rng: np.random.Generator) -> Iterator[np.ndarray]:
    from studio.bvh import decoded, read_bvh
    from studio.mocap import keypoints

    for path in sorted(folder.rglob("*.bvh")) if folder else ():
        try:
            motion = keypoints(read_bvh(decoded(path.read_bytes()), str(path)), str(path))
        except UserError as error:
            log(str(error))
            continue
        yield seen(motion[::EVERY], rng)


def _observed(folder: Path | None) -> Iterator[np.ndarray]:
    for path in sorted(folder.rglob("*.parquet")) if folder else ():
        table = records.read_table(path, records.OBSERVATIONS, ["detected", "world"])
        world = records.column(table, "world")[records.column(table, "detected")]
        if len(world):
            yield root_centred(to_coco(world))


def _refused(poses: np.ndarray) -> bool:
    try:
        validate_poses(poses)
    except UserError:
        return True
    return False


if __name__ == "__main__":
    launch(run, Options)
