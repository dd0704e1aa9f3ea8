"""Pipeline: videos in, a champion out. Extract, pair, train and evaluate as one job, which goes on where it was.

    python -m rayjobs.pipeline --storage s3://poses/aistpp

The storage holds videos/ and annotations/, as 'rayjobs.download' lays them, and gets observations/, pairs/, checkpoints/ and
pipeline/NAME.json, which says what was done. A step whose options and inputs are what they were is not done again: extraction
looks at new videos only, a training that was interrupted goes on with the same run of MLflow.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import tyro

from rayjobs import evaluate, extract, pair, train
from rayjobs.session import ray_session
from refiner import UserError, files, registry
from refiner.command import launch, log, to_json
from refiner.estimators import DEFAULT
from refiner.model import presets
from refiner.settings import setting
from refiner.training.trainer import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    storage: str = field(default_factory=lambda: setting("storage"))
    """Folder or s3:// prefix of everything. On several machines one that all of them reach."""
    name: str = "pipeline"
    """Name of the record and of the training's run: the same one goes on, another trains again on the same pairs."""
    videos: str = ""
    """Folder or glob of the videos; videos/ in the storage by default."""
    dataset: str = ""
    """Root of the dataset; the storage by default."""
    estimator: str = DEFAULT
    """What looks at the frames, by name."""
    stride: int = 1
    """Observe every stride-th frame."""
    split_by: Literal["official", "choreography"] = "official"
    """As in rayjobs.pair."""
    preset: presets.PresetName = "best"
    """Preset of the network."""
    workers: int = 0
    """DDP workers; 0: one for each GPU of the cluster, and two where there is none."""
    model_name: str = field(default_factory=registry.model_name)
    """Name of the registered model."""
    promote: bool = True
    """Move the alias 'champion' if the new version wins."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if not self.storage:
            raise UserError(
                "there is no storage: give --storage, or set POSE_STORAGE, or write storage = … into poses.toml"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    extract: dict[str, Any]
    """Of the last time, as every step's."""
    pair: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    done_before: list[str]
    """Steps that were not done again."""
    seconds: dict[str, float]
    """Wall time of the others."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was done, step by step, kept beside the data: a step is done if its key is what it was."""

    where: str
    steps: dict[str, dict[str, Any]]
    done_before: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, where: str) -> "Record":
        """
        Raises:
            UserError: the file is damaged.
        """
        try:
            return cls(where, json.loads(files.read_text(where)))
        except FileNotFoundError:
            return cls(where, {})
        except ValueError as error:
            raise UserError(f"{where} is damaged ({error}): delete it, and every step is checked again") from None

    def step(self, name: str, inputs: object, options: Any, run: Callable[[Any], Any]) -> dict[str, Any]:
        """A step's summary: the one it had, where options and inputs are the same, else of doing it now."""
        content = json.dumps(to_json({"inputs": inputs, "options": asdict(options)}), sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        kept = self.steps.get(name)
        if kept is not None and kept["key"] == key:
            log(f"{name}: done before")
            self.done_before.append(name)
            return kept["summary"]
        log(f"{name}:")
        start = time.monotonic()
        summary = to_json(run(options))
        self.seconds[name] = round(time.monotonic() - start, 1)
        self.steps[name] = {"key": key, "summary": summary}
        files.write_text(self.where, json.dumps(self.steps, indent=1))
        return summary


def run(options: Options) -> Summary:
    """Runs the steps whose inputs have changed since they were last done.

    Raises:
        UserError: as the steps.
    """
    root = files.absolute(options.storage)
    videos, dataset = options.videos or files.join(root, "videos"), options.dataset or root
    observations, pairs = files.join(root, "observations"), files.join(root, "pairs")
    record = Record.read(files.join(root, "pipeline", f"{options.name}.json"))
    with ray_session():
        # always looked at: it knows best what is done, and takes seconds where all is
        extracted = record.step(
            "extract",
            uuid.uuid4().hex,
            extract.Options(videos=videos, out=observations, estimator=options.estimator, stride=options.stride),
            extract.run,
        )
        observed = {file.name: file.size for file in files.find(observations, {".parquet"})}
        paired = record.step(
            "pair",
            observed,
            pair.Options(observations=observations, dataset=dataset, out=pairs, split_by=options.split_by),
            pair.run,
        )
        trained = record.step(
            "train",
            paired["fingerprint"],
            train.Options(
                pairs=pairs,
                preset=options.preset,
                workers=options.workers,
                model_name=options.model_name,
                # other pairs are another run: what was learnt from these would go on otherwise
                name=f"{options.name}-{paired['fingerprint'][:8]}",
                storage=files.join(root, "checkpoints"),
                training=options.training,
            ),
            train.run,
        )
        evaluated = record.step(
            "evaluate",
            [paired["fingerprint"], trained["run_id"]],
            evaluate.Options(
                pairs=pairs, model=f"models:/{options.model_name}/{trained['version']}", promote=options.promote
            ),
            evaluate.run,
        )
    return Summary(
        extract=extracted,
        pair=paired,
        train=trained,
        evaluate=evaluated,
        done_before=record.done_before,
        seconds=record.seconds,
    )


if __name__ == "__main__":
    launch(run, Options)
