"""Dances keep to what bodies can do; real motion carries over to other bodies."""

from pathlib import Path

import numpy as np
import pytest

from refiner import UserError
from refiner.data.aistpp import FPS, METRES_PER_UNIT, SPLITS, Dataset, write_pickle
from refiner.geometry import azimuth, mirror, procrustes
from refiner.skeleton import BONES, INDEX
from studio import rig
from studio.bodies.drawn import Dancer
from studio.cameras import FLOOR
from studio.dataset import plan
from studio.motion.limbs import soles, turned_about_y
from studio.motion.retarget import perform
from studio.motion.sources import Source
from tests.studio.specs import spec


def test_dancers_of_one_choreography_move_alike_and_not_the_same():
    takes = plan(spec(sequences=10, seconds=3))
    poses = {i: takes[i].joints(np.arange(90) / 30) for i in (3, 4, 5, 7, 8, 9)}

    def apart(a: int, b: int) -> float:
        return float(np.linalg.norm(procrustes(poses[a], poses[b]) - poses[b], axis=-1).mean())

    assert takes[3].name.dance == takes[4].name.dance and takes[7].name.dance == takes[8].name.dance
    for one, same, other in ((3, 4, 5), (7, 8, 9)):
        assert 0.01 < apart(one, same) < 0.75 * apart(one, other)


@pytest.mark.parametrize("number", range(10))
def test_a_dance_keeps_to_what_a_body_can_do(number):
    take = plan(spec(sequences=10, seconds=4))[number]
    times = np.arange(4 * FPS) / FPS
    turned, placed = take.bones(times)
    joints = take.dancer.joints(turned, placed)
    lengths = np.linalg.norm(joints[:, BONES[:8, 0]] - joints[:, BONES[:8, 1]], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), rtol=1e-9)
    lowest = soles(take.dancer, turned, placed)[..., 1].min(-1) - FLOOR
    assert lowest.min() > -0.003
    assert (lowest < 0.01).mean() > 0.6  # more often on the floor than in the air
    assert_moves_like_people(joints, speed=9, acceleration=120)
    assert np.linalg.norm(joints[..., [0, 2]], axis=-1).max() < 2.2  # metres from the middle: in all nine pictures
    # a foot that stands, stands still
    ankles = joints[:, [INDEX["left_ankle"], INDEX["right_ankle"]]]
    standing = ankles[..., 1] < FLOOR + take.dancer.build.sole + 1e-4  # (T, 2)
    still = standing[1:] & standing[:-1]
    assert np.linalg.norm(np.diff(ankles, axis=0), axis=-1)[still].max(initial=0) * FPS < 0.15
    assert standing.any()


def assert_moves_like_people(joints: np.ndarray, speed: float, acceleration: float) -> None:
    """m/s and m/s² that 99.5 % of values stay below; of the three real sequences the fastest has 7.5 and 256."""
    assert np.percentile(np.linalg.norm(np.diff(joints, axis=0), axis=-1) * FPS, 99.5) < speed
    assert np.percentile(np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1) * FPS**2, 99.5) < acceleration
    for a, b, c in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
        for side in ("left", "right"):
            first, middle, last = (joints[:, INDEX[f"{side}_{name}"]] for name in (a, b, c))
            u, v = first - middle, last - middle
            cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
            assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).min() > 20


# --- real motion ------------------------------------------------------------------------------------------------------


def captured(root: Path, source: Source, seconds: float) -> np.ndarray:
    """(n, 17, 3) the frames of a window, as near to its moments as they are, in the mirror and turned as it is danced."""
    frames = np.rint(source.start + np.arange(round(seconds * FPS)) * source.tempo).astype(int)
    poses = Dataset(root).keypoints3d(source.sequence)[frames]
    return turned_about_y(mirror(poses) if source.mirrored else poses, source.heading)


def test_real_motion_carries_over_to_other_bodies(aistpp: Path):
    takes = plan(spec(sequences=6, seconds=2, motions=str(aistpp), settings=str(aistpp), real_share=1.0))
    members = {split: {take.name.dance for take in takes if take.split == split} for split in SPLITS}
    assert all(len(dances) == 1 for dances in members.values()) and len(set.union(*members.values())) == 3
    for take in takes:
        turned, placed = take.bones(np.arange(2 * FPS) / FPS)
        joints = take.dancer.joints(turned, placed)
        source = captured(aistpp, take.source, 2)
        # bodies differ in proportions by some centimetres
        assert np.linalg.norm(procrustes(joints, source) - source, axis=-1).mean() < 0.06
        facing = azimuth(joints * (1, -1, -1)) - azimuth(source * (1, -1, -1))
        assert np.median(np.abs((facing + 180) % 360 - 180)) < 10
        assert soles(take.dancer, turned, placed)[..., 1].min() > FLOOR - 0.005
        quicker = max(1, take.source.tempo)
        assert_moves_like_people(joints, speed=9 * quicker, acceleration=120 * quicker**2)


def test_a_motion_that_is_too_short_is_named(aistpp: Path):
    with pytest.raises(UserError, match=r"lasts 9\.6 s: .* at most 11\.9 s"):
        plan(spec(sequences=3, seconds=13, motions=str(aistpp), real_share=1.0))


def test_gaps_in_a_real_motion_are_bridged(aistpp: Path, tmp_path):
    name = "gJS_sBM_cAll_d03_mJS2_ch07"
    whole = Dataset(aistpp).keypoints3d(name)
    gaps = whole / METRES_PER_UNIT
    gaps[20:23] = gaps[40, 9] = np.nan
    write_pickle(tmp_path / "annotations/keypoints3d" / f"{name}.pkl", {"keypoints3d": gaps})
    dancer, times = Dancer.draw(0), np.arange(60) / FPS
    poses = [
        dancer.joints(
            *rig.forward_kinematics(
                *perform(str(root), Source(name, 0, 0, False), dancer, 1, FLOOR).at(times), dancer.offsets
            )
        )
        for root in (aistpp, tmp_path)
    ]
    assert np.abs(poses[0] - poses[1]).max() < 0.03
