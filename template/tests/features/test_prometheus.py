"""`/metrics`: what moves when queries are answered."""

import math
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.features import Feature, Standing
from app.http import keys
from app.main import create_app
from app.settings import Settings
from tests.conftest import (
    ACCEPTED,
    DIRECT,
    REJECTED,
    Background,
    Serve,
    client_of,
    started,
)


def value(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of the samples of that name that have these labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture
def fresh(serve: Serve) -> httpx.Client:
    return serve()


@pytest.mark.parametrize(
    ("query", "outcome", "model"),
    [
        (ACCEPTED, "accepted", "simulator-small"),
        (REJECTED, "rejected", "simulator-large"),
        (DIRECT, "direct", "simulator-large"),
        ("[[both:500]] hi", "failed", "none"),
    ],
)
def test_a_query_counts_by_outcome_and_model(
    fresh: httpx.Client, query: str, outcome: str, model: str
) -> None:
    labels = {"outcome": outcome, "model": model}
    assert value(fresh, "cascadeflow_queries_total", **labels) == 0
    fresh.post("/api/query", json={"query": query})
    assert value(fresh, "cascadeflow_queries_total", **labels) == 1
    assert value(fresh, "cascadeflow_queries_total") == 1


def test_time_is_measured_in_seconds(fresh: httpx.Client) -> None:
    answer = fresh.post("/api/query", json={"query": ACCEPTED}).json()
    assert value(fresh, "cascadeflow_query_duration_seconds_count", outcome="accepted") == 1
    seconds = value(fresh, "cascadeflow_query_duration_seconds_sum")
    assert math.isclose(seconds, answer["latency_ms"] / 1000, rel_tol=0.5)


def test_cost_is_measured_in_dollars(fresh: httpx.Client) -> None:
    answer = fresh.post("/api/query", json={"query": REJECTED}).json()
    assert value(fresh, "cascadeflow_query_cost_dollars_count", outcome="rejected") == 1
    assert math.isclose(value(fresh, "cascadeflow_query_cost_dollars_sum"), answer["cost"])


def test_what_was_saved_and_what_was_wasted_are_counted_apart(fresh: httpx.Client) -> None:
    saved = fresh.post("/api/query", json={"query": ACCEPTED}).json()["saved"]
    wasted = fresh.post("/api/query", json={"query": REJECTED}).json()["saved"]
    assert math.isclose(value(fresh, "cascadeflow_saved_dollars_total"), saved)
    assert math.isclose(value(fresh, "cascadeflow_wasted_dollars_total"), -wasted)


def test_tokens_are_counted(fresh: httpx.Client) -> None:
    usage = fresh.post("/api/query", json={"query": ACCEPTED}).json()["usage"]
    for direction in ("input", "output"):
        counted = value(fresh, "cascadeflow_tokens_total", direction=direction)
        assert counted == usage[f"{direction}_tokens"]


def test_refused_requests_do_not_count(fresh: httpx.Client) -> None:
    fresh.post("/api/query", json={"query": ""})
    assert value(fresh, "cascadeflow_queries_total") == 0


def test_two_services_count_for_themselves(serve: Serve) -> None:
    one, two = serve(), serve()
    one.post("/api/query", json={"query": ACCEPTED})
    assert value(one, "cascadeflow_queries_total") == 1
    assert value(two, "cascadeflow_queries_total") == 0


@pytest.mark.parametrize(
    ("environment", "access", "status"),
    [
        ("development", "auto", 200),
        ("development", "key", 401),
        ("production", "auto", 401),
        ("production", "open", 200),
    ],
)
def test_production_gives_metrics_to_who_has_a_key(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, environment: str, access: str, status: int
) -> None:
    monkeypatch.setenv("METRICS_ACCESS", access)
    key, entry = keys.create("scraper", "use")
    client = serve(environment=environment, api_keys=entry)
    assert client.get("/metrics").status_code == status
    response = client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")


def test_what_a_feature_leans_on_is_within_reach_or_not(
    background: Background, make_settings: Callable[..., Settings]
) -> None:
    standing = Standing("cellar", True, "open")

    async def stand() -> Standing:
        return standing

    app = create_app(make_settings())
    app.state.features.append(Feature(name="leaning", standing=stand))
    service = background.run(started(app))
    labels = {"feature": "leaning", "kind": "cellar", "on_failure": "open"}
    with client_of(service.url) as client:
        assert value(client, "cascadeflow_feature_reachable", **labels) == 1
        standing = Standing("cellar", False, "open")
        assert value(client, "cascadeflow_feature_reachable", **labels) == 0
    service.stop()


def test_no_label_holds_a_prompt(fresh: httpx.Client) -> None:
    fresh.post("/api/query", json={"query": "a secret prompt"})
    assert "secret" not in fresh.get("/metrics").text


def test_books_out_of_reach_are_told(fresh: httpx.Client, serve: Serve) -> None:
    assert value(fresh, "cascadeflow_ledger_reachable") == 1
    # Nothing listens at that port.
    books = {"ledger_url": "redis://127.0.0.1:1/0", "ledger_on_failure": "open"}
    key, entry = keys.create("ann", "use")
    astray = serve(**books, api_keys=entry)
    response = astray.post("/api/query", json={"query": ACCEPTED}, headers={"X-API-Key": key})
    assert response.status_code == 200
    assert value(astray, "cascadeflow_ledger_reachable") == 0
    assert value(astray, "cascadeflow_ledger_waiting_entries") == 1
