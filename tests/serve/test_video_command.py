"""`refiner video --endpoint`: a replica over real HTTP refines as the model on this machine does."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from refiner.data import records
from refiner.data.video import VideoWriter, frames
from tests.waiting import wait_for

TOKEN = "open sesame"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A rendered dancer, two thirds of a second; the room is empty for three frames in the middle."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("clip")
    (take, *_) = plan(Spec(sequences=1, seconds=0.67, fps=30, seed=4, size=(640, 360)))
    take.film(root, ["c01"])
    with VideoWriter(root / "joey.mp4", (640, 360), 30) as writer:
        for frame in frames(take.video(root, "c01")):
            writer.write(np.full_like(frame.rgb, 128) if 9 <= frame.index < 12 else frame.rgb)
    return root / "joey.mp4"


@pytest.fixture(scope="module")
def serve(make_replica) -> Iterator[Callable[..., str]]:
    """serve(app): its URL."""
    servers = []

    def start(app: object) -> str:
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        wait_for(lambda: server.started)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def refiner(*arguments: object, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "refiner.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})


def poses(folder: Path) -> dict[str, np.ndarray]:
    table = records.read_table(folder / "joey.refined.parquet", records.REFINED)
    return {name: records.column(table, name) for name in ("frame", "pose", "confidence", "azimuth", "view_angle")}


@pytest.mark.slow
def test_a_server_refines_as_this_machine_does(clip, serve, make_replica, tmp_path):
    (tmp_path / "tokens").write_text(TOKEN + "\n")
    url = serve(make_replica(token_file=str(tmp_path / "tokens")).app)
    here = refiner("video", clip, "--out", tmp_path / "here", "--json")
    there = refiner("video", clip, "--out", tmp_path / "there", "--json", "--endpoint", url, POSE_API_TOKEN=TOKEN)
    assert here.returncode == there.returncode == 0, there.stdout + there.stderr
    ours, theirs = poses(tmp_path / "here"), poses(tmp_path / "there")
    assert len(ours["frame"]) < 20 and ours["frame"].tolist() == theirs["frame"].tolist()
    for name in ("pose", "confidence", "azimuth", "view_angle"):
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-4)
    kept = records.read_metadata(tmp_path / "there" / "joey.refined.parquet")
    assert TOKEN not in json.dumps(kept) and json.loads(kept["model"])["name"] == "checkpoint"
    refused = refiner("video", clip, "--out", tmp_path / "no", "--endpoint", url, "--token", "wrong")
    assert refused.returncode == 2 and "token" in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_an_endpoint_that_is_not_there_or_something_else_is_one_sentence(clip, serve, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"

    async def another(scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"hello": "world"}'})

    with ThreadPoolExecutor() as pool:  # together, for most of it is waiting for nobody to answer
        nobody, somebody = pool.map(
            lambda url: refiner("video", clip, "--out", tmp_path / "out", "--endpoint", url), (nowhere, serve(another))
        )
    assert nobody.returncode == 2 and f"{nowhere} gave no answer in" in nobody.stderr
    assert nobody.stderr.count("\n") == 1
    assert somebody.returncode == 2 and "is not an endpoint of this version" in somebody.stderr
    assert not (tmp_path / "out").exists()
