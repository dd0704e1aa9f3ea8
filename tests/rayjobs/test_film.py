"""Dancers become pairs without a video; what is there is left alone."""

import dataclasses
from pathlib import Path

import pytest

from rayjobs import film
from refiner import UserError, files
from refiner.data import checks, manifest, records
from refiner.model.config import RefinerConfig
from refiner.training.dataset import load

SMALL = {"sequences": 3, "seconds": 0.4, "fps": 15, "cameras": 1, "size": (320, 180), "workers": 1}


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> film.Options:
    return film.Options(out=str(tmp_path_factory.mktemp("filmed") / "pairs"), **SMALL)


@pytest.fixture(scope="module")
def summary(options) -> film.Summary:
    return film.run(options)


@pytest.mark.slow
def test_a_folder_of_pairs_comes_out_that_training_reads_in_every_way(options, summary):
    assert summary.sequences == {"train": 1, "val": 1, "test": 1} and summary.filmed == 3 and not summary.left_out
    assert set(summary.depth_cm) == set(records.SEEN) and all(3 < cm < 25 for cm in summary.depth_cm.values())
    known = manifest.read(options.out)
    assert known is not None and known.estimator["name"] == "blazepose"
    assert (known.estimator["smoothing"], known.estimator["looks"]) == ("mediapipe", 1)  # of what every reader takes
    checks.check_splits(options.out)
    one, _ = load(options.out, RefinerConfig(), "cpu", 0)
    every, val = load(options.out, RefinerConfig(), "cpu", 0, seen=records.SEEN)
    assert len(every) == 3 * len(one) == 3 * summary.pairs["train"] and len(val) == 3 * summary.pairs["val"]


@pytest.mark.slow
def test_what_is_there_is_left_alone_and_what_is_missing_is_filmed(options, summary):
    before_files = {file: file.stat().st_mtime_ns for file in sorted(Path(options.out).glob("split=*/*.parquet"))}
    before = manifest.read(options.out)
    gone = next(iter(before_files))
    gone.unlink()
    again = film.run(options)
    assert again.filmed == 1 and again.pairs == summary.pairs
    assert [f for f in before_files if f.stat().st_mtime_ns != before_files[f]] == [gone]
    assert manifest.read(options.out).fingerprint == before.fingerprint  # the same pairs
    more = film.run(dataclasses.replace(options, sequences=4))
    assert more.filmed == 1 and sum(more.sequences.values()) == 4


@pytest.mark.slow
def test_other_options_other_pairs_and_impossible_rates_are_refused(options, summary, tmp_path, make_pairs):
    with pytest.raises(UserError, match="made with seed 0, not 1"):
        film.run(dataclasses.replace(options, seed=1))
    records.write_atomically(make_pairs(1).to_table(), tmp_path / "split=train" / "a.parquet", {})
    with pytest.raises(UserError, match="pairs that this job did not make"):
        film.run(dataclasses.replace(options, out=str(tmp_path)))
    with pytest.raises(UserError, match="give a divisor"):
        film.Options(out="x", fps=25)


def test_pairs_that_were_not_filmed_say_so(tmp_path, make_pairs):
    for split in ("train", "val"):
        records.write_atomically(make_pairs(1).to_table(), tmp_path / f"split={split}" / "a.parquet", {})
    with pytest.raises(UserError, match="does not say how 'raw' saw its frames"):
        load(tmp_path, RefinerConfig(), "cpu", 0, seen=("raw",))


def test_a_store_gets_the_same_pairs_and_what_is_there_is_left_alone(options, summary, server, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    where = f"s3://archive/filmed?endpoint_override={server.removeprefix('http://')}&scheme=http"
    far = film.run(dataclasses.replace(options, out=where))
    assert far.filmed == 3 and far.sequences == summary.sequences and far.depth_cm == pytest.approx(summary.depth_cm)
    known = manifest.read(where)
    assert known is not None and known.rows("train") == summary.pairs["train"]
    gone = next(name for name in files.below(where) if name.endswith(".parquet"))
    files.delete(files.join(where, *gone.split("/")))
    again = film.run(dataclasses.replace(options, out=where))
    assert again.filmed == 1 and again.pairs == far.pairs
    assert manifest.read(where).fingerprint == known.fingerprint
