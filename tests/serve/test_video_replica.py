"""What a client hears of /v1/refine/video when the deployment that looks at videos gives it a clip, or none."""

import httpx
import numpy as np
import pytest
import ray
from ray.exceptions import ActorDiedError, ObjectStoreFullError, RayTaskError, TaskCancelledError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from refiner import UserError
from serve.live import standing_poses
from serve.video import Clip, Lost
from tests.serve.conftest import before_the_queue

pytestmark = pytest.mark.anyio


class Handle:
    """Serve's handle of that deployment: gives a clip, or raises what Serve and Ray do."""

    def __init__(self, outcome: Clip | Exception) -> None:
        self.clip, self._outcome = self, outcome

    async def remote(self, pieces: list) -> Clip:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def raised(error: Exception) -> RayTaskError:
    """As it comes out of another process."""
    return RayTaskError("clip", "traceback with /tmp/upload-1/upload.mp4", error)


async def posted(replica, monkeypatch, outcome: Clip | Exception) -> httpx.Response:
    monkeypatch.setattr(replica, "_videos", Handle(outcome))
    monkeypatch.setattr(ray, "put", lambda piece: piece)
    transport = httpx.ASGITransport(before_the_queue(replica))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.post("/v1/refine/video", content=b"a video", headers={"content-type": "video/mp4"})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (raised(UserError("it is not a video")), 422),
        (BackPressureError(8, 8, 429, 1), 429),
        (raised(BackPressureError(8, 8, 429, 1)), 429),
        (ActorDiedError(), 503),
        (DeploymentUnavailableError(DeploymentID("VideoPoses", "app")), 503),
        (TaskCancelledError(), 503),
        (ObjectStoreFullError("full"), 503),
        (raised(Lost("the process died (SIGKILL)")), 503),
        (raised(RuntimeError("the inside")), 500),
    ],
    ids=lambda value: value if isinstance(value, int) else type(getattr(value, "cause", value)).__name__,
)
async def test_a_video_that_is_not_looked_at_is_refused_by_what_is_to_be_done(replica, monkeypatch, error, status):
    answer = await posted(replica, monkeypatch, error)
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert "/tmp" not in answer.text and "inside" not in answer.text and answer.json()["detail"]


async def test_a_video_is_counted_with_what_it_took(replica, monkeypatch):
    count = 5
    clip = Clip(
        person=np.zeros(count, np.int32), frame=np.arange(count, dtype=np.int32), timestamp_us=np.arange(count) * 40_000,
        poses=standing_poses(count), visibility=np.ones((count, 17), np.float32),
        image_points=standing_poses(count)[..., :2] * 200 + 300, clip=np.zeros(count, np.int32),
    )  # fmt: skip
    told, refined = [], replica.metrics.refined
    monkeypatch.setattr(replica.metrics, "refined", lambda *arguments: (told.append(arguments), refined(*arguments)))
    before = replica.about.statistics("", None)["model_stats"][0]
    answer = await posted(replica, monkeypatch, clip)
    assert answer.status_code == 200 and len(answer.json()["refined"]) == count
    ((route, _, stages, sent),) = told
    assert route == "/v1/refine/video" and sent == len(answer.content)
    assert set(stages) == {"observe", "refine", "encode"} and min(stages.values()) >= 0
    after = replica.about.statistics("", None)["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == count
