"""Bearer tokens: several at once, replaced while the endpoint runs."""

import os

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from refiner import UserError
from serve.guard import Guard, Tokens


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(tokens: Tokens) -> httpx.AsyncClient:
    routes = [Route(path, lambda request: PlainTextResponse("in")) for path in ("/info", "/healthz")]
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(Guard(Starlette(routes=routes), tokens)), base_url="http://x"
    )


@pytest.mark.anyio
async def test_only_a_token_opens_and_any_of_them_does(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("first\nsecond\n")
    async with client(Tokens(str(file), {"POSE_API_TOKENS": "third, fourth"})) as http:
        for token in ("first", "second", "third", "fourth"):
            assert (await http.get("/info", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        for header in (
            "Bearer fifth",
            "Bearer ",
            "Bearer",
            "first",
            "Basic first",
            "Bearer firs",
            "Bearer first,second",
        ):
            refused = await http.get("/info", headers={"Authorization": header})
            assert refused.status_code == 401, header
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.headers["content-type"] == "application/problem+json"
        assert (await http.get("/info")).status_code == 401
        assert (await http.get("/healthz")).status_code == 200  # a load balancer has no token

        file.write_text("second\nfifth\n")
        os.utime(file, ns=(1, 1))  # a change of the clock's own granularity
        assert (await http.get("/info", headers={"Authorization": "Bearer fifth"})).status_code == 200
        assert (await http.get("/info", headers={"Authorization": "Bearer first"})).status_code == 401
        file.unlink()  # in the middle of a replacement: the last ones go on
        assert (await http.get("/info", headers={"Authorization": "Bearer fifth"})).status_code == 200


def test_without_tokens_nothing_is_wanted_and_an_empty_file_is_an_error(tmp_path):
    assert not Tokens(None, {}).wanted
    with pytest.raises(UserError, match="cannot be read"):
        Tokens(str(tmp_path / "missing"), {})
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match="holds no token"):
        Tokens(str(tmp_path / "empty"), {})
