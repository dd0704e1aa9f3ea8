"""Lineage: a model's version in, out comes what it was made of: run, commit, pairs, observations, videos.

    python -m rayjobs.lineage --version 3

The version is what the endpoint answers with (header x-model-version, field model.version). Every link is checked as far as it
is still there: the pairs' fingerprint is compared with the one that was trained on.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from refiner import UserError, files, registry
from refiner.command import launch, log
from refiner.data import aistpp, manifest, records


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    version: str
    """Version of the registered model."""
    model_name: str = field(default_factory=registry.model_name)
    """Name of the registered model."""
    out: str | None = None
    """File (path or URI) for the list of videos: one line each, split and name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary(registry.Origin):
    unchanged: bool
    """Whether the folder still holds these pairs."""
    made_of: dict[str, str]
    """Folders of the observations and the dataset, and how it was split."""
    estimator: dict[str, Any]
    """That saw the poses."""
    videos: dict[str, int]
    """Number by split; validation and test are what it was chosen and judged by."""


def run(options: Options) -> Summary:
    """Follows a version back to its pairs and their videos.

    Raises:
        UserError: there is no such version, it names no pairs, or they have been moved.
    """
    origin = registry.origin(options.model_name, options.version)
    if not origin.pairs:
        raise UserError(
            f"version {origin.version} was not trained by 'rayjobs.train': its run does not say on which pairs"
        )
    known = manifest.read(origin.pairs)
    if known is None:
        raise UserError(
            f"{origin.pairs} has no {manifest.FILE} any more: version {origin.version} was trained on pairs with the "
            f"fingerprint {origin.fingerprint}; name the folder that they were moved to, or restore it"
        )
    if known.fingerprint != origin.fingerprint:
        log(f"{origin.pairs} holds other pairs than version {origin.version} was trained on: see 'unchanged'")
    videos = {split: videos_of(origin.pairs, split) for split in aistpp.SPLITS}
    if options.out is not None:
        lines = [f"{split} {name}" for split, names in videos.items() for name in names]
        files.write_text(options.out, "\n".join(lines) + "\n")
    return Summary(
        **asdict(origin),
        unchanged=known.fingerprint == origin.fingerprint,
        made_of=known.made_of,
        estimator=known.estimator,
        videos={split: len(names) for split, names in videos.items()},
    )


def videos_of(pairs: str, split: str) -> list[str]:
    """Names of the videos that the pairs of a split come from."""

    def names(path: str) -> set[str]:
        table = records.read_table(path, records.PAIRS, ["sequence", "camera"]).group_by(["sequence", "camera"])
        rows = table.aggregate([]).to_pylist()
        return {row["sequence"].replace("_cAll_", f"_{row['camera']}_") for row in rows}

    with ThreadPoolExecutor(16) as pool:
        return sorted(set().union(*pool.map(names, records.files_of_split(pairs, split))))


if __name__ == "__main__":
    launch(run, Options)
