"""Who may come in: `Authorization: Bearer KEY` or `X-API-Key: KEY`, or anybody on loopback."""

import ipaddress
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.base import SecurityBase

from app.cascade.errors import ConfigurationError
from app.http import hosts, schemas
from app.http.keyring import Keyring
from app.http.keys import ApiKey, KeyRole
from app.http.problems import Problem
from app.ledger import Account
from app.settings import Settings

NO_KEYS = "API_KEYS is empty and the ledger keeps no key; `keys create NAME` makes one"
UNAUTHORIZED = "This service needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY."

Check = Callable[[Request], Awaitable[None]]

_bearer = HTTPBearer(auto_error=False, description="An API key")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key")


class _Guard(SecurityBase):
    """Asks for a key in both its places, and then all that asks of the request alone.

    To solve a dependency takes FastAPI longer than most of them.
    """

    model = _bearer.model
    scheme_name = _bearer.scheme_name

    def __init__(self, role: KeyRole, checks: Sequence[Check]) -> None:
        self._role = role
        self._checks = checks

    async def __call__(self, request: Request) -> ApiKey | None:
        key = await self._key(request)
        for check in self._checks:
            await check(request)
        return key

    async def _key(self, request: Request) -> ApiKey | None:
        request.state.key_limit = request.state.key_role = None
        if is_open(request):
            return None
        bearer = await _bearer(request)
        given = bearer.credentials if bearer else await _header(request)
        key = _valid(request.app.state.keyring, given)
        if self._role == "admin" and key.role != "admin":
            raise Problem(403, "forbidden", "This needs a key with the role admin.")
        request.state.account = Account(key.name, key.budget)
        request.state.key_limit, request.state.key_role = key.limit, key.role
        return key


def require(
    role: KeyRole, checks: Sequence[Check] = ()
) -> Callable[..., Coroutine[None, None, ApiKey | None]]:
    """A dependency that lets a request pass if its key has the role, or if none is needed.

    The checks follow, in their order; each may raise.

    Who pays is then `request.state.account`, and `request.state.key_limit` the key's own requests
    a minute, or None, and `request.state.key_role` its role, or None where none is needed.

    Raises:
        Problem: 401 without a valid key, 403 where the key's role is not enough, 503 while nobody
            knows which keys are valid.
    """
    return _Guard(role, checks)


def document(app: FastAPI) -> None:
    """Name both ways to send a key; of a dependency FastAPI documents one."""
    schemas.amend(app, _name_both)


def _name_both(found: dict[str, Any], operation: dict[str, Any]) -> None:
    if "security" in operation:
        known = found["components"]["securitySchemes"]
        known[_header.scheme_name] = jsonable_encoder(_header.model, exclude_none=True)
        operation["security"] = [{name: []} for name in known]


def is_open(request: Request) -> bool:
    """Whether no key is needed: there never was one, and the connection is one of this machine."""
    state = request.app.state
    keyring: Keyring = state.keyring
    settings: Settings = state.settings
    if keyring.guarded or not keyring.known or settings.environment == "production":
        return False
    # Where it was accepted and not from where: a proxy's headers cannot change that.
    server, _ = request.scope.get("server") or ("", None)
    return _is_from_here(str(server), hosts.name_of(request), settings.allowed_hosts)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to that host."""
    here = _is_this_machine(host)
    return host == "localhost" if here is None else here


def check_start(keyring: Keyring, environment: str, host: str = "127.0.0.1") -> None:
    """Refuse to start where anybody could come in, if it is known that there are no keys.

    Raises:
        ConfigurationError: says what to do.
    """
    if keyring.keys or not keyring.known:
        return
    if environment == "production":
        raise ConfigurationError(f"{NO_KEYS}: production does not run open")
    if not is_loopback(host):
        raise ConfigurationError(f"{NO_KEYS}: without one the service is open, on loopback only")


@lru_cache(16)
def _is_from_here(server: str, name: str, allowed_hosts: tuple[str, ...]) -> bool:
    here = _is_this_machine(server)
    if here is None:
        # It has come through no network: a Unix socket, or a test.
        return True
    # A page that a browser was lured to may be given this machine's address, but not its name.
    return here and (is_loopback(name) or hosts.is_known(name, allowed_hosts))


def _is_this_machine(host: str) -> bool | None:
    """Whether an address is one of the loopback's; None if it is no address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _valid(keyring: Keyring, given: str | None) -> ApiKey:
    key = keyring.find(given) if given else None
    if key is None:
        if not keyring.known and (given or not keyring.guarded):
            raise Problem(
                503,
                "keys_unavailable",
                "The API keys are out of reach; try again.",
                {"Retry-After": "1"},
            )
        raise _unauthorized(UNAUTHORIZED)
    if key.expired():
        raise _unauthorized("This API key has expired.")
    return key


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})
