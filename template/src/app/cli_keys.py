"""The command line for API keys: create, list and revoke."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import typer

from app.cascade.errors import LedgerUnavailable
from app.cascade.types import Json
from app.http import keys
from app.http.keyring import Keyring
from app.http.keys import ApiKey, KeyRole
from app.ledger import opening
from app.ledger.store import KeyStore
from app.settings import Settings, load_settings
from app.terminal import AsJson, dollars, explained, fail, tell

cli = typer.Typer(no_args_is_help=True, help="API keys.")

PERIOD = re.compile(r"\A(\d{1,6})([smhd])\Z")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _moment(text: str) -> datetime:
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        if found := PERIOD.match(text):
            moment = now + timedelta(seconds=int(found[1]) * SECONDS[found[2]])
        else:
            moment = datetime.fromisoformat(text)
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            "write 90d, 12h, 2030-01-31 or 2030-01-31T12:00Z; without a zone it is UTC"
        ) from None
    if moment <= now:
        raise typer.BadParameter("that has passed")
    return moment


@cli.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    role: Annotated[KeyRole, typer.Option(help="admin may also reset the statistics.")] = "use",
    budget: Annotated[
        Decimal | None,
        typer.Option(parser=dollars, metavar="USD", help="A day; else KEY_DAILY_BUDGET."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(parser=_moment, metavar="WHEN", help="90d, 12h, or a date and time (UTC)."),
    ] = None,
    entry: Annotated[
        bool, typer.Option("--entry", help="Keep nothing; print an entry for API_KEYS.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    with _explained():
        key, made = keys.make(name, role, budget=budget, limit=limit, expires=expires)
        settings = load_settings(Settings)
        if entry or opening.choose(settings).keys is None:
            if (budget, limit, expires) != (None, None, None):
                fail("An entry of API_KEYS has no budget, limit or expiry.")
            if as_json:
                tell({"key": key, "entry": made.entry})
                return
            typer.echo(f"key:              {key}")
            typer.echo(f"add to API_KEYS:  {made.entry}")
            return
        if not asyncio.run(_add(settings, made)):
            fail(f"There is a key with the name {name}; revoke it, or choose another name.")
    if as_json:
        tell({"key": key})
        return
    typer.echo(f"key:      {key}")
    typer.echo(f"accepted: within a second, with the role {role}; it is not shown again")


@cli.command(name="list")
def list_keys(as_json: AsJson = False) -> None:
    """Print the keys that are accepted, and those that have expired."""
    with _explained():
        keyring = asyncio.run(_read(load_settings(Settings)))
    if as_json:
        tell([_fields(key, origin) for key, origin in _sorted(keyring)])
        return
    for line in _table(keyring):
        typer.echo(line)


@cli.command()
def revoke(name: Annotated[str, typer.Argument(help="Whose key.")]) -> None:
    """Accept a key no longer: every worker and replica refuses it within a second."""
    with _explained():
        settings = load_settings(Settings)
        removed = asyncio.run(_remove(settings, name))
        if any(key.name == name for key in _configured(settings)):
            fail(f"{name} is in API_KEYS: take it out there, and restart the service.")
        if not removed:
            fail(f"There is no key with the name {name}.")
    typer.echo(f"{name}: revoked; every worker and replica refuses it within a second")


@contextmanager
def _explained() -> Iterator[None]:
    with explained():
        try:
            yield
        except LedgerUnavailable:
            fail("The ledger, and with it the keys that it keeps, is out of reach.")


async def _add(settings: Settings, made: ApiKey) -> bool:
    if any(key.name == made.name for key in _configured(settings)):
        return False
    async with _store(settings) as store:
        return store is not None and await store.add(made.name, keys.write(made))


async def _remove(settings: Settings, name: str) -> bool:
    async with _store(settings) as store:
        return store is not None and await store.remove(name)


async def _read(settings: Settings) -> Keyring:
    async with _store(settings) as store:
        keyring = Keyring(_configured(settings), store)
        await keyring.look()
        return keyring


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[KeyStore | None]:
    ledger = opening.choose(settings)
    async with ledger.running():
        yield ledger.keys


def _configured(settings: Settings) -> tuple[ApiKey, ...]:
    return keys.parse(settings.api_keys.get_secret_value())


def _sorted(keyring: Keyring) -> Iterator[tuple[ApiKey, str]]:
    """The keys by name, each with where it is kept."""
    for origin, found in (("API_KEYS", keyring.configured), ("ledger", keyring.stored)):
        for key in sorted(found, key=lambda key: key.name):
            yield key, origin


def _fields(key: ApiKey, origin: str) -> dict[str, Json]:
    return {
        "name": key.name,
        "role": key.role,
        "budget": None if key.budget is None else float(key.budget),
        "limit": key.limit,
        "created": key.created.isoformat() if key.created else None,
        "expires": key.expires.isoformat() if key.expires else None,
        "expired": key.expired(),
        "kept_in": origin,
    }


def _table(keyring: Keyring) -> Iterable[str]:
    rows = [("NAME", "ROLE", "BUDGET", "LIMIT", "CREATED", "EXPIRES", "KEPT IN")]
    rows += [
        (
            key.name,
            key.role,
            "-" if key.budget is None else f"${key.budget:f}",
            "-" if key.limit is None else f"{key.limit}/min",
            _date(key.created),
            f"{_date(key.expires)}{' (expired)' if key.expired() else ''}",
            origin,
        )
        for key, origin in _sorted(keyring)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _date(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}" if moment else "-"
