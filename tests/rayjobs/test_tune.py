"""The search for options, on the session's Ray and MLflow."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from rayjobs import train, tune
from refiner import UserError, registry
from refiner.model.checkpoint import load_checkpoint, read_card
from refiner.training.trainer import TrainingConfig
from tests.invented import write_splits

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_splits(tmp_path_factory.mktemp("pairs"), {"train": 12, "val": 3})


@pytest.fixture(scope="module")
def tuned(cluster, pairs, tmp_path_factory) -> tune.Summary:
    options = tune.Options(
        pairs=str(pairs),
        preset="baseline",
        trials=3,
        storage=str(tmp_path_factory.mktemp("storage")),
        training=TrainingConfig(epochs=3, batch_size=64),
    )
    return tune.run(options)


def test_each_trial_is_a_child_run_with_its_options_and_epochs(tuned):
    from mlflow import MlflowClient

    client = MlflowClient(registry.tracking_uri())
    parent = client.get_run(tuned.run_id)
    assert parent.info.status == "FINISHED"
    runs = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{tuned.run_id}'")
    assert len(runs) == len(tuned.trials) == 3 and {r.info.status for r in runs} == {"FINISHED"}
    rates = {float(r.data.params["learning_rate"]) for r in runs}
    assert rates == {t["options"]["learning_rate"] for t in tuned.trials} and len(rates) == 3
    for child in runs:
        epochs = {m.step for m in client.get_metric_history(child.info.run_id, "val/depth_cm")}
        (row,) = (t for t in tuned.trials if t["options"]["learning_rate"] == float(child.data.params["learning_rate"]))
        assert epochs == set(range(row["epochs"]))


def test_the_winner_is_the_best_and_its_command_trains_with_its_options(tuned):
    errors = [t["val_depth_cm"] for t in tuned.trials]
    assert tuned.val_depth_cm == min(errors) == errors[0]
    assert load_checkpoint(tuned.network).config.width == tuned.options["width"]
    assert read_card(tuned.network)["val_depth_cm"] == tuned.val_depth_cm
    program = shlex.split(tuned.command)
    assert program[:3] == ["python", "-m", "rayjobs.train"]
    options = tyro.cli(train.Options, args=program[3:])
    assert options.network == tuned.network
    assert options.training.learning_rate == pytest.approx(tuned.options["learning_rate"], rel=1e-5)
    assert options.training.augmentation.noise_m == pytest.approx(tuned.options["noise_m"], rel=1e-5)


def test_trials_that_all_fail_say_why(cluster, pairs, tmp_path):
    options = tune.Options(
        pairs=str(pairs), trials=1, storage=str(tmp_path), training=TrainingConfig(batch_size=1_000_000)
    )
    with pytest.raises(UserError, match="fewer than a batch of 1000000"):
        tune.run(options)
    with pytest.raises(UserError, match="at least 1"):
        replace(options, trials=0)
