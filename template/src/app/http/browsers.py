"""What browsers are told: who may call from other pages, and what not to do with an answer."""

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from app.settings import Settings

# OWASP's REST Security Cheat Sheet: never sniffed, framed, referred to or kept.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
HTTPS_HEADERS = (*HEADERS, (b"strict-transport-security", b"max-age=31536000"))


def middleware(settings: Settings) -> list[Middleware]:
    """CORS, if any origin is named."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["*"],
        )
    ]


def secure(scope: Scope, headers: MutableHeaders) -> None:
    """Add what an answer does not say itself."""
    said = {name for name, _ in headers.raw}
    ours = HTTPS_HEADERS if scope["scheme"] == "https" else HEADERS
    headers.raw.extend(each for each in ours if each[0] not in said)
