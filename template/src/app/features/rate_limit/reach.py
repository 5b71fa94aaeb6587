"""A place within reach or not: nobody waits for it once it is known that it is not."""

import logging
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

from app.cascade.errors import LedgerUnavailable
from app.features.rate_limit.counting import Count, Place

T = TypeVar("T")
PAUSE = 1.0
"""Seconds between two tries of a place that is out of reach."""
log = logging.getLogger(__name__)


class Reach:
    """Asks the place; while it is out of reach, one request a second tries it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._reachable = True
        self._again = 0.0

    @property
    def place(self) -> Place:
        return self._place

    async def hit(self, client: str, limit: int | None = None) -> Count:
        """Count a request.

        Raises:
            LedgerUnavailable: the place is out of reach.
        """
        return await self._ask(lambda: self._place.hit(client, limit))

    async def reachable(self) -> bool:
        """Whether the place answers."""
        try:
            await self._ask(self._place.ping)
        except LedgerUnavailable:
            return False
        return True

    async def _ask(self, question: Callable[[], Coroutine[None, None, T]]) -> T:
        if not self._reachable:
            if time.monotonic() < self._again:
                raise LedgerUnavailable("out of reach a moment ago")
            self._again = time.monotonic() + PAUSE
        try:
            answer = await question()
        except LedgerUnavailable as failure:
            self._again = time.monotonic() + PAUSE
            if self._reachable:
                self._reachable = False
                log.warning("the counts of requests are out of reach: %r", failure)
            raise LedgerUnavailable(type(failure).__name__) from None
        if not self._reachable:
            self._reachable = True
            log.warning("the counts of requests are within reach again")
        return answer
