"""slowapi, which never waits: the count is awaited before slowapi asks for it.

slowapi and the storages of `limits` beneath it are synchronous: a slow Redis would stop the event
loop. So this `Limiter` has a strategy that answers from a count which is there already. Limits,
scopes, refusals and their log line are slowapi's.
"""

from collections.abc import Callable
from contextvars import ContextVar
from inspect import signature
from ipaddress import IPv6Address, ip_address, ip_network

import slowapi
from limits import RateLimitItem
from limits.strategies import RateLimiter
from limits.util import WindowStats
from slowapi.util import get_remote_address
from starlette.requests import Request
from starlette.responses import Response

from app.features.rate_limit.counting import Count

Decide = Callable[..., None]
_counted: ContextVar[Count] = ContextVar("counted")


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


# slowapi asks for it with each request; to find out takes longer than the rest of a limit.
client_of.__signature__ = signature(client_of)  # type: ignore[attr-defined]


class Limiter(slowapi.Limiter):
    """slowapi's, over counts that have been awaited."""

    def __init__(self) -> None:
        # Explicit, or slowapi would take its own idea of both from the environment.
        super().__init__(client_of, storage_uri="memory://", strategy="fixed-window")
        self._deciding: dict[int, Decide] = {}
        self._own_strategy = _Counted()
        self._unsent = Response()

    @property
    def limiter(self) -> RateLimiter:
        return self._own_strategy

    def decide(self, request: Request, count: Count, limit: int) -> None:
        """Let the request pass if the count of its client does.

        Raises:
            RateLimitExceeded: it does not.
        """
        counted = _counted.set(count)
        try:
            self._for(limit)(request=request, response=self._unsent)
        finally:
            _counted.reset(counted)

    def _for(self, limit: int) -> Decide:
        # One for each limit: slowapi would read a limit that is made for each request each time.
        if limit not in self._deciding:
            self._deciding[limit] = self._decided_by(limit)
        return self._deciding[limit]

    def _decided_by(self, limit: int) -> Decide:
        def decide(request: Request, response: Response) -> None:
            """slowapi decides before this runs."""

        # slowapi keeps the limits of a function by its name.
        decide.__name__ = f"{limit}_a_minute"
        decorated: Decide = self.shared_limit(f"{limit}/minute", scope="api")(decide)
        return decorated


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
