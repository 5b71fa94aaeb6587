"""The books in Redis: a Redis that is frozen, gone, forgetful or somebody else's."""

import asyncio
import sys
import time
from decimal import Decimal

import pytest

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.ledger import Ledger, pump
from app.ledger.opening import store
from tests.conftest import ACCEPTED, Serve, eventually, watched
from tests.redis_server import RedisServer
from tests.test_ledger import Place, entry, records, run, spend


@pytest.fixture
def place(redis_server: RedisServer) -> Place:
    redis_server.forget_everything()
    return Place(redis_server.url)


async def written(ledger: Ledger) -> None:
    """Wait until nothing waits to be written."""
    while (await ledger.health()).waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def test_a_frozen_redis_neither_stalls_the_loop_nor_loses_an_entry(
    place: Place, redis_server: RedisServer
) -> None:
    outcomes = {"settled": 0, "refused": 0}

    async def query(ledger: Ledger) -> None:
        try:
            reservation = await ledger.reserve(Decimal("0.01"))
        except LedgerUnavailable:
            outcomes["refused"] += 1
            await asyncio.sleep(0.05)
            return
        await asyncio.sleep(0.02)
        await ledger.settle(reservation, entry("0.01"))
        outcomes["settled"] += 1

    async def client(ledger: Ledger, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await query(ledger)

    async def go() -> None:
        stop = asyncio.Event()
        async with place.open("100", hold_seconds=0.5) as ledger, watched() as gaps:
            clients = [asyncio.create_task(client(ledger, stop)) for _ in range(10)]
            await asyncio.sleep(0.2)
            redis_server.freeze()
            await asyncio.sleep(1.5)
            assert not (await ledger.health()).reachable
            redis_server.resume()
            await written(ledger)
            await asyncio.sleep(1)
            stop.set()
            await asyncio.gather(*clients)
            # A loop that waited for Redis would have waited for all of that.
            assert max(gaps) < pump.SECONDS
            totals = await ledger.totals()
            assert outcomes["refused"] > 0
            assert totals.queries == outcomes["settled"] == len(await records(ledger))
            assert totals.spent_today == Decimal("0.01") * outcomes["settled"]
            await asyncio.sleep(0.5)
            # What a lost answer had reserved has expired: the rest is there to the cent.
            await ledger.reserve(100 - totals.spent_today)

    try:
        run(go())
    finally:
        redis_server.resume()


def test_a_service_that_does_not_run_for_a_while_does_not_take_redis_for_gone(
    place: Place, redis_server: RedisServer
) -> None:
    def stand_still() -> None:
        # The reply comes meanwhile.
        redis_server.resume()
        time.sleep(2 * pump.SECONDS)

    async def go() -> None:
        async with pump.Pump.open(place.url) as opened:
            # Connected, it has one reply to wait for.
            await opened.ask("PING")
            redis_server.freeze()
            asyncio.get_running_loop().call_later(0.1, stand_still)
            assert await opened.ask("PING") is True

    try:
        run(go())
    finally:
        redis_server.resume()


def test_a_redis_that_is_gone_refuses_queries_and_gets_what_was_under_way(
    place: Place, redis_server: RedisServer
) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            reservations = [await ledger.reserve(Decimal("0.1")) for _ in range(3)]
            redis_server.stop()
            for reservation in reservations:
                await ledger.settle(reservation, entry("0.1"))
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(Decimal("0.1"))
            with pytest.raises(LedgerUnavailable):
                await ledger.totals()
            assert (await ledger.health()).waiting == 3
            redis_server.start()
            await written(ledger)
            assert (await ledger.totals()).spent_today == Decimal("0.3")

    try:
        run(go())
    finally:
        redis_server.stop()
        redis_server.start()


def test_an_open_ledger_lets_queries_in_and_counts_them_later(
    place: Place, redis_server: RedisServer
) -> None:
    async def go() -> None:
        async with place.open("1", on_failure="open") as ledger:
            redis_server.stop()
            for _ in range(30):
                await spend(ledger, "0.1")
            health = await ledger.health()
            assert (health.reachable, health.on_failure, health.waiting) == (False, "open", 30)
            redis_server.start()
            await written(ledger)
            totals = await ledger.totals()
            assert (totals.queries, totals.spent_today) == (30, Decimal(3))
            assert len(await records(ledger)) == 30

    try:
        run(go())
    finally:
        redis_server.stop()
        redis_server.start()


def test_what_cannot_be_written_until_the_end_is_logged(
    place: Place, redis_server: RedisServer, logged: list[str]
) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            reservation = await ledger.reserve(Decimal("0.1"))
            redis_server.stop()
            await ledger.settle(reservation, entry("0.1"))

    try:
        run(go())
    finally:
        redis_server.start()
    (line,) = [line for line in logged if "not written" in line]
    assert '"cost":100000000000' in line


def test_a_redis_that_has_forgotten_the_scripts_is_told_them_again(
    place: Place, redis_server: RedisServer
) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            await spend(ledger, "0.1")
            redis_server.forget_scripts()
            await asyncio.gather(*(spend(ledger, "0.1") for _ in range(5)))
            assert (await ledger.totals()).queries == 6

    run(go())


def test_a_ledger_of_a_newer_version_is_refused(place: Place, redis_server: RedisServer) -> None:
    async def go() -> None:
        async with place.open():
            pass
        (key,) = redis_server.keys("*ledger:version")
        redis_server.set(key, "99")
        with pytest.raises(ConfigurationError, match="newer version"):
            async with place.open():
                pass

    run(go())


@pytest.mark.parametrize(
    "url", ["redis://host:port/0", "redis://:secret@host/x", "redis://:secret@[::1/0"]
)
def test_a_url_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^LEDGER_URL: ") as refusal:
        store(url).check()
    assert "secret" not in str(refusal.value)


def test_without_the_extra_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "app.ledger.redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    monkeypatch.delitem(sys.modules, "app.ledger.pump", raising=False)
    with pytest.raises(ConfigurationError, match="uv sync --extra redis"):
        store("redis://localhost")


@pytest.mark.parametrize(("policy", "status"), [("closed", 503), ("open", 200)])
def test_readiness_and_queries_follow_the_owners_choice(
    serve: Serve, place: Place, redis_server: RedisServer, policy: str, status: int
) -> None:
    client = serve(ledger_url=place.url, ledger_on_failure=policy)
    assert client.get("/readiness").json()["ledger"]["reachable"] is True
    redis_server.stop()
    try:
        ready = client.get("/readiness")
        asked = client.post("/api/query", json={"query": "What is AI?"})
        stats = client.get("/api/stats")
    finally:
        redis_server.start()
    assert (ready.status_code, asked.status_code, stats.status_code) == (status, status, 503)
    assert stats.json()["error"] == "ledger_unavailable"
    if policy == "closed":
        assert ready.json()["error"] == asked.json()["error"] == "ledger_unavailable"
        assert asked.headers["retry-after"] == "1"
    else:
        assert ready.json()["ledger"]["reachable"] is False
        assert ready.json()["ledger"]["on_failure"] == "open"


def test_with_a_full_redis_the_service_is_not_ready(
    serve: Serve, place: Place, redis_server: RedisServer
) -> None:
    client = serve(ledger_url=place.url)
    redis_server.fill()
    try:
        answers = [client.get("/readiness"), client.post("/api/query", json={"query": ACCEPTED})]
    finally:
        redis_server.make_room()
    assert [(each.status_code, each.json()["error"]) for each in answers] == [
        (503, "ledger_unavailable")
    ] * 2
    assert eventually(lambda: client.get("/readiness").status_code == 200)
    assert client.post("/api/query", json={"query": ACCEPTED}).status_code == 200
