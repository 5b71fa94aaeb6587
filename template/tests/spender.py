"""A process that spends: `python -m tests.spender URL BUDGET AMOUNT TASKS [hold]`.

Every task reserves the amount and settles it. With `hold` only every other task settles, and the
process waits, for ever, once all have come so far.
"""

import asyncio
import json
import sys
from decimal import Decimal

from app.cascade.errors import BudgetExceeded
from app.cascade.types import Usage
from app.ledger import Budgets, Entry, Ledger
from app.ledger.opening import store

HOLD_SECONDS = 2.0


async def main(url: str, budget: str, amount: str, tasks: str, hold: str = "") -> None:
    """Spend."""
    cost = Decimal(amount)
    ledger = Ledger(
        store(url), Budgets(Decimal(budget)), hold_seconds=HOLD_SECONDS if hold else 60.0
    )

    async def one(number: int) -> str | None:
        try:
            reservation = await ledger.reserve(cost)
        except BudgetExceeded:
            return None
        if hold and number % 2:
            return None
        await asyncio.sleep(0.001)
        entry = Entry("accepted", "m", cost, Decimal(0), 1.0, Usage(1, 1), "simple")
        await ledger.settle(reservation, entry)
        return reservation.id

    async with ledger.running():
        ids = await asyncio.gather(*(one(number) for number in range(int(tasks))))
        if hold:
            print("held", flush=True)  # noqa: T201
            await asyncio.Event().wait()
    spent = [each for each in ids if each]
    outcome = {"spent": len(spent), "refused": len(ids) - len(spent), "ids": spent}
    print(json.dumps(outcome))  # noqa: T201


asyncio.run(main(*sys.argv[1:]))
