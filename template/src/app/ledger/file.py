"""An SQLite file in WAL mode: the processes of a machine make it, open it and share it."""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.ledger.writer import Work, Writer

A = TypeVar("A")
T = TypeVar("T")

OPENING_SECONDS = 10.0
"""How long a start waits for another that makes the file, on a slow disk too."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """What is in such a file, and how it is told from any other."""

    setting: str
    """The variable that names the file."""
    mark: int
    """SQLite's application id."""
    version: int
    foreign: str
    """What is said of a file that is not of this format."""
    schema: str
    later: str = ""
    """A statement for files that are older than it; whoever does not know it is not disturbed."""
    synchronous: Literal["NORMAL", "OFF"]
    busy_seconds: float
    """How long others may keep the file to themselves while the service runs."""


class SharedFile:
    """One such file, open in a thread of its own while it runs."""

    def __init__(self, path: Path, format: Format) -> None:
        self.path = path
        self._format = format
        self._writer: Writer | None = None

    def check(self, statement: str) -> None:
        """Try a statement, and take it back: what can be read need not be writable.

        Raises:
            ConfigurationError: the file is somebody else's, or from a newer version.
            sqlite3.Error: it cannot be used.
        """
        with closing(self._connect(OPENING_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(statement)
            connection.execute("ROLLBACK")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._writer = Writer(partial(self._connect, self._format.busy_seconds))
        try:
            yield
        finally:
            await self._writer.close()
            self._writer = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The outcome of work in a transaction.

        Raises:
            LedgerUnavailable: the file is out of reach, or not open.
        """
        return await self.run_together(lambda connection, _: [work(connection)], None)

    async def run_together(self, work: Work[A, T], about: A) -> T:
        """As above, of work that can be done for several callers at once.

        Raises:
            LedgerUnavailable: as above.
        """
        if self._writer is None:
            raise LedgerUnavailable("not open")
        return await self._writer.run(work, about)

    def _connect(self, seconds: float) -> sqlite3.Connection:
        end = time.monotonic() + seconds
        while True:
            connection = sqlite3.connect(self.path, timeout=seconds, isolation_level=None)
            try:
                self._prepare(connection)
            except BaseException as failure:
                connection.close()
                # WAL is turned on without waiting for others who open the file, whatever `timeout`.
                if not _is_busy(failure) or time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # In one transaction: another process may be making the file.
        connection.execute("BEGIN")
        self._is_ours(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._format.synchronous}")
        connection.execute("BEGIN IMMEDIATE")
        # Looked at again: another process may just have made it.
        if not self._is_ours(connection):
            for statement in self._format.schema.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {self._format.mark}")
            connection.execute(f"PRAGMA user_version = {self._format.version}")
        connection.execute(self._format.later)
        connection.execute("COMMIT")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is of this format; False if it is empty."""
        mark, version, tables = (
            connection.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_schema",
            )
        )
        setting = self._format.setting
        if tables and mark != self._format.mark:
            raise ConfigurationError(f"{setting}: {self.path} is {self._format.foreign}")
        if version > self._format.version:
            raise ConfigurationError(
                f"{setting}: {self.path} is from a newer version of this service"
            )
        return bool(tables)


def _is_busy(failure: BaseException) -> bool:
    # The lower byte is the kind of an extended code.
    return getattr(failure, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
