"""An application on a real server, on loopback, in this process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from starlette.types import ASGIApp

from serve.one_write import OneWrite


@contextlib.asynccontextmanager
async def served(application: ASGIApp, buffer: int | None = None, **options: object) -> AsyncIterator[int]:
    """Its port. `buffer` bytes of an answer wait in the kernel, which else takes a small file whole; `options` of uvicorn."""
    options = {"http": OneWrite, **options}  # as `serve.intake.set_up_server` has it
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off", **options))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = server.force_exit = True
        await task
