"""Counts in an SQLite file: shared by the processes of one machine, with nothing installed."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from app.cascade.errors import ConfigurationError
from app.features.rate_limit.counting import Count, Rule
from app.ledger.file import Format, SharedFile

FORGOTTEN = 20
"""Clients that a request tidies away at most."""
SCHEMA = """
CREATE TABLE clients (
    client TEXT PRIMARY KEY, count INTEGER NOT NULL, ends REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX clients_by_end ON clients (ends);
CREATE TABLE hits (client TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX hits_by_client ON hits (client, at);
"""
# Every statement gives the interpreter's lock away and waits for it: one finds all of a client.
FIXED = """
SELECT
    coalesce(max(count), 0),
    coalesce(max(ends), :latest),
    coalesce((SELECT min(ends) FROM clients) <= :now, FALSE)
FROM clients WHERE client = :client AND ends > :now AND ends <= :latest
"""
FORMAT = Format(
    setting="RATE_LIMIT_STORAGE",
    mark=0x436C696D,
    version=0,
    foreign="a database of something else",
    schema=SCHEMA,
    # After a crash of the machine a minute's counts may be gone.
    synchronous="OFF",
    busy_seconds=0.8,
)


class SqlitePlace:
    """A file in WAL mode beside the ledger's, so that neither waits for the other's lock."""

    kind = "sqlite"

    def __init__(self, path: Path, rule: Rule) -> None:
        self._file = SharedFile(path, FORMAT)
        self._rule = rule

    def check(self) -> None:
        try:
            self._file.check("INSERT INTO hits VALUES ('check', 0)")
        except sqlite3.Error as failure:
            raise ConfigurationError(
                f"RATE_LIMIT_STORAGE: {self._file.path} cannot be used: {failure}"
            ) from None

    def running(self) -> AbstractAsyncContextManager[None]:
        return self._file.running()

    async def hit(self, client: str, limit: int | None = None) -> Count:
        rule = self._rule.with_limit(limit)
        # The two windows keep different books of a client.
        client = f"{rule.window}:{client}"
        if rule.window == "fixed":
            return await self._file.run_together(_fixed, (client, rule))
        return await self._file.run(partial(_sliding, client=client, rule=rule))

    async def ping(self) -> None:
        await self._file.run(_ping)


def _ping(connection: sqlite3.Connection) -> None:
    # A client of nobody's, which is soon forgotten.
    _keep(connection, "", 0, time.time())


def _fixed(connection: sqlite3.Connection, asked: Sequence[tuple[str, Rule]]) -> list[Count]:
    now = time.time()
    clients: dict[str, tuple[int, float]] = {}
    changed: set[str] = set()
    found: list[Count] = []
    for client, rule in asked:
        if client not in clients:
            clients[client] = _window(connection, client, now, now + rule.seconds)
        count, ends = clients[client]
        allowed = count < rule.limit
        if allowed:
            count += 1
            clients[client] = count, ends
            changed.add(client)
        found.append(Count(allowed, max(0, rule.limit - count), ends - now))
    for client in changed:
        _keep(connection, client, *clients[client])
    return found


def _window(
    connection: sqlite3.Connection, client: str, now: float, latest: float
) -> tuple[int, float]:
    """A client's requests in its minute, and when that ends."""
    # One that ends later than any can is from before the clock was set back.
    asked = {"client": client, "now": now, "latest": latest}
    count, ends, over = connection.execute(FIXED, asked).fetchone()
    if over:
        _forget(connection, now)
    return count, ends


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
