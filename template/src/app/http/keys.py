"""API keys, kept as SHA-256 hashes: in `API_KEYS`, and in the same place as the ledger.

A key is 32 random bytes, so that a fast hash is enough: there is no password to guess.
"""

import hashlib
import json
import math
import re
import secrets
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, TypeVar, get_args

from app.cascade.errors import ConfigurationError
from app.values import value

KeyRole = Literal["use", "admin"]
Number = TypeVar("Number", int, Decimal)
NAME = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")
ENTRY = re.compile(r"\A([A-Za-z0-9._-]{1,64}):([a-z]+):([0-9a-f]{64})\Z")
DIGEST = re.compile(r"\A[0-9a-f]{64}\Z")
FIELDS = {"name", "role", "digest", "budget", "limit", "expires", "created"}


@value
class ApiKey:
    """A key that the service accepts, without the key itself."""

    name: str
    role: KeyRole
    digest: str
    budget: Decimal | None = None
    """US dollars a day, before `KEY_DAILY_BUDGET`."""
    limit: int | None = None
    """Requests a minute, before the general limit."""
    expires: datetime | None = None
    created: datetime | None = None

    @property
    def entry(self) -> str:
        """How `API_KEYS` names it."""
        return f"{self.name}:{self.role}:{self.digest}"

    def expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


def make(
    name: str,
    role: KeyRole,
    *,
    budget: Decimal | None = None,
    limit: int | None = None,
    expires: datetime | None = None,
) -> tuple[str, ApiKey]:
    """A new key, and what is kept of it.

    Raises:
        ConfigurationError: the name cannot be one.
    """
    if not NAME.match(name):
        raise ConfigurationError(
            "A key's name has 1 to 64 letters, digits, dots, underscores and hyphens."
        )
    key = secrets.token_urlsafe(32)
    now = datetime.now(UTC).replace(microsecond=0)
    return key, ApiKey(name, role, digest(key), budget, limit, expires, now)


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
                " the command `keys create NAME --entry` prints one"
            )
        keys.append(ApiKey(found[1], _role(found[2]), found[3]))
    return tuple(keys)


def write(key: ApiKey) -> str:
    """What the ledger's place keeps of a key, as JSON."""
    fields = {
        "name": key.name,
        "role": key.role,
        "digest": key.digest,
        "budget": None if key.budget is None else str(key.budget),
        "limit": key.limit,
        "expires": key.expires.isoformat() if key.expires else None,
        "created": key.created.isoformat() if key.created else None,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def read(text: str) -> ApiKey:
    """The opposite.

    Raises:
        ValueError: it is not of that form. A field that is not known here, from a newer version
            perhaps, may narrow what the key is for: such a key is better not accepted.
    """
    fields = json.loads(text)
    try:
        unknown = set(fields) - FIELDS
        if unknown or not NAME.match(fields["name"]) or not DIGEST.match(fields["digest"]):
            raise ValueError("not a key")
        budget, limit = fields.get("budget"), fields.get("limit")
        return ApiKey(
            fields["name"],
            _role(fields["role"]),
            fields["digest"],
            None if budget is None else _above_nought(Decimal(budget)),
            None if limit is None else _above_nought(int(limit)),
            _moment(fields.get("expires")),
            _moment(fields.get("created")),
        )
    except (TypeError, KeyError, ArithmeticError) as failure:
        raise ValueError("not a key") from failure


def digest(key: str) -> str:
    """What is kept in the place of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _above_nought(number: Number) -> Number:
    # A decimal that is not a number cannot be compared, and raises InvalidOperation.
    if not 0 < number < math.inf:
        raise ValueError("not above 0, or without end")
    return number


def _role(text: str) -> KeyRole:
    if text not in get_args(KeyRole):
        raise ValueError("not a role")
    return "admin" if text == "admin" else "use"


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
