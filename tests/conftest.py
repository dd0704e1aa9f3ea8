"""What tests share. Real data is used where it lies beside the checkout, and its tests skip where it does not."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from xdist.remote import Producer

from cluster.local import local_cluster
from cluster.running import CHECKOUT, Cluster
from refiner.geometry import Camera
from tests import invented
from tests.schedule import Together

# The two parts of the suite, as the Makefile asks for them.
FAST, SLOW = "not cluster and not slow and not survival", "cluster or slow"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: networks that are tiny only make more of them wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def copy_checkout() -> Callable[[Path], Path]:
    """`copy_checkout(folder)` makes it what git would hand to somebody else, uncommitted changes included."""

    def copy(folder: Path) -> Path:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (CHECKOUT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, folder / name)
        return folder

    return copy


@pytest.fixture(scope="session")
def aistpp() -> Path:
    """Root of real AIST++ annotations (three sequences, all cameras)."""
    return _shared("aistpp")


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder of small real videos that went wrong once."""
    return _shared("cases")


@pytest.fixture(scope="session")
def real_people() -> Path:
    """Folder of four synchronous real videos. A yardstick: nothing is trained, tuned or selected on it."""
    return _shared("real_people")


@pytest.fixture(scope="session")
def ring() -> list[Camera]:
    """Four calibrated cameras with distortion around a person at the world's origin, z up, as in a motion laboratory."""
    cameras = []
    for i, angle in enumerate(np.radians([20, 100, 200, 290])):
        position = np.array([3.5 * np.cos(angle), 3.5 * np.sin(angle), 1.0 + 0.3 * i])
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, [0, 0, 1]) / np.linalg.norm(np.cross(forward, [0, 0, 1]))
        rotation = np.stack([right, np.cross(forward, right), forward])
        cameras.append(
            Camera(
                f"cam{i + 1:02d}",
                (1088, 1920),
                np.array([[1680.0, 0, 540], [0, 1675, 955], [0, 0, 1]]),
                np.array([-0.05, 0.13, 0.0006, -0.0005, 0.01]),
                rotation,
                -rotation @ position,
            )
        )
    return cameras


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without a test of the part that is run are not imported: Ray, MLflow and PyTorch take seconds of each process."""
    part = config.getoption("markexpr")
    if not collection_path.name.startswith("test_") or part not in (FAST, SLOW):
        return None
    text = collection_path.read_text()
    whole = re.search(
        r"^pytestmark = (?:pytest\.mark\.|\[\n    pytest\.mark\.)(?:cluster|slow|survival)\b", text, re.MULTILINE
    )
    return True if (whole if part == FAST else not re.search(r"mark\.(cluster|slow)\b", text)) else None


def pytest_configure() -> None:
    # Ray settles at its import whether it wants a token and whether 127.0.0.1 may stay what it is (see cluster.local); the
    # session's cluster comes later than that
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Networks here are tiny: threads would only wait for each other, and spin on a core that somebody else wants.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together | None:
    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """The session's one Ray and MLflow. Its addresses are in the environment, so `ray_session()` and MLflow find it too."""
    with local_cluster(tmp_path_factory.mktemp("cluster"), usual_ports=False) as running:
        before = dict(os.environ)
        os.environ.update(running.env)
        yield running
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def register_model(tmp_path_factory) -> Callable[..., str]:
    """register_model(seed=0, scale=0.3, name=NAME, onnx=False): registers a refiner with random weights; its version.

    Replicas put ONNX Runtime in PyTorch's place only where `onnx` says so: making its file takes 12 s of a core.
    """
    import torch

    from refiner import registry
    from refiner.model.checkpoint import save_checkpoint
    from refiner.model.config import RefinerConfig
    from refiner.model.network import PoseAwareDepthRefiner
    from tests.checkpoints import on_pytorch

    def register(seed: int = 0, scale: float = 0.3, name: str = registry.NAME, *, onnx: bool = False) -> str:
        torch.manual_seed(seed)
        model = PoseAwareDepthRefiner(RefinerConfig(smoothing_s=0.05))
        for head in (model.encoder.correction[-1], model.encoder.scale[-1]):
            torch.nn.init.normal_(head.weight, std=scale)
        checkpoint = save_checkpoint(model, tmp_path_factory.mktemp("checkpoint"))
        if not onnx:
            on_pytorch(checkpoint)
        example = np.zeros((1, 17, 3), np.float32), np.ones((1, 17), np.float32)
        run = registry.start_run(f"random-{seed}", {})
        tags = {"dataset_fingerprint": "none"}
        return registry.register(checkpoint, run, name=name, example=example, metrics={}, tags=tags)

    return register


@pytest.fixture(scope="session")
def endpoint(cluster, register_model) -> str:
    """URL of the session's endpoint: serve/config.yaml as it is, serving a registered champion."""
    from refiner import registry

    registry.set_alias(registry.NAME, registry.CHAMPION, register_model(onnx=True))
    return cluster.deploy(CHECKOUT / "serve/config.yaml", port=0)


@pytest.fixture(scope="session")
def make_pairs():
    """`make_pairs(sequences, …)`: pairs of invented people, see `tests.invented`."""
    return invented.make_pairs
