"""`ray start` with a dashboard that calls nobody.

    python cluster/quiet.py start --head …

Where usage reports are off, Ray's dashboard still asks the metadata servers of three clouds where it runs (169.254.169.254,
metadata.google.internal), and reports that it reports nothing. `refiner.telemetry` stops the second. There is no option for the
first; but nobody is asked where the dashboard's home folder has `ray_bootstrap_config.yaml`, as this folder does. Only the
dashboard gets another home, for workers have caches and credentials in theirs.
"""

import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def of_dashboard(environ: Mapping[str, str]) -> dict[str, str]:
    """What the dashboard finds in its environment in place of what is there."""
    token = Path(environ.get("HOME") or "/", ".ray", "auth_token")
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & environ.keys()
    return {"HOME": str(HERE), **({} if named else {"RAY_AUTH_TOKEN_PATH": str(token)})}


def hush() -> None:
    """From now on a Ray that this process starts has such a dashboard."""
    from ray._private import ray_constants, services

    start = services.start_ray_process
    if hasattr(start, "__wrapped__"):
        return  # done before

    @functools.wraps(start)
    def started(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            kwargs["env_updates"] = {**(kwargs.get("env_updates") or {}), **of_dashboard(os.environ)}
        return start(command, process_type, *args, **kwargs)

    services.start_ray_process = started


if __name__ == "__main__":
    sys.path.remove(str(HERE))  # modules here are not to be found without their package's name
    hush()
    from ray.scripts import scripts

    sys.exit(scripts.main())
