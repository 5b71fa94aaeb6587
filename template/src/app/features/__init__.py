"""Features: each module beside this file is one switch of the template.

A feature is installed because its file is present. Delete the file, its test and its dependency,
and it is gone. It plugs in through the fields of `Feature` and in no other way.
"""

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from types import ModuleType

from fastapi import APIRouter, FastAPI, Request
from fastapi.params import Depends
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware

from app.cascade.engine import Observer
from app.http.guard import Check
from app.http.headers import Change
from app.ledger import OnFailure
from app.settings import Settings
from app.values import value

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@value
class Standing:
    """Whether what a feature leans on is within reach, and what becomes of requests if not."""

    kind: str
    reachable: bool
    on_failure: OnFailure


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What one switch adds to the service."""

    name: str
    routers: Sequence[APIRouter] = ()
    """API routes: they need a key, and pass every feature's `checks` and `dependencies`."""
    open_routers: Sequence[APIRouter] = ()
    """Routes that are not part of the API, such as metrics."""
    checks: Sequence[Check] = ()
    """Asked before every API route, of whichever feature, once it is known whose key it is."""
    dependencies: Sequence[Depends] = ()
    """After them; FastAPI takes longer for each than for a check."""
    middleware: Sequence[Middleware] = ()
    answer_headers: Sequence[Change] = ()
    """What changes the headers of every answer, whatever has answered."""
    observers: Sequence[Observer] = ()
    """Told of every query once it is settled."""
    lifespan: Lifespan | None = None
    standing: Callable[[], Awaitable[Standing]] | None = None
    """For `/readiness` and metrics; it answers soon, whatever it leans on does."""
    check_shared: Callable[[], None] | None = None
    """Called before several workers start.

    Raises:
        ConfigurationError: each of them would keep what all should share.
    """
    shared: Callable[[], AbstractContextManager[None]] | None = None
    """Entered by the process that starts workers, around their lives."""
    on_decision: Callable[[str, str], None] | None = None
    """Told of what features decide about requests: the feature's name, and what it decided."""
    telemetry: TelemetryConfig | None = None
    """For FastAPI; one feature at most has one."""


def installed(settings: Settings) -> list[Feature]:
    """A new instance of every feature that is present, by name."""
    return [_make(module)(settings) for _, module in modules()]


def modules() -> Iterator[tuple[str, ModuleType]]:
    """The name and the module of every feature that is present, by name."""
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        yield name, importlib.import_module(f"{__name__}.{name}")


async def standings(features: Sequence[Feature]) -> dict[str, Standing]:
    """How the features are that lean on something, by name."""
    return {each.name: await each.standing() for each in features if each.standing}


def decided(request: Request, name: str, decision: str) -> None:
    """Tell whoever counts that this feature has decided something, in a word of a few."""
    for each in request.app.state.features:
        if each.on_decision:
            each.on_decision(name, decision)


def _make(module: ModuleType) -> Callable[[Settings], Feature]:
    make: Callable[[Settings], Feature] = module.feature
    return make
