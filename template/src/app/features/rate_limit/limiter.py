"""slowapi, which never waits: the count is awaited before slowapi asks for it.

slowapi and the storages of `limits` beneath it are synchronous: a slow Redis would stop the event
loop. So this `Limiter` has a strategy that answers from a count which is there already. Limits,
scopes, refusals and their log line are slowapi's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import IPv6Address, ip_address, ip_network

import slowapi
from limits import RateLimitItem
from limits.strategies import RateLimiter
from limits.util import WindowStats
from slowapi.util import get_remote_address
from starlette.requests import Request

from app.features.rate_limit.counting import Count

_counted: ContextVar[Count] = ContextVar("counted")
_limit: ContextVar[int] = ContextVar("limit")


def limit_of_request() -> str:
    """For slowapi, whose limit is each request's own."""
    return f"{_limit.get()}/minute"


def client_of(request: Request) -> str:
    """Whose requests are counted together: an API key's, or where there are none an address's.

    The address is that of the connection, or what a trusted proxy says of it. One customer has
    2⁶⁴ addresses of IPv6; they count as one.
    """
    account = getattr(request.state, "account", None)
    if account is not None:
        return str(account.id)
    text = get_remote_address(request)
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if not isinstance(address, IPv6Address):
        return text
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address) >> 64 << 64, 64)))


class Limiter(slowapi.Limiter):
    """slowapi's, over counts that have been awaited."""

    @property
    def limiter(self) -> RateLimiter:
        return _Counted()

    @staticmethod
    @contextmanager
    def knows(count: Count, limit: int) -> Iterator[None]:
        """Within this, slowapi finds the count and what it is held against."""
        counted, against = _counted.set(count), _limit.set(limit)
        try:
            yield
        finally:
            _counted.reset(counted)
            _limit.reset(against)


class _Counted(RateLimiter):
    def __init__(self) -> None:
        """Keeps nothing, so it needs no storage."""

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        return _counted.get().allowed

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        return _counted.get().allowed

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        count = _counted.get()
        return WindowStats(count.frees_in, count.remaining)
