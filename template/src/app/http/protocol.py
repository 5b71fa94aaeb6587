"""uvicorn's protocol, with a bound on what comes before a request's headers have ended."""

import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.problems import MEDIA_TYPE, Problem

MOST_BYTES = 65_536
"""As uvicorn allows them with h11; httptools keeps whatever a client sends."""


class BoundedProtocol(HttpToolsProtocol):
    """Answers 400 to a flood of headers, and hangs up."""

    _bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A request's scope is made when it begins, and has a method when its headers have ended.
        if not self.scope or self.scope.get("method"):
            self._bytes = 0
            return
        self._bytes += len(data)
        if self._bytes > MOST_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too long.")

    def send_400_response(self, msg: str) -> None:
        """The error of what never became a request, and so has no id; then hang up."""
        body = json.dumps(Problem(400, "bad_request", msg).body()).encode()
        head = (
            f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
