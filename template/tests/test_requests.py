"""Around each request: its id, its log line, the limit of its body."""

import asyncio
import json
import socket
import traceback
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.http.headers import AnswerHeaders
from app.http.protocol import MOST_BYTES
from app.http.requests import LastResort, RequestLog
from tests.conftest import Serve, eventually


def access(logged: list[str], request_id: str) -> list[str]:
    return [line for line in logged if "app.access" in line and f"id={request_id}" in line]


def test_a_request_without_an_id_gets_one(client: httpx.Client) -> None:
    first, second = (client.get("/liveness").headers["x-request-id"] for _ in range(2))
    assert first
    assert first != second


def test_a_request_keeps_the_id_it_brings(client: httpx.Client) -> None:
    response = client.get("/liveness", headers={"X-Request-ID": "trace-1.2_3"})
    assert response.headers["x-request-id"] == "trace-1.2_3"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "ä", 'a"b', "${jndi}"])
def test_an_id_that_could_harm_a_log_is_replaced(client: httpx.Client, given: str) -> None:
    response = client.get("/liveness", headers={b"X-Request-ID": given.encode()})
    assert response.headers["x-request-id"].isalnum()


def test_errors_carry_the_id_too(client: httpx.Client) -> None:
    response = client.get("/nowhere", headers={"X-Request-ID": "trace-404"})
    assert response.headers["x-request-id"] == "trace-404"


def test_a_request_has_one_line_in_the_log(client: httpx.Client, logged: list[str]) -> None:
    client.get("/nowhere", headers={"X-Request-ID": "one-line"})
    assert eventually(lambda: bool(access(logged, "one-line")))
    (line,) = access(logged, "one-line")
    assert line.startswith("INFO app.access GET /nowhere 404 ")


def test_a_path_cannot_write_lines_of_its_own(client: httpx.Client, logged: list[str]) -> None:
    client.get("/a%0AINFO%20forged", headers={"X-Request-ID": "forged"})
    assert eventually(lambda: bool(access(logged, "forged")))
    assert "GET /a%0AINFO%20forged 404" in access(logged, "forged")[0]


def test_the_prompt_of_a_get_is_never_logged(serve: Serve, logged: list[str]) -> None:
    client = serve(log_level="DEBUG")
    client.headers["X-Request-ID"] = "watched"
    for query in ("a secret prompt", "[[both:500]] a secret prompt", "secret" * 1000):
        client.get("/api/query", params={"query": query})
    client.get("/api/query", params={"query": "hi", "unknown": "a secret field"})
    assert eventually(lambda: len(access(logged, "watched")) == 4)
    assert not any("secret" in line for line in logged)


def test_the_prompt_of_a_post_is_never_logged(serve: Serve, logged: list[str]) -> None:
    client = serve(log_level="DEBUG")
    client.headers["X-Request-ID"] = "watched"
    for query in ("a secret prompt", "[[both:500]] a secret prompt", "secret" * 1000):
        client.post("/api/query", json={"query": query})
    client.post("/api/query", content=b'{"query": "a secret prompt', headers=JSON)
    assert eventually(lambda: len(access(logged, "watched")) == 4)
    assert not any("secret" in line for line in logged)


def test_what_breaks_a_response_off_is_not_told_to_the_server(logged: list[str]) -> None:
    async def service(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("a secret of the prompt")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(ConnectionAbortedError) as broken:
        asyncio.run(RequestLog(AnswerHeaders(LastResort(service), []))(scope, receive, send))
    told = "".join(traceback.format_exception(broken.value))
    assert any("unexpected RuntimeError in " in line for line in logged)
    assert not any("secret" in line for line in [told, *logged])


JSON = {"Content-Type": "application/json"}


def body_of(size: int) -> bytes:
    return b'{"query": "hi"}'.ljust(size)


def test_a_body_up_to_the_limit_is_read(serve: Serve) -> None:
    client = serve(max_body_bytes=200)
    assert client.post("/api/query", content=body_of(200), headers=JSON).status_code == 200


def test_a_longer_body_is_a_413(serve: Serve) -> None:
    client = serve(max_body_bytes=200)
    response = client.post("/api/query", content=body_of(201), headers=JSON)
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["error"] == "content_too_large"
    assert response.headers["x-request-id"]


def test_a_longer_body_of_unknown_length_is_a_413(serve: Serve) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * 50

    client = serve(max_body_bytes=200)
    response = client.post("/api/query", content=pieces(), headers=JSON)
    assert (response.status_code, response.json()["error"]) == (413, "content_too_large")


def test_a_longer_body_is_refused_before_it_has_come(serve: Serve) -> None:
    url = urlsplit(str(serve(max_body_bytes=200).base_url))
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=5) as connection:
        connection.sendall(
            b"POST /api/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000000\r\n\r\n{"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("line", [b"X-One: %s\r\n", b"%s"], ids=["many headers", "one header"])
def test_a_flood_of_headers_is_refused_and_the_next_client_is_answered(
    serve: Serve, line: bytes
) -> None:
    client = serve()
    url = urlsplit(str(client.base_url))
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Zero: ")
        with suppress(ConnectionError):
            while True:
                connection.sendall(line.replace(b"%s", b"x" * 10_000))
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"GET /health HTTP/1.1\r\nX: ".ljust(MOST_BYTES + 1, b"x"), "The headers are too long."),
        (b"To be or not to be\r\n\r\n", "Invalid HTTP request received."),
        (b"GET /health HTTP/1.1\r\nNo colon\r\n\r\n", "Invalid HTTP request received."),
    ],
    ids=["too long", "not HTTP", "no header"],
)
def test_what_never_becomes_a_request_is_told_so_as_every_error_is(
    client: httpx.Client, sent: bytes, detail: str
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as received:
            head, _, body = received.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert (problem["error"], problem["status"], problem["detail"]) == ("bad_request", 400, detail)


def test_headers_of_sixty_thousand_bytes_are_read(serve: Serve) -> None:
    client = serve()
    headers = {f"X-Header-{number}": "x" * 1000 for number in range(58)}
    assert client.get("/health", headers=headers).status_code == 200
    # The next request of a connection begins anew.
    assert client.get("/health", headers=headers).status_code == 200


def test_a_long_body_is_no_flood_of_headers(client: httpx.Client) -> None:
    response = client.post("/api/query", json={"query": "hi", "x": "x" * 500_000})
    assert response.status_code == 422
