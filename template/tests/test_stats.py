"""`/api/stats`: the books over HTTP."""

import math
from pathlib import Path

import httpx
import pytest

from tests.conftest import ACCEPTED, DIRECT, REJECTED, Serve
from tests.redis_server import RedisServer


@pytest.fixture
def used(serve: Serve) -> httpx.Client:
    """A service that was asked one accepted, one rejected, one direct and one hopeless question."""
    client = serve()
    for query in (ACCEPTED, REJECTED, DIRECT, "[[both:500]] hi"):
        client.post("/api/query", json={"query": query})
    return client


def test_before_the_first_query_everything_is_nought(serve: Serve) -> None:
    stats = serve().get("/api/stats").json()
    assert stats.pop("uptime_seconds") >= 0
    assert stats == {
        "total_queries": 0,
        "total_cost": 0.0,
        "total_saved": 0.0,
        "avg_cost_per_query": 0.0,
        "models_used": {},
        "outcomes": {},
        "acceptance_rate": None,
        "latency_ms": {"p50": None, "p95": None, "p99": None},
        "since": None,
        "spent_today": 0.0,
        "daily_budget": 10.0,
    }


def test_every_query_counts_by_outcome_and_model(used: httpx.Client) -> None:
    stats = used.get("/api/stats").json()
    assert stats["total_queries"] == 4
    assert stats["outcomes"] == {"accepted": 1, "rejected": 1, "direct": 1, "failed": 1}
    assert stats["models_used"] == {"simulator-small": 1, "simulator-large": 2}


def test_the_acceptance_rate_is_that_of_the_drafts(used: httpx.Client) -> None:
    assert used.get("/api/stats").json()["acceptance_rate"] == 0.5


def test_costs_are_those_that_the_answers_told(serve: Serve) -> None:
    client = serve()
    queries = (ACCEPTED, REJECTED, DIRECT)
    told = [client.post("/api/query", json={"query": query}).json() for query in queries]
    stats = client.get("/api/stats").json()
    assert math.isclose(stats["total_cost"], sum(answer["cost"] for answer in told))
    assert math.isclose(stats["total_saved"], sum(answer["saved"] for answer in told))
    assert stats["spent_today"] == stats["total_cost"]


def test_refused_requests_do_not_count(serve: Serve) -> None:
    client = serve()
    client.post("/api/query", json={"query": ""})
    assert client.get("/api/stats").json()["total_queries"] == 0


def test_a_reset_begins_anew_but_gives_no_money_back(used: httpx.Client) -> None:
    before = used.get("/api/stats").json()
    assert used.delete("/api/stats").status_code == 204
    after = used.get("/api/stats").json()
    assert (after["total_queries"], after["total_cost"]) == (0, 0)
    assert after["spent_today"] == before["spent_today"] > 0
    assert before["since"] is None
    assert after["since"] is not None


def test_latencies_are_those_that_the_answers_told(serve: Serve) -> None:
    client = serve()
    told = [
        client.post("/api/query", json={"query": ACCEPTED}).json()["latency_ms"] for _ in range(9)
    ]
    client.post("/api/query", json={"query": "[[both:500]] hi"})
    latency = client.get("/api/stats").json()["latency_ms"]
    # The books are told a little later than the client.
    assert sorted(told)[4] * 0.9 < latency["p50"] < sorted(told)[4] * 1.1 + 5
    assert latency["p50"] <= latency["p95"] <= latency["p99"]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_every_worker_tells_the_same(
    serve: Serve, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.forget_everything()
        url = server.url
    one, two = (serve(ledger_url=url) for _ in range(2))
    for client in (one, two):
        for query in (ACCEPTED, REJECTED, DIRECT):
            assert client.post("/api/query", json={"query": query}).status_code == 200
    told = [client.get("/api/stats").json() for client in (one, two)]
    for each in told:
        del each["uptime_seconds"]
    assert told[0] == told[1]
    assert told[0]["total_queries"] == 6
    one.delete("/api/stats")
    assert two.get("/api/stats").json()["total_queries"] == 0
    readiness = two.get("/readiness").json()
    assert readiness["ledger"]["kind"] == kind
