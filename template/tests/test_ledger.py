"""The books: budgets are held by reserving, and settled to what was really spent."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from app.cascade.errors import BudgetExceeded
from app.cascade.types import Outcome, Usage
from app.ledger import Entry
from app.ledger.memory import MemoryLedger, utc_now


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 23, 59, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def entry(cost: str, outcome: Outcome = "accepted", model: str | None = "small") -> Entry:
    return Entry(outcome, model, Decimal(cost), Decimal("0.5"), 12.0, Usage(3, 4), "simple")


def test_what_is_reserved_cannot_be_reserved_again() -> None:
    async def go() -> None:
        ledger = MemoryLedger(Decimal(1))
        await ledger.reserve(Decimal("0.6"))
        with pytest.raises(BudgetExceeded) as refused:
            await ledger.reserve(Decimal("0.6"))
        assert refused.value.remaining == Decimal("0.4")

    asyncio.run(go())


def test_the_whole_budget_may_be_spent() -> None:
    async def go() -> None:
        ledger = MemoryLedger(Decimal(1))
        await ledger.settle(await ledger.reserve(Decimal(1)), entry("1"))
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(Decimal("0.000001"))

    asyncio.run(go())


def test_settling_gives_back_what_was_not_spent() -> None:
    async def go() -> None:
        ledger = MemoryLedger(Decimal(1))
        await ledger.settle(await ledger.reserve(Decimal(1)), entry("0.1"))
        await ledger.reserve(Decimal("0.9"))

    asyncio.run(go())


def test_a_reservation_is_settled_once() -> None:
    async def go() -> None:
        ledger = MemoryLedger(Decimal(1))
        reservation = await ledger.reserve(Decimal(1))
        await ledger.settle(reservation, entry("0.1"))
        await ledger.settle(reservation, entry("0.1"))
        totals = await ledger.totals()
        assert (totals.queries, totals.spent_today) == (1, Decimal("0.1"))

    asyncio.run(go())


def test_a_new_day_brings_a_new_budget() -> None:
    async def go() -> None:
        clock = Clock()
        ledger = MemoryLedger(Decimal(1), clock)
        await ledger.settle(await ledger.reserve(Decimal(1)), entry("1"))
        clock.now = datetime(2026, 3, 2, 0, 0, 1, tzinfo=UTC)
        await ledger.reserve(Decimal(1))
        totals = await ledger.totals()
        assert (totals.spent_today, totals.cost) == (Decimal(0), Decimal(1))

    asyncio.run(go())


def test_what_is_under_way_at_midnight_counts_for_the_new_day() -> None:
    async def go() -> None:
        clock = Clock()
        ledger = MemoryLedger(Decimal(1), clock)
        reservation = await ledger.reserve(Decimal("0.8"))
        clock.now = datetime(2026, 3, 2, 0, 0, 1, tzinfo=UTC)
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(Decimal("0.8"))
        await ledger.settle(reservation, entry("0.3"))
        assert (await ledger.totals()).spent_today == Decimal("0.3")

    asyncio.run(go())


def test_a_refusal_says_when_the_budget_is_whole_again() -> None:
    async def go() -> None:
        with pytest.raises(BudgetExceeded) as refused:
            await MemoryLedger(Decimal(1), Clock()).reserve(Decimal(2))
        assert refused.value.resets_in == 30

    asyncio.run(go())


def test_totals_add_up_by_outcome_and_by_model() -> None:
    async def go() -> None:
        ledger = MemoryLedger(Decimal(1))
        for each in (
            entry("0.1"),
            entry("0.2", "rejected", "large"),
            entry("0.1", "failed", None),
        ):
            await ledger.settle(await ledger.reserve(Decimal("0.2")), each)
        totals = await ledger.totals()
        assert totals.cost == totals.spent_today == Decimal("0.4")
        assert totals.saved == Decimal("1.5")
        assert totals.by_outcome == {"accepted": 1, "rejected": 1, "failed": 1}
        assert totals.by_model == {"small": 1, "large": 1}

    asyncio.run(go())


def test_a_reset_keeps_what_was_spent_today() -> None:
    async def go() -> None:
        ledger = MemoryLedger(Decimal(1))
        await ledger.settle(await ledger.reserve(Decimal(1)), entry("1"))
        await ledger.reset()
        totals = await ledger.totals()
        assert (totals.queries, totals.cost) == (0, Decimal(0))
        assert totals.spent_today == Decimal(1)

    asyncio.run(go())


def test_days_are_days_of_utc() -> None:
    assert utc_now().tzinfo is UTC
