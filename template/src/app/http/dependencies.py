"""What routes ask FastAPI for; `async`, since it runs every other function in a thread."""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError

from app.cascade.engine import Engine
from app.cascade.errors import NotReady
from app.ledger import ANYONE, Account, Ledger
from app.settings import Settings

DEADLINE = "X-Request-Deadline"
TAKES_DEADLINE: dict[str, Any] = {
    "parameters": [
        {
            "name": DEADLINE,
            "in": "header",
            "required": False,
            "description": "Seconds that the client waits; can only shorten the service's deadline",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        }
    ]
}
"""A route's `openapi_extra`."""

_SECONDS = TypeAdapter(Annotated[float, Field(gt=0, allow_inf_nan=False)])


async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def get_engine(request: Request) -> Engine:
    """The engine.

    Raises:
        NotReady: before start-up has finished, and after the end.
    """
    engine: Engine | None = request.app.state.engine
    if engine is None:
        raise NotReady
    return engine


async def get_ready_engine(request: Request) -> Engine:
    """The engine, if more queries should come here.

    Raises:
        NotReady: as above, and from the moment that the service begins to stop.
    """
    if request.app.state.drain.begun:
        raise NotReady
    return await get_engine(request)


async def get_ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


async def get_account(request: Request) -> Account:
    """Who pays: the key that the guard of the API's routes has found, if there are keys."""
    account: Account = getattr(request.state, "account", ANYONE)
    return account


async def get_deadline(request: Request) -> float | None:
    """Seconds that the client waits, if it says so; a route documents it by `TAKES_DEADLINE`.

    Raises:
        RequestValidationError: it is no number above 0.
    """
    given = request.headers.get(DEADLINE)
    if given is None:
        return None
    try:
        return _SECONDS.validate_python(given)
    except ValidationError as failure:
        found = [{**each, "loc": ("header", DEADLINE)} for each in failure.errors()]
        raise RequestValidationError(found) from None


TheSettings = Annotated[Settings, Depends(get_settings)]
TheEngine = Annotated[Engine, Depends(get_engine)]
TheReadyEngine = Annotated[Engine, Depends(get_ready_engine)]
TheLedger = Annotated[Ledger, Depends(get_ledger)]
TheAccount = Annotated[Account, Depends(get_account)]
TheDeadline = Annotated[float | None, Depends(get_deadline)]
