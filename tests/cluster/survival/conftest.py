"""A cluster of four Ray nodes, and a book in which each test writes what it counted, which becomes a table."""

import os
from collections.abc import Callable, Iterator

import pytest

from cluster.local import local_cluster
from cluster.network import HERE, switch
from cluster.running import CHECKOUT
from tests.nodes import NODES, Nodes
from tests.stores import CREDENTIALS, Stores, all_stores, object_store
from tests.waiting import wait_for

TABLE = CHECKOUT / "runs" / "cluster-test.md"


@pytest.fixture(scope="session")
def nodes(tmp_path_factory) -> Iterator[Nodes]:
    with local_cluster(tmp_path_factory.mktemp("cluster"), usual_ports=False, nodes=NODES) as cluster:
        before = dict(os.environ)
        os.environ.update(cluster.env)
        there = Nodes(cluster)
        wait_for(lambda: len(there.raylets()) == NODES - 1)
        yield there
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def book() -> Iterator[Callable[..., None]]:
    """`book(what, **counts)`: a line of the table."""
    lines: list[str] = []

    def write(what: str, **counts: object) -> None:
        counted = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
        lines.append(f"| {what} | {counted} |")

    yield write
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(["| what fails | what was counted |", "| --- | --- |", *lines]) + "\n")


@pytest.fixture(scope="session")
def bridge() -> Iterator[str]:
    with switch() as name:
        yield name


@pytest.fixture(scope="session")
def store(bridge, tmp_path_factory) -> Iterator[dict[str, str]]:
    """What finds an S3 server with the bucket "poses" in the environment, from every host of the network."""
    with object_store(tmp_path_factory.mktemp("moto"), "poses", HERE) as url, pytest.MonkeyPatch.context() as patch:
        environment = {"AWS_ENDPOINT_URL": url, **CREDENTIALS}
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Iterator[Stores]:
    with all_stores(tmp_path_factory.mktemp("stores")) as there:
        yield there
