"""Stores that are away for a minute while a job runs on four nodes. `make cluster-test`."""

import secrets
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.running import CHECKOUT
from rayjobs import extract, train
from refiner import files, registry
from refiner.training.trainer import TrainingConfig
from tests.connection import connection
from tests.nodes import Nodes
from tests.stores import Stores, needs_postgresql
from tests.survival import SLOW, extracted_rows, make_videos, pairs_in, training_command
from tests.waiting import wait_for

pytestmark = [pytest.mark.survival, needs_postgresql]
AWAY_S, EPOCHS = 60.0, 40


@pytest.fixture
def root(nodes: Nodes, stores: Stores, monkeypatch) -> Iterator[str]:
    """A folder in the store, and a connection to the cluster whose workers find it."""
    for name, value in stores.environment.items():
        monkeypatch.setenv(name, value)
    with connection(nodes.cluster, {"PYTHONPATH": f"{CHECKOUT}:{SLOW}", **stores.environment}):
        yield f"s3://poses/{secrets.token_hex(4)}"


def test_extraction_waits_for_the_object_store(root: str, stores: Stores, book, tmp_path):
    expected = make_videos(tmp_path / "videos")
    files.copy_folder(tmp_path / "videos", f"{root}/videos")
    options = extract.Options(videos=f"{root}/videos", out=f"{root}/out", observe="slow:observe")

    def be_away() -> None:
        wait_for(lambda: len(files.find(options.out, {".parquet"})) >= 2)
        back = stores.away("the object store")
        time.sleep(AWAY_S)
        back()

    other = threading.Thread(target=be_away)
    other.start()
    summary = extract.run(options)
    other.join()
    rows = extracted_rows(options.out)
    book(
        "the object store for a minute, in extraction", videos=summary.videos, failed=summary.failed, rows=len(rows),
        expected=len(expected),
    )  # fmt: skip
    assert (summary.extracted, summary.failed) == (summary.videos, 0)
    assert rows == expected


@pytest.mark.parametrize("which", ["MLflow", "PostgreSQL", "the object store"])
def test_training_waits_for_a_store(which: str, nodes: Nodes, root: str, stores: Stores, book, make_pairs, tmp_path):
    files.copy_folder(pairs_in(tmp_path / "pairs", make_pairs), f"{root}/pairs")
    name = f"without {which}"
    options = train.Options(
        pairs=f"{root}/pairs", storage=f"{root}/checkpoints", name=name, workers=2, preset="baseline",
        model_name=name, training=TrainingConfig(epochs=EPOCHS, batch_size=32, patience=EPOCHS),
    )  # fmt: skip
    cluster = replace(nodes.cluster, mlflow_uri=stores.mlflow.url)
    said: list[Any] = []

    def submit() -> None:
        try:
            said.append(cluster.submit(shlex.join(["python", *training_command(options)[1:]]), env=stores.environment))
        except BaseException as error:
            said.append(error)

    job = threading.Thread(target=submit)
    job.start()
    client = registry.runs.mlflow_client()

    def epochs() -> list[int]:
        run = registry.find_run(train.RESUME_TAG, name)
        return sorted(m.step for m in client.get_metric_history(run, "train/depth")) if run else []

    wait_for(lambda: len(epochs()) >= 2 or said, pause_s=0.5)
    before = len(epochs())
    back = stores.away(which)
    time.sleep(AWAY_S)
    back()
    job.join()
    (summary,) = said
    assert isinstance(summary, dict), summary
    logged = epochs()
    version = client.get_model_version_by_alias(name, registry.CANDIDATE)
    book(
        f"{which} for a minute, in training", epochs_before=before, epochs=len(logged), of=EPOCHS,
        twice=len(logged) - len(set(logged)), versions_registered=version.version,
    )  # fmt: skip
    assert before < EPOCHS, "the training was over before anything was away"
    assert logged == list(range(EPOCHS)) and summary["epochs"] == EPOCHS
    assert version.version == summary["version"] == "1"
    kept = registry.download(f"models:/{name}@{registry.CANDIDATE}", tmp_path / "kept")
    assert (kept.path / "model.safetensors").exists()
