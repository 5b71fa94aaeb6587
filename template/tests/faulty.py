"""Upstreams that have each of the faults, and a crowd of queries that meets them all at once."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI
from pydantic import SecretStr

from app import main, runtime
from app.cascade import upstream
from app.cascade.config import Model
from app.cascade.engine import Engine
from app.cascade.types import Completion, Event, Query, Role, Usage
from app.cascade.upstream import OnText, Upstream, wire
from app.http.problems import from_cascade
from app.ledger import Entry, Ledger, Reservation, opening
from app.settings import Settings
from tests.conftest import cascade_toml, stubbed
from tests.faults import Failure, Fault, Where

QUERY = "What is AI? Orchid."
GOOD = "AI is the study of thinking machines."
POOR = "I don't know, maybe."
ANSWER = "Artificial intelligence is software that learns."
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100}
REPORTED = Usage(1000, 100)
KEYS = {"DRAFTER_KEY": "sk-drafter-7", "VERIFIER_KEY": "sk-verifier-7"}
UPSTREAM_SAYS = "upstream-says-this"
SECRETS = (
    "Orchid",
    *KEYS.values(),
    UPSTREAM_SAYS,
    "127.0.0.1:",
    "http://",
    "https://",
    "invalid/v1",
    "chat/completions",
    "Error(",
    "Traceback",
    "aiohttp",
    "pydantic",
)
"""Of a prompt, keys, addresses and exceptions: what nobody may be told, and no log may hold."""

SHORT = 4.0
"""Seconds: the deadline where only a deadline ends the query."""
TICK = SHORT / 20
CONNECT_SECONDS = 3.0
RETRY_AFTER = 2
IDLE = ("connect", "hang", "dribble", "slow", "429-after")
"""Faults whose queries mostly wait, and may do so all at once."""
BUDGET = Decimal(1000)


# --- the faults -----------------------------------------------------------------------------------


async def misbehave(request: web.Request) -> web.StreamResponse:
    """Answers `/v1/<fault>/<index of text>/chat/completions` with the fault."""
    name, index = request.path.split("/")[2:4]
    stream = bool((await request.json()).get("stream"))
    text = (GOOD, POOR, ANSWER)[int(index)]
    if name[:3].isdecimal():
        after = {"Retry-After": str(RETRY_AFTER)} if name.endswith("-after") else {}
        return web.json_response({"error": UPSTREAM_SAYS}, status=int(name[:3]), headers=after)
    pieces = (_lines if stream else _bodies)(name, text)
    if name in ("closed", "hang", "cut-early", "dribble", "slow", "cut-late"):
        return await _slowly(request, name, pieces)
    return web.Response(body="".join(pieces).encode(), content_type="application/json")


async def _slowly(request: web.Request, name: str, pieces: list[str]) -> web.StreamResponse:
    if name == "hang":
        await asyncio.sleep(60)
    response = web.StreamResponse()
    if name != "closed":
        await response.prepare(request)
    for number, piece in enumerate(pieces):
        if name == "closed" or (name, number) in (("cut-early", 0), ("cut-late", 1)):
            assert request.transport
            request.transport.close()
            return response
        await response.write(piece.encode())
        await asyncio.sleep({"dribble": SHORT / 4, "slow": TICK}.get(name, 0))
    return response


def _bodies(name: str, text: str) -> list[str]:
    """The JSON answer with its fault, in pieces."""
    message = _CONTENT.get(name, {"content": text})
    whole: dict[str, Any] = {"choices": [{"message": message, "finish_reason": "stop"}]}
    if name == "no-choices":
        return [json.dumps({"error": UPSTREAM_SAYS})]
    if name != "no-usage":
        whole["usage"] = USAGE
    body = _broken(name, json.dumps(whole))
    step = max(1, len(body) // 5)
    return [body[start : start + step] for start in range(0, len(body), step)]


def _lines(name: str, text: str) -> list[str]:
    """The streamed answer with its fault, event by event."""
    words = [f"{word} " for word in text.split()]
    deltas = [_CONTENT[name]] if name in _CONTENT else [{"content": word} for word in words]
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    if name == "no-choices":
        chunks = [{"error": UPSTREAM_SAYS}]
    elif name != "no-usage":
        chunks.append({"choices": [], "usage": USAGE})
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    if name == "unfinished":
        return events[:2]
    if name != "no-done":
        events.append("data: [DONE]\n\n")
    return [_broken(name, event) for event in events]


_CONTENT: dict[str, dict[str, Any]] = {
    "no-content": {},
    "null-content": {"content": None},
    "empty-content": {"content": ""},
    "blank-content": {"content": " \n"},
}


def _broken(name: str, text: str) -> str:
    match name:
        case "malformed":
            return text.replace(":", "", 1) if text.startswith("{") else f"data: {UPSTREAM_SAYS}\n"
        case "html":
            return f"<!doctype html><title>{UPSTREAM_SAYS}</title>"
        case "empty-body":
            return ""
        case "unfinished":
            return text[: len(text) // 2]
        case _:
            return text


@asynccontextmanager
async def unreachable() -> AsyncIterator[dict[str, str]]:
    """Base URLs of the faults that come before any HTTP."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS is spoken here\r\n")
        writer.close()

    with ExitStack() as stack:
        refusing, full = (stack.enter_context(socket.socket()) for _ in range(2))
        for each in (refusing, full):
            each.bind(("127.0.0.1", 0))
        # A queue for connections that is full: whoever asks next gets no answer.
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            plain = server.sockets[0]
            yield {
                "refused": f"http://127.0.0.1:{refusing.getsockname()[1]}/v1",
                "connect": f"http://127.0.0.1:{full.getsockname()[1]}/v1",
                "tls": f"https://127.0.0.1:{plain.getsockname()[1]}/v1",
            }


# --- the crowd ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """One query of the matrix."""

    fault: Fault
    where: Where
    stream: bool
    failure: Failure
    tries: int = 1

    def __str__(self) -> str:
        form = "stream" if self.stream else "json"
        return f"{self.fault.name}-{self.where}-{form}-{self.failure}"

    def way(self, role: Role) -> str:
        """The path to an upstream that behaves as this query needs it."""
        faulty = self.where in (role, "both") or (self.where == "direct" and role == "verifier")
        text = 2 if role == "verifier" else 0 if self.where == "drafter" else 1
        return f"{self.fault.name if faulty else 'well'}/{text}"


@dataclass
class Told:
    """What became of one query: what its client was told, and the books."""

    cell: Cell
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    calls: list[Role] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def shown(self) -> str:
        """What the client of a stream shows in the end."""
        text = ""
        for event in self.events:
            if event.type == "switch":
                discard = event.data["discard"]
                assert isinstance(discard, int)
                assert discard <= len(text)
                text = text[: len(text) - discard]
            if event.type == "chunk":
                text += event.content
        return text

    @property
    def everything(self) -> str:
        """All that the client was sent, as one text."""
        events = [(event.type, event.content, dict(event.data)) for event in self.events]
        return json.dumps([self.body, dict(self.headers), events])


ASKED: ContextVar[Told] = ContextVar("asked")
"""The query that the running task belongs to."""


class Books(Ledger):
    """Notes each entry with its query as well."""

    async def settle(self, reservation: Reservation, entry: Entry) -> None:
        ASKED.get().entries.append(entry)
        await super().settle(reservation, entry)


@dataclass
class Faulty:
    """An upstream that behaves as the running query wants it, over real connections."""

    role: Role
    connect: Callable[[str], Upstream]

    async def answer(self, query: Query, on_text: OnText | None = None) -> Completion:
        told = ASKED.get()
        told.calls.append(self.role)
        return await self.connect(told.cell.way(self.role)).answer(query, on_text)

    async def reach(self) -> None:
        raise NotImplementedError


@contextmanager
def faulty_upstreams(base: str, others: Mapping[str, str]) -> Iterator[None]:
    """Every app that starts meanwhile has upstreams with all faults."""

    def connect(
        session: aiohttp.ClientSession, model: Model, endpoint: str, key: SecretStr | None
    ) -> Upstream:
        def to(way: str) -> Upstream:
            url = others.get(way.split("/")[0], f"{base}/{way}")
            return upstream.connect(session, model, url, key)

        return Faulty("drafter" if "drafter" in endpoint else "verifier", to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "connect", connect)
        patch.setattr(opening, "Ledger", Books)
        patch.setattr(wire, "CONNECT_SECONDS", CONNECT_SECONDS)
        for name, key in KEYS.items():
            patch.setenv(name, key)
        yield


_ports = itertools.count(1)


async def ask_json(app: FastAPI, told: Told) -> None:
    """Asks over HTTP, inside the process."""
    number = next(_ports)
    # An address of its own: a service may count requests by it.
    address = (f"10.1.{number // 250}.{number % 250 + 1}", 1024)
    transport = httpx.ASGITransport(app, client=address)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        response = await client.post(
            "/api/query",
            json={"query": QUERY, "force_direct": told.cell.where == "direct"},
            headers={"X-Request-Deadline": str(_deadline(told.cell))},
        )
    told.status, told.body, told.headers = response.status_code, response.json(), response.headers


async def ask_stream(app: FastAPI, told: Told) -> None:
    """Asks the app's engine for events, and reads the last as a client would."""
    engine: Engine = app.state.engine
    query = Query.ask(
        QUERY, force_direct=told.cell.where == "direct", deadline=_deadline(told.cell)
    )
    async with engine.open(query) as events:
        told.events = [event async for event in events]
    last = told.events[-1]
    if last.error:
        problem = from_cascade(last.error)
        told.status, told.body, told.headers = problem.status, problem.body(), problem.headers
    if last.answer:
        told.status = 200
        told.body = {
            "content": last.answer.content,
            "model_used": last.answer.model_used,
            "degraded": last.answer.degraded,
            "cost": float(last.answer.cost),
            "saved": float(last.answer.saved),
            "reason": last.answer.reason,
            "usage": {"estimated": last.answer.usage.estimated},
        }


def _deadline(cell: Cell) -> float:
    return SHORT if cell.fault.lasting else 30.0


async def crowd(
    make_settings: Callable[..., Settings], folder: Path, cells: Sequence[Cell]
) -> dict[Cell, Told]:
    """Ask all cells at once, one app for each setting; a few busy queries a time."""
    told = {cell: Told(cell) for cell in cells}
    gate = asyncio.Semaphore(8)

    async def one(app: FastAPI, asked: Told) -> None:
        ASKED.set(asked)
        ask = ask_stream if asked.cell.stream else ask_json
        async with nullcontext() if asked.cell.fault.name in IDLE else gate:
            started = asyncio.get_running_loop().time()
            await ask(app, asked)
            asked.seconds = asyncio.get_running_loop().time() - started

    async def through(failure: Failure, tries: int) -> None:
        path = folder / f"cascade-{failure}.toml"
        more = f'on_verifier_failure = "{failure}"'
        drafter, verifier = "http://drafter.invalid/v1", "http://verifier.invalid/v1"
        path.write_text(cascade_toml(drafter, verifier, more=more, keys=True), encoding="utf-8")
        app = main.create_app(
            make_settings(cascade_file=path, daily_budget=BUDGET, upstream_attempts=tries)
        )
        async with app.router.lifespan_context(app), asyncio.TaskGroup() as group:
            for asked in told.values():
                if (asked.cell.failure, asked.cell.tries) == (failure, tries):
                    group.create_task(one(app, asked))
        spent = (await app.state.ledger.totals()).spent_today
        # Refused if anything is still set aside.
        await app.state.ledger.reserve(BUDGET - spent)

    async with stubbed(misbehave) as stub, unreachable() as others:
        with faulty_upstreams(stub.url, others):
            async with asyncio.TaskGroup() as group:
                for failure, tries in {(cell.failure, cell.tries) for cell in cells}:
                    group.create_task(through(failure, tries))
    return told
