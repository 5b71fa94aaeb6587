"""Requests a minute: 429 with Retry-After on every route of the API, never on a probe."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.requests import Request
from typer.testing import CliRunner

from app.cascade.errors import ConfigurationError
from app.cli import cli
from app.features import Feature, rate_limit
from app.features.rate_limit.limiter import client_of as counted
from app.main import create_app
from app.settings import Settings
from tests.conftest import (
    ACCEPTED,
    TLS,
    Background,
    Serve,
    client_of,
    eventually,
    full_disk,
    key_and_entry,
    started,
)
from tests.redis_server import RedisServer
from tests.served import served

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


def test_what_it_decides_is_told(
    background: Background, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT", "1")
    told: list[tuple[str, str]] = []
    app = create_app(make_settings())
    app.state.features.append(
        Feature(name="listener", on_decision=lambda *words: told.append(words))
    )
    service = background.run(started(app))
    with client_of(service.url) as client:
        for _ in range(2):
            client.get("/api/stats")
    service.stop()
    assert told == [("rate_limit", "allowed"), ("rate_limit", "refused")]


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
    assert response.headers["x-ratelimit-limit"] == "1"
    assert response.headers["x-ratelimit-remaining"] == "0"
    assert time.time() < int(response.headers["x-ratelimit-reset"]) < time.time() + 62


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


def test_slowapis_own_variables_move_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT", "1")
    for name, value in {
        "STORAGE_URL": "redis://127.0.0.1:1/0",
        "STRATEGY": "none",
        "HEADERS_ENABLED": "true",
        "DEFAULT": "1000/minute",
    }.items():
        monkeypatch.setenv(f"RATELIMIT_{name}", value)
    client = serve()
    assert [client.get("/api/stats").status_code for _ in range(2)] == [200, 429]


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


@pytest.mark.parametrize("window", ["fixed", "sliding"])
def test_every_answer_counts_once_and_says_what_is_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    """Answers, streams and errors, of every route of the API."""
    monkeypatch.setenv("RATE_LIMIT", "100")
    monkeypatch.setenv("RATE_LIMIT_WINDOW", window)
    client = serve()
    paths = client.get("/openapi.json").json()["paths"]
    routes = [(method, path) for path in paths if path not in PROBES for method in paths[path]]
    answers = []
    for query in (ACCEPTED, ""):
        for method, path in routes:
            body, asked = ({"query": query}, None) if method == "post" else (None, {"query": query})
            answers.append(client.request(method, path, params=asked, json=body))
    for number, answer in enumerate(answers, start=1):
        names = ("limit", "remaining", "reset")
        limit, left, resets = (int(answer.headers[f"x-ratelimit-{name}"]) for name in names)
        assert (limit, left) == (100, 100 - number), answer.url
        assert time.time() < resets < time.time() + 62
        assert "retry-after" not in answer.headers
    assert {200, 422} <= {answer.status_code for answer in answers}


def test_only_who_is_refused_is_told_to_come_back(once: httpx.Client) -> None:
    answers = [once.get("/api/stats") for _ in range(2)]
    assert ["Retry-After" in each.headers for each in answers] == [False, True]


def test_after_a_minute_it_goes_on(limited: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limited.get("/api/stats").status_code == 429
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 61)
    assert limited.get("/api/stats").status_code == 200


# --- whose requests are counted together ----------------------------------------------------------


def test_a_key_has_one_limit_wherever_it_is_used(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT", "2")
    (ann, of_ann), (bob, of_bob) = key_and_entry("ann"), key_and_entry("bob")
    url = str(serve(api_keys=f"{of_ann},{of_bob}").base_url)
    statuses = []
    for key in (ann, ann, ann, bob):
        with client_of(url) as client:
            answer = client.get("/api/stats", headers={"X-API-Key": key})
            statuses.append(answer.status_code)
    assert statuses == [200, 200, 429, 200]


def test_a_keys_own_limit_goes_before_the_general_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RATE_LIMIT", "2")
    books = {"LEDGER_URL": f"sqlite:///{tmp_path}/ledger.sqlite3"}
    given = {}
    for name, options in {"ann": ("--limit", "3"), "bob": ("--limit", "1"), "eve": ()}.items():
        made = CliRunner().invoke(cli, ["keys", "create", name, *options], env=books)
        given[name] = re.findall(r"key: +(\S+)", made.stdout)[0]
    client = serve(ledger_url=books["LEDGER_URL"])
    for name, limit in {"ann": 3, "bob": 1, "eve": 2}.items():
        answers = [client.get("/api/stats", headers={"X-API-Key": given[name]}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * limit + [429] * (4 - limit)
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {str(limit)}
        assert answers[-1].json()["detail"].startswith(f"More than {limit} requests")


def test_who_has_no_key_uses_up_nobodys_limit(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT", "1")
    key, entry = key_and_entry("ann")
    client = serve(api_keys=entry)
    for _ in range(3):
        assert client.get("/api/stats").status_code == 401
    assert client.get("/api/stats", headers={"X-API-Key": key}).status_code == 200


def test_what_a_client_says_before_the_proxy_gains_it_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT", "1")
    client = serve()
    chains = [f"203.0.113.{number}, 10.7.7.7" for number in range(3)]
    answers = [client.get("/api/stats", headers={"X-Forwarded-For": chain}) for chain in chains]
    assert [answer.status_code for answer in answers] == [200, 429, 429]


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_of_ipv6_counts_with_its_network(address: str, client: str) -> None:
    scope = {"type": "http", "client": (address, 1), "headers": [], "state": {}}
    assert counted(Request(scope)) == client


# --- workers --------------------------------------------------------------------------------------


def statuses_of(url: str, number: int, **headers: str) -> list[int]:
    """Each over a connection of its own, so that every worker gets some."""

    def ask(_: int) -> int:
        return httpx.get(f"{url}/api/stats", headers=headers, verify=TLS, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, range(number)))


def test_workers_share_a_limit(cascade_file: Path, tmp_path: Path) -> None:
    limit = {"RATE_LIMIT": "40", "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.sqlite3"}
    with served(cascade_file, "--workers", "2", **limit) as service:
        assert sorted(statuses_of(service.url, 100)) == [200] * 40 + [429] * 60


def test_replicas_share_a_limit(
    cascade_file: Path, tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_server.forget_everything()
    limit = {"RATE_LIMIT": "40", "LEDGER_URL": redis_server.url}
    with ExitStack() as stack:
        replicas = [stack.enter_context(served(cascade_file, **limit)) for _ in range(2)]
        statuses = [status for each in replicas for status in statuses_of(each.url, 50)]
    assert sorted(statuses) == [200] * 40 + [429] * 60


def test_the_header_of_a_proxy_that_is_not_trusted_is_ignored(
    cascade_file: Path, tmp_path: Path
) -> None:
    trusting = {"TRUSTED_PROXIES": "10.0.0.0/8", "RATE_LIMIT": "1", "LEDGER_URL": "memory://"}
    with served(cascade_file, **trusting) as service:
        forged = [{"X-Forwarded-For": f"203.0.113.{number}"} for number in range(3)]
        assert [statuses_of(service.url, 1, **headers)[0] for headers in forged] == [200, 429, 429]


def test_counts_of_one_process_are_refused_for_several(
    cascade_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "CASCADE_FILE": str(cascade_file),
        "SIMULATOR": "off",
        "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.sqlite3",
        "RATE_LIMIT_STORAGE": "memory://",
    }
    result = CliRunner().invoke(cli, ["serve", "--workers", "2"], env=variables)
    assert result.exit_code == 1
    assert "RATE_LIMIT_STORAGE=memory:// is known to one process alone" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("RATE_LIMIT_WINDOW", "moving"), ("RATE_LIMIT_ON_FAILURE", "ajar"), ("RATE_LIMIT", "NaN")],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        rate_limit.feature(Settings(ledger_url=SecretStr("memory://")))


# --- while requests cannot be counted -------------------------------------------------------------


@pytest.fixture
def counting_in_redis(
    serve: Serve, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], httpx.Client]]:
    """Starts a service that counts in Redis, and keeps its books elsewhere."""
    redis_server.forget_everything()
    monkeypatch.setenv("RATE_LIMIT", "3")
    monkeypatch.setenv("RATE_LIMIT_STORAGE", redis_server.url)

    def start(on_failure: str) -> httpx.Client:
        monkeypatch.setenv("RATE_LIMIT_ON_FAILURE", on_failure)
        client = serve()
        # On a machine under load even a Redis that is well can be late.
        assert eventually(lambda: client.get("/readiness").status_code == 200)
        return client

    yield start
    redis_server.resume()


def state(client: httpx.Client) -> object:
    return client.get("/readiness").json()["features"]["rate_limit"]


def test_open_requests_pass_uncounted_and_the_limit_is_back_with_redis(
    counting_in_redis: Callable[[str], httpx.Client], redis_server: RedisServer
) -> None:
    client = counting_in_redis("open")
    fine = {"kind": "redis", "reachable": True, "on_failure": "open"}
    assert eventually(lambda: state(client) == fine)
    redis_server.freeze()
    answers = [client.get("/api/stats") for _ in range(10)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("x-ratelimit-limit" in answer.headers for answer in answers)
    assert state(client) == {**fine, "reachable": False}
    redis_server.resume()
    assert eventually(lambda: state(client) == fine)
    redis_server.forget_everything()
    assert [client.get("/api/stats").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_closed_requests_are_refused_and_the_service_is_not_ready(
    counting_in_redis: Callable[[str], httpx.Client], redis_server: RedisServer
) -> None:
    client = counting_in_redis("closed")
    assert client.get("/api/stats").status_code == 200
    redis_server.freeze()
    for path in ("/api/stats", "/readiness"):
        refused = client.get(path)
        assert (refused.status_code, refused.json()["error"]) == (503, "rate_limit_unavailable")
        assert refused.headers["retry-after"] == "1"
    assert client.get("/liveness").status_code == 200
    redis_server.resume()
    assert eventually(lambda: client.get("/readiness").status_code == 200)


def test_a_place_that_is_full_is_out_of_reach(
    counting_in_redis: Callable[[str], httpx.Client], redis_server: RedisServer
) -> None:
    client = counting_in_redis("closed")
    redis_server.fill()
    try:
        answers = [client.get(path) for path in ("/readiness", "/api/stats", "/readiness")]
    finally:
        redis_server.make_room()
    assert [each.status_code for each in answers] == [503, 503, 503]
    assert eventually(lambda: client.get("/readiness").status_code == 200)


def test_a_file_on_a_full_disk_is_out_of_reach(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits.sqlite3"
    monkeypatch.setenv("RATE_LIMIT_STORAGE", f"sqlite:///{path}")
    monkeypatch.setenv("RATE_LIMIT_ON_FAILURE", "closed")
    client = serve()
    assert client.get("/readiness").status_code == 200
    with full_disk(path):
        answers = [client.get(path) for path in ("/readiness", "/api/stats", "/readiness")]
    assert [each.status_code for each in answers] == [503, 503, 503]
    assert eventually(lambda: client.get("/readiness").status_code == 200)


def test_a_service_starts_without_its_redis(
    counting_in_redis: Callable[[str], httpx.Client], redis_server: RedisServer
) -> None:
    redis_server.stop()
    try:
        client = counting_in_redis("open")
        assert client.get("/api/stats").status_code == 200
    finally:
        redis_server.start()
    assert eventually(lambda: "x-ratelimit-limit" in client.get("/api/stats").headers)
