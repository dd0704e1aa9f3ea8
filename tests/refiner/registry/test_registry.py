"""Runs and versions in MLflow, on a SQLite file of its own."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from refiner import DepthRefiner, UserError, registry
from refiner.model.checkpoint import save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from refiner.registry import ModelSource
from tests.invented import make_pairs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mlflow")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("HOME", str(folder))
        patch.setenv("GIT_COMMIT", "0123abc")
        yield folder


@pytest.fixture(scope="module")
def example():
    return make_pairs(1, frames=3, cameras=1).corrupted, np.ones((3, 17), np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = PoseAwareDepthRefiner(RefinerConfig(width=16, layers=1, feedforward=32))
    torch.nn.init.normal_(model.encoder.correction[-1].weight)
    return save_checkpoint(model, tmp_path_factory.mktemp("checkpoint"), {"trained_on": "nothing"})


@pytest.fixture(scope="module")
def version(store, checkpoint, example):
    run = registry.start_run("a run", {"learning_rate": 0.1})
    return registry.register(
        checkpoint, run, example=example, metrics={"val_depth_cm": 7.5}, tags={"dataset_fingerprint": "fff"}
    )


def test_a_registered_version_is_the_candidate_and_loads_as_the_checkpoint_it_was(version, checkpoint, example):
    assert (
        registry.get_alias(registry.NAME, "candidate") == version
        and registry.get_alias(registry.NAME, "champion") is None
    )
    local = DepthRefiner(checkpoint)
    for source in (f"models:/{registry.NAME}@candidate", f"models:/{registry.NAME}/{version}"):
        loaded = DepthRefiner(source)
        assert (loaded.name, loaded.version) == (registry.NAME, version)
        np.testing.assert_array_equal(loaded.refine(*example), local.refine(*example))


def test_run_model_figures_data_and_version_are_linked(store, checkpoint, example):
    pairs = "ab" * 32
    run = registry.start_run("linked", {})
    registry.log_dataset(run, "/pairs", pairs, {"train": 3})
    made = registry.register(
        checkpoint,
        run,
        name="linked",
        example=example,
        metrics={"val_depth_cm": 5.0},
        tags={"dataset_fingerprint": pairs},
    )
    registry.record_evaluation("linked", made, {"test/depth_cm": 6.0}, checkpoint, "evaluation/test", "cd" * 32)
    registry.log_dataset(run, "/pairs", "cd" * 32, {"test": 3}, "evaluation")
    client = MlflowClient(registry.tracking_uri())
    version = client.get_model_version("linked", made)
    model = client.get_logged_model(version.tags["model_id"])
    assert model.status == "READY" and (model.source_run_id, model.name) == (run, "linked")
    assert {m.key: (m.value, m.dataset_name, m.dataset_digest) for m in model.metrics} == {
        "val_depth_cm": (5.0, "pairs", pairs[:32]),
        "test/depth_cm": (6.0, "pairs", "cd" * 16),
    }
    there = client.get_run(run)
    assert [output.model_id for output in there.outputs.model_outputs] == [model.model_id]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "linked", "version": made}]
    assert there.data.metrics == {"val_depth_cm": 5.0, "test/depth_cm": 6.0}
    context = {i.dataset.digest: i.tags[0].value for i in there.inputs.dataset_inputs}
    assert context == {pairs[:32]: "training", "cd" * 16: "evaluation"}


def test_a_version_says_where_it_comes_from(version):
    downloaded = registry.download(f"models:/{registry.NAME}@candidate")
    assert downloaded.tags["git_commit"] == "0123abc" and downloaded.tags["dataset_fingerprint"] == "fff"
    assert float(downloaded.tags["metric.val_depth_cm"]) == 7.5
    card = json.loads((downloaded.path / "config.json").read_text())["card"]
    assert card == {"trained_on": "nothing"}


def test_mlflow_loads_it_as_any_other_model_and_no_file_of_it_is_a_pickle(version, store, checkpoint, example):
    import mlflow

    mlflow.set_tracking_uri(registry.tracking_uri())
    model = mlflow.pyfunc.load_model(f"models:/{registry.NAME}/{version}")
    assert {t.name for t in model.metadata.signature.inputs} == {"poses", "visibility"}
    answer = model.predict(model.input_example)
    np.testing.assert_allclose(answer["refined"], DepthRefiner(checkpoint).refine(*example), atol=1e-6)
    files = [p for p in (store / "artifacts").rglob("*") if p.is_file()]
    assert files and not [p for p in files if p.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]


def test_a_wrong_name_says_what_there_is(version):
    with pytest.raises(UserError, match="its aliases are @candidate"):
        registry.download(f"models:/{registry.NAME}@chamipon")
    with pytest.raises(UserError, match="not in the registry"):
        registry.download(f"models:/{registry.NAME}/99")
    with pytest.raises(UserError, match="nothing is registered under that name"):
        registry.download("models:/another@champion")
    with pytest.raises(UserError, match="is not a model's address"):
        registry.download("models:pose-depth-refiner")


def test_what_was_fetched_once_serves_while_mlflow_is_down(version, monkeypatch):
    source = f"models:/{registry.NAME}@candidate"
    before = registry.download(source)

    def unreachable(*args, **kwargs):
        from mlflow.exceptions import MlflowException

        raise MlflowException("connection refused")

    monkeypatch.setattr("mlflow.MlflowClient.get_model_version_by_alias", unreachable)
    assert registry.download(source) == before
    with pytest.raises(UserError, match="does not answer"):
        registry.download(f"models:/{registry.NAME}@never-asked-for")


def test_jobs_that_find_no_experiment_at_once_all_get_the_one_that_came_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    together = threading.Barrier(3)
    find = MlflowClient.get_experiment_by_name

    def all_find_nothing(self, name):
        experiment = find(self, name)
        if experiment is None:
            together.wait()
        return experiment

    registry.runs.mlflow_client().search_experiments()  # the database's tables are there
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", all_find_nothing)
    with ThreadPoolExecutor(3) as jobs:
        runs = list(jobs.map(lambda name: registry.start_run(name, {}), "abc"))
    client = registry.runs.mlflow_client()
    assert len({client.get_run(run).info.experiment_id for run in runs}) == 1
    assert len(set(runs)) == 3


def test_metrics_wait_for_mlflow_and_none_is_lost(store, monkeypatch):
    from mlflow import MlflowClient

    run = registry.start_run("with gaps", {})
    attempts = []
    send = MlflowClient.log_batch

    def sometimes(self, *args, **kwargs):
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("down")
        return send(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", sometimes)
    log = registry.MetricLog(run)
    for step in range(3):
        log.log({"loss": 1.0 / (1 + step), "infinite": float("inf")}, step)
    log.close()
    client = MlflowClient(registry.tracking_uri())
    assert [(m.step, m.value) for m in client.get_metric_history(run, "loss")] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert "infinite" not in client.get_run(run).data.metrics
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *a, **k: (_ for _ in ()).throw(ConnectionError("down")))
    with pytest.raises(UserError, match="could not be reached"):
        registry.MetricLog(run).log({"loss": 0.0}, 9).close(patience_s=0.5)


def test_what_goes_on_repeats_no_step_and_leaves_none_out(store):
    """A process that was killed after it had sent step 2 and before it had sent step 1."""
    run = registry.start_run("killed", {})
    registry.MetricLog(run).log({"loss": 0.0}, 0).log({"loss": 2.0}, 2).close()
    log = registry.MetricLog(run, once_until=2)
    for step in range(4):
        log.log({"loss": float(step)}, step)
    log.close()
    history = registry.runs.mlflow_client().get_metric_history(run, "loss")
    assert sorted((m.step, m.value) for m in history) == [(i, float(i)) for i in range(4)]


def test_every_name_has_versions_and_aliases_of_its_own(version, checkpoint, example):
    ours, others = registry.NAME, "of another's"
    run = registry.start_run("theirs", {})
    first = registry.register(checkpoint, run, name=others, example=example, metrics={"val_depth_cm": 3.0}, tags={})
    assert first == "1" and registry.get_alias(others, "candidate") == first
    assert registry.get_alias(ours, "candidate") == version
    registry.set_alias(others, "champion", first)
    assert registry.get_alias(ours, "champion") is None
    loaded = DepthRefiner(f"models:/{others}@champion")
    assert (loaded.name, loaded.version) == (others, first)
    registry.record_evaluation(others, first, {"test/depth_cm": 4.5}, checkpoint, "evaluation")
    assert registry.download(f"models:/{others}/{first}").run_id == run
    client = MlflowClient(registry.tracking_uri())
    assert client.get_model_version(others, first).tags["metric.test/depth_cm"] == "4.5"
    assert "metric.test/depth_cm" not in client.get_model_version(ours, version).tags
    with pytest.raises(UserError, match=r"'python -m rayjobs.train --model-name mine'"):
        registry.download("models:/mine@champion")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("models:/other/3", ModelSource("other", version="3")),
        ("models:/other@champion", ModelSource("other", alias="champion")),
        ("models:/my model 2.0@3", ModelSource("my model 2.0", alias="3")),
        ("data/models", None),
        ("/models:/other/3", None),
    ],
)
def test_a_source_is_parsed_once_and_written_as_it_was(text, source):
    assert ModelSource.parse(text) == source
    if source is not None:
        assert str(source) == text and str(source.at("7")) == f"models:/{source.name}/7"


@pytest.mark.parametrize("text", ["models:/..@champion", "models:/../3", "models:/a/b/3", "models:/a", "models:a@b"])
def test_what_only_begins_like_a_source_is_refused(text):
    with pytest.raises(UserError, match="is not a model's address: expected models:/"):
        ModelSource.parse(text)
