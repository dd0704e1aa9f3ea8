"""A node of four is killed while a job runs on it. `make cluster-test`."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from cluster.running import CHECKOUT
from rayjobs import extract, train
from refiner import registry
from refiner.data import records, video
from refiner.training.trainer import TrainingConfig
from tests.nodes import NODES, Nodes, parent, titled
from tests.waiting import wait_for

pytestmark = pytest.mark.survival
SLOW = CHECKOUT / "tests" / "rayjobs"  # where slow.py is
VIDEOS, FRAMES, EPOCHS = 40, 20, 12


@pytest.fixture
def connected(nodes):
    ray.init(address=nodes.cluster.ray_address, runtime_env={"env_vars": {"PYTHONPATH": str(SLOW)}})
    yield
    ray.shutdown()


def test_extraction_loses_no_row_and_has_none_twice(nodes: Nodes, connected, book, tmp_path):
    for i in range(VIDEOS):
        with video.VideoWriter(tmp_path / "videos" / f"v{i}.mp4", (128, 96), 60) as writer:
            for j in range(FRAMES + i):
                writer.write(np.full((96, 128, 3), 100 + j, dtype=np.uint8))
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
    rows = []
    for path in Path(options.out).glob("*.parquet"):
        data = records.read_table(path, records.OBSERVATIONS)
        rows += zip(data.column("video").to_pylist(), data.column("frame").to_pylist(), strict=True)
    expected = sorted((f"v{i}", f) for i in range(VIDEOS) for f in range(FRAMES + i))
    book("a node in extraction (kill -9)", videos=VIDEOS, failed=summary.failed, rows=len(rows), expected=len(expected))
    assert killed and summary.extracted == VIDEOS and summary.failed == 0
    assert sorted(rows) == expected
    wait_for(lambda: len(nodes.raylets()) == NODES - 1 and nodes.alive() >= NODES)  # another one took its place


def pairs_in(folder: Path, make_pairs) -> Path:
    for number, split in enumerate(("train", "val")):
        pairs = make_pairs(4, seed=number, first=4 * number)
        records.write_atomically(pairs.to_table(), folder / f"split={split}" / "a.parquet", {})
    return folder


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

    program = (
        "import json; from math import inf; from rayjobs import train; from refiner.command import to_json\n"
        "from refiner.training.trainer import TrainingConfig\n"
        f"print(json.dumps(to_json(train.run(train.{options!r}))))"
    )
    with open(tmp_path / "said", "w") as said:
        job = subprocess.Popen([sys.executable, "-c", program], stdout=said, stderr=said, cwd=CHECKOUT, env=os.environ)

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
    assert len(runs) == 1 and epochs(run) == list(range(1, EPOCHS + 1))
    assert same < 0.01
