"""Books in an SQLite file: shared by the processes of one machine, and there after a restart."""

import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from app.cascade.errors import ConfigurationError
from app.ledger import sqlite_keys
from app.ledger.file import Format, SharedFile
from app.ledger.store import EVERYBODY, Hold, Posting, Refusal, refusal

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
# Every statement gives the interpreter's lock away and waits for it: few of them do the work, and
# for all queries that are asked together.
STANDING = """
SELECT 'held', account, sum(units), min(expires) FROM holds GROUP BY account
UNION ALL
SELECT 'spent', name, value, NULL FROM sums WHERE scope = ? AND name IN ({names})
UNION ALL
SELECT 'known', id, units, expires FROM holds WHERE id IN ({ids})
"""
TAKE = "DELETE FROM {table} WHERE id IN ({ids}) RETURNING id"
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
        return await self._file.run_together(_hold, hold)

    async def release(self, hold_id: str) -> None:
        await self._run(partial(_release, hold_id=hold_id))

    async def post(self, posting: Posting) -> bool:
        return await self._file.run_together(_post, posting)

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


def _hold(connection: sqlite3.Connection, holds: Sequence[Hold]) -> list[Refusal | None]:
    found: list[Refusal | None] = []
    for day, of_day in groupby(holds, attrgetter("day")):
        found += _hold_on(connection, day, [*of_day])
    return found


def _hold_on(
    connection: sqlite3.Connection, day: str, holds: Sequence[Hold]
) -> list[Refusal | None]:
    now = time.time()
    names = {f"{account}/cost" for account in (EVERYBODY, *(hold.account for hold in holds))}
    standing = STANDING.format(names=_marks(names), ids=_marks(holds))
    rows = connection.execute(standing, (day, *names, *(hold.id for hold in holds))).fetchall()
    kinds: dict[str, dict[str, int]] = {"held": {}, "spent": {}, "known": {}}
    for kind, name, units, expires in rows:
        if expires is not None and expires <= now:
            _expire(connection, now)
            return _hold_on(connection, day, holds)
        kinds[kind][name] = units
    held, spent, known = Counter(kinds["held"]), kinds["spent"], {*kinds["known"]}
    held[EVERYBODY] = held.total()
    new: list[tuple[str, str, int, float]] = []
    found: list[Refusal | None] = []
    for hold in holds:
        refused = None if hold.id in known else refusal(hold, held, spent)
        if not refused and hold.id not in known:
            known.add(hold.id)
            held[EVERYBODY] += hold.units
            held[hold.account] += hold.units
            new.append((hold.id, hold.account, hold.units, now + hold.seconds))
        found.append(refused)
    _insert(connection, "INSERT INTO holds VALUES {}", new)
    return found


def _release(connection: sqlite3.Connection, hold_id: str) -> None:
    _take(connection, "holds", [hold_id])


def _take(connection: sqlite3.Connection, table: str, ids: Sequence[str]) -> set[str]:
    """Delete those; the ones that were there."""
    return _ids(connection.execute(TAKE.format(table=table, ids=_marks(ids)), ids))


def _post(connection: sqlite3.Connection, postings: Sequence[Posting]) -> list[bool]:
    # Asked twice together, the second finds no hold.
    asked = {posting.id: posting for posting in reversed(postings)}
    known = _take(connection, "holds", [*asked])
    if late := asked.keys() - known:
        known |= _take(connection, "expired", [*late])
    due = [each for each in asked.values() if each.id in known or each.unbacked]
    written = _insert(
        connection,
        "INSERT OR IGNORE INTO records VALUES {} RETURNING id",
        [(posting.id, posting.record) for posting in due],
    )
    sums: Counter[tuple[str, str]] = Counter()
    for posting in due:
        if posting.id in written:
            sums.update({(TOTALS, name): value for name, value in posting.totals.items()})
            sums.update({(posting.day, name): value for name, value in posting.usage.items()})
    _add(connection, sums)
    return [posting.id in written and asked[posting.id] is posting for posting in postings]


def _ping(connection: sqlite3.Connection) -> None:
    query = "INSERT OR REPLACE INTO sums VALUES ('ping', '', ?)"
    connection.execute(query, (time.time_ns(),))


def _add(connection: sqlite3.Connection, sums: Mapping[tuple[str, str], int]) -> None:
    _insert(connection, ADD, [(*names, value) for names, value in sums.items()])


def _insert(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]
) -> set[str]:
    """What the statement returns for rows in the place of `{}`."""
    if not rows:
        return set()
    places = ", ".join([f"({_marks(rows[0])})"] * len(rows))
    parts = [part for row in rows for part in row]
    return _ids(connection.execute(statement.format(places), parts))


def _ids(rows: sqlite3.Cursor) -> set[str]:
    return {id_ for (id_,) in rows.fetchall()}


def _marks(parts: Collection[object]) -> str:
    return ", ".join("?" * len(parts))


def _sums(connection: sqlite3.Connection, scope: str) -> dict[str, int]:
    query = "SELECT name, value FROM sums WHERE scope = ?"
    return {name: int(value) for name, value in connection.execute(query, (scope,))}


def _clear(connection: sqlite3.Connection, totals: Mapping[str, int]) -> None:
    connection.execute("DELETE FROM sums WHERE scope = ?", (TOTALS,))
    _add(connection, {(TOTALS, name): value for name, value in totals.items()})


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
