"""Several people: numbers survive crossings and absences, and one person costs nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from refiner import UserError, estimators
from refiner.data import records
from refiner.estimators.base import Observation, Sighting
from refiner.estimators.mediapipe_assets import model_path
from refiner.estimators.observe import observe
from refiner.estimators.people import PARTS, colours, told_apart
from refiner.skeleton import INDEX, to_coco

RED, BLUE = np.array([50.0, 60.0, 40.0]), np.array([40.0, 10.0, -50.0])
F = 60
TIMES = np.arange(F) * 33_333
ONE_SCENE = np.zeros(F, dtype=bool)


def at(x: float) -> Observation:
    """Somebody 400 pixels high whose hips are at x."""
    rng = np.random.default_rng(1)
    image = np.array([x, 300.0]) + rng.uniform(-1, 1, (33, 2)) * (60, 200)
    return Observation(np.full((33, 3), x), image.astype(np.float32), np.ones(33), np.ones(33))


def sighting(track: int, x: float, colour: np.ndarray | None) -> Sighting:
    return Sighting(track, at(x), None if colour is None else np.tile(colour, (len(PARTS), 1)))


def places(people: list[list[Observation | None]]) -> np.ndarray:
    """(N, F) where each is, NaN where they are not seen."""
    return np.array([[np.nan if o is None else o.world[0, 0] for o in person] for person in people])


def test_who_changes_places_unseen_is_known_by_their_clothes():
    """The trackers follow the wrong one after the crossing; the tracks that begin then are given out by colours."""
    frames = []
    for frame in range(F):
        before, together = frame < 25, 25 <= frame < 35
        red, blue = 100.0 + 10 * frame, 690.0 - 10 * frame
        worn = (None, None) if together else (RED, BLUE)
        tracks = (0, 1) if before or together else (3, 2)
        frames.append([sighting(tracks[0], red, worn[0]), sighting(tracks[1], blue, worn[1])])
    people = told_apart(frames, TIMES, ONE_SCENE, 2)
    np.testing.assert_allclose(places(people), [100.0 + 10 * np.arange(F), 690.0 - 10 * np.arange(F)])


def test_who_dresses_alike_is_known_by_where_they_were():
    frames = [
        [sighting(0 if f < 30 else 3, 100 + f, RED), sighting(1 if f < 30 else 2, 600 - f, RED)] for f in range(F)
    ]
    people = places(told_apart(frames, TIMES, ONE_SCENE, 2))
    assert np.abs(np.diff(people, axis=1)).max() == 1


@pytest.mark.parametrize("back_at", [120.0, 900.0], ids=["where they left", "somewhere else"])
def test_who_comes_back_has_their_number_again(back_at):
    frames = []
    for frame in range(F):
        seen = [sighting(1, 500.0, BLUE)]
        if frame < 15 or frame >= 40:
            seen.append(sighting(0 if frame < 15 else 7, 100.0 if frame < 15 else back_at, RED))
        frames.append(seen)
    people = places(told_apart(frames, TIMES, ONE_SCENE, 3))
    assert len(people) == 2 and np.isnan(people[0, 15:40]).all()
    assert (people[0, :15] == 100).all() and (people[0, 40:] == back_at).all() and (people[1] == 500).all()


def test_a_third_one_in_other_clothes_is_a_third_person_and_a_fourth_has_no_place():
    green = np.array([60.0, -50.0, 40.0])
    frames = [[sighting(0, 100.0, RED), sighting(1, 500.0, BLUE)] for _ in range(20)]
    frames += [[sighting(1, 500.0, BLUE), sighting(2, 130.0, green)] for _ in range(20)]
    frames += [[sighting(0, 100.0, RED), sighting(1, 500.0, BLUE), sighting(2, 130.0, green), sighting(5, 800.0, RED)]
               for _ in range(20)]  # fmt: skip
    people = places(told_apart(frames, TIMES, ONE_SCENE, 3))
    assert len(people) == 3 and (np.nanmax(people, axis=1) == [100, 500, 130]).all()


def test_after_a_cut_clothes_count_and_places_do_not():
    begins = ONE_SCENE.copy()
    begins[30] = True
    frames = [[sighting(0, 100.0, RED), sighting(1, 500.0, BLUE)] for _ in range(30)]
    frames += [[sighting(2, 100.0, BLUE), sighting(3, 500.0, RED)] for _ in range(30)]
    people = places(told_apart(frames, TIMES, begins, 2))
    assert (people[0] == np.where(begins.cumsum() == 0, 100, 500)).all()


def test_a_blink_of_a_detector_is_nobody():
    frames = [[sighting(0, 100.0, RED)] + ([sighting(9, 700.0, BLUE)] if frame == 30 else []) for frame in range(F)]
    assert len(told_apart(frames, TIMES, ONE_SCENE, 3)) == 1
    assert told_apart([[]] * F, TIMES, ONE_SCENE, 3) == [[None] * F]


def test_colours_are_those_of_the_clothes_and_unknown_where_nothing_is_seen():
    picture = np.zeros((400, 300, 3), np.uint8)
    picture[:200], picture[200:] = (200, 30, 30), (30, 30, 200)
    points, visibility = np.zeros((17, 2)), np.ones(17)
    for joint, place in {
        "left_shoulder": (180, 40), "right_shoulder": (120, 40), "left_hip": (170, 190), "right_hip": (130, 190),
        "left_knee": (170, 290), "right_knee": (130, 290), "left_ankle": (170, 390), "right_ankle": (130, 480),
    }.items():  # fmt: skip
        points[INDEX[joint]] = place
    visibility[INDEX["left_elbow"]] = 0.1
    worn = dict(zip(PARTS, colours(picture, points, visibility), strict=True))
    assert worn["left_shoulder", "right_hip"][1] > 40 and worn["left_hip", "left_knee"][2] < -40
    assert np.isnan(worn["left_shoulder", "left_elbow"]).all() and np.isnan(worn["right_knee", "right_ankle"]).all()


def test_mediapipe_takes_one_person_only():
    with pytest.raises(UserError, match="several people take --estimator blazepose"):
        estimators.named("mediapipe", people=2)
    with pytest.raises(UserError, match="--people is 0"):
        estimators.named("blazepose", people=0)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["crossing", "leaving"])
def test_rendered_dancers_keep_their_numbers(act, tmp_path):
    pytest.importorskip("ai_edge_litert")
    from benchmarks.people import score
    from studio.dataset import Ensemble

    ensemble = Ensemble(2, act, 4.0, fps=15, seed=3, size=(960, 540))
    hidden = ensemble.film(tmp_path / "two.mp4")
    out = tmp_path / "two.parquet"
    counts = observe(
        video=str(tmp_path / "two.mp4"), out=str(out), model=str(model_path()), estimator="blazepose", people=2
    )
    table, metadata = records.read_table(out, records.OBSERVATIONS), records.read_metadata(out)
    assert counts["frames"] == 60 and len(table) == 120 and json.loads(metadata["people"]) == 2
    truth = ensemble.camera.project(ensemble.joints())
    inside = ((truth >= 0) & (truth < np.array(ensemble.size))).all((-1, -2))
    countable = inside & (hidden < 0.3)
    followed = []
    for rows in records.by_person(table).values():
        joints, detected = to_coco(records.column(rows, "image")), records.column(rows, "detected")
        assert records.column(rows, "frame").tolist() == list(range(60))
        followed.append([j if d else None for j, d in zip(joints, detected, strict=True)])
    missed, _, lasting = score(truth, countable, followed)
    assert lasting == 0 and missed < 0.1 * countable.sum()


@pytest.mark.parametrize("estimator", ["mediapipe", "blazepose"])
def test_one_person_is_person_0_and_seen_as_before(real_people, estimator, tmp_path):
    if estimator == "blazepose":
        pytest.importorskip("ai_edge_litert")
    video = str(short(real_people / "cam01.mp4", tmp_path))
    for people in (1, 2) if estimator == "blazepose" else (1,):
        out = str(tmp_path / f"{people}.parquet")
        observe(video=video, out=out, model=str(model_path()), estimator=estimator, people=people)
    one = records.read_table(tmp_path / "1.parquet", records.OBSERVATIONS)
    assert set(records.column(one, "person")) == {0} and "people" not in records.read_metadata(tmp_path / "1.parquet")
    if estimator == "blazepose":  # of two who might be there one is, followed by the same steps
        two = records.read_table(tmp_path / "2.parquet", records.OBSERVATIONS)
        assert two.equals(one)


def short(source: Path, folder: Path) -> Path:
    """The first ten frames."""
    import itertools

    from refiner.data.video import VideoWriter, frames

    pictures = [frame.rgb for frame in itertools.islice(frames(source), 10)]
    height, width = pictures[0].shape[:2]
    with VideoWriter(folder / "short.mp4", (width // 2 * 2, height // 2 * 2), 60) as writer:
        for picture in pictures:
            writer.write(picture[: height // 2 * 2, : width // 2 * 2])
    return folder / "short.mp4"
