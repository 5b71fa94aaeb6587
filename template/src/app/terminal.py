"""What commands share: JSON for scripts, and to end with 1 after a sentence on what went wrong."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from app.cascade.errors import CascadeError, ConfigurationError
from app.cascade.types import Json
from app.http.problems import from_cascade
from app.http.schemas import QueryResponse

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@contextmanager
def explained() -> Iterator[None]:
    """Say a refusal or a failure of the service without a traceback."""
    try:
        yield
    except ConfigurationError as error:
        fail(str(error))
    except CascadeError as error:
        fail(from_cascade(error).detail)


def fail(message: str) -> None:
    """Say it, and end."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def tell(found: Mapping[str, Json] | Sequence[Mapping[str, Json]] | QueryResponse) -> None:
    """Print it as JSON."""
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def dollars(text: str) -> Decimal:
    """An option's US dollars.

    Raises:
        BadParameter: they are none, or too many.
    """
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter("not a number") from None
    if not (dollars.is_finite() and 0 < dollars <= 1_000_000):
        raise typer.BadParameter("more than 0 and at most 1000000")
    return dollars
