"""API keys that the ledger's place keeps, in every such place: one suite, over HTTP."""

import asyncio
import json
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, Request

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.http import guard, keyring, keys
from app.http.keyring import Keyring
from app.http.keys import KeyRole
from app.ledger.opening import store as store_of
from app.main import create_app
from app.settings import Settings
from tests.conftest import ACCEPTED, Serve, client_of, eventually, key_and_entry
from tests.redis_server import RedisServer
from tests.served import served
from tests.test_ledger import SHARED, Place, new_place

PATIENCE = 20.0
"""Seconds; a machine under load is slow, and the promise of one second is `PERIOD`'s to keep."""

Make = Callable[..., str]


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new place of each kind that keeps keys."""
    return new_place(request, tmp_path)


@pytest.fixture
def serve(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A service that looks for changes more often than one that somebody runs."""
    monkeypatch.setattr(keyring, "PERIOD", 0.1)
    return serve


@pytest.fixture
def make(place: Place) -> Make:
    """Makes a key as the command line does, and keeps it."""

    def make(name: str, role: KeyRole = "use", **more: Any) -> str:  # noqa: ANN401
        key, made = keys.make(name, role, **more)
        assert asyncio.run(change(place, "add", name, keys.write(made)))
        return key

    return make


async def change(place: Place, verb: str, *arguments: str) -> bool:
    """Add or remove a key as another process would."""
    store = place.store()
    async with store.running():
        assert store.keys
        done: bool = await getattr(store.keys, verb)(*arguments)
        return done


def revoke(place: Place, name: str) -> None:
    assert asyncio.run(change(place, "remove", name))


def soon(check: Callable[[], bool]) -> bool:
    """Whether it becomes true in time; asked seldom, for a service may count requests."""
    return eventually(check, PATIENCE, pause=0.25)


def stats(client: httpx.Client, key: str = "") -> int:
    headers = {"X-API-Key": key} if key else {}
    return client.get("/api/stats", headers=headers).status_code


# --- over HTTP ------------------------------------------------------------------------------------


def test_a_kept_key_is_accepted_in_either_header(serve: Serve, place: Place, make: Make) -> None:
    key = make("ann")
    client = serve(ledger_url=place.url)
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        assert client.get("/api/stats", headers=headers).status_code == 200
    assert stats(client) == stats(client, "wrong") == 401
    assert client.delete("/api/stats", headers={"X-API-Key": key}).status_code == 403


def test_a_kept_admin_may_do_everything(serve: Serve, place: Place, make: Make) -> None:
    headers = {"X-API-Key": make("ann", "admin")}
    client = serve(ledger_url=place.url)
    assert client.get("/api/stats", headers=headers).status_code == 200
    assert client.delete("/api/stats", headers=headers).status_code == 204


def test_a_key_of_the_environment_works_beside_it(serve: Serve, place: Place, make: Make) -> None:
    kept, (configured, entry) = make("ann"), key_and_entry("bob", "admin")
    client = serve(ledger_url=place.url, api_keys=entry)
    assert stats(client, kept) == stats(client, configured) == 200


def test_an_expired_key_is_refused_and_its_owner_told_why(
    serve: Serve, place: Place, make: Make
) -> None:
    now = datetime.now(UTC)
    old, good = make("old", expires=now), make("good", expires=now + timedelta(hours=1))
    client = serve(ledger_url=place.url)
    assert stats(client, good) == 200
    refused = client.get("/api/stats", headers={"X-API-Key": old})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["detail"] == "This API key has expired."


def test_a_key_expires_while_the_service_runs(serve: Serve, place: Place, make: Make) -> None:
    key = make("ann", expires=datetime.now(UTC) + timedelta(seconds=1))
    client = serve(ledger_url=place.url)
    assert soon(lambda: stats(client, key) == 401)


def test_a_key_has_its_own_budget(serve: Serve, place: Place, make: Make) -> None:
    poor, rich = make("poor", budget=Decimal("0.0001")), make("rich", budget=Decimal(1))
    client = serve(ledger_url=place.url, key_daily_budget="0.0002")

    def ask(key: str) -> httpx.Response:
        return client.post("/api/query", json={"query": ACCEPTED}, headers={"X-API-Key": key})

    assert ask(rich).status_code == 200
    refused = ask(poor)
    assert (refused.status_code, refused.json()["remaining"]) == (402, 0.0001)


def test_whoever_counts_requests_finds_the_limit_of_a_key(
    make_settings: Callable[..., Settings], place: Place, make: Make
) -> None:
    slow, free = make("slow", limit=7), make("free")
    app = create_app(make_settings(ledger_url=place.url))

    @app.get("/limit", dependencies=[Depends(guard.require("use"))])
    async def limit(request: Request) -> int | None:
        found: int | None = request.state.key_limit
        return found

    async def go() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            for key, number in ((slow, 7), (free, None)):
                response = await client.get("/limit", headers={"X-API-Key": key})
                assert response.json() == number

    asyncio.run(go())


# --- changes --------------------------------------------------------------------------------------


def test_a_revoked_key_stops_while_others_go_on(serve: Serve, place: Place, make: Make) -> None:
    ann, bob = make("ann"), make("bob")
    client = serve(ledger_url=place.url)
    assert stats(client, ann) == stats(client, bob) == 200
    revoke(place, "ann")
    assert soon(lambda: stats(client, ann) == 401)
    assert stats(client, bob) == 200


def test_a_new_key_is_accepted_while_the_service_runs(
    serve: Serve, place: Place, make: Make
) -> None:
    ann = make("ann")
    client = serve(ledger_url=place.url)
    bob = make("bob")
    assert soon(lambda: stats(client, bob) == 200)
    assert stats(client, ann) == 200


def test_a_name_is_free_again_once_it_is_revoked(serve: Serve, place: Place, make: Make) -> None:
    first = make("ann")
    client = serve(ledger_url=place.url)
    _, other = keys.make("ann", "admin")
    assert not asyncio.run(change(place, "add", "ann", keys.write(other)))
    assert stats(client, first) == 200
    revoke(place, "ann")
    assert not asyncio.run(change(place, "remove", "ann"))
    second = make("ann")
    assert soon(lambda: stats(client, second) == 200)
    assert stats(client, first) == 401


def test_the_first_key_closes_an_open_service_and_revoking_it_does_not_open_it(
    serve: Serve, place: Place, make: Make
) -> None:
    client = serve(ledger_url=place.url)
    assert stats(client) == 200
    key = make("ann")
    assert soon(lambda: stats(client) == 401)
    assert stats(client, key) == 200
    revoke(place, "ann")
    assert soon(lambda: stats(client, key) == 401)
    assert stats(client) == 401
    # Nor does a restart.
    assert stats(serve(ledger_url=place.url)) == 401


def test_a_revoked_key_stops_on_every_worker_and_replica(
    serve: Serve, place: Place, make: Make, cascade_file: Path
) -> None:
    ann, bob = make("ann"), make("bob")

    def refused(client: httpx.Client) -> bool:
        return {stats(client, ann) for _ in range(8)} == {401}

    with (
        served(cascade_file, "--workers", "2", LEDGER_URL=place.url) as service,
        client_of(service.url) as workers,
    ):
        # Every request a connection, and so a worker, of its own.
        workers.headers["Connection"] = "close"
        replicas = [workers, serve(ledger_url=place.url)]
        for client in replicas:
            assert {stats(client, ann) for _ in range(8)} == {200}
        revoke(place, "ann")
        assert all(soon(partial(refused, client)) for client in replicas)
        for client in replicas:
            assert stats(client, bob) == 200


# --- the ring by itself ---------------------------------------------------------------------------


class Told:
    """A store that says what it is told to, and counts how often it is asked."""

    def __init__(self, *entries: str) -> None:
        self.name: str | None = "first" if entries else None
        self.kept = list(entries)
        self.editions = self.reads = 0
        self.failure: Exception | None = None

    async def edition(self) -> str | None:
        self.editions += 1
        if self.failure:
            raise self.failure
        return self.name

    async def entries(self) -> AsyncIterator[str]:
        self.reads += 1
        for entry in self.kept:
            yield entry

    async def add(self, name: str, entry: str) -> bool:
        raise NotImplementedError

    async def remove(self, name: str) -> bool:
        raise NotImplementedError


def kept(name: str = "ann") -> tuple[str, str]:
    key, made = keys.make(name, "use")
    return key, keys.write(made)


def test_no_request_asks_the_store() -> None:
    key, entry = kept()
    store = Told(entry)
    ring = Keyring((), store)

    async def go() -> None:
        async with ring.running():
            for _ in range(1000):
                assert ring.find(key)
                assert ring.find("wrong") is None
            assert (store.editions, store.reads) == (1, 1)

    asyncio.run(go())


def test_it_looks_within_a_second_and_reads_only_what_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 0.5 < keyring.PERIOD < 1
    monkeypatch.setattr(keyring, "PERIOD", 0.01)
    store = Told(kept()[1])

    async def go() -> None:
        async with Keyring((), store).running():
            while store.editions < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert store.reads == 1
            store.name = "second"
            while store.reads < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(go(), 20))


@pytest.mark.parametrize("failure", [LedgerUnavailable("gone"), RuntimeError("a secret")])
def test_what_was_last_known_stays_while_the_store_fails_and_it_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, logged: list[str], failure: Exception
) -> None:
    monkeypatch.setattr(keyring, "PERIOD", 0.01)
    key, entry = kept()
    store = Told(entry)
    ring = Keyring((), store)

    async def go() -> None:
        async with ring.running():
            store.failure = failure
            before = store.editions
            while store.editions < before + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert ring.find(key)
            store.failure, store.name, store.kept = None, "second", []
            while ring.find(key):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(go(), 20))
    assert logged
    assert not any("secret" in line or key in line for line in logged)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "[]",
        "5",
        "{}",
        json.dumps({"name": "ann", "role": "root", "digest": "0" * 64}),
        json.dumps({"name": "ann", "role": "use", "digest": "0"}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "expires": "never"}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "budget": "much"}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "budget": "NaN"}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "budget": "Infinity"}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "budget": "-1"}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "limit": 0}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "limit": math.inf}),
        json.dumps({"name": "ann", "role": "use", "digest": "0" * 64, "only": "streams"}),
    ],
)
def test_an_entry_that_cannot_be_read_is_no_key_and_harms_no_other(
    logged: list[str], entry: str
) -> None:
    key, good = kept("bob")
    ring = Keyring((), Told(entry, good))
    asyncio.run(ring.look())
    assert [each.name for each in ring.keys] == ["bob"]
    assert ring.find(key)
    assert any("cannot read: 1" in line for line in logged)


def test_a_key_is_read_as_it_was_written() -> None:
    moment = datetime(2030, 1, 31, 12, tzinfo=UTC)
    _, made = keys.make("ann", "admin", budget=Decimal("1.50"), limit=9, expires=moment)
    assert keys.read(keys.write(made)) == made


def test_many_keys_are_all_found(place: Place) -> None:
    made = [keys.make(f"key{number}", "use") for number in range(1203)]

    async def go() -> None:
        store = place.store()
        async with store.running():
            assert store.keys
            adding = (store.keys.add(key.name, keys.write(key)) for _, key in made)
            assert all(await asyncio.gather(*adding))
            ring = Keyring((), store.keys)
            await ring.look()
            assert len(ring.stored) == 1203
            assert all(ring.find(key) == each for key, each in made)

    asyncio.run(go())


# --- a place out of reach -------------------------------------------------------------------------


def test_while_redis_is_gone_known_keys_are_valid_and_others_are_not(
    serve: Serve, redis_server: RedisServer
) -> None:
    redis_server.forget_everything()
    place = Place(redis_server.url)
    key, made = keys.make("ann", "use")
    assert asyncio.run(change(place, "add", "ann", keys.write(made)))
    client = serve(ledger_url=place.url, ledger_on_failure="open")
    headers = {"X-API-Key": key}
    assert client.post("/api/query", json={"query": ACCEPTED}, headers=headers).status_code == 200
    redis_server.stop()
    try:
        time.sleep(3 * keyring.PERIOD)
        asked = client.post("/api/query", json={"query": ACCEPTED}, headers=headers)
        assert (asked.status_code, stats(client, "wrong")) == (200, 401)
    finally:
        redis_server.start()
    revoke(place, "ann")
    assert soon(lambda: stats(client, key) == 401)


def test_a_service_that_starts_while_redis_is_gone_is_not_open(
    serve: Serve, redis_server: RedisServer
) -> None:
    redis_server.forget_everything()
    place = Place(redis_server.url)
    key, made = keys.make("ann", "use")
    configured, entry = key_and_entry("bob")
    assert asyncio.run(change(place, "add", "ann", keys.write(made)))

    def accepted(client: httpx.Client) -> bool:
        return stats(client, key) == 200

    redis_server.stop()
    try:
        empty = serve(ledger_url=place.url, ledger_on_failure="open")
        client = serve(ledger_url=place.url, ledger_on_failure="open", api_keys=entry)
        for each in (empty, client):
            refused = each.get("/api/stats", headers={"X-API-Key": key})
            assert refused.status_code == 503
            assert refused.json()["error"] == "keys_unavailable"
            assert refused.headers["retry-after"] == "1"
        assert (stats(empty), stats(client)) == (503, 401)
        asked = client.post(
            "/api/query", json={"query": ACCEPTED}, headers={"X-API-Key": configured}
        )
        assert asked.status_code == 200
    finally:
        redis_server.start()
    for each in (empty, client):
        assert soon(partial(accepted, each))


# --- open, or not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("::ffff:192.168.0.7", False),
        ("my-machine", False),
        ("", False),
    ],
)
def test_only_loopback_is_loopback(host: str, loopback: bool) -> None:
    assert guard.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("address", "status"), [("127.0.0.1", 200), ("10.1.2.3", 401), ("0.0.0.0", 401), ("::1", 200)]
)
def test_an_open_service_is_open_to_its_own_machine_alone(
    make_settings: Callable[..., Settings], address: str, status: int
) -> None:
    app = create_app(make_settings())

    async def go() -> int:
        host = f"[{address}]" if ":" in address else address
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client,
        ):
            # What a client says of itself changes nothing.
            headers = {"X-Forwarded-For": "127.0.0.1", "Host": "localhost"}
            return (await client.get("/api/stats", headers=headers)).status_code

    assert asyncio.run(go()) == status


def test_production_starts_with_a_kept_key_alone(
    make_settings: Callable[..., Settings], place: Place, make: Make
) -> None:
    make("ann")
    app = create_app(make_settings(environment="production", ledger_url=place.url))

    async def go() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(go())


def test_production_without_any_key_does_not_start(
    make_settings: Callable[..., Settings], place: Place
) -> None:
    app = create_app(make_settings(environment="production", ledger_url=place.url))

    async def go() -> None:
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(ConfigurationError, match=r"^API_KEYS is empty and the ledger keeps no key"):
        asyncio.run(go())


def test_a_ledger_from_before_there_were_keys_gets_a_place_for_them(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/ledger.sqlite3")
    store_of(place.url).check()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection:
        connection.execute("DROP TABLE keys")
    assert asyncio.run(change(place, "add", *["ann", kept()[1]]))


def test_neither_a_key_nor_its_hash_is_in_the_log(
    serve: Serve, place: Place, make: Make, logged: list[str]
) -> None:
    key = make("ann", expires=datetime.now(UTC))
    client = serve(ledger_url=place.url)
    assert stats(client, key) == stats(client, "wrong-key") == 401
    revoke(place, "ann")
    assert logged
    secrets = (key, keys.digest(key), "wrong-key")
    assert not any(secret in line for line in logged for secret in secrets)


def test_a_key_itself_is_nowhere_in_the_file(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/ledger.sqlite3")
    key, entry = kept()
    assert asyncio.run(change(place, "add", "ann", entry))
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert keys.digest(key).encode() in content
    assert key.encode() not in content
