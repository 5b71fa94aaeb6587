"""Traces: one span a request, one below it a call to a model, and never a prompt."""

import gzip
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app.cascade.errors import ConfigurationError
from app.main import create_app
from app.settings import Settings
from tests.conftest import ACCEPTED, client_of
from tests.served import served

QUERIES = (
    {"query": "[[drafter:poor]] a secret prompt"},
    {"query": "[[both:500]] a secret prompt", "force_direct": True},
    {"query": "secret" * 1000},
)
VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector(ThreadingHTTPServer):
    """Takes what is sent by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.bodies: list[bytes] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Span]:
        """All that have come, oldest first."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        found = [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


class _Taker(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        zipped = self.headers.get("Content-Encoding") == "gzip"
        self.server.bodies.append(gzip.decompress(body) if zipped else body)
        self.server.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def collector(cascade_file: Path) -> Iterator[Collector]:
    """One that a service has sent its spans to, of some queries."""
    with collecting() as server:
        ask(cascade_file, *QUERIES, **{VARIABLE: server.url})
        yield server


def ask(cascade_file: Path, *bodies: Mapping[str, object], **variables: str) -> None:
    """Sends queries to a service of its own, and ends it, so that it has sent its spans."""
    with served(cascade_file, UPSTREAM_ATTEMPTS="1", **variables) as service:
        with client_of(service.url) as client:
            for body in bodies:
                client.post("/api/query", json=body)
                client.get("/api/query", params={"query": str(body["query"])})
            client.get("/liveness")
        service.terminate()
        assert service.ended() == 0
    assert "Traceback" not in service.log


def attributes(span: Span) -> dict[str, object]:
    """By name; lists are of texts."""
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, str(kind))
        texts = kind == "array_value"
        found[each.key] = [item.string_value for item in value.values] if texts else value
    return found


def test_a_request_and_its_calls_to_models_are_spans(collector: Collector) -> None:
    request, draft, answer = collector.spans()[:3]
    assert set(collector.paths) == {"/v1/traces"}
    assert (request.name, request.kind) == ("POST /api/query", Span.SPAN_KIND_SERVER)
    assert attributes(request)["cascade.outcome"] == "rejected"
    for span, role, model in (
        (draft, "drafter", "simulator-small"),
        (answer, "verifier", "simulator-large"),
    ):
        assert (span.name, span.kind) == (f"chat {model}", Span.SPAN_KIND_CLIENT)
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        assert request.start_time_unix_nano < span.start_time_unix_nano < span.end_time_unix_nano
        told = attributes(span)
        assert (told["cascade.role"], told["gen_ai.request.model"]) == (role, model)
        assert told["gen_ai.operation.name"] == "chat"
        assert told["gen_ai.provider.name"] == "openai"
        assert told["gen_ai.response.finish_reasons"] == ["stop"]
        assert told["gen_ai.usage.input_tokens"]
        assert told["gen_ai.usage.output_tokens"]


def test_a_call_that_fails_says_how(collector: Collector) -> None:
    failed = [span for span in collector.spans() if span.status.code == Status.STATUS_CODE_ERROR]
    request, call = failed[:2]
    assert attributes(call)["error.type"] == "unavailable"
    assert call.parent_span_id == request.span_id
    assert attributes(request)["http.response.status_code"] == 502


def test_no_span_holds_a_prompt(collector: Collector) -> None:
    assert {attributes(span).get("url.query") for span in collector.spans()} == {None, "REDACTED"}
    for body in collector.bodies:
        assert b"secret" not in body


def test_nothing_is_sent_unless_it_is_wanted(cascade_file: Path) -> None:
    with collecting() as server:
        elsewhere = {
            "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{server.url}/v1/traces",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{server.url}/v1/logs",
        }
        ask(cascade_file, {"query": ACCEPTED}, {"query": ""}, **elsewhere)
        assert server.bodies == []


def test_without_the_extra_the_start_is_refused(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "app.features.prometheus.traces", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match="uv sync --extra traces"):
        create_app(make_settings())
