"""BlazePose sees what MediaPipe sees: the same crop to the pixel, the same landmarks to a tenth of a millimetre."""

import builtins
import functools
import itertools
import sys
import zipfile

import numpy as np
import pytest

from refiner import UserError, estimators
from refiner.data import video
from refiner.data.video import Frame
from refiner.estimators.base import Observation
from refiner.estimators.blazepose import detector, landmarks
from refiner.estimators.blazepose.crop import Region, crop
from refiner.estimators.blazepose.engine import Engine, LiteRT
from refiner.estimators.blazepose.estimator import BlazePose, answered
from refiner.estimators.blazepose.filters import Filters
from refiner.estimators.blazepose.onnx import OnnxRuntime
from refiner.estimators.blazepose.picture import picture_of
from refiner.estimators.mediapipe_assets import DETECTOR, LANDMARKS, model_path
from refiner.skeleton import LANDMARK_MIRROR
from tests.refiner.estimators.mediapipe_inside import crop_pixels, image_mode, region_of, video_mode

CAMERAS = ("cam01", "cam02", "cam03", "cam04")


@pytest.fixture(scope="module")
def people(real_people) -> list[np.ndarray]:
    """200 real frames, 50 from each of four cameras, upright RGB."""
    return [
        frame.rgb
        for name in CAMERAS
        for frame in itertools.islice(video.frames(real_people / f"{name}.mp4", stride=2), 50)
    ]


@pytest.fixture(scope="module")
def raw() -> BlazePose:
    return BlazePose(smoothing="none")


def decoded(look: Engine, seen: np.ndarray, region: Region) -> Observation:
    (answer,) = answered(look, seen[None] * np.float32(1 / 255))
    return landmarks.observation(landmarks.decoded(answer), region, [])


def apart(a: Observation, b: Observation) -> tuple[float, float, float]:
    """Largest differences: millimetres, pixels, visibility."""
    visibility = np.abs(a.visibility - b.visibility).max()
    return 1000 * np.abs(a.world - b.world).max(), np.abs(a.image - b.image).max(), visibility


@pytest.mark.slow
def test_the_landmarks_of_the_same_crop_are_mediapipes(people, raw):
    """MediaPipe is given the crop as a picture, and all of it for its crop."""
    whole = Region.whole((landmarks.SIZE, landmarks.SIZE))
    detect, look = raw.networks
    worst = []
    with image_mode(whole) as theirs:
        for rgb in people:
            tracker = raw.tracker(detect)
            pictures = tracker.pictures(Frame(0, 0, rgb))
            if len(pictures):
                seen = np.rint(255 * pictures[0]).astype(np.uint8)
                worst.append(apart(decoded(look, seen, whole), theirs(seen)))
    millimetres, pixels, visibility = np.array(worst).max(0)
    print(f"{len(worst)} frames: {millimetres:.3f} mm, {pixels:.4f} px, {visibility:.6f}")
    assert len(worst) >= 190
    assert millimetres <= 0.1 and pixels < 0.05 and visibility < 0.001


@pytest.mark.slow
def test_detector_and_crop_are_mediapipes_on_whole_frames(people, raw):
    """To the rounding of the detector: a crop that is off by a ten-thousandth of a pixel may round a few pixels otherwise."""
    worst, regions = [], 0
    with image_mode() as theirs, region_of() as where:
        for rgb in people[::5]:
            watching = raw.open()
            expected, region = theirs(rgb), where(rgb)
            watching._tracker.pictures(Frame(0, 0, rgb))
            own = watching._tracker._region
            assert (own is None) == (region is None)
            if own is not None:
                regions += 1
                assert max(abs(own.x - region.x), abs(own.y - region.y), abs(own.side - region.side)) < 0.01
                worst.append(apart(raw.open().estimate(Frame(0, 0, rgb)), expected))
    millimetres, pixels, visibility = np.array(worst).T
    print(f"{regions} frames: {np.sort(millimetres)[-3:]} mm, {np.sort(pixels)[-3:]} px")
    assert regions >= 35 and np.median(millimetres) <= 0.3 and millimetres.max() < 5 and visibility.max() < 0.01


@pytest.mark.parametrize("outside", [False, True], ids=["inside", "beyond the edge"])
@pytest.mark.parametrize("turned", [0.2, -2.4, 1.1])
def test_a_crop_is_mediapipes_to_the_last_bit(rng, outside, turned):
    """MediaPipe itself hands out pixels of its crop, through a landmark network that does nothing else."""
    import cv2

    rgb = cv2.GaussianBlur(rng.integers(0, 256, (360, 480, 3), dtype=np.uint8), (5, 5), 1)
    size = 300.0 if outside else 60.0
    centre = np.array([240.3, 180.7])
    top = centre + size * np.array([np.sin(turned), -np.cos(turned)])
    pixels = rng.integers(0, landmarks.SIZE**2, 33)
    theirs, region = crop_pixels(rgb, centre, top, pixels)
    ours = crop(picture_of(Frame(0, 0, rgb)), region, landmarks.SIZE).reshape(-1, 3)[pixels]
    difference = np.abs(theirs - ours)
    assert (
        difference > 0.01
    ).mean() < 0.02 and difference.max() < 1.01  # a rounding of single precision here and there


@pytest.mark.parametrize("start_us", [0, 40_000])
def test_the_first_frames_of_a_video_are_mediapipes_filters_and_all(real_people, start_us):
    for name in ("cam01", "cam03"):
        frames = list(itertools.islice(video.frames(real_people / f"{name}.mp4"), 4))
        frames = [Frame(f.index, f.timestamp_us + start_us, f.rgb) for f in frames]
        with video_mode() as theirs, BlazePose().open() as ours:
            for frame, tolerance_mm in zip(frames, (0.1, 1.0, 2.0, 5.0), strict=True):  # crop follows crop: it grows
                expected, seen = theirs(frame), ours.estimate(frame)
                assert 1000 * np.abs(expected.world - seen.world).max() < tolerance_mm
                assert np.abs(expected.visibility - seen.visibility).max() < 0.002


def test_the_filters_follow_mediapipes_step_by_step(real_people):
    """On MediaPipe's own unfiltered landmarks: the same crops through its networks, then through the filters here."""
    frames = list(itertools.islice(video.frames(real_people / "cam02.mp4"), 12))
    with video_mode() as theirs:
        filtered = [theirs(Frame(f.index, f.timestamp_us, f.rgb)) for f in frames]
    raw, filters, steps = BlazePose(smoothing="none").open(), Filters(), []
    for frame, expected in zip(frames, filtered, strict=True):
        seen = raw.estimate(Frame(frame.index, frame.timestamp_us, frame.rgb))
        following = raw._tracker._region
        ours = filters(seen, round(frame.timestamp_us / 1000) * 1000, following.side)
        steps.append((np.abs(seen.world - expected.world).mean(), np.abs(ours.world - expected.world).mean()))
        assert np.abs(ours.visibility - expected.visibility).max() < 0.02
    unfiltered, with_filters = 1000 * np.array(steps[1:]).mean(0)
    assert with_filters < 3.0 and with_filters < unfiltered / 2  # what is left is the tracking's own, not the filters'


def test_a_filter_at_rest_stands_still_and_lets_speed_through():
    filters = Filters()
    standing = Observation(np.zeros((33, 3)), np.full((33, 2), 500.0), np.ones(33), np.ones(33))
    for step in range(10):
        seen = filters(standing, 16_000 * (step + 1), 800.0)
    assert np.allclose(seen.world, 0) and np.allclose(seen.image, 500)
    jumped = Observation(np.full((33, 3), 0.5), np.full((33, 2), 700.0), np.zeros(33), np.ones(33))
    seen = filters(jumped, 176_000, 800.0)
    assert (seen.world > 0.25).all() and (seen.image > 600).all()
    assert np.allclose(seen.visibility, 0.9)  # lags ten frames


def test_a_person_who_comes_back_is_detected_anew_and_not_smoothed_with_what_was(real_people):
    frames = [f.rgb for f in itertools.islice(video.frames(real_people / "cam01.mp4"), 40)]
    empty = np.full_like(frames[0], 128)
    sequence = [*frames[:3], empty, empty, *frames[30:33]]
    watched = {}
    for smoothing in ("mediapipe", "none"):
        with BlazePose(smoothing=smoothing).open() as watching:
            watched[smoothing] = [watching.estimate(Frame(i, 16_683 * i, rgb)) for i, rgb in enumerate(sequence)]
    for seen in watched.values():
        assert [o is not None for o in seen] == [True] * 3 + [False] * 2 + [True] * 3
    back = 5
    assert np.array_equal(watched["mediapipe"][back].world, watched["none"][back].world)  # nothing before it counts
    assert not np.array_equal(watched["mediapipe"][back + 1].world, watched["none"][back + 1].world)


def test_two_looks_are_a_look_and_its_mirror_image(people):
    """What is seen in a mirrored picture is the mirror image of what is seen in the picture, exactly."""
    height, width = people[0].shape[:2]
    both = BlazePose(smoothing="none", looks=2)
    for rgb in people[::50]:
        with both.open() as watching:
            seen = watching.estimate(Frame(0, 0, rgb))
        single = BlazePose(smoothing="none").open().estimate(Frame(0, 0, rgb))
        assert np.abs(seen.world - single.world).max() > 1e-3
        # the mean lies halfway between them
        assert np.allclose(seen.world + seen.looks_differ / 2, single.world, atol=1e-5)
        assert single.looks_differ is None and seen.looks_differ.shape == (33, 3)
        assert np.abs(seen.image - single.image).max() < 0.03 * width
    assert (LANDMARK_MIRROR[LANDMARK_MIRROR] == np.arange(33)).all() and height > width


@pytest.mark.slow
def test_videos_looked_at_together_give_what_each_gives_alone(real_people):
    paths = [real_people / f"{name}.mp4" for name in CAMERAS]
    estimator = BlazePose()

    def clips(count: int) -> list[itertools.islice]:
        return [itertools.islice(video.frames(paths[i % 4]), 2 + i % 3) for i in range(count)]  # of uneven length

    alone: dict[int, list[Observation]] = {}  # by the twelve kinds of clip
    for i, clip in enumerate(clips(12)):
        with estimator.open() as watching:
            alone[i] = [watching.estimate(frame) for frame in clip]
    for count in (1, 2, 8, 64):
        together: dict[int, list[Observation]] = {}
        for number, _, seen in estimator.watch(clips(count)):
            together.setdefault(number, []).append(seen)
        assert len(together) == count
        for number, observations in together.items():
            for one, other in zip(observations, alone[number % 12], strict=True):
                assert np.array_equal(one.world, other.world) and np.array_equal(one.image, other.image)


def test_without_litert_one_sentence_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("ai_edge_litert"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.startswith("ai_edge_litert")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("refiner.extras.find_spec", lambda name: None if name == "ai_edge_litert" else object())
    with pytest.raises(UserError, match=r"pose-depth-refiner\[blazepose\]") as caught:
        BlazePose().open()
    assert "\n" not in str(caught.value)


def test_options_and_models_that_are_none_are_named(tmp_path):
    with pytest.raises(UserError, match="--looks is 3"):
        estimators.named("blazepose", looks=3)
    with pytest.raises(UserError, match="--smoothing is 'heavy'"):
        estimators.named("blazepose", smoothing="heavy")
    with pytest.raises(UserError, match="take --estimator blazepose"):
        estimators.named("mediapipe", looks=2)
    text = tmp_path / "text.task"
    text.write_text("no model")
    with pytest.raises(UserError, match=r"text\.task is not a pose landmarker"):
        BlazePose(text).open()


def test_the_detectors_anchors_are_laid_out_as_its_network_has_them():
    anchors = detector._anchors()
    assert anchors.shape == (2254, 2) and np.allclose(anchors[0], 4 / 224) and np.allclose(anchors[-1], 1 - 16 / 224)


def test_the_file_says_which_options_made_it():
    infos = {estimators.named("blazepose", smoothing=s, looks=n).info for s in ("none", "mediapipe") for n in (1, 2)}
    assert len(infos) == 4 and estimators.named("mediapipe").info not in infos
    assert {info.model_sha256 for info in infos} == {estimators.named("mediapipe", str(model_path())).info.model_sha256}


@pytest.mark.parametrize("count", [1, 2, 8])
def test_onnx_runtime_says_what_litert_says(rng, count):
    """Outputs within a thousandth of their range, whatever the batch."""
    with zipfile.ZipFile(model_path()) as bundle:
        network = bundle.read(LANDMARKS)
    pictures = rng.random((count, 256, 256, 3), dtype=np.float32)
    for mine, theirs in zip(OnnxRuntime(network)(pictures), LiteRT(network)(pictures), strict=True):
        assert mine.shape == theirs.shape
        # of noise all say that nobody is there, with probabilities that hardly differ
        assert np.abs(mine - theirs).max() <= 1e-3 * max(np.ptp(theirs), 0.01)


def test_without_a_gpu_the_gpus_engine_says_so():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="no NVIDIA GPU here: install onnxruntime-gpu"):
        BlazePose(engine=functools.partial(OnnxRuntime, device="cuda")).open()


def test_a_network_of_other_operators_is_named():
    with zipfile.ZipFile(model_path()) as bundle, pytest.raises(UserError, match="DENSIFY"):
        OnnxRuntime(bundle.read(DETECTOR))
