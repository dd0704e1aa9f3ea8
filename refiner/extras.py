"""What is said where a package is missing: the sentence names the extra that brings it."""

from importlib.util import find_spec

from refiner.errors import UserError

DISTRIBUTION = "pose-depth-refiner"
# Importable name -> the extra in pyproject.toml. What stands in none of them comes with every installation.
EXTRAS = {
    "ai_edge_litert": "blazepose", "openvino": "blazepose-bf16",
    "boto3": "cluster", "grafana_foundation_sdk": "cluster", "psycopg": "cluster",
    "numba": "studio", "skimage": "studio",
    "jinja2": "demo",
    "ezc3d": "formats", "pygltflib": "formats",
    "tritonclient": "grpc",
    "rerun": "view",
    "opentelemetry.exporter.otlp.proto.http": "otel",
}  # fmt: skip


class MissingPackage(UserError, ImportError):
    """A package that this installation lacks; the message says how to install it."""


def require(what: str, *packages: str) -> None:
    """Looks whether packages can be imported, before they are.

    Args:
        what: who needs them, as the sentence begins: "the studio".
        packages: importable names.

    Raises:
        MissingPackage: one is not installed.
    """
    missing = [package for package in packages if not is_there(package)]
    if missing:
        extras = sorted({EXTRAS[package] for package in missing if package in EXTRAS})
        requirement = f"{DISTRIBUTION}[{','.join(extras)}]" if extras else DISTRIBUTION
        verb = "is" if len(missing) == 1 else "are"
        raise MissingPackage(
            f"{what} needs {' and '.join(missing)}, which {verb} not installed: run pip install '{requirement}'"
        )


def extras() -> dict[str, list[str]]:
    """Each extra, with the packages that it brings."""
    brought: dict[str, list[str]] = {}
    for package, extra in EXTRAS.items():
        brought.setdefault(extra, []).append(package)
    return brought


def is_there(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False
