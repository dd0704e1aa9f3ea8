"""A folder of pairs says what it holds; whoever trains on it believes that only where it is true."""

import json
from pathlib import Path

import pytest

from refiner import UserError
from refiner.data import checks, manifest, records
from refiner.inference import drift
from refiner.model.config import RefinerConfig
from refiner.training import dataset


@pytest.fixture
def root(tmp_path, make_pairs) -> Path:
    described, gists = {}, {}
    for number, split in enumerate(("train", "val", "test")):
        parts = []
        for i in range(2):
            pairs = make_pairs(1, frames=6, seed=number, first=100 * number + i)
            path = tmp_path / f"split={split}" / f"{i}.parquet"
            records.write_atomically(pairs.to_table(), path, {})
            described[f"split={split}/{i}.parquet"] = manifest.described(pairs, path, split)
            parts.append(checks.Gist.of(pairs, split))
        gists[split] = (parts[0] + parts[1]).to_json()
    manifest.write(
        tmp_path, described, gists=gists, inputs=drift.of_pairs(tmp_path), estimator={"name": "mediapipe"}, made_of={}
    )
    return tmp_path


def test_it_says_what_counting_finds(root):
    known = manifest.read(root)
    assert known is not None and known.fingerprint == records.fingerprint(root, ("train", "val", "test"))
    assert known.inputs == drift.of_pairs(root) and known.estimator == {"name": "mediapipe"}
    for split in ("train", "val", "test"):
        pairs = records.read_pairs(root, split)
        assert known.rows(split) == len(pairs) and known.sequences(split) == set(pairs.sequence)
        ours, counted = checks.Gist.of_json(known.gists[split]), checks.Gist.of(pairs, split)
        assert ours.pairs == counted.pairs and ours.error == pytest.approx(counted.error)


def test_what_it_says_is_not_read_again(root, monkeypatch):
    read: list[int] = []
    reading = records.read_table

    def counted(*arguments, **named):
        table = reading(*arguments, **named)
        read.append(len(table))
        return table

    monkeypatch.setattr(records, "read_table", counted)
    checks.check_splits(root)
    assert checks.sequences_of(root, "val", "test") and not read
    train, val = dataset.load(root, RefinerConfig(), "cpu", 0)
    assert sum(read) == len(train) + len(val)  # each pair once
    read.clear()
    (root / manifest.FILE).unlink()
    checks.check_splits(root)
    dataset.load(root, RefinerConfig(), "cpu", 0)
    assert sum(read) > 2 * (len(train) + len(val))


def _rewritten(root: Path, change) -> None:
    content = json.loads((root / manifest.FILE).read_text())
    change(content)
    (root / manifest.FILE).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda root: (root / "split=val/1.parquet").unlink(), "does not describe what lies beside it, such as split=val/1"),
        (lambda root: (root / "split=val/2.parquet").write_bytes((root / "split=val/1.parquet").read_bytes()),
         "does not describe what lies beside it, such as split=val/2"),
        (lambda root: (root / "split=train/0.parquet").write_bytes(b"PAR1"), r"0\.parquet is not the file that .* describes"),
        (lambda root: _rewritten(root, lambda c: c["files"]["split=train/0.parquet"].update(rows=5)), "is not the file"),
        (lambda root: _rewritten(root, lambda c: c.update(fingerprint="0" * 64)), "fingerprint is not that of its files"),
        (lambda root: _rewritten(root, lambda c: c.update(schema_version=9)), "has version 9, this program reads 1"),
        (lambda root: _rewritten(root, lambda c: c.pop("gists")), "is damaged"),
        (lambda root: (root / manifest.FILE).write_text("[]"), "is damaged"),
    ],
)  # fmt: skip
def test_one_that_is_not_true_is_refused_with_a_sentence(root, damage, says):
    damage(root)
    with pytest.raises(UserError, match=says):
        checks.check_splits(root)


def test_implausible_sums_are_refused_as_implausible_pairs_are(root):
    _rewritten(root, lambda content: content["gists"]["train"].update(error=1e6))
    with pytest.raises(UserError, match="of 'train' do not show the same pose"):
        dataset.load(root, RefinerConfig(), "cpu", 0)
