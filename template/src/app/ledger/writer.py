"""One thread for one SQLite file: what one turn of the event loop asks for is committed together.

The loop never waits for the disk or for another process's lock; callers await futures.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from app.cascade.errors import ConfigurationError, LedgerUnavailable

T = TypeVar("T")
TOGETHER = 256
"""Jobs in one transaction at most: other processes want the lock, too."""


class Job(Generic[T]):
    """Work for the thread, and where its outcome is awaited."""

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self._work = work
        self._outcome: T | None = None
        self._failure: Exception | None = None
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def run(self, connection: sqlite3.Connection) -> None:
        self._failure = None
        self._outcome = self._work(connection)

    def fail(self, failure: Exception) -> None:
        self._failure = failure

    def settle(self) -> None:
        if self.future.done():
            return
        if self._failure:
            self.future.set_exception(self._failure)
        else:
            self.future.set_result(self._outcome)  # type: ignore[arg-type]


class Writer:
    """The thread; `connect` is called in it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._connection: sqlite3.Connection | None = None
        self._asked: list[Job[object]] = []
        self._jobs: queue.SimpleQueue[list[Job[object]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work in a transaction; it is done even if the caller is cancelled.

        Raises:
            LedgerUnavailable: the file cannot be used; nothing of the work is in it.
        """
        job = Job(work)
        if not self._asked:
            self._loop.call_soon(self._hand_over)
        self._asked.append(job)  # type: ignore[arg-type]
        return await job.future

    async def close(self) -> None:
        """Finish what has been asked for, and end the thread."""
        self._hand_over()
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        self._jobs.put(self._asked)
        self._asked = []

    def _work(self) -> None:
        open_ = True
        while open_:
            batch: list[Job[object]] = []
            jobs = self._jobs.get()
            while jobs is not None:
                batch += jobs
                if len(batch) >= TOGETHER or self._jobs.empty():
                    break
                jobs = self._jobs.get()
            open_ = jobs is not None
            for first in range(0, len(batch), TOGETHER):
                self._commit(batch[first : first + TOGETHER])
        if self._connection:
            self._connection.close()

    def _commit(self, batch: list[Job[object]]) -> None:
        failure = self._try(batch)
        if failure and len(batch) > 1 and not isinstance(failure, sqlite3.OperationalError):
            # One of them cannot be done; the others can.
            for job in batch:
                self._commit([job])
            return
        for job in batch:
            if failure:
                known = isinstance(failure, (sqlite3.Error, ConfigurationError))
                job.fail(LedgerUnavailable(_reason(failure)) if known else failure)
        # The loop may be gone, and with it whoever waited.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, batch)

    def _try(self, batch: list[Job[object]]) -> Exception | None:
        try:
            connection = self._connection = self._connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, ConfigurationError) as failure:
            return failure
        try:
            for job in batch:
                job.run(connection)
            connection.execute("COMMIT")
        except Exception as failure:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return failure
        return None


def _settle(batch: list[Job[object]]) -> None:
    for job in batch:
        job.settle()


def _reason(failure: Exception) -> str:
    """SQLite's own name for it, without a path."""
    return str(getattr(failure, "sqlite_errorname", type(failure).__name__))
