"""The simulator: its answers, its wire, its faults, and what the real cascade makes of it."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from app import runtime
from app.cascade.types import Query
from app.settings import Settings
from app.simulator import (
    LARGE,
    MODELS,
    SMALL,
    SimulatorConfig,
    create_simulator,
    running,
    shapes,
)
from app.simulator.mind import think
from tests.conftest import eventually, ledger_in_memory

INSTANT = SimulatorConfig(latency_scale=0)

ACCEPTED = (
    "What is AI?",
    "Explain AI",
    "Explain quantum computing",
    "Explain quantum computing in simple terms",
    "What is Python?",
    "What is the capital of France?",
    "What is 2+2?",
    "What is FastAPI?",
    "What is Kubernetes?",
    "What is a cascade?",
    "Write a Python function to reverse a string",
    "What do lighthouse keepers eat?",
    "[[drafter:good]] Should I sue my landlord?",
    "什么是人工智能",
)
REJECTED = (
    "Why is the sky blue?",
    "Compare Python and JavaScript",
    "Compare SQL and NoSQL databases",
    "What is the difference between SQL and NoSQL?",
    "Design a URL shortener",
    "Why do leaves change color in autumn?",
    "Should I sue my landlord?",
    "¿Por qué el cielo es azul?",
    "[[drafter:poor]] What is AI?",
    "What is AI? " + "And what is it not? " * 20,
)
DIRECT = (
    "Prove that the square root of 2 is irrational",
    "Design a scalable distributed microservices architecture for a payment system",
    "Analyze the implications of quantum computing for modern cryptography",
)


@pytest.fixture
def client(simulator_url: str) -> Iterator[httpx.Client]:
    """A client of the simulator itself."""
    with httpx.Client(base_url=simulator_url, timeout=5, trust_env=False) as opened:
        yield opened


def body(prompt: str, model: str = SMALL, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}


def ask(client: httpx.Client, prompt: str, model: str = SMALL, **fields: Any) -> Any:  # noqa: ANN401
    response = client.post("/chat/completions", json=body(prompt, model, **fields))
    assert response.status_code == 200, response.text
    return response.json()


def events(client: httpx.Client, prompt: str, model: str = SMALL, **fields: Any) -> list[str]:  # noqa: ANN401
    asked = body(prompt, model, stream=True, stream_options={"include_usage": True}, **fields)
    response = client.post("/chat/completions", json=asked)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    return [line[6:] for line in response.iter_lines() if line.startswith("data: ")]


# --- answers ---


def test_the_cascade_accepts_rejects_and_skips_drafts(
    make_settings: Callable[..., Settings],
) -> None:
    async def outcomes() -> dict[str, str]:
        settings = make_settings()
        models, ledger = runtime.configure(settings), ledger_in_memory(Decimal(100))
        async with runtime.running(settings, models, ledger) as engine:
            answers = await asyncio.gather(*(engine.ask(Query.ask(p)) for p in expected))
        assert {answer.finish_reason for answer in answers if answer.draft_accepted} == {"stop"}
        return dict(zip(expected, (answer.outcome for answer in answers), strict=True))

    expected = {
        **dict.fromkeys(ACCEPTED, "accepted"),
        **dict.fromkeys(REJECTED, "rejected"),
        **dict.fromkeys(DIRECT, "direct"),
    }
    assert asyncio.run(outcomes()) == expected


def test_the_large_model_answers_what_it_is_asked() -> None:
    for prompt, word in {
        "What is the capital of France?": "Paris",
        "Explain, please: black holes": "light",
        "Why is the sky blue?": "Rayleigh",
        "Prove that the square root of 2 is irrational": "fraction",
    }.items():
        assert word in think(prompt, strong=True).text


def test_a_prompt_does_not_get_the_answer_to_another() -> None:
    for prompt in (
        "Who maintains the lighthouse of Bell Rock?",
        "Parse JSON in Python",
        "Reverse a string in Rust",
        "Why is the sky dark?",
        "日本の首都はどこ",
        "🙂",
    ):
        text = think(prompt, strong=True).text
        assert prompt in text
        assert "simulator" in text


def test_at_most_200_characters_of_a_prompt_come_back() -> None:
    prompt = "".join(f"quagga{number} " for number in range(300))
    for strong in (False, True):
        assert think(prompt, strong=strong).text.count("quagga") < 20


def test_a_long_prompt_is_answered_quickly() -> None:
    for unit in ("combine with ", "a", "1", "{", "[[", "🙂", "中", "what is ", "\n", "2+"):
        began = time.process_time()
        for strong in (False, True):
            think((unit * 20_000)[:20_000], strong=strong)
        assert time.process_time() - began < 0.1


# --- the wire ---


def test_the_same_request_always_gets_the_same_answer(client: httpx.Client) -> None:
    for model in MODELS:
        first, second = (ask(client, "What is AI?", model, logprobs=True) for _ in range(2))
        assert first["choices"] == second["choices"]
        assert first["usage"] == second["usage"]


@pytest.mark.parametrize("max_tokens", [7, 400])
def test_a_stream_carries_the_same_as_json(client: httpx.Client, max_tokens: int) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": max_tokens}
    whole = ask(client, "What is Kubernetes?", LARGE, **fields)
    *raw, done = events(client, "What is Kubernetes?", LARGE, **fields)
    *chunks, last, usage = [json.loads(event) for event in raw]
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    deltas = [chunk["choices"][0] for chunk in chunks]
    choice = whole["choices"][0]
    assert "".join(d["delta"]["content"] for d in deltas) == choice["message"]["content"]
    streamed = [entry for d in deltas if d["logprobs"] for entry in d["logprobs"]["content"]]
    assert streamed == choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in streamed) == choice["message"]["content"]
    assert last["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == len(streamed) <= max_tokens
    assert {chunk["id"] for chunk in chunks} == {whole["id"]}


def test_max_tokens_and_stop_cut_the_answer(client: httpx.Client) -> None:
    whole = ask(client, "What is Docker?")["choices"][0]
    assert whole["logprobs"] is None
    for name in ("max_tokens", "max_completion_tokens"):
        limit: dict[str, Any] = {name: 5}
        answer = ask(client, "What is Docker?", **limit)
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 5
        assert whole["message"]["content"].startswith(answer["choices"][0]["message"]["content"])
    choice = ask(client, "What is Docker?", stop=" tool")["choices"][0]
    assert choice["message"]["content"] == "Docker is a"
    assert choice["finish_reason"] == "stop"


def test_models_are_listed(client: httpx.Client) -> None:
    assert [model["id"] for model in client.get("/models").json()["data"]] == list(MODELS)


def test_content_parts_are_read_as_text(client: httpx.Client) -> None:
    asked = body("")
    asked["messages"] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
    ]
    answer = client.post("/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."


def test_a_bad_request_gets_an_openai_error(client: httpx.Client) -> None:
    for content, status in (
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"model": "simulator-small", "messages": []}', 400),
        (json.dumps(body("hi", max_tokens=0)).encode(), 400),
        (json.dumps(body("hi", "gpt-4o")).encode(), 404),
    ):
        response = client.post("/chat/completions", content=content)
        assert response.status_code == status
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"]


# --- faults ---


@pytest.mark.parametrize("stream", [False, True])
def test_a_directive_asks_for_a_status(client: httpx.Client, stream: bool) -> None:
    for status in (400, 401, 429, 500, 503, 599):
        asked = body(f"What is AI? [[drafter:{status}]]", stream=stream)
        response = client.post("/chat/completions", json=asked)
        assert response.status_code == status
        assert response.json()["error"]["message"]
        assert response.headers.get("retry-after") == ("1" if status == 429 else None)


def test_a_directive_is_for_its_role_and_the_last_one_counts(client: httpx.Client) -> None:
    plain = ask(client, "What is AI?", LARGE)["choices"]
    assert ask(client, "[[drafter:500]] What is AI? [[drafter:hang]]", LARGE)["choices"] == plain
    assert ask(client, "[[verifier:poor]][[Verifier:good]]What is AI?", LARGE)["choices"] == plain
    asked = body("[[both:500]] [[both:404]]", LARGE)
    assert client.post("/chat/completions", json=asked).status_code == 404


def test_faulty_json_answers(client: httpx.Client) -> None:
    def post(fault: str) -> httpx.Response:
        response = client.post("/chat/completions", json=body(f"[[both:{fault}]] What is AI?"))
        assert response.status_code == 200
        return response

    for fault in ("garbage", "html", "cut"):
        with pytest.raises(json.JSONDecodeError):
            post(fault).json()
    assert post("html").headers["content-type"].startswith("text/html")
    assert post("empty").json()["choices"][0]["message"]["content"] == ""
    assert "usage" not in post("nousage").json()
    assert post("nochoices").json()["choices"] == []


def test_faulty_streams(client: httpx.Client) -> None:
    def stream(fault: str) -> list[str]:
        return events(client, f"[[both:{fault}]] What is AI?")

    with pytest.raises(json.JSONDecodeError):
        json.loads(stream("garbage")[0])
    cut = [json.loads(event)["choices"][0] for event in stream("cut")]
    assert len(cut) == 5
    assert {choice["finish_reason"] for choice in cut} == {None}
    assert all(json.loads(event)["choices"] == [] for event in stream("nochoices")[:-1])
    assert all(json.loads(event)["usage"] is None for event in stream("nousage")[:-1])
    assert len(stream("empty")) == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["slow", "hang"])
def test_the_simulator_stops_when_the_client_leaves(
    client: httpx.Client, fault: str, stream: bool
) -> None:
    def counts() -> dict[str, int]:
        found: dict[str, int] = client.get("/simulator/stats").json()[LARGE]
        return found

    before = counts()
    asked = body(f"[[both:{fault}]] What is Python?", LARGE, stream=stream)
    timeout = httpx.Timeout(2, read=0.05)
    with pytest.raises(httpx.ReadTimeout), httpx.Client(trust_env=False, timeout=timeout) as own:
        own.post(f"{client.base_url}chat/completions", json=asked)
    assert eventually(lambda: counts()["cancelled"] == before["cancelled"] + 1)
    after = counts()
    assert after["in_flight"] == 0
    assert after["started"] == before["started"] + 1
    assert after["finished"] == before["finished"]


# --- running ---


def test_latency_is_scaled() -> None:
    asked = body("What is the capital of France?", LARGE)
    with running(SimulatorConfig(latency_scale=0.2)) as base:
        began = time.monotonic()
        assert httpx.post(f"{base}/chat/completions", json=asked, trust_env=False).is_success
    assert 0.05 <= time.monotonic() - began < 1


def test_simulators_run_side_by_side_and_leave_nothing(
    logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("uvicorn.access", "uvicorn.error"):
        caplog.set_level(logging.DEBUG, logger=name)
    access = logging.getLogger("uvicorn.access")
    before = set(threading.enumerate()), access.level, list(access.handlers), access.propagate
    with running(INSTANT) as one, running(INSTANT) as two:
        assert one != two
        for base in (one, two):
            httpx.post(f"{base}/chat/completions", json=body("hi"), trust_env=False)
            stats = httpx.get(f"{base}/simulator/stats", trust_env=False).json()
            assert stats[SMALL] == {"started": 1, "finished": 1, "cancelled": 0, "in_flight": 0}
    after = set(threading.enumerate()), access.level, list(access.handlers), access.propagate
    assert after == before
    assert [line for line in logged if "uvicorn" in line] == []


def test_it_stops_quickly_and_silently_under_hanging_requests(logged: list[str]) -> None:
    with running(INSTANT) as base:
        address = httpx.URL(base)
        with socket.create_connection((address.host, address.port)) as hanging:
            content = json.dumps(body("[[both:hang]]"))
            hanging.sendall(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: simulator\r\n"
                f"content-length: {len(content)}\r\n\r\n{content}".encode()
            )
            stats = f"{base}/simulator/stats"
            assert eventually(
                lambda: httpx.get(stats, trust_env=False).json()[SMALL]["in_flight"] == 1
            )
            began = time.monotonic()
    assert time.monotonic() - began < 0.5
    assert [line for line in logged if "uvicorn" in line or "asyncio" in line] == []


def test_the_application_works_without_a_socket() -> None:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(create_simulator(INSTANT))
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator/v1") as own:
            return await own.post("/chat/completions", json=body("hi"))

    assert asyncio.run(post()).status_code == 200


# --- tools and schemas ----------------------------------------------------------------------------

BOOK = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "pages": {"type": "integer", "minimum": 10},
        "kind": {"enum": ["novel", "poem"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "sequel": {"anyOf": [{"$ref": "#/$defs/sequel"}, {"type": "null"}]},
        "printed": {"type": ["boolean", "null"]},
    },
    "$defs": {"sequel": {"type": "object", "properties": {"again": {"$ref": "#/$defs/sequel"}}}},
}
FIND = {"type": "function", "function": {"name": "find_book", "parameters": BOOK}}
OTHER = {"type": "function", "function": {"name": "set_alarm", "description": "Rings"}}


def test_a_schema_is_filled_with_an_example() -> None:
    found: Any = shapes.example(BOOK, "Which book did Ada write?")
    assert found["title"] == "Ada"
    assert (found["pages"], found["kind"], found["printed"]) == (10, "novel", True)
    assert found["tags"] == ["Ada", "Ada"]
    assert json.dumps(found["sequel"]).count("again") < 10


@pytest.mark.parametrize(
    ("choice", "question", "name"),
    [
        (None, "Which book is it?", "find_book"),
        ("auto", "Wake me, set an ALARM", "set_alarm"),
        ("auto", "Hello", None),
        ("none", "Which book is it?", None),
        ("required", "Hello", "find_book"),
        ({"type": "function", "function": {"name": "set_alarm"}}, "Which book?", "set_alarm"),
    ],
)
def test_a_tool_is_called_where_it_is_meant(
    choice: object, question: str, name: str | None
) -> None:
    called = shapes.call([FIND, OTHER], choice, question)
    assert (called.name if called else None) == name


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ({"type": "json_object"}, {"answer"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": BOOK}}, BOOK["properties"]),
    ],
)
def test_structured_answers_are_json(asked: dict[str, Any], keys: dict[str, Any]) -> None:
    assert json.loads(shapes.structured(asked, "Ada?") or "").keys() == set(keys)
    assert shapes.structured({"type": "text"}, "Ada?") is None
