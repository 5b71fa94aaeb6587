"""API keys: `Authorization: Bearer KEY` or `X-API-Key: KEY`, kept as SHA-256 hashes.

A key is 32 random bytes, so that a fast hash is enough: there is no password to guess.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.cascade.errors import ConfigurationError
from app.http.problems import Problem
from app.ledger import Account

KeyRole = Literal["use", "admin"]
NAME = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")
ENTRY = re.compile(r"\A([A-Za-z0-9._-]{1,64}):([a-z]+):([0-9a-f]{64})\Z")

_bearer = HTTPBearer(auto_error=False, description="An API key")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that the service accepts, without the key itself."""

    name: str
    role: KeyRole
    digest: str


def parse(entries: str) -> tuple[ApiKey, ...]:
    """Read `API_KEYS`: comma-separated `name:role:sha256`.

    Raises:
        ConfigurationError: says which entry is not of that form, by its number.
    """
    keys = []
    for number, entry in enumerate(filter(None, map(str.strip, entries.split(","))), start=1):
        found = ENTRY.match(entry)
        if not found or found[2] not in get_args(KeyRole):
            raise ConfigurationError(
                f"API_KEYS: entry {number} is not name:role:sha256 with the role use or admin;"
                " the command `keys create` prints one"
            )
        role: KeyRole = "admin" if found[2] == "admin" else "use"
        keys.append(ApiKey(found[1], role, found[3]))
    return tuple(keys)


def create(name: str, role: KeyRole) -> tuple[str, str]:
    """A new key, and the entry for `API_KEYS` that accepts it.

    Raises:
        ConfigurationError: the name cannot stand in an entry.
    """
    if not NAME.match(name):
        raise ConfigurationError(
            "A key's name has 1 to 64 letters, digits, dots, underscores and hyphens."
        )
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{role}:{_digest(key)}"


def require(role: KeyRole) -> Callable[..., Coroutine[None, None, ApiKey | None]]:
    """A dependency that lets a request pass if its key has the role, or if no keys are configured.

    Raises:
        Problem: 401 without a known key, 403 where the key's role is not enough.
    """

    async def check(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> ApiKey | None:
        keys: tuple[ApiKey, ...] = request.app.state.keys
        if not keys:
            return None
        given = bearer.credentials if bearer else header
        key = _find(keys, given) if given else None
        if key is None:
            raise Problem(
                401,
                "unauthorized",
                "This service needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY.",
                {"WWW-Authenticate": "Bearer"},
            )
        if role == "admin" and key.role != "admin":
            raise Problem(403, "forbidden", "This needs a key with the role admin.")
        request.state.account = Account(key.name)
        return key

    return check


def _find(keys: tuple[ApiKey, ...], given: str) -> ApiKey | None:
    digest = _digest(given)
    matches = [key for key in keys if hmac.compare_digest(key.digest, digest)]
    return matches[0] if matches else None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
