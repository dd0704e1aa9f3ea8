"""C3D: marker trajectories for biomechanics' tools (Visual3D, Mokka, MATLAB), millimetres, y up."""

from pathlib import Path

import numpy as np

from refiner.formats.motion import MARKERS, Motion

MM = 1000.0


def write(motion: Motion, path: Path) -> None:
    """Writes the joints as markers under OpenPose's names; the residual is −1 while the person is not seen."""
    import ezc3d

    even, seen = motion.even()
    points = np.ones((4, len(MARKERS), len(even)))
    points[:3] = MM * even.markers().transpose(2, 1, 0)
    points[:3, :, ~seen] = np.nan
    content = ezc3d.c3d()
    content["parameters"]["POINT"]["RATE"]["value"] = [even.fps]
    content["parameters"]["POINT"]["LABELS"]["value"] = MARKERS
    content["parameters"]["POINT"]["UNITS"]["value"] = ["mm"]
    content.add_parameter("POINT", "X_SCREEN", ["+X"])
    content.add_parameter("POINT", "Y_SCREEN", ["+Y"])
    content["data"]["points"] = points
    content["data"]["meta_points"]["residuals"] = np.where(seen, 0.0, -1.0)[None, None].repeat(len(MARKERS), axis=1)
    content.write(str(path))
