"""When a failed call is tried again, and when a model is left alone for a while."""

import random
import time
from collections.abc import Callable

from app.cascade.errors import FaultKind, UpstreamFault
from app.values import value

RETRIED: frozenset[FaultKind] = frozenset({"unreachable", "timeout", "overloaded", "unavailable"})
"""Faults that may pass by themselves; the others would come again."""
COUNTED: frozenset[FaultKind] = frozenset(
    {"unreachable", "timeout", "unavailable", "malformed", "interrupted"}
)
"""Faults of the upstream itself: what a request or a quota causes says nothing of its health."""


@value
class Retries:
    """How often and after how many seconds a call is tried again."""

    attempts: int = 3
    first_wait: float = 0.2
    longest_wait: float = 10.0

    def wait(self, fault: UpstreamFault, attempt: int, remaining: float) -> float | None:
        """Seconds to wait after the `attempt`th try, or None to give up.

        An upstream's Retry-After is kept to. Else the wait doubles, with full jitter, as the AWS
        Architecture Blog recommends. A wait that would outlast the deadline is not begun.
        """
        if attempt >= self.attempts or fault.kind not in RETRIED:
            return None
        longest = min(self.longest_wait, self.first_wait * 2**attempt)
        # Jitter spreads clients out; which number it is protects nothing.
        wait = fault.retry_after or random.uniform(0, longest)  # noqa: S311
        return wait if wait < remaining else None


class Breaker:
    """Stops calls to a model whose upstream fails again and again, then lets one try it.

    One for each model of an app, so that a dead drafter does not cut off a healthy verifier.
    """

    def __init__(
        self,
        threshold: int = 5,
        rest: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`threshold` failed calls in a row, each after its retries, open it for `rest` seconds."""
        self._threshold = threshold
        self._rest = rest
        self._clock = clock
        self._failures = 0
        self._opened: float | None = None
        self._trying = False

    def check(self) -> None:
        """Let a call through.

        Raises:
            UpstreamFault: `open`, with the seconds until a call is tried again.
        """
        if self._opened is None:
            return
        left = self._opened + self._rest - self._clock()
        if left > 0:
            raise UpstreamFault("open", retry_after=left)
        # This call is the trial; others rest until it has ended.
        self._opened = self._clock()
        self._trying = True

    def succeeded(self) -> None:
        self._failures, self._opened, self._trying = 0, None, False

    def failed(self, fault: UpstreamFault) -> None:
        # A 408 may pass, but like every 4xx it is about the request.
        ours = fault.status is not None and fault.status < 500
        if fault.kind in COUNTED and not ours:
            self._failures += 1
            if self._failures >= self._threshold:
                self._opened, self._trying = self._clock(), False
        elif fault.kind != "open":
            self.abandoned()

    def abandoned(self) -> None:
        """A call ended without a word on the upstream's health: if it was the trial, another is."""
        if self._trying:
            self._opened, self._trying = self._clock() - self._rest, False
