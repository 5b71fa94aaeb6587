"""`/api/query`: a question in, the whole answer out."""

import json
import math
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import ACCEPTED, DIRECT, REJECTED, Serve

JSON = {"Content-Type": "application/json"}


def post(client: httpx.Client, **fields: object) -> httpx.Response:
    return client.post("/api/query", content=json.dumps(fields), headers=JSON)


def assert_refused(response: httpx.Response, field: str, status: int = 422) -> None:
    """A problem that names the field."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["error"] == "validation_error"
    assert [each["field"] for each in problem["errors"]] == [field]


def test_an_answer_has_the_fields_of_the_contract(client: httpx.Client) -> None:
    response = post(client, query=ACCEPTED)
    assert response.status_code == 200
    body = response.json()
    assert body["content"].startswith("AI")
    assert body["model_used"] == "simulator-small"
    assert body["cascaded"] is True
    assert body["draft_accepted"] is True
    assert body["latency_ms"] > 0
    assert body["usage"]["output_tokens"] > 0
    assert body["usage"]["estimated"] is False


def test_money_adds_up(client: httpx.Client) -> None:
    body = post(client, query=ACCEPTED).json()
    assert 0 < body["cost"] == body["total_cost"] < body["baseline_cost"]
    assert math.isclose(body["saved"], body["baseline_cost"] - body["cost"])


def test_a_rejected_draft_is_told_and_not_shown(client: httpx.Client) -> None:
    body = post(client, query=REJECTED).json()
    assert body["model_used"] == "simulator-large"
    assert body["draft_accepted"] is False
    assert body["saved"] < 0
    assert "not sure" not in body["content"]


@pytest.mark.parametrize("fields", [{"query": DIRECT}, {"query": "hi", "force_direct": True}])
def test_a_direct_answer_had_no_draft(client: httpx.Client, fields: dict[str, object]) -> None:
    body = post(client, **fields).json()
    assert (body["cascaded"], body["draft_accepted"]) == (False, None)


def test_max_tokens_cuts_the_answer_and_says_so(client: httpx.Client) -> None:
    body = post(client, query=DIRECT, max_tokens=3).json()
    assert body["finish_reason"] == "length"
    assert body["usage"]["output_tokens"] == 3


def test_a_url_asks_the_same(client: httpx.Client) -> None:
    fields: dict[str, str | int | bool] = {"query": ACCEPTED, "max_tokens": 50}
    by_url = client.get("/api/query", params=fields).json()
    by_body = post(client, **fields).json()
    assert by_url["content"] == by_body["content"]


def test_the_blanks_around_a_query_are_not_asked(client: httpx.Client) -> None:
    answers = [post(client, query=text).json()["content"] for text in (ACCEPTED, f" {ACCEPTED}\n")]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("query", ""),
        ("query", " \t\n"),
        ("query", None),
        ("query", 3),
        ("query", True),
        ("query", ["What is AI?"]),
        ("query", "x" * 2001),
        ("query", "half a pair \ud800"),
        ("max_tokens", 0),
        ("max_tokens", 4001),
        ("max_tokens", 10**400),
        ("max_tokens", 1.5),
        ("max_tokens", "many"),
        ("max_tokens", None),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", {}),
        ("force_direct", "perhaps"),
        ("force_direct", None),
        ("model", "gpt-4o"),
    ],
)
def test_an_impossible_value_is_refused_by_its_field(
    client: httpx.Client, field: str, value: object
) -> None:
    assert_refused(post(client, **{"query": "hi", field: value}), field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("query", ""),
        ("query", " "),
        ("query", "x" * 2001),
        ("max_tokens", "0"),
        ("max_tokens", "many"),
        ("temperature", "nan"),
        ("temperature", "3"),
        ("force_direct", "perhaps"),
        ("model", "gpt-4o"),
    ],
)
def test_an_impossible_value_in_the_url_is_refused_by_its_field(
    client: httpx.Client, field: str, value: str
) -> None:
    assert_refused(client.get("/api/query", params={"query": "hi", field: value}), field)


def test_a_missing_query_is_refused(client: httpx.Client) -> None:
    assert_refused(post(client), "query")
    assert_refused(client.get("/api/query"), "query")


def test_every_wrong_field_is_named_at_once(client: httpx.Client) -> None:
    problem = post(client, query="", max_tokens=0, x=1).json()
    assert {each["field"] for each in problem["errors"]} == {"query", "max_tokens", "x"}


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"3", b'"hi"', b"{'query': 'hi'}"])
def test_a_body_that_is_no_object_is_refused(client: httpx.Client, content: bytes) -> None:
    assert_refused(client.post("/api/query", content=content, headers=JSON), "body")


@pytest.mark.parametrize(
    "content",
    [
        b'{"query": "\xff"}',
        b"[" * 100_000,
        b'{"query": ' * 50_000,
        b'{"query": "hi", "max_tokens": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_cannot_be_read_is_a_400(client: httpx.Client, content: bytes) -> None:
    response = client.post("/api/query", content=content, headers=JSON)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert "body" in response.json()["detail"]


def test_a_form_is_refused(client: httpx.Client) -> None:
    assert_refused(client.post("/api/query", data={"query": "hi"}), "body")


@pytest.mark.parametrize("query", ["%FF%FE", "%ED%A0%80", "%F0%9F%99%82", "a&query=b"])
def test_whatever_a_url_can_hold_is_answered(client: httpx.Client, query: str) -> None:
    assert client.get(f"/api/query?query={query}").status_code == 200


@pytest.mark.parametrize("line", [b"GET /api/query?query=\xff", b"GET /\xe2\x28", b"\x00"])
def test_a_request_that_is_no_http_is_no_500(client: httpx.Client, line: bytes) -> None:
    url = urlsplit(str(client.base_url))
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=5) as connection:
        connection.sendall(line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert not connection.recv(100).startswith(b"HTTP/1.1 5")


def test_a_refusal_does_not_repeat_what_was_asked(client: httpx.Client) -> None:
    response = post(client, query="secret" * 1000)
    assert "secret" not in response.text


def test_the_longest_query_is_a_setting(serve: Serve) -> None:
    client = serve(max_query_chars=5)
    assert post(client, query="a" * 5).status_code == 200
    assert_refused(post(client, query="a" * 6), "query")


def test_a_name_given_twice_is_refused(client: httpx.Client) -> None:
    content = b'{"query": "hi", "max_tokens": 1, "query": "bye"}'
    response = client.post(
        "/api/query", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "query", "message": "given twice"}]


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f"])
def test_control_characters_are_refused(client: httpx.Client, character: str) -> None:
    for response in (
        client.post("/api/query", json={"query": f"a{character}b"}),
        client.get("/api/query", params={"query": f"a{character}b"}),
    ):
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "query"


def test_tabs_and_line_ends_are_no_control_characters(client: httpx.Client) -> None:
    assert client.post("/api/query", json={"query": "What is\tAI?\r\n"}).status_code == 200


# --- the client's deadline ------------------------------------------------------------------------


@pytest.mark.parametrize(("mine", "yours"), [(60, "0.1"), (0.1, "60")])
def test_a_client_can_shorten_the_deadline_and_not_lengthen_it(
    serve: Serve, mine: float, yours: str
) -> None:
    response = serve(request_deadline_seconds=mine).post(
        "/api/query", json={"query": "[[both:hang]] hi"}, headers={"X-Request-Deadline": yours}
    )
    assert response.status_code == 504
    assert response.json()["detail"] == "No answer came within 0.1 seconds."


def test_half_of_a_short_deadline_is_the_drafters_too(client: httpx.Client) -> None:
    body = {"query": "[[drafter:hang]] What is AI?"}
    response = client.post("/api/query", json=body, headers={"X-Request-Deadline": "1"})
    assert response.json()["model_used"] == "simulator-large"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e999", "soon", "", "1s"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_impossible_deadline_is_refused(client: httpx.Client, method: str, seconds: str) -> None:
    fields = {"params" if method == "GET" else "json": {"query": "hi"}}
    headers = {"X-Request-Deadline": seconds}
    response = client.request(method, "/api/query", headers=headers, **fields)  # type: ignore[arg-type]
    assert_refused(response, "X-Request-Deadline")
