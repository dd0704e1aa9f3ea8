"""HAProxy as a cluster runs it, Ray's configuration and this project's edits, before servers of this test's own."""

import asyncio
import contextlib
import http.server
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
import websockets.sync.server
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cluster import haproxy
from cluster.running import HOST, free_ports
from tests.waiting import PATIENCE_S, answers, get, wait_for

LARGE = 20_000_000  # more than all buffers on the way take, and than is kept of a file
KEPT = 10_000_000


asked: list[str] = []  # of the replica of the test that runs
go_on = threading.Event()


class Replica(http.server.BaseHTTPRequestHandler):
    """Answers with what it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked.append(self.path)
        if self.path == "/wait":
            go_on.wait(PATIENCE_S)
        size = {"/page/model": LARGE, "/page/kept": KEPT}.get(self.path)
        self._answer(b"ok" if size is None else b"x" * size)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')  # as every file of the endpoint has
        self.send_header("X-Seen", str(self.headers.get("x-request-disconnect-disabled")))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked has left
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def proxy(tmp_path, replica_port: int | None, grpc_ports: tuple[int, int] | None = None) -> Iterator[str]:
    """A running HAProxy; without a replica's port it knows of no application. `grpc_ports` are its own and its replica's."""
    port, metrics, stats = free_ports([0, 0, 0])
    config = HAProxyConfig(
        grpc_options=gRPCOptions(port=grpc_ports[0], grpc_servicer_functions=["any"]) if grpc_ports else gRPCOptions(),
        http_options=HTTPOptions(host=HOST, port=port),
        metrics_port=metrics,
        stats_port=stats,
        socket_path=str(tmp_path / "admin.sock"),
        server_state_base=str(tmp_path),
        server_state_file=str(tmp_path / "server-state"),
        nbthread=1,
        has_received_routes=True,
        has_received_servers=True,
        timeout_server_s=20,
    )
    backend = BackendConfig(
        name="app",
        path_prefix="/",
        app_name="app",
        servers=[ServerConfig(name="one", host=HOST, port=replica_port or 1)],
    )
    path = tmp_path / "haproxy.cfg"
    backends = {} if replica_port is None else {"app": backend}
    if grpc_ports:
        server = ServerConfig(name="grpc-one", host=HOST, port=grpc_ports[1])
        backends["grpc-app"] = BackendConfig(
            name="grpc-app", path_prefix="/", app_name="app", servers=[server], protocol=RequestProtocol.GRPC
        )
    api = HAProxyApi(config, backend_configs=backends, config_file_path=str(path))
    api._generate_config_file_internal()
    (tmp_path / "server-state").touch()
    binary = haproxy.install(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([str(binary), "-db", "-f", str(path)], stdout=log, stderr=log)
    url = f"http://{HOST}:{port}"
    try:
        wait_for(lambda: process.poll() is not None or answers(f"{url}/-/routes"))
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def replica() -> Iterator[int]:
    with http.server.ThreadingHTTPServer((HOST, 0), Replica) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


async def slow(url: str, sent: bytes, statuses: Counter) -> None:
    """A client that sends the head and some of a body, and then a byte now and then."""
    target = httpx.URL(url)
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        writer.write(sent)
        while not reader.at_eof():
            with contextlib.suppress(TimeoutError):
                answer = await asyncio.wait_for(reader.read(65_536), 2)  # read() would lose what has come by then
                if not answer:
                    statuses["closed"] += 1
                    return
                # what is no request yet, HAProxy answers before any error file counts
                is_problem = b"application/problem+json" in answer or not sent.endswith(b"\r\n\r\n")
                statuses[answer.split()[1].decode() if is_problem else "no problem document"] += 1
                return
            writer.write(b"x")
        statuses["closed"] += 1
    except OSError:
        statuses["closed"] += 1
    finally:
        writer.close()


async def honest(url: str, requests: int) -> Counter:
    statuses: Counter = Counter()
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        for _ in range(requests):
            statuses[(await client.post(f"{url}/v1/refine", content=b"x" * 2000)).status_code] += 1
    return statuses


@pytest.mark.slow
def test_a_thousand_slow_clients_are_not_noticed_and_are_sent_away(tmp_path, replica):
    head = b"POST /v1/refine HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n"

    async def attack(url: str) -> tuple[Counter, Counter]:
        statuses: Counter = Counter()
        slow_ones = [asyncio.ensure_future(slow(url, sent, statuses)) for sent in (head, head[:40]) for _ in range(500)]
        good = await honest(url, 50)
        await asyncio.gather(*slow_ones)
        return good, statuses

    with proxy(tmp_path, replica) as url:
        good, statuses = asyncio.run(attack(url))
    assert good == {200: 50}
    # who writes in the very moment in which it is closed, as many do on a busy machine, gets a reset in place of the answer
    assert statuses["408"] > 0 and statuses["408"] + statuses["closed"] == 1000


def test_bodies_longer_than_the_buffer_that_never_end_leave_room_for_others(tmp_path, replica):
    """They reach the replica, which is to end them: here they only must not be counted as a storm."""
    head = b"POST /v1/refine HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 100_000

    async def attack(url: str) -> Counter:
        slow_ones = [asyncio.ensure_future(slow(url, head, Counter())) for _ in range(haproxy.MOST_REQUESTS + 50)]
        await asyncio.sleep(2)
        good = await honest(url, 50)
        for task in slow_ones:
            task.cancel()
        await asyncio.wait(slow_ones)
        return good

    with proxy(tmp_path, replica) as url:
        good = asyncio.run(attack(url))
    assert good == {200: 50}


def test_its_own_errors_are_problem_documents(tmp_path):
    (nobody,) = free_ports([0])
    with proxy(tmp_path, nobody) as url:
        gone = get(f"{url}/info")
        assert gone.headers["retry-after"] == "1"
        document = gone.json()
        assert document["status"] == 503 and document["error"] == document["detail"]
        assert gone.headers["content-type"] == "application/problem+json" and gone.status_code == 503


def test_pages_of_every_origin_may_read_what_it_says_itself(tmp_path, replica, monkeypatch):
    (nobody,) = free_ports([0])
    with proxy(tmp_path, nobody) as url:
        _is_readable(get(f"{url}/info"), 503)
    monkeypatch.setattr(haproxy, "MOST_REQUESTS", 0)
    with proxy(tmp_path, replica) as url:
        storm = get(f"{url}/info")
        _is_readable(storm, 429)
        assert storm.json()["error"] == storm.json()["detail"]
        # a page asks first whether it may ask
        assert httpx.options(f"{url}/v1/refine", timeout=PATIENCE_S).status_code == 501  # of the replica
        assert get(f"{url}/healthz").status_code == 200


def test_one_address_leaves_places_for_others_and_learns_of_a_refusal_after_a_while(tmp_path, replica, monkeypatch):
    monkeypatch.setattr(haproxy, "SHARE_OF_ONE", 3)
    asked.clear()
    go_on.clear()
    with proxy(tmp_path, replica) as url, ThreadPoolExecutor(3) as pool, httpx.Client(timeout=PATIENCE_S) as other:
        other._transport = httpx.HTTPTransport(local_address="127.0.0.2")
        waiting = [pool.submit(get, f"{url}/wait") for _ in range(3)]
        try:
            wait_for(lambda: asked.count("/wait") == 3)
            start = time.monotonic()
            assert get(f"{url}/info").status_code == 429 and time.monotonic() - start > haproxy.REFUSED_AFTER_S / 2
            assert get(f"{url}/healthz").status_code == 200
            assert [other.get(f"{url}/info").status_code for _ in range(5)] == [200] * 5
        finally:
            go_on.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 3
        assert [get(f"{url}/info").status_code for _ in range(5)] == [200] * 5


def _is_readable(answer: httpx.Response, status: int) -> None:
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "retry-after" in answer.headers["access-control-expose-headers"].lower()


def test_answers_that_are_read_slowly_are_no_storm_and_leave_room_for_others(tmp_path, replica, monkeypatch):
    monkeypatch.setattr(haproxy, "MOST_REQUESTS", 3)
    monkeypatch.setattr(haproxy, "MOST_READERS", 6)
    with proxy(tmp_path, replica) as url, contextlib.ExitStack() as stack:
        for _ in range(6):
            answer = stack.enter_context(httpx.stream("GET", f"{url}/page/model", timeout=PATIENCE_S))
            assert answer.status_code == 200  # its body stays where it is
        assert [get(f"{url}/info").status_code for _ in range(3)] == [200] * 3
        assert httpx.post(f"{url}/v1/refine", content=b"x" * 2000, timeout=PATIENCE_S).status_code == 200
        assert get(f"{url}/page/model").status_code == 429
    with proxy(tmp_path, replica) as url:
        assert len(get(f"{url}/page/model").content) == LARGE


def test_files_are_read_from_a_replica_once_and_slow_readers_of_them_cost_nobody_anything(
    tmp_path, replica, monkeypatch
):
    monkeypatch.setattr(haproxy, "MOST_REQUESTS", 3)
    monkeypatch.setattr(haproxy, "MOST_READERS", 3)
    monkeypatch.setattr(haproxy, "KEPT_S", 3600)
    asked.clear()
    with proxy(tmp_path, replica) as url, contextlib.ExitStack() as stack:
        assert len(get(f"{url}/page/kept").content) == KEPT
        for _ in range(20):
            answer = stack.enter_context(httpx.stream("GET", f"{url}/page/kept", timeout=PATIENCE_S))
            assert answer.status_code == 200  # its body stays where it is
        assert [get(f"{url}/info").status_code for _ in range(3)] == [200] * 3
        assert len(get(f"{url}/page/kept").content) == KEPT
        assert httpx.post(f"{url}/v1/refine", content=b"x" * 2000, timeout=PATIENCE_S).status_code == 200
    assert asked.count("/page/kept") == 1 and asked.count("/info") == 3  # of an answer that is no file nothing is kept


def test_only_short_requests_for_poses_are_not_watched(tmp_path, replica):
    with proxy(tmp_path, replica) as url:
        seen = {
            (path, size): httpx.post(f"{url}{path}", content=b"x" * size).headers["x-seen"]
            for path in ("/v1/refine", "/v1/refine/video")
            for size in (100, 50_000)
        }
    assert {key for key, value in seen.items() if value == "?1"} == {("/v1/refine", 100)}


def test_one_that_knows_of_no_application_yet_is_not_ready_and_one_that_does_knows_no_other_path(tmp_path, replica):
    with proxy(tmp_path, None) as url:
        early = httpx.post(f"{url}/v1/refine", content=b"x")
        assert early.status_code == early.json()["status"] == 503 and early.headers["retry-after"] == "1"
    with proxy(tmp_path, replica) as url:
        assert httpx.post(f"{url}/v1/refine", content=b"x").status_code == 200


def test_streams_pass_are_no_storm_and_have_a_limit_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(haproxy, "MOST_REQUESTS", 3)
    monkeypatch.setattr(haproxy, "MOST_STREAMS", 6)

    def echo(stream: websockets.sync.server.ServerConnection) -> None:
        for message in stream:
            stream.send(message)

    def plain(stream: websockets.sync.server.ServerConnection, request: websockets.Request) -> object:
        return stream.respond(200, "ok") if request.path != haproxy.STREAM else None

    with websockets.sync.server.serve(echo, HOST, 0, process_request=plain) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with proxy(tmp_path, server.socket.getsockname()[1]) as url, contextlib.ExitStack() as stack:
            where = f"{url.replace('http', 'ws')}{haproxy.STREAM}"
            streams = [stack.enter_context(connect(where, open_timeout=PATIENCE_S, proxy=None)) for _ in range(6)]
            for stream in streams:
                stream.send(b"x" * 100_000)
                assert stream.recv(PATIENCE_S) == b"x" * 100_000
            assert (
                get(f"{url}/info").status_code == 200
            )  # six streams are under way, and three requests would be a storm
            with pytest.raises(InvalidStatus) as refused:
                connect(where, open_timeout=PATIENCE_S, proxy=None)
            assert refused.value.response.status_code == 429
            streams.pop().close()
            wait_for(lambda: _opens(where))


def _opens(where: str) -> bool:
    try:
        with connect(where, open_timeout=PATIENCE_S, proxy=None):
            return True
    except InvalidStatus:
        return False


def test_grpc_calls_reach_the_replica_and_a_storm_of_them_is_refused(tmp_path, replica, monkeypatch):
    monkeypatch.setattr(haproxy, "MOST_REQUESTS", 3)
    go_on.clear()

    class Methods(grpc.GenericRpcHandler):
        def service(self, call):
            def answer(request, context):
                if call.method.endswith("/Wait"):
                    go_on.wait(PATIENCE_S)
                return b"success" if call.method.endswith("/Healthz") else request  # what Ray's proxy looks for

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(8), handlers=(Methods(),))
    ports = free_ports([0])[0], server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        with proxy(tmp_path, replica, ports) as url, grpc.insecure_channel(f"{HOST}:{ports[0]}") as channel:

            def call(method: str, **options):
                return channel.unary_unary(f"/a.Service/{method}").future(b"body", **options)

            def answered() -> bool:  # the proxy looks for its replicas first
                with contextlib.suppress(grpc.RpcError):
                    return call("Echo").result() == call("Echo", metadata=[("application", "app")]).result() == b"body"
                return False

            wait_for(answered)
            waiting = [call("Wait") for _ in range(3)]
            wait_for(lambda: call("Echo").code() == grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert haproxy.LATER in call("Echo").details()
            assert answers(url)  # HTTP is counted by itself
            go_on.set()
            assert [one.result() for one in waiting] == [b"body"] * 3
            wait_for(lambda: call("Echo").code() == grpc.StatusCode.OK)
    finally:
        go_on.set()
        server.stop(None)
