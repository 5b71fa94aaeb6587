"""Where requests are counted: the same answers from every place, and from all that share one."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, get_args

import pytest

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.features.rate_limit.counting import Count, Place, Rule, Window
from app.features.rate_limit.memory import MemoryPlace
from app.features.rate_limit.places import choose
from app.features.rate_limit.reach import Reach
from app.features.rate_limit.sqlite import FORMAT, SqlitePlace
from tests.conftest import eventually, watched
from tests.redis_server import RedisServer

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
WINDOWS: tuple[Window, ...] = get_args(Window)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.forget_everything()
        return server.url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/limits.sqlite3"


@pytest.fixture(params=WINDOWS)
def window(request: pytest.FixtureRequest) -> Window:
    window: Window = request.param
    return window


def within(place: Place, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def go() -> T:
        async with place.running():
            return await work()

    return asyncio.run(go())


def hits(place: Place, number: int, client: str = "ann") -> list[Count]:
    """Requests of one client, one after the other."""

    async def go() -> list[Count]:
        return [await place.hit(client) for _ in range(number)]

    return within(place, go)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock, to seconds from now."""
    begin = time.time()

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: begin + seconds)

    set_to(0)
    return set_to


def near(kind: str, path: Path, rule: Rule) -> Place:
    """A place that goes by the clock of the process."""
    return MemoryPlace(rule) if kind == "memory" else SqlitePlace(path / "limits.sqlite3", rule)


# --- every place ----------------------------------------------------------------------------------


def test_a_limit_holds_and_says_what_is_left(url: str, window: Window) -> None:
    counts = hits(choose(url, "", Rule(3, window)), 5)
    assert [count.allowed for count in counts] == [True] * 3 + [False] * 2
    assert [count.remaining for count in counts] == [2, 1, 0, 0, 0]
    assert all(0 < count.frees_in <= 60 for count in counts)


def test_of_many_at_once_the_limit_is_let_through(url: str, window: Window) -> None:
    place = choose(url, "", Rule(100, window))

    async def at_once() -> list[Count]:
        return await asyncio.gather(*(place.hit("ann") for _ in range(300)))

    counts = within(place, at_once)
    assert sum(count.allowed for count in counts) == 100
    left = sorted(count.remaining for count in counts if count.allowed)
    assert left == list(range(100))


def test_a_clients_own_limit_goes_before(url: str, window: Window) -> None:
    place = choose(url, "", Rule(3, window))

    async def go() -> list[Count]:
        return [await place.hit("ann", limit) for limit in (5, 5, 5, 5, 2, None)]

    counts = within(place, go)
    assert [count.allowed for count in counts] == [True] * 4 + [False] * 2
    assert [count.remaining for count in counts] == [4, 3, 2, 1, 0, 0]


def test_clients_are_counted_apart(url: str, window: Window) -> None:
    place = choose(url, "", Rule(1, window))

    async def go() -> list[bool]:
        return [(await place.hit(client)).allowed for client in ("ann", "bob", "ann", "bob")]

    assert within(place, go) == [True, True, False, False]


def test_when_the_window_is_over_it_goes_on(url: str, window: Window) -> None:
    place = choose(url, "", Rule(2, window, seconds=1))

    async def go() -> list[Count]:
        counts = [await place.hit("ann") for _ in range(3)]
        await asyncio.sleep(counts[-1].frees_in + 0.01)
        return [*counts, await place.hit("ann")]

    counts = within(place, go)
    assert counts[0].allowed
    assert counts[-1].allowed


def test_in_a_sliding_window_each_request_makes_room_by_itself(url: str) -> None:
    place = choose(url, "", Rule(2, "sliding", seconds=1))

    async def go() -> list[bool]:
        await place.hit("ann")
        await asyncio.sleep(0.6)
        await place.hit("ann")
        full = await place.hit("ann")
        await asyncio.sleep(full.frees_in + 0.01)
        return [full.allowed, (await place.hit("ann")).allowed]

    assert within(place, go)[-1]


def test_a_lower_limit_holds_for_what_was_counted_before(url: str, window: Window) -> None:
    place = choose(url, "", Rule(5, window))
    if place.kind == "memory":
        pytest.skip("memory is gone with the process")
    hits(place, 4)
    (count,) = hits(choose(url, "", Rule(2, window)), 1)
    assert (count.allowed, count.remaining) == (False, 0)


def test_changing_the_window_begins_anew(url: str) -> None:
    for window in (*WINDOWS, *WINDOWS):
        hits(choose(url, "", Rule(2, window)), 1)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_processes_share_a_limit(
    kind: str, window: Window, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/limits.sqlite3"
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.forget_everything()
        url = server.url
    command = [sys.executable, "-m", "tests.features.hitter", "3", url, window, "150", "100"]
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    told = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    through = [int(line) for line in told.stdout.split()]
    assert (len(through), sum(through)) == (3, 150), through


# --- by the clock of the process ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(("window", "later"), [("fixed", 3), ("sliding", 1)])
def test_only_a_fixed_window_lets_two_limits_through_around_its_end(
    kind: str, window: Window, later: int, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    place = near(kind, tmp_path, Rule(3, window))

    async def go() -> int:
        await place.hit("ann")
        clock(59)
        assert [(await place.hit("ann")).allowed for _ in range(3)] == [True, True, False]
        clock(60.5)
        return sum([(await place.hit("ann")).allowed for _ in range(5)])

    assert within(place, go) == later


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_minute_of_a_sliding_window_holds_more_than_the_limit(
    kind: str, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    place = near(kind, tmp_path, Rule(7, "sliding"))

    async def go() -> list[float]:
        let_through = []
        for step in range(400):
            clock(step * 1.7)
            if (await place.hit("ann")).allowed:
                let_through.append(step * 1.7)
        return let_through

    times = within(place, go)
    assert len(times) > 7 * 10
    assert all(later - sooner >= 60 for sooner, later in zip(times, times[7:], strict=False))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_clock_that_is_set_back_locks_nobody_out(
    kind: str, window: Window, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    place = near(kind, tmp_path, Rule(1, window))

    async def go() -> Count:
        await place.hit("ann")
        clock(-86_400)
        return await place.hit("ann")

    assert within(place, go).allowed


def test_memory_forgets_clients_when_their_window_is_over(
    window: Window, clock: Callable[[float], None]
) -> None:
    place = MemoryPlace(Rule(2, window))

    async def go() -> int:
        for number in range(1000):
            await place.hit(f"client {number}")
        clock(61)
        await place.hit("ann")
        return len(place._fixed) + len(place._sliding)

    assert asyncio.run(go()) == 1


def test_memory_forgets_who_is_gone_before_who_came_sooner_and_stayed(
    clock: Callable[[float], None],
) -> None:
    place = MemoryPlace(Rule(2, "sliding"))

    async def go() -> list[str]:
        for second, client in ((0, "ann"), (1, "bob"), (50, "ann"), (62, "eve")):
            clock(second)
            await place.hit(client)
        return list(place._sliding)

    assert asyncio.run(go()) == ["ann", "eve"]


def test_the_file_forgets_clients_when_their_window_is_over(
    window: Window, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    place = SqlitePlace(tmp_path / "limits.sqlite3", Rule(2, window))

    async def go() -> None:
        for number in range(100):
            await place.hit(f"client {number}")
        clock(61)
        for _ in range(100):
            await place.hit("ann")

    within(place, go)
    with closing(sqlite3.connect(tmp_path / "limits.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM clients").fetchone() == (1,)
        left = connection.execute("SELECT count(*) FROM hits").fetchone()[0]
    assert left == (2 if window == "sliding" else 0)


# --- Redis ----------------------------------------------------------------------------------------


def test_redis_forgets_clients_when_their_window_is_over(
    redis_server: RedisServer, window: Window
) -> None:
    redis_server.forget_everything()
    hits(choose(redis_server.url, "", Rule(2, window, seconds=1)), 3)
    assert len(redis_server.keys("*ann")) == 1
    assert eventually(lambda: redis_server.keys("*") == [])


def test_a_frozen_redis_neither_stalls_the_loop_nor_makes_everybody_wait(
    redis_server: RedisServer,
) -> None:
    redis_server.forget_everything()
    reach = Reach(choose(redis_server.url, "", Rule(1_000_000, "sliding")))
    frozen, patience = 3.0, []

    async def client(stop: asyncio.Event) -> None:
        while not stop.is_set():
            begin = time.monotonic()
            try:
                await reach.hit("ann")
            except LedgerUnavailable:
                patience.append(time.monotonic() - begin)
            await asyncio.sleep(0.01)

    async def go() -> list[float]:
        stop = asyncio.Event()
        async with watched() as gaps:
            clients = [asyncio.create_task(client(stop)) for _ in range(20)]
            await asyncio.sleep(0.2)
            redis_server.freeze()
            await asyncio.sleep(frozen)
            assert not await reach.reachable()
            redis_server.resume()
            while not await reach.reachable():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            stop.set()
            await asyncio.gather(*clients)
        return gaps

    gaps = within(reach.place, go)
    assert max(gaps) < frozen / 4
    # Whoever asks first waits for the deadline; then one request a second does.
    assert max(patience) < frozen / 2
    assert sorted(patience)[len(patience) // 2] < frozen / 20


def test_the_first_request_finds_a_connection(redis_server: RedisServer) -> None:
    redis_server.forget_everything()
    others = redis_server.connections()

    async def go() -> int:
        return redis_server.connections() - others

    assert within(choose(redis_server.url, "", Rule(1, "fixed")), go) == 1


# --- what is refused, and where it is -------------------------------------------------------------


def test_without_a_url_requests_are_counted_where_the_books_are(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    rule = Rule(1, "fixed")
    assert choose("", "memory://", rule).kind == "memory"
    assert choose("", redis_server.url, rule).kind == "redis"
    books = f"sqlite:///{tmp_path}/ledger.sqlite3"
    hits(choose("", books, rule), 1)
    assert (tmp_path / "ledger.limits.sqlite3").exists()
    assert not (tmp_path / "ledger.sqlite3").exists()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://:secret@host", "RATE_LIMIT_STORAGE: write sqlite:///file"),
        ("sqlite:///", "RATE_LIMIT_STORAGE: write sqlite:///file"),
        ("sqlite:////nowhere/limits.sqlite3", "unable to open database file"),
        ("redis://:secret@host/first", "RATE_LIMIT_STORAGE: this is no URL of Redis"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        choose(url, "memory://", Rule(1, "fixed"))
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)


def test_without_the_extra_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    for name in ("app.ledger.pump", "app.features.rate_limit.redis"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ConfigurationError, match="uv sync --extra redis"):
        choose("redis://127.0.0.1/0", "", Rule(1, "fixed"))


def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    for number in range(20):
        rule = Rule(1, "fixed")
        places = [SqlitePlace(tmp_path / f"{number}.sqlite3", rule) for _ in range(8)]
        with ThreadPoolExecutor(len(places)) as threads:
            list(threads.map(SqlitePlace.check, places))


def test_a_start_waits_for_another_longer_than_a_request_does(tmp_path: Path) -> None:
    path = tmp_path / "limits.sqlite3"
    place = SqlitePlace(path, Rule(1, "fixed"))
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        other.execute("BEGIN EXCLUSIVE")
        starting = threads.submit(place.check)
        time.sleep(FORMAT.busy_seconds + 0.5)
        assert not starting.done()
        other.execute("ROLLBACK")
        starting.result()


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="is a database of something else"):
        choose(f"sqlite:///{path}", "", Rule(1, "fixed"))
    assert path.read_bytes() == before


def test_a_file_that_somebody_keeps_locked_is_out_of_reach(tmp_path: Path) -> None:
    path = tmp_path / "limits.sqlite3"
    reach = Reach(SqlitePlace(path, Rule(1, "fixed")))

    async def go() -> tuple[bool, bool, float]:
        assert await reach.reachable()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with watched() as gaps:
                begin = time.monotonic()
                locked = await reach.reachable()
                waited = time.monotonic() - begin
            other.execute("ROLLBACK")
        await asyncio.sleep(1.1)
        return locked, await reach.reachable(), max(gaps) / waited

    locked, free, stalled = within(reach.place, go)
    assert (locked, free) == (False, True)
    assert stalled < 0.5
