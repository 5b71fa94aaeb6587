"""Probes: alive, ready, and what runs here."""

import asyncio
from collections.abc import Callable, Sequence

import httpx
import pytest

from app.features import Feature, Standing
from app.ledger import OnFailure
from app.main import create_app
from app.settings import Settings
from tests.conftest import CASCADE


def test_health_says_what_runs_here(client: httpx.Client) -> None:
    health = client.get("/health").json()
    assert health["status"] == "healthy"
    assert health["agent_initialized"] is True
    assert health["simulated"] is False
    assert (health["drafter"], health["verifier"]) == ("simulator-small", "simulator-large")
    assert health["uptime_seconds"] >= 0


def test_probes_answer(client: httpx.Client) -> None:
    ledger = {"kind": "memory", "reachable": True, "on_failure": "closed", "waiting": 0}
    readiness = client.get("/readiness").json()
    assert (readiness["status"], readiness["ledger"]) == ("ready", ledger)
    assert client.get("/liveness").json() == {"status": "alive"}


def get(
    settings: Settings, path: str, *, running: bool, features: Sequence[Feature] = ()
) -> httpx.Response:
    """Ask an app without a server, before or after its start."""
    app = create_app(settings)
    app.state.features += features

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            if not running:
                return await client.get(path)
            async with app.router.lifespan_context(app):
                return await client.get(path)

    return asyncio.run(go())


def test_health_says_that_answers_are_simulated() -> None:
    settings = Settings(cascade_file=CASCADE, simulator="on")
    assert get(settings, "/health", running=True).json()["simulated"] is True


@pytest.mark.parametrize("path", ["/health", "/readiness", "/api/query?query=hi"])
def test_before_the_start_the_service_is_not_ready(
    make_settings: Callable[..., Settings], path: str
) -> None:
    response = get(make_settings(), path, running=False)
    assert response.status_code == 503
    assert response.json()["error"] == "not_ready"
    assert response.headers["retry-after"] == "1"


def test_before_the_start_the_service_is_alive(make_settings: Callable[..., Settings]) -> None:
    assert get(make_settings(), "/liveness", running=False).status_code == 200


@pytest.mark.parametrize(
    ("reachable", "on_failure", "status"),
    [(True, "closed", 200), (False, "open", 200), (False, "closed", 503)],
)
def test_readiness_tells_of_what_features_lean_on(
    make_settings: Callable[..., Settings], reachable: bool, on_failure: OnFailure, status: int
) -> None:
    async def stand() -> Standing:
        return Standing("cellar", reachable, on_failure)

    leaning = Feature(name="leaning", standing=stand)
    response = get(make_settings(), "/readiness", running=True, features=[leaning])
    assert response.status_code == status
    if status == 200:
        told = {"kind": "cellar", "reachable": reachable, "on_failure": on_failure}
        assert response.json()["features"]["leaning"] == told
    else:
        assert response.json()["error"] == "leaning_unavailable"
