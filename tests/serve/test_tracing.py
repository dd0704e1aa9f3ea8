"""Traces of requests, as a collector of OpenTelemetry's gets them over HTTP."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from cluster import haproxy
from refiner import telemetry
from refiner.extras import MissingPackage, require
from serve.live import standing_poses
from serve.tracing import _begun
from tests.serve.conftest import before_the_queue

POSES = {"poses": standing_poses(2).tolist(), "sequence": False}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Spans as they came, and what they came from."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                    named = {a.key: a.value.string_value for a in part.resource.attributes}
                    collector.services.add(named["service.name"])
                    collector.spans += [span for scope in part.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    there = Collector()
    threading.Thread(target=there.server.serve_forever, daemon=True).start()
    yield there
    there.server.shutdown()


@pytest.fixture
def traced(collector, make_replica, monkeypatch):
    monkeypatch.setenv(telemetry.COLLECTORS[-1], collector.url)
    replica = make_replica()
    assert replica.traces is not None
    return replica


async def ask(replica, path: str = "/v1/refine", headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=before_the_queue(replica), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://endpoint") as client:
        return await client.request("POST" if body else "GET", path, headers=headers, **body)


@pytest.mark.anyio
async def test_a_request_is_a_span_with_its_parts_in_order_below_it(traced, collector):
    import time

    began = time.time_ns() // 1000 - 5000
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", telemetry.STARTED: f"t={began}"}
    assert (await ask(traced, headers=headers, json=POSES)).status_code == 200
    traced.traces.close()
    spans = {span.name: span for span in collector.spans}
    assert len(collector.spans) == 5 and set(spans) == {"POST /v1/refine", "proxy", "decode", "refine", "encode"}
    request = spans.pop("POST /v1/refine")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    values = {a.key: a.value.int_value or a.value.string_value for a in request.attributes}
    assert values["http.response.status_code"] == 200 and values["poses"] == 2 and "model_version" in values
    assert {span.parent_span_id for span in spans.values()} == {request.span_id}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    times = [request.start_time_unix_nano]
    for name in ("proxy", "decode", "refine", "encode"):
        times += [spans[name].start_time_unix_nano, spans[name].end_time_unix_nano]
    times.append(request.end_time_unix_nano)
    assert times == sorted(times) and times[0] == times[1] == began * 1000
    assert collector.services == {"pose-depth-refiner"}


@pytest.mark.anyio
async def test_each_of_many_at_once_has_its_own_trace_and_refusals_have_their_status(traced, collector):
    import asyncio

    answers = await asyncio.gather(*[ask(traced, json=POSES) for _ in range(20)], ask(traced, json={"poses": "none"}))
    assert [answer.status_code for answer in answers] == [200] * 20 + [422]
    assert (await ask(traced, "/healthz")).status_code == 200  # a probe, which is no request
    traced.traces.close()
    traces: dict[bytes, set[str]] = {}
    for span in collector.spans:
        traces.setdefault(span.trace_id, set()).add(span.name)
    assert sorted(map(len, traces.values())) == [1] + [4] * 20  # the one that made no sense has no parts


@pytest.mark.anyio
async def test_what_is_not_sampled_is_not_sent(traced, collector):
    await ask(traced, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}, json=POSES)
    traced.traces.close()
    assert collector.spans == []


@pytest.mark.anyio
async def test_a_collector_that_is_away_costs_no_answer(make_replica, monkeypatch):
    monkeypatch.setenv(telemetry.COLLECTORS[-1], "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    replica = make_replica()
    assert (await ask(replica, json=POSES)).status_code == 200
    replica.traces.close()


def test_without_a_collector_nothing_stands_in_a_requests_way(replica):
    assert replica.traces is None
    layers = [layer.cls for layer in replica.app.user_middleware]
    assert layers and not any("Traces" in getattr(layer, "__qualname__", "") for layer in layers)


@pytest.mark.parametrize(
    ("header", "begun"),
    [("t=999999", 999_999_000), ("t=1000001", 0), ("", 0), ("t=-1", 0), ("t=²", 0), ("t=" + "9" * 40, 0)],
)
def test_only_a_time_that_can_be_is_believed(header, begun):
    assert _begun(header, 10**9) == begun


def test_haproxy_says_when_it_had_a_requests_head_where_that_is_wanted(tmp_path):
    line = f"http-request set-header {telemetry.STARTED}"
    assert line in haproxy.edits(tmp_path, traced=True) and line not in haproxy.edits(tmp_path)


def test_who_lacks_the_package_is_told_the_extra():
    with pytest.raises(
        MissingPackage, match=r"needs opentelemetry\.exporter\.nowhere\.at\.all, which is not installed"
    ):
        require("tracing", "opentelemetry.exporter.nowhere.at.all")
