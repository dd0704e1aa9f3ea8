"""A store that is away for a while: nothing is lost, and a wrong name is still said at once."""

import threading

import pytest

from refiner import files
from tests.forwarder import forwarded
from tests.waiting import wait_for


@pytest.fixture
def away(server, monkeypatch):
    """A way to the store, which is closed."""
    host, _, port = server.removeprefix("http://").rpartition(":")
    for name, value in {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    with forwarded("127.0.0.1", (host, int(port))) as way:
        yield way


@pytest.mark.slow
def test_what_is_read_and_written_waits_for_a_store_that_is_away(away, tmp_path):
    where = f"s3://archive/away/a.txt?endpoint_override={away.address}&scheme=http"
    files.write_text(where, "before")
    away.closed()
    written, read = [], []
    (tmp_path / "b.txt").write_text("after")

    def work() -> None:
        files.upload(tmp_path / "b.txt", where)
        written.append(True)
        with files.fetched(where) as path:
            read.append(path.read_text())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(8)  # longer than the client of the store tries by itself
    assert worker.is_alive() and not written
    away.opened()
    wait_for(lambda: read or not worker.is_alive())
    assert read == ["after"] and files.read_text(where) == "after"


def test_patience_is_for_stores_that_may_come_back_and_ends(monkeypatch):
    calls = []

    def fails(error: OSError):
        def call():
            calls.append(error)
            raise error

        return call

    for error in (FileNotFoundError("no"), OSError(28, "No space left on device"), OSError("AWS Error ACCESS_DENIED")):
        with pytest.raises(type(error)):
            files.patiently(fails(error))
    assert len(calls) == 3
    monkeypatch.setattr(files, "PATIENCE_S", 2.0)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        files.patiently(fails(OSError("AWS Error NETWORK_CONNECTION during HeadObject")))
    assert len(calls) >= 5  # it did try again
