"""Evaluation as a job: few pairs in its own process, many on Ray Data, by the same code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rayjobs import evaluate, evaluate_worker
from refiner import UserError, registry
from refiner.data import records
from refiner.data.records import Pairs
from refiner.model.checkpoint import save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from tests.invented import write_splits


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Eight held-out sequences, of which three are real motion."""
    return write_splits(tmp_path / "pairs", {"train": 10, "val": 2, "test": 8}, real_motion=3, each_alone=True)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.manual_seed(0)
    model = PoseAwareDepthRefiner(RefinerConfig(smoothing_s=0.05))
    with torch.no_grad():
        for weights in model.parameters():  # an untrained refiner changes nothing
            weights += 0.02 * torch.randn_like(weights)
    return save_checkpoint(model, tmp_path / "checkpoint")


@pytest.mark.slow
def test_a_checkpoint_is_measured_without_ray_or_mlflow(pairs, checkpoint, tmp_path):
    out = tmp_path / "out"
    summary = evaluate.run(evaluate.Options(pairs=str(pairs), model=str(checkpoint), out=str(out)))
    assert (summary.pairs, summary.sequences, summary.promoted) == (8 * 48, 8, False)
    assert set(summary.by_situation) == {"sBM", "sRM"}
    assert set(summary.by_situation["sRM"]) >= {"refined", "ridge", "zero"}
    written = json.loads((out / "evaluation.json").read_text())
    assert written["by_situation"]["sRM"]["sequences"] == 3 and "left_wrist" in written["slices"]["joint"]
    names = {"evaluation.md", "depth_by_slice.png", "reliability.png", "error_atlas.png", "worst_clips.png"}
    assert names <= {p.name for p in out.iterdir()}
    sequence, camera, errors = written["worst_clips"][0]
    assert errors["refined"] >= summary.refined["depth_cm"]
    assert f"{sequence} {camera}" in (out / "evaluation.md").read_text()


def test_a_leaking_split_is_refused_by_name(pairs, checkpoint, make_pairs):
    leaked = make_pairs(1, seed=2, first=3)
    records.write_atomically(leaked.to_table(), pairs / "split=test" / "leaked.parquet", {})
    with pytest.raises(UserError, match=rf"'train' and 'test' .* share 1 sequences \({leaked.sequence[0]}\)"):
        evaluate.run(evaluate.Options(pairs=str(pairs), model=str(checkpoint)))


@pytest.mark.cluster
def test_the_cluster_finds_what_one_process_finds(cluster, pairs, checkpoint, monkeypatch):
    monkeypatch.setattr(evaluate_worker, "PART_PAIRS", 100)  # several files in a part, several parts
    here, there = (_found(pairs, checkpoint, workers) for workers in (0, 2))
    assert here.sequences == there.sequences and here.cells == there.cells and here.methods == there.methods
    np.testing.assert_array_equal(here.weights, there.weights)
    # processes with other numbers of threads add up in another order
    np.testing.assert_allclose(here.sums, there.sums, rtol=1e-4, atol=1e-5)
    ours, theirs = (t.confidence["refined"].by_confidence for t in (here, there))
    assert np.abs(ours - theirs)[..., 0].sum() <= 1e-3 * ours[..., 0].sum()  # a joint on a bin's edge


def _found(pairs: Path, checkpoint: Path, workers: int) -> evaluate_worker.Tally:
    methods = evaluate_worker.fit_baselines(pairs, workers)
    return evaluate_worker.measure_all(pairs, "test", methods, {"refined": str(checkpoint)}, workers)[0]


@pytest.mark.cluster
def test_a_damaged_file_on_the_cluster_is_the_users_error(cluster, pairs):
    path = sorted((pairs / "split=train").iterdir())[3]
    broken = Pairs.from_table(records.read_table(path, records.PAIRS))
    truth = broken.ground_truth.copy()
    truth[5, 2] = np.nan
    columns = {name: getattr(broken, name) for name in records.PAIRS.names} | {"ground_truth": truth}
    records.write_atomically(records.table(records.PAIRS, columns), path, {})
    with pytest.raises(UserError, match=f"not finite, the first one is frame 5 of {broken.sequence[0]}"):
        evaluate_worker.fit_baselines(pairs, workers=1)


@pytest.mark.cluster
def test_every_figure_is_in_mlflow(cluster, pairs, register_model):
    from mlflow import MlflowClient

    version = register_model(seed=9, scale=0.05)
    evaluate.run(evaluate.Options(pairs=str(pairs), model=f"models:/{registry.NAME}/{version}", promote=False))
    client = MlflowClient(registry.tracking_uri())
    run = client.get_run(client.get_model_version(registry.NAME, version).run_id)
    assert {
        "test/depth_cm", "test/ece", "test/ridge/depth_cm", "test/sRM/depth_cm", "test/sRM/ridge/depth_cm",
        "test/by/joint/left_wrist/refined", "test/by/camera/c01/mediapipe", "test/by/view angle/0 to 15/refined",
    } <= set(run.data.metrics)  # fmt: skip
    names = ("evaluation.md", "depth_by_slice.png", "error_atlas.png", "reliability.png", "worst_clips.png")
    assert {f"evaluation/test/{name}" for name in names} <= {
        f.path for f in client.list_artifacts(run.info.run_id, "evaluation/test")
    }
