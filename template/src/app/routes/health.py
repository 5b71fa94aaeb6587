"""Probes: `/liveness` for restarts, `/readiness` for traffic, `/health` for people."""

import time
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.http.dependencies import TheEngine

router = APIRouter(tags=["health"])


class HealthResponse(BaseModel):
    """What runs here."""

    status: Literal["healthy"]
    version: str
    agent_initialized: bool
    simulated: bool
    drafter: str
    verifier: str
    features: list[str]
    uptime_seconds: float


class ProbeResponse(BaseModel):
    """A probe's whole answer."""

    status: Literal["ready", "alive"]


@router.get("/health")
async def health(request: Request, engine: TheEngine) -> HealthResponse:
    """What runs here, and whether it is simulated. 503 unless it is ready."""
    return HealthResponse(
        status="healthy",
        version=request.app.version,
        agent_initialized=True,
        simulated=engine.models.simulated,
        drafter=engine.models.drafter.name,
        verifier=engine.models.verifier.name,
        features=[feature.name for feature in request.app.state.features],
        uptime_seconds=round(time.monotonic() - request.app.state.started, 3),
    )


@router.get("/readiness")
async def readiness(_: TheEngine) -> ProbeResponse:
    """200 while the service takes queries, 503 while it starts or stops."""
    return ProbeResponse(status="ready")


@router.get("/liveness")
async def liveness() -> ProbeResponse:
    """200 while the event loop turns."""
    return ProbeResponse(status="alive")
