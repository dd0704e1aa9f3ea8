"""The science: poses, cameras, the AIST++ dataset, the depth refiner. A plain library, without Ray or a web framework.

from refiner import DepthRefiner
refined = DepthRefiner("models:/pose-depth-refiner@champion").refine(pose, visibility)
"""

from typing import TYPE_CHECKING, Any

from refiner.errors import UserError

if TYPE_CHECKING:
    from refiner.inference.depth_refiner import DepthRefiner

__all__ = ["DepthRefiner", "UserError"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported when asked for: the studio and the extraction need no torch, and importing it takes a second.
    if name == "DepthRefiner":
        from refiner.inference.depth_refiner import DepthRefiner

        return DepthRefiner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
