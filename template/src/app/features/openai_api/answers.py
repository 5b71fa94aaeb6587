"""What a client gets: completions, and the chunks of a stream."""

import json
import math
import time
import uuid
from collections.abc import AsyncIterator

from fastapi.sse import format_sse_event

from app.cascade.types import Answer, Event, Json
from app.features.openai_api.errors import error_body
from app.http.problems import from_cascade

IMPOSSIBLE = -9999.0
"""OpenAI's logarithm of a probability that is none; JSON has no infinity."""


def completion(model: str, answer: Answer, *, logprobs: bool) -> dict[str, Json]:
    """The JSON of an answer."""
    message: dict[str, Json] = {
        "role": "assistant",
        "content": answer.content or None,
        "refusal": None,
    }
    if answer.tool_calls:
        message["tool_calls"] = [*_tool_calls(answer)]
    choice: Json = {
        "index": 0,
        "message": message,
        "finish_reason": answer.finish_reason or "stop",
        "logprobs": _logprobs(answer) if logprobs else None,
    }
    return {
        **head_of(model),
        "object": "chat.completion",
        "choices": [choice],
        "usage": _usage(answer),
        "cascade": facts(answer),
    }


async def chunks(
    events: AsyncIterator[Event], model: str, *, usage: bool, logprobs: bool
) -> AsyncIterator[bytes]:
    """The data of a stream; token probabilities come at its end, for all of its text."""
    head = {**head_of(model), "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Json], finish_reason: str | None = None, **more: Json) -> bytes:
        choice: dict[str, Json] = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        if finish_reason and logprobs:
            choice["logprobs"] = likely
        return _data({**head, "choices": [choice], **more})

    likely: Json = None

    yield chunk({"role": "assistant", "content": ""})
    async for event in events:
        match event.type:
            case "chunk":
                yield chunk({"content": event.content})
            case "complete" if event.answer:
                answer = event.answer
                likely = _logprobs(answer)
                if answer.tool_calls:
                    calls = _tool_calls(answer)
                    numbered = [{"index": i, **call} for i, call in enumerate(calls)]
                    yield chunk({"tool_calls": [*numbered]})
                yield chunk({}, answer.finish_reason or "stop", cascade=facts(answer))
                if usage:
                    yield _data({**head, "choices": [], "usage": _usage(answer)})
                yield format_sse_event(data_str="[DONE]")
            case "error" if event.error:
                yield _data(error_body(from_cascade(event.error)))
            case _:
                pass


def head_of(model: str) -> dict[str, Json]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


def _usage(answer: Answer) -> dict[str, Json]:
    """All calls together: a rejected draft was paid for, too."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _logprobs(answer: Answer) -> Json:
    """Those of the model that answered, if it gave any."""
    if not answer.tokens:
        return None
    entries: list[Json] = [
        {
            "token": token,
            "logprob": logprob if math.isfinite(logprob) else IMPOSSIBLE,
            "bytes": [*token.encode("utf-8", "replace")],
            "top_logprobs": [],
        }
        for token, logprob in zip(answer.tokens, answer.logprobs, strict=True)
    ]
    return {"content": entries, "refusal": None}


def _tool_calls(answer: Answer) -> list[dict[str, Json]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in answer.tool_calls
    ]


def headers(answer: Answer) -> dict[str, str]:
    """The facts, for clients that show no field that OpenAI does not have."""
    return {
        "X-Cascade-Model": answer.model_used,
        "X-Cascade-Outcome": answer.outcome,
        "X-Cascade-Cost": f"{answer.cost:f}",
        "X-Cascade-Saved": f"{answer.saved:f}",
    }


def facts(answer: Answer) -> dict[str, Json]:
    return {
        "model_used": answer.model_used,
        "outcome": answer.outcome,
        "cascaded": answer.cascaded,
        "draft_accepted": answer.draft_accepted,
        "cost": float(answer.cost),
        "saved": float(answer.saved),
        "complexity": answer.complexity,
        "reason": answer.reason,
    }


def _data(value: dict[str, Json]) -> bytes:
    return format_sse_event(data_str=json.dumps(value, ensure_ascii=False))
