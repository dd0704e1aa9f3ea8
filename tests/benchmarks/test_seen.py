"""Models of each way of seeing, on invented people: every model is measured on every way, and learns from its own."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks import seen
from refiner import UserError
from refiner.data import records
from refiner.data.records import SEEN
from refiner.training.trainer import TrainingConfig


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, make_pairs) -> Path:
    """Two looks are the truth itself but for a little; raw poses are as wrong as MediaPipe's, and tremble."""
    root, rng = tmp_path_factory.mktemp("filmed"), np.random.default_rng(0)
    for number, (split, sequences) in enumerate({"train": 12, "val": 4}.items()):
        made = make_pairs(sequences, frames=12, seed=number, first=100 * number)
        raw = made.corrupted + rng.normal(0, 0.01, made.corrupted.shape).astype(np.float32)
        two = made.ground_truth + rng.normal(0, 0.01, made.corrupted.shape).astype(np.float32)
        ways = {
            "mediapipe": made,
            "raw": dataclasses.replace(made, corrupted=raw),
            "two_looks": dataclasses.replace(made, corrupted=two, visibility=np.ones_like(made.visibility)),
        }
        records.write_atomically(records.seen_otherwise(ways), root / f"split={split}" / "all.parquet", {})
    return root


def test_every_model_is_measured_on_every_way(pairs, tmp_path, capsys):
    options = seen.Options(
        pairs=str(pairs), sets=("mediapipe", "raw+two_looks"), training=TrainingConfig(epochs=2, batch_size=64),
        out=str(tmp_path), start="box",
    )  # fmt: skip
    figures = seen.run(options)
    assert set(figures) == set(SEEN)
    for way in SEEN:
        models = {"learnt from mediapipe", "learnt from raw+two_looks", seen.BOX}
        assert set(figures[way]["all"]) == {"mediapipe", "smoothing", "ridge"} | models
        assert figures[way]["all"][seen.BOX]["minus"][seen.BOX][0] == 0
    observed = {way: figures[way]["all"]["mediapipe"]["depth_cm"] for way in SEEN}
    assert observed["two_looks"] < 2 < observed["mediapipe"] < observed["raw"] + 0.5
    assert (tmp_path / "raw+two_looks/model.safetensors").exists()
    assert "seen by two_looks: 96 frames of 4 sequences" in capsys.readouterr().out
    with pytest.raises(UserError, match="no way of seeing called blurred"):
        seen.Options(pairs="x", sets=("raw+blurred",))
