"""Anthropic's own package: sync, async, streaming helpers, tools, errors."""

import asyncio
import sys

import anthropic
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from said import ACCEPTED, DRAFT, REJECTED, WEATHER

FUNCTION = WEATHER["function"]
TOOL = {
    "name": FUNCTION["name"],
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
}
QUESTION = "What is the weather in Paris?"


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def asking(text: str, **fields: object) -> dict[str, object]:
    return {"model": "cascade", "max_tokens": 1000, "messages": [user(text)], **fields}


def check_answers(client: Anthropic) -> None:
    answer = client.messages.create(**asking(ACCEPTED))
    assert answer.content[0].text.startswith("AI")
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.model_extra["cascade"]["outcome"] == "accepted"
    assert answer._request_id
    raw = client.messages.with_raw_response.create(
        **asking(REJECTED, system="Be brief.", stop_sequences=["#"]),
        # The package no longer knows it.
        extra_body={"temperature": 0.2},
    )
    assert raw.headers["x-cascade-outcome"] == "rejected"
    assert DRAFT not in raw.parse().content[0].text
    cut = client.messages.create(**asking(REJECTED, max_tokens=3))
    assert (cut.stop_reason, cut.usage.output_tokens >= 3) == ("max_tokens", True)
    turns = [user("Hi"), {"role": "assistant", "content": "Hello"}, user(ACCEPTED)]
    assert client.messages.create(**asking("", messages=turns)).content[0].text


def check_streams(client: Anthropic) -> None:
    for question in (ACCEPTED, REJECTED):
        whole = client.messages.create(**asking(question))
        events = list(client.messages.create(**asking(question, stream=True)))
        deltas = [event.delta for event in events if event.type == "content_block_delta"]
        assert "".join(delta.text for delta in deltas) == whole.content[0].text
        assert DRAFT not in whole.content[0].text
        with client.messages.stream(**asking(question)) as stream:
            assert "".join(stream.text_stream) == whole.content[0].text
            final = stream.get_final_message()
            assert stream.request_id
        assert final.content[0].text == whole.content[0].text
        assert final.stop_reason == whole.stop_reason
        spent = {"input_tokens", "output_tokens", "cache_read_input_tokens"}
        assert final.usage.model_dump(include=spent) == whole.usage.model_dump(include=spent)


def check_tools(client: Anthropic) -> None:
    turns = [user(QUESTION)]
    asked = client.messages.create(**asking(QUESTION, tools=[TOOL]))
    assert asked.stop_reason == "tool_use"
    (use,) = asked.content
    assert (use.name, use.input) == ("get_weather", {"city": "Paris"})
    with client.messages.stream(**asking(QUESTION, tools=[TOOL])) as stream:
        (streamed,) = stream.get_final_message().content
    assert (streamed.name, streamed.input) == (use.name, use.input)
    for block in (use, streamed):
        result = {"type": "tool_result", "tool_use_id": block.id, "content": "21 degrees"}
        told = [*turns, {"role": "assistant", "content": [block]}, user([result])]
        last = client.messages.create(**asking("", messages=told, tools=[TOOL]))
        assert "21 degrees" in last.content[0].text
    for choice, reason in (("any", "tool_use"), ("none", "end_turn")):
        found = client.messages.create(
            **asking(QUESTION, tools=[TOOL], tool_choice={"type": choice})
        )
        assert found.stop_reason == reason
    named = {"type": "tool", "name": "get_weather"}
    found = client.messages.create(**asking(ACCEPTED, tools=[TOOL], tool_choice=named))
    assert found.content[0].name == "get_weather"


def check_beta(client: Anthropic) -> None:
    """The same route under another name; the package's runner keeps conversations on the server."""

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city"""
        return f"21 degrees in {city}"

    asked = client.beta.messages.create(**asking(QUESTION, tools=[get_weather.to_dict()]))
    (use,) = asked.content
    result = {"type": "tool_result", "tool_use_id": use.id, "content": get_weather.call(use.input)}
    turns = [user(QUESTION), {"role": "assistant", "content": asked.content}, user([result])]
    last = client.beta.messages.create(**asking("", messages=turns, tools=[get_weather.to_dict()]))
    assert "21 degrees in Paris" in last.content[0].text
    try:
        client.beta.messages.tool_runner(**asking(QUESTION, tools=[get_weather])).until_done()
    except anthropic.BadRequestError as error:
        assert "thread: " in str(error)
    else:
        raise AssertionError("nothing is kept here")


def check_errors(client: Anthropic) -> None:
    def failure(kind: type[anthropic.APIStatusError], **fields: object) -> anthropic.APIError:
        try:
            client.messages.create(**asking(ACCEPTED, **fields))
        except kind as error:
            assert error.request_id
            assert error.body["type"] == "error"
            return error
        raise AssertionError(f"no {kind.__name__}")

    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert "thinking: " in str(failure(anthropic.BadRequestError, thinking=thinking))
    image = {"type": "image", "source": {"type": "url", "url": "http://example.com/a.png"}}
    assert "messages.0.content.0" in str(
        failure(anthropic.BadRequestError, messages=[user([image])])
    )
    failure(anthropic.NotFoundError, model="nobody")
    down = failure(anthropic.InternalServerError, messages=[user("[[both:500]] hi")])
    assert down.status_code == 502
    assert down.body["error"]["type"] == "api_error"
    stranger = client.with_options(api_key="wrong")
    try:
        stranger.messages.create(**asking(ACCEPTED))
    except anthropic.AuthenticationError as error:
        assert error.status_code == 401
    else:
        raise AssertionError("let in")
    try:
        list(client.messages.create(**asking("[[both:500]] hi", stream=True)))
    except anthropic.APIError as error:
        assert "gave no answer" in str(error)
    else:
        raise AssertionError("a stream that fails is no answer")


async def check_async(url: str, key: str) -> None:
    async with AsyncAnthropic(base_url=url, auth_token=key, max_retries=0) as client:
        answers = await asyncio.gather(
            *(client.messages.create(**asking(question)) for question in (ACCEPTED, REJECTED) * 5)
        )
        outcomes = [answer.model_extra["cascade"]["outcome"] for answer in answers]
        assert outcomes == ["accepted", "rejected"] * 5
        async with client.messages.stream(**asking(REJECTED)) as stream:
            said = "".join([text async for text in stream.text_stream])
        assert said == answers[1].content[0].text
        assert DRAFT not in said


def main(url: str, key: str) -> None:
    url = url.removesuffix("/v1")
    with Anthropic(base_url=url, api_key=key, max_retries=0) as client:
        check_answers(client)
        check_streams(client)
        check_tools(client)
        check_beta(client)
        check_errors(client)
    asyncio.run(check_async(url, key))


if __name__ == "__main__":
    main(*sys.argv[1:])
