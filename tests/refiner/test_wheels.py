"""Where files that can be fetched again are kept, also where there is no home."""

import tempfile

import pytest

from refiner import UserError, wheels


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A user whose home cannot be written to, and whose temporary folder is `tmp_path`."""
    for name in (wheels.CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_without_a_home_the_cache_is_this_users_temporary_one(homeless, monkeypatch):
    path = wheels.cached("model.task")
    assert path.parent == wheels.cache_folder() and path.parent.parent == homeless
    wheels.keep(path, b"model")
    assert wheels.cached("model.task").read_bytes() == b"model"
    monkeypatch.setattr(wheels.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert wheels.cached("model.task") == path


def test_a_temporary_cache_that_others_can_write_to_is_refused(homeless):
    wheels.cache_folder().chmod(0o777)
    with pytest.raises(UserError, match="can be written to by others: set POSE_DEPTH_REFINER_CACHE"):
        wheels.cached("model.task")


def test_what_came_with_the_machine_is_used_where_it_lies(homeless, monkeypatch):
    monkeypatch.setenv(wheels.CACHE_VARIABLE, "/proc/self")  # exists, and nobody can write there
    assert str(wheels.cached("status")) == "/proc/self/status"
    assert wheels.cached("model.task").parent.parent == homeless
