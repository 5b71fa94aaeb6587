"""Counts in the memory of one process."""

import time
from collections import OrderedDict, deque
from contextlib import AbstractAsyncContextManager, nullcontext

from app.features.rate_limit.counting import Count, Rule


class MemoryPlace:
    """Dictionaries, in which whose window ends first stands first."""

    kind = "memory"

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._fixed: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._sliding: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self) -> None:
        """Memory is there."""

    def running(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def ping(self) -> None:
        """Memory is always within reach."""

    async def hit(self, client: str, limit: int | None = None) -> Count:
        count = self._fix if self._rule.window == "fixed" else self._slide
        return count(client, self._rule.with_limit(limit), time.time())

    def _fix(self, client: str, rule: Rule, now: float) -> Count:
        limit, seconds = rule.limit, rule.seconds
        while self._fixed and next(iter(self._fixed.values()))[1] <= now:
            self._fixed.popitem(last=False)
        count, ends = self._fixed.get(client, (0, now + seconds))
        if ends > now + seconds:
            # It is from before the clock was set back.
            count, ends = 0, now + seconds
        allowed = count < limit
        if allowed:
            count += 1
            self._fixed[client] = count, ends
        return Count(allowed, max(0, limit - count), ends - now)

    def _slide(self, client: str, rule: Rule, now: float) -> Count:
        limit, seconds = rule.limit, rule.seconds
        while self._sliding and next(iter(self._sliding.values()))[-1] <= now - seconds:
            self._sliding.popitem(last=False)
        hits = self._sliding.setdefault(client, deque())
        while hits and not now - seconds < hits[0] <= now:
            hits.popleft()
        allowed = len(hits) < limit
        if allowed:
            hits.append(now)
            self._sliding.move_to_end(client)
        return Count(allowed, max(0, limit - len(hits)), hits[0] + seconds - now)
