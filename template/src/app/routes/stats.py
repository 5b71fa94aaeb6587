"""`/api/stats`: what has been asked, answered, spent and saved."""

import time
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.http.dependencies import TheLedger
from app.http.guard import require
from app.ledger.latency import percentile

router = APIRouter(tags=["stats"])


class LatencyResponse(BaseModel):
    """Milliseconds within which so many of a hundred answers came, to five per cent."""

    p50: float | None
    p95: float | None
    p99: float | None


class StatsResponse(BaseModel):
    """Totals of the ledger since it was begun or reset, in US dollars; the same in every worker."""

    total_queries: int
    total_cost: float
    total_saved: float
    avg_cost_per_query: float
    models_used: dict[str, int]
    outcomes: dict[str, int]
    acceptance_rate: Annotated[
        float | None, Field(description="Drafts accepted of all drafts made; null before the first")
    ]
    latency_ms: LatencyResponse
    spent_today: float
    daily_budget: float
    since: Annotated[datetime | None, Field(description="The last reset; null if there was none")]
    uptime_seconds: Annotated[float, Field(description="Of the process that answers")]


@router.get("/api/stats")
async def get_stats(request: Request, ledger: TheLedger) -> StatsResponse:
    """The totals of all workers, and of all replicas that share the ledger."""
    totals = await ledger.totals()
    accepted = totals.by_outcome.get("accepted", 0)
    drafts = accepted + totals.by_outcome.get("rejected", 0)
    return StatsResponse(
        total_queries=totals.queries,
        total_cost=float(totals.cost),
        total_saved=float(totals.saved),
        avg_cost_per_query=float(totals.cost / totals.queries) if totals.queries else 0.0,
        models_used=totals.by_model,
        outcomes=totals.by_outcome,
        acceptance_rate=accepted / drafts if drafts else None,
        latency_ms=LatencyResponse(
            **{f"p{n}": percentile(totals.latency, n / 100) for n in (50, 95, 99)}
        ),
        since=totals.since,
        spent_today=float(totals.spent_today),
        daily_budget=float(totals.budget),
        uptime_seconds=round(time.monotonic() - request.app.state.started, 3),
    )


@router.delete("/api/stats", status_code=204, dependencies=[Depends(require("admin"))])
async def reset_stats(ledger: TheLedger) -> None:
    """Begin the totals anew; the day's budget is not given back."""
    await ledger.reset()
