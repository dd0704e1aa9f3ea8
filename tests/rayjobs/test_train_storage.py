"""What a full disk leaves of a training's storage: the newest whole checkpoint, whatever the clock said meanwhile."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rayjobs import train_storage
from refiner.training.trainer import STATE_FILE, STATE_TENSORS


def checkpoint(folder: Path, steps: int, age_s: int) -> Path:
    folder.mkdir(parents=True)
    save_file({"w": np.zeros(2, np.float32)}, folder / STATE_TENSORS)
    (folder / STATE_FILE).write_text(json.dumps({"steps": steps}))
    os.utime(folder, (1e9 - age_s, 1e9 - age_s))
    return folder


@pytest.mark.parametrize("half_written", [STATE_FILE, STATE_TENSORS])
def test_a_clock_that_was_set_back_costs_no_training(tmp_path, half_written):
    run = tmp_path / "run"
    checkpoint(run / "checkpoint_2026-03-01_10-00-00", steps=10, age_s=0)
    newest = checkpoint(run / "checkpoint_2026-03-01_09-00-00", steps=20, age_s=3600)  # the clock was put back
    last = checkpoint(run / "checkpoint_2026-03-01_09-10-00", steps=30, age_s=3000)
    (last / half_written).write_bytes((last / half_written).read_bytes()[:3])  # the disk was full
    (run / train_storage.SNAPSHOT).write_text('{"checkpoint_res')
    assert train_storage.recover(str(tmp_path), "run") == str(newest)
    assert list(run.iterdir()) == [newest]


def test_what_ray_can_read_is_left_to_ray(tmp_path):
    kept = checkpoint(tmp_path / "run" / "checkpoint_1", steps=1, age_s=0)
    (tmp_path / "run" / train_storage.SNAPSHOT).write_text("{}")
    assert train_storage.recover(str(tmp_path), "run") is None
    assert kept.exists()


AWAY = RuntimeError("Training failed due to controller error:\nAWS Error NETWORK_CONNECTION during PutObject operation")


def fit_after(failures: list[Exception]) -> Callable[[], str]:
    """A training that fails so, one after the other, before it goes well."""
    left = iter(failures)

    def fit() -> str:
        for failure in left:
            raise failure
        return "trained"

    return fit


def test_a_training_whose_storage_was_away_goes_on_when_it_is_back(tmp_path):
    assert train_storage.whatever_is_away(fit_after([AWAY, AWAY]), str(tmp_path)) == "trained"
    with pytest.raises(RuntimeError, match="a defect"):
        train_storage.whatever_is_away(fit_after([AWAY, RuntimeError("a defect")]), str(tmp_path))
    with pytest.raises(RuntimeError, match="NETWORK"):
        train_storage.whatever_is_away(fit_after([AWAY] * (train_storage.TIMES_AWAY + 1)), str(tmp_path))
