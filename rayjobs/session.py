"""A job's connection to Ray."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import doctor, quiet
from refiner import UserError, telemetry
from refiner.command import cores, logical_cpus

TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}  # what names the token that a Ray's processes show each other


@contextmanager
def ray_session() -> Iterator[None]:
    """A connection to Ray: the cluster this job was submitted to (RAY_ADDRESS), else a Ray of its own on this machine.

    A connection that is there already (a test's, a notebook's) is used and left open.

    Raises:
        UserError: no cluster answers at RAY_ADDRESS.
    """
    telemetry.turn_off()
    import ray

    if ray.is_initialized():
        yield
        return
    if not os.environ.get("RAY_ADDRESS", "").strip():
        os.environ.pop("RAY_ADDRESS", None)  # set to nothing, which Ray would wait for
    if "RAY_ADDRESS" in os.environ:
        if (problem := doctor.ray_address(os.environ)) is not None:
            raise UserError(problem)
        ray.init(address="auto", log_to_driver=True, logging_level=logging.WARNING)
    else:
        if doctor.temporary_folder(os.environ) is not None:
            os.environ["RAY_TMPDIR"] = "/tmp"  # Ray's sockets need a short and writable one
        if not TOKENS & os.environ.keys() and not doctor.writable(Path(os.environ.get("HOME") or "/")):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()  # which Ray would write into a file there
        quiet.hush()
        # More logical CPUs than cores: a pool of actors, one per core, must leave room for readers and writers.
        ray.init(
            num_cpus=logical_cpus(),
            include_dashboard=False,
            logging_level=logging.WARNING,
            # Ray Train's actors warn each second that there is no dashboard to ask
            logging_config=ray.LoggingConfig(log_level="ERROR"),
        )
    try:
        yield
    finally:
        ray.shutdown()


def cluster_cores() -> int:
    """Cores of the cluster that this process is connected to, or its CPUs where Ray was told of fewer.

    Ray's own count is no measure: it may be set above the cores (see `ray_session`), and work that computes on every
    logical CPU would then only get in its own way.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    count = ray.remote(num_cpus=0)(cores)
    pieces = []
    for node in ray.nodes():
        cpus = int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0
        if cpus:
            on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            pieces.append(
                (cpus, cores() if node["NodeID"] == here else count.options(scheduling_strategy=on_node).remote())
            )
    return sum(min(cpus, at if isinstance(at, int) else ray.get(at)) for cpus, at in pieces)


def quiet_ray_data() -> None:
    """Turns Ray Data's own progress bars and messages off: jobs report their own progress."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # videos take minutes, and actors guard against those that hang
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)
