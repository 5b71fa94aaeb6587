"""`/playground`: a page to ask on and to watch the cascade at work.

Static files without a build step. The page is open and knows nothing: it asks the API as any other
client does, and its policy lets it load and call nothing but this service.
"""

import hashlib
import html
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response

FOLDER = Path(__file__).with_name("page")
PAGE = "playground.html"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No text can become markup, whatever the page's code does with it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


def router() -> APIRouter:
    """The page and what it loads, read once; the page names the service."""
    made = APIRouter()
    for file in FOLDER.iterdir():
        media_type = MEDIA_TYPES.get(file.suffix)
        if media_type is None:
            # What an editor or a file manager leaves is no part of the page.
            continue
        is_page = file.name == PAGE
        path = "/playground" if is_page else f"/playground/{file.name}"
        answer = _answering(file.read_bytes(), media_type, names_service=is_page)
        made.add_route(path, answer, include_in_schema=False)
    return made


def _answering(
    file: bytes, media_type: str, *, names_service: bool
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        name = html.escape(request.app.title).encode()
        content = file.replace(b"{service}", name) if names_service else file
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers={**headers, "Content-Type": media_type})

    return answer
