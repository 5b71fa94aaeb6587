"""The Anthropic wire, against a server on loopback."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from app.cascade.config import Model
from app.cascade.errors import UpstreamFault
from app.cascade.types import Completion, Message, Query, ToolCall, Usage
from app.cascade.upstream import connect, wire
from tests.conftest import Answering, Received, answer_json, answer_text, stubbed

MODEL = Model.model_validate(
    {
        "provider": "anthropic",
        "name": "claude-test",
        "endpoint": "http://replaced.invalid",
        "input_price": 1,
        "output_price": 1,
        "context": 1000,
    }
)
ANSWER = {
    "content": [
        {"type": "text", "text": "Par"},
        {"type": "thinking", "thinking": "…"},
        {"type": "text", "text": "is."},
    ],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 5,
        "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 3,
        "output_tokens": 2,
    },
}
START = {
    "type": "message_start",
    "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 1, "output_tokens": 1}},
}
STOP = {"type": "message_stop"}


def delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}


def finish(reason: str, tokens: int) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason},
        "usage": {"output_tokens": tokens},
    }


def stream(*events: dict[str, Any]) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def ask(
    answering: Answering,
    *,
    query: Query | None = None,
    on_text: Callable[[str], None] | None = None,
) -> tuple[Completion, Received]:
    async def hear(text: str) -> None:
        if on_text:
            on_text(text)

    async def go() -> tuple[Completion, Received]:
        async with stubbed(answering) as stub, wire.open_session() as session:
            upstream = connect(session, MODEL, stub.url, SecretStr("sk-ant"))
            asked = query or Query.ask("Capital of France?")
            answer = await upstream.answer(asked, hear if on_text else None)
            return answer, stub.received[0]

    return asyncio.run(go())


def fault(answering: Answering, *, streamed: bool = False) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as failed:
        ask(answering, on_text=(lambda _: None) if streamed else None)
    return failed.value


def test_an_answer_is_read_whole() -> None:
    answer, _ = ask(answer_json(ANSWER))
    assert answer == Completion("Paris.", "stop", Usage(15, 2, cached_tokens=7))


def test_the_request_is_what_was_asked_for() -> None:
    _, request = ask(answer_json(ANSWER), query=Query.ask("hi", max_tokens=7, temperature=0.2))
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "sk-ant"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.body == {
        "model": "claude-test",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "temperature": 0.2,
        "stream": False,
    }


def test_system_messages_go_where_anthropic_wants_them() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("system", "Be kind."),
        Message("user", "Capital of France?"),
    )
    _, request = ask(answer_json(ANSWER), query=Query(messages))
    assert request.body["system"] == "Be brief.\n\nBe kind."
    assert [turn["role"] for turn in request.body["messages"]] == ["user", "assistant", "user"]


def test_a_temperature_is_kept_within_anthropics_range() -> None:
    _, request = ask(answer_json(ANSWER), query=Query.ask("hi", temperature=1.7))
    assert request.body["temperature"] == 1.0


@pytest.mark.parametrize("stop", ["x", ["x"]])
def test_options_are_translated_and_others_left_out(stop: Any) -> None:  # noqa: ANN401
    options = {"top_p": 0.5, "stop": stop, "seed": 1}
    _, request = ask(answer_json(ANSWER), query=Query((Message("user", "hi"),), options=options))
    assert request.body["top_p"] == 0.5
    assert request.body["stop_sequences"] == ["x"]
    assert not {"stop", "seed"} & set(request.body)


@pytest.mark.parametrize(
    ("reason", "finish_reason"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("new", "new")],
)
def test_the_stop_reason_is_told_in_openais_words(reason: str, finish_reason: str) -> None:
    answer, _ = ask(answer_json({**ANSWER, "stop_reason": reason}))
    assert answer.finish_reason == finish_reason


def test_a_stream_is_handed_over_piece_by_piece() -> None:
    seen: list[str] = []
    text = stream(START, delta("Par"), {"type": "ping"}, delta("is."), finish("end_turn", 4), STOP)
    answer, request = ask(answer_text(text), on_text=seen.append)
    assert request.body["stream"] is True
    assert seen == ["Par", "is."]
    assert answer == Completion("Paris.", "stop", Usage(10, 4, cached_tokens=1))


def test_a_stream_that_ends_before_its_end_is_interrupted() -> None:
    text = stream(START, delta("Par"))
    assert fault(answer_text(text), streamed=True).kind == "interrupted"


def test_an_error_in_a_stream_is_a_fault() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error"}}
    assert fault(answer_text(stream(START, error)), streamed=True).kind == "unavailable"


@pytest.mark.parametrize("body", ["", "{", "{}", '{"content": "Paris"}', "<!doctype html>"])
def test_a_200_that_is_no_answer_is_malformed(body: str) -> None:
    assert fault(answer_text(body, content_type="application/json")).kind == "malformed"


def test_overload_says_when_to_come_back() -> None:
    found = fault(answer_json({}, 529, **{"Retry-After": "3"}))
    assert (found.kind, found.retry_after) == ("overloaded", 3.0)


def test_reaching_asks_for_the_models_and_spends_nothing() -> None:
    async def go() -> list[Received]:
        async with stubbed(answer_json({"data": []})) as stub, wire.open_session() as session:
            await connect(session, MODEL, stub.url, SecretStr("sk-ant")).reach()
            return stub.received

    (request,) = asyncio.run(go())
    assert request.path == "/v1/models"
    assert request.headers["x-api-key"] == "sk-ant"


CALL = ToolCall("toolu_1", "get_weather", '{"city": "Paris"}')
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather", "parameters": {"type": "object"}},
}


def test_tools_and_their_answers_go_in_anthropics_form() -> None:
    turns = (
        Message("user", "Weather?"),
        Message("assistant", "Let me see.", (CALL,)),
        Message("tool", "rain", tool_call_id="toolu_1"),
    )
    chosen: Any = {"type": "function", "function": {"name": "get_weather"}}
    query = Query(turns, tools=(TOOL,), tool_choice=chosen)
    _, request = ask(answer_json(ANSWER), query=query)
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    assert request.body["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, use]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}],
        },
    ]
    assert request.body["tools"] == [
        {"name": "get_weather", "description": "Weather", "input_schema": {"type": "object"}}
    ]
    assert request.body["tool_choice"] == {"type": "tool", "name": "get_weather"}


@pytest.mark.parametrize(
    ("choice", "kind"), [("auto", "auto"), ("required", "any"), ("none", "none")]
)
def test_a_tool_choice_in_a_word_has_another_word(choice: str, kind: str) -> None:
    query = Query((Message("user", "hi"),), tools=(TOOL,), tool_choice=choice)
    _, request = ask(answer_json(ANSWER), query=query)
    assert request.body["tool_choice"] == {"type": kind}


def test_a_tool_call_is_read_from_an_answer() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    answer, _ = ask(answer_json({"content": [use], "stop_reason": "tool_use"}))
    assert answer == Completion("", "tool_calls", None, tool_calls=(CALL,))


def test_a_tool_call_is_put_together_from_a_stream() -> None:
    begin = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
    pieces = ['{"city"', ': "Paris"}']
    events: list[dict[str, Any]] = [
        START,
        {"type": "content_block_start", "index": 1, "content_block": begin},
        *(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in pieces
        ),
        finish("tool_use", 4),
        STOP,
    ]
    answer, _ = ask(answer_text(stream(*events)), on_text=lambda _: None)
    assert answer.tool_calls == (CALL,)
    assert answer.finish_reason == "tool_calls"
