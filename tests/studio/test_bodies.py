"""Bodies are people, as varied as adults are; drawn and MakeHuman's have their joints in the same places."""

import hashlib

import numpy as np
import pytest

from refiner import UserError
from refiner.skeleton import INDEX
from studio import rig
from studio.bodies import makehuman
from studio.bodies.body import Body
from studio.bodies.drawn import Dancer
from studio.bodies.makehuman import Figure, shaped, skeleton
from studio.bodies.person import Person
from studio.motion.limbs import soles


def test_bodies_differ_and_are_people():
    builds = [Dancer.draw(seed).build for seed in range(200)]
    heights = np.array([build.height for build in builds])
    assert heights.min() >= 1.50 and heights.max() <= 1.95 and heights.std() > 0.05


# --- MakeHuman's ------------------------------------------------------------------------------------------------------


def test_joints_mean_the_same_as_on_the_drawn_dancers():
    """Mean bone lengths and face points as a share of the height; the two populations may differ in proportions."""

    def mean(kind: type[Body]) -> np.ndarray:
        bodies = [kind.draw(seed) for seed in range(24)]
        rest = np.tile(np.eye(3), (rig.NUM_BONES, 1, 1))
        return np.mean(
            [
                body.joints(*rig.forward_kinematics(rest, np.zeros(3), body.offsets)) * 1.75 / body.build.height
                for body in bodies
            ],
            axis=0,
        )

    people, drawn = mean(Person), mean(Dancer)
    # limbs and face, each about its own root, so that a longer trunk does not count against a nose
    face = slice(INDEX["nose"], INDEX["right_ear"] + 1)
    ears = [INDEX["left_ear"], INDEX["right_ear"]]
    assert np.abs(people[face] - people[ears].mean(0) - drawn[face] + drawn[ears].mean(0)).max() < 0.02
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        assert np.linalg.norm((people - drawn)[INDEX[f"left_{name}"]]) < 0.10, name


def test_in_the_zero_pose_limbs_are_straight_and_in_the_bind_pose_they_are_makehumans():
    vertices = shaped(Figure.draw(np.random.default_rng(0)))
    turned, placed, offsets = skeleton(vertices)
    for first in (rig.L_SHOULDER, rig.L_ELBOW):
        assert offsets[first + 2, 0] > 0.2 and np.abs(offsets[first + 2, 1:]).max() < 1e-6
    for first in (rig.L_HIP, rig.L_KNEE):
        assert offsets[first + 3, 1] < -0.3 and np.abs(offsets[first + 3, [0, 2]]).max() < 1e-6
    relative = turned.copy()
    for bone, parent in enumerate(rig.PARENTS):
        if parent >= 0:
            relative[bone] = turned[parent].T @ turned[bone]
    again = rig.forward_kinematics(relative, placed[rig.PELVIS], offsets)
    np.testing.assert_allclose(again[1], placed, atol=1e-6)


def test_people_differ_as_adults_do():
    figures = [Figure.draw(np.random.default_rng(seed)) for seed in range(300)]
    heights = np.array([figure.height for figure in figures])
    men = np.array([figure.male > 0.5 for figure in figures])
    assert 0.4 < men.mean() < 0.6 and heights[men].mean() - heights[~men].mean() > 0.08
    ages = np.array([figure.age for figure in figures])
    assert ages.min() >= 18 and ages.max() <= 65 and ages.std() > 8
    for figure in figures[:8]:
        skin = shaped(figure)[np.unique(makehuman.assets().faces["body"])]
        assert np.ptp(skin[:, 1]) == pytest.approx(figure.height, abs=1e-3)
    # and no two have the same clothes or face
    colours = {Person.draw(seed).look.colours.tobytes() for seed in range(20)}
    assert len(colours) == 20


def test_the_mesh_is_whole_and_the_shoes_stand_on_the_floor():
    for seed in range(4):
        person = Person.draw(seed)
        mesh = person.mesh
        assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.normals).all()
        np.testing.assert_allclose(mesh.weights.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-3)
        assert len(mesh.triangles) < 60_000
        turned, placed = person.bind
        low = mesh.vertices[:, 1].min() - soles(person, turned[None], placed[None])[..., 1].min()
        assert abs(low) < 0.02


def test_the_same_seed_gives_the_same_person_and_another_seed_another():
    def digest(seed: int) -> str:
        mesh = Person.draw(seed).mesh
        return hashlib.sha256(mesh.vertices.tobytes() + mesh.tints.tobytes()).hexdigest()

    assert digest(1) == digest(1) != digest(2)


def test_a_machine_without_data_and_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("POSE_DEPTH_REFINER_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CACHE_DIR", "")
    makehuman.assets.cache_clear()
    try:
        with pytest.raises(UserError, match="--bodies drawn"):
            makehuman.assets()
    finally:
        makehuman.assets.cache_clear()
