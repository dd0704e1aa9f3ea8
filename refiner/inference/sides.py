"""Whether left is left: a mirror image is told by what people have in front, exchanged limbs by how they turn.

Only batches are looked at; a single pose says too little. `python -m benchmarks.kinds` measures it.
"""

import numpy as np

from refiner.errors import UserError
from refiner.skeleton import EARS, HEELS, INDEX, LEFT_HIP, LEFT_SHOULDER, MOUTH, TOES, middle

# What people have in front, as weights of its part ahead of the shoulders and ahead of the hips, in lengths of the trunk: a
# logistic regression's on windows of 20 of captured and rendered poses, against the same behind. Nose and eyes before the ears,
# knees before hips and ankles, elbows behind shoulders and wrists, wrists before the shoulders, ears before the shoulders.
_FRONT = np.array([(6.7, 5.6), (5.2, 4.3), (5.4, 4.8), (3.0, 1.4), (4.4, 2.9), (1.2, 1.4)])
# The same for the mouth before the ears, the toes before the heels, of which only MediaPipe's 33 landmarks know.
_FRONT_OF_33 = np.array([(6.5, 0.0), (0.0, 5.0)])
# Cosines that go with these: of shoulders to hips, and of the next joints to the other end of the trunk.
_TWIST, _NEXT = 13.0, 10.0

# Fewer poses say too little. Each of the following is (poses at least, limit); "past" is minus the value.
_FEWEST = 5
# Sum of `in_front`. Farthest past of 326 captured motions, each with eleven random seeds of views and errors like MediaPipe's:
# 8.7 of 5 poses, 5.0 of 20, 3.2 of 60, 0.7 of 200; of 69,688 rendered poses that MediaPipe really saw -1.0, -3.8, -7.9, -10.1.
_BEHIND = ((200, 1.5), (60, 3.6), (20, 5.5), (5, 10.5))
# With mouth and feet: of 180 rendered videos -5.9 and -7.1.
_BEHIND_OF_33 = ((20, 2.0), (5, 4.0))
# Of people on the floor MediaPipe is less sure which way they face: limits are so many times as far. The others stand: cosine
# of the trunk to the vertical, mean of a batch.
_ON_FLOOR, _STANDS = 1.6, 0.8
# Arms or legs as a whole: of seven of those seeds 16.5, 12.3, 6.0 and 1.6; of what MediaPipe saw -8.3, -14.9, -21.8, -22.8.
_TWISTED = ((200, 2.5), (60, 6.8), (20, 13.5), (5, 18.5))
# Sum of the cosines of elbows to shoulders and hips: 1.57, 1.31, 0, -0.5. (Knees are no sign: who sits crosses the legs.)
_ELBOWS_CROSS = ((60, 0.4), (20, 1.45), (5, 1.75))


def check_sides(poses: np.ndarray, landmarks: np.ndarray | None = None) -> None:
    """(N, 17, 3) root-centred; MediaPipe's (N, 33, 3) where they came so.

    Raises:
        UserError: they are mirrored, or the left and right of arms or legs are exchanged.
    """
    if len(poses) < _FEWEST:
        return
    by_shoulders, by_hips = in_front(poses, landmarks).tolist()
    twists = limb_twists(poses)
    arms = by_shoulders + _TWIST * twists["trunk"] + _NEXT * twists["elbows to hips"]
    legs = by_hips + _TWIST * twists["trunk"] + _NEXT * twists["knees to shoulders"]
    exchanged = None
    if min(arms, legs) < -limit_of(_TWISTED, poses):
        exchanged = "shoulders and hips face opposite ways: left and right of the arms or of the legs"
    elif twists["elbows to shoulders"] + twists["elbows to hips"] < -limit_of(_ELBOWS_CROSS, poses):
        exchanged = "the upper arms cross the trunk: left and right of elbows and wrists"
    if exchanged:
        raise UserError(f"{exchanged} are exchanged; send COCO's 17 joints or MediaPipe's 33 in their order")
    limit = limit_of(_BEHIND if landmarks is None else _BEHIND_OF_33, poses)
    if upright(poses).mean() < _STANDS:
        limit *= _ON_FLOOR
    if by_shoulders + by_hips < -limit:
        raise UserError(
            "noses and knees point backwards: left and right are exchanged, or one axis is mirrored; send x to the right, "
            "y down, z away from the camera, and the person's own left as left"
        )


def in_front(poses: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
    """How far in front is what people have in front, where shoulders and hips face (right to left × up the spine).

    Args:
        poses: (N, 17, 3) root-centred, any unit.
        landmarks: (N, 33, 3), which have mouth and feet besides.

    Returns:
        (2,) means over the batch; together log odds for being no mirror image, whose own are minus these.
    """
    shoulders, ears, wrists = middle(poses, "shoulder"), middle(poses, "ear"), middle(poses, "wrist")
    parts = [
        poses[:, INDEX["nose"]] - ears,
        middle(poses, "eye") - ears,
        2 * middle(poses, "knee") - middle(poses, "hip") - middle(poses, "ankle"),
        shoulders + wrists - 2 * middle(poses, "elbow"),
        wrists - shoulders,
        ears - shoulders,
    ]
    weights = _FRONT
    if landmarks is not None:
        mouth, head, heels, toes = (landmarks[:, pair].mean(1) for pair in (MOUTH, EARS, HEELS, TOES))
        parts += [mouth - head, toes - heels]
        weights = np.concatenate([_FRONT, _FRONT_OF_33])
    ahead = np.stack([_ahead(poses, LEFT_SHOULDER), _ahead(poses, LEFT_HIP)])  # (2, N, 3)
    means = np.einsum("pnc,anc->pa", np.stack(parts), ahead) / len(poses)
    return (means * weights).sum(0) / np.maximum(np.linalg.norm(shoulders, axis=-1).mean(), 1e-9)


def limb_twists(poses: np.ndarray) -> dict[str, float]:
    """(N, 17, 3) -> mean cosines between the lines from right to left: near 1 where nothing is exchanged."""
    shoulders, elbows, hips, knees = (
        poses[:, INDEX[f"left_{joint}"]] - poses[:, INDEX[f"right_{joint}"]]
        for joint in ("shoulder", "elbow", "hip", "knee")
    )
    return {
        "trunk": _cosine(shoulders, hips),
        "elbows to shoulders": _cosine(elbows, shoulders),
        "elbows to hips": _cosine(elbows, hips),
        "knees to shoulders": _cosine(knees, shoulders),
    }


def upright(poses: np.ndarray) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N,) cosine of the trunk to the vertical: 1 where it stands, 0 where it lies."""
    trunk = middle(poses, "shoulder")
    return -trunk[:, 1] / np.maximum(np.linalg.norm(trunk, axis=-1), 1e-9)


def _ahead(poses: np.ndarray, left: int) -> np.ndarray:
    """(N, 17, 3) root-centred -> (N, 3) unit: where shoulders or hips face, by the number of the left one."""
    ahead = np.cross(poses[:, left] - poses[:, left + 1], middle(poses, "shoulder"))
    return ahead / np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """(N, 3), (N, 3) -> mean."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(lengths, 1e-9)).mean())


def limit_of(limits: tuple[tuple[int, float], ...], poses: np.ndarray) -> float:
    """Of (poses at least, limit), what holds for a batch."""
    return next(limit for count, limit in limits if len(poses) >= count)
