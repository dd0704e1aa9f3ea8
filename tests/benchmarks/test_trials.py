"""The ablation and the learning curve, on invented people: what they compare is what they say."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import ablation, learning_curve, ship, trials
from refiner import DepthRefiner, UserError
from refiner.command import to_json
from refiner.data import records
from refiner.evaluation import baselines, metrics
from refiner.model.checkpoint import read_card, save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.training.trainer import TrainingConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, make_pairs) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for number, (split, sequences) in enumerate({"train": 24, "val": 4, "test": 8}.items()):
        made = make_pairs(sequences, frames=12, seed=number, first=100 * number)
        if split == "test":
            kinds = {s: s.replace("sBM", "sRM") for s in np.unique(made.sequence)[:3]}
            made.sequence[:] = [kinds.get(s, s) for s in made.sequence]
        records.write_atomically(made.to_table(), root / f"split={split}" / "all.parquet", {})
    return root


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
        trials.fit(config, TrainingConfig(epochs=epochs, batch_size=32), train, val)[0] for epochs in (1, 8)
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


@pytest.fixture(scope="module")
def checkpoint(pairs, tmp_path_factory) -> Path:
    train, val = (trials.read(pairs, split) for split in ("train", "val"))
    config = RefinerConfig(encoder="whole_pose", width=64, layers=1)
    model, _ = trials.fit(config, TrainingConfig(batch_size=64, learning_rate=3e-3), train, val)
    return save_checkpoint(model.model, tmp_path_factory.mktemp("model"))


def test_strengths_are_compared_on_the_validation_split(pairs, checkpoint):
    rows = ship.run(ship.Options(model=str(checkpoint), pairs=str(pairs), strengths=(0.01, 0.5, 1.0)))["all"]
    depth = {name: row["depth_cm"] for name, row in rows.items()}
    assert depth["strength 1"] < depth["strength 0.5"] < depth["strength 0.01"]
    assert depth["strength 0.01"] == pytest.approx(depth["mediapipe"], abs=0.1)


def test_what_ships_is_what_was_measured_and_says_so(pairs, checkpoint, tmp_path):
    options = ship.Options(
        model=str(checkpoint),
        pairs=str(pairs),
        strengths=(0.5,),
        out=str(tmp_path),
        trained_on="invented",
        limits="all",
    )
    figures = ship.run(options)
    card, shipped = read_card(tmp_path), DepthRefiner(tmp_path)
    assert shipped.model.config.strength == 0.5
    assert (card["trained_on"], card["limits"]) == ("invented", "all")
    assert card["dataset_fingerprint"] == records.fingerprint(pairs, ("train", "val", "test"))
    test = trials.read(pairs, "test")
    depth = metrics.depth_error(shipped.predict_pairs(test).poses, test.ground_truth).mean() * metrics.CM
    assert card["figures"]["refined_depth_cm"] == pytest.approx(depth, abs=0.006)
    assert card["figures"]["real_motion"]["refined_depth_cm"] == round(figures["sRM"]["refined"]["depth_cm"], 2)
    full = figures["all"]["refined, in full"]["depth_cm"]
    assert card["figures"]["refined_depth_cm_at_full_strength"] == round(full, 2) != round(depth, 2)


def test_shipping_wants_one_strength_and_words_for_the_card():
    with pytest.raises(UserError, match="--out wants a single one"):
        ship.Options(model="", pairs="", strengths=(0.5, 1.0), out="x", trained_on="a", limits="b")
    with pytest.raises(UserError, match="above 0"):
        ship.Options(model="", pairs="", strengths=(0.0,))
