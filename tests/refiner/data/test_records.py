"""Observations and pairs survive the disk, and a damaged file is named rather than believed."""

from dataclasses import fields

import numpy as np
import pyarrow.parquet as pq
import pytest

from refiner import UserError
from refiner.data import records
from refiner.geometry import azimuth, view_angle


@pytest.fixture
def pairs(rng) -> records.Pairs:
    n = 12
    corrupted = rng.normal(0, 0.4, (n, 17, 3)).astype(np.float32)
    azimuths = azimuth(corrupted).astype(np.float32)
    return records.Pairs(
        sequence=np.array(["a"] * 6 + ["b"] * 6, dtype=object),
        camera=np.array((["c01"] * 3 + ["c02"] * 3) * 2, dtype=object),
        frame=np.tile(np.arange(3, dtype=np.int32), 4),
        timestamp_us=np.tile(np.arange(3, dtype=np.int64) * 16667, 4),
        corrupted=corrupted,
        ground_truth=corrupted + rng.normal(0, 0.05, (n, 17, 3)).astype(np.float32),
        visibility=rng.uniform(0, 1, (n, 17)).astype(np.float32),
        image_points=rng.uniform(-1, 1, (n, 17, 2)).astype(np.float32),
        view_angle=view_angle(azimuths),
        azimuth=azimuths,
        pitch=rng.normal(0, 8, n).astype(np.float32),
    )


def write(pairs: records.Pairs, root, split: str, name: str) -> None:
    records.write_atomically(pairs.to_table(), root / f"split={split}" / f"{name}.parquet", {"n": len(pairs)})


def same(a: records.Pairs, b: records.Pairs) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(records.Pairs))


def test_pairs_come_back_as_written_and_in_order_however_the_files_are_cut(tmp_path, pairs):
    write(pairs.take(np.array([9, 10, 11, 0, 1, 2])), tmp_path, "train", "x")
    write(pairs.take(np.array([3, 5, 4, 8, 7, 6])), tmp_path, "train", "y")
    read = records.read_pairs(tmp_path, "train")
    assert same(read, pairs)
    assert read.clip_starts().tolist() == [0, 3, 6, 9]
    whole = tmp_path / "whole"
    write(pairs, whole, "train", "x")
    assert records.fingerprint(whole, ("train", "val")) == records.fingerprint(tmp_path, ("train", "val"))
    pairs.corrupted[0, 0, 0] += 1e-3
    write(pairs, whole, "train", "x")
    assert records.fingerprint(whole, ("train", "val")) != records.fingerprint(tmp_path, ("train", "val"))


def test_pairs_of_before_the_pitch_was_kept_do_not_know_it(tmp_path, pairs):
    path = tmp_path / "split=train" / "x.parquet"
    path.parent.mkdir()
    pq.write_table(pairs.to_table().drop_columns(["pitch"]), path)
    read = records.read_pairs(tmp_path, "train")
    assert np.isnan(read.pitch).all() and len(read.pitch) == len(pairs)
    assert np.array_equal(read.corrupted, pairs.corrupted)


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path, pairs, monkeypatch):
    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space"):
        write(pairs, tmp_path, "train", "x")
    assert list((tmp_path / "split=train").iterdir()) == []


def test_damaged_missing_and_foreign_files_are_named(tmp_path, pairs):
    with pytest.raises(UserError, match=r"rayjobs\.pair"):
        records.read_pairs(tmp_path, "val")
    path = tmp_path / "split=val" / "x.parquet"
    write(pairs, tmp_path, "val", "x")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a complete Parquet file"):
        records.read_pairs(tmp_path, "val")
    pq.write_table(pairs.to_table().drop_columns(["azimuth"]), path)
    with pytest.raises(UserError, match="azimuth"):
        records.read_pairs(tmp_path, "val")


def test_npz_keeps_the_published_keys_and_comes_back(tmp_path, pairs):
    path = tmp_path / "pairs.npz"
    records.export_npz(pairs, path)
    with np.load(path) as content:
        assert sorted(content) == ["corrupted", "ground_truth", "view_angle", "visibility"]
    read = records.import_npz(path)
    for key in records.NPZ_KEYS:
        assert np.allclose(getattr(read, key), getattr(pairs, key), atol=1e-4)
    assert np.allclose(read.azimuth, pairs.azimuth, atol=1e-4)


def test_an_npz_of_another_shape_is_refused(tmp_path, pairs):
    path = tmp_path / "pairs.npz"
    np.savez(path, **{k: getattr(pairs, k) for k in records.NPZ_KEYS if k != "visibility"})
    with pytest.raises(UserError, match=r"lacks .*visibility"):
        records.import_npz(path)
    np.savez(path, **{k: getattr(pairs, k) for k in records.NPZ_KEYS} | {"visibility": np.zeros((3, 33))})
    with pytest.raises(UserError, match="'visibility' is"):
        records.import_npz(path)


def test_files_from_before_there_were_several_people_hold_person_0(tmp_path):
    columns = {"video": ["a"], "sequence": ["a"], "camera": [""], "frame": [0], "timestamp_us": [0], "detected": [True],
               "world": np.zeros((1, 33, 3)), "image": np.zeros((1, 33, 2)), "visibility": np.ones((1, 33)),
               "presence": np.ones((1, 33))}  # fmt: skip
    new = records.table(records.OBSERVATIONS, columns)
    for number, old in enumerate((new.drop_columns(["person"]), new.drop_columns(["person", "clip", "damaged"]))):
        pq.write_table(old, tmp_path / f"{number}.parquet")
        read = records.read_table(tmp_path / f"{number}.parquet", records.OBSERVATIONS)
        assert read.column_names == records.OBSERVATIONS.names and list(records.by_person(read)) == [0]


def test_people_come_apart_by_their_number():
    rows = {name: [""] * 4 for name in ("video", "sequence", "camera")} | {
        "frame": [0, 1, 0, 1], "timestamp_us": [0, 9, 0, 9], "pose": np.zeros((4, 17, 3)), "confidence": np.ones((4, 17)),
        "view_angle": np.zeros(4), "azimuth": np.zeros(4), "person": [0, 0, 2, 2],
    }  # fmt: skip
    apart = records.by_person(records.table(records.REFINED, rows))
    assert list(apart) == [0, 2] and records.column(apart[2], "frame").tolist() == [0, 1]
