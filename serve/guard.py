"""Who may call: bearer tokens, and pages of other origins. Tokens are read from a file and from the environment, several at
once, so that one can be replaced without anybody being locked out meanwhile. For WebSockets browsers ask nobody first, so the
endpoint looks at the origin itself.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from refiner import UserError
from serve.codec.inference import HEADER_LENGTH
from serve.problems import problem

# Of an answer's headers what a page in a browser may read.
EXPOSED_HEADERS = ["x-model-version", "x-request-id", "retry-after", "www-authenticate", HEADER_LENGTH]
VARIABLE = "POSE_API_TOKENS"
# How callers show that they may: in OpenAPI's terms.
SCHEME = {"type": "http", "scheme": "bearer", "description": "One of this endpoint's tokens, if it wants one."}
# What load balancers and schedulers ask without a token, and what tells a person how to send one; they learn nothing from it.
OPEN_PATHS = {"/", "/healthz", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"}
OPEN_FOLDERS = ("/docs/", "/page/")
# What a stream's client names as its subprotocol; beside it a browser, which can send no header, names its token:
# "bearer." and the token in base64url without padding.
SUBPROTOCOL, BEARER = "pose-stream.v1", "bearer."


def is_open(path: str) -> bool:
    """Whether anybody may ask for it."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def is_file(path: str) -> bool:
    """Whether what is there is a file, as it lies on the disk."""
    return path in ("/", "/v1/refined.task") or path.startswith(OPEN_FOLDERS)


def token_of(scope: Scope) -> bytes:
    """The Authorization header, or what a WebSocket's client has in its place."""
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if not header and scope["type"] == "websocket":
        named = next((name for name in scope["subprotocols"] if name.startswith(BEARER)), BEARER).removeprefix(BEARER)
        try:
            header = b"Bearer " + base64.urlsafe_b64decode(named + "=" * (-len(named) % 4))
        except (binascii.Error, ValueError):
            return b""
    return header


def subprotocols(token: str | None) -> list[str]:
    """What a stream's client names where it can send no header."""
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=") if token else ""
    return [SUBPROTOCOL, *([BEARER + encoded] if token else [])]


class Tokens:
    def __init__(self, file: str | None, environ: Mapping[str, str]) -> None:
        """
        Raises:
            UserError: the file is missing or has no token in it.
        """
        self._file = Path(file) if file else None
        self._fixed = [token.strip().encode() for token in environ.get(VARIABLE, "").split(",") if token.strip()]
        self._read: list[bytes] = []
        self._changed = -1
        self._refresh()
        if self._file and not self._read:
            raise UserError(f"{self._file} holds no token: write one into it, or leave out token_file")

    @property
    def wanted(self) -> bool:
        return self._file is not None or bool(self._fixed)

    def admit(self, header: bytes) -> bool:
        """Whether an Authorization header carries one of the tokens; takes the same time whichever it is."""
        self._refresh()
        scheme, _, given = header.partition(b" ")
        fits = [hmac.compare_digest(given.strip(), token) for token in self._fixed + self._read]
        return scheme.lower() == b"bearer" and any(fits)

    def _refresh(self) -> None:
        if self._file is None:
            return
        try:
            changed = os.stat(self._file).st_mtime_ns
            if changed != self._changed:
                self._read = [line.strip() for line in self._file.read_bytes().splitlines() if line.strip()]
                self._changed = changed
        except OSError as error:
            if self._changed == -1:
                raise UserError(
                    f"{self._file} cannot be read ({error.strerror}): it must hold one token a line"
                ) from None


class Guard:
    """ASGI middleware: 401 to whoever has no token."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self.app, self.tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] in ("http", "websocket")
        if asks and not is_open(scope["path"]) and not self.tokens.admit(token_of(scope)):
            refusal = problem(
                401,
                "send one of this endpoint's tokens as 'Authorization: Bearer …'",
                {"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)


def across_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """ASGI middleware: lets pages of these origins read the answers, refusals among them, and answers their preflights."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],  # as asked for: authorization, and what clients of other protocols add
        expose_headers=EXPOSED_HEADERS,
    )


class Origins:
    """ASGI middleware: 403 to a page of another origin that opens a stream, unless it is named. Who is no browser says none."""

    def __init__(self, app: ASGIApp, named: Sequence[str]) -> None:
        self.app, self.named = app, frozenset(named)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and not self._admits(Headers(scope=scope)):
            refusal = problem(403, "scripts of this page's origin may not open a stream: name it in cors_origins")
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _admits(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or "*" in self.named or origin in self.named:
            return True
        return bool(host := urlsplit(origin).netloc) and host == headers.get("host")
