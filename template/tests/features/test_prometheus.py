"""`/metrics`: what moves when queries are answered."""

import math
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, Request
from prometheus_client.parser import text_string_to_metric_families

from app.cascade.errors import ConfigurationError
from app.features import Feature, Standing, decided
from app.features.prometheus import processes
from app.main import create_app
from app.settings import Settings
from tests.conftest import (
    ACCEPTED,
    DIRECT,
    REJECTED,
    Background,
    Serve,
    client_of,
    eventually,
    key_and_entry,
    started,
)
from tests.served import served


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


def test_tokens_are_counted_by_model(fresh: httpx.Client) -> None:
    usage = fresh.post("/api/query", json={"query": REJECTED}).json()["usage"]
    for direction in ("input", "output"):
        by_model = [
            value(fresh, "cascadeflow_tokens_total", direction=direction, model=model)
            for model in ("simulator-small", "simulator-large")
        ]
        assert sum(by_model) == usage[f"{direction}_tokens"]
        assert all(by_model)


def test_calls_to_models_and_their_faults_are_counted(serve: Serve) -> None:
    client = serve(upstream_attempts=2)
    client.post("/api/query", json={"query": "[[drafter:500]] hi"})
    drafter = {"role": "drafter", "model": "simulator-small"}
    verifier = {"role": "verifier", "model": "simulator-large"}
    faults = "cascadeflow_upstream_faults_total"
    assert value(client, faults, kind="unavailable", **drafter) == 2
    assert value(client, faults) == 2
    for each in (drafter, verifier):
        assert value(client, "cascadeflow_upstream_duration_seconds_count", **each) == 1


def test_a_call_that_outlasts_the_deadline_is_a_fault(fresh: httpx.Client) -> None:
    body = {"query": "[[both:hang]] hi", "force_direct": True}
    fresh.post("/api/query", json=body, headers={"X-Request-Deadline": "0.1"})
    labels = {"role": "verifier", "kind": "timeout"}
    assert value(fresh, "cascadeflow_upstream_faults_total", **labels) == 1


def test_waiting_for_the_books_and_the_lag_of_the_loop_are_measured(fresh: httpx.Client) -> None:
    fresh.post("/api/query", json={"query": ACCEPTED})
    assert value(fresh, "cascadeflow_query_queue_seconds_count") == 1
    assert eventually(lambda: value(fresh, "cascadeflow_event_loop_lag_seconds_count") > 1)


def test_what_is_left_of_the_budget_is_told(serve: Serve) -> None:
    client = serve(daily_budget="2.5")
    cost = client.post("/api/query", json={"query": ACCEPTED}).json()["cost"]
    assert value(client, "cascadeflow_budget_dollars") == 2.5
    assert math.isclose(value(client, "cascadeflow_budget_remaining_dollars"), 2.5 - cost)


def test_what_is_in_flight_is_told(serve: Serve) -> None:
    client = serve()
    with ThreadPoolExecutor() as threads:
        body = {"query": "[[both:hang]] hi", "force_direct": True}
        headers = {"X-Request-Deadline": "1"}
        asking = threads.submit(lambda: client.post("/api/query", json=body, headers=headers))
        assert eventually(lambda: value(client, "cascadeflow_queries_in_flight") == 1)
        asking.result()
    assert eventually(lambda: value(client, "cascadeflow_queries_in_flight") == 0)


def test_decisions_of_features_are_counted(
    background: Background, make_settings: Callable[..., Settings]
) -> None:
    def decide(request: Request) -> None:
        decided(request, "porter", "let in")

    app = create_app(make_settings())
    app.add_api_route("/door", lambda: "open", dependencies=[Depends(decide)])
    service = background.run(started(app))
    with client_of(service.url) as client:
        client.get("/door")
        labels = {"feature": "porter", "decision": "let in"}
        assert value(client, "cascadeflow_feature_decisions_total", **labels) == 1
    service.stop()


def test_requests_are_counted_by_the_template_of_their_route(fresh: httpx.Client) -> None:
    fresh.post("/api/query", json={"query": ACCEPTED})
    fresh.post("/api/query", json={"query": ""})
    name = "cascadeflow_http_requests_total"
    for status in ("200", "422"):
        labels = {"method": "POST", "route": "/api/query", "status": status}
        assert value(fresh, name, **labels) == 1
    labels = {"method": "POST", "route": "/api/query"}
    assert value(fresh, "cascadeflow_http_request_duration_seconds_count", **labels) == 2


def test_clients_cannot_make_up_series(fresh: httpx.Client) -> None:
    def series() -> int:
        return fresh.get("/metrics").text.count("\n")

    fresh.request("LOCK", "/pot/0")
    series()  # has a route of its own
    before = series()
    for number, method in enumerate(["LOCK", "TRACE", "PROPFIND", "MKCOL"]):
        fresh.request(method, f"/pot/{number}")
        fresh.request(method, f"/pot?number={number}", headers={"X-Request-ID": str(number)})
    assert series() == before
    labels = {"method": "other", "route": "none", "status": "404"}
    assert value(fresh, "cascadeflow_http_requests_total", **labels) == 9


def test_a_scraper_gets_the_format_that_it_asks_for(fresh: httpx.Client) -> None:
    assert fresh.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain; q=0.5"}
    found = fresh.get("/metrics", headers=wanted)
    assert found.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert found.text.endswith("# EOF\n")


# --- several workers ------------------------------------------------------------------------------


def test_a_worker_that_counts_alone_does_not_tell(
    fresh: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.parent_process", object)
    refused = fresh.get("/metrics")
    assert (refused.status_code, refused.json()["error"]) == (503, "metrics_unavailable")


def test_a_folder_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(processes.VARIABLE, str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="PROMETHEUS_MULTIPROC_DIR: name a folder"):
        create_app(make_settings())
    monkeypatch.delenv(processes.VARIABLE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="PROMETHEUS_MULTIPROC_DIR: name a folder"):
        ExitStack().enter_context(processes.shared())


def test_every_worker_tells_the_counts_of_all_even_of_one_that_was_killed(
    cascade_file: Path,
) -> None:
    def ask(query: str, deadline: str = "10") -> None:
        with client_of(service.url) as client, suppress(httpx.TransportError):
            headers = {"X-Request-Deadline": deadline}
            client.post("/api/query", json={"query": query}, headers=headers)

    def told(name: str) -> set[float]:
        """What a scrape says on each of some new connections, which any worker may take."""
        found = set()
        for _ in range(5):
            with client_of(service.url) as client:
                found.add(value(client, name))
        return found

    with served(cascade_file, "--workers", "2") as service, ThreadPoolExecutor(16) as threads:
        for _ in range(12):
            ask(ACCEPTED)
        assert told("cascadeflow_queries_total") == {12}
        for _ in range(6):
            threads.submit(ask, "[[both:hang]] hi", "5")
        assert eventually(lambda: told("cascadeflow_queries_in_flight") == {6})
        for worker in service.workers:
            os.kill(worker, signal.SIGKILL)
        # One that is killed while uvicorn asks how it is, is missed when the answer is overdue.
        assert eventually(lambda: service.started == 4, 100)
        assert told("cascadeflow_queries_in_flight") == {0}
        assert told("cascadeflow_queries_total") == {12}
        ask(ACCEPTED)
        assert told("cascadeflow_queries_total") == {13}
        service.terminate()
        assert service.ended() == 0


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
    key, entry = key_and_entry("scraper")
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
    key, entry = key_and_entry("ann")
    astray = serve(**books, api_keys=entry)
    response = astray.post("/api/query", json={"query": ACCEPTED}, headers={"X-API-Key": key})
    assert response.status_code == 200
    assert value(astray, "cascadeflow_ledger_reachable") == 0
    assert value(astray, "cascadeflow_ledger_waiting_entries") == 1
