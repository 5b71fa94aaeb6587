"""Counts in an SQLite file: shared by the processes of one machine, with nothing installed."""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.features.rate_limit.counting import Count, Rule
from app.ledger.writer import Writer, connect

T = TypeVar("T")
MARK = 0x436C696D
"""SQLite's application id of a file of counts."""
BUSY_SECONDS = 0.8
FORGOTTEN = 20
"""Clients that a request tidies away at most."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS clients (
    client TEXT PRIMARY KEY, count INTEGER NOT NULL, ends REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS clients_by_end ON clients (ends);
CREATE TABLE IF NOT EXISTS hits (client TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS hits_by_client ON hits (client, at);
"""


class SqlitePlace:
    """A file in WAL mode beside the ledger's, so that neither waits for the other's lock."""

    kind = "sqlite"

    def __init__(self, path: Path, rule: Rule) -> None:
        self._path = path
        self._rule = rule
        self._writer: Writer | None = None

    def check(self) -> None:
        try:
            with closing(self._connect()) as connection:
                # A file that can be read need not be one that can be written.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO hits VALUES ('check', 0)")
                connection.execute("ROLLBACK")
        except sqlite3.Error as failure:
            raise ConfigurationError(
                f"RATE_LIMIT_STORAGE: {self._path} cannot be used: {failure}"
            ) from None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._writer = Writer(self._connect)
        try:
            yield
        finally:
            await self._writer.close()
            self._writer = None

    async def hit(self, client: str, limit: int | None = None) -> Count:
        count = _fixed if self._rule.window == "fixed" else _sliding
        # The two windows keep different books of a client.
        rule = self._rule.with_limit(limit)
        return await self._run(partial(count, client=f"{rule.window}:{client}", rule=rule))

    async def ping(self) -> None:
        await self._run(_nothing)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._writer is None:
            raise LedgerUnavailable("not open")
        return await self._writer.run(work)

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, self._prepare, BUSY_SECONDS)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # In one transaction: another process may be making the file.
        connection.execute("BEGIN")
        self._is_ours(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        # After a crash of the machine a minute's counts may be gone.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        # Looked at again: another process may just have made it.
        if not self._is_ours(connection):
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {MARK}")
        connection.execute("COMMIT")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the file holds counts; False if it is empty."""
        mark, tables = (
            connection.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "SELECT count(*) FROM sqlite_schema")
        )
        if tables and mark != MARK:
            raise ConfigurationError(
                f"RATE_LIMIT_STORAGE: {self._path} is a database of something else"
            )
        return bool(tables)


def _nothing(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT 1")


def _fixed(connection: sqlite3.Connection, client: str, rule: Rule) -> Count:
    now = time.time()
    _forget(connection, now)
    # One that ends later than any can is from before the clock was set back.
    count, ends = connection.execute(
        "SELECT count, ends FROM clients WHERE client = ? AND ends > ? AND ends <= ?",
        (client, now, now + rule.seconds),
    ).fetchone() or (0, now + rule.seconds)
    allowed = count < rule.limit
    if allowed:
        count += 1
        _keep(connection, client, count, ends)
    return Count(allowed, max(0, rule.limit - count), ends - now)


def _sliding(connection: sqlite3.Connection, client: str, rule: Rule) -> Count:
    now = time.time()
    _forget(connection, now)
    gone = connection.execute(
        "DELETE FROM hits WHERE client = ? AND (at <= ? OR at > ?)",
        (client, now - rule.seconds, now),
    ).rowcount
    query = "SELECT count FROM clients WHERE client = ?"
    # Kept, since counting them anew would take longer the higher the limit is.
    count = (connection.execute(query, (client,)).fetchone() or (0,))[0] - gone
    allowed = count < rule.limit
    if allowed:
        count += 1
        connection.execute("INSERT INTO hits VALUES (?, ?)", (client, now))
    _keep(connection, client, count, now + rule.seconds)
    query = "SELECT min(at) FROM hits WHERE client = ?"
    oldest = connection.execute(query, (client,)).fetchone()[0]
    return Count(allowed, max(0, rule.limit - count), oldest + rule.seconds - now)


def _keep(connection: sqlite3.Connection, client: str, count: int, ends: float) -> None:
    connection.execute("INSERT OR REPLACE INTO clients VALUES (?, ?, ?)", (client, count, ends))


def _forget(connection: sqlite3.Connection, now: float) -> None:
    query = "SELECT client FROM clients WHERE ends <= ? LIMIT ?"
    for client in connection.execute(query, (now, FORGOTTEN)).fetchall():
        connection.execute("DELETE FROM clients WHERE client = ?", client)
        connection.execute("DELETE FROM hits WHERE client = ?", client)
