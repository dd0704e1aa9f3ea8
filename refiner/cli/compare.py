"""refiner compare: two results of `refiner video` against each other, or a result against a truth."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from zipfile import BadZipFile

import numpy as np
import tyro

from refiner.cli.help import Flag, takes
from refiner.data import records
from refiner.errors import UserError
from refiner.evaluation import metrics
from refiner.inference.validation import validate_poses
from refiner.skeleton import JOINTS, NUM_JOINTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Say how far two results are apart, by person and frame.

    Give Parquet files of `refiner video`, or NPZ files with `poses` and `frames`.
    """

    a: Annotated[Path, tyro.conf.Positional, takes("RESULT")]
    """A result of `refiner video`."""
    b: Annotated[Path, tyro.conf.Positional, takes("OTHER")]
    """Another, or the truth."""
    json: Flag = False
    """Print one JSON object."""


def run(options: Options) -> int:
    """Prints the mean distances; returns the exit status."""
    (moments_a, a), (moments_b, b) = read(options.a), read(options.b)
    rows_a, rows_b = ({moment: row for row, moment in enumerate(m)} for m in (moments_a, moments_b))
    common = sorted(rows_a.keys() & rows_b.keys())
    if not common:
        raise UserError(f"{options.a} and {options.b} have no frame in common")
    a, b = a[[rows_a[moment] for moment in common]], b[[rows_b[moment] for moment in common]]
    depth = metrics.depth_error(a, b) * metrics.CM
    figures = {
        "frames": len(common),
        "depth_cm": float(depth.mean()),
        "mpjpe_cm": float(metrics.joint_error(a, b).mean() * metrics.CM),
        "pa_mpjpe_cm": float(metrics.aligned_joint_error(a, b).mean() * metrics.CM),
        "depth_cm_by_joint": dict(zip(JOINTS, depth.mean(0).round(3).tolist(), strict=True)),
    }
    if options.json:
        print(json.dumps(figures))
        return 0
    people = len({person for person, _ in common})
    several = f" of {people} people" if people > 1 else ""
    print(f"{len(common):,} frames{several} in common; about the hips")
    for name, key in (("mean |Δz|", "depth_cm"), ("MPJPE", "mpjpe_cm"), ("PA-MPJPE", "pa_mpjpe_cm")):
        print(f"{name:<16}{figures[key]:6.2f} cm")
    for joint, value in figures["depth_cm_by_joint"].items():
        print(f"  {joint.replace('_', ' '):<16}{value:6.2f} cm in depth")
    return 0


def read(path: Path) -> tuple[list[tuple[int, int]], np.ndarray]:
    """N numbers of person and frame, and (N, 17, 3) poses in metres, of a result.

    Raises:
        UserError: it is missing, or something else.
    """
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                frames, poses = arrays["frames"], arrays["poses"]
                person = arrays["person"] if "person" in arrays else np.zeros(frames.shape, int)
                if "joint_names" in arrays:
                    raise UserError(
                        f"{path} holds joints in the room (--to npz), whose axes are not those of poses about the hips: "
                        "give the .refined.parquet beside it"
                    )
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise UserError(f"{path} is not an NPZ file with 'frames' and 'poses' ({error})") from None
        if not frames.shape == person.shape == poses.shape[:1]:
            raise UserError(f"{path} must have one frame, and where there are several people one person, for each pose")
        poses, _ = validate_poses(poses, recognise=False)
    else:
        table = records.read_table(path, records.REFINED, ["frame", "pose", "person"])
        frames, poses, person = (records.column(table, name) for name in ("frame", "pose", "person"))
    if len(set(moments := list(zip(person.tolist(), frames.tolist(), strict=True)))) < len(moments):
        raise UserError(f"{path} has several poses of one person in one frame: leave one of them")
    if poses.shape != (len(frames), NUM_JOINTS, 3):
        raise UserError(f"{path} holds poses of the shape {poses.shape}: expected (frames, 17, 3) metres")
    return moments, poses
