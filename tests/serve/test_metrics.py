"""Numbers that anybody may ask for, as often as they like."""

import asyncio

import httpx
import numpy as np
import pytest
from starlette.exceptions import HTTPException

from refiner.inference import drift
from serve import metrics
from serve.live import standing_poses


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_however_often_a_node_is_asked_its_agent_is_asked_once_a_second(monkeypatch):
    asked = []

    async def agent(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        await asyncio.sleep(0)
        return httpx.Response(200 if len(asked) == 1 else 502, content=b"numbers")

    monkeypatch.setattr(metrics, "_agent_url", lambda: "http://agent/metrics")
    node = metrics.NodeMetrics()
    node._agent = httpx.AsyncClient(transport=httpx.MockTransport(agent))
    assert set(await asyncio.gather(*(node.text() for _ in range(100)))) == {b"numbers"}
    assert len(asked) == 1
    node._told -= metrics.TELL_S  # a second later
    with pytest.raises(HTTPException) as refused:
        await node.text()
    assert refused.value.status_code == 503


def test_drift_is_judged_anew_when_poses_came_and_only_then(monkeypatch):
    judged = []
    monkeypatch.setattr(drift, "drift", lambda *arguments: judged.append(arguments) or {"size": len(judged)})
    window, trained_on = metrics.Window(), {}
    for _ in range(-(-drift.LEAST_POSES // metrics.WINDOW_SHARE)):
        window.add(np.concatenate([standing_poses(64)] * 2)[: metrics.WINDOW_SHARE], None)
    assert [window.drift(trained_on) for _ in range(3)] == [{"size": 1}] * 3
    window.add(standing_poses(1), None)
    assert window.drift(trained_on) == {"size": 2}
    assert window.drift({}) == {"size": 3}  # another version, other statistics


def test_the_window_holds_what_came_last_whatever_its_form():
    window, one = metrics.Window(), standing_poses(1)
    landmarks = np.zeros((1, 33, 3), np.float32)
    for number in range(100):
        poses = one + np.float32(number) if number % 3 else landmarks + np.float32(number)
        shape = poses.shape[:2]
        window.add(poses, None if number % 2 else np.full(shape, number / 100, np.float32))
    window._take()
    assert window._count == 100
    for number in range(100):
        origin = window._poses[number, 0] - (one[0, 0] if number % 3 else 0)
        np.testing.assert_allclose(origin, number, atol=1e-4)
        np.testing.assert_allclose(window._visibility[number], 1 if number % 2 else number / 100, atol=1e-6)
