"""OpenAI's own package: sync, async, streaming helpers, tools, structured outputs, errors."""

import asyncio
import json
import sys

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from said import ACCEPTED, DRAFT, REJECTED, WEATHER


class Book(BaseModel):
    title: str
    pages: int


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def check_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="cascade", messages=[user(ACCEPTED)])
    assert answer.choices[0].message.content.startswith("AI")
    assert answer.usage.total_tokens > 0
    assert answer.model_extra["cascade"]["outcome"] == "accepted"
    assert answer._request_id
    raw = client.chat.completions.with_raw_response.create(
        model="cascade", messages=[user(REJECTED)], max_tokens=300, seed=7, stop=["#"]
    )
    assert raw.headers["x-cascade-outcome"] == "rejected"
    assert DRAFT not in raw.parse().choices[0].message.content
    names = [model.id for model in client.models.list()]
    assert names[0] == "cascade"
    for name in names[1:]:
        direct = client.chat.completions.create(model=name, messages=[user(ACCEPTED)])
        assert direct.model_extra["cascade"]["model_used"] == name
    assert client.models.retrieve("cascade").id == "cascade"


def check_streams(client: OpenAI) -> None:
    for question in (ACCEPTED, REJECTED):
        whole = client.chat.completions.create(model="cascade", messages=[user(question)])
        chunks = list(
            client.chat.completions.create(
                model="cascade",
                messages=[user(question)],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        said = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
        assert said == whole.choices[0].message.content
        assert DRAFT not in said
        assert chunks[-1].usage == whole.usage
        with client.chat.completions.stream(model="cascade", messages=[user(question)]) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            assert "".join(deltas) == said
            assert stream.get_final_completion().choices[0].message.content == said


def check_tools(client: OpenAI) -> None:
    turns = [user("What is the weather in Paris?")]
    asked = client.chat.completions.create(model="cascade", messages=turns, tools=[WEATHER])
    assert asked.choices[0].finish_reason == "tool_calls"
    message = asked.choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    turns += [message, result]
    last = client.chat.completions.create(model="cascade", messages=turns, tools=[WEATHER])
    assert "21 degrees" in last.choices[0].message.content
    none = client.chat.completions.create(
        model="cascade", messages=turns[:1], tools=[WEATHER], tool_choice="none"
    )
    assert none.choices[0].message.content
    parsed = client.chat.completions.parse(
        model="cascade", messages=turns[:1], tools=[openai.pydantic_function_tool(GetWeather)]
    )
    (typed,) = parsed.choices[0].message.tool_calls
    assert typed.function.parsed_arguments == GetWeather(city="Paris")
    with client.chat.completions.stream(
        model="cascade", messages=turns[:1], tools=[openai.pydantic_function_tool(GetWeather)]
    ) as stream:
        (typed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert typed.function.parsed_arguments == GetWeather(city="Paris")


def check_structured(client: OpenAI) -> None:
    turns = [user("Name a book by Ada")]
    parsed = client.chat.completions.parse(model="cascade", messages=turns, response_format=Book)
    assert parsed.choices[0].message.parsed == Book(title="Ada", pages=1)
    with client.chat.completions.stream(
        model="cascade", messages=turns, response_format=Book
    ) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Book(title="Ada", pages=1)
    loose = client.chat.completions.create(
        model="cascade", messages=turns, response_format={"type": "json_object"}
    )
    assert json.loads(loose.choices[0].message.content)


def check_probabilities(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="cascade", messages=[user(ACCEPTED)], logprobs=True
    )
    tokens = [entry.token for entry in answer.choices[0].logprobs.content]
    assert "".join(tokens) == answer.choices[0].message.content
    with client.chat.completions.stream(
        model="cascade", messages=[user(ACCEPTED)], logprobs=True
    ) as stream:
        final = stream.get_final_completion()
    assert [entry.token for entry in final.choices[0].logprobs.content] == tokens


def check_errors(client: OpenAI) -> None:
    def failure(kind: type[openai.APIError], **fields: object) -> openai.APIError:
        asked = {"model": "cascade", "messages": [user(ACCEPTED)], **fields}
        try:
            client.chat.completions.create(**asked)
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__}")

    refused = failure(openai.BadRequestError, n=2)
    assert refused.param == "n"
    assert "a cascade gives one answer" in str(refused)
    assert refused.request_id
    assert failure(openai.NotFoundError, model="nobody").code == "model_not_found"
    down = failure(openai.InternalServerError, messages=[user("[[both:500]] hi")])
    assert down.status_code == 502
    stranger = client.with_options(api_key="wrong")
    try:
        stranger.models.list()
    except openai.AuthenticationError as error:
        assert error.status_code == 401
    else:
        raise AssertionError("let in")
    broken = client.chat.completions.create(
        model="cascade", messages=[user("[[both:500]] hi")], stream=True
    )
    try:
        list(broken)
    except openai.APIError as error:
        assert "gave no answer" in str(error)
    else:
        raise AssertionError("a stream that fails is no answer")


async def check_async(url: str, key: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model="cascade", messages=[user(question)])
                for question in (ACCEPTED, REJECTED) * 5
            )
        )
        outcomes = [answer.model_extra["cascade"]["outcome"] for answer in answers]
        assert outcomes == ["accepted", "rejected"] * 5
        said = ""
        async for chunk in await client.chat.completions.create(
            model="cascade", messages=[user(REJECTED)], stream=True
        ):
            said += chunk.choices[0].delta.content or ""
        assert said == answers[1].choices[0].message.content
        async with client.chat.completions.stream(
            model="cascade", messages=[user("Name a book by Ada")], response_format=Book
        ) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == Book(title="Ada", pages=1)


def main(url: str, key: str) -> None:
    with OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        check_answers(client)
        check_streams(client)
        check_tools(client)
        check_structured(client)
        check_probabilities(client)
        check_errors(client)
    asyncio.run(check_async(url, key))


if __name__ == "__main__":
    main(*sys.argv[1:])
