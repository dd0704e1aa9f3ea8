"""What tests of jobs share: a tiny rendered dataset and what MediaPipe sees of it."""

import pytest

from refiner.data.aistpp import Dataset


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
