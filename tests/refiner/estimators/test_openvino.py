"""The landmark network in bfloat16, beside the same in float32."""

import itertools
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from refiner import UserError, estimators
from refiner.data import video
from refiner.estimators.blazepose.engine import LiteRT
from refiner.estimators.blazepose.estimator import BlazePose
from refiner.estimators.blazepose.landmarks import answered
from refiner.estimators.blazepose.openvino import OpenVino, runtime
from refiner.estimators.mediapipe_assets import LANDMARKS, model_path
from refiner.extras import is_there

EVERY = 8  # frames


@pytest.fixture(scope="module")
def network() -> bytes:
    with zipfile.ZipFile(model_path()) as bundle:
        return bundle.read(LANDMARKS)


@pytest.fixture
def engine(network) -> OpenVino:
    try:
        return OpenVino(network)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def crops(real_people) -> np.ndarray:
    """(N, 256, 256, 3): what the network looks at where it follows real people."""
    crops, estimator = [], BlazePose()
    for camera in ("cam01", "cam03"):
        detect, look = estimator.networks
        tracker = estimator.tracker(detect)
        for number, frame in enumerate(itertools.islice(video.frames(real_people / f"{camera}.mp4"), 80)):
            pictures = tracker.pictures(frame)
            tracker.observed(answered(look, pictures))
            crops += [pictures] if number % EVERY == 0 else []
    return np.concatenate(crops)


def millimetres(ours: list[np.ndarray], theirs: list[np.ndarray]) -> np.ndarray:
    """(N, 39, 3) between the world landmarks of two answers."""
    return 1000 * (ours[4] - theirs[4]).reshape(-1, 39, 3)


def test_landmarks_are_those_of_float32_within_a_centimetre_to_all_sides(engine, network, crops):
    """7 mm; with the last layers in bfloat16, too, 15, or 100 where OpenVINO has the network in one piece."""
    ours, theirs = engine(crops), LiteRT(network)(crops)
    assert [mine.shape for mine in ours] == [their.shape for their in theirs]
    apart = millimetres(ours, theirs)
    assert 0.1 < np.linalg.norm(apart, axis=-1).mean() < 10
    assert np.linalg.norm(apart.mean((0, 1))) < 5
    points = (ours[0] - theirs[0]).reshape(-1, 39, 5)[:, :33, :2]
    assert np.linalg.norm(points, axis=-1).mean() < 1  # pixels of a crop
    assert np.abs(ours[1] - theirs[1]).max() < 0.05  # somebody is there


def test_pictures_in_one_call_give_what_they_give_alone(engine, network, crops):
    alone = [np.concatenate(each) for each in zip(*(engine(crop[None]) for crop in crops[:5]), strict=True)]
    for count in (2, 5):  # whole calls, and one that is not full
        together = engine(crops[:count])
        assert [len(output) for output in together] == [count] * 5
        apart = np.linalg.norm(millimetres(together, [output[:count] for output in alone]), axis=-1)
        assert apart.mean() < 10


def test_engines_of_one_network_do_not_disturb_each_other(engine, network, crops):
    other = OpenVino(network)
    first = engine(crops[:1])
    other(crops[1:2])
    assert all(np.array_equal(a, b) for a, b in zip(first, engine(crops[:1]), strict=True))
    assert not np.array_equal(first[4], other(crops[1:2])[4])


def test_the_file_says_that_it_was_bfloat16():
    assert estimators.named("blazepose-bf16").info.name == "blazepose-bf16"
    assert estimators.named("blazepose-bf16").info != estimators.named("blazepose").info


def test_openvino_tells_nobody_that_it_was_imported(tmp_path):
    """By itself it numbers its user in a file at home, and has a thread that forks a process that calls Google Analytics."""
    if not is_there("openvino"):
        pytest.skip("OpenVINO is not installed")
    code = (
        "import threading\n"
        "from refiner.estimators.blazepose.openvino import runtime\n"
        "runtime().Core()\n"
        "print(*[thread.name for thread in threading.enumerate()], end='')"
    )
    home = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=home)
    assert done.stdout == "MainThread" and not list(tmp_path.iterdir())


def test_without_openvino_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("refiner.extras.find_spec", lambda name: None if name == "openvino" else object())
    with pytest.raises(UserError, match=r"blazepose-bf16.*pose-depth-refiner\[blazepose-bf16\]") as caught:
        estimators.named("blazepose-bf16").open()
    assert "\n" not in str(caught.value)


def test_a_cpu_without_bfloat16_is_told_what_to_take(monkeypatch, network):
    if not is_there("openvino"):
        pytest.skip("OpenVINO is not installed")
    # as on a CPU with AVX2 only
    monkeypatch.setattr(runtime().Core, "get_property", lambda *_: runtime().Type.f32)
    with pytest.raises(UserError, match=r"AVX512_BF16 or AMX.* take 'blazepose'"):
        OpenVino(network)
