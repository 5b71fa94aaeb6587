"""Who spent what. A budget is held by reserving the worst case first and settling to the truth."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from app.cascade.types import Outcome, Usage


@dataclass(frozen=True, slots=True)
class Entry:
    """One query in the books: finished, failed or cancelled. US dollars and milliseconds."""

    outcome: Outcome
    model: str | None
    """The model that answered, if one did."""
    cost: Decimal
    saved: Decimal
    latency_ms: float
    usage: Usage
    complexity: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money set aside for one query, in US dollars."""

    id: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Totals:
    """The books since they were opened or reset."""

    queries: int
    cost: Decimal
    saved: Decimal
    by_model: dict[str, int]
    by_outcome: dict[str, int]
    spent_today: Decimal
    budget: Decimal


class Ledger(Protocol):
    """A place to keep the books."""

    async def reserve(self, amount: Decimal) -> Reservation:
        """Set money aside.

        Raises:
            BudgetExceeded: less than that is left for today.
        """
        ...

    async def settle(self, reservation: Reservation, entry: Entry) -> None:
        """Replace the reservation by what the query really cost, and note it, once."""
        ...

    async def totals(self) -> Totals:
        """The sums, in constant time."""
        ...

    async def reset(self) -> None:
        """Begin the sums anew; what was spent today still counts against the budget."""
        ...
