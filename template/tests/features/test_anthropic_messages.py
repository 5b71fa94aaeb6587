"""`/v1/messages`: what a client of Anthropic's Messages API sends and gets."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.conftest import (
    ACCEPTED,
    DIRECT,
    REJECTED,
    Answering,
    Leave,
    Serve,
    Stub,
    answer_json,
    cascade_toml,
    eventually,
    key_and_entry,
    speak,
)

PATH = "/v1/messages"
JSON = {"Content-Type": "application/json"}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def body(text: str, **fields: object) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}]
    return {"model": "cascade", "max_tokens": 1000, "messages": turns, **fields}


def ask(client: httpx.Client, text: str, **fields: object) -> dict[str, Any]:
    response = client.post(PATH, json=body(text, **fields))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def stream(client: httpx.Client, text: str, **fields: object) -> list[dict[str, Any]]:
    """The data of each event, whose name is its type."""
    with client.stream("POST", PATH, json=body(text, stream=True, **fields)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["request-id"] == response.headers["x-request-id"]
        written = response.read().decode()
    events = []
    for event in written.removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The types of a stream's events, many of the same as one."""
    types = [event["type"] for event in events]
    return [kind for kind, before in zip(types, ["", *types], strict=False) if kind != before]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"].get("text", "") for event in events if "delta" in event)


def whole(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client puts together."""
    message: dict[str, Any] = events[0]["message"]
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
                written = ""
            case "content_block_delta" if event["delta"]["type"] == "text_delta":
                message["content"][event["index"]]["text"] += event["delta"]["text"]
            case "content_block_delta":
                written += event["delta"]["partial_json"]
                message["content"][event["index"]]["input"] = json.loads(written)
            case "message_delta":
                message |= {**event["delta"], "usage": event["usage"], "cascade": event["cascade"]}
    return message


def assert_refused(response: httpx.Response, status: int, kind: str) -> str:
    """An error as Anthropic's clients know it; returns what it says."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"type", "error"}
    assert response.json()["type"] == "error"
    error: dict[str, str] = response.json()["error"]
    assert set(error) == {"type", "message"}
    assert error["type"] == kind
    assert response.headers["request-id"] == response.headers["x-request-id"]
    return error["message"]


@pytest.fixture
def between(
    serve: Serve, stub: Callable[[Answering], Stub], tmp_path: Path
) -> Callable[[Answering, Answering], tuple[httpx.Client, Stub, Stub]]:
    """A service between two models that answer so."""

    def start(drafts: Answering, verifies: Answering) -> tuple[httpx.Client, Stub, Stub]:
        drafter, verifier = stub(drafts), stub(verifies)
        path = tmp_path / "cascade.toml"
        path.write_text(cascade_toml(drafter.url, verifier.url), encoding="utf-8")
        return serve(cascade_file=path), drafter, verifier

    return start


Between = Callable[[Answering, Answering], tuple[httpx.Client, Stub, Stub]]


def asked_of_the_verifier(between: Between, **fields: object) -> dict[str, Any]:
    """What goes upstream of a request."""
    client, _, verifier = between(speak("Paris."), speak("Paris."))
    ask(client, "Capital of France?", model="simulator-large", **fields)
    (received,) = verifier.received
    return received.body


def calling(name: str, arguments: str, finish: str = "tool_calls") -> Answering:
    """A model that wants a function called."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}

    async def answer(request: web.Request) -> web.StreamResponse:
        said = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}
        choice = {"index": 0, "message": said, "delta": said, "finish_reason": finish}
        text = json.dumps({"choices": [choice]})
        streamed = (await request.json()).get("stream")
        return web.Response(text=f"data: {text}\n\ndata: [DONE]\n\n" if streamed else text)

    return answer


# --- answers --------------------------------------------------------------------------------------


def test_a_message_has_anthropics_shape(client: httpx.Client) -> None:
    message = ask(client, ACCEPTED)
    assert message["id"].startswith("msg_")
    fixed = {"type": "message", "role": "assistant", "model": "cascade", "stop_sequence": None}
    assert fixed.items() <= message.items()
    assert message["stop_reason"] == "end_turn"
    (block,) = message["content"]
    assert block["type"] == "text"
    assert block["text"].startswith("AI")


def test_usage_is_that_of_all_calls(client: httpx.Client) -> None:
    accepted, rejected = ask(client, ACCEPTED)["usage"], ask(client, REJECTED)["usage"]
    assert rejected["input_tokens"] > accepted["input_tokens"] > 0
    assert accepted["output_tokens"] > 0


def test_tokens_read_from_a_cache_are_counted_apart(between: Between) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 80},
    }
    said = {"message": {"content": "Paris."}, "finish_reason": "stop"}
    answering = answer_json({"choices": [said], "usage": usage})
    client, _, _ = between(answering, answering)
    assert ask(client, "Capital?", model="simulator-large")["usage"] == {
        "input_tokens": 20,
        "cache_read_input_tokens": 80,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
    }


def test_the_cascade_decides(client: httpx.Client) -> None:
    used = [ask(client, text)["cascade"]["model_used"] for text in (ACCEPTED, REJECTED, DIRECT)]
    assert used == ["simulator-small", "simulator-large", "simulator-large"]


@pytest.mark.parametrize("name", ["simulator-small", "simulator-large"])
def test_a_models_own_name_asks_it_directly(client: httpx.Client, name: str) -> None:
    facts = ask(client, ACCEPTED, model=name)["cascade"]
    assert (facts["model_used"], facts["cascaded"]) == (name, False)


@pytest.mark.parametrize("text", [ACCEPTED, REJECTED, DIRECT])
def test_what_the_cascade_did_is_in_the_headers_too(client: httpx.Client, text: str) -> None:
    response = client.post(PATH, json=body(text))
    facts, headers = response.json()["cascade"], response.headers
    assert headers["x-cascade-model"] == facts["model_used"]
    assert headers["x-cascade-outcome"] == facts["outcome"]
    assert float(headers["x-cascade-cost"]) == facts["cost"]
    assert float(headers["x-cascade-saved"]) == facts["saved"]


def test_an_answer_has_the_requests_id(client: httpx.Client) -> None:
    response = client.post(PATH, json=body(ACCEPTED), headers={"X-Request-ID": "mine-1"})
    assert response.headers["request-id"] == "mine-1"


def test_max_tokens_cuts_the_answer_and_says_so(client: httpx.Client) -> None:
    message = ask(client, DIRECT, max_tokens=3)
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 3


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("content_filter", "refusal"), ("refusal", "refusal"), ("eos", "end_turn")],
)
def test_why_an_answer_stops_is_told_in_anthropics_words(
    between: Between, finish: str, reason: str
) -> None:
    said = {"message": {"content": "No."}, "finish_reason": finish}
    client, _, _ = between(answer_json({"choices": [said]}), answer_json({"choices": [said]}))
    assert ask(client, "hi", model="simulator-large")["stop_reason"] == reason


def test_answers_are_in_the_books(serve: Serve) -> None:
    client = serve()
    cost = ask(client, ACCEPTED)["cascade"]["cost"]
    stats = client.get("/api/stats").json()
    assert stats["total_queries"] == 1
    assert math.isclose(stats["total_cost"], cost)


def test_a_conversation_reaches_the_model_as_it_is(between: Between) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "system", "content": "Be quick."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Capital "},
                {"type": "text", "text": "of France?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    sent = asked_of_the_verifier(
        between,
        messages=turns,
        system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
        max_tokens=50,
        temperature=0.3,
        top_p=0.5,
        stop_sequences=["#"],
        metadata={"user_id": "ann"},
        cache_control={"type": "ephemeral"},
    )
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "system", "content": "Be quick."},
        {"role": "user", "content": "Capital of France?"},
    ]
    assert {"temperature": 0.3, "top_p": 0.5, "stop": ["#"]}.items() <= sent.items()
    assert not {"metadata", "cache_control"} & set(sent)


def test_a_system_prompt_may_be_a_text(between: Between) -> None:
    sent = asked_of_the_verifier(between, system="Be brief.")
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ACCEPTED, REJECTED, DIRECT])
def test_a_stream_says_what_a_message_says(client: httpx.Client, text: str) -> None:
    streamed, answered = whole(stream(client, text)), ask(client, text)
    assert {**streamed, "id": ""} == {**answered, "id": ""}


def test_a_stream_has_anthropics_events(client: httpx.Client) -> None:
    events = stream(client, ACCEPTED)
    assert kinds(events) == [
        *("message_start", "ping", "content_block_start", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None


def test_a_rejected_draft_never_reaches_the_client(client: httpx.Client) -> None:
    events = stream(client, REJECTED)
    assert "not sure" not in json.dumps(events)
    assert "know" not in text_of(events)
    assert kinds(events).count("content_block_start") == 1
    assert events[-2]["cascade"]["draft_accepted"] is False


def test_a_stream_that_fails_ends_with_an_error(client: httpx.Client) -> None:
    events = stream(client, "[[both:500]] hi")
    assert kinds(events) == ["message_start", "ping", "error"]
    assert events[-1]["error"]["type"] == "api_error"
    assert "gave no answer" in events[-1]["error"]["message"]


def test_a_client_that_leaves_a_stream_is_in_the_books(serve: Serve) -> None:
    client = serve()
    asked = body("[[both:slow]] What is AI?", stream=True)
    with client.stream("POST", PATH, json=asked) as response:
        next(response.iter_lines())
    # Who asks too often is refused.
    told = {"cancelled": 1}
    assert eventually(lambda: client.get("/api/stats").json()["outcomes"] == told, pause=0.6)


def test_a_client_that_leaves_takes_its_upstream_request_with_it(leave: Leave) -> None:
    left = leave(PATH, body(ACCEPTED))
    assert left.seconds < 1
    told = {"cancelled": 1}
    assert eventually(lambda: left.client.get("/api/stats").json()["outcomes"] == told, pause=0.6)


# --- tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("drafted", "city"),
    [
        (("get_weather", '{"city": "Paris"}'), "Paris"),
        (("get_whether", '{"town": 1}'), "Lyon"),
        (("get_weather", "not JSON"), "Lyon"),
    ],
)
def test_a_tool_use_is_drafted_judged_and_replaced_like_any_answer(
    between: Between, drafted: tuple[str, str], city: str, streamed: bool
) -> None:
    client, drafter, _ = between(calling(*drafted), calling("get_weather", '{"city": "Lyon"}'))
    asked: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "auto"}}
    if streamed:
        message = whole(stream(client, "Weather?", **asked))
    else:
        message = ask(client, "Weather?", **asked)
    assert message["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": city}}
    ]
    assert message["stop_reason"] == "tool_use"
    function = {
        "name": WEATHER["name"],
        "description": WEATHER["description"],
        "parameters": WEATHER["input_schema"],
    }
    assert drafter.received[0].body["tools"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("tool_calls", "tool_use"), ("stop", "tool_use"), ("length", "max_tokens")],
)
def test_a_tool_use_is_why_an_answer_stops(between: Between, finish: str, reason: str) -> None:
    answering = calling("get_weather", '{"city": "Paris"}', finish)
    client, _, _ = between(answering, answering)
    message = ask(client, "Weather?", model="simulator-large", tools=[WEATHER])
    assert message["stop_reason"] == reason


def test_arguments_that_are_no_object_are_an_empty_one(between: Between) -> None:
    client, _, _ = between(calling("get_weather", "5"), calling("get_weather", "5"))
    for message in (
        ask(client, "Weather?", model="simulator-large", tools=[WEATHER]),
        whole(stream(client, "Weather?", model="simulator-large", tools=[WEATHER])),
    ):
        assert message["content"][0]["input"] == {}


def test_what_tools_returned_goes_upstream(between: Between) -> None:
    uses = [
        {"type": "tool_use", "id": f"toolu_{city}", "name": "get_weather", "input": {"city": city}}
        for city in ("Paris", "Lyon")
    ]
    results: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": "toolu_Paris", "content": "rain"},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_Lyon",
            "content": [{"type": "text", "text": "no such city"}],
            "is_error": True,
        },
    ]
    turns = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, *uses]},
        {"role": "user", "content": [*results, {"type": "text", "text": "And?"}]},
    ]
    sent = asked_of_the_verifier(between, messages=turns, tools=[WEATHER])["messages"]
    assert sent[1]["content"] == "I look."
    calls = [
        (call["id"], json.loads(call["function"]["arguments"])) for call in sent[1]["tool_calls"]
    ]
    assert calls == [("toolu_Paris", {"city": "Paris"}), ("toolu_Lyon", {"city": "Lyon"})]
    assert sent[2:] == [
        {"role": "tool", "tool_call_id": "toolu_Paris", "content": "rain"},
        {"role": "tool", "tool_call_id": "toolu_Lyon", "content": "no such city"},
        {"role": "user", "content": "And?"},
    ]


def test_a_turn_may_be_what_a_tool_returned_alone(client: httpx.Client) -> None:
    asked = ask(client, "What is the weather in Paris?", tools=[WEATHER])
    (use,) = asked["content"]
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "21 degrees"}
    turns = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": asked["content"]},
        {"role": "user", "content": [result]},
    ]
    told = ask(client, "", messages=turns, tools=[WEATHER])
    assert "21 degrees" in told["content"][0]["text"]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "get_weather"},
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        ),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
    ],
)
def test_the_choice_of_tools_goes_upstream(
    between: Between, choice: dict[str, object], sent: dict[str, object]
) -> None:
    found = asked_of_the_verifier(between, tools=[WEATHER], tool_choice=choice)
    assert sent.items() <= found.items()


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("messages", [], "messages"),
        ("messages", [{"role": "user"}], "messages.0.content"),
        ("messages", [{"role": "robot", "content": "x"}], "messages.0"),
        ("messages", [{"role": "user", "content": 5}], "messages.0.content"),
        ("messages", [{"role": "user", "content": "\ud800"}], "messages.0.content"),
        ("messages", [{"role": "user", "content": [{"type": "image"}]}], "messages.0.content.0"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages.0.content.0.text",
        ),
        (
            "messages",
            [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "x"}]}],
            "messages.0.content.0.input",
        ),
        (
            "messages",
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image"}]}
                    ],
                }
            ],
            "messages.0.content.0.content.0.type",
        ),
        ("max_tokens", None, "max_tokens"),
        ("max_tokens", 4001, "max_tokens"),
        ("temperature", 1.5, "temperature"),
        ("temperature", math.nan, "temperature"),
        ("top_p", 0, "top_p"),
        ("top_k", 5, "top_k"),
        ("thinking", {"type": "enabled", "budget_tokens": 1024}, "thinking"),
        ("stop_sequences", ["a", "b", "c", "d", "e"], "stop_sequences"),
        ("stop_sequences", ["\ud800"], "stop_sequences"),
        ("system", [{"type": "image"}], "system.0.type"),
        ("tools", [{"type": "web_search_20250305", "name": "web_search"}], "tools.0.input_schema"),
        ("tools", [{**WEATHER, "type": "bash_20250124"}], "tools.0.type"),
        ("tools", [{**WEATHER, "input_schema": {"required": 5}}], "tools.0.input_schema"),
        ("tool_choice", {"type": "tool"}, "tool_choice"),
        ("tool_choice", {"type": "auto", "name": "get_weather"}, "tool_choice"),
        ("stream", "yes", "stream"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_not_supported_is_refused_by_its_field(
    client: httpx.Client, field: str, value: object, place: str, streamed: bool
) -> None:
    content = json.dumps({**body("hi", stream=streamed), field: value})
    response = client.post(PATH, content=content, headers=JSON)
    assert assert_refused(response, 400, "invalid_request_error").startswith(f"{place}: ")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"model": "\xff"}', b'{"model":1,"model":2}'])
def test_a_body_that_cannot_be_read_is_refused(client: httpx.Client, content: bytes) -> None:
    assert_refused(client.post(PATH, content=content, headers=JSON), 400, "invalid_request_error")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
    ],
)
def test_the_last_word_must_be_the_users(
    client: httpx.Client, messages: list[dict[str, str]]
) -> None:
    response = client.post(PATH, json=body("", messages=messages))
    assert_refused(response, 400, "invalid_request_error")


def test_a_conversation_has_a_longest_length(serve: Serve) -> None:
    response = serve(max_query_chars=10).post(PATH, json=body("x" * 6, system="y" * 6))
    assert assert_refused(response, 400, "invalid_request_error").startswith("messages: ")


def test_the_first_bad_block_is_told_and_no_other(client: httpx.Client) -> None:
    turns = [{"role": "user", "content": [1] * 100_000}]
    response = client.post(PATH, json=body("", messages=turns))
    assert ".1" not in assert_refused(response, 400, "invalid_request_error")


def test_an_unknown_model_is_a_404(client: httpx.Client) -> None:
    assert_refused(client.post(PATH, json=body("hi", model="claude")), 404, "not_found_error")


def test_models_are_named_by_those_who_may(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRECT_MODELS", "off")
    asked = body(ACCEPTED, model="simulator-large")
    assert_refused(serve().post(PATH, json=asked), 404, "not_found_error")


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_a_key_comes_as_anthropics_clients_send_it(serve: Serve, header: str) -> None:
    key, entry = key_and_entry("ann")
    client = serve(api_keys=entry)
    assert_refused(client.post(PATH, json=body("hi")), 401, "authentication_error")
    given = {header: key if header == "x-api-key" else f"Bearer {key}"}
    assert client.post(PATH, json=body(ACCEPTED), headers=given).status_code == 200


def test_a_body_over_the_limit_is_a_413(serve: Serve) -> None:
    client = serve(max_body_bytes=100)
    assert_refused(client.post(PATH, json=body("x" * 200)), 413, "request_too_large")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_message_is_paid_by_its_key(serve: Serve, streamed: bool) -> None:
    key, entry = key_and_entry("ann")
    client = serve(api_keys=entry, key_daily_budget="0.0001")
    response = client.post(PATH, json=body("hi", stream=streamed), headers={"x-api-key": key})
    assert "this key's budget" in assert_refused(response, 402, "billing_error")


@pytest.mark.parametrize(
    ("fault", "status", "kind"), [("500", 502, "api_error"), ("429", 503, "overloaded_error")]
)
def test_a_fault_of_both_models_is_told(
    client: httpx.Client, fault: str, status: int, kind: str
) -> None:
    assert_refused(client.post(PATH, json=body(f"[[both:{fault}]] hi")), status, kind)


def test_a_deadline_ends_it(client: httpx.Client) -> None:
    asked = body("[[both:hang]] hi")
    response = client.post(PATH, json=asked, headers={"X-Request-Deadline": "0.1"})
    assert_refused(response, 504, "timeout_error")


def test_errors_are_documented_in_anthropics_shape(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    errors = document["paths"][PATH]["post"]["responses"]["4XX"]["content"]
    documented = {name: body["schema"]["$ref"].rpartition("/")[2] for name, body in errors.items()}
    # What reaches no route is answered as everywhere.
    assert documented == {
        "application/json": "MessagesErrorBody",
        "application/problem+json": "ProblemDetail",
    }
