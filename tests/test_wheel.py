"""The wheel as somebody gets it: what is in it, and what works in an environment that has nothing else.

Environments are real ones (`python -m venv`), into which pip installs the wheel. What it depends on is linked from the running
interpreter's packages, distribution by distribution as their metadata require one another: the same files as a download would
bring, without the gigabytes; what is not listed is not there.
"""

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import refiner
from refiner.data import records
from refiner.extras import DISTRIBUTION, EXTRAS
from refiner.skeleton import to_coco

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("refiner", "studio", "rayjobs", "serve", "cluster")
# What refining, training and the commands that need no Ray import.
BARE = ("numpy", "torch", "safetensors", "pyarrow", "scipy", "av", "tyro")
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, copy_checkout) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("wheel") / "checkout")


@pytest.fixture(scope="module")
def wheel(checkout) -> Path:
    """What `make release` built; else built the same way, through the sdist, but with this environment's setuptools."""
    if "DIST" in os.environ:
        (path,) = (CHECKOUT / os.environ["DIST"]).glob("*.whl")
        return path
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", checkout], check=True, capture_output=True)
    (path,) = (checkout / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel) -> Metadata:
    with zipfile.ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        return Metadata.from_email(content.read(name), validate=True)


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Callable[..., Run]:
    """`environment(requirements, without=…)` makes one of the wheel and of what these bring, and gives what runs its Python."""

    def make(requirements: list[Requirement], without: set[str] = frozenset()) -> Run:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder / "venv", symlinks=True)
        python = folder / "venv/bin/python"
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--no-deps",
            "--no-index",
            "--quiet",
            wheel,
        ]
        subprocess.run(install, check=True, capture_output=True)
        (packages,) = (folder / "venv/lib").glob("python*/site-packages")
        for needed in closure(requirements):
            link(needed, packages, without)

        def run(*arguments: str | Path) -> subprocess.CompletedProcess:
            # -P: not the folder it runs in, and no variable either, may bring the checkout's own modules
            command = [python, "-P", *arguments]
            return subprocess.run(command, cwd=folder, env={"HOME": str(folder)}, capture_output=True, text=True)

        return run

    return make


def closure(requirements: list[Requirement]) -> list[Distribution]:
    """The installed distributions that these requirements bring, theirs included."""
    needed: dict[str, Distribution] = {}
    todo, done = [(r.name, extra) for r in requirements for extra in ("", *r.extras)], set()
    while todo:
        name, extra = todo.pop()
        if (canonicalize_name(name), extra) in done:
            continue
        done.add((canonicalize_name(name), extra))
        needed[canonicalize_name(name)] = distribution(name)
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(requirement.name, inner) for inner in ("", *requirement.extras)]
    return list(needed.values())


def link(needed: Distribution, packages: Path, without: set[str]) -> None:
    """Links a distribution's folders and modules, and its metadata, into an environment."""
    for name in {file.parts[0] for file in needed.files or []} - {"..", "__pycache__", *without}:
        if not (packages / name).exists():  # a namespace that several share, as `google`
            (packages / name).symlink_to(Path(str(needed.locate_file(name))).resolve())


@pytest.fixture(scope="module")
def bare(environment) -> Run:
    """Without Ray, MLflow, MediaPipe, a web framework and every extra."""
    run = environment([Requirement(name) for name in BARE])
    absent = ("ray", "mlflow", "mediapipe", "cv2", "fastapi", "pandas", "httpx", *EXTRAS)
    code = f"from refiner.extras import is_there; print([name for name in {absent} if is_there(name)])"
    assert run("-c", code).stdout.strip() in ("[]", "['jinja2']")  # PyTorch brings Jinja
    return run


@pytest.fixture(scope="module")
def without_extras(environment, metadata) -> Run:
    """All that `pip install` of the wheel brings, and nothing of what the extras are for."""
    requirements = [r for r in metadata.requires_dist or [] if r.marker is None or r.marker.evaluate({"extra": ""})]
    return environment(requirements, without=set(EXTRAS))


def test_it_holds_what_git_has_in_the_packages_and_nothing_else(wheel, checkout):
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(checkout).as_posix()
        for package in PACKAGES
        for path in (checkout / package).rglob("*")
        if path.is_file() and path.suffix not in (".md", "") and "egg-info" not in str(path)
    }
    assert names == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {Path(name).suffix for name in names} >= {".py", ".yaml", ".j2", ".json", ".safetensors"}


def test_its_version_is_told_in_one_place(metadata, wheel):
    assert str(metadata.version) == refiner.__version__ and f"-{refiner.__version__}-" in wheel.name
    assert metadata.name == DISTRIBUTION and metadata.license_files == ["LICENSE", "NOTICE"]
    assert metadata.description.startswith("# Pose depth refiner")


def test_each_package_of_an_extra_is_brought_by_that_extra_alone(metadata):
    imported = {"skimage": "scikit-image", "ai_edge_litert": "ai-edge-litert", "rerun": "rerun-sdk"}
    imported |= {"grafana_foundation_sdk": "grafana-foundation-sdk"}
    imported |= {"opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http"}
    for package, extra in EXTRAS.items():
        markers = [r.marker for r in metadata.requires_dist or [] if r.name == imported.get(package, package)]
        assert all(markers) and any(marker.evaluate({"extra": extra}) for marker in markers)
        assert not any(marker.evaluate({"extra": ""}) for marker in markers)
    own = [r for r in metadata.requires_dist or [] if r.name == DISTRIBUTION and r.marker.evaluate({"extra": "all"})]
    assert set().union(*(r.extras for r in own)) == set(EXTRAS.values())


def test_a_bare_environment_refines_a_pose(bare, tmp_path):
    landmarks = np.array(json.loads((CHECKOUT / "docs/pose.json").read_text())["poses"], np.float32)[0]  # (33, 3) m
    np.save(tmp_path / "landmarks.npy", landmarks)
    code = """
import sys
import numpy as np
from refiner import DepthRefiner
source, target = sys.argv[1:]
np.save(target, DepthRefiner().refine(np.load(source)))
"""
    done = bare("-c", code, tmp_path / "landmarks.npy", tmp_path / "refined.npy")
    assert done.returncode == 0, done.stderr
    expected, raw = refiner.DepthRefiner().refine(landmarks), to_coco(landmarks)
    assert np.abs(expected[:, 2] - raw[:, 2]).max() > 0.01  # it was refined
    np.testing.assert_allclose(np.load(tmp_path / "refined.npy"), expected, atol=1e-5)


def test_a_bare_environment_trains(bare, make_pairs, tmp_path):
    for name, pairs in (("train", make_pairs(16, seed=1)), ("val", make_pairs(4, seed=2, first=50))):
        records.export_npz(pairs, tmp_path / f"{name}.npz")
    code = """
import sys
import torch
from refiner import DepthRefiner
from refiner.data.records import import_npz
from refiner.model.checkpoint import save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.training.trainer import Trainer, TrainingConfig, TrainingData, initialise
torch.set_num_threads(1)
config, training = RefinerConfig(encoder="whole_pose", width=32, layers=1, axes="xyz"), TrainingConfig(epochs=4)
train, val = (TrainingData(import_npz(f"{sys.argv[1]}/{name}.npz"), config) for name in ("train", "val"))
trainer = Trainer(initialise(config, training, train), training, train, val)
print(*(figures["train/loss"] for figures in trainer.epochs()))
save_checkpoint(trainer.best_model(), f"{sys.argv[1]}/checkpoint")
print(DepthRefiner(f"{sys.argv[1]}/checkpoint").refine(import_npz(f"{sys.argv[1]}/val.npz").corrupted).shape)
assert "ray" not in sys.modules and "mlflow" not in sys.modules
"""
    done = bare("-c", code, tmp_path)
    assert done.returncode == 0, done.stderr
    losses, shape = done.stdout.splitlines()
    first, *_, last = map(float, losses.split())
    assert last < first and shape == str((4 * 2 * 24, 17, 3))


def test_a_registered_model_without_mlflow_is_one_sentence(bare):
    done = bare("-c", "from refiner import DepthRefiner; DepthRefiner('models:/pose-depth-refiner@champion')")
    assert done.stderr.splitlines()[-1].endswith(
        "the registry needs mlflow, which is not installed: run pip install 'pose-depth-refiner'"
    )


@pytest.mark.parametrize("job", ["pair", "simulate", "evaluate", "motions"])
def test_jobs_that_need_no_ray_are_there_without_it(bare, job):
    done = bare("-m", f"rayjobs.{job}", "--help")
    assert done.returncode == 0 and "--out" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [
        ("rayjobs.studio", ("--out", "data"), "studio"),
        ("rayjobs.motions", ("--out", "data", "--source", "deepmimic"), "studio"),
        ("rayjobs.demo", (), "demo,studio"),
    ],
)
def test_a_command_that_lacks_its_extra_says_so_in_one_sentence(without_extras, module, options, extra):
    helped = without_extras("-m", module, "--help")
    assert helped.returncode == 0, helped.stderr
    done = without_extras("-m", module, *options)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and line.endswith(f"not installed: run pip install 'pose-depth-refiner[{extra}]'")


@pytest.mark.parametrize(("package", "format", "extra"), [("ezc3d", "c3d", "formats"), ("pygltflib", "glb", "formats")])
def test_a_format_that_lacks_its_extra_says_so_in_one_sentence(without_extras, package, format, extra):
    done = without_extras("-c", f"from refiner import formats; formats.check('{format}')")
    assert done.stderr.splitlines()[-1].endswith(
        f"{package}, which is not installed: run pip install 'pose-depth-refiner[{extra}]'"
    )


def test_the_library_imports_whole_without_extras(without_extras):
    """Every module of the library, the jobs and the endpoint, but for the studio's."""
    code = f"""
import importlib, pkgutil
for package in {sorted({*PACKAGES} - {"studio"})}:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""
    done = without_extras("-c", code)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 60
