"""What is counted, and what a place for the counts has to do."""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Literal, Protocol

from app.values import value

Window = Literal["fixed", "sliding"]


@value
class Rule:
    """How many requests a client may make in a window."""

    limit: int
    window: Window
    seconds: int = 60

    def with_limit(self, limit: int | None) -> "Rule":
        """The same with a client's own limit, if it has one."""
        return self if limit is None else replace(self, limit=limit)


@value
class Count:
    """What became of one request."""

    allowed: bool
    remaining: int
    frees_in: float
    """Seconds: until the fixed window ends, or until the oldest request leaves the sliding one."""


class Place(Protocol):
    """Where requests are counted. It answers, or says that it cannot, within two seconds.

    A fixed window begins with a client's first request; in a sliding one, no sixty seconds hold
    more than the limit. Refused requests do not count.
    """

    kind: str

    def check(self) -> None:
        """Look at the place, if it is near.

        Raises:
            ConfigurationError: it cannot be used as configured.
        """

    def running(self) -> AbstractAsyncContextManager[None]:
        """From start to stop."""
        ...

    async def hit(self, client: str, limit: int | None = None) -> Count:
        """Count a request, in one step that no other process can come between.

        A `limit` is the client's own, in the place of the rule's.

        Raises:
            LedgerUnavailable: the place is out of reach; the request may be counted.
        """
        ...

    async def ping(self) -> None:
        """Write what counts nothing: a place that is full may still be read.

        Raises:
            LedgerUnavailable: the place is out of reach.
        """
