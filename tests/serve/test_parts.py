"""A clip's answer does not depend on how it was cut: parts put together are the whole, to a tenth of a millimetre."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from refiner import DepthRefiner, UserError, temporal
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner
from serve import client, codec
from serve.client import joined, parts
from serve.codec import RefineRequest, RefineResponse
from serve.live import standing_poses

WITHIN_M = 1e-4


def moving(count: int, rng: np.random.Generator) -> np.ndarray:
    """A person who turns, and whose size drifts as MediaPipe's do: medians of a part are not the whole's. Near the end
    another one, of another size and seen from elsewhere, takes their place.
    """
    poses = standing_poses(count) * np.linspace(0.85, 1.15, count)[:, None, None]
    other = count * 85 // 100
    poses[other:] *= 0.8 * np.array([-1, 1, -1])
    return (poses + rng.normal(0, 0.02, poses.shape)).astype(np.float32)


def another() -> DepthRefiner:
    torch.manual_seed(0)
    model = PoseAwareDepthRefiner(RefinerConfig(smoothing_s=0.1, constant_bones=True, image_points=True))
    for head in (model.encoder.correction[-1], model.encoder.scale[-1]):
        torch.nn.init.normal_(head.weight, std=0.3)
    return DepthRefiner.of(model)


def answer(refiner: DepthRefiner, request: RefineRequest, form: codec.Codec) -> RefineResponse:
    """What an endpoint makes of it, over the wire."""
    asked = form.decode(form.encode_request(request))
    refined = refiner.predict(
        asked.poses,
        asked.visibility,
        sequence=asked.sequence,
        fps=asked.fps or 30.0,
        keep_bones=asked.keep_bones,
        bone_lengths=asked.bone_lengths,
    )
    response = RefineResponse(
        poses=refined.poses,
        confidence=refined.confidence,
        view_angle=refined.view_angle,
        model={"name": "m", "version": "1"},
        bone_lengths=refined.bone_lengths,
    )
    return form.decode_response(form.encode(response)[0])


@pytest.mark.parametrize("form", [codec.JsonCodec(), codec.ArrowCodec()], ids=["json", "arrow"])
@pytest.mark.parametrize("fps", [15.0, 25.0, 29.97, 60.0, 100.0, 240.0])
@pytest.mark.parametrize("make", [DepthRefiner, another], ids=["in the box", "another"])
def test_parts_are_the_whole(make, fps, form, rng, monkeypatch, one_thread):
    monkeypatch.setattr(client, "PART_POSES", 300)
    refiner, poses = make(), moving(1000, rng)
    whole = RefineRequest(poses=poses, visibility=np.ones((1000, 17), np.float32), sequence=True, fps=fps)
    cut = list(parts(whole))
    assert len(cut) == 4
    together = joined(whole, [answer(refiner, part, form) for part, _ in cut], [rows for _, rows in cut])
    expected = answer(refiner, whole, form)
    np.testing.assert_allclose(together.poses, expected.poses, atol=WITHIN_M)
    np.testing.assert_allclose(together.bone_lengths, expected.bone_lengths, atol=WITHIN_M)
    np.testing.assert_allclose(together.confidence, expected.confidence, atol=1e-4)
    if make is DepthRefiner and fps >= 60:  # slower, and a body might have moved like that
        assert (
            np.abs(temporal.bone_lengths(expected.poses[:850]) - temporal.bone_lengths(expected.poses[850:])).max()
            > 0.02
        )
    # told those lengths, a part alone is its rows of the whole: what a client without this one's arithmetic does
    part, rows = cut[1]
    lengths = expected.bone_lengths
    told = replace(part, keep_bones=True, bone_lengths=lengths)
    alone = answer(refiner, replace(whole, bone_lengths=lengths), form)
    np.testing.assert_allclose(answer(refiner, told, form).poses[rows], alone.poses[300:600], atol=WITHIN_M)


def test_what_is_told_of_bones_is_checked(rng):
    refiner, poses = DepthRefiner(device="cpu"), moving(30, rng)
    for lengths in ([0.3] * 11, [0.3] * 11 + [0.0], [0.3] * 11 + [np.nan], [30.0] * 12, "short"):
        with pytest.raises(UserError, match="bone_lengths"):
            refiner.predict(poses, sequence=True, bone_lengths=lengths)
    for fps in (0, -1, np.inf, np.nan, 1e6, 1e-300, 10**30, 10**400, 10**5000, True, "30", [30], np.array([30.0])):
        with pytest.raises(UserError, match=r"^fps is .*: it must be .* frames a second$"):
            refiner.predict(poses, sequence=True, fps=fps)
