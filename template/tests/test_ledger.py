"""The books, in every place that they can be kept: one suite for all of them."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.cascade.errors import BudgetExceeded
from app.cascade.types import Outcome, Usage
from app.ledger import (
    ANYONE,
    Account,
    Budgets,
    Entry,
    Ledger,
    OnFailure,
    Record,
    UsageOfDay,
    pump,
)
from app.ledger.days import Clock, utc_now, zone
from app.ledger.memory import MemoryStore
from app.ledger.opening import store as store_of
from app.ledger.store import Store
from tests.conftest import CASCADE, eventually
from tests.redis_server import RedisServer

ROOT = CASCADE.parents[1]
ANN, BOB = Account("ann"), Account("bob")


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self, now: datetime = datetime(2026, 3, 1, 23, 59, 30, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def entry(cost: str, outcome: Outcome = "accepted", model: str | None = "small") -> Entry:
    models = ("small", "large") if model == "large" else ("small",)
    return Entry(outcome, model, Decimal(cost), Decimal("0.5"), 12.0, Usage(3, 4), "simple", models)


# --- places ---------------------------------------------------------------------------------------


class Place:
    """Where the books of a test are: opened twice, it is the same."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._memory = MemoryStore()

    def store(self) -> Store:
        return self._memory if self.url == "memory://" else store_of(self.url)

    @asynccontextmanager
    async def open(
        self,
        budget: str = "1",
        *,
        account: str | None = None,
        query: str | None = None,
        clock: Clock = utc_now,
        timezone: str = "UTC",
        hold_seconds: float = 60.0,
        keep_days: int = 30,
        on_failure: OnFailure = "closed",
    ) -> AsyncIterator[Ledger]:
        """A ledger there, as one more process would open it."""
        budgets = Budgets(
            Decimal(budget),
            Decimal(account) if account else None,
            Decimal(query) if query else None,
        )
        ledger = Ledger(
            self.store(),
            budgets,
            clock=clock,
            zone=zone(timezone),
            hold_seconds=hold_seconds,
            keep_days=keep_days,
            on_failure=on_failure,
        )
        async with ledger.running():
            yield ledger


SHARED = ["sqlite", "redis"]


@pytest.fixture(params=["memory", *SHARED])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new place of each kind."""
    return new_place(request, tmp_path)


@pytest.fixture(params=SHARED)
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new place of each kind that processes share."""
    return new_place(request, tmp_path)


def new_place(request: pytest.FixtureRequest, folder: Path) -> Place:
    match request.param:
        case "memory":
            return Place("memory://")
        case "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
            # Here nothing but the machine is slow.
            patch.setattr(pump, "SECONDS", 10.0)
            server.forget_everything()
            return Place(server.url)
        case _:
            return Place(f"sqlite:///{folder}/ledger.sqlite3")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


async def spend(
    ledger: Ledger, cost: str, account: Account = ANYONE, outcome: Outcome = "accepted"
) -> None:
    """A query, from its reservation to its settlement."""
    await ledger.settle(await ledger.reserve(Decimal(cost), account), entry(cost, outcome))


async def records(ledger: Ledger) -> list[Record]:
    today = ledger.today()
    around = timedelta(days=1)
    return [each async for each in ledger.records(today - around, today + around)]


# --- budgets --------------------------------------------------------------------------------------


def test_what_is_reserved_cannot_be_reserved_again(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            await ledger.reserve(Decimal("0.6"))
            with pytest.raises(BudgetExceeded) as refused:
                await ledger.reserve(Decimal("0.6"))
            assert refused.value.remaining == Decimal("0.4")
            assert refused.value.scope == "service"

    run(go())


def test_the_whole_budget_may_be_spent(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            await spend(ledger, "1")
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal("0.000001"))

    run(go())


def test_money_is_exact(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            for _ in range(10):
                await spend(ledger, "0.1")
            assert (await ledger.totals()).cost == 1
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal("1E-12"))

    run(go())


def test_settling_gives_back_what_was_not_spent(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            await ledger.settle(await ledger.reserve(Decimal(1)), entry("0.1"))
            await ledger.reserve(Decimal("0.9"))

    run(go())


def test_a_failed_query_gives_all_back_and_is_noted(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            await ledger.settle(await ledger.reserve(Decimal(1)), entry("0", "failed", None))
            await ledger.reserve(Decimal(1))
            assert (await ledger.totals()).by_outcome == {"failed": 1}

    run(go())


def test_a_reservation_is_settled_once(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            reservation = await ledger.reserve(Decimal(1))
            await asyncio.gather(*(ledger.settle(reservation, entry("0.1")) for _ in range(5)))
            totals = await ledger.totals()
            assert (totals.queries, totals.spent_today) == (1, Decimal("0.1"))
            assert len(await records(ledger)) == 1

    run(go())


def test_a_key_has_a_budget_of_its_own(place: Place) -> None:
    async def go() -> None:
        async with place.open("1", account="0.3") as ledger:
            await spend(ledger, "0.2", ANN)
            held = await ledger.reserve(Decimal("0.1"), ANN)
            with pytest.raises(BudgetExceeded) as refused:
                await ledger.reserve(Decimal("0.01"), ANN)
            assert (refused.value.remaining, refused.value.scope) == (Decimal(0), "account")
            await spend(ledger, "0.3", BOB)
            await ledger.settle(held, entry("0"))
            await ledger.reserve(Decimal("0.1"), ANN)

    run(go())


def test_a_key_may_have_another_budget_than_the_rest(place: Place) -> None:
    async def go() -> None:
        async with place.open("1", account="0.3") as ledger:
            await spend(ledger, "0.5", Account("rich", Decimal("0.5")))
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal("0.2"), Account("poor", Decimal("0.1")))

    run(go())


def test_the_budgets_of_keys_cannot_exceed_that_of_the_service(place: Place) -> None:
    async def go() -> None:
        async with place.open("0.5", account="0.4") as ledger:
            await spend(ledger, "0.4", ANN)
            with pytest.raises(BudgetExceeded) as refused:
                await ledger.reserve(Decimal("0.2"), BOB)
            assert (refused.value.remaining, refused.value.scope) == (Decimal("0.1"), "service")

    run(go())


def test_a_query_has_a_budget_of_its_own(place: Place) -> None:
    async def go() -> None:
        async with place.open("1", query="0.1") as ledger:
            await ledger.reserve(Decimal("0.1"))
            with pytest.raises(BudgetExceeded) as refused:
                await ledger.reserve(Decimal("0.11"))
            assert (refused.value.remaining, refused.value.scope) == (Decimal("0.1"), "query")

    run(go())


# --- days -----------------------------------------------------------------------------------------


def test_a_new_day_brings_a_new_budget(place: Place) -> None:
    async def go() -> None:
        clock = SetClock()
        async with place.open("1", account="1", clock=clock) as ledger:
            await spend(ledger, "1", ANN)
            clock.now += timedelta(seconds=31)
            await ledger.reserve(Decimal(1), ANN)
            totals = await ledger.totals()
            assert (totals.spent_today, totals.cost) == (Decimal(0), Decimal(1))

    run(go())


def test_what_is_under_way_at_midnight_counts_for_the_new_day(place: Place) -> None:
    async def go() -> None:
        clock = SetClock()
        async with place.open("1", clock=clock) as ledger:
            reservation = await ledger.reserve(Decimal("0.8"))
            clock.now += timedelta(seconds=31)
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal("0.8"))
            await ledger.settle(reservation, entry("0.3"))
            assert (await ledger.totals()).spent_today == Decimal("0.3")

    run(go())


@pytest.mark.parametrize(
    ("timezone", "now", "seconds"),
    [
        ("UTC", "2026-03-01T23:59:30Z", 30),
        ("Asia/Kolkata", "2026-03-01T18:29:00Z", 60),
        # The clocks change in that night: the day has 23 hours.
        ("Europe/Rome", "2026-03-28T23:00:00Z", 23 * 3600),
    ],
)
def test_a_refusal_says_when_the_budget_is_whole_again(
    place: Place, timezone: str, now: str, seconds: int
) -> None:
    async def go() -> None:
        clock = SetClock(datetime.fromisoformat(now))
        async with place.open("1", timezone=timezone, clock=clock) as ledger:
            with pytest.raises(BudgetExceeded) as refused:
                await ledger.reserve(Decimal(2))
            assert refused.value.resets_in == seconds
            await spend(ledger, "1")
            clock.now += timedelta(seconds=seconds - 1)
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal(1))
            clock.now += timedelta(seconds=1)
            await ledger.reserve(Decimal(1))

    run(go())


def test_the_clock_is_one_of_utc() -> None:
    assert utc_now().tzinfo is UTC


# --- the books ------------------------------------------------------------------------------------


def test_totals_add_up_by_outcome_and_by_model(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
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
            assert sum(totals.latency.values()) == 2

    run(go())


def test_a_reset_keeps_what_was_spent_today(place: Place) -> None:
    async def go() -> None:
        clock = SetClock()
        async with place.open("1", clock=clock) as ledger:
            await spend(ledger, "0.4")
            held = await ledger.reserve(Decimal("0.6"))
            assert (await ledger.totals()).since is None
            await ledger.reset()
            totals = await ledger.totals()
            assert (totals.queries, totals.cost, totals.latency) == (0, Decimal(0), {})
            assert totals.spent_today == Decimal("0.4")
            assert totals.since == clock.now
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal("0.1"))
            await ledger.settle(held, entry("0.6"))
            assert (await ledger.totals()).queries == 1

    run(go())


def test_usage_is_told_by_key_and_day(place: Place) -> None:
    async def go() -> None:
        clock = SetClock()
        async with place.open("9", clock=clock) as ledger:
            await spend(ledger, "0.5", ANN)
            await spend(ledger, "0.25", ANN, "failed")
            clock.now += timedelta(days=1)
            await spend(ledger, "0.125", BOB)
            half = Decimal("0.5")
            one, two = date(2026, 3, 1), date(2026, 3, 2)
            assert [each async for each in ledger.usage(one, two)] == [
                UsageOfDay(
                    one, "ann", {"accepted": 1, "failed": 1}, 6, 8, Decimal("0.75"), 2 * half
                ),
                UsageOfDay(two, "bob", {"accepted": 1}, 3, 4, Decimal("0.125"), half),
            ]
            assert [each.account async for each in ledger.usage(two, two)] == ["bob"]

    run(go())


def test_every_query_is_recorded_as_it_was(place: Place) -> None:
    async def go() -> None:
        clock = SetClock()
        async with place.open("9", clock=clock) as ledger:
            first = await ledger.reserve(Decimal(1), ANN)
            asked = clock.now
            clock.now += timedelta(seconds=2)
            second = await ledger.reserve(Decimal(1), BOB)
            await ledger.settle(second, entry("0.25", "rejected", "large"))
            await ledger.settle(first, entry("0.5"))
            assert await records(ledger) == [
                Record(first.id, asked, "ann", entry("0.5")),
                Record(second.id, clock.now, "bob", entry("0.25", "rejected", "large")),
            ]

    run(go())


def test_records_are_forgotten_in_time_but_not_the_sums(shared_place: Place) -> None:
    async def go() -> None:
        clock = SetClock()
        async with shared_place.open("9", clock=clock) as ledger:
            await spend(ledger, "1")
            clock.now += timedelta(days=20)
            await spend(ledger, "2")
        clock.now += timedelta(days=20)
        async with shared_place.open("9", clock=clock, keep_days=30) as ledger:
            first, last = clock.now.date() - timedelta(days=40), clock.now.date()

            async def kept() -> list[Decimal]:
                return [each.entry.cost async for each in ledger.records(first, last)]

            while await kept() != [2]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert [each.cost async for each in ledger.usage(first, last)] == [1, 2]
            assert (await ledger.totals()).queries == 2

    run(go())


def test_many_records_are_read_page_by_page(shared_place: Place) -> None:
    async def go() -> None:
        async with shared_place.open("9000") as ledger:
            await asyncio.gather(*(spend(ledger, "0.5") for _ in range(1203)))
            found = [each.id for each in await records(ledger)]
            assert len(found) == len(set(found)) == 1203
            assert found == sorted(found)

    run(go())


@pytest.mark.parametrize("dollars", [Decimal(10) ** 30, Decimal("-1E30")])
def test_no_report_of_an_upstream_breaks_the_books(place: Place, dollars: Decimal) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            mad = Entry("accepted", "m", dollars, -dollars, 1e300, Usage(10**30, 10**30), "x")
            await ledger.settle(await ledger.reserve(Decimal(1)), mad)
            await ledger.totals()
            assert len(await records(ledger)) == 1

    run(go())


# --- several processes, and their ends ------------------------------------------------------------


def test_another_process_sees_the_same_books(shared_place: Place) -> None:
    async def go() -> None:
        async with shared_place.open("1") as one, shared_place.open("1") as two:
            await spend(one, "0.25", ANN)
            await spend(two, "0.25", BOB)
            held = await one.reserve(Decimal("0.25"))
            with pytest.raises(BudgetExceeded):
                await two.reserve(Decimal("0.5"))
            await two.settle(held, entry("0.25"))
            await one.settle(held, entry("0.25"))
            assert await one.totals() == await two.totals()
            assert (await one.totals()).queries == 3

    run(go())


def test_the_books_are_there_after_a_restart(shared_place: Place) -> None:
    async def go() -> None:
        async with shared_place.open("1") as ledger:
            await spend(ledger, "0.75")
            before = await ledger.totals()
        async with shared_place.open("1") as ledger:
            assert await ledger.totals() == before
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal("0.5"))

    run(go())


def test_a_reservation_that_nobody_settles_expires(place: Place) -> None:
    async def go() -> None:
        async with place.open("1", account="1", hold_seconds=1) as ledger:
            await ledger.reserve(Decimal(1), ANN)
            with pytest.raises(BudgetExceeded):
                await ledger.reserve(Decimal(1), ANN)
            await asyncio.sleep(1.1)
            await ledger.reserve(Decimal(1), ANN)

    run(go())


def test_what_was_spent_after_all_is_noted_once(place: Place) -> None:
    async def go() -> None:
        async with place.open("1", hold_seconds=0.05) as ledger:
            late = await ledger.reserve(Decimal(1))
            await asyncio.sleep(0.1)
            await ledger.settle(await ledger.reserve(Decimal(1)), entry("0.25"))
            for _ in range(2):
                await ledger.settle(late, entry("0.5"))
            totals = await ledger.totals()
            assert (totals.queries, totals.spent_today) == (2, Decimal("0.75"))

    run(go())


def test_a_settlement_is_written_though_its_caller_is_cancelled(place: Place) -> None:
    async def go() -> None:
        async with place.open("9") as ledger:
            for _ in range(20):
                reservation = await ledger.reserve(Decimal("0.1"))
                settling = asyncio.ensure_future(ledger.settle(reservation, entry("0.1")))
                await asyncio.sleep(0)
                settling.cancel()
        async with place.open("9") as ledger:
            assert (await ledger.totals()).queries == 20

    run(go())


def test_a_reservation_whose_caller_is_cancelled_is_given_back(place: Place) -> None:
    async def go() -> None:
        async with place.open("1") as ledger:
            for _ in range(20):
                reserving = asyncio.ensure_future(ledger.reserve(Decimal(1)))
                await asyncio.sleep(0)
                reserving.cancel()
                settled = await asyncio.gather(reserving, return_exceptions=True)
                if not isinstance(settled[0], BaseException):
                    await ledger.settle(settled[0], entry("0"))
            while True:
                try:
                    await ledger.reserve(Decimal(1))
                except BudgetExceeded:
                    await asyncio.sleep(0.01)
                else:
                    return

    run(go())


@pytest.mark.parametrize("seed", range(3))
def test_no_number_of_tasks_spends_more_than_the_budget(place: Place, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311

    async def one(ledger: Ledger, account: Account) -> Decimal:
        spent = Decimal(0)
        for _ in range(6):
            amount = Decimal(chance.randint(1, 200)) / 1000
            try:
                reservation = await ledger.reserve(amount, account)
            except BudgetExceeded:
                continue
            await asyncio.sleep(chance.random() / 100)
            cost = amount * chance.randint(0, 4) / 4
            await ledger.settle(reservation, entry(str(cost)))
            spent += cost
        return spent

    async def go() -> None:
        async with place.open("2", account="0.5") as ledger:
            accounts = [Account(f"key{number % 6}") for number in range(60)]
            spent = sum(await asyncio.gather(*(one(ledger, each) for each in accounts)))
            totals = await ledger.totals()
            assert totals.spent_today == totals.cost == spent <= 2
            today = [each async for each in ledger.usage(ledger.today(), ledger.today())]
            assert all(each.cost <= Decimal("0.5") for each in today)
            assert sum(each.cost for each in today) == spent
            # Nothing is set aside any more.
            await ledger.reserve(Decimal(2) - spent, Account("other", budget=Decimal(2)))

    run(go())


Spenders = Callable[..., list["subprocess.Popen[str]"]]


@pytest.fixture
def spenders(shared_place: Place) -> Iterator[Spenders]:
    """Starts processes that spend the books of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, processes: int) -> list["subprocess.Popen[str]"]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "tests.spender", shared_place.url, *map(str, arguments)]
        for _ in range(processes):
            started.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_no_number_of_processes_spends_more_than_the_budget(
    shared_place: Place, spenders: Spenders
) -> None:
    # 500 queries, of which the budget pays 100 to the cent.
    processes = spenders("1", "0.01", 250, processes=2)
    outcomes = [json.loads(process.communicate(timeout=30)[0]) for process in processes]
    assert sum(each["spent"] for each in outcomes) == 100
    assert sum(each["refused"] for each in outcomes) == 400

    async def go() -> None:
        async with shared_place.open("1") as ledger:
            totals = await ledger.totals()
            assert (totals.queries, totals.spent_today) == (100, Decimal(1))
            found = {each.id for each in await records(ledger)}
            assert found == {id_ for each in outcomes for id_ in each["ids"]}
            assert len(found) == 100

    run(go())


def test_the_books_balance_once_the_reservations_of_a_killed_process_expire(
    shared_place: Place, spenders: Spenders
) -> None:
    (process,) = spenders("1", "0.01", 60, "hold", processes=1)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()

    async def remaining() -> Decimal:
        async with shared_place.open("1") as ledger:
            with pytest.raises(BudgetExceeded) as refused:
                await ledger.reserve(Decimal(2))
            return refused.value.remaining

    # 30 of the 60 were settled, and 30 were under way.
    assert asyncio.run(remaining()) == Decimal("0.4")
    assert eventually(lambda: asyncio.run(remaining()) == Decimal("0.7"))
