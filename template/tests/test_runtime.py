"""Live models or the simulator: what decides, and what is refused."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from app import runtime
from app.cascade.errors import ConfigurationError
from app.settings import Settings
from tests.conftest import CASCADE, cascade_toml

ENDPOINT = "http://upstream.invalid/v1"


def settings(**changes: object) -> Settings:
    return Settings(**{"cascade_file": CASCADE, **changes})  # type: ignore[arg-type]


@pytest.fixture
def both_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTER_KEY", "sk-d")
    monkeypatch.setenv("VERIFIER_KEY", "sk-v")


def test_without_keys_the_simulator_answers() -> None:
    assert runtime.configure(settings()).simulated


@pytest.mark.usefixtures("both_keys")
def test_with_keys_the_live_models_answer() -> None:
    models = runtime.configure(settings())
    assert not models.simulated
    assert models.drafter.provider == "openai"


@pytest.mark.usefixtures("both_keys")
def test_the_simulator_can_be_kept_on() -> None:
    assert runtime.configure(settings(simulator="on")).simulated


def test_live_models_without_a_key_need_only_the_simulator_off(tmp_path: Path) -> None:
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(ENDPOINT, ENDPOINT), encoding="utf-8")
    assert not runtime.configure(settings(cascade_file=path, simulator="off")).simulated


def test_one_key_of_two_is_refused_with_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTER_KEY", "sk-d")
    with pytest.raises(ConfigurationError, match=r"^VERIFIER_KEY: not set, and .* names it"):
        runtime.configure(settings())


def test_no_simulator_and_no_keys_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^DRAFTER_KEY and VERIFIER_KEY: not set"):
        runtime.configure(settings(simulator="off"))


def test_production_does_not_run_on_the_simulator() -> None:
    with pytest.raises(ConfigurationError, match="set DRAFTER_KEY and VERIFIER_KEY"):
        runtime.configure(settings(environment="production"))


@pytest.mark.usefixtures("both_keys")
def test_production_does_not_run_on_the_simulator_with_keys_either() -> None:
    with pytest.raises(ConfigurationError, match="set SIMULATOR=off"):
        runtime.configure(settings(environment="production", simulator="on"))


@pytest.mark.usefixtures("both_keys")
def test_production_runs_on_live_models() -> None:
    assert not runtime.configure(settings(environment="production")).simulated


def test_the_log_says_that_answers_are_simulated(logged: list[str]) -> None:
    async def go() -> None:
        chosen = settings(simulator="on")
        async with runtime.upstreams(chosen, runtime.configure(chosen)) as connected:
            await connected["drafter"].reach()

    asyncio.run(go())
    assert any("the simulator answers: simulator-small" in line for line in logged)


def test_nothing_is_said_of_a_simulator_that_does_not_answer(
    make_settings: Callable[..., Settings], logged: list[str]
) -> None:
    async def go() -> None:
        chosen = make_settings()
        async with runtime.upstreams(chosen, runtime.configure(chosen)) as connected:
            await connected["drafter"].reach()

    asyncio.run(go())
    assert not any("simulator" in line for line in logged)
