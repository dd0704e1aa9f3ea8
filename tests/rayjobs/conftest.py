"""What tests of jobs share: a tiny rendered dataset and what MediaPipe sees of it."""

import pytest

from refiner.data.aistpp import Dataset
from tests.connection import connection
from tests.stores import CREDENTIALS, object_store


@pytest.fixture(scope="session")
def studio_dataset(cluster, tmp_path_factory) -> Dataset:
    """Four dancers, nine cameras, a fifth of a second: AIST++'s layout with videos and exact truth."""
    from rayjobs import studio

    root = tmp_path_factory.mktemp("studio")
    studio.run(studio.Options(out=str(root), sequences=4, seconds=0.2))
    return Dataset(root)


@pytest.fixture(scope="session")
def studio_observations(studio_dataset, tmp_path_factory):
    """Folder of the observations of `studio_dataset`."""
    from rayjobs import extract

    out = tmp_path_factory.mktemp("observations")
    extract.run(extract.Options(videos=str(studio_dataset.videos), out=str(out)))
    return out


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """URL of an S3 server with one empty bucket, on a free port of loopback."""
    with object_store(tmp_path_factory.mktemp("moto"), "archive") as url:
        yield url


@pytest.fixture
def store(cluster, server, monkeypatch):
    """The environment that says where the store is and who we are, here and in the cluster's workers."""
    environment = {"AWS_ENDPOINT_URL": server, **CREDENTIALS}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with connection(cluster, environment):
        yield "s3://archive"
