"""Money and limits over HTTP: four workers on one file, and three replicas on one Redis."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Render
from tests.drive import ACCEPTED
from tests.processes import Service, redis, run, serving, wait_for
from tests.variants import Variant
from tests.workshop import Workshop

WORKERS = 4
REPLICAS = 3
DEADLINE = 10
BROKEN = 0
"""In the place of a status, where the connection broke."""
# It may cost 0.04 dollars, whatever it does cost.
DEAR = {"query": ACCEPTED, "max_tokens": 4000, "force_direct": True}


@dataclass
class Fleet:
    """Processes that share their books."""

    project: Path
    env: dict[str, str]
    services: list[Service]

    @property
    def urls(self) -> list[str]:
        return [service.url for service in self.services]

    def started(self) -> int:
        """How many of its processes serve: an address is told before the first worker listens."""
        return sum(each.log.count("Application startup complete") for each in self.services)

    def busiest(self) -> int:
        """The id of the process that answers most: a replica, or a worker under its supervisor."""
        processes = [psutil.Process(service.process.pid) for service in self.services]
        if len(processes) == 1:
            processes = processes[0].children()
        asked = {process.pid: len(process.net_connections("tcp")) for process in processes}
        return max(asked, key=lambda pid: asked[pid])

    def entries(self) -> list[dict[str, Any]]:
        command = (program(self.project), "usage", "export", "--by", "query", "--format", "jsonl")
        lines = run(*command, cwd=self.project, env=self.env).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stats(self, url: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{url}/api/stats", timeout=30).json()
        return found

    def ask(self, bodies: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
        """All at once, each over a connection of its own; statuses and bodies."""
        return asyncio.run(self._ask(bodies))

    async def _ask(
        self, bodies: list[dict[str, Any]], apart: float = 0
    ) -> list[tuple[int, dict[str, Any]]]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=120, trust_env=False) as client:

            async def one(number: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
                url = self.urls[number % len(self.urls)]
                await asyncio.sleep(number * apart)
                try:
                    answer = await client.post(f"{url}/api/query", json=body)
                except httpx.TransportError:
                    return BROKEN, {}
                return answer.status_code, answer.json()

            return await asyncio.gather(*(one(n, body) for n, body in enumerate(bodies)))


def program(project: Path) -> Path:
    return project / ".venv" / "bin" / "my-cascade"


@pytest.fixture
def project(render: Render, workshop: Workshop) -> Path:
    project = render(Variant(frozenset({"rate_limit"})).answers)
    workshop.install(project, "--extra", "redis")
    return project


@pytest.fixture(params=["workers", "replicas"])
def start(request: pytest.FixtureRequest, project: Path) -> Iterator[Callable[..., Fleet]]:
    """Starts the processes with more settings."""
    together = request.param == "workers"
    options = ["--workers", str(WORKERS)] if together else []
    with ExitStack() as running:
        books = f"sqlite:///{project}/books.sqlite3"
        if not together:
            books = running.enter_context(redis(project, project))

        def start(**more: str) -> Fleet:
            env = {
                "LEDGER_URL": books,
                "REQUEST_DEADLINE_SECONDS": str(DEADLINE),
                "RATE_LIMIT": "1000000",
                "CASCADE_FILE": str(project / "cascade.toml"),
                **more,
            }
            services = []
            for number in range(1 if together else REPLICAS):
                folder = project / f"service-{number}"
                folder.mkdir()
                served = serving(
                    program(project), "serve", "--port", "0", *options, cwd=folder, env=env
                )
                services.append(running.enter_context(served))
            fleet = Fleet(project, env, services)
            wait_for(lambda: fleet.started() == (WORKERS if together else REPLICAS), 120)
            return fleet

        yield start


def test_500_queries_at_once_spend_no_more_than_the_budget(start: Callable[..., Fleet]) -> None:
    fleet = start(DAILY_BUDGET="0.03")
    answers = fleet.ask([{"query": f"{ACCEPTED} {number}"} for number in range(500)])
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) == {200, 402}
    budget, paid = Decimal("0.03"), statuses[200]
    entries = fleet.entries()
    assert len(entries) == len({entry["id"] for entry in entries}) == paid
    spent = sum(Decimal(str(entry["cost"])) for entry in entries)
    assert spent == sum(Decimal(str(body["cost"])) for status, body in answers if status == 200)
    assert 0 < spent <= budget
    for url in fleet.urls * WORKERS:
        found = fleet.stats(url)
        assert (found["total_queries"], Decimal(str(found["spent_today"]))) == (paid, spent)
    # Nothing is set aside any more.
    ((status, refusal),) = fleet.ask([DEAR])
    assert (status, Decimal(str(refusal["remaining"]))) == (402, budget - spent)


def test_the_books_balance_after_one_process_was_killed(start: Callable[..., Fleet]) -> None:
    fleet = start(DAILY_BUDGET="0.04")

    async def kill() -> tuple[int, list[tuple[int, dict[str, Any]]]]:
        slow = [{"query": f"{ACCEPTED} [[both:slow]] {number}"} for number in range(25)]
        # One by one: of many at once, a single worker may take all.
        asked = asyncio.create_task(fleet._ask(slow, apart=0.05))
        await asyncio.sleep(2)
        victim = fleet.busiest()
        os.kill(victim, signal.SIGKILL)
        return victim, await asked

    victim, answers = asyncio.run(kill())
    statuses = Counter(status for status, _ in answers)
    assert statuses[BROKEN] > 0
    assert set(statuses) <= {200, 504, BROKEN}
    fleet.services = [each for each in fleet.services if each.process.pid != victim]
    entries = fleet.entries()
    told = statuses.total() - statuses[BROKEN]
    assert len({entry["id"] for entry in entries}) == len(entries)
    assert told <= len(entries) < statuses.total()
    spent = sum(Decimal(str(entry["cost"])) for entry in entries)

    def remaining() -> Decimal:
        ((status, refusal),) = fleet.ask([DEAR])
        assert status == 402, (status, refusal, spent)
        return Decimal(str(refusal["remaining"]))

    budget = Decimal("0.04")
    assert remaining() < budget - spent
    wait_for(lambda: remaining() == budget - spent, DEADLINE + 60)


def test_sixty_requests_a_minute_are_sixty(start: Callable[..., Fleet]) -> None:
    fleet = start(RATE_LIMIT="60")
    statuses = Counter(status for status, _ in fleet.ask([{"query": ACCEPTED}] * 240))
    assert statuses == {200: 60, 429: 180}
