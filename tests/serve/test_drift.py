"""Drift as the endpoint sees it: poses come in over HTTP, /info says whether they are like those of training."""

import httpx
import numpy as np
import pytest

from refiner import UserError
from refiner.inference import drift
from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve import codec
from serve.deployments import RefineEndpoint
from serve.routes import build_api
from serve.schemas import AppArgs
from tests.checkpoints import on_pytorch


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def halves(make_pairs):
    """Pairs of the same kind of people, apart by sequence: training's, and what comes in later."""
    # many of them, for the size of a body is one per person
    return make_pairs(400, frames=3, seed=1), make_pairs(400, frames=3, seed=2, first=400)


def endpoint(tmp_path, card: dict) -> RefineEndpoint:
    checkpoint = on_pytorch(save_checkpoint(PoseAwareDepthRefiner(), tmp_path / "checkpoint", card))
    return RefineEndpoint(AppArgs(model=str(checkpoint), device="cpu", cache=str(tmp_path / "served")))


async def drift_after(served: RefineEndpoint, poses: np.ndarray, visibility: np.ndarray) -> dict[str, float] | None:
    """Sends the poses as clips, asks /info."""
    transport = httpx.ASGITransport(build_api(served))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for clip in np.split(np.arange(len(poses)), len(poses) // 24):
            request = codec.RefineRequest(poses=poses[clip], visibility=visibility[clip], sequence=True)
            answer = await client.post(
                "/v1/refine", content=codec.JsonCodec().encode_request(request), headers={"Content-Type": codec.JSON}
            )
            assert answer.status_code == 200
        return (await client.get("/info")).json()["input_drift"]


@pytest.mark.anyio
async def test_info_tells_poses_like_those_of_training_from_others(halves, tmp_path):
    trained, later = halves
    served = endpoint(tmp_path, {drift.CARD_KEY: drift.statistics(trained.corrupted, trained.visibility)})
    assert await drift_after(served, later.corrupted[:240], later.visibility[:240]) is None  # too few to judge
    alike = await drift_after(served, later.corrupted, later.visibility)
    assert max(alike.values()) < 0.1, alike
    larger = await drift_after(served, later.corrupted * 1.3, later.visibility)
    assert larger["size"] > 0.25 > 0.1 > larger["visibility"], larger
    served.check_health()  # also tells Prometheus


@pytest.mark.anyio
async def test_a_model_without_statistics_has_no_drift_and_one_with_damaged_ones_is_refused(halves, tmp_path):
    assert await drift_after(endpoint(tmp_path, {}), halves[1].corrupted, halves[1].visibility) is None
    with pytest.raises(UserError, match="size are damaged"):
        endpoint(tmp_path, {drift.CARD_KEY: {"groups": {}}})
