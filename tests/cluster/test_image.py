"""cluster/Dockerfile and compose.yaml, as far as that goes where no Docker daemon is."""

import re
import shlex
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

import refiner
from cluster import credentials
from cluster.running import CHECKOUT
from refiner.telemetry import OFF

INSTRUCTIONS = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"}


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument of each, comments left out and lines joined, as Docker reads them."""
    lines = [
        line for line in (CHECKOUT / "cluster/Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    words = [word for name, argument in instructions() if name == "ENV" for word in shlex.split(argument)]
    return dict(word.split("=", 1) for word in words)


def test_every_instruction_is_one_and_ends_as_nobody_in_particular():
    names = [name for name, _ in instructions()]
    assert set(names) <= INSTRUCTIONS
    assert names.index("FROM") == 1 and names[0] == "ARG"  # the Python's version
    (user,) = (argument for name, argument in instructions() if name == "USER")
    assert user == "ray"
    # what may run as root is what installs
    for name, argument in instructions()[names.index("USER") :]:
        assert name != "RUN" or not re.search(r"\b(apt-get|pip|useradd|chown)\b", argument)


def test_the_image_says_what_the_code_says():
    assert environment().items() >= OFF.items()
    assert environment()["RAY_AUTH_MODE"] == "token"


def test_what_is_copied_is_there_and_is_all_of_the_packages():
    copied = [path for name, argument in instructions() if name == "COPY" for path in argument.split()[:-1]]
    assert all((CHECKOUT / path).exists() for path in copied)
    makefile = (CHECKOUT / "Makefile").read_text()
    packages = re.search(r"^PACKAGES := (.*)$", makefile, re.MULTILINE)
    assert packages and set(packages[1].split()) <= set(copied)


def test_the_extras_that_it_installs_exist():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    asked = re.search(r'"\.\[([a-z,]+)\]"', str(instructions()))
    assert asked and set(asked[1].split(",")) <= set(project["optional-dependencies"])


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell to ask")
def test_every_command_is_one_to_a_shell():
    for name, argument in instructions():
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", argument], check=True)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get, which knows Debian's packages")
def test_debian_has_the_packages():
    (argument,) = (a for n, a in instructions() if n == "RUN" and "apt-get install" in a)
    packages = shlex.split(argument.split("--no-install-recommends", 1)[1].split("&&")[0])
    assert "libegl1" in packages
    done = subprocess.run(["apt-get", "install", "--simulate", "--quiet", *packages], capture_output=True, text=True)
    if "Unable to locate" in done.stderr and not any(f"package {p}" in done.stderr for p in packages[:1]):
        pytest.skip("apt-get has no lists here: run apt-get update")
    assert done.returncode == 0, done.stderr


# --- compose.yaml


def composed() -> dict[str, Any]:
    return yaml.safe_load((CHECKOUT / "cluster/compose.yaml").read_text())


def test_compose_publishes_on_loopback_only_and_keeps_no_secret():
    services = composed()["services"]
    assert {"head", "worker", "mlflow", "postgresql", "store", "prometheus", "grafana"} <= set(services)
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert ":" in service["image"] and not service["image"].endswith(":latest"), name
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKENS?$|KEY_ID", variable):
                assert str(value).startswith("${"), f"{name} {variable}"
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in composed()["volumes"] or (CHECKOUT / "cluster" / source).is_dir(), mount
        if service["image"].startswith("pose-depth-refiner"):
            assert service["image"].endswith(f":{refiner.__version__}")
            assert service["environment"].items() >= OFF.items(), name


def test_compose_asks_for_the_variables_that_credentials_writes():
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (CHECKOUT / "cluster/compose.yaml").read_text()))
    assert asked == {line.partition("=")[0] for line in credentials.compose().splitlines()}
