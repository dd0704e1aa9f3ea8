"""Where the floor is under a captured motion."""

import numpy as np

from refiner.skeleton import INDEX

# How high a joint is, metres, when what it belongs to stands, kneels, leans or lies on the floor.
IN_CONTACT = {"ankle": 0.08, "knee": 0.06, "hip": 0.10, "wrist": 0.02, "elbow": 0.03, "shoulder": 0.08}


def ground(poses: np.ndarray) -> float:
    """Height of the floor under a sequence, from the joints that come nearest to it: (T, 17, 3) metres, y up; NaN are gaps."""
    return min(
        float(np.nanpercentile(poses[:, INDEX[f"{side}_{joint}"], 1], 2)) - height
        for joint, height in IN_CONTACT.items()
        for side in ("left", "right")
    )
