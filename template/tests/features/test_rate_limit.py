"""Requests a minute: 429 with Retry-After on every route of the API, never on a probe."""

import time

import httpx
import pytest

from app.cascade.errors import ConfigurationError
from app.features import rate_limit
from app.settings import Settings
from tests.conftest import Serve, client_of

PROBES = ("/health", "/readiness", "/liveness")


@pytest.fixture
def once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """A service that takes one request a minute."""
    monkeypatch.setenv("RATE_LIMIT", "1")
    return serve()


@pytest.fixture
def limited(once: httpx.Client) -> httpx.Client:
    """The same, with that one request made."""
    assert once.get("/api/stats").status_code == 200
    return once


def test_the_guides_limit_is_the_default() -> None:
    assert rate_limit.RateLimitSettings().rate_limit == 60


def test_a_limit_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT", "0")
    with pytest.raises(ConfigurationError, match=r"^RATE_LIMIT: "):
        rate_limit.feature(Settings())


def test_beyond_the_limit_it_is_a_429_that_says_when_to_come_back(limited: httpx.Client) -> None:
    response = limited.get("/api/stats")
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["error"] == "rate_limit_exceeded"
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["x-ratelimit-remaining"] == "0"


def test_every_route_of_the_api_is_limited(limited: httpx.Client) -> None:
    paths = limited.get("/openapi.json").json()["paths"]
    responses = {
        f"{method} {path}": limited.request(method, path)
        for path, operations in paths.items()
        for method in operations
        if path not in PROBES
    }
    assert "post /api/query" in responses
    statuses = {name: response.status_code for name, response in responses.items()}
    assert set(statuses.values()) == {429}, statuses
    assert all("retry-after" in response.headers for response in responses.values())


def test_probes_are_never_limited(limited: httpx.Client) -> None:
    for path in PROBES * 3:
        assert limited.get(path).status_code == 200


def test_what_is_limited_reaches_no_model(limited: httpx.Client) -> None:
    limited.post("/api/query", json={"query": "hi"})
    with client_of(str(limited.base_url)) as other:
        assert other.get("/api/stats").json()["total_queries"] == 0


def test_every_client_has_a_limit_of_its_own(limited: httpx.Client) -> None:
    with client_of(str(limited.base_url)) as other:
        assert other.get("/api/stats").status_code == 200


def test_every_service_counts_for_itself(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT", "1")
    headers = {"X-Forwarded-For": "10.9.9.9"}
    for service in (serve(), serve()):
        assert service.get("/api/stats", headers=headers).status_code == 200


def test_a_client_is_told_what_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT", "3")
    client = serve()
    left = [client.get("/api/stats").headers["x-ratelimit-remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]


def test_only_who_is_refused_is_told_to_come_back(once: httpx.Client) -> None:
    answers = [once.get("/api/stats") for _ in range(2)]
    assert ["Retry-After" in each.headers for each in answers] == [False, True]


def test_after_a_minute_it_goes_on(limited: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limited.get("/api/stats").status_code == 429
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 61)
    assert limited.get("/api/stats").status_code == 200
