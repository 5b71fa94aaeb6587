"""What is counted as it happens: US dollars, seconds, tokens and queries.

A label's values are few and known: outcomes, roles, the models of `cascade.toml`, routes by their
template, kinds of faults. Nothing that a client writes is one.
"""

from typing import get_args

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from app.cascade.engine import Engine
from app.cascade.errors import FaultKind
from app.cascade.types import CallReport, Outcome
from app.ledger import Entry

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
DOLLARS = (0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)

# Sums of several processes have no time of creation, so those of one have none either.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Instruments:
    """The counters, histograms and gauges of one app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queries = Counter(
            "cascadeflow_queries",
            "Queries by outcome and by the model that answered",
            ["outcome", "model"],
            registry=registry,
        )
        self._duration = Histogram(
            "cascadeflow_query_duration_seconds",
            "Time from the budget's hold to the answer",
            ["outcome"],
            buckets=SECONDS,
            registry=registry,
        )
        self._queue = Histogram(
            "cascadeflow_query_queue_seconds",
            "Time from the question to the budget's hold, before any model can be asked",
            buckets=WAITS,
            registry=registry,
        )
        self._first_token = Histogram(
            "cascadeflow_time_to_first_token_seconds",
            "Of streams: time from the budget's hold to a model's first text",
            buckets=SECONDS,
            registry=registry,
        )
        self._cost = Histogram(
            "cascadeflow_query_cost_dollars",
            "Cost of a query at the prices of cascade.toml",
            ["outcome"],
            buckets=DOLLARS,
            registry=registry,
        )
        self._saved = Counter(
            "cascadeflow_saved_dollars",
            "Saving against the verifier alone, of the queries that saved",
            registry=registry,
        )
        self._wasted = Counter(
            "cascadeflow_wasted_dollars",
            "Cost of drafts that were rejected and of queries that failed",
            registry=registry,
        )
        self._tokens = Counter(
            "cascadeflow_tokens", "Tokens", ["model", "direction"], registry=registry
        )
        self._upstream = Histogram(
            "cascadeflow_upstream_duration_seconds",
            "Time of a call to a model, all its tries together",
            ["role", "model"],
            buckets=SECONDS,
            registry=registry,
        )
        self._faults = Counter(
            "cascadeflow_upstream_faults",
            "Tries of a call to a model that failed, by what went wrong",
            ["role", "model", "kind"],
            registry=registry,
        )
        self._decisions = Counter(
            "cascadeflow_feature_decisions",
            "What a feature has decided about requests",
            ["feature", "decision"],
            registry=registry,
        )
        self.requests = Counter(
            "cascadeflow_http_requests",
            "Requests by the route's template, and by status",
            ["method", "route", "status"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "cascadeflow_http_request_duration_seconds",
            "Time from a request to the end of its response, streams included",
            ["method", "route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.lag = Histogram(
            "cascadeflow_event_loop_lag_seconds",
            "How late the event loop came to what was due, four times a second",
            buckets=WAITS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "cascadeflow_queries_in_flight",
            "Queries that are being answered",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "cascadeflow_ledger_waiting_entries",
            "Entries that are still to be written",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._begun: set[str] = set()

    def look(self, app: FastAPI) -> None:
        """What is under way in this process."""
        engine: Engine | None = app.state.engine
        self._in_flight.set(engine.in_flight if engine else 0)
        self._waiting.set(app.state.ledger.waiting)
        if engine and not self._begun:
            self._begin(engine)

    def _begin(self, engine: Engine) -> None:
        """Every series that a rate is taken of begins at 0: else its first step is not seen."""
        models = (("drafter", engine.models.drafter), ("verifier", engine.models.verifier))
        for role, model in models:
            for kind in get_args(FaultKind):
                self._faults.labels(role, model.name, kind)
            for direction in ("input", "output"):
                self._tokens.labels(model.name, direction)
            self._begun.add(model.name)
        for outcome in get_args(Outcome):
            self._queries.labels(outcome, _usual_model(outcome, engine))

    def settled(self, entry: Entry) -> None:
        """One query has ended."""
        self._queries.labels(entry.outcome, entry.model or "none").inc()
        self._duration.labels(entry.outcome).observe(entry.latency_ms / 1000)
        self._queue.observe(entry.queued_ms / 1000)
        if entry.first_text_ms is not None:
            self._first_token.observe(entry.first_text_ms / 1000)
        self._cost.labels(entry.outcome).observe(float(entry.cost))
        (self._saved if entry.saved >= 0 else self._wasted).inc(abs(float(entry.saved)))
        for call in entry.calls:
            self._called(call)

    def _called(self, call: CallReport) -> None:
        self._upstream.labels(call.role, call.model).observe(call.seconds)
        self._tokens.labels(call.model, "input").inc(call.usage.input_tokens)
        self._tokens.labels(call.model, "output").inc(call.usage.output_tokens)
        for kind in call.faults:
            self._faults.labels(call.role, call.model, kind).inc()

    def decided(self, feature: str, decision: str) -> None:
        """A feature has decided about a request."""
        self._decisions.labels(feature, decision).inc()


def _usual_model(outcome: str, engine: Engine) -> str:
    if outcome == "accepted":
        return engine.models.drafter.name
    return engine.models.verifier.name if outcome in ("rejected", "direct") else "none"
