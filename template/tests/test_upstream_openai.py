"""The OpenAI-compatible wire, against a server on loopback."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from app.cascade.config import Model
from app.cascade.errors import UpstreamFault
from app.cascade.types import Completion, Message, Query, Usage
from app.cascade.upstream import connect, wire
from tests.conftest import Answering, Received, answer_json, answer_text, stubbed

ANSWER = {
    "choices": [
        {
            "message": {"role": "assistant", "content": "Paris."},
            "finish_reason": "stop",
            "logprobs": {
                "content": [{"token": "Paris", "logprob": -0.1}, {"token": ".", "logprob": -0.2}]
            },
        }
    ],
    "usage": {
        "prompt_tokens": 12,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 8},
    },
}


def piece(text: str | None, finish: str | None = None, **more: object) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish, **more}]}


def stream(*events: dict[str, Any] | str) -> str:
    lines = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return "".join(f"data: {line}\n\n" for line in lines)


def model(**changes: object) -> Model:
    fields: dict[str, object] = {
        "provider": "openai",
        "name": "gpt-test",
        "endpoint": "http://replaced.invalid",
        "input_price": 1,
        "output_price": 1,
        "context": 1000,
    }
    return Model.model_validate(fields | changes)


def ask(
    answering: Answering,
    *,
    query: Query | None = None,
    on_text: Callable[[str], None] | None = None,
    key: str | None = "sk-test",
    **changes: object,
) -> tuple[Completion, Received]:
    async def hear(text: str) -> None:
        if on_text:
            on_text(text)

    async def go() -> tuple[Completion, Received]:
        async with stubbed(answering) as stub, wire.open_session() as session:
            secret = SecretStr(key) if key else None
            upstream = connect(session, model(**changes), f"{stub.url}/", secret)
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
    assert answer == Completion(
        "Paris.", "stop", Usage(12, 2, cached_tokens=8), ("Paris", "."), (-0.1, -0.2)
    )


def test_the_conversation_keeps_its_roles() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Capital of France?"),
    )
    _, request = ask(answer_json(ANSWER), query=Query(messages))
    assert request.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Capital of France?"},
    ]


def test_the_request_is_what_was_asked_for() -> None:
    query = Query.ask("hi", max_tokens=7, temperature=0.2)
    _, request = ask(answer_json(ANSWER), query=query)
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-test"
    assert request.body == {
        "model": "gpt-test",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "temperature": 0.2,
        "logprobs": True,
    }


def test_further_options_are_passed_on() -> None:
    query = Query((Message("user", "hi"),), options={"top_p": 0.5, "stop": ["x"]})
    _, request = ask(answer_json(ANSWER), query=query)
    assert (request.body["top_p"], request.body["stop"]) == (0.5, ["x"])


def test_log_probabilities_are_not_asked_of_those_who_refuse_them() -> None:
    _, request = ask(answer_json(ANSWER), provider="groq")
    assert "logprobs" not in request.body


def test_no_key_means_no_header() -> None:
    _, request = ask(answer_json(ANSWER), key=None)
    assert "authorization" not in request.headers


def test_an_answer_without_usage_says_so() -> None:
    answer, _ = ask(answer_json({"choices": ANSWER["choices"]}))
    assert answer.usage is None


def test_an_answer_without_content_is_empty() -> None:
    answer, _ = ask(answer_json({"choices": [{"message": {"content": None}}]}))
    assert answer.text == ""


def test_no_choices_are_an_empty_answer_that_costs() -> None:
    answer, _ = ask(answer_json({"choices": [], "usage": ANSWER["usage"]}))
    assert answer.text == ""
    assert answer.usage


def test_a_stream_is_handed_over_piece_by_piece() -> None:
    seen: list[str] = []
    text = stream(piece("Par"), piece("is."), piece(None, "stop"), "[DONE]")
    answer, _ = ask(answer_text(text), on_text=seen.append)
    assert seen == ["Par", "is."]
    assert answer.text == "Paris."
    assert answer.finish_reason == "stop"


def test_a_stream_is_asked_for_its_usage() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    text = stream(piece("Hi", "stop"), usage, "[DONE]")
    answer, request = ask(answer_text(text), on_text=lambda _: None)
    assert request.body["stream"] is True
    assert request.body["stream_options"] == {"include_usage": True}
    assert answer.usage == Usage(3, 4)


def test_a_stream_keeps_log_probabilities() -> None:
    found = {"content": [{"token": "Hi", "logprob": -0.3}]}
    text = stream(piece("Hi", logprobs=found), piece(None, "stop"), "[DONE]")
    answer, _ = ask(answer_text(text), on_text=lambda _: None)
    assert (answer.tokens, answer.logprobs) == (("Hi",), (-0.3,))


def test_comments_and_blank_lines_in_a_stream_are_skipped() -> None:
    text = ": keep-alive\n\n\n" + stream(piece("Hi", "stop"), "[DONE]")
    answer, _ = ask(answer_text(text), on_text=lambda _: None)
    assert answer.text == "Hi"


def test_an_event_may_come_in_any_pieces() -> None:
    async def dribble(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        text = stream(piece("Par"), piece("is ✓", "stop"), "[DONE]").replace("\n", "\r\n")
        for byte in text.rstrip().encode():
            await response.write(bytes([byte]))
        return response

    seen: list[str] = []
    answer, _ = ask(dribble, on_text=seen.append)
    assert (seen, answer.text) == (["Par", "is ✓"], "Paris ✓")


def test_a_line_longer_than_any_event_is_malformed() -> None:
    endless = answer_text("x" * (wire.LINE_BYTES + 500_000))
    assert fault(endless, streamed=True).kind == "malformed"


def test_a_finished_stream_needs_no_done() -> None:
    answer, _ = ask(answer_text(stream(piece("Hi", "stop"))), on_text=lambda _: None)
    assert answer.text == "Hi"


def test_a_stream_that_ends_before_its_end_is_interrupted() -> None:
    assert fault(answer_text(stream(piece("Par"))), streamed=True).kind == "interrupted"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, "refused"),
        (400, "refused"),
        (401, "refused"),
        (404, "refused"),
        (408, "timeout"),
        (429, "overloaded"),
        (500, "unavailable"),
        (503, "unavailable"),
        (504, "timeout"),
        (529, "overloaded"),
    ],
)
def test_a_status_is_a_fault_by_name(status: int, kind: str, streamed: bool) -> None:
    found = fault(answer_json({"error": {"message": "no"}}, status), streamed=streamed)
    assert (found.kind, found.status) == (kind, status)


@pytest.mark.parametrize(
    "body", ["", "{", "null", "[]", '{"choices": []}', '{"choices": [{}]}', "<!doctype html>"]
)
def test_a_200_that_is_no_answer_is_malformed(body: str) -> None:
    assert fault(answer_text(body, content_type="application/json")).kind == "malformed"


def test_a_body_larger_than_any_answer_is_malformed() -> None:
    large = json.dumps({"choices": ANSWER["choices"], "padding": " " * wire.BODY_BYTES})
    assert fault(answer_text(large, content_type="application/json")).kind == "malformed"
    events = stream(*(piece("word " * 1000) for _ in range(wire.BODY_BYTES // 5000)))
    assert fault(answer_text(events), streamed=True).kind == "malformed"


def test_a_stream_that_is_no_json_is_malformed() -> None:
    assert fault(answer_text(stream("{not json")), streamed=True).kind == "malformed"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("", None)]
)
def test_retry_after_is_read_in_seconds(header: str, seconds: float | None) -> None:
    found = fault(answer_json({}, 429, **{"Retry-After": header}))
    assert found.retry_after == seconds


def test_retry_after_is_read_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    found = fault(answer_json({}, 429, **{"Retry-After": date}))
    assert found.retry_after is not None
    assert 28 <= found.retry_after <= 30


def test_a_redirect_does_not_carry_the_key_elsewhere() -> None:
    paths: list[str] = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    assert fault(redirect).kind == "refused"
    assert paths == ["/v1/chat/completions"]


def test_nobody_at_the_endpoint_is_unreachable() -> None:
    async def go() -> None:
        async with wire.open_session() as session:
            upstream = connect(session, model(), "http://127.0.0.1:1/v1", None)
            await upstream.answer(Query.ask("hi"))

    with pytest.raises(UpstreamFault, match=r"^unreachable$"):
        asyncio.run(go())


def test_a_connection_that_closes_before_an_answer_is_unreachable() -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    assert fault(hang_up).kind == "unreachable"


def test_a_connection_that_breaks_in_an_answer_is_interrupted() -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"choices"')
        assert request.transport
        request.transport.abort()
        return response

    assert fault(break_off).kind == "interrupted"


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e999", "9" * 400, "soon", "-1"])
def test_a_senseless_retry_after_is_no_wait(seconds: str) -> None:
    found = fault(answer_json({}, 429, **{"Retry-After": seconds}))
    assert not found.retry_after


def test_a_fault_tells_nothing_of_the_upstream() -> None:
    found = fault(answer_json({"error": {"message": "key sk-test of org-1"}}, 401))
    assert str(found) == "refused (HTTP 401)"
    assert found.__cause__ is None


def test_reaching_asks_for_the_models_and_spends_nothing() -> None:
    async def go() -> list[str]:
        answering = answer_json({"data": []})
        async with stubbed(answering) as stub, wire.open_session() as session:
            await connect(session, model(), stub.url, SecretStr("sk-test")).reach()
            return [request.path for request in stub.received]

    assert asyncio.run(go()) == ["/v1/models"]


def test_reaching_with_a_wrong_key_is_a_fault() -> None:
    async def go() -> None:
        async with stubbed(answer_json({}, 401)) as stub, wire.open_session() as session:
            await connect(session, model(), stub.url, SecretStr("sk-wrong")).reach()

    with pytest.raises(UpstreamFault, match="401"):
        asyncio.run(go())
