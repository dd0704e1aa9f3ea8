"""Runs in MLflow: parameters, metrics, files. The server is what MLFLOW_TRACKING_URI names; without it a SQLite file under
`runs/`.
"""

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from refiner import settings, telemetry
from refiner.errors import UserError
from refiner.extras import require

EXPERIMENT = "pose-depth-refiner"
PAIRS = "pairs"  # name of the datasets of runs
DIGEST = 32  # characters of a fingerprint


def tracking_uri() -> str:
    """Where MLflow is: MLFLOW_TRACKING_URI, or as `refiner.settings` has it, or `runs/mlflow.db` in the current folder (as an
    absolute path: Ray's workers run elsewhere).
    """
    return settings.setting("mlflow") or f"sqlite:///{Path.cwd() / 'runs' / 'mlflow.db'}"


def git_commit() -> str:
    """The commit this code is at: GIT_COMMIT where it is set (a job's upload has no .git), else git's answer, else unknown."""
    if commit := os.environ.get("GIT_COMMIT"):
        return commit
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def start_run(
    name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None, parent: str | None = None
) -> str:
    """Creates a run and returns its id; the run stays open until `finish_run`."""
    client = mlflow_client()
    run = client.create_run(
        _experiment(client),
        run_name=name,
        tags={
            "git_commit": git_commit(),
            **({"mlflow.parentRunId": parent} if parent else {}),
            **(tags or {}),
        },
    )
    mlflow_client().log_batch(run.info.run_id, params=_params(params))
    return run.info.run_id


def find_run(tag: str, value: str) -> str | None:
    """Id of the newest run that carries this tag, or None."""
    client = mlflow_client()
    quote = '"' if "'" in value else "'"
    runs = client.search_runs(
        [_experiment(client)],
        f"tags.`{tag}` = {quote}{value}{quote}",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return runs[0].info.run_id if runs else None


def reopen_run(run_id: str) -> None:
    """Marks a run that was interrupted as running again."""
    mlflow_client().update_run(run_id, status="RUNNING")


def finish_run(run_id: str, failed: bool = False) -> None:
    """Marks a run as finished, or as failed."""
    mlflow_client().set_terminated(run_id, "FAILED" if failed else "FINISHED")


def log_metrics(
    run_id: str, metrics: Mapping[str, float], *, model_id: str | None = None, fingerprint: str = ""
) -> None:
    """Logs numbers of a run; those that are not finite are left out.

    Args:
        run_id: of the run.
        metrics: by name.
        model_id: of the logged model whose figures they are.
        fingerprint: of the pairs on which they were measured, as `log_dataset` was told.
    """
    MetricLog(run_id).log(metrics, 0, model_id=model_id, fingerprint=fingerprint).close()


def log_dataset(
    run_id: str, where: str, fingerprint: str, counts: Mapping[str, int], context: str = "training"
) -> None:
    """Records what a run learnt from or was measured on, as MLflow shows it under the run's datasets.

    Args:
        run_id: of the run.
        where: folder of the pairs, path or URI.
        fingerprint: of the pairs' content; MLflow's digest is its beginning, for it has room for 36 characters.
        counts: pairs by split.
        context: what the pairs were used for: training, evaluation.
    """
    client = mlflow_client()
    from mlflow.entities import Dataset, DatasetInput, InputTag

    kind = urlsplit(where).scheme or "local"
    pairs = Dataset(
        name=PAIRS,
        digest=fingerprint[:DIGEST],
        source_type=kind,
        source=json.dumps({"uri": where}),
        schema=None,
        profile=json.dumps({"fingerprint": fingerprint, **counts}),
    )
    client.log_inputs(run_id, [DatasetInput(pairs, [InputTag("mlflow.data.context", context)])])


def log_files(run_id: str, folder: str | Path, under: str | None = None) -> None:
    """Uploads a folder's files as artifacts of a run."""
    mlflow_client().log_artifacts(run_id, str(folder), under)


def run_url(run_id: str) -> str:
    """Where a browser shows the run, or the store's address where that is no server."""
    uri = tracking_uri()
    return (
        f"{uri.rstrip('/')}/#/experiments/{mlflow_client().get_run(run_id).info.experiment_id}/runs/{run_id}"
        if uri.startswith("http")
        else uri
    )


class MetricLog:
    """Sends a run's metrics from a thread of its own, so that training never waits for MLflow, and keeps what could not be
    sent until MLflow is back.

    Args:
        run_id: of the run.
        uri: of MLflow; the environment's by default.
        once_until: steps up to this one that the run has already are not sent again: what goes on after a crash repeats the
            last ones.
    """

    def __init__(self, run_id: str, uri: str | None = None, *, once_until: int = -1) -> None:
        before_mlflow()
        self._run_id, self._uri = run_id, uri or tracking_uri()
        self._once_until = once_until
        self._known: dict[str, set[int]] = {}
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._send_all, daemon=True, name="mlflow-metrics")
        self._thread.start()

    def log(
        self, metrics: Mapping[str, float], step: int, *, model_id: str | None = None, fingerprint: str = ""
    ) -> "MetricLog":
        from mlflow.entities import Metric

        now = int(time.time() * 1000)  # the wall clock, as MLflow shows it
        of = {"model_id": model_id, "run_id": self._run_id} if model_id else {}
        if fingerprint:
            of |= {"dataset_name": PAIRS, "dataset_digest": fingerprint[:DIGEST]}
        batch = [Metric(key, float(value), now, step, **of) for key, value in metrics.items() if np.isfinite(value)]
        self._queue.put(batch)
        return self

    def close(self, patience_s: float = 120.0) -> None:
        """Waits until everything is sent, for `patience_s` at most.

        Raises:
            UserError: MLflow did not come back in time.
        """
        self._deadline = time.monotonic() + patience_s
        self._closing.set()
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise UserError(
                f"MLflow at {self._uri} could not be reached for {patience_s:g} s ({self._error}): "
                "start it again; the checkpoints are kept, and the same command goes on from there"
            )

    def _send_all(self) -> None:
        client = None
        while (batch := self._queue.get()) is not None:
            while True:
                try:
                    client = client or mlflow_client(self._uri)
                    if not self._has(client, batch):
                        client.log_batch(self._run_id, metrics=batch)
                    self._error = None
                    break
                except Exception as error:  # whatever the reason is, training goes on
                    self._error = error
                    if self._closing.is_set() and time.monotonic() > self._deadline:
                        return
                    time.sleep(1.0)

    def _has(self, client: Any, batch: list) -> bool:
        """Whether the run had this step when its first one was to be sent; a step is there as a whole or not at all."""
        if not batch or batch[0].step > self._once_until:
            return False
        key, step = batch[0].key, batch[0].step
        if key not in self._known:
            self._known[key] = {metric.step for metric in client.get_metric_history(self._run_id, key)}
        return step in self._known[key]


def unreachable(error: Exception) -> UserError:
    """What to raise where MLflow does not answer."""
    return UserError(
        f"MLflow at {tracking_uri()} does not answer ({error}): is it running, and is MLFLOW_TRACKING_URI right?"
    )


def before_mlflow() -> None:
    """To be called before MLflow is imported, which is when it decides whether to report its use.

    Raises:
        MissingPackage: it is not installed.
    """
    require("the registry", "mlflow")
    telemetry.turn_off()


def mlflow_client(uri: str | None = None) -> Any:
    """A client of that server or file, of the environment's by default. MLflow is imported here: it takes seconds."""
    before_mlflow()
    from mlflow import MlflowClient

    uri = uri or tracking_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(client: Any) -> str:
    """The experiment's id; whoever comes first creates it."""
    from mlflow.exceptions import MlflowException

    if experiment := client.get_experiment_by_name(EXPERIMENT):
        return experiment.experiment_id
    uri = tracking_uri()
    # a server knows where artifacts go; beside a bare database they go into a folder next to it
    location = (
        Path(uri.removeprefix("sqlite:///")).with_name("artifacts").as_uri() if uri.startswith("sqlite") else None
    )
    try:
        return client.create_experiment(EXPERIMENT, artifact_location=location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(EXPERIMENT).experiment_id  # another job came first


def _params(params: Mapping[str, Any], prefix: str = "") -> list:
    """Params as MLflow has them; mappings inside become names with dots."""
    from mlflow.entities import Param

    flattened = []
    for key, value in params.items():
        if isinstance(value, Mapping):
            flattened += _params(value, f"{prefix}{key}.")
        else:
            flattened.append(Param(f"{prefix}{key}", str(value)))
    return flattened
