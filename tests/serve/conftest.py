"""A replica's application in this process, as it stands before and behind Serve's queue."""

import shutil
from collections.abc import Callable

import pytest
from starlette.types import ASGIApp

from refiner.inference.depth_refiner import SHIPPED
from serve.deployments import RefineEndpoint
from serve.intake import Intake, body_limit
from serve.schemas import AppArgs
from tests.checkpoints import on_pytorch


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def make_replica(tmp_path_factory) -> Callable[..., RefineEndpoint]:
    """make_replica(max_poses=…): a replica with the model in the box."""

    def make(**args: object) -> RefineEndpoint:
        folder = tmp_path_factory.mktemp("served")
        checkpoint = on_pytorch(shutil.copytree(SHIPPED, folder / "checkpoint"))
        replica = RefineEndpoint(AppArgs(model=str(checkpoint), device="cpu", cache=str(folder / "cache"), **args))
        replica.app = replica.__serve_build_asgi_app__()
        return replica

    return make


@pytest.fixture(scope="session")
def replica(make_replica) -> RefineEndpoint:
    return make_replica()


def before_the_queue(replica: RefineEndpoint, queue: ASGIApp | None = None, **options: object) -> Intake:
    """As `serve.intake.middlewares` sets it up; `queue` in Serve's place."""
    return Intake(
        queue or replica.app,
        limit_of=lambda path: body_limit(path, replica.args),
        uploads=replica.uploads,
        memory=replica.memory,
        application=replica.app,
        tokens=replica.tokens,
        **options,
    )


@pytest.fixture(scope="session")
def application(replica) -> Intake:
    return before_the_queue(replica)
