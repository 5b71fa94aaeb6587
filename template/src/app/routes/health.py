"""Probes: `/liveness` for restarts, `/readiness` for traffic, `/health` for people."""

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app import features
from app.http.dependencies import TheLedger, TheReadyEngine
from app.http.problems import Problem

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


class LedgerResponse(BaseModel):
    """Where the books are, and what happens while they are out of reach."""

    kind: str
    reachable: bool
    on_failure: Literal["closed", "open"]
    waiting: Annotated[int, Field(description="Entries that are still to be written")]


class StandingResponse(BaseModel):
    """What a feature leans on, and what happens while it is out of reach."""

    kind: str
    reachable: bool
    on_failure: Literal["closed", "open"]


class ReadinessResponse(BaseModel):
    """Whether the service takes queries."""

    status: Literal["ready"]
    ledger: LedgerResponse
    features: Annotated[
        dict[str, StandingResponse], Field(description="Those that lean on something, by name")
    ]


class LivenessResponse(BaseModel):
    """A probe's whole answer."""

    status: Literal["alive"]


@router.get("/health")
async def health(request: Request, engine: TheReadyEngine) -> HealthResponse:
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
async def readiness(request: Request, _: TheReadyEngine, ledger: TheLedger) -> ReadinessResponse:
    """200 while the service takes queries; 503 while it starts or stops, or may not spend."""
    health = await ledger.health()
    if not health.reachable and health.on_failure == "closed":
        raise Problem(
            503,
            "ledger_unavailable",
            f"The ledger ({health.kind}) is out of reach, and LEDGER_ON_FAILURE=closed.",
            {"Retry-After": "1"},
        )
    standings = await features.standings(request.app.state.features)
    for name, standing in standings.items():
        if not standing.reachable and standing.on_failure == "closed":
            raise Problem(
                503,
                f"{name}_unavailable",
                f"What {name} leans on ({standing.kind}) is out of reach,"
                f" and {name.upper()}_ON_FAILURE=closed.",
                {"Retry-After": "1"},
            )
    return ReadinessResponse(
        status="ready",
        ledger=LedgerResponse(
            kind=health.kind,
            reachable=health.reachable,
            on_failure=health.on_failure,
            waiting=health.waiting,
        ),
        features={
            name: StandingResponse(
                kind=standing.kind,
                reachable=standing.reachable,
                on_failure=standing.on_failure,
            )
            for name, standing in standings.items()
        },
    )


@router.get("/liveness")
async def liveness() -> LivenessResponse:
    """200 while the event loop turns."""
    return LivenessResponse(status="alive")
