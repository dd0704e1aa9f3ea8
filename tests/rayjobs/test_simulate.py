"""Motion without videos becomes training pairs, and only these."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rayjobs import simulate, studio
from refiner import UserError
from refiner.data import checks, records
from refiner.data.aistpp import SPLITS, Dataset
from refiner.model.config import RefinerConfig
from refiner.training.dataset import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, make_pairs) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for split, first, sequences in (("train", 0, 20), ("val", 100, 2)):
        for i in range(first, first + sequences):
            table = make_pairs(1, seed=i, first=i).to_table()
            records.write_atomically(table, root / f"split={split}" / f"{i}.parquet", {})
    return root


@pytest.fixture(scope="module")
def options(pairs, tmp_path_factory) -> simulate.Options:
    root = tmp_path_factory.mktemp("motion")
    made = studio.run(studio.Options(out=str(root / "dataset"), sequences=10, seconds=1.0, videos=False))
    assert (made.videos, made.rendered) == (0, 0) and made.sequences["train"] == 7
    return simulate.Options(pairs=str(pairs), dataset=str(root / "dataset"), out=str(root / "simulated"))


@pytest.fixture(scope="module")
def summary(options) -> simulate.Summary:
    return simulate.run(options)


def test_every_training_sequence_is_seen_by_every_camera_and_no_other(options, summary):
    assert (summary.pairs, summary.sequences, summary.left_out) == (7 * 9 * 5, 7, {})
    pairs = records.read_pairs(options.out, "train")
    checks.check_pairs(pairs, "train")
    assert set(pairs.sequence) == set(Dataset(options.dataset).split("train"))
    assert not [s for s in SPLITS if s != "train" and Path(options.out, f"split={s}").exists()]
    assert np.unique(pairs.frame).tolist() == [0, 12, 24, 36, 48]
    assert 0.5 < summary.simulated_depth_cm / summary.mediapipe_depth_cm < 2


def test_the_same_options_say_the_same(options, summary, tmp_path):
    again = dataclasses.replace(options, out=str(tmp_path / "again"))
    assert simulate.run(again).pairs == summary.pairs
    assert records.fingerprint(again.out, ("train",)) == records.fingerprint(options.out, ("train",))


def test_training_sees_both_kinds_and_validates_on_real_ones(pairs, options, summary):
    config = RefinerConfig()
    both, val = load(pairs, config, "cpu", 0, options.out)
    alone, same = load(pairs, config, "cpu", 0)
    assert len(both) == len(alone) + summary.pairs and len(val) == len(same)
    streamed, _ = load(pairs, config, "cpu", 600e3, options.out)
    assert type(streamed) is not type(both) and len(streamed) == len(both)


def test_what_validates_is_not_simulated_nor_trained_on(options, summary, tmp_path):
    truth = records.read_pairs(options.out, "train")
    held_out = sorted(set(truth.sequence))[:2]
    for split, rows in (("train", ~np.isin(truth.sequence, held_out)), ("val", np.isin(truth.sequence, held_out))):
        records.write_atomically(truth.take(rows).to_table(), tmp_path / f"split={split}" / "all.parquet", {})
    with pytest.raises(UserError, match=rf"simulates 2 sequences that .* validates or tests on \({held_out[0]}"):
        checks.check_splits(tmp_path, options.out)
    sequences, left_out = simulate.plan(Dataset(options.dataset), str(tmp_path))
    assert len(sequences) == 5 and left_out == {"validates or tests in --pairs": 2}


def test_errors_are_those_of_the_way_of_seeing_that_is_named(options, summary, make_pairs, tmp_path):
    for i in range(20):
        made = make_pairs(1, seed=i, first=i)
        nearer = made.ground_truth + (made.corrupted - made.ground_truth) / 4
        ways = {"mediapipe": made, "raw": made, "two_looks": dataclasses.replace(made, corrupted=nearer)}
        table = records.seen_otherwise(ways)  # type: ignore[arg-type]
        records.write_atomically(table, tmp_path / "pairs/split=train" / f"{i}.parquet", {})
    seen = dataclasses.replace(options, pairs=str(tmp_path / "pairs"), out=str(tmp_path / "two"), seen="two_looks")
    assert simulate.run(seen).simulated_depth_cm < 0.5 * summary.simulated_depth_cm
    with pytest.raises(UserError, match="two_looks"):  # of pairs that do not say
        simulate.run(dataclasses.replace(options, out=str(tmp_path / "none"), seen="two_looks"))


def test_a_dataset_without_motion_is_one_sentence(options, tmp_path):
    empty = tmp_path / "empty"
    for split in SPLITS:
        (empty / "annotations/splits").mkdir(parents=True, exist_ok=True)
        (empty / "annotations/splits" / f"pose_{split}.txt").write_text("")
    with pytest.raises(UserError, match="no annotated training sequence that may be simulated"):
        simulate.run(dataclasses.replace(options, dataset=str(empty)))
    with pytest.raises(UserError, match="annotations have 60 poses a second"):
        dataclasses.replace(options, fps=100)
