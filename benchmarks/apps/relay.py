"""FastAPI that hands a question to one model and its answer back: no cascade, no price, no faults.

What people write by hand. CLIENT in the environment says with which client.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

URL = f"http://127.0.0.1:{os.environ['UPSTREAM_PORT']}/v1/chat/completions"
WITH_AIOHTTP = os.environ["CLIENT"] == "aiohttp"


class Question(BaseModel):
    query: str
    max_tokens: int = 100
    temperature: float = 0.7


class Client:
    """The same two calls with either client."""

    def __init__(self) -> None:
        if WITH_AIOHTTP:
            import aiohttp

            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        else:
            import httpx

            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            self.client = httpx.AsyncClient(limits=limits, timeout=60)

    async def whole(self, body: dict[str, object]) -> dict[str, object]:
        if WITH_AIOHTTP:
            async with self.session.post(URL, json=body) as response:
                response.raise_for_status()
                return await response.json()
        answer = await self.client.post(URL, json=body)
        answer.raise_for_status()
        return answer.json()

    async def lines(self, body: dict[str, object]) -> AsyncIterator[str]:
        if WITH_AIOHTTP:
            async with self.session.post(URL, json=body) as response:
                async for line in response.content:
                    yield line.decode().rstrip()
        else:
            async with self.client.stream("POST", URL, json=body) as answer:
                async for line in answer.aiter_lines():
                    yield line

    async def close(self) -> None:
        await (self.session.close() if WITH_AIOHTTP else self.client.aclose())


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.client = Client()
    yield
    await app.state.client.close()


app = FastAPI(lifespan=lifespan)


async def client(request: Request) -> Client:
    return request.app.state.client


TheClient = Annotated[Client, Depends(client)]


def body(question: Question, **more: object) -> dict[str, object]:
    return {
        "model": "small",
        "messages": [{"role": "user", "content": question.query}],
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        **more,
    }


@app.post("/api/query")
async def query(question: Question, client: TheClient) -> dict[str, object]:
    answer = await client.whole(body(question))
    return {"content": answer["choices"][0]["message"]["content"], "usage": answer["usage"]}


@app.post("/api/query/stream")
async def stream(question: Question, client: TheClient) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async for line in client.lines(body(question, stream=True)):
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            if choices and (text := choices[0]["delta"].get("content")):
                yield f"data: {json.dumps({'type': 'chunk', 'content': text})}\n\n"
        yield 'data: {"type": "complete"}\n\n'

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/readiness")
async def readiness() -> dict[str, str]:
    return {"status": "ready"}
