"""Where requests are counted: RATE_LIMIT_STORAGE, or beside the books."""

from pathlib import Path

from app.features.rate_limit.counting import Place, Rule
from app.features.rate_limit.memory import MemoryPlace
from app.features.rate_limit.sqlite import SqlitePlace
from app.ledger import opening


def choose(storage: str, ledger_url: str, rule: Rule) -> Place:
    """The place of a URL; without one, that of the ledger: as shared as the budgets are.

    Raises:
        ConfigurationError: it cannot be used as configured.
    """

    def sqlite(path: Path) -> Place:
        return SqlitePlace(path if storage else _beside(path), rule)

    def redis(url: str, name: str) -> Place:
        from app.features.rate_limit.redis import RedisPlace

        return RedisPlace(url, name, rule)

    place: Place = opening.by_url(
        "RATE_LIMIT_STORAGE",
        storage or ledger_url,
        memory=lambda: MemoryPlace(rule),
        sqlite=sqlite,
        redis=redis,
    )
    place.check()
    return place


def _beside(books: Path) -> Path:
    return books.with_name(f"{books.stem}.limits.sqlite3")
