"""Streams in tests: the replica's application behind a real HTTP server, in this process, and what its clients say and hear."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from serve.intake import MESSAGE_BYTES
from serve.live import standing_poses
from serve.stream.messages import Answer
from tests.serve.conftest import before_the_queue
from tests.waiting import PATIENCE_S, wait_for

Serve = Callable[..., contextlib.AbstractContextManager[tuple[str, Any]]]


def serving(make_replica: Callable[..., Any]) -> Serve:
    """`with served(max_streams=…) as (url, replica)`: as Serve starts its server, on a port of its own."""

    @contextlib.contextmanager
    def serve(**args: object) -> Iterator[tuple[str, object]]:
        replica = make_replica(**args)
        config = uvicorn.Config(
            before_the_queue(replica), log_level="critical", ws_max_size=MESSAGE_BYTES, ws_per_message_deflate=False
        )
        server = uvicorn.Server(config)
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # for the client that reads nothing
            listening.bind(("127.0.0.1", 0))
            thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
            thread.start()
            try:
                wait_for(lambda: server.started)
                yield f"127.0.0.1:{listening.getsockname()[1]}", replica
            finally:
                server.should_exit = True
                thread.join()
                replica.streams.pictures.close()

    return serve


def opened(address: str, query: str = "", **options: object) -> ClientConnection:
    return connect(f"ws://{address}/v1/stream{query}", open_timeout=PATIENCE_S, proxy=None, **options)


def said(stream: ClientConnection) -> dict:
    """The next text message that is no word about the model."""
    while True:
        message = stream.recv(PATIENCE_S)
        if isinstance(message, str) and "model" not in (content := json.loads(message)):
            return content


def answered(stream: ClientConnection) -> Answer:
    """The next binary answer."""
    while True:
        message = stream.recv(PATIENCE_S)
        if isinstance(message, bytes):
            return Answer.of(message)
        assert "error" not in message, message


GOOD = json.dumps({"pose": standing_poses(1)[0].tolist()})


def closed(stream: ClientConnection) -> tuple[int, str]:
    """How the endpoint ends a stream."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            stream.recv(PATIENCE_S)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


def refused(address: str, query: str = "", **options: object) -> tuple[int, dict]:
    with pytest.raises(InvalidStatus) as error:
        opened(address, query, **options)
    response = error.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)
