"""The benchmark of training: that what is compared is the same, and that it runs where there is only PyTorch."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.train import invented_pairs, step_table
from benchmarks.training_loops import NpzPairs, Plain
from refiner.data import checks, records
from refiner.model.config import RefinerConfig
from refiner.model.network import Outputs
from refiner.training import losses
from refiner.training.trainer import TrainingConfig, TrainingData, initialise

CONFIG = RefinerConfig(width=16, layers=1, heads=2, feedforward=32)
TRAINING = TrainingConfig(batch_size=64)

# what a bare machine with a GPU has not
BARE = """
import sys
for name in ("ray", "mlflow", "tyro", "fsspec", "matplotlib", "mediapipe", "cv2", "av", "pytest", "rich", "numba"):
    sys.modules[name] = None
from benchmarks import train
options = "--preset baseline --batch-size 16 --rounds 1 --seconds 0.1 --device cpu --pairs"
train.main([*options.split(), sys.argv[1]])
"""


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return TrainingData(invented_pairs(6), CONFIG)


def test_the_invented_pairs_are_pairs():
    checks.check_pairs(invented_pairs(6), "invented")


def test_the_loop_by_hand_has_the_same_loss(data):
    inputs, truth = data.batch(torch.arange(32))
    model = initialise(CONFIG, TRAINING, data)
    outputs = Outputs(inputs.poses + 0.05 * torch.randn(32, 17, 3), torch.randn(32, 17) - 3)
    terms = losses.terms(outputs, truth, "z", losses.Bones.on("cpu"))
    plain = Plain(model, TRAINING).loss(outputs, truth)
    torch.testing.assert_close(plain, losses.total(terms, TRAINING.weights))


def test_the_files_hold_the_same_pairs(data, tmp_path):
    NpzPairs.write(data, tmp_path, 5)
    inputs, truth = data.batch(torch.arange(5))
    dataset = NpzPairs(tmp_path)
    assert len(dataset) == 5
    for row in range(5):
        expected = (inputs.poses[row], inputs.visibility[row], inputs.azimuth[row], truth[row])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(dataset[row], expected, strict=True))


@pytest.mark.slow
def test_it_runs_without_ray_and_ends_with_json(tmp_path):
    records.write_atomically(invented_pairs(6).to_table(), tmp_path / "split=train" / "all.parquet", {})
    done = subprocess.run([sys.executable, "-c", BARE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["ratio_to_plain_torch"] > 0 and last["ratio_to_npz_loader"] > 0 and last["samples_per_s"] > 0
    assert last["two_workers_to_one"] > 0
    assert "validation (a pair)" in done.stdout and "forward and loss" in done.stdout


def test_the_table_of_steps_gives_a_rate_or_the_reason_why_not(data):
    rows = step_table(CONFIG, data, (16, 100_000), ("fp32", "bf16"), seconds=0.05)
    assert len(rows) == 4
    assert all(row["samples_per_s"] > 0 for row in rows if row["batch"] == 16)
    assert all("fewer than a batch" in row["why_not"] for row in rows if row["batch"] == 100_000)
