"""The whole pipeline as one job, its data in an object store (moto's S3) and on disk; and lineage back from what it made."""

import dataclasses
import json

import pytest

from rayjobs import lineage, pipeline
from refiner import UserError, files, registry
from refiner.data import manifest, records
from refiner.training.trainer import TrainingConfig

TINY = TrainingConfig(epochs=1, batch_size=16)


def options(storage: str, **more: object) -> pipeline.Options:
    return pipeline.Options(
        storage=storage, name="tiny", preset="baseline", workers=1, model_name="pipelined", training=TINY, **more
    )


@pytest.mark.cluster
def test_the_pipeline_goes_on_where_it_was_and_says_where_it_all_came_from(store, studio_dataset, tmp_path):
    root = f"{store}/pipeline"
    few = [path for path in sorted(studio_dataset.videos.glob("*.mp4")) if "_c01_" in path.name or "_c05_" in path.name]
    for path in few:
        with files.written_whole(files.join(root, "videos", path.name)) as part:
            part.write_bytes(path.read_bytes())
    files.copy_folder(studio_dataset.annotations, files.join(root, "annotations"))

    first = pipeline.run(options(root))
    assert first.done_before == [] and set(first.seconds) == {"extract", "pair", "train", "evaluate"}
    assert first.extract["extracted"] == len(few) and first.extract["failed"] == 0
    assert first.train["epochs"] == 1 and first.evaluate["candidate"]["version"] == first.train["version"]
    # all of it is in the store, where every node finds it
    assert {"videos", "annotations", "observations", "pairs", "checkpoints", "pipeline"} <= {
        name.split("/")[0] for name in files.below(root)
    }

    again = pipeline.run(options(root))
    assert again.done_before == ["pair", "train", "evaluate"] and again.extract["extracted"] == 0
    assert (again.train, again.evaluate) == (first.train, first.evaluate)

    # another option redoes what depends on it, and nothing before
    longer = dataclasses.replace(options(root), training=dataclasses.replace(TINY, epochs=2))
    third = pipeline.run(longer)
    assert third.done_before == ["pair"]
    assert third.train["run_id"] == first.train["run_id"] and third.train["epochs"] == 2  # it went on

    version = third.train["version"]
    origin = lineage.run(lineage.Options(version=version, model_name="pipelined", out=str(tmp_path / "videos.txt")))
    assert origin.run_id == third.train["run_id"] and origin.unchanged
    assert origin.pairs == f"{root}/pairs" and origin.made_of["observations"] == f"{root}/observations"
    assert origin.fingerprint == third.pair["fingerprint"]
    listed = [line.split()[1] for line in (tmp_path / "videos.txt").read_text().splitlines()]
    assert sorted(listed) == sorted(path.stem for path in few) and sum(origin.videos.values()) == len(few)
    inputs = registry.runs.mlflow_client().get_run(origin.run_id).inputs.dataset_inputs
    (dataset,) = {i.dataset.digest: i.dataset for i in inputs}.values()
    assert origin.fingerprint.startswith(dataset.digest)
    assert json.loads(dataset.source) == {"uri": origin.pairs}
    assert json.loads(dataset.profile)["fingerprint"] == origin.fingerprint


@pytest.mark.cluster
def test_a_store_whose_pairs_are_being_replaced_is_refused_and_made_whole_again(store, tmp_path, make_pairs):
    from rayjobs.storage import replaced_folder

    def pairs_into(folder, seed: int):
        pairs = make_pairs(1, seed=seed, first=seed)
        file = folder / "split=train" / f"s{seed}.parquet"
        records.write_atomically(pairs.to_table(), file, {})
        described = {str(file.relative_to(folder)): manifest.described(pairs, file, "train")}
        manifest.write(folder, described, gists={}, inputs=None, estimator={}, made_of={})
        (folder / "summary.json").write_text("{}")

    where = f"{store}/replaced"
    for seed in (1, 2):
        with replaced_folder(where, "summary.json") as folder:
            pairs_into(folder, seed)
        assert set(files.below(where)) == {f"split=train/s{seed}.parquet", "manifest.json", "summary.json"}
        known = manifest.read(where)
        assert known is not None and known.sequences("train")
    # one that was killed has put the manifest there, and not yet all pairs
    files.delete(f"{where}/split=train/s2.parquet")
    files.delete(f"{where}/summary.json")
    with pytest.raises(UserError, match=r"manifest\.json does not describe what lies beside it"):
        manifest.read(where)
    with replaced_folder(where, "summary.json") as folder:
        pairs_into(folder, 3)
    assert manifest.read(where) is not None

    files.write_text(f"{store}/other/notes.txt", "mine")
    with pytest.raises(UserError, match=r"has no summary\.json"), replaced_folder(f"{store}/other", "summary.json"):
        pass
    assert files.read_text(f"{store}/other/notes.txt") == "mine"


def test_without_a_storage_it_says_how_to_name_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSE_STORAGE", raising=False)
    with pytest.raises(UserError, match=r"give --storage, or set POSE_STORAGE, or write storage"):
        pipeline.Options()
    (tmp_path / "poses.toml").write_text('storage = "s3://poses"\nmodel = "mine"\n')
    assert (pipeline.Options().storage, pipeline.Options().model_name) == ("s3://poses", "mine")
    monkeypatch.setenv("POSE_STORAGE", "/data")
    assert pipeline.Options().storage == "/data"
    assert pipeline.Options(storage="here").storage == "here"


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "tiny.json").write_text("{")
    with pytest.raises(UserError, match=r"tiny\.json is damaged .*delete it"):
        pipeline.Record.read(str(tmp_path / "tiny.json"))
