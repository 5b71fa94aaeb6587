"""API keys in the ledger's SQLite file."""

import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Protocol, TypeVar

from app.ledger.store import EDITION

T = TypeVar("T")
PAGE = 500
SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID
"""
"""A ledger that was made without it gets it: who does not know it is not disturbed by it."""


class Run(Protocol):
    """How work gets into a transaction."""

    def __call__(self, work: Callable[[sqlite3.Connection], T]) -> Coroutine[None, None, T]: ...


class SqliteKeys:
    """One table."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def edition(self) -> str | None:
        return await self._run(_edition)

    async def entries(self) -> AsyncIterator[str]:
        last = EDITION
        while found := await self._run(partial(_page, last=last)):
            for _, entry in found:
                yield entry
            last = found[-1][0]

    async def add(self, name: str, entry: str) -> bool:
        return await self._run(partial(_add, name=name, entry=entry))

    async def remove(self, name: str) -> bool:
        return await self._run(partial(_remove, name=name))


def _edition(connection: sqlite3.Connection) -> str | None:
    found = connection.execute("SELECT entry FROM keys WHERE name = ?", (EDITION,)).fetchone()
    return str(found[0]) if found else None


def _page(connection: sqlite3.Connection, last: str) -> list[tuple[str, str]]:
    query = "SELECT name, entry FROM keys WHERE name > ? ORDER BY name LIMIT ?"
    return connection.execute(query, (last, PAGE)).fetchall()


def _add(connection: sqlite3.Connection, name: str, entry: str) -> bool:
    added = connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (name, entry))
    if not added.rowcount:
        return False
    _change(connection)
    return True


def _remove(connection: sqlite3.Connection, name: str) -> bool:
    if not connection.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount:
        return False
    _change(connection)
    return True


def _change(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO keys VALUES (?, ?)", (EDITION, secrets.token_hex(8)))
