"""Books in the memory of one process: gone with it, and not shared with other workers."""

import itertools
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from app.cascade.errors import BudgetExceeded
from app.ledger import Entry, Reservation, Totals

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryLedger:
    """Holds the daily budget, in US dollars, for one process. A day is a day of UTC."""

    def __init__(self, budget: Decimal, clock: Clock = utc_now) -> None:
        self._budget = budget
        self._clock = clock
        self._ids = itertools.count()
        self._day: date = clock().date()
        self._spent = Decimal(0)
        self._held = Decimal(0)
        self._reserved: dict[int, Decimal] = {}
        self._open()

    async def reserve(self, amount: Decimal) -> Reservation:
        self._turn_day()
        remaining = self._budget - self._spent - self._held
        if amount > remaining:
            raise BudgetExceeded(max(remaining, Decimal(0)), self._seconds_left_today())
        reservation = Reservation(next(self._ids), amount)
        self._reserved[reservation.id] = amount
        self._held += amount
        return reservation

    async def settle(self, reservation: Reservation, entry: Entry) -> None:
        held = self._reserved.pop(reservation.id, None)
        if held is None:
            return
        self._held -= held
        self._turn_day()
        self._spent += entry.cost
        self._cost += entry.cost
        self._saved += entry.saved
        self._by_outcome[entry.outcome] += 1
        if entry.model:
            self._by_model[entry.model] += 1

    async def totals(self) -> Totals:
        self._turn_day()
        return Totals(
            queries=self._by_outcome.total(),
            cost=self._cost,
            saved=self._saved,
            by_model=dict(self._by_model),
            by_outcome=dict(self._by_outcome),
            spent_today=self._spent,
            budget=self._budget,
        )

    async def reset(self) -> None:
        self._open()

    def _open(self) -> None:
        self._cost = Decimal(0)
        self._saved = Decimal(0)
        self._by_model: Counter[str] = Counter()
        self._by_outcome: Counter[str] = Counter()

    def _turn_day(self) -> None:
        today = self._clock().date()
        if today != self._day:
            self._day, self._spent = today, Decimal(0)

    def _seconds_left_today(self) -> float:
        now = self._clock()
        midnight = datetime.combine(now.date() + timedelta(days=1), time(), tzinfo=UTC)
        return (midnight - now).total_seconds()
