"""Short requests that come together are computed together, and each gets what it would have got alone."""

import asyncio
import dataclasses

import numpy as np
import pytest

from refiner import DepthRefiner, UserError
from refiner.inference.validation import plain, validate_poses
from serve.batching import Batcher
from serve.live import Served, standing_poses


@pytest.fixture(scope="module")
def served() -> Served:
    return Served(
        refiner=DepthRefiner(device="cpu"), model={"name": "m", "version": "1"}, run_id=None, tags={}, loaded_at=""
    )


def poses(count: int, seed: int) -> np.ndarray:
    return standing_poses(count) + np.random.default_rng(seed).normal(0, 0.02, (count, 17, 3)).astype(np.float32)


def together(batcher: Batcher, requests: list[tuple]) -> list:
    async def ask():
        return await asyncio.gather(*(batcher.predict(*request) for request in requests), return_exceptions=True)

    return asyncio.run(ask())


def test_requests_that_wait_are_one_batch_and_each_gets_its_own_answer(served):
    batches = []
    requests = [poses(1 + i % 3, i) for i in range(12)]
    answers = together(Batcher(64, batches.append), [(served, request) for request in requests])
    assert batches == [sum(len(request) for request in requests)]
    for request, answer in zip(requests, answers, strict=True):
        alone = served.refiner.predict(request)
        for field in (f for f in dataclasses.fields(alone) if getattr(alone, f.name) is not None):
            np.testing.assert_allclose(getattr(answer, field.name), getattr(alone, field.name), atol=2e-6)


def test_a_batch_has_a_limit_and_nobody_is_forgotten(served):
    batches = []
    answers = together(Batcher(8, batches.append), [(served, poses(3, i)) for i in range(7)])
    assert [len(answer.poses) for answer in answers] == [3] * 7
    assert batches == [6, 6, 6, 3]


def test_a_bad_request_is_refused_by_itself(served):
    nan = poses(1, 1)
    nan[0, 3, 2] = np.nan
    ok = poses(1, 0)
    # more visibilities than poses beside fewer: end to end they would fit
    long, short = (served, poses(1, 2), np.ones((2, 17))), (served, poses(2, 3), np.ones((1, 17)))
    points = (served, poses(2, 4), None, np.zeros((3, 17, 2)))
    answers = together(Batcher(64), [(served, ok), (served, nan), long, short, points, (served, ok)])
    np.testing.assert_allclose(answers[0].poses, served.refiner.predict(ok).poses, atol=2e-6)
    np.testing.assert_allclose(answers[5].poses, answers[0].poses, atol=2e-6)
    assert all(isinstance(error, UserError) for error in answers[1:5])


def test_versions_and_forms_do_not_mix(served):
    class Doubled:
        def predict(self, *args, **kwargs):
            refined = served.refiner.predict(*args, **kwargs)
            return dataclasses.replace(refined, poses=2 * refined.poses)

    other = dataclasses.replace(served, refiner=Doubled(), model={"name": "m", "version": "2"})
    one, seen = poses(1, 0), np.full((1, 17), 0.4, np.float32)
    mediapipe = np.zeros((1, 33, 3), np.float32)
    mediapipe[0, [11, 12, 23, 24], 1] = [-0.5, -0.5, 0.0, 0.0]
    mediapipe[0, [25, 26, 27, 28], 1] = [0.45, 0.45, 0.9, 0.9]
    batches = []
    answers = together(
        Batcher(64, batches.append),
        [(served, one), (other, one), (served, one, seen), (served, mediapipe), (other, one)],
    )
    for answer in (answers[1], answers[4]):
        np.testing.assert_allclose(answer.poses, 2 * answers[0].poses, atol=2e-6)
    assert np.abs(answers[2].confidence - answers[0].confidence).max() > 1e-3
    assert sorted(batches) == [1, 1, 1, 2]


def test_who_leaves_does_not_take_the_others_along(served):
    async def ask():
        batcher = Batcher(64)
        leaving, staying = (asyncio.ensure_future(batcher.predict(served, poses(1, i))) for i in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(ask()).poses.shape == (1, 17, 3)


def test_poses_that_pass_at_one_look_pass_alone_and_others_are_asked_about(rng, make_pairs):
    """Real bodies, and every kind of what is refused: `plain` may leave one out, but never lets one in."""
    pairs = make_pairs(2, frames=60, cameras=2)
    people = np.concatenate([pairs.corrupted, pairs.ground_truth]).astype(np.float32)
    kinds = [
        people, people * [1, -1, 1], people * [1, 1, 3.6], people * 1000, people * 0.01, people * 0.2, people + 0.5,
        people * 0.3 + [0.5, 0.5, 0],
        people + np.array([0, 0, 2000]), people * 1.6, people[:, ::-1],
        people[:, rng.permutation(17)],
        np.concatenate([people[:, :5], people[:, :5], people[:, :5], people[:, :2]], 1),
        people[:, :, [0, 2, 1]], rng.normal(size=people.shape), people * np.nan,
        np.where(rng.random(people.shape) < 0.01, np.inf, people),
    ]  # fmt: skip
    let_in = []
    for kind in kinds:
        poses = kind.astype(np.float32)
        let_in.append(float(plain(poses, None).mean()))
        for pose in poses[plain(poses, None)]:
            validate_poses(pose[None])
    assert let_in[0] > 0.6 and max(let_in[3:5]) == let_in[-2] == 0
    visibility = np.ones((3, 17), np.float32) * np.array([[1], [np.nan], [1.1]], np.float32)
    assert plain(people[:3], visibility)[1:].tolist() == [False, False]
    assert not plain(people[:3], visibility[:, :5]).any() and not plain(people[:3, :5], None).any()
