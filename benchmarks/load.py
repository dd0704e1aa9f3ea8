"""A small HTTP/1.1 load generator: closed loop (as fast as answers come) and constant rate (as fast as it is told to).

One process, raw asyncio: about 10,000 requests/s, so that on two cores the server and not the generator is measured.
Used by benchmarks/serve.py and by the tests that put the endpoint under load.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Result:
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # seconds, of answers with status 200
    ends: list[float] = field(default_factory=list)  # when these came, seconds of time.perf_counter
    statuses: Counter = field(default_factory=Counter)  # by status; 0 is a connection that broke

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies, percent) * 1e3) if self.latencies else float("nan")


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request under way at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.answer: asyncio.Future | None = None
        self.transport = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        headers, body = bytes(self.buffer[:head]).lower(), self.buffer[head + 4 :]
        at = headers.find(b"content-length:")
        length = int(headers[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else None
        # without a length it is chunked, and only its end is of interest
        whole = body.endswith(b"0\r\n\r\n") if length is None else len(body) >= length
        if whole and self.answer and not self.answer.done():
            self.buffer.clear()
            if b"\r\nconnection: close" in headers:  # a proxy that is being replaced says so with its last answer
                self.transport.close()
            self.answer.set_result((int(headers[9:12]), bytes(body)))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer and not self.answer.done():
            self.answer.set_result((0, b""))

    async def ask(self, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        if self.transport.is_closing():
            return 0, b""
        self.buffer.clear()
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await asyncio.wait_for(self.answer, timeout_s)
        except TimeoutError:
            self.transport.abort()
            return 0, b""


def request_bytes(url: str, body: bytes, content_type: str) -> bytes:
    target = urlsplit(url)
    head = (
        f"POST {target.path or '/'} HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _connect(url: str, source: str | None) -> Connection:
    target, local = urlsplit(url), (source, 0) if source else None
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, target.hostname, target.port, local_addr=local)
    return connection


async def _ask(
    url: str,
    connection: Connection | None,
    request: bytes,
    result: Result,
    timeout_s: float,
    due: float,
    source: str | None = None,
):
    """One request, counted; returns the connection to go on with."""
    status = 0
    try:
        if connection is None or connection.transport.is_closing():
            connection = await _connect(url, source)
        status, _ = await connection.ask(request, timeout_s)
    except OSError:
        connection = None
    result.statuses[status] += 1
    if status == 200:
        result.ends.append(time.perf_counter())
        result.latencies.append(result.ends[-1] - due)
    elif status == 0:
        await asyncio.sleep(0.01)  # a server that is not there is not asked in a tight loop
    return connection


async def closed_loop(
    url: str,
    body: bytes,
    content_type: str,
    *,
    connections: int,
    seconds: float = math.inf,
    until: Callable[[Result], bool] = lambda result: False,
    timeout_s: float = 30,
    source: str | None = None,
) -> Result:
    """Each connection sends its next request when the last one was answered, for so long or until what came is enough; from
    that address, if one is given.
    """
    result, request = Result(), request_bytes(url, body, content_type)
    start = time.perf_counter()

    async def work() -> None:
        connection = None
        while (now := time.perf_counter()) < start + seconds and not until(result):
            connection = await _ask(url, connection, request, result, timeout_s, now, source)
        if connection:
            connection.transport.abort()

    await asyncio.gather(*(work() for _ in range(connections)))
    result.seconds = time.perf_counter() - start
    return result


async def constant_rate(
    url: str,
    body: bytes,
    content_type: str,
    *,
    rate: float,
    seconds: float,
    timeout_s: float = 30,
) -> Result:
    """Requests start at fixed times whether or not earlier ones were answered; latency counts from when one was due, so
    that a server which stalls is not forgiven ("coordinated omission"). While all connections wait for answers a further one
    is opened: for rates below what the server can do.
    """
    result, request = Result(), request_bytes(url, body, content_type)
    free: list[Connection | None] = []
    running: set[asyncio.Task] = set()
    start = time.perf_counter()

    async def one(due: float) -> None:
        connection = free.pop() if free else None
        connection = await _ask(url, connection, request, result, timeout_s, due)
        free.append(connection)

    for number in range(int(rate * seconds)):
        due = start + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    result.seconds = time.perf_counter() - start
    for connection in free:
        if connection:
            connection.transport.abort()
    return result
