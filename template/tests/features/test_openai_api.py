"""`/v1`: what an OpenAI client sends and gets."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from app.features.openai_api.requests import ChatRequest
from app.http.keys import KeyRole
from tests.conftest import (
    ACCEPTED,
    DIRECT,
    REJECTED,
    Answering,
    Serve,
    Stub,
    answer_json,
    cascade_toml,
    eventually,
    key_and_entry,
    speak,
)

PATH = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def body(text: str, **fields: object) -> dict[str, Any]:
    return {"model": "cascade", "messages": [{"role": "user", "content": text}], **fields}


def ask(client: httpx.Client, text: str, **fields: object) -> dict[str, Any]:
    response = client.post(PATH, json=body(text, **fields))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def stream(client: httpx.Client, text: str, **fields: object) -> list[str]:
    """The `data` of each event."""
    with client.stream("POST", PATH, json=body(text, stream=True, **fields)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line[6:] for line in response.iter_lines() if line.startswith("data: ")]


def text_of(events: list[str]) -> str:
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    return "".join(
        choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]
    )


def assert_refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """An error as OpenAI's clients know it; returns it."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


# --- answers --------------------------------------------------------------------------------------


def test_a_completion_has_openais_shape(client: httpx.Client) -> None:
    completion = ask(client, ACCEPTED)
    assert completion["id"].startswith("chatcmpl-")
    assert completion["object"] == "chat.completion"
    assert completion["model"] == "cascade"
    assert isinstance(completion["created"], int)
    (choice,) = completion["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].startswith("AI")
    assert choice["finish_reason"] == "stop"


def test_usage_is_that_of_all_calls(client: httpx.Client) -> None:
    accepted, rejected = ask(client, ACCEPTED)["usage"], ask(client, REJECTED)["usage"]
    assert accepted["total_tokens"] == accepted["prompt_tokens"] + accepted["completion_tokens"]
    assert rejected["prompt_tokens"] > accepted["prompt_tokens"]


def test_the_cascade_decides(client: httpx.Client) -> None:
    used = [ask(client, text)["cascade"]["model_used"] for text in (ACCEPTED, REJECTED, DIRECT)]
    assert used == ["simulator-small", "simulator-large", "simulator-large"]


def test_the_verifiers_own_name_asks_it_directly(client: httpx.Client) -> None:
    facts = ask(client, ACCEPTED, model="simulator-large")["cascade"]
    assert (facts["model_used"], facts["cascaded"]) == ("simulator-large", False)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_drafters_own_name_asks_it_and_nobody_judges(
    serve: Serve, stub: Callable[[Answering], Stub], tmp_path: Path, streamed: bool
) -> None:
    drafter, verifier = stub(speak("I don't know, maybe.")), stub(speak("Unasked."))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(drafter.url, verifier.url), encoding="utf-8")
    client = serve(cascade_file=path)
    if streamed:
        events = stream(client, ACCEPTED, model="simulator-small")
        said, facts = text_of(events), json.loads(events[-2])["cascade"]
    else:
        answer = ask(client, ACCEPTED, model="simulator-small")
        said, facts = answer["choices"][0]["message"]["content"], answer["cascade"]
    assert said == "I don't know, maybe."
    assert (facts["outcome"], facts["cascaded"], facts["draft_accepted"]) == ("direct", False, None)
    assert (facts["model_used"], facts["saved"]) == ("simulator-small", 0)
    assert not verifier.received


def test_a_model_that_is_asked_alone_fails_alone(client: httpx.Client) -> None:
    asked = body("[[drafter:500]] hi", model="simulator-small")
    message = assert_refused(client.post(PATH, json=asked), 502)["message"]
    assert message.startswith("The model simulator-small gave no answer")


@pytest.mark.parametrize(
    ("rule", "role", "names"),
    [
        ("use", "use", 3),
        ("admin", "use", 1),
        ("admin", "admin", 3),
        ("off", "admin", 1),
    ],
)
def test_models_are_named_by_those_who_may(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, rule: str, role: KeyRole, names: int
) -> None:
    monkeypatch.setenv("DIRECT_MODELS", rule)
    key, entry = key_and_entry("ann", role)
    client = serve(api_keys=entry)
    client.headers["Authorization"] = f"Bearer {key}"
    listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert len(listed) == names
    for model in ("cascade", "simulator-large", "simulator-small"):
        response = client.post(PATH, json=body(ACCEPTED, model=model))
        assert response.status_code == (200 if model in listed else 404)


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
    assert response.headers["x-request-id"] == "mine-1"
    assert client.post(PATH, json=body("x", n=2)).headers["x-request-id"]


@pytest.mark.parametrize("text", [ACCEPTED, REJECTED, DIRECT])
def test_probabilities_are_those_of_the_text(client: httpx.Client, text: str) -> None:
    (choice,) = ask(client, text, logprobs=True)["choices"]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert all(bytes(entry["bytes"]).decode() == entry["token"] for entry in entries)
    assert all(entry["logprob"] < 0 for entry in entries)
    events = stream(client, text, logprobs=True)
    found = [c.get("logprobs") for event in events[:-1] for c in json.loads(event)["choices"]]
    assert [each["content"] for each in found if each] == [entries]


def test_probabilities_are_left_out_unless_asked_for(client: httpx.Client) -> None:
    assert ask(client, ACCEPTED)["choices"][0]["logprobs"] is None
    assert not any("logprobs" in event for event in stream(client, ACCEPTED))


def test_probabilities_that_no_model_gives_are_none(
    serve: Serve, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    upstream = stub(speak("AI is the field of building computer systems that do human tasks."))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    answer = ask(serve(cascade_file=path), ACCEPTED, logprobs=True)
    assert answer["choices"][0]["logprobs"] is None


def test_a_tool_can_be_tried_on_the_simulator(client: httpx.Client) -> None:
    asked: dict[str, Any] = {"tools": [WEATHER]}
    (choice,) = ask(client, "What is the weather in Paris?", **asked)["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_cuts_the_answer_and_says_so(client: httpx.Client, field: str) -> None:
    completion = ask(client, DIRECT, **{field: 3})
    assert completion["choices"][0]["finish_reason"] == "length"
    assert completion["usage"]["completion_tokens"] == 3


def test_null_is_the_same_as_a_field_that_is_not_there(client: httpx.Client) -> None:
    optional = set(ChatRequest.model_fields) - {"model", "messages"}
    assert ask(client, ACCEPTED, **dict.fromkeys(optional))["cascade"]["outcome"] == "accepted"


def test_content_may_come_in_parts(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "AI?"}]
    message = {"role": "user", "content": parts}
    answer = client.post(PATH, json={"model": "cascade", "messages": [message]}).json()
    assert answer["choices"] == ask(client, ACCEPTED)["choices"]


def test_a_conversation_reaches_the_model_as_it_is(
    serve: Serve, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    said: Any = {"message": {"content": "Paris."}, "finish_reason": "stop"}
    upstream = stub(answer_json({"choices": [said]}))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Capital of France?"},
    ]
    options = {"top_p": 0.5, "stop": ["x"], "seed": 7, "response_format": {"type": "text"}}
    meaningless = {
        "user": "ann",
        "metadata": {"team": "red"},
        "safety_identifier": "a1",
        "prompt_cache_key": "k",
        "store": False,
    }
    request = {"model": "simulator-large", "messages": turns, **options, **meaningless}
    assert serve(cascade_file=path).post(PATH, json=request).status_code == 200
    (received,) = upstream.received
    assert received.body["messages"] == [{"role": "system", "content": "Be brief."}, *turns[1:]]
    assert options.items() <= received.body.items()
    assert not meaningless.keys() & received.body.keys()


def test_models_are_listed(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    names = ["cascade", "simulator-large", "simulator-small"]
    assert [model["id"] for model in listed["data"]] == names
    assert client.get("/v1/models/cascade").json() == listed["data"][0]


def test_answers_are_in_the_books(serve: Serve) -> None:
    client = serve()
    cost = ask(client, ACCEPTED)["cascade"]["cost"]
    stats = client.get("/api/stats").json()
    assert stats["total_queries"] == 1
    assert math.isclose(stats["total_cost"], cost)


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ACCEPTED, REJECTED, DIRECT])
def test_a_stream_says_what_a_completion_says(client: httpx.Client, text: str) -> None:
    assert text_of(stream(client, text)) == ask(client, text)["choices"][0]["message"]["content"]


def test_a_rejected_draft_never_reaches_the_client(client: httpx.Client) -> None:
    events = stream(client, REJECTED)
    assert not any("not sure" in event or "know" in text_of([event]) for event in events[:-1])
    assert json.loads(events[-2])["cascade"]["draft_accepted"] is False


def test_a_stream_has_openais_shape(client: httpx.Client) -> None:
    events = stream(client, ACCEPTED)
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [choice["finish_reason"] for choice in choices[-2:]] == [None, "stop"]
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(client: httpx.Client) -> None:
    events = stream(client, ACCEPTED, stream_options={"include_usage": True})
    last = json.loads(events[-2])
    assert last["choices"] == []
    assert last["usage"] == ask(client, ACCEPTED)["usage"]


def test_a_stream_that_fails_ends_with_an_error(client: httpx.Client) -> None:
    events = stream(client, "[[both:500]] hi")
    error = json.loads(events[-1])["error"]
    assert error["code"] == "upstream_error"
    assert error["type"] == "api_error"


def test_a_client_that_leaves_is_in_the_books(serve: Serve) -> None:
    client = serve()
    asked = body("[[both:slow]] What is AI?", stream=True)
    with client.stream("POST", PATH, json=asked) as response:
        next(response.iter_lines())
    # Who asks too often is refused.
    told = {"cancelled": 1}
    assert eventually(lambda: client.get("/api/stats").json()["outcomes"] == told, pause=0.6)


# --- tools ----------------------------------------------------------------------------------------

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def weather(**parameters: object) -> dict[str, object]:
    """The tool, whose schema says something else."""
    function: dict[str, Any] = WEATHER["function"]  # type: ignore[assignment]
    schema = {**function["parameters"], **parameters}
    return {**WEATHER, "function": {**function, "parameters": schema}}


def calling(name: str, arguments: str) -> Answering:
    """A model that wants a function called, as JSON or in the pieces of a stream."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    usage = {"prompt_tokens": 9, "completion_tokens": 5}

    async def answer(request: web.Request) -> web.StreamResponse:
        if not (await request.json()).get("stream"):
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            return web.json_response({"choices": [choice], "usage": usage})
        half = len(arguments) // 2
        pieces = [
            {"index": 0, **call, "function": {"name": name, "arguments": arguments[:half]}},
            {"index": 0, "function": {"arguments": arguments[half:]}},
        ]
        deltas = [{"delta": {"tool_calls": [piece]}} for piece in pieces]
        choices = [*deltas, {"delta": {}, "finish_reason": "tool_calls"}]
        lines = [json.dumps({"choices": [choice]}) for choice in choices]
        lines += [json.dumps({"choices": [], "usage": usage}), "[DONE]"]
        text = "".join(f"data: {line}\n\n" for line in lines)
        return web.Response(text=text, content_type="text/event-stream")

    return answer


@pytest.mark.parametrize(
    ("drafted", "accepted"),
    [
        (("get_weather", '{"city": "Paris"}'), True),
        (("get_whether", '{"town": 1}'), False),
        (("get_weather", "not JSON"), False),
        (("get_weather", "5"), False),
        (("get_weather", "null"), False),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_is_drafted_judged_and_replaced_like_any_answer(
    serve: Serve,
    stub: Callable[[Answering], Stub],
    tmp_path: Path,
    drafted: tuple[str, str],
    accepted: bool,
    streamed: bool,
) -> None:
    drafter = stub(calling(*drafted))
    verifier = stub(calling("get_weather", '{"city": "Lyon"}'))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(drafter.url, verifier.url), encoding="utf-8")
    client = serve(cascade_file=path)
    asked: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "auto"}
    if streamed:
        chunks = [json.loads(event) for event in stream(client, "Weather?", **asked)[:-1]]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        (calls,) = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
        finish = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]][-1]
        facts = chunks[-1]["cascade"]
    else:
        answer = ask(client, "Weather?", **asked)
        calls = answer["choices"][0]["message"]["tool_calls"]
        finish = answer["choices"][0]["finish_reason"]
        facts = answer["cascade"]
    city = "Paris" if accepted else "Lyon"
    arguments = json.dumps({"city": city})
    assert calls[0]["function"] == {"name": "get_weather", "arguments": arguments}
    assert finish == "tool_calls"
    assert facts["draft_accepted"] is accepted
    assert len(verifier.received) == (0 if accepted else 1)
    assert drafter.received[0].body["tools"] == [WEATHER]
    assert drafter.received[0].body["tool_choice"] == "auto"


def test_a_tools_answer_goes_upstream_as_it_came(
    serve: Serve, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    said: Any = {"message": {"content": "It rains in Paris."}, "finish_reason": "stop"}
    upstream = stub(answer_json({"choices": [said]}))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    turns = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]
    request = {"model": "cascade", "messages": turns, "tools": [WEATHER]}
    answer = serve(cascade_file=path).post(PATH, json=request).json()
    assert answer["choices"][0]["message"]["content"] == "It rains in Paris."
    assert upstream.received[0].body["messages"] == turns


def test_the_verifier_itself_can_be_asked_with_tools(
    serve: Serve, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    upstream = stub(calling("get_weather", '{"city": "Paris"}'))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    asked = {"model": "simulator-large", "tools": [WEATHER]}
    answer = ask(serve(cascade_file=path), "Weather?", **asked)
    assert answer["choices"][0]["message"]["tool_calls"][0]["id"] == "call_1"
    assert [received.body["model"] for received in upstream.received] == ["simulator-large"]


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("messages", [], "messages"),
        ("messages", None, "messages"),
        ("messages", [{"role": "user"}], "messages.0.content"),
        ("messages", [{"role": "robot", "content": "x"}], "messages.0"),
        ("messages", [{"role": "tool", "content": "x"}], "messages.0.tool_call_id"),
        (
            "messages",
            [{"role": "user", "content": "x", "tool_call_id": "1"}],
            "messages.0.tool_call_id",
        ),
        ("messages", [{"role": "user", "content": "\ud800"}], "messages.0.content"),
        ("max_tokens", 0, "max_tokens"),
        ("temperature", math.nan, "temperature"),
        ("temperature", 3, "temperature"),
        ("n", 2, "n"),
        ("n", 0, "n"),
        ("top_logprobs", 5, "top_logprobs"),
        ("stop", "\ud800", "stop"),
        ("seed", 10**30, "seed"),
        ("store", True, "store"),
        ("top_p", 0, "top_p"),
        ("response_format", {"a": math.nan}, "response_format"),
        ("response_format", {"\ud800": 1}, "response_format"),
        ("tools", [], "tools"),
        ("tools", [weather(properties=None)], "tools.0.function.parameters"),
        ("tools", [weather(properties={"city": None})], "tools.0.function.parameters"),
        ("tools", [weather(required=5)], "tools.0.function.parameters"),
        ("tools", [weather(required=[[]])], "tools.0.function.parameters"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_impossible_value_is_refused_by_its_field(
    client: httpx.Client, field: str, value: object, param: str, streamed: bool
) -> None:
    asked = {**body("hi", stream=streamed), field: value}
    error = assert_refused(client.post(PATH, content=json.dumps(asked), headers=JSON), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_more_answers_than_one_are_refused_with_a_sentence(client: httpx.Client) -> None:
    message = assert_refused(client.post(PATH, json=body("hi", n=2)), 400)["message"]
    assert message == "n: a cascade gives one answer: n is 1; ask again for another"


def test_content_in_parts_is_refused_by_its_field_too(client: httpx.Client) -> None:
    for text in ({"type": "image_url"}, {"type": "text", "text": "\ud800"}):
        asked = {"model": "cascade", "messages": [{"role": "user", "content": [text]}]}
        response = client.post(PATH, content=json.dumps(asked), headers=JSON)
        assert str(assert_refused(response, 400)["param"]).startswith("messages.0.content")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"model": "\xff"}', b"[" * 100_000])
def test_a_body_that_cannot_be_read_is_refused(client: httpx.Client, content: bytes) -> None:
    assert_refused(client.post(PATH, content=content, headers=JSON), 400)


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
    response = client.post(PATH, json={"model": "cascade", "messages": messages})
    assert_refused(response, 400)


def test_a_conversation_has_a_longest_length(serve: Serve) -> None:
    client = serve(max_query_chars=10)
    turns = [{"role": "user", "content": "x" * 6}] * 2
    response = client.post(PATH, json={"model": "cascade", "messages": turns})
    assert assert_refused(response, 400)["param"] == "messages"


def test_an_unknown_model_is_a_404(client: httpx.Client) -> None:
    assert assert_refused(client.post(PATH, json=body("hi", model="x")), 404)["code"] == (
        "model_not_found"
    )
    assert_refused(client.get("/v1/models/x"), 404)


def test_without_a_key_it_is_a_401(serve: Serve) -> None:
    client = serve(api_keys=f"ann:use:{'0' * 64}")
    assert_refused(client.post(PATH, json=body("hi")), 401)


def test_a_body_over_the_limit_is_a_413(serve: Serve) -> None:
    client = serve(max_body_bytes=100)
    assert_refused(client.post(PATH, json=body("x" * 200)), 413)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_exhausted_budget_is_a_402(serve: Serve, streamed: bool) -> None:
    client = serve(daily_budget="0.0001")
    response = client.post(PATH, json=body("hi", stream=streamed))
    assert assert_refused(response, 402)["code"] == "budget_exceeded"


def test_a_failed_upstream_is_a_502(client: httpx.Client) -> None:
    error = assert_refused(client.post(PATH, json=body("[[both:500]] hi")), 502)
    assert error["type"] == "api_error"


def test_an_overloaded_upstream_says_when_to_come_back(client: httpx.Client) -> None:
    response = client.post(PATH, json=body("[[both:429]] hi"))
    assert_refused(response, 503)
    assert response.headers["retry-after"] == "1"


def test_errors_are_documented_in_openais_shape(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    errors = document["paths"]["/v1/chat/completions"]["post"]["responses"]["4XX"]["content"]
    documented = {name: body["schema"]["$ref"].rpartition("/")[2] for name, body in errors.items()}
    # What reaches no route is answered as everywhere.
    assert documented == {
        "application/json": "ErrorBody",
        "application/problem+json": "ProblemDetail",
    }


@pytest.mark.parametrize("name", ["messages", "stop", "tools"])
def test_the_first_bad_item_of_a_list_is_told_and_no_other(client: httpx.Client, name: str) -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}], name: [1] * 100_000}
    response = client.post("/v1/chat/completions", json={"model": "cascade", **asked})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"].startswith(name)
    assert ".1" not in error["message"]


def test_ten_thousand_messages_are_refused_by_their_field(client: httpx.Client) -> None:
    turns = [{"role": "user", "content": "hi"}]
    for count in (1001, 10_000):
        response = client.post(PATH, json={"model": "cascade", "messages": turns * count})
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith("messages")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_completion_is_paid_by_its_key(serve: Serve, streamed: bool) -> None:
    key, entry = key_and_entry("ann")
    client = serve(api_keys=entry, key_daily_budget="0.0001")
    client.headers["Authorization"] = f"Bearer {key}"
    error = assert_refused(client.post(PATH, json=body("hi", stream=streamed)), 402)
    assert "this key's budget" in error["message"]
