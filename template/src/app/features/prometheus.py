"""`/metrics`: counters of the cascade for Prometheus, in US dollars, seconds and tokens."""

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from app.features import Feature, standings
from app.http import guard
from app.http.dependencies import TheLedger
from app.ledger import Entry
from app.settings import EnvSettings, Settings, load_settings

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
DOLLARS = (0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)


class PrometheusSettings(EnvSettings):
    """Settings of this feature."""

    metrics_access: Literal["auto", "open", "key"] = "auto"
    """Who may read `/metrics`: anybody, or who has an API key; `auto` wants one in production."""


def feature(settings: Settings) -> Feature:
    """A registry of its own for each app."""
    access = load_settings(PrometheusSettings).metrics_access
    guarded = access == "key" or (access == "auto" and settings.environment == "production")
    registry = CollectorRegistry()
    queries = Counter(
        "cascadeflow_queries",
        "Queries by outcome and by the model that answered",
        ["outcome", "model"],
        registry=registry,
    )
    duration = Histogram(
        "cascadeflow_query_duration_seconds",
        "Time from question to answer",
        ["outcome"],
        buckets=SECONDS,
        registry=registry,
    )
    cost = Histogram(
        "cascadeflow_query_cost_dollars",
        "Cost of a query at the prices of cascade.toml",
        ["outcome"],
        buckets=DOLLARS,
        registry=registry,
    )
    saved = Counter(
        "cascadeflow_saved_dollars",
        "Saving against the verifier alone, of the queries that saved",
        registry=registry,
    )
    wasted = Counter(
        "cascadeflow_wasted_dollars",
        "Cost of drafts that were rejected and of queries that failed",
        registry=registry,
    )
    tokens = Counter("cascadeflow_tokens", "Tokens", ["direction"], registry=registry)
    reachable = Gauge(
        "cascadeflow_ledger_reachable", "1 while the books can be written", registry=registry
    )
    waiting = Gauge(
        "cascadeflow_ledger_waiting_entries",
        "Entries that are still to be written",
        registry=registry,
    )
    feature_reachable = Gauge(
        "cascadeflow_feature_reachable",
        "1 while what a feature leans on is within reach; if not, requests pass or are refused",
        ["feature", "kind", "on_failure"],
        registry=registry,
    )

    def observe(entry: Entry) -> None:
        queries.labels(entry.outcome, entry.model or "none").inc()
        duration.labels(entry.outcome).observe(entry.latency_ms / 1000)
        cost.labels(entry.outcome).observe(float(entry.cost))
        (saved if entry.saved >= 0 else wasted).inc(abs(float(entry.saved)))
        tokens.labels("input").inc(entry.usage.input_tokens)
        tokens.labels("output").inc(entry.usage.output_tokens)

    router = APIRouter(dependencies=[Depends(guard.require("use"))] if guarded else [])

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request, ledger: TheLedger) -> Response:
        """The exposition format of Prometheus."""
        health = await ledger.health()
        reachable.set(health.reachable)
        waiting.set(health.waiting)
        for name, standing in (await standings(request.app.state.features)).items():
            labels = name, standing.kind, standing.on_failure
            feature_reachable.labels(*labels).set(standing.reachable)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Feature(name="prometheus", open_routers=[router], observers=[observe])
