"""The app that cascadeflow's FastAPI guide puts together, written so that it runs.

The stock agent and provider, the guide's request and response models, statistics, log middleware,
rate limit and Prometheus metrics. What differs from the guide, because its own does not work: the
lifespan takes the place of `on_event`, pydantic's second version that of the first; errors that
cascadeflow never raises are not caught; `/metrics` has a module of its own name; the providers are
pointed at UPSTREAM_PORT; and the limits are so high that they refuse nothing.
"""

import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import prometheus_client
from cascadeflow import CascadeAgent, ModelConfig
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, Field, field_validator
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("guide")
agent: Any = None
stats: dict[str, Any] = {
    "total_queries": 0,
    "total_cost": 0.0,
    "models_used": {},
    "start_time": datetime.now(),
}
query_counter = Counter("cascadeflow_queries_total", "Total queries")
query_duration = Histogram("cascadeflow_query_duration_seconds", "Query duration")
query_cost = Histogram("cascadeflow_query_cost_dollars", "Query cost")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    global agent
    agent = CascadeAgent(
        models=[
            ModelConfig("small", provider="openai", cost=0.00015),
            ModelConfig("large", provider="openai", cost=0.00625),
        ]
    )
    for provider in agent.model_providers.values():
        provider.base_url = f"http://127.0.0.1:{os.environ['UPSTREAM_PORT']}/v1"
    yield


app = FastAPI(lifespan=lifespan)
limiter = Limiter(key_func=get_remote_address)
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)


@app.middleware("http")
async def log_requests(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    start_time = time.time()
    response = await call_next(request)
    duration = time.time() - start_time
    logger.info(
        f"{request.method} {request.url.path} "
        f"status={response.status_code} duration={duration:.3f}s"
    )
    return response


class QueryRequest(BaseModel):
    query: str = Field(..., min_length=1, max_length=int(os.environ.get("MAX_QUERY_CHARS", "2000")))
    max_tokens: int = Field(default=100, ge=1, le=4000)
    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    force_direct: bool = False

    @field_validator("query")
    @classmethod
    def validate_query(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("Query cannot be empty")
        return value.strip()


class QueryResponse(BaseModel):
    content: str
    model_used: str
    cost: float
    latency_ms: float
    cascaded: bool
    draft_accepted: bool | None = None


@app.post("/api/query", response_model=QueryResponse)
@limiter.limit("1000000000/minute")
async def query_endpoint(request: Request, query_req: QueryRequest) -> QueryResponse:
    query_counter.inc()
    with query_duration.time():
        result = await agent.run(
            query=query_req.query,
            max_tokens=query_req.max_tokens,
            temperature=query_req.temperature,
            force_direct=query_req.force_direct,
        )
    query_cost.observe(result.total_cost)
    stats["total_queries"] += 1
    stats["total_cost"] += result.total_cost
    stats["models_used"][result.model_used] = stats["models_used"].get(result.model_used, 0) + 1
    return QueryResponse(
        content=result.content,
        model_used=result.model_used,
        cost=result.total_cost,
        latency_ms=result.latency_ms,
        cascaded=result.cascaded or False,
        draft_accepted=result.draft_accepted,
    )


@app.post("/api/query/stream")
@limiter.limit("1000000000/minute")
async def stream_query(request: Request, query_req: QueryRequest) -> StreamingResponse:
    async def event_generator() -> AsyncIterator[str]:
        async for event in agent.text_streaming_manager.stream(
            query=query_req.query, max_tokens=query_req.max_tokens
        ):
            event_data = {
                "type": event.type.value,
                "content": event.content,
                "data": event.data or {},
            }
            yield f"data: {json.dumps(event_data)}\n\n"

    return StreamingResponse(
        event_generator(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@app.get("/api/stats")
async def get_stats() -> dict[str, Any]:
    return {name: value for name, value in stats.items() if name != "start_time"}


@app.get("/health")
async def health_check() -> dict[str, Any]:
    return {"status": "healthy" if agent is not None else "unhealthy"}


@app.get("/readiness")
async def readiness_check() -> dict[str, str]:
    if agent is None:
        raise HTTPException(status_code=503, detail="Agent not ready")
    return {"status": "ready"}


@app.get("/metrics")
async def metrics() -> Response:
    return Response(prometheus_client.generate_latest(), media_type="text/plain")
