"""`/v1/embeddings`: where `cascade.toml` names a model for it."""

import asyncio
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.conftest import (
    Answering,
    Serve,
    Stub,
    answer_json,
    cascade_toml,
    eventually,
    post_and_leave,
)

PATH = "/v1/embeddings"
NOBODY = "http://127.0.0.1:1/v1"
VECTORS = {
    "object": "list",
    # Any order will do: each has its index.
    "data": [{"index": 1, "embedding": [0.5, -1.0]}, {"index": 0, "embedding": "AACAPw=="}],
    "usage": {"prompt_tokens": 10, "total_tokens": 10},
}
ASKED = {"model": "tiny", "input": ["What is AI?", "Who is Ada?"]}


def with_embeddings(url: str, **changes: str) -> str:
    """`cascade.toml` with a model for embeddings."""
    table = {
        "provider": '"openai"',
        "endpoint": f'"{url}"',
        "input_price": "1000.0",
        "output_price": "0",
        "context": "100",
        **changes,
    }
    lines = "\n".join(f"{name} = {value}" for name, value in table.items())
    model = f'[embeddings]\nmodel = "tiny"\n\n[models.tiny]\n{lines}\n'
    return f"{cascade_toml(NOBODY, NOBODY)}\n{model}"


@pytest.fixture
def embedding(
    stub: Callable[[Answering], Stub], serve: Serve, tmp_path: Path
) -> Callable[..., tuple[httpx.Client, Stub]]:
    """A service whose model for embeddings answers so; keywords change settings."""

    def start(answering: Answering, **changes: Any) -> tuple[httpx.Client, Stub]:  # noqa: ANN401
        upstream = stub(answering)
        path = tmp_path / "cascade.toml"
        path.write_text(with_embeddings(upstream.url), encoding="utf-8")
        return serve(cascade_file=path, **changes), upstream

    return start


Start = Callable[..., tuple[httpx.Client, Stub]]


def test_each_text_has_its_vector(embedding: Start) -> None:
    client, upstream = embedding(answer_json(VECTORS))
    asked = {**ASKED, "encoding_format": "base64", "dimensions": 2, "user": "ann"}
    answer = client.post(PATH, json=asked).json()
    assert [each["embedding"] for each in answer["data"]] == ["AACAPw==", [0.5, -1.0]]
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    (received,) = upstream.received
    assert received.path == "/v1/embeddings"
    sent = {"encoding_format": "base64", "dimensions": 2}
    assert received.body == {"model": "tiny", "input": ASKED["input"], **sent}


def test_a_single_text_is_one(embedding: Start) -> None:
    client, _ = embedding(answer_json({"data": [{"index": 0, "embedding": [1.0]}]}))
    answer = client.post(PATH, json={"model": "tiny", "input": "What is AI?"}).json()
    assert [each["embedding"] for each in answer["data"]] == [[1.0]]
    assert answer["usage"]["prompt_tokens"] > 0


def test_it_is_listed_with_the_models(embedding: Start) -> None:
    client, _ = embedding(answer_json(VECTORS))
    assert client.get("/v1/models").json()["data"][-1]["id"] == "tiny"


def test_it_is_in_the_books(embedding: Start) -> None:
    client, _ = embedding(answer_json(VECTORS))
    cost = client.post(PATH, json=ASKED).json()["cascade"]["cost"]
    assert math.isclose(cost, 0.01)
    stats = client.get("/api/stats").json()
    assert (stats["total_queries"], stats["total_cost"]) == (1, cost)


def test_the_budget_holds(embedding: Start) -> None:
    client, upstream = embedding(answer_json(VECTORS), daily_budget="0.001")
    response = client.post(PATH, json=ASKED)
    assert (response.status_code, response.json()["error"]["code"]) == (402, "budget_exceeded")
    assert not upstream.received


def test_the_budget_covers_the_marks_around_each_text(embedding: Start) -> None:
    """A letter and two marks are 3 tokens, 0.003 dollars."""
    client, upstream = embedding(answer_json(VECTORS), daily_budget="0.002")
    response = client.post(PATH, json={**ASKED, "input": ["a"]})
    assert (response.status_code, response.json()["error"]["code"]) == (402, "budget_exceeded")
    assert not upstream.received


@pytest.mark.parametrize(
    ("answering", "status", "code"),
    [
        (answer_json({}, 500), 502, "upstream_error"),
        (answer_json({}, 401), 502, "upstream_error"),
        (answer_json({}, 429, **{"Retry-After": "7"}), 503, "upstream_overloaded"),
        (answer_json({"data": []}), 502, "upstream_error"),
        (answer_json("<html>"), 502, "upstream_error"),
    ],
)
def test_a_fault_is_told_and_costs_nothing(
    embedding: Start, answering: Answering, status: int, code: str
) -> None:
    client, _ = embedding(answering)
    response = client.post(PATH, json=ASKED)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    stats = client.get("/api/stats").json()
    assert (stats["outcomes"], stats["total_cost"]) == ({"failed": 1}, 0)


def test_a_fault_that_passes_is_tried_again(embedding: Start) -> None:
    answers = iter([answer_json({}, 500), answer_json(VECTORS)])

    async def answer(request: web.Request) -> web.StreamResponse:
        return await next(answers)(request)

    client, _ = embedding(answer, upstream_attempts=2)
    assert client.post(PATH, json=ASKED).status_code == 200


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(20)
    raise NotImplementedError


def test_a_deadline_ends_it(embedding: Start) -> None:
    client, _ = embedding(hang)
    response = client.post(PATH, json=ASKED, headers={"X-Request-Deadline": "0.1"})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")


def test_a_client_that_leaves_ends_it(embedding: Start) -> None:
    asked = threading.Event()

    async def working(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await hang(request)

    client, _ = embedding(working)
    post_and_leave(client, PATH, ASKED, asked)
    # Who asks too often is refused.
    told = {"cancelled": 1}
    assert eventually(lambda: client.get("/api/stats").json()["outcomes"] == told, pause=0.6)


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", [], "input"),
        ("input", "", "input"),
        ("input", ["a", ""], "input"),
        ("input", [[1, 2]], "input"),
        ("input", ["x"] * 101, "input"),
        ("input", "x" * 2001, "input"),
        ("input", "\ud800", "input"),
        ("dimensions", 0, "dimensions"),
        ("encoding_format", "hex", "encoding_format"),
        ("other", 1, "other"),
    ],
)
def test_an_impossible_value_is_refused_by_its_field(
    embedding: Start, field: str, value: object, param: str
) -> None:
    client, upstream = embedding(answer_json(VECTORS))
    content = json.dumps({**ASKED, field: value})
    response = client.post(PATH, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(param)
    assert not upstream.received


def test_a_text_beyond_the_models_context_is_refused(embedding: Start) -> None:
    client, _ = embedding(answer_json(VECTORS))
    response = client.post(PATH, json={"model": "tiny", "input": "one two three " * 50})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "context_exceeded")


def test_another_model_makes_none(embedding: Start) -> None:
    client, _ = embedding(answer_json(VECTORS))
    response = client.post(PATH, json={**ASKED, "model": "cascade"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_without_a_model_for_it_that_is_said(client: httpx.Client) -> None:
    response = client.post(PATH, json=ASKED)
    assert response.status_code == 404
    assert "[embeddings] of cascade.toml" in response.json()["error"]["message"]
