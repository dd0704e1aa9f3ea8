"""Refine: observations in, refined poses out, one Parquet file per video. The champion on everything you have, in a batch.

    python -m rayjobs.refine --observations data/observations --model models:/pose-depth-refiner@champion --out data/refined

A row per frame in which somebody was detected: video, sequence, camera, frame, timestamp_us, pose (17×3 float32: metres,
virtual camera frame, hips' midpoint at the origin), confidence (17: probability that the joint's depth is within 5 cm),
view_angle and azimuth (degrees), clip (number of the scene; nothing is smoothed or levelled across its ends). A video that
this version of the model has refined already is left alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayjobs.actors import Answer, evenly, over_actors
from rayjobs.progress import Progress
from rayjobs.session import ray_session
from refiner import DepthRefiner, UserError, files, registry
from refiner.command import launch, log
from refiner.data import records
from refiner.inference.observations import refined_observations
from refiner.registry import CHAMPION, NAME, ModelSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    observations: str
    """Folder (path or URI) of the observations that 'rayjobs.extract' wrote."""
    out: str
    """Folder (path or URI) of the refined poses: <video>.parquet."""
    model: str = f"models:/{NAME}@{CHAMPION}"
    """models:/NAME@ALIAS, models:/NAME/VERSION, or a checkpoint's folder."""
    workers: int = 0
    """Videos at once; 0: one per GPU, or as many as the cluster has cores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    videos: int
    done_before: int
    refined: int
    """Videos refined by this run."""
    frames: int
    poses: int
    """Frames in which there was somebody to refine."""
    failures: dict[str, str]
    """Reason by file that could not be read."""
    model: dict[str, str]


class Refiner:
    """An actor that holds the model. INPUT row: path, out. OUTPUT: frames, poses."""

    def __init__(self, source: str, identity: dict[str, str]) -> None:
        self._refiner, self._identity = DepthRefiner(source), identity

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        seen = records.read_table(row["path"], records.OBSERVATIONS)
        poses = refined_observations(self._refiner, seen)
        made_from = records.read_metadata(row["path"])
        records.write_atomically(poses, row["out"], {**made_from, "model": self._identity})
        return {"frames": len(seen), "poses": len(poses)}


def run(options: Options) -> Summary:
    """Refines the observations that this model has not refined yet.

    Raises:
        UserError: there are no observations, or there is no such model.
    """
    observed = files.find(options.observations, {".parquet"})
    if not observed:
        raise UserError(
            f"there are no observations in {options.observations}: run 'python -m rayjobs.extract' to make them"
        )
    source, identity = resolve(options.model)
    out = files.absolute(options.out)
    rows = [{"path": file.where, "out": files.join(out, f"{file.name}.parquet")} for file in observed]
    todo = [row for row in rows if not _is_done(row["out"], identity)]
    log(
        f"{len(rows):,} videos: {len(rows) - len(todo):,} done, {len(todo):,} to do by {identity['name']} {identity['version']}"
    )
    answers: list[Answer] = []
    if todo:
        with ray_session(), Progress("videos", len(todo), len(todo)) as progress:
            for answer in over_actors(
                Refiner, (source, identity), todo, actors=options.workers, use_gpus=True, portions=evenly
            ):
                answers.append(answer)
                progress.add(1, 1, failed=bool(answer.error), poses=answer.values.get("poses", 0))
    failures = {a.row["path"]: a.error for a in answers if a.error}
    for path, reason in failures.items():
        log(f"failed: {path}: {reason}")
    return Summary(
        videos=len(rows),
        done_before=len(rows) - len(todo),
        refined=len(answers) - len(failures),
        frames=sum(a.values.get("frames", 0) for a in answers),
        poses=sum(a.values.get("poses", 0) for a in answers),
        failures=failures,
        model=identity,
    )


def resolve(model: str) -> tuple[str, dict[str, str]]:
    """What the actors load, pinned to one version (an alias may move meanwhile), and what it is called."""
    if (registered := ModelSource.parse(model)) is not None:
        local = registry.download(registered)
        identity = {"name": local.name, "version": local.version, "run_id": local.run_id}
        return str(registered.at(local.version)), identity
    refiner = DepthRefiner(model)
    return str(Path(model).absolute()), {"name": refiner.name, "version": refiner.version, "run_id": ""}


def _is_done(path: str, identity: dict[str, str]) -> bool:
    try:
        return json.loads(records.read_metadata(path).get("model", "{}")) == identity
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    launch(run, Options)
