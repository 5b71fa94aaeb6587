"""Books in an SQLite file: shared by the processes of one machine, and there after a restart."""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.ledger import sqlite_keys
from app.ledger.store import EVERYBODY, Hold, Posting, Refusal
from app.ledger.writer import Writer, connect

T = TypeVar("T")
VERSION = 1
MARK = 0x43617363
"""SQLite's application id of a file that is a ledger."""
BUSY_SECONDS = 5.0
DAY = 86_400
PAGE = 500
SCHEMA = """
CREATE TABLE sums (
    scope TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE TABLE holds (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, units INTEGER NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE expired (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE records (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
"""
ADD = (
    "INSERT INTO sums VALUES (?, ?, ?)"
    " ON CONFLICT (scope, name) DO UPDATE SET value = value + excluded.value"
)
TOTALS = "totals"


class SqliteStore:
    """A file in WAL mode. Holds expire by the clock of the machine, which its processes share."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Writer | None = None
        self.keys = sqlite_keys.SqliteKeys(self._run)

    def check(self) -> None:
        try:
            with closing(self._connect()) as connection:
                # A file that can be read need not be one that can be written.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO sums VALUES ('check', '', 0)")
                connection.execute("ROLLBACK")
        except sqlite3.Error as failure:
            raise ConfigurationError(
                f"LEDGER_URL: the ledger {self._path} cannot be used: {failure};"
                " memory:// needs no file"
            ) from None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._writer = Writer(self._connect)
        try:
            yield
        finally:
            await self._writer.close()
            self._writer = None

    async def hold(self, hold: Hold) -> Refusal | None:
        return await self._run(partial(_hold, hold=hold))

    async def release(self, hold_id: str) -> None:
        await self._run(partial(_release, hold_id=hold_id))

    async def post(self, posting: Posting) -> bool:
        return await self._run(partial(_post, posting=posting))

    async def totals(self) -> dict[str, int]:
        return await self._run(partial(_sums, scope=TOTALS))

    async def day(self, day: str) -> dict[str, int]:
        return await self._run(partial(_sums, scope=day))

    async def clear(self, totals: Mapping[str, int]) -> None:
        await self._run(partial(_clear, totals=totals))

    async def records(self, first_id: str, end_id: str) -> AsyncIterator[str]:
        while found := await self._run(partial(_records, first_id=first_id, end_id=end_id)):
            for _, record in found:
                yield record
            first_id = f"{found[-1][0]}\0"

    async def forget(self, end_id: str) -> None:
        while await self._run(partial(_forget, end_id=end_id)):
            pass

    async def ping(self) -> None:
        await self._run(partial(_sums, scope="check"))

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
        # A crash of the service loses nothing; one of the machine perhaps the last moments.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        # Looked at again: another process may just have made it.
        if not self._is_ours(connection):
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {MARK}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(sqlite_keys.SCHEMA)
        connection.execute("COMMIT")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is a ledger; False if it is empty."""
        mark, version, tables = (
            connection.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_schema",
            )
        )
        if tables and mark != MARK:
            raise ConfigurationError(f"LEDGER_URL: {self._path} is a database, but not a ledger")
        if version > VERSION:
            raise ConfigurationError(
                f"LEDGER_URL: the ledger {self._path} is from a newer version of this service"
            )
        return bool(tables)


def _hold(connection: sqlite3.Connection, hold: Hold) -> Refusal | None:
    now = time.time()
    _expire(connection, now)
    if connection.execute("SELECT 1 FROM holds WHERE id = ?", (hold.id,)).fetchone():
        return None
    held, held_of_account = connection.execute(
        "SELECT coalesce(sum(units), 0), coalesce(sum(units) FILTER (WHERE account = ?), 0)"
        " FROM holds",
        (hold.account,),
    ).fetchone()
    left = hold.budget - _sum(connection, hold.day, f"{EVERYBODY}/cost") - held
    if hold.units > left:
        return Refusal("service", left)
    if hold.account_budget is not None:
        spent = _sum(connection, hold.day, f"{hold.account}/cost")
        left = hold.account_budget - spent - held_of_account
        if hold.units > left:
            return Refusal("account", left)
    connection.execute(
        "INSERT INTO holds VALUES (?, ?, ?, ?)",
        (hold.id, hold.account, hold.units, now + hold.seconds),
    )
    return None


def _release(connection: sqlite3.Connection, hold_id: str) -> bool:
    return connection.execute("DELETE FROM holds WHERE id = ?", (hold_id,)).rowcount > 0


def _post(connection: sqlite3.Connection, posting: Posting) -> bool:
    released = _release(connection, posting.id)
    expired = connection.execute("DELETE FROM expired WHERE id = ?", (posting.id,)).rowcount > 0
    if not (released or expired or posting.unbacked):
        return False
    written = connection.execute(
        "INSERT OR IGNORE INTO records VALUES (?, ?)", (posting.id, posting.record)
    )
    if not written.rowcount:
        return False
    connection.executemany(ADD, ((TOTALS, name, value) for name, value in posting.totals.items()))
    connection.executemany(
        ADD, ((posting.day, name, value) for name, value in posting.usage.items())
    )
    return True


def _sum(connection: sqlite3.Connection, scope: str, name: str) -> int:
    query = "SELECT value FROM sums WHERE scope = ? AND name = ?"
    found = connection.execute(query, (scope, name)).fetchone()
    return int(found[0]) if found else 0


def _sums(connection: sqlite3.Connection, scope: str) -> dict[str, int]:
    query = "SELECT name, value FROM sums WHERE scope = ?"
    return {name: int(value) for name, value in connection.execute(query, (scope,))}


def _clear(connection: sqlite3.Connection, totals: Mapping[str, int]) -> None:
    connection.execute("DELETE FROM sums WHERE scope = ?", (TOTALS,))
    connection.executemany(ADD, ((TOTALS, name, value) for name, value in totals.items()))


def _records(connection: sqlite3.Connection, first_id: str, end_id: str) -> list[tuple[str, str]]:
    query = "SELECT id, record FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    return connection.execute(query, (first_id, end_id, PAGE)).fetchall()


def _forget(connection: sqlite3.Connection, end_id: str) -> int:
    # A few at a time, so that nobody waits long for the lock.
    query = "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id < ? LIMIT ?)"
    return connection.execute(query, (end_id, PAGE)).rowcount


def _expire(connection: sqlite3.Connection, now: float) -> None:
    query = "DELETE FROM holds WHERE expires <= ? RETURNING id"
    gone = connection.execute(query, (now,)).fetchall()
    if gone:
        connection.execute("DELETE FROM expired WHERE at < ?", (now - DAY,))
        connection.executemany("INSERT INTO expired VALUES (?, ?)", ((id_, now) for (id_,) in gone))
