"""A connection to Ray that ends with the test that made it: the next one wants an environment of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cluster.running import Cluster


@contextmanager
def connection(cluster: Cluster, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Connects this process to the cluster; its workers have `environment` besides their own."""
    import ray  # not at the top: conftest.py files are imported before tests/conftest.py has settled what Ray looks at then

    ray.init(address=cluster.ray_address, runtime_env={"env_vars": dict(environment or {})})
    try:
        yield
    finally:
        ray.shutdown()
