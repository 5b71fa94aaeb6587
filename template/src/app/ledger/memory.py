"""Books in the memory of one process: gone with it, and not shared with other workers."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from app.ledger.store import EVERYBODY, Hold, Posting, Refusal, refusal

RECORDS = 500
"""The newest that are kept."""
DAYS = 400
EXPIRED = 10_000


class MemoryStore:
    """Dictionaries."""

    kind = "memory"
    keys = None

    def __init__(self) -> None:
        self._holds: dict[str, tuple[str, int, float]] = {}
        self._held: Counter[str] = Counter()
        self._expired: dict[str, None] = {}
        self._totals: Counter[str] = Counter()
        self._days: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._records: deque[tuple[str, str]] = deque(maxlen=RECORDS)

    def check(self) -> None:
        """Memory is there."""

    def running(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def hold(self, hold: Hold) -> Refusal | None:
        self._expire()
        if hold.id in self._holds:
            return None
        if refused := refusal(hold, self._held, self._days[hold.day]):
            return refused
        self._holds[hold.id] = hold.account, hold.units, time.monotonic() + hold.seconds
        _add({EVERYBODY: hold.units, hold.account: hold.units}, self._held)
        return None

    async def release(self, hold_id: str) -> None:
        self._release(hold_id)

    async def post(self, posting: Posting) -> bool:
        held = self._release(posting.id)
        expired = self._expired.pop(posting.id, posting.id) is None
        if not (held or expired):
            return False
        _add(posting.totals, self._totals)
        _add(posting.usage, self._days[posting.day])
        while len(self._days) > DAYS:
            del self._days[min(self._days)]
        self._records.append((posting.id, posting.record))
        return True

    async def totals(self) -> dict[str, int]:
        return dict(self._totals)

    async def day(self, day: str) -> dict[str, int]:
        return dict(self._days.get(day, {}))

    async def clear(self, totals: Mapping[str, int]) -> None:
        self._totals = Counter(totals)

    async def records(self, first_id: str, end_id: str) -> AsyncIterator[str]:
        for number, record in sorted(self._records):
            if first_id <= number < end_id:
                yield record

    async def forget(self, end_id: str) -> None:
        """There is room for few anyway."""

    async def ping(self) -> None:
        """Memory is there."""

    def _release(self, hold_id: str) -> bool:
        found = self._holds.pop(hold_id, None)
        if found is None:
            return False
        account, units, _ = found
        for name in (EVERYBODY, account):
            self._held[name] -= units
            if not self._held[name]:
                del self._held[name]
        return True

    def _expire(self) -> None:
        now = time.monotonic()
        # Holds are given for the same time, so the oldest expires first.
        while self._holds:
            oldest = next(iter(self._holds))
            if self._holds[oldest][2] > now:
                return
            self._release(oldest)
            self._expired[oldest] = None
            if len(self._expired) > EXPIRED:
                del self._expired[next(iter(self._expired))]


def _add(added: Mapping[str, int], sums: Counter[str]) -> None:
    """As `Counter.update`, which looks first what it was given."""
    for name, number in added.items():
        sums[name] += number
