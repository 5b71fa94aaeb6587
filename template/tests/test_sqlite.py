"""The books in an SQLite file: what can be wrong with the file, and what a slow one does."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.ledger import Budgets, Ledger
from app.ledger.sqlite import SqliteStore
from tests.conftest import ACCEPTED, Serve, eventually, full_disk, watched
from tests.test_ledger import entry, records, spend

BUDGETS = Budgets(Decimal(1))

LOCKED = 1.0
"""Seconds for which another process keeps the lock."""


def text(path: Path) -> None:
    path.write_text("A letter, and not a short one: " * 100, encoding="utf-8")


def folder(path: Path) -> None:
    path.mkdir()


def of_somebody_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")


def newer(path: Path) -> None:
    SqliteStore(path).check()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "missing" / "ledger.sqlite3")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (text, "file is not a database"),
        (folder, "unable to open database file"),
        (of_somebody_else, "is a database, but not a ledger"),
        (newer, "is from a newer version of this service"),
        (link_to_nowhere, "unable to open database file"),
    ],
)
def test_a_file_that_cannot_be_the_ledger_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    path = tmp_path / "ledger.sqlite3"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(ConfigurationError, match=f"^LEDGER_URL: .*{sentence}"):
        SqliteStore(path).check()
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unable to open database file"):
        SqliteStore(tmp_path / "missing" / "ledger.sqlite3").check()


def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    for number in range(20):
        stores = [SqliteStore(tmp_path / f"{number}.sqlite3") for _ in range(8)]
        with ThreadPoolExecutor(len(stores)) as threads:
            list(threads.map(SqliteStore.check, stores))


def test_another_process_that_has_the_lock_never_stalls_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"

    async def go() -> None:
        ledger = Ledger(SqliteStore(path), BUDGETS)
        async with ledger.running(), watched() as gaps:
            await spend(ledger, "0.01")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                spending = [asyncio.create_task(spend(ledger, "0.01")) for _ in range(20)]
                await asyncio.sleep(LOCKED)
                assert not any(each.done() for each in spending)
                other.execute("COMMIT")
            await asyncio.gather(*spending)
            assert (await ledger.totals()).queries == 21
            assert max(gaps) < LOCKED / 2

    asyncio.run(go())


def full(connection: sqlite3.Connection) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")


def roomy(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_refuses_queries_and_loses_no_entry(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.sqlite3")

    async def fill(ledger: Ledger) -> int:
        for number in range(1000):
            reservation = await ledger.reserve(Decimal("0.0001"))
            await ledger.settle(reservation, entry("0.0001", model="m" * 1000))
            if (await ledger.health()).waiting:
                return number + 1
        raise AssertionError("it was never full")

    async def go() -> None:
        ledger = Ledger(store, BUDGETS)
        async with ledger.running():
            await spend(ledger, "0.0001")
            await store._run(full)
            settled = await fill(ledger)
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(Decimal("0.0001"))
            await store._run(roomy)
            while (await ledger.health()).waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert len(await records(ledger)) == settled + 1
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(go(), 20))


def test_on_a_full_disk_the_service_is_not_ready(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    client = serve(ledger_url=f"sqlite:///{path}")
    assert client.get("/readiness").status_code == 200
    with full_disk(path):
        # Nobody had to ask before it was known.
        answers = [client.get("/readiness"), client.post("/api/query", json={"query": ACCEPTED})]
        stats = client.get("/api/stats")
    assert [(each.status_code, each.json()["error"]) for each in answers] == [
        (503, "ledger_unavailable")
    ] * 2
    assert stats.status_code == 200
    assert eventually(lambda: client.get("/readiness").status_code == 200)
    assert client.post("/api/query", json={"query": ACCEPTED}).status_code == 200
