"""Pages of the site that come from the code: commands from their own help, HTTP from the endpoint's OpenAPI document, Python
from docstrings. Run by mkdocs (see mkdocs.yml); nothing of it is kept in the repository.
"""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

JOBS = (
    "download", "studio", "motions", "extract", "pair", "simulate", "film", "train", "tune", "evaluate", "ship",
    "visualize", "refine", "pipeline", "lineage",
)  # fmt: skip
PYTHON = {
    "Refining": ("refiner.inference.depth_refiner.DepthRefiner", "refiner.inference.depth_refiner.Refinement"),
    "The person in the room": ("refiner.inference.room",),
    "Files for other tools": ("refiner.formats", "refiner.formats.motion.Motion"),
    "Observations, pairs, refined poses": ("refiner.data.records",),
    "Estimators": ("refiner.estimators.named", "refiner.estimators.base", "refiner.estimators.people"),
    "Cameras and frames of reference": ("refiner.geometry",),
    "Client of the endpoint": ("serve.client.Client", "serve.client.AsyncClient", "serve.client.Retries"),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for name, page in {"commands": commands, "http": http, "python": python}.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to code, which is not in the site, become its path."""
    docs = Path(config.docs_dir)
    here = docs / Path(page.file.src_uri).parent

    def plain(link: re.Match[str]) -> str:
        path = (here / link[2].partition("#")[0]).resolve()
        inside = re.match("[a-z]+:", link[2]) or link[2].startswith("#") or path.is_relative_to(docs)
        return link[0] if inside else f"{link[1]} (`{path.relative_to(docs.parent)}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", plain, markdown)


def commands() -> str:
    from refiner.cli.main import COMMANDS, main
    from refiner.command import parse

    parts = ["# Commands", "As each command's `--help` says it.", "## refiner"]
    for name in COMMANDS:
        parts += [f"### refiner {name}", block(lambda name=name: main([name, "--help"]))]
    parts.append("## Jobs")
    for job in JOBS:
        options = importlib.import_module(f"rayjobs.{job}").Options
        parts += [f"### rayjobs.{job}", block(lambda options=options: parse(options, ["--help"]))]
    return "\n\n".join(parts) + "\n"


def block(run: Callable[[], object]) -> str:
    """What a command prints before it exits, as a block of text."""
    out = io.StringIO()
    plain = mock.patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    with plain, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        run()
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).strip()
    if not text:
        raise ValueError("a command's help is empty")
    return f"```text\n{text}\n```"


def http() -> str:
    from serve.routes import build_api
    from serve.schemas import AppArgs

    endpoint = mock.Mock(args=AppArgs())
    endpoint.tokens.wanted = False
    document = build_api(endpoint).openapi()
    parts = [
        "# HTTP", "From the endpoint's own OpenAPI document, which every endpoint has at `/openapi.json`, and at `/docs` to "
        "try it out. What a config may say is in [its arguments](#arguments-of-the-application).",
    ]  # fmt: skip
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += [f"## {method.upper()} {path}", operation.get("description") or operation["summary"]]
            parts += list(described(operation, document["components"]["schemas"]))
    parts += [
        "## Arguments of the application",
        "`args:` in a Serve config such as serve/config.yaml.",
        "::: serve.schemas.AppArgs",
    ]
    return "\n\n".join(parts) + "\n"


def described(operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    """What an operation takes and answers."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{kind}`:"
        yield fields(content.get("schema", {}), schemas)
    for status, response in operation["responses"].items():
        kinds = response.get("content", {})
        yield f"**{status}** {response['description']}" + (
            f": {', '.join(f'`{kind}`' for kind in kinds)}" if kinds else ""
        )
        for kind, content in kinds.items():
            if status == "200" and kind == "application/json":
                yield fields(content.get("schema", {}), schemas)


def fields(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A table of an object's fields; of something else a word."""
    if reference := schema.get("$ref"):
        schema = schemas[reference.rsplit("/", 1)[-1]]
    if "properties" not in schema:
        return f"`{schema.get('format', schema.get('type', 'any'))}`"
    rows = ["| field | type | |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        wanted = "" if name in schema.get("required", ()) else "optional. "
        rows.append(f"| `{name}` | {kind_of(field)} | {wanted}{field.get('description', '')} |".replace("\n", " "))
    return "\n".join(rows)


def kind_of(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(kind_of(one) for one in field["anyOf"])
    if reference := field.get("$ref"):
        return reference.rsplit("/", 1)[-1]
    return (
        "list of " + kind_of(field.get("items", {})) if field.get("type") == "array" else str(field.get("type", "any"))
    )


def python() -> str:
    parts = [
        "# Python",
        "Public names; arrays are NumPy's, lengths metres, frames of reference as in [how it works](../how-it-works.md).",
    ]
    for title, names in PYTHON.items():
        parts += [f"## {title}", *(f"::: {name}" for name in names)]
    return "\n\n".join(parts) + "\n"
