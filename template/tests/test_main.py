"""`create_app`: everything put together, and nothing shared."""

import asyncio
import gc
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app import features, runtime
from app.about import about
from app.cascade.errors import ConfigurationError, UpstreamFault
from app.cascade.types import Completion, Query, Usage
from app.cascade.upstream import OnText
from app.main import create_app, create_sole_app
from app.settings import Settings
from tests.conftest import (
    ACCEPTED,
    CASCADE,
    Answering,
    Serve,
    Stub,
    answer_json,
    cascade_toml,
)

A_KEY = f"ann:use:{'0' * 64}"


def test_two_services_in_one_process_share_nothing(serve: Serve) -> None:
    one, two = serve(max_query_chars=5), serve()
    one.post("/api/query", json={"query": "hi"})
    assert two.get("/api/stats").json()["total_queries"] == 0
    assert one.post("/api/query", json={"query": "What is AI?"}).status_code == 422
    assert two.post("/api/query", json={"query": "What is AI?"}).status_code == 200


def test_a_model_that_one_service_leaves_alone_is_asked_by_another(
    serve: Serve, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    upstream = stub(answer_json({}, 500))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    one, two = (serve(cascade_file=path, breaker_failures=1) for _ in range(2))
    query = {"query": "hi", "force_direct": True}
    statuses = [each.post("/api/query", json=query).status_code for each in (one, one, two)]
    assert statuses == [502, 503, 502]


def test_a_service_can_start_again_in_another_event_loop(
    make_settings: Callable[..., Settings],
) -> None:
    app = create_app(make_settings())

    async def ask() -> list[object]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            answer = (await client.post("/api/query", json={"query": ACCEPTED})).json()
            stats = (await client.get("/api/stats")).json()
            return [answer["model_used"], stats["total_queries"]]

    assert [asyncio.run(ask()) for _ in range(2)] == [
        ["simulator-small", 1],
        ["simulator-small", 2],
    ]


class Fake:
    """An upstream without a network."""

    def __init__(self, *_: object) -> None:
        pass

    async def answer(self, query: Query, on_text: OnText | None = None) -> Completion:
        """A good answer, a poor one, or none, by what is asked."""
        text = query.messages[0].content
        if "fail" in text:
            raise UpstreamFault("unavailable", 500)
        said = "I don't know, maybe." if "poor" in text else "AI is software that learns."
        if on_text:
            await on_text(said)
        return Completion(said, "stop", Usage(10, 10))

    async def reach(self) -> None:
        raise NotImplementedError


def test_nothing_grows_with_the_number_of_queries(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "connect", Fake)
    app = create_app(make_settings())

    async def ask(times: int) -> None:
        for number in range(times):
            text = f"What is AI? {('good', 'poor', 'fail')[number % 3]} {number}"
            query = Query.ask(text, force_direct=number % 4 == 0)
            async with app.state.engine.open(query) as events:
                async for _ in events:
                    pass

    async def go() -> list[dict[str, int]]:
        seen = []
        async with app.router.lifespan_context(app):
            await ask(800)  # what is bounded fills up
            for _ in range(4):
                await ask(300)
                seen.append(blocks())
        return seen

    tracemalloc.start()
    first, *rest = asyncio.run(go())
    tracemalloc.stop()
    growing = [
        line
        for line, count in first.items()
        if all(now.get(line, 0) >= count + 80 * step for step, now in enumerate(rest, start=1))
    ]
    assert growing == []


def blocks() -> dict[str, int]:
    """How many blocks of memory are held, by the line that asked for them."""
    gc.collect()
    found = tracemalloc.take_snapshot().statistics("lineno")
    return {str(each.traceback): each.count for each in found}


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One in which nothing else is collected, and which goes on as it was."""
    monkeypatch.setenv("CASCADE_FILE", str(CASCADE))
    thresholds = gc.get_threshold()
    gc.disable()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


@pytest.mark.usefixtures("process")
def test_what_the_start_of_a_process_made_is_not_looked_through_again() -> None:
    service = create_app()
    circle = weakref.ref(service)
    service.state.itself = service
    del service
    create_sole_app()
    assert gc.get_freeze_count() > 0
    assert circle() is None, "garbage was kept forever"


@pytest.mark.usefixtures("process")
def test_objects_of_queries_under_way_are_looked_at_by_the_thousand() -> None:
    create_sole_app()
    assert gc.get_threshold()[0] == 10_000


IMPORTED = """
import ssl
from app.cascade.unverified import import_aiohttp
import_aiohttp()
from aiohttp import connector
default = ssl.create_default_context()
for context in (connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED, default):
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="upstream.example")
    print(context.verify_mode.name, context.check_hostname, context.cert_store_stats())
    assert type(context) is ssl.SSLContext
"""


def test_whom_an_upstreams_certificate_may_be_signed_by_is_as_without_the_sooner_import() -> None:
    found = subprocess.check_output((sys.executable, "-c", IMPORTED), text=True)
    verifying, other, usual = found.splitlines()
    assert verifying == usual
    assert usual.startswith("CERT_REQUIRED True ")
    assert other.startswith("CERT_NONE ")


def test_settings_come_from_the_environment_when_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CASCADE_FILE", str(CASCADE))
    monkeypatch.setenv("MAX_QUERY_CHARS", "77")
    assert create_app().state.settings.max_query_chars == 77


def test_an_unusable_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILY_BUDGET", "-1")
    with pytest.raises(ConfigurationError, match=r"^DAILY_BUDGET: "):
        create_app()


def test_a_missing_cascade_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="CASCADE_FILE"):
        create_app(Settings())


def test_production_without_keys_is_refused(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigurationError, match=r"^API_KEYS is empty"):
        create_app(make_settings(environment="production"))


def test_production_on_the_simulator_is_refused() -> None:
    settings = Settings(environment="production", api_keys=A_KEY, cascade_file=CASCADE)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="production does not run on the simulator"):
        create_app(settings)


def test_production_with_keys_and_models_starts(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(environment="production", api_keys=A_KEY))
    assert isinstance(app, FastAPI)


def test_wrong_keys_are_refused(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigurationError, match=r"^API_KEYS: entry 1 "):
        create_app(make_settings(api_keys="a-key-itself"))


def test_every_feature_that_is_present_is_installed(client: httpx.Client) -> None:
    names = [feature.name for feature in features.installed(Settings())]
    assert client.get("/health").json()["features"] == names


def test_the_documentation_is_served(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    assert document["info"]["title"] == about().name
    assert {"/api/query", "/api/stats", "/health"} <= set(document["paths"])
