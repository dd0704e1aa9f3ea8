"""The model that is served follows the alias of its own name."""

from datetime import datetime

import pytest

from refiner import registry
from serve.live import LiveModel
from tests.waiting import wait_for


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("POSE_DEPTH_REFINER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_alias_of_another_name_is_followed_and_ours_is_not(store, register_model):
    ours, first, second = register_model(0), register_model(1, name="other"), register_model(2, name="other")
    registry.set_alias(registry.NAME, "champion", ours)
    registry.set_alias("other", "champion", first)
    swaps: list[str] = []
    live = LiveModel(
        "models:/other@champion", device="cpu", threads=1, poll_s=0.1, cache=store, now=lambda: datetime(2026, 1, 1),
        on_swap=swaps.append,
    )  # fmt: skip
    try:
        assert live.current.model == {"name": "other", "version": first}
        registry.set_alias(registry.NAME, "champion", register_model(3))  # a champion, but not of that name
        registry.set_alias("other", "champion", second)
        wait_for(lambda: swaps)
        assert swaps == ["swapped"] and live.current.model == {"name": "other", "version": second}
    finally:
        live.close()


def test_a_version_that_was_named_is_not_followed_anywhere(store, register_model):
    first = register_model(1, name="other")
    live = LiveModel(
        f"models:/other/{first}", device="cpu", threads=1, poll_s=0.05, cache=store,
        now=lambda: datetime(2026, 1, 1), on_swap=lambda outcome: None,
    )  # fmt: skip
    registry.set_alias("other", "champion", register_model(2, name="other"))
    assert live.current.model == {"name": "other", "version": first} and live.registry == "reachable"
    live.close()
