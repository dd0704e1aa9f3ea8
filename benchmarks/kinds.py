"""What `validate_poses` refuses: true poses of captured motion, and the same as each wrong kind of numbers, alone and by clip.

    python -m benchmarks.kinds --motions recordings/

Motion is seen from anywhere, with errors like MediaPipe's: depth squashed, a bias for each joint and clip, noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refiner import UserError
from refiner.command import launch, log
from refiner.inference.validation import validate_poses
from refiner.skeleton import MIRROR, root_centred

EVERY = 3  # of 60 Hz
LENGTHS = (1, 20, 60, 200)  # poses in a batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    motions: Path
    """Folder of BVH files."""
    seed: int = 0


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
    return poses * scale / (aspect, 1, aspect)


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "true": lambda poses, rng: poses,
    "image landmarks": lambda poses, rng: in_picture(poses, rng) + np.append(rng.uniform(0.35, 0.65, 2), 0),
    "image landmarks, centred": in_picture,
    "pixels": lambda poses, rng: in_picture(poses, rng) * 1080 + (640, 540, 0),
    "millimetres": lambda poses, rng: poses * 1000,
    "y and z negated": lambda poses, rng: poses * (1, -1, -1),
    "y negated": lambda poses, rng: poses * (1, -1, 1),
    "mirrored": lambda poses, rng: poses * (-1, 1, 1),
    "left and right exchanged": lambda poses, rng: poses[:, MIRROR],
}


def run(options: Options) -> dict[str, dict[str, str]]:
    from studio.bvh import decoded, read_bvh
    from studio.mocap import keypoints

    rng, clips = np.random.default_rng(options.seed), []
    for path in sorted(options.motions.rglob("*.bvh")):
        try:
            motion = keypoints(read_bvh(decoded(path.read_bytes()), str(path)), str(path))
        except UserError as error:
            log(str(error))
            continue
        clips.append(seen(motion[::EVERY], rng))
    table: dict[str, dict[str, str]] = {}
    for kind, change in KINDS.items():
        table[kind] = {}
        for length in LENGTHS:
            parts = [clip[i : i + length] for clip in clips for i in range(0, len(clip), length)]
            refused = sum(_refused(change(part, rng)) for part in parts if len(part) == min(length, len(part)))
            table[kind][f"{length} poses"] = f"{refused:,} of {len(parts):,} ({refused / len(parts):.2%})"
            log(f"{kind}, {length} poses: {table[kind][f'{length} poses']} refused")
    return table


def _refused(poses: np.ndarray) -> bool:
    try:
        validate_poses(poses)
    except UserError:
        return True
    return False


if __name__ == "__main__":
    launch(run, Options)
