"""Is a table of pairs what it says it is? Mistakes of units and frames are told apart here, before they become a model.

Called by the training and evaluation jobs on everything they read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from refiner.data import aistpp, manifest, records
from refiner.data.records import Pairs, Seen
from refiner.errors import UserError
from refiner.geometry import depth_error
from refiner.skeleton import LEFT_HIP, LEFT_SHOULDER, MIRROR, RIGHT_HIP, RIGHT_SHOULDER

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
    Gist.of(pairs, where).check(where)


def read_checked(root: str | Path, split: str, seen: Seen = "mediapipe") -> Pairs:
    """All pairs of one split, as `records.read_pairs` gives them.

    Raises:
        UserError: there are none, they are damaged, or they cannot be right.
    """
    pairs = records.read_pairs(root, split, seen)
    check_pairs(pairs, split)
    return pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class Gist:
    """What tells whether observation and truth show the same, in sums; `a + b` is of both sets."""

    pairs: int
    total: np.ndarray  # (2, 17, 3) of the observed and of the true coordinates, m
    square: np.ndarray  # (2, 17, 3) of their squares
    product: np.ndarray  # (3,) by axis, of observed times true
    swapped: np.ndarray  # (3,) the same with the observation's left and right joints exchanged
    error: float  # of the mean |Δz| of each pair

    @classmethod
    def of(cls, pairs: Pairs, where: str) -> "Gist":
        """Raises:
        UserError: NaN, or wrong units, which some pairs show as well as all.
        """
        _check_finite(pairs, where)
        both = np.stack([pairs.corrupted, pairs.ground_truth]).astype(np.float64)  # (2, N, 17, 3)
        for name, poses in zip(("corrupted", "ground_truth"), both, strict=True):
            torso = float(np.median(np.linalg.norm(_torso(poses), axis=-1)))
            if not TORSO_M[0] < torso < TORSO_M[1]:
                raise UserError(
                    f"the torsos in '{name}' of '{where}' measure {torso:.3g}: {_unit(torso)}; pairs are in metres"
                )
        return cls(
            pairs=len(pairs),
            total=both.sum(1),
            square=np.square(both).sum(1),
            product=(both[0] * both[1]).sum((0, 1)),
            swapped=(both[0][:, MIRROR] * both[1]).sum((0, 1)),
            error=float(depth_error(pairs.corrupted, pairs.ground_truth).mean(-1, dtype=np.float64).sum()),
        )

    def to_arrays(self) -> dict[str, np.ndarray | int | float]:
        """As plain arrays, to be stored or sent; `Gist(**arrays)` backwards."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def to_json(self) -> dict[str, Any]:
        """For a manifest; `of_json` backwards."""
        return {name: np.asarray(value).tolist() for name, value in self.to_arrays().items()}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> "Gist":
        values: dict[str, Any] = {n: np.array(v) if isinstance(v, list) else v for n, v in content.items()}
        return cls(**values)

    def __add__(self, other: "Gist") -> "Gist":
        return Gist(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def check(self, where: str) -> None:
        """Raises:
        UserError: constant poses, or a truth in another frame than the observation's.
        """
        spread = np.sqrt(np.maximum(self.square / self.pairs - np.square(self.total / self.pairs), 0))
        for name, most in zip(("corrupted", "ground_truth"), spread.max((1, 2)), strict=True):
            if self.pairs > 1 and most < 1e-4:
                raise UserError(
                    f"all {self.pairs} poses in '{name}' of '{where}' are the same: the observations or their pairing are "
                    "broken; run 'python -m rayjobs.pair' again"
                )
        # cosines of the angles between all observed and all true coordinates of an axis: 1 where they are the same up to scale
        size = np.sqrt(self.square.sum(1).prod(0))
        agreement, error = self.product / size, self.error / self.pairs
        if agreement[:2].min() < AGREEMENT or agreement[2] < 0 or error > WORST_DEPTH_M:
            x, y, z = agreement
            raise UserError(
                f"observation and truth of '{where}' do not show the same pose: {_mistake(agreement, self.swapped / size)} "
                f"(x agrees to {x:.2f}, y to {y:.2f}, z to {z:.2f} of 1; mean depth error {100 * error:.0f} cm); both must be "
                "in the virtual camera frame: metres, x right, y down, z away from the camera"
            )


def _mistake(agreement: np.ndarray, swapped: np.ndarray) -> str:
    """The likely reason why coordinates disagree, from how each axis agrees as it is and with left and right exchanged."""
    x, y, z = agreement
    if swapped[:2].min() > -x and swapped[:2].min() > AGREEMENT:
        return "the left and the right joints of one of them are exchanged"
    if y < -AGREEMENT:
        if x > AGREEMENT:
            return "one of them is upside down: its y points up"
        return "one of them is upside down and turned: it looks like the world frame, whose y points up, not like the camera's"
    if x < -AGREEMENT:
        return "one of them is mirrored: its x points left" if z > 0 else "one of them is seen from behind"
    if y > AGREEMENT and x > AGREEMENT:
        return "the z of one of them points towards the camera" if z < 0 else "their depths have little in common"
    return "one of them is turned: it looks like the world frame or another camera's"


def _check_finite(pairs: Pairs, where: str) -> None:
    for name in ("corrupted", "ground_truth", "visibility"):
        bad = ~np.isfinite(getattr(pairs, name)).reshape(len(pairs), -1).all(-1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(
                f"{int(bad.sum())} of the {len(pairs)} pairs of '{where}' have a '{name}' that is not finite, the first one is "
                f"frame {pairs.frame[row]} of {pairs.sequence[row]} {pairs.camera[row]}: run 'python -m rayjobs.pair' again"
            )


def _torso(poses: np.ndarray) -> np.ndarray:
    return (poses[:, (LEFT_SHOULDER, RIGHT_SHOULDER)] - poses[:, (LEFT_HIP, RIGHT_HIP)]).mean(1)


def _unit(torso: float) -> str:
    if torso > 100:
        return "that looks like millimetres or pixels"
    return "that looks like centimetres" if torso > 10 else "no person is like that"


def check_splits(root: str | Path, simulated: str | Path | None = None) -> None:
    """Refuses splits of which one is empty, or that share a sequence; and simulated pairs of sequences that validate or test.

    Raises:
        UserError: and names the sequences.
    """
    known = manifest.read(root)
    sequences = {
        split: _sequences(root, split, known) for split in aistpp.SPLITS if split != "test" or _has(root, split)
    }
    if simulated and (
        shared := sorted(_sequences(simulated, "train", manifest.read(simulated)) & sequences_of(root, "val", "test"))
    ):
        raise UserError(
            f"{simulated} simulates {len(shared)} sequences that {root} validates or tests on ({', '.join(shared[:3])}"
            f"{' …' if len(shared) > 3 else ''}): simulate them again with these pairs"
        )
    names = list(sequences)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if shared := sorted(sequences[a] & sequences[b]):
                raise UserError(
                    f"the splits '{a}' and '{b}' of {root} share {len(shared)} sequences ({', '.join(shared[:3])}"
                    f"{' …' if len(shared) > 3 else ''}), so figures on '{b}' would be worth nothing: pair them again"
                )


def sequences_of(root: str | Path, *splits: str) -> set[str]:
    """The sequences of those of these splits that there are."""
    known = manifest.read(root)
    return set().union(*(_sequences(root, split, known) for split in splits if _has(root, split)))


def check_known(known: manifest.Manifest, *splits: str) -> None:
    """`check_pairs` of whole splits, from the sums in their manifest: no pair is read.

    Raises:
        UserError: as `Gist.check`.
    """
    for split in splits:
        if split in known.gists:
            Gist.of_json(known.gists[split]).check(split)


def _has(root: str | Path, split: str) -> bool:
    return bool(records.files_of_split(root, split))


def _sequences(root: str | Path, split: str, known: manifest.Manifest | None) -> set[str]:
    sequences: set[str] = set() if known is None else known.sequences(split)
    for path in records.pair_files(root, split) if known is None else ():
        sequences.update(records.read_table(path, records.PAIRS, ["sequence"]).column("sequence").unique().to_pylist())
    if not sequences:
        raise UserError(f"the split '{split}' of {root} has files but no pairs: run 'python -m rayjobs.pair' again")
    return sequences
