"""What a job tells Prometheus stays there while the job runs."""

import pytest

from rayjobs.metrics import JobMetrics
from tests.connection import connection
from tests.waiting import get, wait_for


@pytest.fixture
def connected(cluster):
    with connection(cluster):
        yield


@pytest.mark.cluster
def test_what_was_told_once_is_there_after_ray_has_forgotten_what_was_set_once(connected):
    import ray
    from ray.util.metrics import Gauge

    nodes = [node for node in ray.nodes() if node["Alive"]]

    def shown(name: str) -> bool:
        texts = [get(f"http://{n['NodeManagerAddress']}:{n['MetricsExportPort']}/metrics").text for n in nodes]
        return any(f"ray_{name}{{" in text for text in texts)

    told = JobMetrics()
    told.tell("pose_train_epoch", 7)
    Gauge("set_once", "").set(1)
    wait_for(lambda: shown("set_once"))
    wait_for(lambda: not shown("set_once"), pause_s=1)
    assert shown("pose_train_epoch")
