"""What would fail is said beforehand, in a sentence that says what to do; and what can simply work does."""

import socket
import time

import pytest

from cluster import doctor
from rayjobs.session import ray_session
from refiner import UserError


@pytest.fixture
def sound(tmp_path) -> dict[str, str]:
    """An environment in which nothing fails."""
    return {"HOME": str(tmp_path), "TMPDIR": "/tmp"}


def findings(environ: dict[str, str]) -> dict[str, str]:
    return {finding.name: finding.sentence for finding in doctor.examine(environ)}


def test_a_sound_environment_has_no_findings(sound):
    assert set(findings(sound)) <= {"shared_memory"}  # of this machine
    assert not findings(sound | {"RAY_ADDRESS": ""}).get("ray_address")


@pytest.mark.parametrize(
    ("changes", "name", "says"),
    [
        ({"TMPDIR": "/tmp/" + "long" * 30}, "temporary_folder", "RAY_TMPDIR=/tmp"),
        ({"TMPDIR": "/proc"}, "temporary_folder", "cannot be written"),
        ({"RAY_ADDRESS": "127.0.0.1:9"}, "ray_address", "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:9"),
        ({"RAY_ADDRESS": "ray://localhost:9"}, "ray_address", "no Ray cluster answers"),
        ({"RAY_ADDRESS": "somewhere"}, "ray_address", "is not an address"),
        ({"RAY_ADDRESS": "host:port"}, "ray_address", "is not an address"),
        ({"HOME": "/proc"}, "home", "XDG_CACHE_HOME"),
        ({"http_proxy": "http://proxy:3128"}, "proxy", "no_proxy=localhost,127.0.0.1"),
        ({"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "example.org"}, "proxy", "no_proxy"),
    ],
)
def test_each_fault_is_one_sentence(sound, changes, name, says):
    sentence = findings(sound | changes)[name]
    assert says in sentence and "\n" not in sentence


def test_a_proxy_that_leaves_this_machine_alone_is_none_of_the_findings(sound):
    proxied = {"http_proxy": "http://proxy:3128", "no_proxy": "localhost, 127.0.0.1,.example.org"}
    assert "proxy" not in findings(sound | proxied)


def test_a_clock_of_long_ago_is_said(sound, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    assert "1970" in findings(sound)["clock"]


def test_a_cluster_that_answers_is_none_of_the_findings(sound):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "ray_address" not in findings(sound | {"RAY_ADDRESS": f"127.0.0.1:{server.getsockname()[1]}"})


def test_a_job_does_not_wait_for_a_dead_cluster(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match="no Ray cluster answers"), ray_session():
        pass
