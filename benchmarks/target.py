"""What attacks are played against (benchmarks/hostile.py, benchmarks/connections.py), which is never somebody else's."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from refiner import UserError

REFINE, VIDEO, INFER = "/v1/refine", "/v1/refine/video", "/v2/models/{name}/infer"
MP4 = "video/mp4"


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    name: str  # of the model
    video: bytes  # a small one with a person in it
    seed: int


Got = Counter[
    str
]  # statuses; "closed" is a connection that ended without an answer, "unanswered" one that took too long
Attack = Callable[[Target, float], Awaitable[Got]]


def loopback(url: str) -> str:
    """
    Raises:
        UserError: it is somebody else's.
    """
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(f"{url} is not on this machine: attacks are played against loopback only")
    return url
