"""TRC: marker trajectories for OpenSim and OpenCap, millimetres, y up."""

from pathlib import Path

import numpy as np

from refiner.formats.motion import MARKERS, Motion

MM = 1000.0


def write(motion: Motion, path: Path) -> None:
    """Writes the joints as markers under OpenPose's names; a marker's cells are empty while the person is not seen."""
    even, seen = motion.even()
    markers = MM * even.markers()
    rate = f"{even.fps:.6f}"
    heads = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate}\t{rate}\t{len(even)}\t{len(MARKERS)}\tmm\t{rate}\t1\t{len(even)}",
        "Frame#\tTime\t" + "\t\t\t".join(MARKERS) + "\t\t",
        "\t\t" + "\t".join(f"X{i}\tY{i}\tZ{i}" for i in range(1, len(MARKERS) + 1)),
        "",
    ]
    blank = "\t" * (3 * len(MARKERS))  # OpenSim drops what stands behind the last tab
    rows = [
        f"{n + 1}\t{time:.6f}\t" + ("\t".join(f"{value:.4f}" for value in row) if there else blank)
        for n, (time, row, there) in enumerate(
            zip(even.seconds - even.seconds[0], markers.reshape(len(even), -1), seen, strict=True)
        )
    ]
    path.write_text("\n".join([*heads, *rows]) + "\n")
    assert np.isfinite(markers).all()
