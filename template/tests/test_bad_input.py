"""Bodies that are odd, huge or malicious: a problem that names the field, and no harm done."""

import json

import httpx
import pytest

from app.http.strict import CONTROL, NAMES
from tests.conftest import ACCEPTED

DEEP, MANY, HUGE = 100_000, 10_000, 100_000
TURNS = json.dumps([{"role": "user", "content": "hi"}] * MANY).encode()
QUERY = b'{"query": "hi"}'


def asking(value: bytes) -> bytes:
    """A body whose query is that JSON."""
    return b'{"query": %s}' % value


def beside(name: str, value: bytes) -> bytes:
    """A body with a fine query and one field more."""
    return b'{"query": "hi", "%s": %s}' % (name.encode(), value)


def assert_refused(client: httpx.Client, content: bytes, media: str = "application/json") -> str:
    """What the problem names; the service answers the next one as if nothing had been."""
    response = client.post("/api/query", content=content, headers={"Content-Type": media})
    assert response.status_code in (400, 413, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert client.post("/api/query", json={"query": ACCEPTED}).status_code == 200
    problem = response.json()
    if "errors" not in problem:
        assert "body" in problem["detail"]
        return "body"
    return ", ".join(each["field"] for each in problem["errors"])


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b'"%s"' % (b"x" * HUGE), id="100 kB on one line"),
        pytest.param(TURNS, id="ten thousand messages"),
        pytest.param(b"[" * 400 + b"]" * 400, id="nested"),
        pytest.param(rb'"\udc00"', id="the second half of a pair"),
        pytest.param(rb'"\udc00\ud800"', id="a pair the wrong way round"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"1e400", id="a number"),
    ],
)
def test_a_query_that_is_none_is_refused_by_its_name(client: httpx.Client, value: bytes) -> None:
    assert assert_refused(client, asking(value)) == "query"


def test_every_control_character_is_refused(client: httpx.Client) -> None:
    controls = [chr(code) for code in range(128) if CONTROL.match(chr(code))]
    assert len(controls) == 30
    for control in controls:
        text = json.dumps(f"a{control}b").encode()
        assert assert_refused(client, asking(text)) == "query"


@pytest.mark.parametrize("name", ["max_tokens", "temperature"])
@pytest.mark.parametrize(
    "number",
    [
        *(b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400"),
        pytest.param(b"1" + b"0" * 4000, id="10**4000"),
        pytest.param(b"-1" + b"0" * 4000, id="-10**4000"),
        pytest.param(b"1" + b"0" * 5000 + b".0", id="10.0**5000"),
        pytest.param(b'"1%s"' % (b"0" * 5000), id="10**5000 as text"),
    ],
)
def test_a_number_out_of_this_world_is_refused_by_its_name(
    client: httpx.Client, name: str, number: bytes
) -> None:
    assert assert_refused(client, beside(name, number)) == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", TURNS),
        ("x" * HUGE, b"1"),
        ("x", b"NaN"),
        ("x", b'{"a":' * 400 + b"1" + b"}" * 400),
    ],
    ids=["ten thousand messages", "a long name", "NaN", "nested"],
)
def test_an_unknown_field_is_refused_by_its_name_whatever_it_holds(
    client: httpx.Client, name: str, value: bytes
) -> None:
    assert assert_refused(client, beside(name, value)) == name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("query", rb'{"query": "hi", "\u0071uery": "bye"}'),
        ("a", b'{"query": "hi", "x": {"a": 1, "a": 2}}'),
        ("a", b'{"query": [{"a": 1, "a": 1}]}'),
        ("?", rb'{"query": "hi", "\ud800": 1, "\ud800": 1}'),
        ("\x00", rb'{"query": "hi", "\u0000": 1, "\u0000": 1}'),
    ],
    ids=["written otherwise", "further down", "in a list", "half a pair", "a null"],
)
def test_a_name_given_twice_is_refused_wherever_it_stands(
    client: httpx.Client, name: str, content: bytes
) -> None:
    assert assert_refused(client, content) == name


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(asking(b"[" * DEEP + b"]" * DEEP), id="deep lists"),
        pytest.param(beside("x", b'{"a":' * DEEP + b"1" + b"}" * DEEP), id="deep objects"),
        pytest.param(beside("temperature", b"1" + b"0" * 5000), id="10**5000"),
        pytest.param(b"{%s}" % b",".join(b'"%d":1' % n for n in range(MANY)), id="many names"),
        pytest.param(beside(r"\ud800", b"1"), id="half a pair as a name"),
        pytest.param(asking(b'"a\x00b"'), id="a null that is not escaped"),
        pytest.param(asking(b'"a\nb"'), id="a line end that is not escaped"),
        pytest.param(QUERY + b"\x00", id="a null behind it"),
        pytest.param(b"\x00", id="nothing but a null"),
        pytest.param(QUERY + QUERY, id="two of them"),
        pytest.param(b'{"query": "hi",}', id="a comma too many"),
        pytest.param(asking(b'"\xe9"'), id="Latin-1"),
        pytest.param(asking(b'"\xc0\x80"'), id="a null in two bytes"),
        pytest.param(asking(b'"\xed\xa0\x80"'), id="half a pair in bytes"),
        pytest.param(QUERY.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(QUERY.decode().encode("utf-16-le"), id="UTF-16 without its mark"),
        pytest.param(QUERY.decode().encode("utf-32"), id="UTF-32"),
        pytest.param(QUERY.decode().encode("utf-8-sig"), id="a byte order mark"),
    ],
)
def test_what_cannot_be_read_as_json_is_refused(client: httpx.Client, content: bytes) -> None:
    assert assert_refused(client, content) == "body"


@pytest.mark.parametrize(
    "media",
    ["", "text/plain", "application/xml", "application/jsonp", "multipart/form-data", "json, json"],
)
def test_json_has_to_be_called_json(client: httpx.Client, media: str) -> None:
    assert assert_refused(client, QUERY, media) == "body"


def test_a_query_string_of_too_many_names_is_refused(client: httpx.Client) -> None:
    response = client.get("/api/query?" + "&".join(f"x{number}=1" for number in range(NAMES + 1)))
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "query")
