"""Pairs on a device or streamed from their files: every pair once an epoch, the same batches whoever shares the work."""

from pathlib import Path

import numpy as np
import pytest
import torch

from refiner import UserError
from refiner.data import records
from refiner.model.config import RefinerConfig
from refiner.training.augment import Augmentation
from refiner.training.dataset import StreamedData, TrainingData, bytes_per_pair, load, parts_of, row_counts
from refiner.training.trainer import Trainer, TrainingConfig, initialise

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = RefinerConfig(width=16, layers=1, heads=2, feedforward=32)
BATCH, BUFFER = 32, 200
GOLDEN = (5.138165, 4.748691)


@pytest.fixture(scope="module")
def root(tmp_path_factory, make_pairs):
    """One file for each sequence, of different lengths."""
    root = tmp_path_factory.mktemp("pairs")
    for split, sequences in (("train", 12), ("val", 2)):
        for i in range(sequences):
            pairs = make_pairs(1, seed=i, first=i + 50 * (split == "val"), frames=20 + 3 * i)
            records.write_atomically(pairs.to_table(), root / f"split={split}" / f"{i:02d}.parquet", {})
    return root


@pytest.fixture(scope="module")
def streamed(root) -> StreamedData:
    return StreamedData(parts_of(root, "train", ["mediapipe"]), CONFIG, "cpu", BUFFER)


def batches(source, epoch: int, world: int = 1) -> list[torch.Tensor]:
    """(B, 17, 3) truths of each batch, put together from all workers' shares."""
    shares = [source.steps(BATCH, 7, epoch, rank, world) for rank in range(world)]
    joined = []
    for step in zip(*shares, strict=True):
        assert [s.first for s in step] == np.cumsum([0, *(len(s.rows) for s in step[:-1])]).tolist()
        joined.append(torch.cat([s.data.batch(s.rows)[1] for s in step]))
    return joined


def test_streaming_deals_every_pair_once_an_epoch_in_another_order_each_time(streamed, root):
    known = {row.tobytes() for row in TrainingData.read(root, "train", CONFIG, "cpu").truth.numpy()}
    assert len(known) == len(streamed)
    epochs = []
    for epoch in range(2):
        seen = [row.numpy().tobytes() for row in torch.cat(batches(streamed, epoch))]
        assert len(seen) == len(set(seen)) == len(streamed) // BATCH * BATCH and set(seen) <= known
        epochs.append(seen)
    assert epochs[0] != epochs[1]
    # a batch is no run of neighbours: it has pairs of several files
    assert len(known - set(epochs[0])) < BATCH


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_workers_streams_the_same_batches(streamed, world):
    alone, shared = batches(streamed, 1), batches(streamed, 1, world)
    assert len(alone) == len(shared)
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one, other)


def test_a_streamed_pair_is_the_one_that_memory_holds(streamed, root):
    whole = TrainingData.read(root, "train", CONFIG, "cpu")
    rows = {truth.numpy().tobytes(): i for i, truth in enumerate(whole.truth)}
    share = next(streamed.steps(BATCH, 7, 0))
    inputs, truth = share.data.batch(share.rows)
    expected, _ = whole.batch(torch.tensor([rows[t.numpy().tobytes()] for t in truth]))
    for ours, theirs in zip(inputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_streaming_keeps_no_more_than_the_buffer_in_memory(streamed):
    """Beyond what is shuffled: the files that the lanes' ends cut through."""
    largest, lanes = max(streamed.counts), 2
    limit = BUFFER + 2 * lanes * largest
    assert limit < len(streamed)
    for share in streamed.steps(lanes, 7, 0):
        assert len(share.data) <= limit
    with pytest.raises(UserError, match="allow more with --memory-gb"):
        StreamedData(streamed.parts, CONFIG, "cpu", largest - 1)


def test_what_fits_stays_in_memory_and_what_does_not_is_streamed(root):
    size = bytes_per_pair(CONFIG)
    train, val = (sum(row_counts(records.pair_files(root, s))) * size for s in ("train", "val"))
    data, validation = load(root, CONFIG, "cpu", train + val)
    assert isinstance(data, TrainingData) and len(data) * size == train and len(validation) * size == val
    data, _ = load(root, CONFIG, "cpu", train + val - 1)
    assert isinstance(data, StreamedData) and len(data) * size == train
    with pytest.raises(UserError, match="validation pairs"):
        load(root, CONFIG, "cpu", 1.5 * val)
    assert isinstance(load(root, CONFIG, "cpu", 0)[0], TrainingData)


def test_a_streamed_run_has_the_losses_it_always_had(streamed, root):
    """Golden: another order, another augmentation or another network would change them."""
    training = TrainingConfig(epochs=2, batch_size=BATCH, learning_rate=2e-3, augmentation=Augmentation(noise_m=0.005))
    trainer = Trainer(initialise(CONFIG, training, streamed), training, streamed, load(root, CONFIG, "cpu", 0)[1])
    np.testing.assert_allclose([f["train/loss"] for f in trainer.epochs()], GOLDEN, rtol=1e-4)


def test_a_damaged_or_impossible_file_is_named(root, tmp_path, make_pairs):
    for split in ("train", "val"):
        (tmp_path / f"split={split}").mkdir()
        for path in map(Path, records.pair_files(root, split)):
            (tmp_path / f"split={split}" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "split=train" / "05.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"05\.parquet is not a complete Parquet file"):
        load(tmp_path, CONFIG, "cpu", 0)
    pairs = make_pairs(1, first=5)
    pairs.ground_truth[3, 4] = np.nan
    records.write_atomically(pairs.to_table(), broken, {})
    with pytest.raises(UserError, match=r"'train'.*not finite"):
        load(tmp_path, CONFIG, "cpu", 0)
    with pytest.raises(UserError, match=r"05\.parquet holds NaN"):
        TrainingData.read(tmp_path, "train", CONFIG, "cpu")
