"""The network and its checkpoints."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from refiner import UserError, geometry
from refiner.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_checkpoint, read_card, save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.model.inputs import Inputs, crop_normalise, exchanged, harmonics, mirrored, turned, upright
from refiner.model.network import PoseAwareDepthRefiner
from refiner.skeleton import INDEX, MIRROR

SYMMETRIC = RefinerConfig(symmetric=True, image_points=True)
WHOLE_POSE = dataclasses.replace(SYMMETRIC, encoder="whole_pose", width=48, layers=2, dropout=0.3)
UPRIGHT = dataclasses.replace(WHOLE_POSE, upright=True)
PITCHED = dataclasses.replace(UPRIGHT, camera_pitch=True)


def random_inputs(config: RefinerConfig, batch: int = 5, size: float = 0.4, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return Inputs(
        poses=torch.randn(batch, 17, 3, generator=generator) * size,
        visibility=torch.rand(batch, 17, generator=generator),
        azimuth=torch.rand(batch, generator=generator) * 360 - 180,
        image_points=torch.rand(batch, 17, 2, generator=generator) * 2 - 1,
        pitch=torch.rand(batch, generator=generator) * 40 - 20,
    )


def random_model(config: RefinerConfig, seed: int = 0) -> PoseAwareDepthRefiner:
    """All weights drawn, also those that start at zero."""
    torch.manual_seed(seed)
    model = PoseAwareDepthRefiner(config).eval()
    for tensor in (*model.encoder.correction[-1].parameters(), *model.encoder.scale[-1].parameters()):
        torch.nn.init.normal_(tensor, std=0.3)
    return model


def test_the_baseline_has_exactly_the_published_number_of_parameters():
    assert PoseAwareDepthRefiner().num_parameters() == 226_116


@pytest.mark.parametrize("config", [RefinerConfig(), WHOLE_POSE], ids=["attention", "whole pose"])
def test_an_untrained_refiner_changes_nothing(config):
    inputs = random_inputs(config)
    torch.testing.assert_close(PoseAwareDepthRefiner(config)(inputs).poses, inputs.poses)


def test_a_depth_refiner_leaves_the_image_plane_alone_and_an_xyz_refiner_does_not():
    inputs = random_inputs(RefinerConfig())
    for axes, moved in (("z", [False, False, True]), ("xyz", [True, True, True])):
        difference = random_model(RefinerConfig(axes=axes))(inputs).poses - inputs.poses
        assert [bool((difference[..., axis] != 0).any()) for axis in range(3)] == moved


@pytest.mark.parametrize(
    "config",
    [SYMMETRIC, WHOLE_POSE, UPRIGHT, PITCHED],
    ids=["attention", "whole pose", "upright", "camera pitch"],
)
def test_a_symmetric_refiner_gives_a_mirrored_pose_the_mirrored_answer(config):
    inputs = random_inputs(config)
    model = random_model(config)
    straight, turned = model(inputs), model(mirrored(inputs))
    expected = mirrored(inputs._replace(poses=straight.poses, visibility=straight.log_scale))
    torch.testing.assert_close(turned.poses, expected.poses, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.log_scale, expected.visibility, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ["attention", "whole_pose"])
def test_a_network_gets_the_camera_pitch_among_its_inputs_and_loses_it_again(encoder):
    config = dataclasses.replace(SYMMETRIC, encoder=encoder, upright=True)
    inputs, model = random_inputs(config), random_model(config)
    grown = model.with_camera_pitch(True)
    assert grown.config.camera_pitch and not grown.training
    torch.testing.assert_close(grown(inputs), model(inputs))  # it has learnt nothing of it
    told = random_model(dataclasses.replace(config, camera_pitch=True))
    unknown = inputs._replace(pitch=torch.full_like(inputs.pitch, torch.nan))
    level = inputs._replace(pitch=torch.zeros_like(inputs.pitch))
    for a, b in ((inputs, unknown), (inputs, level), (level, unknown)):
        assert (told(a).poses - told(b).poses).abs().amax((1, 2)).min() > 1e-5
    torch.testing.assert_close(told.with_camera_pitch(False)(inputs), told(unknown))


@pytest.mark.parametrize("degrees", [10.0, 90.0, 180.0])
def test_an_upright_refiner_turns_its_answer_with_the_person(degrees):
    config = dataclasses.replace(UPRIGHT, symmetric=False)
    inputs = random_inputs(config)
    angle = torch.tensor(degrees).deg2rad()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]).expand(
        len(inputs.poses), 2, 2
    )
    lying = inputs._replace(
        poses=turned(inputs.poses, turn), image_points=crop_normalise(turned(inputs.image_points, turn))
    )
    model = random_model(config)
    straight, other = model(inputs), model(lying)
    torch.testing.assert_close(other.poses, turned(straight.poses, turn), atol=2e-3, rtol=0)
    torch.testing.assert_close(other.log_scale, straight.log_scale, atol=1e-2, rtol=0)


def test_what_is_turned_upright_stands_upright_and_faces_where_it_says():
    inputs = random_inputs(UPRIGHT)
    seen, _ = upright(inputs)
    pose = seen.poses.numpy()
    shoulders = (pose[:, INDEX["left_shoulder"]] + pose[:, INDEX["right_shoulder"]]) / 2
    hips = (pose[:, INDEX["left_hip"]] + pose[:, INDEX["right_hip"]]) / 2
    up = shoulders - hips
    assert (up[:, 1] < 0).all() and (np.abs(up[:, 0]) < 1e-2 * -up[:, 1] + 1e-3).all()
    np.testing.assert_allclose(seen.azimuth, geometry.azimuth(pose), atol=1e-2)
    # a torso that points at the camera has no direction in the image
    ahead = inputs._replace(poses=inputs.poses * torch.tensor([0.0, 0.0, 1.0]))
    assert all(t.isfinite().all() for t in upright(ahead)[0])


@pytest.mark.parametrize("dim", [-1, -2])
def test_sides_are_exchanged_as_the_skeleton_says(dim):
    values = torch.randn(4, 17, 17)
    assert torch.equal(exchanged(values, dim), values.index_select(dim, torch.tensor(MIRROR)))


def test_image_points_stand_in_the_crop_as_the_pairs_have_them():
    points = np.random.default_rng(0).normal(size=(5, 17, 2)).astype(np.float32) * 300
    np.testing.assert_allclose(crop_normalise(torch.from_numpy(points)), geometry.crop_normalise(points), atol=1e-6)


def test_the_view_features_are_continuous_where_the_azimuth_jumps():
    before, after = harmonics(torch.tensor([179.99, -179.99]), 12)
    torch.testing.assert_close(before, after, atol=0.01, rtol=0)


@pytest.mark.parametrize("config", [SYMMETRIC, WHOLE_POSE, UPRIGHT], ids=["attention", "whole pose", "upright"])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 100.0])
def test_any_finite_input_gives_finite_output(size, config):
    out = random_model(config)(random_inputs(config, size=size))
    assert out.poses.isfinite().all() and out.log_scale.isfinite().all()


def test_a_larger_expected_error_is_never_more_confidence():
    confidence = PoseAwareDepthRefiner().confidence(torch.linspace(-7, 1, 50))
    assert (confidence.diff() < 0).all() and confidence.min() > 0 and confidence.max() < 1


@pytest.mark.parametrize("config", [SYMMETRIC, WHOLE_POSE, UPRIGHT], ids=["attention", "whole pose", "upright"])
def test_a_checkpoint_comes_back_as_it_was(tmp_path, config):
    model = random_model(config)
    save_checkpoint(model, tmp_path, {"trained_on": "nothing"})
    again = load_checkpoint(tmp_path)
    inputs = random_inputs(config)
    assert again.config == config and read_card(tmp_path) == {"trained_on": "nothing"}
    for ours, theirs in zip(model(inputs), again(inputs), strict=True):
        assert torch.equal(ours, theirs)
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("config", [SYMMETRIC, WHOLE_POSE, UPRIGHT], ids=["attention", "whole pose", "upright"])
def test_a_checkpoint_of_half_the_size_answers_within_a_third_of_a_millimetre(tmp_path, config):
    model, inputs = random_model(config), random_inputs(config)
    whole = save_checkpoint(model, tmp_path / "whole") / WEIGHTS_FILE
    half = save_checkpoint(model, tmp_path / "half", half=True) / WEIGHTS_FILE
    assert half.stat().st_size < 0.75 * whole.stat().st_size
    difference = (load_checkpoint(half.parent)(inputs).poses - model(inputs).poses).abs()
    assert 0 < difference.max() < 3e-4


def test_a_checkpoint_of_an_older_version_loads_and_answers_the_same(tmp_path):
    """They name a linear term and moments in time, both left out, and their statistics have an axis of moments."""
    model, inputs = random_model(UPRIGHT), random_inputs(UPRIGHT)
    save_checkpoint(model, tmp_path)
    content = json.loads((tmp_path / CONFIG_FILE).read_text())
    content["config"] |= {"linear": False, "taps_s": [0.0]}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(content))
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    save_file({n: t[None] if n in ("offset", "spread") else t for n, t in tensors.items()}, tmp_path / WEIGHTS_FILE)
    assert torch.equal(load_checkpoint(tmp_path)(inputs).poses, model(inputs).poses)


@pytest.mark.parametrize("gone", [{"linear": True}, {"taps_s": [-0.1, 0.0, 0.1]}, {"taps_s": []}])
def test_a_checkpoint_with_what_is_gone_says_so_in_a_sentence(tmp_path, gone):
    save_checkpoint(PoseAwareDepthRefiner(), tmp_path)
    content = json.loads((tmp_path / CONFIG_FILE).read_text())
    content["config"] |= {"linear": False, "taps_s": [0.0]} | gone
    (tmp_path / CONFIG_FILE).write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=f"a network with {next(iter(gone))}, which this version no longer has: train it"
    ):
        load_checkpoint(tmp_path)


def _another_width(folder):
    content = json.loads((folder / CONFIG_FILE).read_text())
    content["config"]["width"] = 32
    (folder / CONFIG_FILE).write_text(json.dumps(content))


def _nan(folder):
    model = PoseAwareDepthRefiner()
    with torch.no_grad():
        model.encoder.joint[3, 3] = np.nan
    save_checkpoint(model, folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / WEIGHTS_FILE).unlink(), "is missing"),
        (lambda f: (f / CONFIG_FILE).unlink(), "is not a checkpoint"),
        (lambda f: (f / CONFIG_FILE).write_text("{"), "is damaged"),
        (lambda f: (f / CONFIG_FILE).write_text('{"architecture": "SmoothNet", "config": {}}'), "SmoothNet"),
        (lambda f: (f / CONFIG_FILE).write_text(
            '{"architecture": "PoseAwareDepthRefiner", "config": {"wings": 2}}'), "wings"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes()[:1000]), "not a complete safetensors"),
        (_another_width, "belong to different models"),
        (_nan, "not finite"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused_with_a_reason(tmp_path, damage, says):
    save_checkpoint(PoseAwareDepthRefiner(), tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=says):
        load_checkpoint(tmp_path)
