"""The words of the books. Money is in US dollars, time in milliseconds unless it says otherwise."""

from collections.abc import Mapping
from dataclasses import field
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from app.cascade.types import CallReport, Outcome, Usage
from app.values import value

OnFailure = Literal["closed", "open"]
"""What becomes of queries while the books are out of reach: refused, or answered unbudgeted."""


@value
class Account:
    """Who pays: an API key by its name; `budget` is its own for a day, before the general one."""

    id: str
    budget: Decimal | None = None


ANYONE = Account("anonymous")
"""Where no keys are configured."""


@value
class Budgets:
    """What may be spent: by all in a day, by each account in a day, and by one query."""

    day: Decimal
    account_day: Decimal | None = None
    query: Decimal | None = None


@value
class Entry:
    """One query as it ended: finished, failed or cancelled."""

    outcome: Outcome
    model: str | None
    """The model that answered, if one did."""
    cost: Decimal
    saved: Decimal
    latency_ms: float
    usage: Usage
    complexity: str
    models: tuple[str, ...] = ()
    """Every model that was asked, in order."""
    queued_ms: float = 0.0
    """From the question until a model could be asked. This and what follows is in no book."""
    first_text_ms: float | None = None
    """From then until a model had said something, where it is heard while it speaks."""
    calls: tuple[CallReport, ...] = ()


@value
class Reservation:
    """Money set aside for one query."""

    id: str
    amount: Decimal
    account: Account = ANYONE
    unbacked: bool = False
    """Given while the books were out of reach; it counts once it is settled."""


@value
class Record:
    """An entry as it stands in the books."""

    id: str
    at: datetime
    account: str
    entry: Entry


@value
class UsageOfDay:
    """What one account used in one day."""

    day: date
    account: str
    outcomes: Mapping[str, int]
    input_tokens: int
    output_tokens: int
    cost: Decimal
    saved: Decimal

    @property
    def queries(self) -> int:
        return sum(self.outcomes.values())


@value
class Totals:
    """The books since they were opened or reset."""

    queries: int
    cost: Decimal
    saved: Decimal
    by_model: dict[str, int]
    by_outcome: dict[str, int]
    spent_today: Decimal
    budget: Decimal
    since: datetime | None = None
    """The last reset's time, if there was one."""
    latency: Mapping[int, int] = field(default_factory=dict)
    """Answered queries by bucket of `latency.py`."""


@value
class Health:
    """How the books are, for `/readiness`."""

    kind: str
    reachable: bool
    on_failure: OnFailure
    waiting: int
    """Entries that are still to be written, because the books were out of reach."""
