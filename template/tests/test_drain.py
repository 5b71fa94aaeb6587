"""SIGTERM, sent to real processes at work: nothing that was begun is lost."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from app.ledger import Budgets, Ledger, Totals
from app.ledger.opening import store
from tests.conftest import ACCEPTED, TLS, client_of, eventually
from tests.served import SOURCE, Served, served

QUERY = {"query": ACCEPTED}
SLOW = {"query": f"[[drafter:slow]] {ACCEPTED}", "max_tokens": 15}
HANGING = {"query": f"[[both:hang]] {ACCEPTED}"}

Ask = Callable[[Served, object], "Future[httpx.Response]"]


@pytest.fixture
def ask(simulator_url: str) -> Iterator[Ask]:
    """Sends a query beside the test, which goes on when a model is at work on it."""

    def asked() -> int:
        stats = httpx.get(f"{simulator_url}/simulator/stats", verify=TLS).json()
        return int(stats["simulator-small"]["started"])

    with ThreadPoolExecutor(8) as threads:

        def asking(service: Served, query: object) -> "Future[httpx.Response]":
            def send() -> httpx.Response:
                with client_of(service.url) as client:
                    return client.post("/api/query", json=query, timeout=20)

            before = asked()
            answer = threads.submit(send)
            assert eventually(lambda: asked() > before)
            return answer

        yield asking


def books(url: str) -> Totals:
    """What a service that has ended has written."""

    async def read() -> Totals:
        ledger = Ledger(store(url), Budgets(Decimal(10)))
        async with ledger.running():
            return await ledger.totals()

    return asyncio.run(read())


def test_a_start_is_left_at_once() -> None:
    # Its own handler, for the kernel gives process 1 of a container none.
    command = [sys.executable, "-X", "importtime", "-m", "app", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if line.split()[-1] == "typer":
                break
        process.terminate()
        # Read to its end: a full pipe would stop it.
        process.stderr.read()
        assert process.wait(20) == 128 + signal.SIGTERM


def test_readiness_turns_at_once_and_queries_are_taken_for_a_while(
    cascade_file: Path, ask: Ask
) -> None:
    with served(cascade_file, DRAIN_SECONDS="2") as service, client_of(service.url) as client:

        def status(path: str) -> int:
            return client.get(path).status_code

        def query() -> httpx.Response:
            return client.post("/api/query", json=QUERY)

        assert (status("/readiness"), status("/health")) == (200, 200)
        # It holds the process until all of this has been seen.
        slow = ask(service, {**SLOW, "max_tokens": 40})
        service.terminate()
        told = time.monotonic()
        assert eventually(lambda: status("/readiness") == 503, 1)
        assert (status("/health"), status("/liveness")) == (503, 200)
        taken = query()
        assert (taken.status_code, taken.headers["connection"]) == (200, "close")
        assert time.monotonic() - told < 2

        time.sleep(max(0.0, told + 2.2 - time.monotonic()))
        refused = query()
        assert (refused.status_code, refused.json()["error"]) == (503, "not_ready")
        assert refused.headers["retry-after"] == "1"
        assert status("/liveness") == 200
        assert slow.result().status_code == 200
        assert service.ended() == 0
    assert "Traceback" not in service.log


def test_what_takes_too_long_is_told_and_settled(
    cascade_file: Path, ask: Ask, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    with served(cascade_file, SHUTDOWN_GRACE_SECONDS="1", LEDGER_URL=url) as service:
        hanging = ask(service, HANGING)
        service.terminate()
        told = hanging.result()
        assert (told.status_code, told.json()["error"]) == (503, "not_ready")
        assert told.headers["retry-after"] == "1"
        assert service.ended() == 0
    assert "Traceback" not in service.log
    assert books(url).by_outcome == {"failed": 1}


def test_a_second_interrupt_from_a_terminal_waits_for_nothing(cascade_file: Path, ask: Ask) -> None:
    with served(cascade_file, DRAIN_SECONDS="60") as service:
        hanging = ask(service, HANGING)
        service.process.send_signal(signal.SIGINT)
        assert eventually(lambda: "draining: 1 in flight" in service.log)
        service.process.send_signal(signal.SIGINT)
        assert hanging.result().status_code == 503
        assert service.ended() == 0


@pytest.mark.parametrize("options", [("--workers", "4"), ("--reload",)], ids=" ".join)
def test_processes_under_a_parent_drain_as_one_does(
    options: tuple[str, ...], cascade_file: Path, ask: Ask, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    answers: Counter[int] = Counter()
    stopped = threading.Event()

    def load(service: Served) -> None:
        """Clients that keep their connections; one that is not answered was not heard."""
        while not stopped.is_set():
            with client_of(service.url) as client:
                for _ in range(20):
                    try:
                        answers[client.post("/api/query", json=QUERY).status_code] += 1
                    except httpx.TransportError:
                        assert service.stopping
                        time.sleep(0.01)

    with (
        served(cascade_file, *options, DRAIN_SECONDS="1", LEDGER_URL=url) as service,
        ThreadPoolExecutor(2) as clients,
    ):
        slow = [ask(service, SLOW) for _ in range(8)]
        loads = [clients.submit(load, service) for _ in range(2)]
        try:
            assert eventually(lambda: answers[200] > 20)
            service.terminate()
            assert [each.result().status_code for each in slow] == [200] * 8
            assert service.ended() == 0
        finally:
            stopped.set()
        for each in loads:
            each.result()
    assert "Traceback" not in service.log
    assert answers.keys() <= {200, 503}
    assert books(url).by_outcome == {"accepted": answers[200] + 8}
