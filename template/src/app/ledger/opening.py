"""Which books are kept, and where: LEDGER_URL."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from app.about import about
from app.cascade.errors import ConfigurationError
from app.ledger import days
from app.ledger.books import Ledger
from app.ledger.memory import MemoryStore
from app.ledger.store import Store
from app.ledger.types import Budgets
from app.settings import Settings

T = TypeVar("T")
MARGIN = 30.0
"""Seconds beyond the deadline of a query, after which its reservation is that of a crash."""


def choose(settings: Settings) -> Ledger:
    """The ledger that the settings name; it is opened when it runs.

    Raises:
        ConfigurationError: it cannot be used as configured.
    """
    ledger = Ledger(
        store(settings.ledger_url.get_secret_value()),
        Budgets(settings.daily_budget, settings.key_daily_budget, settings.request_budget),
        zone=days.zone(settings.ledger_timezone),
        on_failure=settings.ledger_on_failure,
        hold_seconds=settings.request_deadline_seconds + MARGIN,
        keep_days=settings.ledger_keep_days,
    )
    ledger.check()
    return ledger


def check_shared(settings: Settings) -> None:
    """Refuse books that no other process could read or keep.

    Raises:
        ConfigurationError: the ledger is one process's own.
    """
    if settings.ledger_url.get_secret_value() == "memory://":
        raise ConfigurationError(
            "LEDGER_URL=memory:// is known to one process alone: each of several workers would"
            " spend a budget of its own, and no command can read it; sqlite:///file is shared"
        )


def store(url: str) -> Store:
    """The store of a URL.

    Raises:
        ConfigurationError: there is none of that kind.
    """
    return by_url("LEDGER_URL", url, memory=MemoryStore, sqlite=_sqlite, redis=_redis)


def by_url(
    setting: str,
    url: str,
    *,
    memory: Callable[[], T],
    sqlite: Callable[[Path], T],
    redis: Callable[[str, str], T],
) -> T:
    """What keeps things where the URL of a variable says; Redis is told the URL and our name.

    Raises:
        ConfigurationError: there is none of that kind. The URL is not repeated: it may hold a
            password.
    """
    if url == "memory://":
        return memory()
    if path := sqlite_path(url):
        return sqlite(path)
    if url.startswith(("redis://", "rediss://")):
        try:
            return redis(url, about().name)
        except ModuleNotFoundError:
            raise ConfigurationError(
                f"{setting}: Redis needs the extra of that name: `uv sync --extra redis`"
            ) from None
    raise ConfigurationError(
        f"{setting}: write sqlite:///file (sqlite:////absolute/file), redis://host:port/number,"
        " rediss://… with TLS, or memory://"
    )


def sqlite_path(url: str) -> Path | None:
    """The file of a URL, if it is one of SQLite."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return Path(unquote(rest.removeprefix("/")))
    return None


def _sqlite(path: Path) -> Store:
    from app.ledger.sqlite import SqliteStore

    return SqliteStore(path)


def _redis(url: str, name: str) -> Store:
    from app.ledger.redis import RedisStore

    return RedisStore(url, name)
