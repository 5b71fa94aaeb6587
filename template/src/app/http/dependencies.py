"""What routes ask FastAPI for; `async`, since it runs every other function in a thread."""

from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import Field, WithJsonSchema

from app.cascade.engine import Engine
from app.cascade.errors import NotReady
from app.ledger import ANYONE, Account, Ledger
from app.settings import Settings


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


TheSettings = Annotated[Settings, Depends(get_settings)]
TheEngine = Annotated[Engine, Depends(get_engine)]
TheReadyEngine = Annotated[Engine, Depends(get_ready_engine)]
TheLedger = Annotated[Ledger, Depends(get_ledger)]
TheAccount = Annotated[Account, Depends(get_account)]
TheDeadline = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
    Header(
        alias="X-Request-Deadline",
        description="Seconds that the client waits; can only shorten the service's deadline",
    ),
]
