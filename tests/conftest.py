"""What tests share. Real data is used where it lies beside the checkout, and its tests skip where it does not."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.local import Cluster, local_cluster

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def aistpp() -> Path:
    """Root of real AIST++ annotations (three sequences, all cameras)."""
    return _shared("aistpp")


@pytest.fixture(scope="session")
def real_people() -> Path:
    """Folder of four synchronous real videos. A yardstick: nothing is trained, tuned or selected on it."""
    return _shared("real_people")


def pytest_configure() -> None:
    # Ray settles at its import whether it wants a token; the session's cluster, which comes later, does
    os.environ["RAY_AUTH_MODE"] = "token"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """The session's one Ray and MLflow. Its addresses are in the environment, so `ray_session()` and MLflow find it too."""
    with local_cluster(tmp_path_factory.mktemp("cluster")) as running:
        before = dict(os.environ)
        os.environ.update(running.env)
        yield running
        os.environ.clear()
        os.environ.update(before)
