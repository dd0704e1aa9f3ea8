"""A node of four is killed while a job runs on it. `make cluster-test`."""

import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.running import CHECKOUT
from rayjobs import extract, train
from refiner import registry
from refiner.training.trainer import TrainingConfig
from tests.connection import connection
from tests.nodes import NODES, Nodes, parent, titled
from tests.survival import SLOW, VIDEOS, extracted_rows, make_videos, pairs_in, training_command
from tests.waiting import wait_for

pytestmark = pytest.mark.survival
EPOCHS = 12


@pytest.fixture
def connected(nodes):
    with connection(nodes.cluster, {"PYTHONPATH": str(SLOW)}):
        yield


def test_extraction_loses_no_row_and_has_none_twice(nodes: Nodes, connected, book, tmp_path):
    expected = make_videos(tmp_path / "videos")
    options = extract.Options(videos=str(tmp_path / "videos"), out=str(tmp_path / "out"), observe="slow:observe")
    killed: list[str] = []

    def kill() -> None:
        def doomed() -> tuple[str, int] | None:
            """A node on which an actor is at work, once some videos are done."""
            if len(list(Path(options.out).glob("*.parquet"))) < 2:
                return None
            raylets = nodes.raylets()
            texts = [path.read_text().split() for path in Path(options.videos).glob("*.pids")]
            at_work = {parent(int(words[1])) for words in texts if len(words) == 2}
            return next(((name, raylet) for name, raylet in raylets.items() if raylet in at_work), None)

        name, raylet = wait_for(doomed)
        nodes.kill(raylet)
        killed.append(name)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = extract.run(options)
    killer.join()
    rows = extracted_rows(options.out)
    book("a node in extraction (kill -9)", videos=VIDEOS, failed=summary.failed, rows=len(rows), expected=len(expected))
    assert killed and summary.extracted == VIDEOS and summary.failed == 0
    assert rows == expected
    wait_for(lambda: len(nodes.raylets()) == NODES - 1 and nodes.alive() >= NODES)  # another one took its place


def test_training_goes_on_in_the_same_run_and_logs_no_epoch_twice(nodes: Nodes, book, make_pairs, tmp_path):
    pairs = pairs_in(tmp_path / "pairs", make_pairs)
    training = TrainingConfig(epochs=EPOCHS, batch_size=32, patience=EPOCHS)
    # four workers do not fit on one node
    options = train.Options(
        pairs=str(pairs), storage=str(tmp_path / "storage"), name="survives", workers=NODES, preset="baseline",
        training=training,
    )  # fmt: skip
    undisturbed = train.run(replace(options, name="undisturbed", storage=str(tmp_path / "other"), model_name="other"))

    client = registry.runs.mlflow_client()

    def epochs(run: str) -> list[int]:
        return sorted(m.step for m in client.get_metric_history(run, "train/depth"))

    with open(tmp_path / "said", "w") as said:
        job = subprocess.Popen(training_command(options), stdout=said, stderr=said, cwd=CHECKOUT, env=os.environ)

    def doomed() -> int | None:
        """The raylet of a node that trains, once an epoch is in MLflow."""
        run = registry.find_run(train.RESUME_TAG, "survives")
        if job.poll() is not None or run is None or len(epochs(run)) < 2:
            return 0 if job.poll() is not None else None
        trainers = titled("ray::RayTrainWorker")
        return next((r for r in nodes.raylets().values() if any(parent(p) == r for p in trainers)), None)

    raylet = wait_for(lambda: doomed() is not None and (doomed() or -1))
    assert raylet > 0, (tmp_path / "said").read_text()[-3000:]
    nodes.kill(raylet)
    assert job.wait() == 0, (tmp_path / "said").read_text()[-3000:]
    run = registry.find_run(train.RESUME_TAG, "survives")
    assert run is not None
    runs = client.search_runs([client.get_run(run).info.experiment_id], f"tags.{train.RESUME_TAG} = 'survives'")
    version = client.search_model_versions(f"run_id = '{run}'")
    same = abs(float(version[0].tags["metric.val_depth_cm"]) - undisturbed.val_depth_cm)
    book(
        "a node in training (kill -9)", MLflow_runs=len(runs), epochs=len(epochs(run)), of=EPOCHS,
        twice=len(epochs(run)) - len(set(epochs(run))), validation_error_differs_by_cm=f"{same:.4f}",
    )  # fmt: skip
    assert len(runs) == 1 and epochs(run) == list(range(EPOCHS))
    assert same < 0.01
