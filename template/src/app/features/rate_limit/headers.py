"""`X-RateLimit-*` on every answer of a limited route."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import Scope

_STATE = "rate_limit_headers"


def remember(request: Request, headers: Mapping[str, str]) -> None:
    """Send these with the answer to the request, whatever it will be."""
    request.scope["state"][_STATE] = headers


def send_remembered(scope: Scope, headers: MutableHeaders) -> None:
    """Add what was remembered."""
    remembered = scope["state"].get(_STATE, {})
    headers.raw.extend((name.lower().encode(), text.encode()) for name, text in remembered.items())
