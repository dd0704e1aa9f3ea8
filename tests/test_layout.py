"""Which room may use which: the imports themselves are read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
# From top to bottom: each uses what stands above it, and nothing below.
ROOMS = (
    "refiner", "refiner.data", "refiner.estimators", "refiner.model", "refiner.registry", "refiner.inference",
    "refiner.export", "refiner.evaluation", "refiner.training", "refiner.formats", "refiner.cli",
    "studio", "studio.bodies", "studio.motion", "studio.mocap", "studio.deepmimic", "studio.pictures", "studio.dataset",
    "cluster", "serve.codec", "serve.client", "rayjobs", "serve",
)  # fmt: skip
TOPS = sorted({room.split(".")[0] for room in ROOMS})
# Where a public name or a model's address is looked up when it is asked for: not at import.
LAZY = {("refiner", "refiner.inference.depth_refiner")}
NEVER = (("serve", "rayjobs"), ("rayjobs", "serve"), ("cluster", "serve"), ("serve", "cluster"), ("serve", "studio"))


def room(module: str) -> str:
    """The longest of the rooms that a module is in; modules right under `refiner` are in that one."""
    return max((r for r in ROOMS if f"{module}.".startswith(f"{r}.")), key=len)


def imports() -> Iterator[tuple[str, str]]:
    """Every (module, module of this project that it imports), also those inside functions."""
    for path in sorted(p for top in TOPS for p in (CHECKOUT / top).rglob("*.py")):
        module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from ((module, name) for name in names if name.split(".")[0] in TOPS)


def test_each_room_uses_only_what_stands_above_it():
    used = {(a, b) for a, b in imports() if (a, b.rpartition(".")[0]) not in LAZY}
    assert len(used) > 200  # they were read
    upwards = [f"{a} imports {b}" for a, b in used if ROOMS.index(room(a)) < ROOMS.index(room(b))]
    sideways = [
        f"{a} imports {b}"
        for a, b in used
        if (a.split(".")[0], b.split(".")[0]) in NEVER and room(b) != "serve.client"  # which anybody may use
    ]
    assert sorted(upwards + sideways) == []


def test_no_file_is_longer_than_400_lines_and_no_function_than_60():
    too_long = []
    for path in sorted(p for top in (*TOPS, "benchmarks", "tests") for p in (CHECKOUT / top).rglob("*.py")):
        text = path.read_text()
        pieces = [(path.name, len(text.splitlines()), 400)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                pieces.append((node.name, (node.end_lineno or 0) - node.lineno + 1, 60))
        too_long += [
            f"{path.relative_to(CHECKOUT)}: {name}, {lines} lines" for name, lines, most in pieces if lines > most
        ]
    assert too_long == []


@pytest.mark.parametrize("kept_out", ["ray", "fastapi", "starlette"])
def test_the_library_knows_neither_ray_nor_a_web_framework(kept_out):
    for top in ("refiner", "studio"):
        for path in (CHECKOUT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = (
                    [alias.name for alias in node.names] if isinstance(node, ast.Import)
                    else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                )  # fmt: skip
                assert kept_out not in {name.split(".")[0] for name in names}, path


def test_one_file_knows_how_many_joints_there_are():
    """Their number stands in refiner/skeleton.py; everything else imports it, or a further joint would be a hunt."""
    counted = []
    for path in sorted(p for top in ("refiner", "rayjobs", "serve") for p in (CHECKOUT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in (17, 33, 51, 99) and path.name != "skeleton.py":
                counted.append(f"{path.relative_to(CHECKOUT)}:{node.lineno}")
    operator_set = [where for where in counted if where.startswith("refiner/estimators/blazepose/onnx.py")]  # ONNX's 17
    assert sorted(set(counted) - set(operator_set)) == []
