"""Versions of registered models, their aliases, and how they come onto this disk.

A version's files are the checkpoint (`model.safetensors`, `config.json`) and MLflow's own description; the code that loads it
is `refiner/inference/pyfunc.py` ("models from code"), so no pickle is written or read.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refiner import settings
from refiner.errors import UserError
from refiner.registry.runs import (
    before_mlflow,
    git_commit,
    log_files,
    log_metrics,
    mlflow_client,
    run_url,
    tracking_uri,
    unreachable,
)
from refiner.skeleton import NUM_JOINTS
from refiner.wheels import cache_folder

NAME = "pose-depth-refiner"
CANDIDATE, CHAMPION = "candidate", "champion"
_log = logging.getLogger(__name__)
FINGERPRINT = "dataset_fingerprint"  # tag of a version
MODEL_ID = "model_id"  # tag of a version: the registry in a database of MLflow's keeps none
_TYPE = "pose refiner"
CHECKPOINT = "checkpoint"  # folder of the checkpoint inside a version's artifacts

_SCHEME = "models:"
_SOURCE = re.compile(r"models:/(?P<name>(?!\.{1,2}[/@])[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def model_name() -> str:
    """Of the registered model, as `refiner.settings` has it; else `NAME`."""
    return settings.setting("model") or NAME


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Which registered model is meant: one version of a name, or whichever carries an alias."""

    name: str
    alias: str | None = None
    version: str | None = None

    @classmethod
    def parse(cls, source: str | Path) -> "ModelSource | None":
        """What "models:/name@alias" or "models:/name/3" says; None where it is a checkpoint's folder.

        Raises:
            UserError: it begins like one of these, but is neither.
        """
        if not str(source).startswith(_SCHEME):
            return None
        match = _SOURCE.fullmatch(str(source))
        if match is None:
            raise UserError(
                f"'{source}' is not a model's address: expected models:/{NAME}@{CHAMPION} or models:/{NAME}/3"
            )
        return cls(**match.groupdict())

    def at(self, version: str) -> "ModelSource":
        """That version of the same name: an alias may move meanwhile."""
        return ModelSource(self.name, version=version)

    def __str__(self) -> str:
        return f"{_SCHEME}/{self.name}@{self.alias}" if self.alias else f"{_SCHEME}/{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalModel:
    """A registered version whose checkpoint is on this disk."""

    path: Path
    """Folder of the checkpoint."""
    name: str
    version: str
    run_id: str
    tags: dict[str, str]


def register(
    checkpoint: str | Path,
    run_id: str,
    *,
    name: str = NAME,
    example: tuple[np.ndarray, np.ndarray],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> str:
    """Makes a checkpoint a version of the registered model and gives it the alias `candidate`.

    Args:
        checkpoint: folder with model.safetensors and config.json.
        run_id: the run that trained it.
        name: of the registered model, which is made where there is none.
        example: poses (N, 17, 3) and visibility (N, 17) that a reader can try it with.
        metrics: its figures; they become tags of the version, and metrics of the run.
        tags: where it comes from (`dataset_fingerprint` …); the git commit is added.

    Returns:
        The version.
    """
    client = mlflow_client()
    model = _logged_model(client, run_id, name, checkpoint, example, tags)
    log_metrics(run_id, metrics, model_id=model.model_id, fingerprint=tags.get(FINGERPRINT, ""))
    _make_sure_of(client, name)
    version = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=run_id,
        model_id=model.model_id,  # a server that hands out the artifacts takes them from nowhere else
        await_creation_for=0,  # it is there when the call returns; waiting is for stores in the cloud
        tags={
            "git_commit": git_commit(),
            **tags,
            MODEL_ID: model.model_id,
            **{f"metric.{key}": f"{value:.6g}" for key, value in metrics.items()},
        },
    )
    # as mlflow.register_model does it: the model's page names its versions
    versions = [{"name": name, "version": str(version.version)}]
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(versions)})
    set_alias(name, CANDIDATE, version.version)
    return str(version.version)


def _logged_model(
    client: Any,
    run_id: str,
    name: str,
    checkpoint: str | Path,
    example: tuple[np.ndarray, np.ndarray],
    tags: Mapping[str, str],
) -> Any:
    """What MLflow shows under a run's models, and links with its figures, its data and its versions."""
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    plain = re.sub(r"[/:.%\"']", "-", name)  # which a logged model's name may not have
    model = client.create_logged_model(experiment, name=plain, source_run_id=run_id, tags=dict(tags), model_type=_TYPE)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _describe(Path(scratch, "model"), checkpoint, example, model.model_id)
            client.log_model_artifacts(model.model_id, str(Path(scratch, "model")))
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, "READY")


def _describe(folder: Path, checkpoint: str | Path, example: tuple[np.ndarray, np.ndarray], model_id: str) -> None:
    """Writes a version as MLflow has them: the checkpoint, the code that loads it, signature and example."""
    import mlflow

    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(scratch, CHECKPOINT)  # its name becomes the name inside the version
        shutil.copytree(checkpoint, copied)
        # recorded, not filtered (MLflow puts a filter of its own first): it wants type hints, which would overrule the
        # signature, and an example, which is added below
        with warnings.catch_warnings(record=True):
            mlflow.pyfunc.save_model(
                folder,
                python_model=str(Path(__file__).parents[1] / "inference" / "pyfunc.py"),
                artifacts={CHECKPOINT: str(copied)},
                signature=_signature(),
                # named here: MLflow would otherwise load the model in a child process to find them out; this package
                # itself is on no index and must be installed beside them
                pip_requirements=["mlflow", "numpy", "pyarrow", "safetensors", "torch"],
            )
    _save_example(folder, {"poses": example[0], "visibility": example[1]}, model_id)


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    def tensor(name: str, *shape: int) -> TensorSpec:
        return TensorSpec(np.dtype(np.float32), (-1, *shape), name)

    return ModelSignature(
        inputs=Schema([tensor("poses", NUM_JOINTS, 3), tensor("visibility", NUM_JOINTS)]),
        outputs=Schema([tensor("refined", NUM_JOINTS, 3), tensor("confidence", NUM_JOINTS), tensor("view_angle")]),
        params=ParamSchema([ParamSpec("sequence", "boolean", False)]),
    )


def _make_sure_of(client: Any, name: str) -> None:
    """Registers a model's name where it is not known yet."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Corrects the depth of MediaPipe's 3D poses.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _save_example(model: Path, example: dict[str, np.ndarray], model_id: str) -> None:
    # save_model(input_example=…) would run the model in a child process to check it, for ten seconds
    from mlflow.models import Model
    from mlflow.models.utils import _Example

    description = Model.load(model)
    saved = _Example(example)
    saved.save(str(model))
    description.saved_input_example_info = saved.info
    description.model_id = model_id
    description.save(model / "MLmodel")


def record_evaluation(
    name: str, version: str, metrics: Mapping[str, float], folder: str | Path, under: str, fingerprint: str = ""
) -> str:
    """Attaches figures (as tags of the version and metrics of its run) and a folder of files to a registered version.

    Args:
        name: of the registered model.
        version: of it.
        metrics: by name.
        folder: of the files.
        under: where they go among the run's artifacts.
        fingerprint: of the pairs on which it was measured.

    Returns:
        The run's id.
    """
    client = mlflow_client()
    run_id = log_version_files(name, version, folder, under)
    model_id = client.get_model_version(name, version).tags.get(MODEL_ID)  # none where an older program registered it
    log_metrics(run_id, metrics, model_id=model_id, fingerprint=fingerprint)
    for key, value in metrics.items():
        if key.count("/") == 1:  # the model's own; the baselines' are in the run
            client.set_model_version_tag(name, version, f"metric.{key}", f"{value:.6g}")
    return run_id


def log_version_files(name: str, version: str, folder: str | Path, under: str) -> str:
    """Puts a folder's files into the run of a registered version; the run's id."""
    run_id = mlflow_client().get_model_version(name, version).run_id
    log_files(run_id, folder, under)
    return run_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a registered version comes from."""

    version: str
    run_id: str
    run_url: str
    git_commit: str
    fingerprint: str
    """Of the pairs that it was trained on."""
    pairs: str
    """Their folder, path or URI, as it was then."""


def origin(name: str, version: str) -> Origin:
    """
    Raises:
        UserError: there is no such version.
    """
    client = mlflow_client()
    from mlflow.exceptions import MlflowException

    try:
        entry = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise unreachable(error) from None
        raise UserError(
            f"version {version} of {name} is not in the registry at {tracking_uri()}: {_what_is_there(client, name)}"
        ) from None
    run = client.get_run(entry.run_id)
    return Origin(
        version=str(entry.version),
        run_id=entry.run_id,
        run_url=run_url(entry.run_id),
        git_commit=entry.tags.get("git_commit", "unknown"),
        fingerprint=entry.tags.get(FINGERPRINT, ""),
        pairs=run.data.params.get("pairs", ""),
    )


def set_alias(name: str, alias: str, version: str) -> None:
    """Moves an alias of the model `name`."""
    mlflow_client().set_registered_model_alias(name, alias, version)


def get_alias(name: str, alias: str) -> str | None:
    """The version of the model `name` that carries the alias, or None."""
    before_mlflow()
    from mlflow.exceptions import MlflowException

    try:
        return str(mlflow_client().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise unreachable(error) from error


def download(source: str | ModelSource, into: str | Path | None = None) -> LocalModel:
    """Brings a registered version onto this disk; a version that is there already is not fetched again.

    When MLflow cannot be reached, what this machine fetched last under the same source is used.

    Args:
        source: "models:/pose-depth-refiner@champion" or "models:/pose-depth-refiner/3".
        into: folder that keeps the versions; `models` in the cache (see `wheels.cache_folder`) by default.

    Raises:
        UserError: no such model, alias or version; or MLflow is out of reach and nothing is kept.
    """
    before_mlflow()
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    asked = source if isinstance(source, ModelSource) else ModelSource.parse(source)
    if asked is None:
        raise UserError(f"'{source}' is not a registered model: expected models:/{NAME}@{CHAMPION} or models:/{NAME}/3")
    name, alias, number = asked.name, asked.alias, asked.version
    cache = Path(into or cache_folder() / "models", name)
    # which version a source meant when it was last asked for, for the time when MLflow is down
    server = hashlib.sha256(tracking_uri().encode()).hexdigest()[:8]
    memory = cache / (f".@{alias}-{server}" if alias else f".{number}-{server}")
    client = mlflow_client()
    try:
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UserError(
                f"{source} is not in the registry at {tracking_uri()}: {_what_is_there(client, name)}"
            ) from None
        if memory.exists() and (kept := _kept(cache / memory.read_text(), name)):
            _log.warning(
                "MLflow at %s cannot be reached; going on with version %s from this disk", tracking_uri(), kept.version
            )
            return kept
        raise unreachable(error) from None
    # the run's id, too: a new registry counts its versions from 1 again
    folder = cache / f"{version.version}-{version.run_id[:12]}"
    if _kept(folder, name) is None:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as part:
            download_artifacts(artifact_uri=version.source, dst_path=part, tracking_uri=tracking_uri())
            checkpoint = next(Path(part).glob(f"**/artifacts/{CHECKPOINT}"))
            _write_identity(checkpoint, version)
            try:
                os.replace(checkpoint, folder)
            except OSError:  # another process was quicker; its copy is as good
                if _kept(folder, name) is None:
                    raise
    memory.write_text(folder.name)
    kept = _kept(folder, name)
    assert kept is not None
    return kept


def _write_identity(folder: Path, version: Any) -> None:
    identity = {"version": str(version.version), "run_id": version.run_id, "tags": dict(version.tags)}
    (folder / "version.json").write_text(json.dumps(identity))


def _kept(folder: Path, name: str) -> LocalModel | None:
    try:
        identity = json.loads((folder / "version.json").read_text())
    except (OSError, ValueError):
        return None
    return LocalModel(path=folder, name=name, **identity)


def _what_is_there(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        registered = client.get_registered_model(name)
    except MlflowException:
        option = "" if name == NAME else f" --model-name {name}"
        return f"nothing is registered under that name yet; train a model with 'python -m rayjobs.train{option}'"
    aliases = ", ".join(f"@{a}" for a in sorted(registered.aliases)) or "none"
    return f"its aliases are {aliases}; 'python -m rayjobs.evaluate' sets @{CHAMPION}"
