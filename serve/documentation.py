"""How the endpoint describes itself: its OpenAPI document, and `/docs`, whose scripts come from here and not from a CDN."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from serve.guard import SCHEME, is_open
from serve.problems import PROBLEM, TITLES
from serve.schemas import Problem

# Swagger UI: of fastapi-offline only the files are used.
ASSETS = Path(fastapi_offline.__file__).parent / "static"
ASSETS_PATH = "/docs/assets"
# Browsers load nothing from elsewhere, whatever Swagger UI asks for; its start is a script in the page.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Of every route.
USUAL = (422, 500, 503)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For FastAPI's `responses`: that these statuses come with a problem document."""
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}


def binary() -> dict[str, Any]:
    """A body of bytes, in OpenAPI's terms."""
    return {"schema": {"type": "string", "format": "binary"}}


def file_in_form(name: str) -> dict[str, Any]:
    """A form with one file."""
    return {"schema": {"type": "object", "required": [name], "properties": {name: binary()["schema"]}}}


def add_documentation(api: FastAPI, *, tokens: bool) -> None:
    """
    Args:
        api: gets `/docs`, with what belongs to it, and an OpenAPI document that says all of this.
        tokens: whether callers must send one.
    """
    api.mount(ASSETS_PATH, StaticFiles(directory=ASSETS), name="assets")

    @api.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{api.openapi_url}",
            title=f"{api.title} - Swagger UI",
            oauth2_redirect_url=None,
            swagger_js_url=f"{root}{ASSETS_PATH}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{ASSETS_PATH}/swagger-ui.css",
            swagger_favicon_url=f"{root}{ASSETS_PATH}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None, "persistAuthorization": True},
        )
        page.headers["content-security-policy"] = POLICY
        return page

    def document() -> dict[str, Any]:
        if not api.openapi_schema:
            api.openapi_schema = _document(api, tokens)
        return api.openapi_schema

    api.openapi = document


def _document(api: FastAPI, tokens: bool) -> dict[str, Any]:
    content = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
    components = content.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = {"token": SCHEME}
    content["security"] = [{"token": []}] if tokens else [{}, {"token": []}]
    for path, operations in content["paths"].items():
        for operation in operations.values():
            if path.startswith("/v2") and operation["responses"].pop("422", None):
                operation["responses"]["400"] = problems(400)[400]  # as `serve.problems.on_user_error` has it
            if is_open(path):
                operation["security"] = []
            elif tokens:
                operation["responses"]["401"] = problems(401)[401]
    return content
