"""One thread for one SQLite file: what one turn of the event loop asks for is committed together.

The loop never waits for the disk or for another process's lock; callers await futures.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Generic, TypeVar

from app.cascade.errors import ConfigurationError, LedgerUnavailable

A = TypeVar("A")
T = TypeVar("T")
Work = Callable[[sqlite3.Connection, Sequence[A]], Sequence[T]]
"""About each of several things; an outcome for each, in their order."""
TOGETHER = 256
"""Jobs in one transaction at most: other processes want the lock, too."""


class Job(Generic[A, T]):
    """Work for the thread, and where its outcome is awaited."""

    def __init__(self, work: Work[A, T], about: A) -> None:
        self.work = work
        self.about = about
        self._outcome: T | None = None
        self._failure: Exception | None = None
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def succeed(self, outcome: T) -> None:
        self._outcome, self._failure = outcome, None

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
        self._asked: list[Job[object, object]] = []
        self._jobs: queue.SimpleQueue[list[Job[object, object]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    async def run(self, work: Work[A, T], about: A) -> T:
        """Do the work in a transaction; it is done even if the caller is cancelled.

        The same work that is asked for several times in succession is done at once.

        Raises:
            LedgerUnavailable: the file cannot be used; nothing of the work is in it.
        """
        job = Job(work, about)
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
            batch: list[Job[object, object]] = []
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

    def _commit(self, batch: list[Job[object, object]]) -> None:
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

    def _try(self, batch: list[Job[object, object]]) -> Exception | None:
        try:
            connection = self._connection = self._connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, ConfigurationError) as failure:
            return failure
        try:
            for work, jobs in groupby(batch, attrgetter("work")):
                same = [*jobs]
                outcomes = work(connection, [job.about for job in same])
                for job, outcome in zip(same, outcomes, strict=True):
                    job.succeed(outcome)
            connection.execute("COMMIT")
        except Exception as failure:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return failure
        return None


def _settle(batch: list[Job[object, object]]) -> None:
    for job in batch:
        job.settle()


def _reason(failure: Exception) -> str:
    """SQLite's own name for it, without a path."""
    return str(getattr(failure, "sqlite_errorname", type(failure).__name__))
