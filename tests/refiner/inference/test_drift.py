"""Drift: poses like those of training are not remarked upon, others are."""

import json

import numpy as np
import pytest

from refiner import UserError, geometry
from refiner.inference import drift

ALIKE, OTHER = 0.1, 0.25


@pytest.fixture(scope="module")
def halves(make_pairs):
    """Pairs of the same kind of people, apart by sequence: training's, and what comes in later."""
    return make_pairs(150, frames=12, seed=1), make_pairs(150, frames=12, seed=2, first=150)


@pytest.fixture(scope="module")
def trained_on(halves):
    return json.loads(json.dumps(drift.statistics(halves[0].corrupted, halves[0].visibility)))


def test_poses_like_those_of_training_have_not_drifted(halves, trained_on):
    indices = drift.drift(trained_on, halves[1].corrupted, halves[1].visibility)
    assert set(indices) == {"size", "posture", "azimuth", "visibility"}
    assert all(0 <= index < ALIKE for index in indices.values()), indices


def turned(poses: np.ndarray, axis: int, degrees: float) -> np.ndarray:
    vector = np.zeros(3)
    vector[axis] = np.radians(degrees)
    return poses @ geometry.rotation_matrix(vector).T.astype(np.float32)


@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("size", lambda poses, visibility: (poses * 1.3, visibility)),
        ("posture", lambda poses, visibility: (turned(poses, 2, 30), visibility)),  # the camera was tilted
        ("azimuth", lambda poses, visibility: (np.where(frontal(poses), poses, turned(poses, 1, 180)), visibility)),
        ("visibility", lambda poses, visibility: (poses, visibility * 0.6)),
    ],
)
def test_what_has_drifted_is_named(halves, trained_on, group, change):
    poses, visibility = change(halves[1].corrupted, halves[1].visibility)
    indices = drift.drift(trained_on, poses, visibility)
    assert indices[group] > OTHER
    if group in ("size", "visibility"):
        assert all(index < ALIKE for name, index in indices.items() if name != group), indices


def frontal(poses: np.ndarray) -> np.ndarray:
    return (np.abs(geometry.azimuth(poses)) < 90)[:, None, None]


def test_damaged_statistics_are_named(halves, trained_on):
    damaged = {"groups": {**trained_on["groups"], "azimuth": {"edges": [[0.0]], "shares": [[1.0]]}}}
    with pytest.raises(UserError, match="azimuth are damaged"):
        drift.drift(damaged, halves[1].corrupted, halves[1].visibility)


def test_visibility_that_is_never_given_is_drift_and_no_error(halves, trained_on):
    indices = drift.drift(trained_on, halves[1].corrupted, np.ones_like(halves[1].visibility))
    assert np.isfinite(indices["visibility"]) and indices["visibility"] > OTHER
