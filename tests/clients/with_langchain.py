"""LangChain's OpenAI client: answers, streams, tools, structured outputs, batches."""

import asyncio
import sys

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from said import ACCEPTED, DRAFT, REJECTED


class Book(BaseModel):
    """A book."""

    title: str
    pages: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"21 degrees in {city}"


def main(url: str, key: str) -> None:
    model = ChatOpenAI(model="cascade", base_url=url, api_key=key, max_retries=0, stream_usage=True)
    answer = model.invoke([SystemMessage("Be brief."), HumanMessage(ACCEPTED)])
    assert answer.content.startswith("AI")
    assert answer.usage_metadata["total_tokens"] > 0

    for question in (ACCEPTED, REJECTED):
        whole = model.invoke(question)
        pieces = list(model.stream(question))
        said = "".join(piece.content for piece in pieces)
        assert said == whole.content
        assert DRAFT not in said
        (used,) = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
        assert used["total_tokens"] == whole.usage_metadata["total_tokens"]

    turns = [HumanMessage("What is the weather in Paris?")]
    armed = model.bind_tools([get_weather])
    asked = armed.invoke(turns)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    turns += [asked, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert "21 degrees in Paris" in armed.invoke(turns).content
    streamed = None
    for piece in armed.stream(turns[:1]):
        streamed = piece if streamed is None else streamed + piece
    assert streamed.tool_calls[0]["args"] == {"city": "Paris"}

    for method in ("json_schema", "function_calling"):
        shaped = model.with_structured_output(Book, method=method)
        assert shaped.invoke("Name a Book by Ada") == Book(title="Ada", pages=1)

    likely = model.bind(logprobs=True).invoke(ACCEPTED)
    tokens = [entry["token"] for entry in likely.response_metadata["logprobs"]["content"]]
    assert "".join(tokens) == likely.content

    answers = model.batch([ACCEPTED, REJECTED] * 3)
    assert [each.content for each in answers[:2]] * 3 == [each.content for each in answers]
    assert asyncio.run(model.ainvoke(ACCEPTED)).content == answers[0].content


if __name__ == "__main__":
    main(*sys.argv[1:])
