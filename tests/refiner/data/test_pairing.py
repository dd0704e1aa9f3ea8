"""Frames meet the truth of their own time, in the virtual camera; what cannot be paired is counted, never invented."""

from pathlib import Path

import numpy as np
import pytest

from refiner import UserError
from refiner.data import aistpp, pairing, records
from refiner.geometry import Camera, azimuth, rotation_matrix, to_virtual_camera
from refiner.skeleton import FROM_MEDIAPIPE, INDEX, MIRROR, hips_midpoint

SEQUENCES = ("gBR_sBM_cAll_d04_mBR0_ch03", "gPO_sBM_cAll_d10_mPO1_ch02", "gLO_sFM_cAll_d13_mLO2_ch09")
FRAMES = 120
# Metres, y up, standing at the origin and facing +z.
STANDING = {
    "nose": (0, 1.6, 0.1), "left_eye": (0.03, 1.63, 0.08), "right_eye": (-0.03, 1.63, 0.08),
    "left_ear": (0.07, 1.6, 0), "right_ear": (-0.07, 1.6, 0),
    "left_shoulder": (0.18, 1.4, 0), "right_shoulder": (-0.18, 1.4, 0),
    "left_elbow": (0.3, 1.15, 0), "right_elbow": (-0.3, 1.15, 0),
    "left_wrist": (0.35, 0.95, 0.1), "right_wrist": (-0.35, 0.95, 0.1),
    "left_hip": (0.1, 0.95, 0), "right_hip": (-0.1, 0.95, 0), "left_knee": (0.1, 0.5, 0.05), "right_knee": (-0.1, 0.5, 0.05),
    "left_ankle": (0.1, 0.08, 0), "right_ankle": (-0.1, 0.08, 0),
}  # fmt: skip


def camera(number: int) -> Camera:
    """c01 in front, every 45° further round, 1.6 m up, looking past the dancer so that the virtual camera matters."""
    turn = rotation_matrix(np.array([0, np.radians(45 * (number - 1)), 0]))
    rotation = np.diag([1.0, -1, -1]) @ turn  # OpenCV's axes: y down, looking along -z of the world
    translation = -rotation @ turn.T @ np.array([0.8, 1.6, 5.0])
    matrix = np.array([[1600.0, 0, 960], [0, 1600, 540], [0, 0, 1]])
    return Camera(f"c{number:02d}", (1920, 1080), matrix, np.zeros(5), rotation, translation)


def motion(frames: int) -> np.ndarray:
    """(frames, 17, 3) metres: a dancer who walks sideways and turns slowly."""
    body = np.array([STANDING[name] for name in INDEX])
    t = np.arange(frames) / aistpp.FPS
    turned = np.einsum("fij,kj->fki", rotation_matrix(np.outer(0.7 * t, [0, 1, 0])), body)
    return turned + np.stack([0.2 * t, 0 * t, 0.1 * t], axis=-1)[:, None]


@pytest.fixture
def dataset(tmp_path) -> aistpp.Dataset:
    annotations = tmp_path / "annotations"
    (annotations / "cameras").mkdir(parents=True)
    (annotations / "splits").mkdir()
    (annotations / "cameras/setting1.json").write_text(aistpp.write_cameras([camera(i) for i in range(1, 10)]))
    (annotations / "cameras/mapping.txt").write_text("".join(f"{s} setting1\n" for s in SEQUENCES))
    for sequence, split in zip(SEQUENCES, aistpp.SPLITS, strict=True):
        (annotations / f"splits/pose_{split}.txt").write_text(sequence + "\n")
        truth = motion(FRAMES) / aistpp.METRES_PER_UNIT
        aistpp.write_pickle(annotations / f"keypoints3d/{sequence}.pkl", {"keypoints3d_optim": truth})
    return aistpp.Dataset(tmp_path)


def observed(number: int, *, frames=FRAMES, fps=60.0, size=(1920, 1080), noise=0.0) -> dict[str, np.ndarray]:
    """What a perfect MediaPipe (plus `noise` metres of depth) sees of the motion through a camera."""
    seen_by = camera(number)
    truth = motion(4 * FRAMES)[np.rint(np.arange(frames) * 60 / fps).astype(int)]
    world, image = np.zeros((frames, 33, 3), np.float32), np.zeros((frames, 33, 2), np.float32)
    world[:, FROM_MEDIAPIPE] = (
        to_virtual_camera(seen_by.to_camera(truth)) + (0, 0, noise) * (np.arange(17) != 0)[:, None]
    )
    image[:, FROM_MEDIAPIPE] = seen_by.project(truth) * np.array(size) / (1920, 1080)
    return {
        "frame": np.arange(frames, dtype=np.int32),
        "timestamp_us": np.rint(np.arange(frames) * 1e6 / fps).astype(np.int64),
        "detected": np.ones(frames, bool),
        "world": world,
        "image": image,
        "visibility": np.full((frames, 33), 0.9, np.float32),
        "size": np.array(size),
    }


def pair(observations, dataset, number=1, sequence=SEQUENCES[0]) -> pairing.Paired:
    name = aistpp.Name.parse(sequence).with_camera(f"c{number:02d}")
    return pairing.pair_video(observations, name, dataset.keypoints3d(sequence), dataset.cameras(sequence)[name.camera])


@pytest.mark.parametrize("number", range(1, 10))
def test_a_perfect_observation_meets_its_truth_in_every_camera(dataset, number):
    paired = pair(observed(number), dataset, number)
    pairs = paired.pairs
    assert len(pairs) == paired.frames == FRAMES and not paired.left_out
    assert np.abs(pairs.corrupted - pairs.ground_truth).max() < 1e-5
    assert np.abs(hips_midpoint(pairs.ground_truth)).max() < 1e-6
    assert np.abs(pairs.image_points).max() <= 1 + 1e-6
    assert set(pairs.camera) == {f"c{number:02d}"} and set(pairs.sequence) == {SEQUENCES[0]}
    assert (np.abs(pairs.pitch) < 30).all() and len(np.unique(pairs.pitch)) > 1


def test_angles_are_those_of_the_observation_not_of_the_truth(dataset):
    seen = observed(1)
    seen["world"] = seen["world"] @ rotation_matrix(np.array([0, np.radians(20), 0])).T  # seen as if turned
    pairs = pair(seen, dataset).pairs
    assert np.allclose(pairs.azimuth, azimuth(pairs.corrupted), atol=1e-4)
    turned = (pairs.azimuth - azimuth(pairs.ground_truth) + 180) % 360 - 180
    assert np.allclose(np.abs(turned), 20, atol=0.01)
    assert ((pairs.view_angle >= 0) & (pairs.view_angle <= 90)).all()


@pytest.mark.parametrize("fps", [60, 59.94, 30, 25])
def test_frames_are_matched_by_time_whatever_the_frame_rate(dataset, fps):
    frames = int(FRAMES * fps / 60)
    pairs = pair(observed(1, frames=frames, fps=fps), dataset).pairs
    assert len(pairs) == frames and np.abs(pairs.corrupted - pairs.ground_truth).max() < 1e-5


def test_a_body_turned_against_its_truth_counts_in_clips_long_enough_to_judge_by(dataset):
    def seen_as_if_turned(frames: int) -> dict[str, np.ndarray]:
        seen = observed(1, frames=frames)
        seen["world"] = seen["world"] @ rotation_matrix(np.array([0, np.radians(45), 0])).T
        return seen

    judged = int(pairing.TURN_JUDGED_S * aistpp.FPS)
    with pytest.raises(UserError, match="turned by 45° against"):
        pair(seen_as_if_turned(judged + 2), dataset)
    assert len(pair(seen_as_if_turned(judged - 2), dataset).pairs) == judged - 2


def test_a_back_taken_for_a_front_is_mediapipes_own_error_in_clips_too_short_to_judge_by(dataset):
    name = aistpp.Name.parse(SEQUENCES[0]).with_camera("c01")
    truth = motion(FRAMES) * (4, 1, 1)  # arms and legs spread wide

    def pair_exchanged(frames: int) -> pairing.Paired:
        seen = observed(1, frames=frames)
        seen["image"][:, FROM_MEDIAPIPE] = camera(1).project(truth[:frames])[:, MIRROR]
        return pairing.pair_video(seen, name, truth, camera(1))

    judged = int(pairing.TURN_JUDGED_S * aistpp.FPS)
    assert len(pair_exchanged(judged - 2).pairs) == judged - 2
    with pytest.raises(UserError, match="body heights away"):
        pair_exchanged(judged + 2)


def test_what_cannot_be_paired_is_counted_under_its_reason(dataset):
    seen = observed(1, frames=FRAMES + 4)  # four frames longer than its annotation
    seen["detected"][10:13] = False
    seen["world"][10:13] = seen["image"][10:13] = 0
    truth = dataset.keypoints3d(SEQUENCES[0])
    truth[50:52, 3] = np.nan
    name = aistpp.Name.parse(SEQUENCES[0]).with_camera("c01")
    paired = pairing.pair_video(seen, name, truth, dataset.cameras(SEQUENCES[0])["c01"])
    assert paired.left_out == {
        pairing.NO_ANNOTATION_AT_THAT_TIME: 4, pairing.NOBODY_DETECTED: 3, pairing.TRUTH_HAS_GAPS: 2,
    }  # fmt: skip
    assert len(paired.pairs) + paired.left_out.total() == paired.frames == FRAMES + 4
    assert not set(paired.pairs.frame) & {10, 11, 12, 50, 51, *range(FRAMES, FRAMES + 4)}
    assert np.abs(paired.pairs.corrupted - paired.pairs.ground_truth).max() < 1e-5


def test_a_video_that_does_not_belong_to_its_annotation_is_refused(dataset):
    with pytest.raises(UserError, match="turned by 45°"):
        pair(observed(2), dataset, 1)  # filmed by another camera than its name says
    elsewhere = observed(1)
    elsewhere["image"] += 300
    with pytest.raises(UserError, match="body heights away"):
        pair(elsewhere, dataset)
    with pytest.raises(UserError, match="re-timed"):
        pair(observed(1, frames=2 * FRAMES), dataset)
    with pytest.raises(UserError, match="is 640 × 480, but its camera is calibrated for 1920 × 1080"):
        pair(observed(1, size=(640, 480)), dataset)
    assert len(pair(observed(1, size=(1280, 720)), dataset).pairs) == FRAMES  # another scale is no other shape


def write(seen: dict[str, np.ndarray], video: str, folder: Path) -> tuple[str, str]:
    rows, path = len(seen["frame"]), folder / f"{video}.parquet"
    columns = {k: v for k, v in seen.items() if k != "size"} | {
        "video": [video] * rows, "sequence": [""] * rows, "camera": [""] * rows, "presence": seen["visibility"],
    }  # fmt: skip
    records.write_atomically(records.table(records.OBSERVATIONS, columns), path, {"size": seen["size"].tolist()})
    return video, str(path)


def test_a_sequence_is_paired_over_its_cameras_and_bad_videos_cost_themselves_alone(dataset, tmp_path):
    names = [SEQUENCES[0].replace("cAll", c) for c in ("c01", "c02", "c03", "c04")]
    videos = [write(observed(i + 1), name, tmp_path / "observations") for i, name in enumerate(names)]
    Path(videos[1][1]).write_bytes(b"PAR1 and no more")
    write(observed(7), names[3], tmp_path / "observations")
    paired, problems = pairing.pair_sequence(dataset, videos)
    assert list(dict.fromkeys(paired.pairs.camera)) == ["c01", "c03"] and len(paired.pairs) == 2 * FRAMES
    assert set(problems) == {names[1], names[3]}
    assert "not a complete Parquet file" in problems[names[1]] and "turned by" in problems[names[3]]


def test_ignored_unmapped_and_unannotated_sequences_say_so(dataset, tmp_path):
    name = SEQUENCES[0].replace("cAll", "c01")
    videos = [write(observed(1), name, tmp_path)]

    def reason() -> str:
        paired, problems = pairing.pair_sequence(aistpp.Dataset(dataset.root), videos)
        assert paired.pairs is None
        return problems[name]

    (dataset.annotations / "ignore_list.txt").write_text(SEQUENCES[0])
    assert "ignore list" in reason()
    (dataset.annotations / "ignore_list.txt").unlink()
    (dataset.annotations / "cameras/mapping.txt").write_text("")
    assert "not in" in reason() and "mapping.txt" in reason()
    (dataset.annotations / f"keypoints3d/{SEQUENCES[0]}.pkl").unlink()
    assert "is missing: fetch it" in reason()


def test_a_leaking_official_split_is_refused(dataset):
    assert pairing.official_splits(dataset) == dict(zip(SEQUENCES, aistpp.SPLITS, strict=True))
    (dataset.annotations / "splits/pose_test.txt").write_text(f"{SEQUENCES[2]}\n{SEQUENCES[0]}\n")
    with pytest.raises(UserError, match=r"is in pose_train\.txt and in pose_test\.txt"):
        pairing.official_splits(dataset)


def check_disjoint(sequences, splits) -> None:
    assert set(splits) == set(sequences) and set(splits.values()) == set(aistpp.SPLITS)
    for part in ("dancer", "dance"):
        where = {}
        for sequence, split in splits.items():
            where.setdefault(getattr(aistpp.Name.parse(sequence), part), set()).add(split)
        assert all(len(s) == 1 for s in where.values()), part


def test_the_disjoint_split_shares_no_dancer_and_no_choreography():
    sequences = [
        f"gBR_sBM_cAll_d{dancer:02d}_mBR{music}_ch{dancer // 2:02d}" for dancer in range(40) for music in (0, 1)
    ]
    splits = pairing.disjoint_splits(sequences)
    check_disjoint(sequences, splits)
    share = {split: list(splits.values()).count(split) / len(sequences) for split in aistpp.SPLITS}
    assert 0.1 <= share["val"] <= 0.2 and 0.1 <= share["test"] <= 0.2
    assert pairing.disjoint_splits(sequences[::-1]) == splits
    with pytest.raises(UserError, match="three splits need at least three"):
        pairing.disjoint_splits([f"gBR_sBM_cAll_d01_mBR0_ch{i:02d}" for i in range(9)])


def test_real_aistpp_splits_disjointly(aistpp):
    from refiner.data.aistpp import Dataset

    sequences = list(Dataset(aistpp).mapping)
    check_disjoint(sequences, pairing.disjoint_splits(sequences))


def test_of_several_people_the_one_whom_the_annotation_describes_is_paired():
    """Somebody else stands at the edge, in more frames than the dancer is seen."""
    name = aistpp.Name.parse("gBR_sBM_c01_d04_mBR0_ch03")
    dancer = observed(1)
    other = {key: value.copy() for key, value in dancer.items()}
    other["image"] += 700
    dancer["detected"][:20] = False
    alone = pairing.pair_video(dancer, name, motion(FRAMES), camera(1))
    for people in ([other, dancer], [dancer, other]):
        paired = pairing.pair_people(people, name, motion(FRAMES), camera(1))
        assert len(paired.pairs) == FRAMES - 20
        assert np.array_equal(paired.pairs.corrupted, alone.pairs.corrupted)
    with pytest.raises(UserError, match="another person in view"):
        pairing.pair_people([other], name, motion(FRAMES), camera(1))
