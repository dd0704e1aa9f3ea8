"""Each mistake of units and frames is told by name before a model is made of it."""

import dataclasses

import numpy as np
import pytest

from refiner import UserError
from refiner.data import checks, records
from refiner.skeleton import MIRROR


@pytest.fixture(scope="module")
def pairs(make_pairs):
    return make_pairs(3, cameras=2)


def _nan(poses):
    poses = poses.copy()
    poses[7, 3, 1] = np.nan
    return poses


@pytest.mark.parametrize(
    ("field", "change", "says"),
    [
        ("ground_truth", lambda p: p * 100, "that looks like centimetres"),
        ("ground_truth", lambda p: p * 1000, "that looks like millimetres"),
        ("corrupted", lambda p: p * 100, "'corrupted' of 'train' .* centimetres"),
        ("corrupted", lambda p: p * 1000, "'corrupted' of 'train' .* millimetres"),
        ("ground_truth", lambda p: p * np.float32([1, -1, 1]), "its y points up"),
        ("ground_truth", lambda p: p * np.float32([1, -1, -1]), "its y points up"),
        ("ground_truth", lambda p: p * np.float32([1, 1, -1]), "the z of one of them points towards the camera"),
        ("ground_truth", lambda p: p * np.float32([-1, 1, 1]), "mirrored: its x points left"),
        ("ground_truth", lambda p: p * np.float32([-1, 1, -1]), "seen from behind"),
        ("corrupted", lambda p: p[:, MIRROR], "the left and the right joints of one of them are exchanged"),
        ("ground_truth", lambda p: p[..., [0, 2, 1]], "do not show the same pose: one of them is turned"),
        ("ground_truth", lambda p: np.repeat(p[:1], len(p), axis=0), "are the same"),
        ("ground_truth", _nan, "'ground_truth' that is not finite, the first one is frame 7"),
        ("visibility", lambda v: v * np.nan, "'visibility' that is not finite"),
    ],
)
def test_a_mistake_is_named(pairs, field, change, says):
    wrong = dataclasses.replace(pairs, **{field: change(getattr(pairs, field))})
    with pytest.raises(UserError, match=says):
        checks.check_pairs(wrong, "train")


@pytest.mark.parametrize(
    ("up", "says"),
    [(1, "turned: it looks like the world frame or another"), (-1, "the world frame, whose y points up")],
)
def test_a_truth_in_the_world_frame_is_named(make_pairs, up, says):
    """Each camera's truth turned back into one frame for all, as it lies in AIST++'s files (y up) or with y down."""
    pairs = make_pairs(3, cameras=8)
    camera = np.radians([(int(c[1:]) - 1) * 360 / 8 for c in pairs.camera])
    c, s, z, o = np.cos(camera), np.sin(camera), np.zeros(len(pairs)), np.ones(len(pairs))
    back = np.stack([c, z, s, z, o, z, -s, z, c], -1).reshape(-1, 3, 3)
    world = np.einsum("nij,nkj->nki", back, pairs.ground_truth) * np.float32([1, up, up])
    with pytest.raises(UserError, match=says):
        checks.check_pairs(dataclasses.replace(pairs, ground_truth=world.astype(np.float32)), "train")


def test_good_pairs_pass(pairs):
    checks.check_pairs(pairs, "train")


def test_what_no_part_shows_the_whole_shows(pairs):
    """Gists of parts add up to the whole's."""
    parts = [pairs.take(slice(i, i + 1)) for i in range(3)]
    sum((checks.Gist.of(p, "train") for p in parts[1:]), checks.Gist.of(parts[0], "train")).check("train")
    same = [checks.Gist.of(parts[0], "train")] * 3
    same[0].check("train")
    with pytest.raises(UserError, match="all 3 poses in 'corrupted' of 'train' are the same"):
        (same[0] + same[1] + same[2]).check("train")


def _write(root, split, pairs):
    records.write_atomically(pairs.to_table(), root / f"split={split}" / "all.parquet", {})


def test_a_split_that_leaks_is_refused_and_the_sequences_are_named(tmp_path, pairs, make_pairs):
    _write(tmp_path, "train", pairs)
    _write(tmp_path, "val", make_pairs(2, first=50))
    checks.check_splits(tmp_path)  # a test split is not needed for training
    _write(tmp_path, "test", make_pairs(2, first=2))
    with pytest.raises(UserError, match=r"'train' and 'test' .* share 1 sequences \(gBR_sBM_cAll_d03_mBR0_ch03"):
        checks.check_splits(tmp_path)


def test_an_empty_split_is_refused(tmp_path, pairs):
    _write(tmp_path, "train", pairs)
    with pytest.raises(UserError, match="no pairs of the split 'val'"):
        checks.check_splits(tmp_path)
    _write(tmp_path, "val", pairs.take(slice(0, 0)))
    with pytest.raises(UserError, match="has files but no pairs"):
        checks.check_splits(tmp_path)
