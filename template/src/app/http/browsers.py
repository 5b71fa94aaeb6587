"""What browsers are told: who may call from other pages, and what not to do with an answer."""

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from app.http.headers import AnswerHeaders
from app.settings import Settings

# OWASP's REST Security Cheat Sheet: never sniffed, framed, referred to or kept.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def middleware(settings: Settings) -> list[Middleware]:
    """Headers on every answer; and CORS, if any origin is named."""
    found = [Middleware(AnswerHeaders, change=secure)]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["*"],
        )
        found.append(cors)
    return found


def secure(scope: Scope, headers: MutableHeaders) -> None:
    """Add what an answer does not say itself."""
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if scope["scheme"] == "https":
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
