"""The name that a request asks for in its `Host` header, held against `ALLOWED_HOSTS`."""

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from fastapi import Request

from app.http.problems import Problem


async def require_known(request: Request) -> None:
    """A dependency that lets a request pass if the service answers to the name.

    Only the API asks: probes come by an address of the moment.

    Raises:
        Problem: 421 (RFC 9110, section 15.5.20).
    """
    allowed: Sequence[str] = request.app.state.settings.allowed_hosts
    if allowed and not is_known(name_of(request), allowed):
        raise Problem(
            421, "misdirected_request", "This service does not answer to that name (Host)."
        )


def is_known(name: str, allowed: Sequence[str]) -> bool:
    """Whether the name is one of those; `*.example.com` is every name below `example.com`."""
    return any(
        name == each or (each.startswith("*.") and name.endswith(each[1:])) for each in allowed
    )


def name_of(request: Request) -> str:
    """In lower case, without the port; empty if it can be no name."""
    return _name_in(request.headers.get("host", ""))


@lru_cache(16)
def _name_in(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
