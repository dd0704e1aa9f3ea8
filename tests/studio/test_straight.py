"""What is filmed straight into the network is what the network would see of a video."""

import dataclasses

import numpy as np
import pytest

from refiner.data import records
from refiner.data.aistpp import FPS
from refiner.data.records import SEEN, Pairs
from refiner.data.video import Frame, frames
from refiner.estimators.blazepose import detector, landmarks
from refiner.estimators.blazepose.crop import Region, crop
from refiner.estimators.blazepose.estimator import BlazePose
from refiner.estimators.blazepose.picture import picture_of
from refiner.evaluation import metrics
from studio.cameras import FLOOR
from studio.dataset import Take, plan, straight
from studio.pictures.footage import Footage
from studio.pictures.renderer import Posed, Renderer
from studio.pictures.stage import Set
from studio.pictures.viewfinder import BLOCK, Viewfinder
from tests.studio.specs import spec

NEAR_LOSSLESS = 4  # x264's quality


@pytest.fixture(scope="module")
def take() -> Take:
    return plan(spec(size=(480, 270), footage="camera"))[0]


@pytest.fixture(scope="module")
def posed(take) -> tuple[Renderer, list[Posed]]:
    renderer = Renderer(take.dancer, take.room.light, FLOOR)
    turned, placed = take.bones(np.array([0.0, 0.2]))
    return renderer, [renderer.pose(turned[i], placed[i]) for i in range(2)]


FAULTY = Footage(seed=3, shutter=0.5, defocus=0.8, noise=3.0, coarse=0.6, crf=NEAR_LOSSLESS)


@pytest.mark.parametrize(
    "footage", [dataclasses.replace(Footage.clean(), crf=NEAR_LOSSLESS), FAULTY], ids=["clean", "faulty"]
)
def test_a_window_shows_what_the_whole_picture_shows(take, posed, footage, rng, tmp_path):
    """Wherever the network looks, also beyond the picture's edge and turned."""
    renderer, moments = posed
    moments = moments[: 1 if footage.shutter == 0 else 2]
    camera = take.cameras["c02"]
    finder, whole = Viewfinder(take.room, camera, footage, 30), Set(take.room, camera)
    boxes = set()
    for frame in range(12):
        region = Region(rng.uniform(100, 380), rng.uniform(60, 210), rng.uniform(90, 280), rng.uniform(-1, 1))
        seen = crop(finder.around(renderer, moments, frame, region), region, landmarks.SIZE)
        boxes.add(finder._window)
        rgb = footage.spoil(whole.exposed(renderer, moments), frame)
        # in the colours that a video has
        shown = crop(picture_of(encoded(rgb, tmp_path)), region, landmarks.SIZE)
        difference = np.abs(seen.astype(int) - shown)
        assert difference.mean() < 1.0 and np.quantile(difference, 0.999) <= 8
    assert len(boxes) > 3
    for x0, y0, x1, y1 in boxes:
        assert x0 >= 0 and y0 >= 0 and x1 <= 480 and y1 <= 270
        assert not x0 % 2 and not y0 % 2 and not (x1 - x0) % 2 and not (y1 - y0) % 2


def encoded(rgb: np.ndarray, tmp_path) -> Frame:
    """A picture as a video of it shows it, nearly without loss."""
    from refiner.data.video import VideoWriter

    path = tmp_path / "one.mp4"
    with VideoWriter(path, (rgb.shape[1], rgb.shape[0]), 30, crf=NEAR_LOSSLESS) as video:
        video.write(rgb)
    return next(frames(path))


def test_a_window_stays_where_it_is_as_long_as_it_does_and_moves_by_whole_blocks(take, posed):
    renderer, moments = posed
    finder = Viewfinder(take.room, take.cameras["c01"], Footage.clean(), 30)
    recordings, windows = set(), []
    for x in range(150, 330, 3):
        finder.around(renderer, moments[:1], 0, Region(float(x), 135.0, 120.0, 0.1))
        recordings.add(id(finder._recording))
        windows.append(finder._window)
    assert len(recordings) == 1  # one stream all the way
    assert 3 <= len(set(windows)) <= 20
    assert {w[0] % BLOCK for w in windows} == {0}


def test_the_small_whole_picture_shows_the_detector_the_same_person(take, posed):
    renderer, moments = posed
    detect, _ = BlazePose().networks
    for name in ("c01", "c04", "c09"):
        camera = take.cameras[name]
        big = picture_of(Frame(0, 0, Set(take.room, camera).exposed(renderer, moments[:1]).copy()))
        small = Viewfinder(take.room, camera, Footage.clean(), 30).whole(renderer, moments[:1])
        assert small.planes[0].shape[1] < 480 and small.size == big.size
        regions = []
        for picture in (big, small):
            seen = crop(picture, Region.whole(picture.size), detector.SIZE, black_outside=True).astype(np.float32)
            boxes, scores = detect(seen[None] * np.float32(2 / 255) - 1)
            regions += detector.Detector().regions(boxes[0], scores[0], Region.whole(picture.size))
        one, other = regions
        assert one is not None and other is not None
        assert max(abs(one.x - other.x), abs(one.y - other.y), abs(one.side - other.side)) < 0.08 * one.side


@pytest.fixture(scope="module")
def filmed() -> list[tuple[Take, straight.Filmed]]:
    takes = plan(spec(sequences=3, seconds=0.8, fps=30, size=(480, 270), cameras=2))
    model = straight.estimator()
    return [(take, straight.film(take, model)) for take in takes]


def pairs_of(done: straight.Filmed, way: records.Seen, folder) -> Pairs:
    records.write_atomically(done.pairs, folder / "one.parquet", {})
    return records.read_pair_files([folder / "one.parquet"], way)


@pytest.mark.slow
def test_every_frame_is_there_in_every_way_that_it_was_seen(filmed, tmp_path):
    for take, done in filmed:
        assert done.frames == 48 and done.detected >= 46 and not done.problems
        seen = {way: pairs_of(done, way, tmp_path) for way in SEEN}
        truth = seen["raw"].ground_truth
        for pairs in seen.values():
            assert set(pairs.camera) == set(take.filming) and set(pairs.sequence) == {str(take.name)}
            np.testing.assert_array_equal(pairs.ground_truth, truth)
            np.testing.assert_allclose(pairs.azimuth, metrics.geometry.azimuth(pairs.corrupted), atol=0.1)
        starts = seen["raw"].clip_starts()
        np.testing.assert_array_equal(seen["raw"].corrupted[starts], seen["mediapipe"].corrupted[starts])
        # then the filters lag behind, above all that of visibility, and two looks are another answer
        assert np.abs(seen["raw"].corrupted - seen["mediapipe"].corrupted).mean() > 0.002
        assert np.abs(seen["raw"].corrupted - seen["two_looks"].corrupted).mean() > 0.002
        jerk = {way: np.abs(np.diff(pairs.corrupted[:20], n=2, axis=0)).mean() for way, pairs in seen.items()}
        assert jerk["mediapipe"] < jerk["raw"]


@pytest.mark.slow
def test_errors_are_those_of_the_path_through_a_video(filmed, tmp_path):
    """On average: frame by frame the tracking loop makes two runs differ."""
    from refiner.data.pairing import pair_video, read_observations
    from refiner.estimators.observe import observe

    errors: dict[str, list[np.ndarray]] = {"video": [], "straight": []}
    for take, done in filmed:
        take.film(tmp_path, take.filming)
        for camera in take.filming:
            video = take.video(tmp_path, camera)
            out = tmp_path / f"{video.stem}.parquet"
            observe(video=str(video), out=str(out), model=str(BlazePose().model), estimator="blazepose")
            truth = take.joints(np.arange(take.spec.annotations) / FPS)
            name = take.name.with_camera(camera)
            pairs = pair_video(read_observations(out), name, truth, take.cameras[camera]).pairs
            errors["video"].append(metrics.depth_error(pairs.corrupted, pairs.ground_truth))
        pairs = pairs_of(done, "mediapipe", tmp_path)
        errors["straight"].append(metrics.depth_error(pairs.corrupted, pairs.ground_truth))
    video, other = (np.concatenate(e).mean() for e in errors.values())
    assert other == pytest.approx(video, rel=0.1)


@pytest.mark.slow
def test_the_same_sequence_gives_the_same_pairs(filmed):
    take, done = filmed[0]
    again = plan(take.spec)[0]
    assert straight.film(again, straight.estimator()).pairs.equals(done.pairs)
