"""What a place for the books has to do: hold, post and count whole numbers by name.

A store knows nothing of money, time zones or prices; `books.py` does. So the stores can be small,
and one set of tests holds for all of them.
"""

from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from app.values import value

EVERYBODY = "*"
"""In the place of an account: all of them together. No account can have this name."""

EDITION = ""
"""In the place of an API key's name: what changes with every change of the keys."""

Scope = Literal["service", "account"]


@value
class Hold:
    """Units to be set aside for `seconds`, if the budgets of the day leave as many."""

    id: str
    account: str
    units: int
    seconds: float
    day: str
    budget: int
    account_budget: int | None


@value
class Refusal:
    """A hold that was not granted, and what is left of the budget that it would exceed."""

    scope: Scope
    remaining: int


def refusal(hold: Hold, held: Mapping[str, int], spent: Mapping[str, int]) -> Refusal | None:
    """Why a hold is not granted, if it is not: by account, what is held and what the day cost."""
    left = hold.budget - spent.get(f"{EVERYBODY}/cost", 0) - held.get(EVERYBODY, 0)
    if hold.units > left:
        return Refusal("service", left)
    if hold.account_budget is None:
        return None
    left = hold.account_budget - spent.get(f"{hold.account}/cost", 0) - held.get(hold.account, 0)
    return Refusal("account", left) if hold.units > left else None


@value
class Posting:
    """What one query adds to the books: to the totals, to its day, and as a record (JSON)."""

    id: str
    day: str
    totals: Mapping[str, int]
    usage: Mapping[str, int]
    record: str
    unbacked: bool
    """No hold may be known for it; it is told from its own repetition by a mark."""


class KeyStore(Protocol):
    """A place for API keys by name; what it keeps of them is not its business.

    Raises (any method):
        LedgerUnavailable: the place is out of reach.
    """

    async def edition(self) -> str | None:
        """Another one after every change; None if there never was a key."""
        ...

    def entries(self) -> AsyncIterator[str]:
        """All that are there. One that is added or removed meanwhile may be among them or not."""
        ...

    async def add(self, name: str, entry: str) -> bool:
        """Keep it; False if there is one of that name."""
        ...

    async def remove(self, name: str) -> bool:
        """Keep it no longer; False if there is none of that name."""
        ...


class Store(Protocol):
    """A place for the books. Every method is atomic, whichever processes share the place.

    What one process asks for is done in its order, and done though the caller be cancelled.

    A hold ends by being posted or released, or after its time; even then it can be posted, once,
    for it was spent all the same.

    Raises (any method):
        LedgerUnavailable: the place is out of reach; nothing is known of what was asked for.
    """

    kind: str

    @property
    def keys(self) -> KeyStore | None:
        """The API keys of the same place; None if it keeps none."""
        ...

    def check(self) -> None:
        """Look at the place before the start, where that can be done without waiting.

        Raises:
            ConfigurationError: it cannot be used, and why.
        """
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """From start to stop."""
        ...

    def hold(self, hold: Hold) -> Coroutine[None, None, Refusal | None]:
        """Set units aside, or say what is left. A second time with the same id is the first."""
        ...

    async def release(self, hold_id: str) -> None:
        """Give back what was held, if it was."""
        ...

    async def post(self, posting: Posting) -> bool:
        """End the hold and write the posting; False if it has been written before."""
        ...

    async def totals(self) -> dict[str, int]:
        """The sums of all postings since the last `clear`, by name."""
        ...

    async def day(self, day: str) -> dict[str, int]:
        """The sums of a day's postings, by `account/name`."""
        ...

    async def clear(self, totals: Mapping[str, int]) -> None:
        """Begin the totals anew, with these. Days, records and holds stay."""
        ...

    def records(self, first_id: str, end_id: str) -> AsyncIterator[str]:
        """The records with an id from the first on and before the end, in the order of ids."""
        ...

    async def forget(self, end_id: str) -> None:
        """Delete the records before that id."""
        ...

    async def ping(self) -> None:
        """Return if the place can be written; one that is full may still be read."""
        ...
