"""What strangers do to an endpoint with their connections, whatever they send: for benchmarks/hostile.py."""

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter
from urllib.parse import urlsplit

from benchmarks.target import INFER, MP4, REFINE, VIDEO, Got, Target, loopback
from serve.codec import JSON

FILE = "/docs/assets/swagger-ui-bundle.js"  # 1.5 MB that anybody may have


def request_head(host: str, path: str, kind: str, length: int) -> str:
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"


async def abandon(target: Target, seconds: float, *, callers: int = 6) -> Got:
    """Uploads that are left: in mid-body, or while they are looked at; closed, or reset."""
    address, chance, got = urlsplit(loopback(target.url)), random.Random(target.seed), Counter()
    until = time.monotonic() + seconds
    head = request_head(address.netloc, VIDEO, MP4, len(target.video))

    async def leave() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(address.hostname, address.port)
                share = chance.choice((0.3, 1.0, 1.0))
                writer.write(head.encode() + target.video[: int(len(target.video) * share)])
                await asyncio.sleep(chance.uniform(0.05, 2.0))
                if chance.random() < 0.5:
                    linger = struct.pack("ii", 1, 0)  # a reset in place of an orderly end
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                got["left"] += 1
            if time.monotonic() > until:
                return
            await asyncio.sleep(0.05)

    await asyncio.gather(*(leave() for _ in range(callers)))
    return got


async def dawdle(target: Target, seconds: float, *, connections: int = 2000) -> Got:
    """Bodies that come at a byte every two seconds, on all routes that have one; whoever is turned away comes again."""
    address, got, until = urlsplit(loopback(target.url)), Counter(), time.monotonic() + seconds

    async def slow(number: int) -> None:
        path = (REFINE, VIDEO, INFER.format(name=target.name))[number % 3]
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: {JSON}\r\nContent-Length: 100000\r\n\r\n"
        )
        await asyncio.sleep(number / 400)  # they come within five seconds, not at once
        while time.monotonic() < until:
            try:
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
            except OSError:
                got["closed"] += 1
                await asyncio.sleep(1)
                continue
            answer = asyncio.create_task(reader.readline())
            try:
                writer.write(head.encode())
                while time.monotonic() < until and not answer.done():
                    writer.write(b"[")
                    await asyncio.wait([answer], timeout=2)
                line = answer.result().split() if answer.done() else []
                got[line[1].decode() if len(line) > 1 else "closed" if answer.done() else "held"] += 1
            except OSError:
                got["closed"] += 1
            finally:
                answer.cancel()
                writer.transport.abort()

    await asyncio.gather(*(slow(number) for number in range(connections)))
    return got


async def dawdle_reading(target: Target, seconds: float, *, connections: int = 2000) -> Got:
    """Answers of a megabyte that are read at a few bytes every two seconds; whoever is turned away comes again."""
    address, got, until = urlsplit(loopback(target.url)), Counter(), time.monotonic() + seconds
    loop = asyncio.get_running_loop()
    request = f"GET {FILE} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()

    async def slow(number: int) -> None:
        await asyncio.sleep(number / 400)
        while time.monotonic() < until:
            with socket.socket() as client:
                client.setblocking(False)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                status = "closed"
                with contextlib.suppress(OSError, TimeoutError):
                    await loop.sock_connect(client, (address.hostname, address.port))
                    await loop.sock_sendall(client, request)
                    line = (await asyncio.wait_for(loop.sock_recv(client, 64), 60)).split()
                    status = line[1].decode() if len(line) > 1 else "closed"
                    while status == "200" and time.monotonic() < until:
                        if not await asyncio.wait_for(loop.sock_recv(client, 64), 30):
                            break
                        await asyncio.sleep(2)
                got[status] += 1
            await asyncio.sleep(0.5)

    await asyncio.gather(*(slow(number) for number in range(connections)))
    return got


async def flood_frames(target: Target, seconds: float, *, callers: int = 8) -> Got:
    """Streams that ping, cut messages into crumbs, or send nothing but the least frames, as fast as they are taken."""
    address, got, until = urlsplit(loopback(target.url)), Counter(), time.monotonic() + seconds
    upgrade = (
        f"GET /v1/stream HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    empty = bytes([0x80]) + bytes(4)  # masked, no data
    floods = [bytes([first]) + empty for first in (0x89, 0x8A, 0x81)]  # pings, pongs, empty messages
    floods += [b"\x01" + empty, b"\x00" + empty]  # a message that never ends

    async def flood(number: int) -> None:
        while time.monotonic() < until:
            status = "closed"
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                writer.write(upgrade.encode())
                status = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).split()[1].decode()
                writer.write(floods[3] if number % len(floods) == 4 else b"")
                for _ in range(100):
                    writer.write(floods[number % len(floods)] * 40_000)
                    await asyncio.wait_for(writer.drain(), 60)
                    await asyncio.wait_for(reader.read(1), 1)
            got[status] += 1
            writer.transport.abort()
            await asyncio.sleep(0.5)

    await asyncio.gather(*(flood(number) for number in range(callers)))
    return got
