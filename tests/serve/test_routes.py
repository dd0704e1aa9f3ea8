"""What the routes say to browsers, schedulers and people: the replica's own application, without Ray around it."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import PlainTextResponse

from refiner.model.checkpoint import save_checkpoint
from refiner.model.network import PoseAwareDepthRefiner
from serve.deployments import RefineEndpoint
from serve.guard import is_open
from serve.intake import before_the_queue
from serve.live import rounded, standing_poses
from serve.schemas import AppArgs
from tests.checkpoints import on_pytorch

PAGE, STRANGER = "https://studio.example", "https://evil.example"
POSES = {"poses": rounded(standing_poses(2))}
TOKEN = {"Authorization": "Bearer secret"}

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory) -> RefineEndpoint:
    """A replica that wants a token and lets one page's scripts call."""
    folder = tmp_path_factory.mktemp("endpoint")
    (folder / "tokens").write_text("secret\n")
    checkpoint = on_pytorch(save_checkpoint(PoseAwareDepthRefiner(), folder / "checkpoint"))
    return RefineEndpoint(
        AppArgs(model=str(checkpoint), token_file=str(folder / "tokens"), cors_origins=[PAGE]), videos=None
    )


@pytest.fixture
def http(endpoint) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(endpoint.__serve_build_asgi_app__())
    return httpx.AsyncClient(transport=transport, base_url="http://endpoint")


async def test_a_page_that_may_call_gets_its_preflight_without_a_token_and_its_answer_with_one(http):
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    wanted = "authorization,content-type,inference-header-content-length"
    for path in ("/v1/refine", "/v1/refine/video", "/v2/models/checkpoint/infer"):
        preflight = await http.options(path, headers={**asks, "Access-Control-Request-Headers": wanted})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert set(wanted.split(",")) <= set(preflight.headers["access-control-allow-headers"].split(","))
    answer = await http.post("/v1/refine", json=POSES, headers={"Origin": PAGE, **TOKEN})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == PAGE
    assert "x-model-version" in answer.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [({}, POSES, 401), (TOKEN, {"poses": "x"}, 422), ({**TOKEN, "Content-Type": "text/plain"}, {}, 415)],
)
async def test_a_page_may_read_why_it_is_refused(http, headers, body, status):
    answer = await http.post("/v1/refine", json=body, headers={"Origin": PAGE, **headers})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 503), ({"Content-Length": "9" * 12}, 413), ({"Content-Length": "x"}, 400)]
)
async def test_a_page_may_read_what_is_refused_before_the_routes(endpoint, headers, status):
    async def full(scope, receive, send):  # as Serve's queue refuses
        await PlainTextResponse("no place", 503)(scope, receive, send)

    app = before_the_queue(full, endpoint, endpoint.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://endpoint") as client:
        answer = await client.post("/v1/refine", headers={"Origin": PAGE, **TOKEN, **headers})
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == PAGE


async def test_nobody_learns_where_files_lie(http, endpoint):
    answer = await http.get("/info", headers=TOKEN)
    assert answer.status_code == 200 and str(Path(endpoint.live.source).parent) not in answer.text


async def test_a_page_may_read_that_something_is_broken(http, endpoint, monkeypatch):
    async def broken(request):
        raise RuntimeError("the inside")

    monkeypatch.setattr(endpoint, "refine_poses", broken)
    api = endpoint.__serve_build_asgi_app__()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://endpoint") as client:
        answer = await client.post("/v1/refine", json=POSES, headers={"Origin": PAGE, **TOKEN})
    assert answer.status_code == 500 and "the inside" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == PAGE


async def test_another_page_is_not_let_in(http):
    asks = {"Origin": STRANGER, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in (await http.options("/v1/refine", headers=asks)).headers
    answer = await http.post("/v1/refine", json=POSES, headers={"Origin": STRANGER, **TOKEN})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/healthz", "/v2/health/live", "/v2/health/ready", "/v2/models/checkpoint/ready", "/info"]
)
async def test_head_is_get_without_a_body(http, path):
    got, headed = [await http.request(method, path, headers=TOKEN) for method in ("GET", "HEAD")]
    assert got.status_code == headed.status_code == 200
    assert got.headers["content-type"] == headed.headers["content-type"]
    assert (await http.head("/v1/refine", headers=TOKEN)).status_code == 405
    assert (await http.head("/nowhere", headers=TOKEN)).status_code == 404
    assert (await http.head(path)).status_code == (200 if is_open(path) else 401)


class References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset") and value]


async def test_the_documents_load_nothing_from_elsewhere_and_need_no_token(http):
    page = await http.get("/docs")
    assert page.status_code == 200
    references = References()
    references.feed(page.text)
    assert any(url.endswith(".js") for url in references.urls) and any(url.endswith(".css") for url in references.urls)
    for url in references.urls:
        assert not urlsplit(url).netloc, url
        asset = await http.get(url)
        assert asset.status_code == 200, url
        if url.endswith(".css"):
            assert {url[:5] for url in re.findall(r"url\(\s*[\"']?([^\"')]+)", asset.text)} <= {"data:"}
            assert "@import" not in asset.text
    assert not re.findall(r"(?:https?:)?//[a-z]", page.text)  # nor does the script in the page
    assert '"validatorUrl": null' in page.text  # Swagger UI would send the document to its own server
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    for gone in ("/redoc", "/docs/oauth2-redirect"):
        assert (await http.get(gone, headers=TOKEN)).status_code == 404


async def test_the_openapi_document_says_who_may_call_and_what_errors_look_like(http):
    document = (await http.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["security"] == [{"token": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert (operation.get("security") == []) == is_open(path), path
            answer = await http.request(method, path.format(name="checkpoint", version="0"), json=POSES)
            assert (answer.status_code == 401) != is_open(path), path
            assert ("401" in operation["responses"]) != is_open(path)
            errors = {status: r for status, r in operation["responses"].items() if not status.startswith("2")}
            assert {"400" if path.startswith("/v2") else "422", "500"} <= set(errors)
            for described in errors.values():
                assert set(described["content"]) == {"application/problem+json"}
                reference = described["content"]["application/problem+json"]["schema"]["$ref"]
                assert reference.rpartition("/")[2] in document["components"]["schemas"]


async def test_the_openapi_document_has_the_refusals_that_the_protocol_answers_with(http):
    document = (await http.get("/openapi.json")).json()
    paths = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
    for path in paths:
        described = document["paths"][path]["post"]["responses"]
        assert {"200", "400", "404", "413", "415", "429"} <= set(described)
        assert all("application/problem+json" in described[status]["content"] for status in ("400", "404", "429"))
    for path, body, status in (
        (paths[0], b"[]", 400),
        (paths[0].replace("{name}", "another"), b"{}", 404),
    ):
        answer = await http.post(
            path.replace("{name}", "checkpoint"), content=body, headers={"content-type": "application/json", **TOKEN}
        )
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_the_examples_in_the_openapi_document_work(http):
    document = (await http.get("/openapi.json")).json()
    tried = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                if "example" in body:
                    url = path.format(name="checkpoint", version="0")
                    answer = await http.post(url, json=body["example"], headers={**TOKEN, "Content-Type": kind})
                    assert answer.status_code == 200, answer.text
                    tried += 1
    assert tried == 4  # /v1/refine, /v1/export, and the Open Inference Protocol's two


async def test_the_model_is_listed_configured_and_counted(http):
    assert (await http.get("/v2/models", headers=TOKEN)).json() == {"models": ["checkpoint"]}
    (listed,) = (await http.post("/v2/repository/index", headers=TOKEN)).json()
    assert listed == {"name": "checkpoint", "version": "0", "state": "READY", "reason": ""}
    for prefix in ("/v2/models/checkpoint", "/v2/models/checkpoint/versions/0"):
        config = (await http.get(f"{prefix}/config", headers=TOKEN)).json()
        assert config["max_batch_size"] == 16_384
        assert [tensor["name"] for tensor in config["input"]] == ["poses", "visibility", "image_points"]
        before, _ = [(await http.get(f"{prefix}/stats", headers=TOKEN)).json()["model_stats"][0] for _ in range(2)]
        await http.post("/v1/refine", json=POSES, headers=TOKEN)
        await http.post("/v1/refine", json={"poses": "x"}, headers=TOKEN)
        after = (await http.get("/v2/models/stats", headers=TOKEN)).json()["model_stats"][0]
        assert after["inference_count"] == before["inference_count"] + 2
        for kind in ("success", "fail", "compute_infer"):
            grown = {
                unit: after["inference_stats"][kind][unit] - before["inference_stats"][kind][unit]
                for unit in ("count", "ns")
            }
            assert grown["count"] == 1 and 0 < grown["ns"] < 60e9
        assert after["last_inference"] > 1.7e12
    for path in ("config", "stats", "versions/7/config", "versions/7/stats"):
        missing = "another" if "/" not in path else "checkpoint"
        assert (await http.get(f"/v2/models/{missing}/{path}", headers=TOKEN)).status_code == 404
