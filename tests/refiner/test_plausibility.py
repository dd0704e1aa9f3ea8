"""Each mistake of units and frames is told by name before a model is made of it."""

import dataclasses

import numpy as np
import pytest

from refiner import UserError, plausibility, records


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
        ("ground_truth", lambda p: p * np.float32([1, -1, -1]), "upside down"),
        ("ground_truth", lambda p: p[..., [0, 2, 1]], "do not show the same pose"),
        ("ground_truth", lambda p: p * np.float32([-1, 1, -1]), "do not show the same pose"),
        ("ground_truth", lambda p: np.repeat(p[:1], len(p), axis=0), "are the same"),
        ("ground_truth", _nan, "'ground_truth' that is not finite, the first one is frame 7"),
        ("visibility", lambda v: v * np.nan, "'visibility' that is not finite"),
    ],
)
def test_a_mistake_is_named(pairs, field, change, says):
    wrong = dataclasses.replace(pairs, **{field: change(getattr(pairs, field))})
    with pytest.raises(UserError, match=says):
        plausibility.check_pairs(wrong, "train")


def test_good_pairs_pass(pairs):
    plausibility.check_pairs(pairs, "train")


def _write(root, split, pairs):
    records.write_atomically(pairs.to_table(), root / f"split={split}" / "all.parquet", {})


def test_a_split_that_leaks_is_refused_and_the_sequences_are_named(tmp_path, pairs, make_pairs):
    _write(tmp_path, "train", pairs)
    _write(tmp_path, "val", make_pairs(2, first=50))
    plausibility.check_splits(tmp_path)  # a test split is not needed for training
    _write(tmp_path, "test", make_pairs(2, first=2))
    with pytest.raises(UserError, match=r"'train' and 'test' .* share 1 sequences \(gBR_sBM_cAll_d03_mBR0_ch03"):
        plausibility.check_splits(tmp_path)


def test_an_empty_split_is_refused(tmp_path, pairs):
    _write(tmp_path, "train", pairs)
    with pytest.raises(UserError, match="no pairs of the split 'val'"):
        plausibility.check_splits(tmp_path)
    _write(tmp_path, "val", pairs.take(slice(0, 0)))
    with pytest.raises(UserError, match="has files but no pairs"):
        plausibility.check_splits(tmp_path)
