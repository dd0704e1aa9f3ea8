"""A stream from Python: one pose in, the refined one out, as fast as a camera gives them. Needs neither Ray nor torch.

    with LiveClient("http://127.0.0.1:8000") as live:
        refined = live.refine(landmarks, visibility).refined  # (33, 3) m -> (17, 3) m

State (smoothing, bones) belongs to the connection. Where it breaks, because a replica died or was replaced, the next frame goes
over a new one.
"""

import random
import ssl
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import numpy as np
import orjson
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from refiner import UserError
from serve.client import WORTH_A_RETRY, Retries
from serve.guard import SUBPROTOCOL
from serve.stream.messages import Answer, Landmarks, encode


class LiveClient:
    """One stream. A context manager; for one thread."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        smooth: bool = True,
        timeout_s: float = 10.0,
        retries: Retries = Retries(),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            url: of the endpoint, http or https.
            token: where the endpoint wants one.
            smooth: over time, and bones of one length; False is each frame for itself.
            timeout_s: for one answer.
            retries: of connecting.
            tls: for https; None trusts what the system does.
        """
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme)
        if scheme is None:
            raise UserError(f"{url} is not an endpoint's address: it must begin with http:// or https://")
        path = parts.path.rstrip("/")
        self._url = f"{scheme}://{parts.netloc}{path}/v1/stream?smooth={'true' if smooth else 'false'}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s, self._retries, self._tls = timeout_s, retries, tls
        self._connection: ClientConnection | None = None
        self._chance = random.Random()
        self.model: dict[str, str] = {}
        """Name and version of what answered last."""

    def refine(
        self,
        pose: np.ndarray | Sequence[Sequence[float]],
        visibility: np.ndarray | None = None,
        *,
        image_points: np.ndarray | None = None,
        timestamp_us: int | None = None,
    ) -> Answer:
        """The next frame.

        Args:
            pose: (17 or 33, 3) m, MediaPipe's world landmarks.
            visibility: (17 or 33,).
            image_points: (17 or 33, 2) pixels; some models are better for it.
            timestamp_us: when it was taken, rising; None is now.

        Raises:
            UserError: the endpoint refuses it (its sentence says why), or gives no answer.
        """
        stamp = time.monotonic_ns() // 1000 if timestamp_us is None else timestamp_us
        frame = encode(Landmarks(np.asarray(pose, np.float32), visibility, image_points, stamp))
        for _ in range(2):
            connection = self._connection or self._connected()
            try:
                connection.send(frame)
                return self._answer(connection)
            except ConnectionClosed as closed:
                self.close()
                if closed.rcvd is not None and closed.rcvd.code in (1008, 1009):  # it is not to be tried again
                    raise UserError(f"the endpoint ended the stream: {closed.rcvd.reason}") from None
            except TimeoutError:
                self.close()
                raise UserError(f"{self._url} gave no answer in {self._timeout_s:g} s") from None
        raise UserError(f"{self._url} ended the stream twice in a row")

    def _answer(self, connection: ClientConnection) -> Answer:
        while True:
            message = connection.recv(self._timeout_s)
            if isinstance(message, bytes):
                return Answer.of(message)
            content = orjson.loads(message)
            if "error" in content:
                raise UserError(content["error"])
            self.model = content["model"]

    def _connected(self) -> ClientConnection:
        """
        Raises:
            UserError: the endpoint refuses the stream, or cannot be reached.
        """
        reason = ""
        for attempt in range(self._retries.attempts):
            try:
                self._connection = connect(
                    self._url, additional_headers=self._headers, subprotocols=[Subprotocol(SUBPROTOCOL)],
                    open_timeout=self._timeout_s, compression=None, ssl=self._tls, proxy=None,
                )  # fmt: skip
                return self._connection
            except InvalidStatus as error:
                if error.response.status_code not in WORTH_A_RETRY:
                    raise UserError(_detail(error)) from None
                reason = _detail(error)
            except (OSError, InvalidHandshake, TimeoutError) as error:
                reason = f"{type(error).__name__}: {error}"
            if attempt + 1 < self._retries.attempts:
                time.sleep(self._retries.pause(attempt, 0, self._chance))
        raise UserError(f"{self._url} cannot be reached: {reason}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _detail(error: InvalidStatus) -> str:
    try:
        return orjson.loads(error.response.body or b"")["detail"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.response.status_code}"
