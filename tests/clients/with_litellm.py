"""litellm as a client: answers, streams, tools, structured outputs, its exceptions."""

import asyncio
import json
import os
import sys

# It would fetch its prices from elsewhere while it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from pydantic import BaseModel
from said import ACCEPTED, DRAFT, REJECTED, WEATHER


class Book(BaseModel):
    title: str
    pages: int


def main(url: str, key: str) -> None:
    litellm.telemetry = False

    def ask(text: str, **more: object) -> object:
        turns = more.pop("messages", [{"role": "user", "content": text}])
        return litellm.completion(
            model="openai/cascade", messages=turns, api_base=url, api_key=key, num_retries=0, **more
        )

    answer = ask(ACCEPTED)
    assert answer.choices[0].message.content.startswith("AI")
    assert answer.usage.total_tokens > 0

    for question in (ACCEPTED, REJECTED):
        whole = ask(question)
        chunks = list(ask(question, stream=True, stream_options={"include_usage": True}))
        said = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
        assert said == whole.choices[0].message.content
        assert DRAFT not in said
        (used,) = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
        assert used.total_tokens == whole.usage.total_tokens

    question = "What is the weather in Paris?"
    message = ask(question, tools=[WEATHER], tool_choice="auto").choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    turns = [
        {"role": "user", "content": question},
        message,
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"},
    ]
    last = ask("", messages=turns, tools=[WEATHER])
    assert "21 degrees" in last.choices[0].message.content

    shaped = ask("Name a book by Ada", response_format=Book).choices[0].message.content
    assert Book.model_validate_json(shaped) == Book(title="Ada", pages=1)

    try:
        ask(ACCEPTED, n=2)
    except litellm.BadRequestError as error:
        assert "a cascade gives one answer" in str(error)
    else:
        raise AssertionError("two answers")

    async def asynchronously() -> str:
        found = await litellm.acompletion(
            model="openai/cascade",
            messages=[{"role": "user", "content": ACCEPTED}],
            api_base=url,
            api_key=key,
        )
        return str(found.choices[0].message.content)

    assert asyncio.run(asynchronously()) == answer.choices[0].message.content


if __name__ == "__main__":
    main(*sys.argv[1:])
