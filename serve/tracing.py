"""OpenTelemetry traces of requests, where the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT); else nothing of this
is imported, and a request costs what it did.

A request's span goes on from its `traceparent` and holds one for each part of its life: proxy (from HAProxy's having its head
until the routes have it: body and queue), decode, refine, encode. OpenTelemetry's own variables say the rest: names, headers,
sampling. Needs the extra `otel`.
"""

from time import time_ns

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refiner import telemetry
from refiner.extras import require
from serve.intake import BESIDE_THE_QUEUE

NAME = "pose-depth-refiner"
OLDEST_NS = 3600 * 10**9  # a head that came earlier than this is no head of HAProxy's


class Traces:
    """Spans of this process, sent in the background; what no collector takes is dropped."""

    def __init__(self) -> None:
        """
        Raises:
            MissingPackage: the extra is not installed.
        """
        require(f"tracing ({telemetry.COLLECTORS[-1]} is set)", "opentelemetry.exporter.otlp.proto.http")
        from opentelemetry import propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._trace, self._extract = trace, propagate.extract
        # not the process's: Ray and MLflow have their own ideas of that one
        resource = Resource.create({SERVICE_NAME: NAME}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(NAME)

    def stages(self, seconds: dict[str, float], **attributes: str | int) -> None:
        """What was just done for the request that this task answers: one span after the other, up to now."""
        request = self._trace.get_current_span()
        if not request.is_recording():  # not sampled, or not over HTTP
            return
        request.set_attributes(attributes)
        end = time_ns()
        for name, took in reversed(seconds.items()):
            start = end - int(took * 1e9)
            self._tracer.start_span(name, start_time=start).end(end)
            end = start

    def around(self, app: ASGIApp) -> ASGIApp:
        """ASGI middleware: a span for each request but those of load balancers and schedulers."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in BESIDE_THE_QUEUE:
                return await app(scope, receive, send)
            headers, now = Headers(scope=scope), time_ns()
            begun = _begun(headers.get(telemetry.STARTED, ""), now)
            named = {"http.request.method": scope["method"], "url.path": scope["path"]}
            with self._tracer.start_as_current_span(
                f"{scope['method']} {scope['path']}",
                context=self._extract(headers),
                kind=self._trace.SpanKind.SERVER,
                attributes=named,
                start_time=begun or now,
            ) as span:
                if begun:
                    self._tracer.start_span("proxy", start_time=begun).end(now)

                async def noted(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        span.set_attribute("http.response.status_code", message["status"])
                        if message["status"] >= 500:
                            span.set_status(self._trace.StatusCode.ERROR)
                    await send(message)

                await app(scope, receive, noted)

        return traced

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def _begun(header: str, now: int) -> int:
    """When HAProxy had the request's head, in nanoseconds since 1970; 0 where it does not say."""
    digits = header.removeprefix("t=")
    microseconds = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0
    return microseconds * 1000 if now - OLDEST_NS < microseconds * 1000 <= now else 0
