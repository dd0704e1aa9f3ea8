"""The ablation and the learning curve, on invented people: what they compare is what they say."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import ablation, learning_curve
from benchmarks.fit import fit
from refiner import UserError
from refiner.command import to_json
from refiner.evaluation import baselines, trials
from refiner.model.config import RefinerConfig
from refiner.training.trainer import TrainingConfig
from tests.invented import write_splits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    sequences = {"train": 24, "val": 4, "test": 8}
    return write_splits(tmp_path_factory.mktemp("pairs"), sequences, real_motion=3, frames=12)


@pytest.fixture(scope="module")
def ablated(pairs) -> dict:
    return ablation.run(
        ablation.Options(
            pairs=str(pairs), epochs=1, batch_size=64,
            variants=("best", "best, no smoothing", "published, learns truth's angle"),
        )
    )  # fmt: skip


def test_every_kind_of_motion_has_every_variant(ablated):
    assert set(ablated["test"]) == {"all", "sBM", "sRM"}
    for part in ablated["test"].values():
        assert set(part["methods"]) == {"mediapipe", "ridge", "smoothing", *ablated["variants"]}
    whole, drawn, real = (ablated["test"][k] for k in ("all", "sBM", "sRM"))
    mean = sum(k["methods"]["best"]["depth_cm"] * k["pairs"] for k in (drawn, real)) / whole["pairs"]
    assert whole["methods"]["best"]["depth_cm"] == pytest.approx(mean)


def test_smoothing_belongs_to_use_so_that_it_is_trained_once_and_calms(ablated):
    rows = ablated["test"]["all"]["methods"]
    assert ablated["variants"]["best"] == ablated["variants"]["best, no smoothing"]
    assert rows["best"]["acceleration_error"] < 0.8 * rows["best, no smoothing"]["acceleration_error"]


def test_the_choice_is_made_on_the_validation_split(ablated):
    variants = {name: ablated["val_cm"][name] for name in ablated["variants"]}
    assert ablated["chosen_on_val"] == min(variants, key=variants.get)


def test_the_table_fits_120_columns_and_the_result_is_json(ablated):
    assert max(map(len, ablation.markdown(ablated).splitlines())) <= 120
    json.dumps(to_json(ablated), allow_nan=False)


def test_an_unknown_variant_is_refused_with_those_there_are(pairs):
    with pytest.raises(UserError, match="there are published, "):
        ablation.run(ablation.Options(pairs=str(pairs), variants=("nonsense",)))


def test_several_seeds_count_with_their_mean_error(make_pairs):
    train, val, test = (make_pairs(n, seed=n, frames=8, first=100 * n) for n in (6, 2, 3))
    config = RefinerConfig(encoder="whole_pose", width=64, layers=1)
    models = [  # one that has hardly begun to learn, and one that has
        fit(config, TrainingConfig(epochs=epochs, batch_size=32), train, val)[0] for epochs in (1, 8)
    ]
    methods = {"mediapipe": baselines.fit_all(train)["mediapipe"]}
    single = [trials.figures(trials.tally(test, methods, {"m": [model]}))["m"]["depth_cm"] for model in models]
    both = trials.figures(trials.tally(test, methods, {"m": models}))["m"]["depth_cm"]
    assert abs(single[0] - single[1]) > 0.02  # so that neither of them alone would pass for the mean
    assert both == pytest.approx(np.mean(single), abs=1e-4)


def test_the_learning_curve_falls_and_is_drawn(pairs, tmp_path):
    options = learning_curve.Options(
        pairs=str(pairs), out=str(tmp_path), shares=(0.15, 1.0), epochs=1, batch_size=64, seeds=2, max_seconds=5
    )
    curve = learning_curve.run(options)
    few, many = (p["test"]["all"] for p in curve["points"])
    assert few["ridge"]["depth_cm"] > 1.02 * many["ridge"]["depth_cm"]
    assert few["mediapipe"]["interval_cm"] == many["mediapipe"]["interval_cm"]
    assert [p["sequences"] for p in curve["points"]] == [4, 24]
    assert json.loads((tmp_path / "learning_curve.json").read_text())["seeds"] == 2
    assert "| 24 |" in (tmp_path / "learning_curve.md").read_text()
    assert cv2.imread(str(tmp_path / "learning_curve.png")).std() > 5


def test_a_larger_share_holds_the_smaller_ones(make_pairs):
    train = make_pairs(10, frames=4)
    shares = [set(learning_curve.subset(train, share, seed=3).sequence) for share in (0.1, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(train.sequence)
    assert set(learning_curve.subset(train, 0.5, seed=4).sequence) != shares[1]
