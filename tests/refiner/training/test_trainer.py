"""The training loop: that it learns, repeats exactly, goes on where it was, and does not depend on who shares the work."""

import dataclasses
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from refiner import UserError
from refiner.evaluation import metrics
from refiner.evaluation.confidence import calibration_error
from refiner.inference.depth_refiner import DepthRefiner
from refiner.model.checkpoint import load_checkpoint, save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.training import augment
from refiner.training.losses import Bones
from refiner.training.trainer import Trainer, TrainingConfig, TrainingData, initialise
from tests.invented import leaning

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = RefinerConfig(width=16, layers=1, heads=2, feedforward=32, frequencies=4, dropout=0.1)
SHORT = TrainingConfig(
    epochs=3, batch_size=64, learning_rate=3e-3, ema=0.9, augmentation=augment.Augmentation(noise_m=0.005)
)


@pytest.fixture(scope="module")
def data(make_pairs):
    train, val = make_pairs(16, seed=1), make_pairs(4, seed=2, first=50)
    return TrainingData(train, SMALL), TrainingData(val, SMALL)


def new_trainer(data, training: TrainingConfig = SHORT, model: RefinerConfig = SMALL) -> Trainer:
    train, val = data
    return Trainer(initialise(model, training, train), training, train, val)


@pytest.mark.slow
def test_training_learns(make_pairs):
    train, val, test = make_pairs(60, seed=1), make_pairs(6, seed=2, first=100), make_pairs(8, seed=3, first=200)
    training = dataclasses.replace(SHORT, epochs=8)
    trainer = new_trainer((TrainingData(train, SMALL), TrainingData(val, SMALL)), training)
    losses = [figures["train/loss"] for figures in trainer.epochs()]
    assert losses[-1] < 0.9 * losses[0]
    refined = DepthRefiner.of(trainer.best_model()).predict_pairs(test).poses
    difference, _, high = metrics.depth_difference(refined, test.corrupted, test)
    assert difference < -0.3 and high < 0


def test_a_seeded_run_repeats_exactly(data):
    first, second = ([f["train/loss"] for f in new_trainer(data).epochs()] for _ in range(2))
    assert first == second


def test_training_starts_from_given_weights_and_goes_on_from_there(data):
    learnt = new_trainer(data)
    for _ in learnt.epochs():
        pass
    start = learnt.best_model()
    train, val = data
    another = dataclasses.replace(SHORT, epochs=1, learning_rate=1e-5, seed=9)
    trainer = Trainer(initialise(SMALL, another, train, start), another, train, val)
    inputs, _ = val.batch(torch.arange(8))
    assert torch.equal(trainer.model.eval()(inputs).poses, start(inputs).poses)
    assert trainer.run_epoch()["val/depth_cm"] == pytest.approx(learnt.best_error, rel=0.01)
    with pytest.raises(UserError, match="another network"):
        initialise(dataclasses.replace(SMALL, width=32), another, train, start)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_the_same_and_its_scale_is_kept(data, tmp_path, precision):
    training = dataclasses.replace(SHORT, precision=precision)
    trainer, exact = new_trainer(data, training), new_trainer(data)
    for ours, theirs in zip(trainer.epochs(), exact.epochs(), strict=True):
        # fp16's first steps overflow and are skipped, while its scale is sought
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-2)
        assert ours["train/loss"] != theirs["train/loss"]
    if precision == "fp16":
        trainer.scaler.update(1234.0)
        trainer.save(tmp_path)
        resumed = new_trainer(data, training)
        resumed.load(tmp_path)
        assert resumed.scaler.get_scale() == 1234.0


def test_another_seed_is_another_run(data):
    losses = [next(new_trainer(data, dataclasses.replace(SHORT, seed=seed)).epochs())["train/loss"] for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_a_run_that_was_cut_off_ends_as_the_undisturbed_one(data, tmp_path):
    undisturbed = new_trainer(data)
    expected = list(undisturbed.epochs())
    cut = new_trainer(data)
    cut.run_epoch()
    cut.save(tmp_path, {"run_id": "abc"})
    resumed = new_trainer(data, dataclasses.replace(SHORT))
    assert resumed.load(tmp_path) == {"run_id": "abc"}
    figures = list(resumed.epochs())
    for ours, theirs in zip(figures, expected[1:], strict=True):
        assert ours["train/loss"] == theirs["train/loss"] and ours["val/depth_cm"] == theirs["val/depth_cm"]
    for name, value in undisturbed.best.items():
        assert torch.equal(resumed.best[name], value)


def test_the_state_of_another_model_is_refused(data, tmp_path):
    new_trainer(data).save(tmp_path)
    other = dataclasses.replace(SMALL, layers=2)
    with pytest.raises(UserError, match="another model"):
        new_trainer(data, model=other).load(tmp_path)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may become longer than 20 kB, as on a full disk. Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_survives(data, tmp_path):
    trainer = new_trainer(data)
    trainer.save(tmp_path)
    trainer.run_epoch()
    with full_disk(), pytest.raises(UserError) as refused:
        trainer.save(tmp_path)
    assert "could not be written" in str(refused.value) and str(tmp_path) in str(refused.value)
    assert "the one before is kept" in str(refused.value) and "\n" not in str(refused.value)
    again = new_trainer(data)
    again.load(tmp_path)
    assert again.epoch == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.safetensors"]


def test_a_damaged_checkpoint_is_refused(data, tmp_path):
    new_trainer(data).save(tmp_path)
    whole = (tmp_path / "state.safetensors").read_bytes()
    (tmp_path / "state.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a complete training checkpoint"):
        new_trainer(data).load(tmp_path)


def test_every_epoch_sees_every_pair_once_in_an_order_of_its_own(data):
    count = len(data[0])
    epochs = [torch.cat([share.rows for share in data[0].steps(32, 7, epoch)]) for epoch in (0, 1)]
    for rows in epochs:
        assert sorted(rows.tolist()) == list(range(count))
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("world", [2, 3])
def test_workers_share_a_batch_and_learn_the_same_as_one(data, world):
    """The parts of a step, averaged as DDP does, give the gradient of the whole step; also where they are not equal."""
    config = dataclasses.replace(SMALL, dropout=0.0)
    plain = dataclasses.replace(SHORT, epochs=1, clip_norm=1e9)

    def learn(rank: int, world: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        trainer = new_trainer(data, plain, config)
        trainer.world = world
        kept: list[torch.Tensor] = []
        trainer.optimizer.step = lambda *a: kept.extend(p.grad.clone() for p in trainer.model.parameters())
        terms = trainer.step(next(trainer.train.steps(plain.batch_size, 0, 0, rank, world)), 0)
        return kept, terms

    (whole, terms), parts = learn(0, 1), [learn(rank, world) for rank in range(world)]
    assert len(whole) > 10
    for one, *theirs in zip(whole, *(gradients for gradients, _ in parts), strict=True):
        torch.testing.assert_close(one, sum(theirs) / world, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(terms, sum(t for _, t in parts), atol=1e-4, rtol=1e-4)


def test_training_stops_when_nothing_gets_better_or_the_time_is_up(data):
    stuck = new_trainer(data, dataclasses.replace(SHORT, epochs=50, patience=2))
    stuck._validate = lambda: 1.0
    assert len(list(stuck.epochs())) == 3
    hurried = new_trainer(data, dataclasses.replace(SHORT, epochs=50, max_seconds=1e-6))
    assert len(list(hurried.epochs())) == 1


def test_the_confidence_is_calibrated_on_the_validation_pairs(data, make_pairs):
    trainer = new_trainer(data)
    for _ in trainer.epochs():
        pass
    pairs = make_pairs(4, seed=2, first=50)
    answer = DepthRefiner.of(trainer.best_model()).predict_pairs(pairs)
    within = metrics.depth_error(answer.poses, pairs.ground_truth) < 0.05
    assert abs(answer.confidence.mean() - within.mean()) < 0.02
    assert calibration_error(answer.confidence, within) < 0.05


def test_the_trained_model_survives_being_saved(data, tmp_path):
    trainer = new_trainer(data)
    trainer.run_epoch()
    model = trainer.best_model()
    again = load_checkpoint(save_checkpoint(model, tmp_path))
    inputs, _ = data[1].batch(torch.arange(8))
    assert torch.equal(model(inputs).poses, again(inputs).poses)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"batch_size": 100_000}, "fewer than a batch")],
)
def test_a_batch_that_cannot_be_is_refused(data, change, says):
    with pytest.raises(UserError, match=says):
        new_trainer(data, dataclasses.replace(SHORT, **change))
    with pytest.raises(UserError, match="at least 1"):
        TrainingConfig(epochs=0)


def test_mirroring_twice_is_nothing_and_the_truth_is_mirrored_with_the_input(data):
    inputs, truth = data[0].batch(torch.arange(8))
    options = augment.Augmentation(mirror=1.0, noise_m=0.0, blind=0.0)
    draws = augment.draw(8, options, torch.Generator().manual_seed(0))
    once = augment.apply(draws, inputs, truth, SMALL)
    assert not torch.equal(once[1], truth)
    # depth does not change in a mirror, sides do
    torch.testing.assert_close(once[1][:, 5, 2], truth[:, 6, 2])
    torch.testing.assert_close(once[0].poses[:, 5, 2], inputs.poses[:, 6, 2])
    twice = augment.apply(draws, *once, SMALL)
    for ours, theirs in zip((*twice[0], twice[1]), (*inputs, truth), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)  # of pairs that do not know the camera's pitch


def test_what_the_pitch_changes_is_learnt_alone_and_all_else_stays(make_pairs):
    pairs = make_pairs(6, frames=20)
    told = leaning(dataclasses.replace(pairs, corrupted=pairs.ground_truth))
    network = RefinerConfig(encoder="whole_pose", width=64, layers=1)
    start = initialise(network, TrainingConfig(), TrainingData(told, network))
    torch.nn.init.normal_(start.encoder.correction[-1].weight, std=0.1)
    config = dataclasses.replace(network, camera_pitch=True)
    training = TrainingConfig(epochs=12, batch_size=64, learning_rate=0.02, ema=0.9, only_pitch=True)
    data = TrainingData(told, config)
    trainer = Trainer(initialise(config, training, data, start), training, data, data)
    before = trainer._validate()
    for _ in trainer.epochs():
        pass
    assert trainer.best_error < 0.8 * before
    learnt, known = trainer.best_model(), DepthRefiner.of(start)
    np.testing.assert_array_equal(
        DepthRefiner.of(learnt).predict_pairs(told).poses, known.predict_pairs(told).poses
    )  # who says nothing of the pitch
    with pytest.raises(UserError, match="start from"):
        initialise(config, training, data)
    silent = TrainingData(dataclasses.replace(told, pitch=None), config)
    with pytest.raises(UserError, match=r"no pair .* knows it"):
        Trainer(learnt, training, silent, silent)


def test_some_pairs_lose_the_camera_pitch_and_keep_all_else(make_pairs):
    config = dataclasses.replace(SMALL, camera_pitch=True)
    pairs = make_pairs(10, frames=20)
    pairs = dataclasses.replace(pairs, pitch=np.linspace(-20, 30, len(pairs), dtype=np.float32))
    inputs, truth = TrainingData(pairs, config).batch(torch.arange(len(pairs)))
    np.testing.assert_array_equal(inputs.pitch, pairs.pitch)
    options = augment.Augmentation(mirror=0.0, noise_m=0.0, blind=0.0, pitchless=0.3)
    draws = augment.draw(len(pairs), options, torch.Generator().manual_seed(0))
    seen, _ = augment.apply(draws, inputs, truth, config)
    lost = seen.pitch.isnan()
    assert 0.2 < lost.float().mean() < 0.4 and torch.equal(lost, draws.pitchless)
    assert torch.equal(seen.pitch[~lost], inputs.pitch[~lost]) and torch.equal(seen.poses, inputs.poses)


def test_where_image_points_are_unknown_training_sees_what_a_caller_without_them_gets(make_pairs):
    config = dataclasses.replace(SMALL, image_points=True)
    pairs = make_pairs(1)
    pairs = dataclasses.replace(pairs, image_points=pairs.image_points * 0.9)  # a lens sees another picture
    inputs, truth = TrainingData(pairs, config).batch(torch.arange(8))
    options = augment.Augmentation(mirror=0.0, noise_m=0.0, blind=0.0, pointless=1.0)
    seen, _ = augment.apply(augment.draw(8, options, torch.Generator().manual_seed(0)), inputs, truth, config)
    unknown = dataclasses.replace(pairs, image_points=np.full_like(pairs.image_points, np.nan))
    served, _ = TrainingData(unknown, config).batch(torch.arange(8))
    assert not torch.allclose(seen.image_points, inputs.image_points, atol=0.01)
    torch.testing.assert_close(seen.image_points, served.image_points)


def test_no_loss_is_infinite_where_joints_coincide(data):
    from refiner.model.network import Outputs
    from refiner.training import losses

    poses = torch.zeros(2, 17, 3, requires_grad=True)
    terms = losses.terms(Outputs(poses, torch.zeros(2, 17)), torch.zeros(2, 17, 3), "xyz", Bones.on("cpu"))
    losses.total(terms, losses.LossWeights()).backward()
    assert poses.grad is not None and poses.grad.isfinite().all() and math.isfinite(terms["bone"].detach())
