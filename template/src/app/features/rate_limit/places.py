"""Where requests are counted: RATE_LIMIT_STORAGE, or beside the books."""

from pathlib import Path

from app.about import about
from app.cascade.errors import ConfigurationError
from app.features.rate_limit.counting import Place, Rule
from app.features.rate_limit.memory import MemoryPlace
from app.features.rate_limit.sqlite import SqlitePlace
from app.ledger import opening


def choose(storage: str, ledger_url: str, rule: Rule) -> Place:
    """The place of a URL; without one, that of the ledger: as shared as the budgets are.

    Raises:
        ConfigurationError: it cannot be used as configured.
    """
    place = _place(storage, rule) if storage else _beside(ledger_url, rule)
    place.check()
    return place


def _beside(ledger_url: str, rule: Rule) -> Place:
    path = opening.sqlite_path(ledger_url)
    return SqlitePlace(_sibling(path), rule) if path else _place(ledger_url, rule)


def _sibling(path: Path) -> Path:
    return path.with_name(f"{path.stem}.limits.sqlite3")


def _place(url: str, rule: Rule) -> Place:
    if url == "memory://":
        return MemoryPlace(rule)
    if path := opening.sqlite_path(url):
        return SqlitePlace(path, rule)
    if url.startswith(("redis://", "rediss://")):
        return _redis(url, rule)
    raise ConfigurationError(
        "RATE_LIMIT_STORAGE: write sqlite:///file (sqlite:////absolute/file),"
        " redis://host:port/number, rediss://… with TLS, or memory://"
    )


def _redis(url: str, rule: Rule) -> Place:
    try:
        from app.features.rate_limit.redis import RedisPlace
    except ModuleNotFoundError:
        raise ConfigurationError(
            "RATE_LIMIT_STORAGE: Redis needs the extra of that name: `uv sync --extra redis`"
        ) from None
    return RedisPlace(url, about().name, rule)
