"""Finding what has an endpoint refine: `serve` registers it, since the library knows nothing of the packages that use it."""

from importlib.metadata import entry_points
from typing import Any

from refiner.errors import UserError

GROUP = "pose_depth_refiner.remote"


def remote_refiner(url: str, token: str) -> Any:
    """What `refined_observations` asks of a `DepthRefiner`, by an endpoint: `serve.remote.RemoteRefiner`.

    Raises:
        UserError: this installation is not whole, or as the endpoint's own.
    """
    for entry in entry_points(group=GROUP, name="http"):
        return entry.load()(url, token)
    raise UserError("--endpoint needs the package 'serve', which is not installed: install pose-depth-refiner again")
