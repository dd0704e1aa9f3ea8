"""Training, evaluation and batch refinement as jobs, on the session's Ray and MLflow."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rayjobs import evaluate, refine, train
from refiner import DepthRefiner, UserError, registry
from refiner.command import parse
from refiner.data import records
from refiner.model.config import RefinerConfig
from refiner.skeleton import FROM_MEDIAPIPE
from refiner.training.trainer import Trainer, TrainingConfig, TrainingData, initialise
from tests.disks import small_disk
from tests.invented import leaning, write_splits
from tests.waiting import wait_for

pytestmark = pytest.mark.cluster

# without dropout, which differs between workers, any number of them must learn the same
MODEL = RefinerConfig(encoder="whole_pose", width=64, layers=1)
TRAINING = TrainingConfig(epochs=15, batch_size=64, patience=15, learning_rate=3e-3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_splits(tmp_path_factory.mktemp("pairs"), {"train": 40, "val": 5, "test": 8})


@pytest.fixture(scope="module")
def trained(cluster, pairs, tmp_path_factory) -> train.Summary:
    """A run of two workers, of which one is killed in the middle."""
    storage = tmp_path_factory.mktemp("storage")
    killed: list[int] = []
    ended = threading.Event()
    killer = threading.Thread(target=kill_a_worker, args=(storage, killed, ended), daemon=True)
    killer.start()
    options = train.Options(pairs=str(pairs), model=MODEL, training=TRAINING, storage=str(storage), workers=2)
    summary = train.run(options)
    ended.set()
    killer.join()
    assert killed, "training ended before a worker could be killed"
    return summary


def kill_a_worker(storage: Path, killed: list[int], ended: threading.Event) -> None:
    """Kills one of the training workers as soon as there is a checkpoint, unless training has ended."""
    from ray.util.state import list_actors

    def alive() -> list[int]:
        actors = list_actors(limit=1000)
        return [a.pid for a in actors if a.class_name == "RayTrainWorker" and a.state == "ALIVE"]

    workers = wait_for(lambda: ended.is_set() or (len(pids := alive()) == 2 and pids))
    wait_for(lambda: ended.is_set() or list(storage.glob("*/checkpoint_*")), pause_s=0.02)
    if not ended.is_set():
        os.kill(workers[0], signal.SIGKILL)
        killed.append(workers[0])


def test_a_killed_worker_costs_nothing_and_any_number_of_workers_learns_the_same(trained, pairs):
    torch.set_num_threads(1)  # as each worker has; the network is tiny
    train_data, val_data = (TrainingData(records.read_pairs(pairs, split), MODEL) for split in ("train", "val"))
    undisturbed = Trainer(initialise(MODEL, TRAINING, train_data), TRAINING, train_data, val_data)
    expected = list(undisturbed.epochs())
    assert [h["epoch"] for h in trained.history] == list(range(TRAINING.epochs))
    for key in ("train/loss", "val/depth_cm"):
        np.testing.assert_allclose([h[key] for h in trained.history], [e[key] for e in expected], rtol=2e-3)


def test_the_run_is_in_mlflow_once_with_every_epoch(trained):
    from mlflow import MlflowClient

    client = MlflowClient(registry.tracking_uri())
    run = client.get_run(trained.run_id)
    assert run.info.status == "FINISHED" and run.data.params["training.epochs"] == "15"
    assert registry.find_run(train.RESUME_TAG, trained.name) == trained.run_id
    steps = {m.step for m in client.get_metric_history(trained.run_id, "val/depth_cm")}
    assert steps == set(range(TRAINING.epochs))
    assert [f.path for f in client.list_artifacts(trained.run_id) if f.path.endswith("loss.png")]


def test_the_registered_model_refines(trained, pairs):
    assert registry.get_alias(registry.NAME, "candidate") == trained.version
    assert trained.val_depth_cm < 0.8 * trained.val_mediapipe_depth_cm
    refiner = DepthRefiner(f"models:/{registry.NAME}/{trained.version}")
    val = records.read_pairs(pairs, "val")
    error = np.abs(refiner.predict_pairs(val).poses - val.ground_truth)[..., 2].mean() * 100
    assert error == pytest.approx(trained.val_depth_cm, rel=0.02)


def test_a_winner_is_promoted_and_a_tie_is_not(trained, pairs, tmp_path):
    registry.set_alias(registry.NAME, "candidate", trained.version)
    before = registry.get_alias(registry.NAME, "champion")
    first = evaluate.run(evaluate.Options(pairs=str(pairs), out=str(tmp_path)))
    assert first.promoted and registry.get_alias(registry.NAME, "champion") == trained.version == first.model["version"]
    assert first.refined["depth_cm"] < first.mediapipe["depth_cm"] and set(first.baselines) >= {"zero", "bias", "ridge"}
    assert {"evaluation.md", "evaluation.json", "depth_by_view_angle.png", "reliability.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    again = evaluate.run(evaluate.Options(pairs=str(pairs)))
    assert not again.promoted and "already" in again.verdict
    # the same weights under another number: no difference, no promotion
    twin = registry.register(
        registry.download(f"models:/{registry.NAME}/{trained.version}").path, trained.run_id,
        example=(np.zeros((1, 17, 3), np.float32), np.ones((1, 17), np.float32)), metrics={}, tags={},
    )  # fmt: skip
    tie = evaluate.run(evaluate.Options(pairs=str(pairs)))
    assert tie.candidate["version"] == twin and not tie.promoted and tie.model["version"] == trained.version
    if before is not None:
        registry.set_alias(registry.NAME, "champion", before)


def test_another_name_has_a_champion_of_its_own(trained, pairs):
    ours = registry.get_alias(registry.NAME, "champion"), registry.get_alias(registry.NAME, "candidate")
    registry.register(
        registry.download(f"models:/{registry.NAME}/{trained.version}").path, trained.run_id, name="other",
        example=(np.zeros((1, 17, 3), np.float32), np.ones((1, 17), np.float32)), metrics={}, tags={},
    )  # fmt: skip
    options = evaluate.Options(pairs=str(pairs), model="models:/other@candidate")
    first = evaluate.run(options)
    assert first.promoted and first.model == {"name": "other", "version": "1"}
    assert registry.get_alias("other", "champion") == "1"
    assert "already" in evaluate.run(options).verdict
    assert ours == (registry.get_alias(registry.NAME, "champion"), registry.get_alias(registry.NAME, "candidate"))
    assert refine.resolve("models:/other@champion") == (
        "models:/other/1",
        {"name": "other", "version": "1", "run_id": trained.run_id},
    )


def test_a_model_that_is_no_better_than_mediapipe_never_becomes_champion(cluster, pairs, register_model):
    bad = register_model(seed=5, scale=1.0)
    verdict = evaluate.run(evaluate.Options(pairs=str(pairs), model=f"models:/{registry.NAME}/{bad}"))
    assert not verdict.promoted and registry.get_alias(registry.NAME, "champion") != bad


def test_the_command_teaches_the_box_the_pitch_and_leaves_all_else(cluster, tmp_path, make_pairs):
    for number, (split, count) in enumerate({"train": 8, "val": 2}.items()):
        told = leaning(make_pairs(count, frames=12, seed=number, first=10 * number))
        records.write_atomically(told.to_table(), tmp_path / f"split={split}" / "all.parquet", {})
    command = (
        f"--pairs {tmp_path} --storage {tmp_path}/runs --start box --only-pitch --epochs 2 --batch-size 64 --workers 2"
    )
    options = parse(train.Options, command.split())
    version = train.run(replace(options, model_name="pitched")).version
    learnt = DepthRefiner(f"models:/pitched/{version}", device="cpu")
    box, val = DepthRefiner(device="cpu"), records.read_pairs(tmp_path, "val")
    np.testing.assert_array_equal(learnt.predict_pairs(val).poses, box.predict_pairs(val).poses)
    ours, theirs = (model.predict_pairs(val, camera_pitch=True).poses for model in (learnt, box))
    assert (ours != theirs).any()


def test_observations_are_refined_video_by_video_and_once_only(trained, tmp_path, make_pairs):
    seen = make_pairs(1, frames=12, cameras=2)
    for camera, start in zip(("c01", "c02"), seen.clip_starts(), strict=True):
        clip = seen.take(slice(start, start + 12))
        world = np.zeros((12, 33, 3), np.float32)
        world[:, FROM_MEDIAPIPE] = clip.corrupted
        columns = {
            "video": [f"video_{camera}"] * 12, "sequence": list(clip.sequence), "camera": list(clip.camera),
            "frame": clip.frame, "timestamp_us": clip.timestamp_us, "detected": np.arange(12) != 4, "world": world,
            "image": world[..., :2], "visibility": np.ones((12, 33)), "presence": np.ones((12, 33)),
        }  # fmt: skip
        records.write_atomically(
            records.table(records.OBSERVATIONS, columns), tmp_path / f"seen/video_{camera}.parquet", {}
        )
    (tmp_path / "seen/broken.parquet").write_bytes(b"PAR1 and no more")
    model = f"models:/{registry.NAME}/{trained.version}"
    options = refine.Options(observations=str(tmp_path / "seen"), out=str(tmp_path / "out"), model=model, workers=1)
    summary = refine.run(options)
    assert (summary.refined, summary.poses, len(summary.failures)) == (2, 22, 1)
    table = records.read_table(tmp_path / "out/video_c01.parquet", records.REFINED)
    frames = np.delete(np.arange(12), 4)
    assert records.column(table, "frame").tolist() == frames.tolist()
    clip = seen.take(frames)
    expected = DepthRefiner(options.model).predict(clip.corrupted, sequence=True, timestamps_us=clip.timestamp_us)
    np.testing.assert_allclose(records.column(table, "pose"), expected.poses, atol=1e-5)
    (tmp_path / "seen/broken.parquet").unlink()
    assert refine.run(options).done_before == 2


@pytest.fixture
def full_soon(tmp_path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "4m") as place:
        yield place


def test_a_full_disk_is_one_sentence_and_the_same_name_goes_on_once_there_is_room(cluster, pairs, full_soon):
    def fill() -> None:
        wait_for(lambda: list(full_soon.glob("*/checkpoint_*/state.json")), pause_s=0.02)
        with (full_soon / "junk").open("wb", buffering=0) as junk, suppress(OSError):
            while True:
                junk.write(bytes(4096))

    training = replace(TRAINING, epochs=24, patience=24)
    options = train.Options(
        pairs=str(pairs),
        model=MODEL,
        training=training,
        storage=str(full_soon),
        name="full",
        workers=2,
        max_failures=0,
    )
    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    with pytest.raises(UserError, match=r"could not be written.*No space left") as refused:
        train.run(options)
    assert "\n" not in str(refused.value)
    filler.join()
    (full_soon / "junk").unlink()
    # and with one worker or two, as there is room for
    summary = train.run(replace(options, min_workers=1))
    assert [h["epoch"] for h in summary.history] == list(range(training.epochs))
    assert registry.find_run(train.RESUME_TAG, "full") == summary.run_id


def test_what_cannot_be_trained_on_is_refused_before_a_worker_starts(tmp_path):
    with pytest.raises(UserError, match="no pairs of the split 'train'"):
        train.run(train.Options(pairs=str(tmp_path)))
    with pytest.raises(UserError, match="dropout 1 is not a share"):
        train.run(train.Options(pairs=str(tmp_path), dropout=1.0))
    with pytest.raises(UserError, match="no observations"):
        refine.run(refine.Options(observations=str(tmp_path), out=str(tmp_path)))
