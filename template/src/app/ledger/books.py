"""The ledger: budgets, days and failures, over a store that adds numbers up."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal

from app.cascade.errors import BudgetExceeded, LedgerUnavailable
from app.ledger import days, entries, money
from app.ledger.days import Clock, utc_now
from app.ledger.store import Hold, KeyStore, Posting, Refusal, Store
from app.ledger.types import (
    ANYONE,
    Account,
    Budgets,
    Entry,
    Health,
    OnFailure,
    Record,
    Reservation,
    Totals,
    UsageOfDay,
)

log = logging.getLogger(__name__)

WAITING = 100_000
"""Entries that wait for a store out of reach; beyond, no query is let in whatever the policy."""
PAUSE = 1.0
"""Seconds between tries to write what waits; a store that failed is asked for nothing else."""
LAST_TRIES = 4
"""At the stop, for what still waits to be written."""
HOUR = 3600.0


class Ledger:
    """The books of one app.

    `hold_seconds` is how long a reservation lasts whose process has died; it must be longer than
    any query. `keep_days` is for single records; the sums of days are kept longer.
    """

    def __init__(
        self,
        store: Store,
        budgets: Budgets,
        *,
        clock: Clock = utc_now,
        zone: tzinfo = UTC,
        on_failure: OnFailure = "closed",
        hold_seconds: float = 90.0,
        keep_days: int = 30,
    ) -> None:
        self.budgets = budgets
        self._day_budget = money.units(budgets.day)
        self._store = store
        self._clock = clock
        self._zone = zone
        self._on_failure = on_failure
        self._hold_seconds = hold_seconds
        self._keep = timedelta(days=keep_days)
        self._waiting: deque[Posting] = deque()
        self._down_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def keys(self) -> KeyStore | None:
        """The API keys that the store keeps beside the books; None if it keeps none."""
        return self._store.keys

    def check(self) -> None:
        """Look whether the store can be used.

        Raises:
            ConfigurationError: it cannot, and why.
        """
        self._store.check()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From start to stop. What waits is written before the end, or logged if it cannot be."""
        async with self._store.running():
            # Told to stop, and not cancelled: redis-py may swallow a cancellation.
            stopping = asyncio.Event()
            keeping = asyncio.create_task(self._keep_in_order(stopping))
            try:
                yield
            finally:
                stopping.set()
                while self._tasks:
                    await asyncio.wait(self._tasks)
                await keeping
                await self._write_the_last()

    async def reserve(self, amount: Decimal, account: Account = ANYONE) -> Reservation:
        """Set money aside for a query of that account, in US dollars.

        Raises:
            BudgetExceeded: less than that is left, for the day or for a query.
            LedgerUnavailable: nobody knows what is left, and the owner wants no query answered.
        """
        now = self._clock()
        allowed = self.budgets.query
        if allowed is not None and amount > allowed:
            raise BudgetExceeded(allowed, 0.0, "query")
        account_budget = self.budgets.account_day if account.budget is None else account.budget
        hold = Hold(
            id=f"{_id_at(now)}{secrets.token_hex(8)}",
            account=account.id,
            units=money.of_query(amount),
            seconds=self._hold_seconds,
            day=self._day(now).isoformat(),
            budget=self._day_budget,
            account_budget=None if account_budget is None else money.units(account_budget),
        )
        reservation = Reservation(hold.id, amount, account)
        try:
            refusal = await self._hold(hold)
        except LedgerUnavailable:
            if self._on_failure == "closed" or len(self._waiting) >= WAITING:
                raise
            return replace(reservation, unbacked=True)
        if refusal:
            left = max(money.dollars(refusal.remaining), Decimal(0))
            raise BudgetExceeded(left, days.seconds_left(now, self._zone), refusal.scope)
        return reservation

    async def settle(self, reservation: Reservation, entry: Entry) -> None:
        """Replace the reservation by what the query really cost, and note it, once.

        Neither a caller that is cancelled nor a store out of reach loses the entry.
        """
        now = self._clock()
        asked = datetime.fromtimestamp(int(reservation.id[:16], 16) / 1e9, UTC)
        record = Record(reservation.id, asked, reservation.account.id, entry)
        day = self._day(now).isoformat()
        posting = entries.posting(record, day, unbacked=reservation.unbacked)
        try:
            await self._post(posting)
        except asyncio.CancelledError:
            # Whether the store could write it is known to nobody; a second time is the first.
            self._spawn(self._post(posting))
            raise

    async def totals(self) -> Totals:
        """The sums, in constant time.

        Raises:
            LedgerUnavailable: the store is out of reach.
        """
        day = self._day(self._clock()).isoformat()
        sums, today = await self._store.totals(), await self._store.day(day)
        return entries.read_totals(sums, today, self.budgets.day)

    async def reset(self) -> None:
        """Begin the sums anew; what was spent today still counts against the budget.

        Raises:
            LedgerUnavailable: the store is out of reach.
        """
        await self._store.clear({"since": int(self._clock().timestamp())})

    async def usage(self, first: date, last: date) -> AsyncIterator[UsageOfDay]:
        """What each account used on each day from the first to the last.

        Raises:
            LedgerUnavailable: the store is out of reach.
        """
        for number in range((last - first).days + 1):
            day = first + timedelta(days=number)
            for each in entries.read_usage(day, await self._store.day(day.isoformat())):
                yield each

    async def records(self, first: date, last: date) -> AsyncIterator[Record]:
        """Each query that was asked on a day from the first to the last, as far as they are kept.

        Raises:
            LedgerUnavailable: the store is out of reach.
        """
        begin = _id_at(days.start_of(first, self._zone))
        end = _id_at(days.start_of(last + timedelta(days=1), self._zone))
        async for text in self._store.records(begin, end):
            yield entries.read_record(text)

    @property
    def waiting(self) -> int:
        """Entries that are still to be written."""
        return len(self._waiting)

    async def health(self) -> Health:
        """How the store is now."""
        # While it is left alone no query is let in, or none within a budget.
        reachable = not self._down()
        try:
            if reachable:
                await self._store.ping()
        except LedgerUnavailable:
            reachable = False
        return Health(self._store.kind, reachable, self._on_failure, self.waiting)

    def today(self) -> date:
        """The day that a query counts for."""
        return self._day(self._clock())

    def _day(self, now: datetime) -> date:
        return now.astimezone(self._zone).date()

    async def _hold(self, hold: Hold) -> Refusal | None:
        if self._down():
            raise LedgerUnavailable
        try:
            return await self._store.hold(hold)
        except LedgerUnavailable:
            self._failed()
            # It may have been held before the answer was lost.
            self._spawn(self._release(hold.id))
            raise
        except asyncio.CancelledError:
            self._spawn(self._release(hold.id))
            raise

    async def _release(self, hold_id: str) -> None:
        # What cannot be released expires.
        with suppress(LedgerUnavailable):
            await self._store.release(hold_id)

    async def _post(self, posting: Posting) -> None:
        if self._down():
            self._waiting.append(posting)
            return
        try:
            await self._store.post(posting)
        except LedgerUnavailable:
            self._failed()
            self._waiting.append(posting)

    def _down(self) -> bool:
        return asyncio.get_running_loop().time() < self._down_until

    def _failed(self) -> None:
        # What cannot be written is not counted either: nothing is held until it can be.
        self._down_until = asyncio.get_running_loop().time() + PAUSE + 0.5

    async def _keep_in_order(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        forget_at = loop.time()
        while not stopping.is_set():
            await self._write_waiting()
            if loop.time() >= forget_at:
                forget_at = loop.time() + HOUR
                with suppress(LedgerUnavailable):
                    await self._store.forget(_id_at(self._clock() - self._keep))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), PAUSE)

    async def _write_waiting(self) -> bool:
        """Write what waits; False where the store is still out of reach."""
        while self._waiting:
            try:
                await self._store.post(self._waiting[0])
            except LedgerUnavailable:
                # One that is never taken must not keep the others waiting.
                self._waiting.rotate(-1)
                self._failed()
                return False
            self._waiting.popleft()
            self._down_until = 0.0
        return True

    async def _write_the_last(self) -> None:
        for _ in range(LAST_TRIES):
            if await self._write_waiting():
                return
            await asyncio.sleep(PAUSE / 4)
        for posting in self._waiting:
            log.error("the ledger is out of reach; not written: %s", posting.record)
        self._waiting.clear()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _id_at(moment: datetime) -> str:
    """How an id begins that is given at a moment: ids are in the order of time."""
    return f"{int(moment.timestamp() * 1_000_000) * 1000:016x}"
