"""`make endpoint`: from nothing to a page that answers, and nothing is left when it ends."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from ray.serve._private import constants

from cluster import endpoint
from cluster.running import CHECKOUT, HOST
from refiner import DepthRefiner, registry
from refiner.command import EXIT_USER_ERROR
from tests.processes import heed_interrupts, marked
from tests.waiting import PATIENCE_S, get, post, wait_for

RAYS_PORTS = (
    constants.RAY_SERVE_FALLBACK_PROXY_HTTP_PORT,
    constants.RAY_SERVE_FALLBACK_PROXY_GRPC_PORT,
    constants.RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT,
    constants.RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT,
)


@pytest.fixture
def others() -> Iterator[list[socket.socket]]:
    """Servers that have the ports which every Ray Serve has by default, and would share them."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for port in RAYS_PORTS:
            other = stack.enter_context(socket.socket())
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.setblocking(False)
            other.bind((HOST, port))
            other.listen()
            sockets.append(other)
        yield sockets


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "65536"], "--port is 65536"),
        (["--port=-1"], "--port is -1"),
        (["--token-file", "none"], "none cannot be read (no such file or directory)"),
        (["--token-file", "."], ". cannot be read (is a directory)"),
        (["--token-file", "empty"], "empty holds no token"),
        (["--model", "nonsense"], "nonsense is not a checkpoint"),
        (["--model", "models:/nonsense"], "'models:/nonsense' is not a model's address"),
        (["--cors-origins", "studio.example"], "studio.example, which is no origin"),
        (["--cors-origins", "https://a.example", "https://b.example/"], "https://b.example/, which is no origin"),
    ],
)
def test_what_cannot_be_served_is_one_sentence_before_anything_starts(tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n \n")
    monkeypatch.setattr(sys, "argv", ["endpoint", "--state", str(tmp_path / "state"), *options])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # pytest's own stay
    assert endpoint.main() == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert says in said and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "state").exists()


@pytest.mark.cluster
def test_without_a_registry_the_model_in_the_box_answers_until_ctrl_c(tmp_path, others):
    mark = f"MARK_{uuid.uuid4().hex}"
    env = {**os.environ, mark: "1", "SPT_NOENV": "1", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "cluster.endpoint", "--state", str(tmp_path / "state"), "--port", "0"]
    said = tmp_path / "said"
    with said.open("w") as out:
        process = subprocess.Popen(command, env=env, cwd=tmp_path, stderr=out, preexec_fn=heed_interrupts)
    try:
        page = wait_for(lambda: re.search(r"The page: (\S+)", said.read_text()) or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        url = page[1].removesuffix("/")
        assert "the model in the box" in said.read_text() and "<title>" in get(f"{url}/").text
        assert (
            get(f"{url}/v2/models/{registry.NAME}/ready").status_code == 200
        )  # as standard clients ask, also before a champion
        poses = json.loads((CHECKOUT / "docs/pose.json").read_text())["poses"]
        answer = post(f"{url}/v1/refine", json={"poses": poses}).json()
        for other in others:  # another cluster on this machine, say, gets no request that is ours
            with pytest.raises(BlockingIOError):
                other.accept()
        np.testing.assert_allclose(answer["refined"], DepthRefiner().predict(np.array(poses)).poses, atol=1e-4)
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(PATIENCE_S)
    assert status == 0, said.read_text()
    wait_for(lambda: not marked(mark))
