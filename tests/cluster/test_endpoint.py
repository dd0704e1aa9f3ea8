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

from cluster.running import CHECKOUT, HOST
from refiner import DepthRefiner
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
