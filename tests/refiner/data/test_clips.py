"""Clips end where scenes end, and nothing of one gets into the other."""

import dataclasses

import numpy as np
import pyarrow as pa

from refiner import DepthRefiner
from refiner.data import clips, records, video
from refiner.data.aistpp import Dataset
from refiner.data.cuts import CutFinder
from refiner.skeleton import FROM_MEDIAPIPE, root_centred

FPS = 30


def dancing(make_pairs, **options):
    return make_pairs(1, frames=40, cameras=1, **options).corrupted


def room(rng: np.random.Generator) -> np.ndarray:
    """A still scene of large patches, (96, 160, 3) uint8."""
    return np.kron(rng.integers(0, 255, (6, 10, 3)), np.ones((16, 16, 1))).astype(np.uint8)


def begun(path, scenes: list[np.ndarray]) -> list[int]:
    with video.VideoWriter(path, (160, 96), 30) as writer:
        for scene in scenes:
            writer.write(scene)
    cuts = CutFinder()
    return [frame.index for frame in video.frames(path) if cuts.begins(frame)]


def test_cuts_are_found_in_the_picture_and_motion_flashes_and_fades_are_none(tmp_path, rng):
    first, second = room(rng), room(rng)
    assert begun(tmp_path / "cut.mp4", [first] * 12 + [second] * 9 + [first] * 5) == [12, 21]
    flash = np.clip(first.astype(int) + 90, 0, 255).astype(np.uint8)
    assert begun(tmp_path / "flash.mp4", [first] * 9 + [flash] * 2 + [first] * 9) == []
    pan = [np.roll(first, 3 * i, axis=1) for i in range(40)]
    assert begun(tmp_path / "pan.mp4", pan) == []
    fade = [((1 - a) * first + a * second).astype(np.uint8) for a in np.linspace(0, 1, 30)]
    assert begun(tmp_path / "fade.mp4", fade) == []


def test_real_dance_has_no_cuts_and_what_is_put_together_has(aistpp):
    data = Dataset(aistpp)
    for step in (1, 2, 4):  # 60, 30, 15 frames a second
        motions = [root_centred(data.keypoints3d(name)[::step].astype(np.float32)) for name in data.sequences]
        motions = [m[np.isfinite(m).all((1, 2))] for m in motions]
        for motion in motions:
            assert not clips.motion_cuts(motion, np.arange(len(motion)) * step / 60).any()
        joined = np.concatenate([motions[0][:100], motions[1][::-1][:100] * (-1, 1, -1)])
        assert np.flatnonzero(clips.motion_cuts(joined, np.arange(200) * step / 60)).tolist() == [100]


def test_one_frame_astray_is_no_cut(make_pairs):
    poses = dancing(make_pairs)
    seconds = np.arange(len(poses)) / FPS
    for astray in (0, 1, 20, 38, 39):
        strange = poses.copy()
        strange[astray] = poses[astray][..., [2, 1, 0]] + (0, 0, 0.4) * (np.arange(17) % 2)[:, None]
        cuts = np.flatnonzero(clips.motion_cuts(strange, seconds))
        assert set(cuts) <= {1} if astray == 0 else set(cuts) <= {39}
    assert not clips.motion_cuts(poses[:1], seconds[:1]).any() and not clips.motion_cuts(poses[:0], seconds[:0]).any()


def seen(make_pairs, frames: int = 40):
    """timestamp_us, detected, world, image of somebody in the middle of a picture."""
    world = make_pairs(1, frames=frames, cameras=1).corrupted
    image = world[..., :2] * 300 + (640, 360)
    return np.arange(frames) * 33_333, np.ones(frames, dtype=bool), world, image.astype(np.float32)


def test_gaps_jumps_to_others_and_cuts_end_clips(make_pairs):
    times, detected, world, image = seen(make_pairs)
    assert clips.clip_numbers(times, detected, world, image).tolist() == [0] * 40

    nobody = detected.copy()
    nobody[10:13] = False  # a tenth of a second: the same clip
    assert clips.clip_numbers(times, nobody, world, image).max() == 0
    nobody[10:22] = False
    numbers = clips.clip_numbers(times, nobody, world, image)
    assert numbers[nobody].tolist() == [0] * 10 + [1] * 18

    other = image.copy()
    other[25:] += (400, 0)  # the same pose, somewhere else
    assert clips.clip_numbers(times, detected, world, other).tolist() == [0] * 25 + [1] * 15

    late = times.copy()
    late[30:] += 700_000
    assert clips.clip_numbers(late, detected, world, image).tolist() == [0] * 30 + [1] * 10

    begins = np.zeros(40, dtype=bool)
    begins[[0, 7]] = True
    assert clips.clip_numbers(times, detected, world, image, begins).tolist() == [0] * 7 + [1] * 33
    # one cut is not counted twice
    assert clips.clip_numbers(late, detected, world, image, np.arange(40) == 30).max() == 1
    # slow videos are no row of clips
    assert clips.clip_numbers(times * 30, detected, world * 0.1, image).max() == 0


def test_what_is_refined_together_is_as_if_apart(make_pairs):
    a, b = dancing(make_pairs), dancing(make_pairs, seed=5) * (-1, 1, -1)
    refiner = DepthRefiner()
    together = refiner.predict(np.concatenate([a, b]), sequence=True, fps=FPS, clip=np.repeat([0, 1], 40))
    apart = [refiner.predict(poses, sequence=True, fps=FPS, clip=np.zeros(40, int)).poses for poses in (a, b)]
    np.testing.assert_allclose(together.poses, np.concatenate(apart), atol=1e-5)
    # without being told, by the motion
    np.testing.assert_array_equal(refiner.predict(np.concatenate([a, b]), sequence=True, fps=FPS).poses, together.poses)
    across = refiner.predict(np.concatenate([a, b]), sequence=True, fps=FPS, clip=np.zeros(80, int)).poses
    assert np.abs(across - together.poses)[38:42].max() > 0.02


def test_older_files_are_read_and_their_clips_are_found(make_pairs, tmp_path):
    times, detected, world, image = seen(make_pairs)
    landmarks = np.zeros((40, 33, 3), np.float32)
    points = np.zeros((40, 33, 2), np.float32)
    landmarks[:, FROM_MEDIAPIPE], points[:, FROM_MEDIAPIPE] = world, image
    points[25:, FROM_MEDIAPIPE] += (500, 0)
    columns = {n: ["x"] * 40 for n in ("video", "sequence", "camera")} | {
        "frame": np.arange(40), "timestamp_us": times, "detected": detected, "world": landmarks, "image": points,
        "visibility": np.ones((40, 33)), "presence": np.ones((40, 33)),
    }  # fmt: skip
    new = records.table(records.OBSERVATIONS, columns)
    old = new.drop_columns(["clip", "damaged"])
    path = tmp_path / "old.parquet"
    records.write_atomically(old, path, {})
    data = records.read_table(path, records.OBSERVATIONS)
    assert data.schema.field("damaged").type == pa.bool_() and not records.column(data, "damaged").any()
    assert clips.of_observations(data).tolist() == [0] * 25 + [1] * 15
    with_clips = records.table(records.OBSERVATIONS, columns | {"clip": np.repeat([0, 3], 20)})
    assert clips.of_observations(with_clips).tolist() == np.repeat([0, 3], 20).tolist()


def test_training_and_baselines_know_the_ends(make_pairs):
    pairs = make_pairs(2, frames=20, cameras=1)
    assert pairs.clip_starts().tolist() == [0, 20]
    numbers = np.arange(40, dtype=np.int32) // 30
    cut = records.Pairs.from_table(dataclasses.replace(pairs, clip=numbers).to_table())
    assert cut.clip_starts().tolist() == [0, 20, 30]
    assert cut.take(np.arange(25, 40)).clip_starts().tolist() == [0, 5]
