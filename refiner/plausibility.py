"""Is a table of pairs what it says it is? Mistakes of units and frames are told apart here, before they become a model.

Called by the training and evaluation jobs on everything they read."""

from pathlib import Path

import numpy as np

from refiner import aistpp, records
from refiner.errors import UserError
from refiner.metrics import depth_error
from refiner.records import Pairs
from refiner.skeleton import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER

# Height of a torso, hips' to shoulders' midpoint: 0.35 m (a child) to 0.65 m; wide limits around it.
TORSO_M = (0.2, 0.9)
# Mean |Δz| of MediaPipe on any real or rendered set is 6–13 cm. Twice that is no pair.
WORST_DEPTH_M = 0.30
# MediaPipe's x and y agree with the truth to 0.9 and more.
AGREEMENT = 0.5


def check_pairs(pairs: Pairs, where: str) -> None:
    """Refuses pairs that cannot be right.

    Args:
        pairs: the table.
        where: what the message calls it, such as the split's name.

    Raises:
        UserError: NaN, constant poses, wrong units, or a truth in another frame than the observation's.
    """
    for name in ("corrupted", "ground_truth", "visibility"):
        bad = ~np.isfinite(getattr(pairs, name)).reshape(len(pairs), -1).all(-1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(
                f"{int(bad.sum())} of the {len(pairs)} pairs of '{where}' have a '{name}' that is not finite, the first one is "
                f"frame {pairs.frame[row]} of {pairs.sequence[row]} {pairs.camera[row]}: run 'python -m rayjobs.pair' again"
            )
    for name, poses in (("corrupted", pairs.corrupted), ("ground_truth", pairs.ground_truth)):
        torso = float(np.median(np.linalg.norm(_torso(poses), axis=-1)))
        if not TORSO_M[0] < torso < TORSO_M[1]:
            raise UserError(
                f"the torsos in '{name}' of '{where}' measure {torso:.3g}: {_unit(torso)}; pairs are in metres"
            )
        if len(pairs) > 1 and float(poses.std(axis=0).max()) < 1e-4:
            raise UserError(
                f"all {len(pairs)} poses in '{name}' of '{where}' are the same: the observations or their pairing are broken; "
                "run 'python -m rayjobs.pair' again"
            )
    x, y = (_agreement(pairs.corrupted[..., axis], pairs.ground_truth[..., axis]) for axis in (0, 1))
    error = float(depth_error(pairs.corrupted, pairs.ground_truth).mean())
    if min(x, y) < AGREEMENT or error > WORST_DEPTH_M:
        what = "upside down" if y < -AGREEMENT else "mirrored" if x < -AGREEMENT else "turned"
        raise UserError(
            f"observation and truth of '{where}' do not show the same pose ({what}: x agrees to {x:.2f}, y to {y:.2f} of 1, "
            f"mean depth error {100 * error:.0f} cm): is the truth in the virtual camera frame, and not in the world's?"
        )


def _agreement(seen: np.ndarray, true: np.ndarray) -> float:
    """Cosine of the angle between all coordinates of one axis: 1 where they are the same up to scale."""
    return float((seen * true).sum() / np.sqrt((seen * seen).sum() * (true * true).sum()))


def _torso(poses: np.ndarray) -> np.ndarray:
    return (poses[:, (LEFT_SHOULDER, RIGHT_SHOULDER)] - poses[:, (LEFT_HIP, RIGHT_HIP)]).mean(1)


def _unit(torso: float) -> str:
    if torso > 100:
        return "that looks like millimetres or pixels"
    return "that looks like centimetres" if torso > 10 else "no person is like that"


def check_splits(root: str | Path) -> None:
    """Refuses splits of which one is empty, or that share a sequence.

    Raises:
        UserError: and names the sequences.
    """
    found = {split: _sequences(root, split) for split in aistpp.SPLITS if split != "test" or _has(root, split)}
    names = list(found)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if shared := sorted(found[a] & found[b]):
                raise UserError(
                    f"the splits '{a}' and '{b}' of {root} share {len(shared)} sequences ({', '.join(shared[:3])}"
                    f"{' …' if len(shared) > 3 else ''}), so figures on '{b}' would be worth nothing: pair them again"
                )


def _has(root: str | Path, split: str) -> bool:
    return any(Path(root, f"split={split}").glob("*.parquet"))


def _sequences(root: str | Path, split: str) -> set[str]:
    found: set[str] = set()
    for path in records.pair_files(root, split):
        found.update(records.read_table(path, records.PAIRS, ["sequence"]).column("sequence").unique().to_pylist())
    if not found:
        raise UserError(f"the split '{split}' of {root} has files but no pairs: run 'python -m rayjobs.pair' again")
    return found
