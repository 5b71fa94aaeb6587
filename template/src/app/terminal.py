"""What every command needs: to say what went wrong in a sentence, and to end with 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation

import typer

from app.cascade.errors import CascadeError, ConfigurationError
from app.http.problems import from_cascade


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
