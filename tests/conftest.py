"""What tests share. Real data is used where it lies beside the checkout, and its tests skip where it does not."""

from pathlib import Path

import numpy as np
import pytest

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
