"""Traces: FastAPI's own span for each request, and below it one for each call to a model.

Sent by OTLP over HTTP, where an endpoint is configured. FastAPI's other signals stay off: its logs
have what exceptions say. Its spans have the query string, which is a prompt's; it is replaced.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi.telemetry import TelemetryConfig
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from starlette.types import Scope

from app.about import about
from app.cascade.types import CallReport
from app.features.prometheus import genai
from app.ledger import Entry

UNTRACED = frozenset({"/health", "/liveness", "/metrics", "/readiness"})
QUERY = "url.query"
NANOSECONDS = 1_000_000_000


class Traces:
    """The spans of one app, sent to `endpoint` (without `/v1/traces`) while it runs."""

    def __init__(self, endpoint: str) -> None:
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        me = about()
        name = os.environ.get("OTEL_SERVICE_NAME") or me.name
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: me.version}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_WithoutQueries())
        self._tracer = self._provider.get_tracer("app", me.version)

    @property
    def config(self) -> TelemetryConfig:
        """For FastAPI."""
        return {
            "tracer_provider": self._provider,
            "tracing": True,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _untraced,
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends spans from a thread of its own; at the end those that wait."""
        sending = BatchSpanProcessor(OTLPSpanExporter(endpoint=self._url))
        self._provider.add_span_processor(sending)
        try:
            yield
        finally:
            await asyncio.to_thread(sending.shutdown)

    def settled(self, entry: Entry) -> None:
        """One query has ended; this runs in the context of its request."""
        get_current_span().set_attributes(genai.of_query(entry))
        for call in entry.calls:
            self._trace(call)

    def _trace(self, call: CallReport) -> None:
        began = int(call.began * NANOSECONDS)
        span = self._tracer.start_span(
            genai.span_name(call),
            kind=SpanKind.CLIENT,
            attributes=genai.of_call(call),
            start_time=began,
        )
        if not call.answered:
            span.set_status(StatusCode.ERROR)
        span.end(began + int(call.seconds * NANOSECONDS))


class _WithoutQueries(SpanProcessor):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if QUERY in (span.attributes or ()):
            span.set_attribute(QUERY, "REDACTED")

    def on_end(self, span: ReadableSpan) -> None:
        pass


def _untraced(scope: Scope) -> bool:
    return scope.get("path") in UNTRACED
