"""`/api/stats`: what has been asked, answered, spent and saved."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.http.dependencies import TheLedger
from app.http.keys import require

router = APIRouter(tags=["stats"])


class StatsResponse(BaseModel):
    """Totals since the start or the last reset, in US dollars and seconds."""

    total_queries: int
    total_cost: float
    total_saved: float
    avg_cost_per_query: float
    models_used: dict[str, int]
    outcomes: dict[str, int]
    acceptance_rate: Annotated[
        float | None, Field(description="Drafts accepted of all drafts made; null before the first")
    ]
    spent_today: float
    daily_budget: float
    uptime_seconds: float


@router.get("/api/stats")
async def get_stats(request: Request, ledger: TheLedger) -> StatsResponse:
    """The totals of this process."""
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
        spent_today=float(totals.spent_today),
        daily_budget=float(totals.budget),
        uptime_seconds=round(time.monotonic() - request.app.state.started, 3),
    )


@router.delete("/api/stats", status_code=204, dependencies=[Depends(require("admin"))])
async def reset_stats(ledger: TheLedger) -> None:
    """Begin the totals anew; the day's budget is not given back."""
    await ledger.reset()
