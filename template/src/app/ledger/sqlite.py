"""Books in an SQLite file: shared by the processes of one machine, and there after a restart."""

import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from app.cascade.errors import ConfigurationError
from app.ledger import sqlite_keys
from app.ledger.file import Format, SharedFile
from app.ledger.store import EVERYBODY, Hold, Posting, Refusal

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
FORMAT = Format(
    setting="LEDGER_URL",
    mark=0x43617363,
    version=1,
    foreign="a database, but not a ledger",
    schema=SCHEMA,
    later=sqlite_keys.SCHEMA,
    # A crash of the service loses nothing; one of the machine perhaps the last moments.
    synchronous="NORMAL",
    busy_seconds=5.0,
)
# Every statement gives the interpreter's lock away and waits for it: few of them do the work.
LEFT = """
SELECT
    coalesce(sum(units), 0),
    coalesce(sum(units) FILTER (WHERE account = :account), 0),
    coalesce((SELECT value FROM sums WHERE scope = :day AND name = :service_cost), 0),
    coalesce((SELECT value FROM sums WHERE scope = :day AND name = :account_cost), 0),
    count(*) FILTER (WHERE id = :id),
    count(*) FILTER (WHERE expires <= :now)
FROM holds
"""
ADD = (
    "INSERT INTO sums VALUES {}"
    " ON CONFLICT (scope, name) DO UPDATE SET value = value + excluded.value"
)
TOTALS = "totals"


class SqliteStore:
    """A file in WAL mode. Holds expire by the clock of the machine, which its processes share."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self._file = SharedFile(path, FORMAT)
        self._run = self._file.run
        self.keys = sqlite_keys.SqliteKeys(self._run)

    def check(self) -> None:
        try:
            self._file.check("INSERT INTO sums VALUES ('check', '', 0)")
        except sqlite3.Error as failure:
            raise ConfigurationError(
                f"LEDGER_URL: the ledger {self._file.path} cannot be used: {failure};"
                " memory:// needs no file"
            ) from None

    def running(self) -> AbstractAsyncContextManager[None]:
        return self._file.running()

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
        await self._run(_ping)


def _hold(connection: sqlite3.Connection, hold: Hold) -> Refusal | None:
    now = time.time()
    asked = {
        "id": hold.id,
        "account": hold.account,
        "day": hold.day,
        "service_cost": f"{EVERYBODY}/cost",
        "account_cost": f"{hold.account}/cost",
        "now": now,
    }
    found = connection.execute(LEFT, asked).fetchone()
    held, held_of_account, spent, spent_of_account, again, expired = found
    if expired:
        _expire(connection, now)
        return _hold(connection, hold)
    if again:
        return None
    left = hold.budget - spent - held
    if hold.units > left:
        return Refusal("service", left)
    if hold.account_budget is not None:
        left = hold.account_budget - spent_of_account - held_of_account
        if hold.units > left:
            return Refusal("account", left)
    connection.execute(
        "INSERT INTO holds VALUES (?, ?, ?, ?)",
        (hold.id, hold.account, hold.units, now + hold.seconds),
    )
    return None


def _release(connection: sqlite3.Connection, hold_id: str) -> bool:
    return connection.execute("DELETE FROM holds WHERE id = ?", (hold_id,)).rowcount > 0


def _revive(connection: sqlite3.Connection, hold_id: str) -> bool:
    return connection.execute("DELETE FROM expired WHERE id = ?", (hold_id,)).rowcount > 0


def _post(connection: sqlite3.Connection, posting: Posting) -> bool:
    known = _release(connection, posting.id) or _revive(connection, posting.id)
    if not (known or posting.unbacked):
        return False
    written = connection.execute(
        "INSERT OR IGNORE INTO records VALUES (?, ?)", (posting.id, posting.record)
    )
    if not written.rowcount:
        return False
    _add(connection, {TOTALS: posting.totals, posting.day: posting.usage})
    return True


def _ping(connection: sqlite3.Connection) -> None:
    query = "INSERT OR REPLACE INTO sums VALUES ('ping', '', ?)"
    connection.execute(query, (time.time_ns(),))


def _add(connection: sqlite3.Connection, sums: Mapping[str, Mapping[str, int]]) -> None:
    rows = [(scope, name, value) for scope, own in sums.items() for name, value in own.items()]
    statement = ADD.format(", ".join(["(?, ?, ?)"] * len(rows)))
    connection.execute(statement, [part for row in rows for part in row])


def _sums(connection: sqlite3.Connection, scope: str) -> dict[str, int]:
    query = "SELECT name, value FROM sums WHERE scope = ?"
    return {name: int(value) for name, value in connection.execute(query, (scope,))}


def _clear(connection: sqlite3.Connection, totals: Mapping[str, int]) -> None:
    connection.execute("DELETE FROM sums WHERE scope = ?", (TOTALS,))
    _add(connection, {TOTALS: totals})


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
