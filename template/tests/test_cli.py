"""The command line."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from app.http import logs
from tests.conftest import (
    ACCEPTED,
    CASCADE,
    REJECTED,
    Answering,
    Stub,
    answer_json,
    cascade_toml,
    client_of,
)
from tests.served import served

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, cascade_file: Path) -> Run:
    """Runs a command against models that answer; keywords set variables."""
    monkeypatch.setenv("CASCADE_FILE", str(cascade_file))
    monkeypatch.setenv("SIMULATOR", "off")
    monkeypatch.setenv("UPSTREAM_ATTEMPTS", "1")

    def invoke(*arguments: str, **variables: str) -> Result:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(cli, arguments)
        # The command's log goes to the standard error that the runner has just taken away.
        logs.configure("INFO")
        return result

    monkeypatch.setattr(logging, "raiseExceptions", False)
    return invoke


# --- the program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("unused", ["rich.console", "pygments", "httpx"])
def test_a_command_does_not_wait_for_what_cascadeflow_imports_and_it_has_no_use_for(
    cascade_file: Path, unused: str
) -> None:
    code = (
        "import atexit, sys; from app.__main__ import main; sys.argv = ['app', 'check'];"
        f"atexit.register(lambda: print({unused!r} in sys.modules));"
        "main()"
    )
    env = os.environ | {"CASCADE_FILE": str(cascade_file), "SIMULATOR": "off"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "False"


def test_what_cascadeflow_was_imported_without_is_there_for_who_asks() -> None:
    code = (
        "from app.cascade.unused import import_cascadeflow; import_cascadeflow();"
        "import rich.console; from cascadeflow.providers import PROVIDER_REGISTRY as all;"
        "print('openai' in all)"
    )
    found = subprocess.check_output((sys.executable, "-c", code), text=True)
    assert found == "True\n"


# --- check ----------------------------------------------------------------------------------------


def test_check_says_that_all_is_well(run: Run) -> None:
    result = run("check")
    assert result.exit_code == 0, result.output
    assert "ledger (sqlite): reachable" in result.output
    assert "drafter simulator-small (openai): reachable" in result.output
    assert "verifier simulator-large (openai): reachable" in result.output


def test_check_tells_scripts_the_same_in_json(run: Run, tmp_path: Path) -> None:
    result = run("check", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "environment": "development",
        "strictness": "balanced",
        "ledger": {"kind": "sqlite", "reachable": True},
        "drafter": {"name": "simulator-small", "provider": "openai", "fault": None},
        "verifier": {"name": "simulator-large", "provider": "openai", "fault": None},
    }
    path = tmp_path / "cascade.toml"
    nobody = "http://127.0.0.1:1/v1"
    path.write_text(cascade_toml(nobody, nobody), encoding="utf-8")
    result = run("check", "--json", CASCADE_FILE=str(path))
    assert result.exit_code == 1
    assert json.loads(result.stdout)["drafter"]["fault"] == "unreachable"


def test_check_spends_nothing(run: Run, stub: Callable[[Answering], Stub], tmp_path: Path) -> None:
    upstream = stub(answer_json({"data": []}))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    assert run("check", CASCADE_FILE=str(path)).exit_code == 0
    assert {request.path for request in upstream.received} == {"/v1/models"}


def test_check_finds_an_upstream_that_refuses_the_key(
    run: Run, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    refusing, accepting = stub(answer_json({}, 401)), stub(answer_json({}))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(refusing.url, accepting.url), encoding="utf-8")
    result = run("check", CASCADE_FILE=str(path))
    assert result.exit_code == 1
    assert "drafter simulator-small (openai): refused (HTTP 401)" in result.output
    assert "verifier simulator-large (openai): reachable" in result.output


def test_check_finds_an_upstream_that_is_not_there(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cascade.toml"
    nobody = "http://127.0.0.1:1/v1"
    path.write_text(cascade_toml(nobody, nobody), encoding="utf-8")
    result = run("check", CASCADE_FILE=str(path))
    assert result.exit_code == 1
    assert "drafter simulator-small (openai): unreachable" in result.output


@pytest.mark.parametrize("command", [["check"], ["serve", "--port", "0"], ["ask", "hi"]])
@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"CASCADE_FILE": "none.toml"}, "none.toml: cannot be read"),
        ({"DAILY_BUDGET": "much"}, "DAILY_BUDGET: "),
        ({"CASCADE_FILE": str(CASCADE)}, "DRAFTER_KEY and VERIFIER_KEY: not set"),
    ],
)
def test_a_bad_configuration_is_refused_with_a_sentence(
    run: Run, command: list[str], variables: dict[str, str], sentence: str
) -> None:
    result = run(*command, **variables)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_unsafe_production_is_refused(run: Run, command: str) -> None:
    result = run(command, ENVIRONMENT="production")
    assert result.exit_code == 1
    assert "API_KEYS is empty" in result.stderr


@pytest.mark.parametrize("url", ["sqlite:///ledger.sqlite3", "memory://"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "my-machine"])
def test_other_machines_are_not_served_without_keys(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("serve", "--host", host, LEDGER_URL=url)
    assert result.exit_code == 1
    assert "`keys create NAME` makes one" in result.stderr
    assert "on loopback only" in result.stderr


def test_other_machines_are_served_with_a_key(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("uvicorn.run", lambda *_, host, **__: served.append(host))
    assert run("serve", "--host", "localhost").exit_code == 0
    assert run("keys", "create", "ann").exit_code == 0
    assert run("serve", "--host", "0.0.0.0").exit_code == 0
    assert run("keys", "revoke", "ann").exit_code == 0
    assert run("serve", "--host", "0.0.0.0").exit_code == 1
    entry = f"ann:use:{'0' * 64}"
    assert run("serve", "--host", "0.0.0.0", API_KEYS=entry).exit_code == 0
    assert served == ["localhost", "0.0.0.0", "0.0.0.0"]


def test_books_of_one_process_are_refused_for_several(run: Run) -> None:
    result = run("serve", "--workers", "2", LEDGER_URL="memory://")
    assert result.exit_code == 1
    assert "LEDGER_URL=memory:// is known to one process alone" in result.stderr


@pytest.mark.parametrize("command", [["check"], ["serve", "--port", "0"], ["usage", "export"]])
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://:secret@host", "LEDGER_URL: write sqlite:///file"),
        ("sqlite:///", "LEDGER_URL: write sqlite:///file"),
        ("sqlite:////nowhere/ledger.sqlite3", "unable to open database file"),
        ("redis://:secret@host/first", "LEDGER_URL: this is no URL of Redis"),
    ],
)
def test_a_ledger_that_cannot_be_kept_is_refused_with_a_sentence(
    run: Run, command: list[str], url: str, sentence: str
) -> None:
    result = run(*command, LEDGER_URL=url)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "secret" not in result.output
    assert "Traceback" not in result.output


def test_a_time_zone_that_is_none_is_refused(run: Run) -> None:
    result = run("check", LEDGER_TIMEZONE="Mars/Olympus")
    assert result.exit_code == 1
    assert "LEDGER_TIMEZONE: this system knows no time zone 'Mars/Olympus'" in result.stderr


def test_check_finds_a_ledger_that_is_out_of_reach(run: Run) -> None:
    result = run("check", LEDGER_URL="redis://127.0.0.1:1/0")
    assert result.exit_code == 1
    assert "ledger (redis): unreachable" in result.output


# --- ask ------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_and_what_it_cost(run: Run) -> None:
    result = run("ask", ACCEPTED)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("AI")
    assert re.search(
        r"simulator-small · draft accepted · cost \$0\.\d{6} · saved \$0\.\d{6} · \d+ ms",
        result.stdout,
    )


def test_ask_shows_a_draft_being_replaced(run: Run) -> None:
    lines = run("ask", REJECTED).stdout.splitlines()
    (place,) = [number for number, line in enumerate(lines) if "simulator-small" in line]
    assert "simulator-large answers" in lines[place]
    assert lines[place - 1]
    assert lines[place + 1].startswith("AI")
    assert lines[-1].startswith("simulator-large · draft rejected")


@pytest.mark.parametrize(
    ("text", "model", "accepted"),
    [(ACCEPTED, "simulator-small", True), (REJECTED, "simulator-large", False)],
)
def test_ask_tells_scripts_the_answer_alone_in_json(
    run: Run, text: str, model: str, accepted: bool
) -> None:
    result = run("ask", "--json", text)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["model_used"], answer["draft_accepted"]) == (model, accepted)
    assert answer["content"].startswith("AI")
    assert answer["cost"] > 0


def test_ask_can_go_to_the_verifier_at_once(run: Run) -> None:
    assert "simulator-large · asked directly" in run("ask", "--direct", ACCEPTED).stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_ask_says_why_there_is_no_answer(run: Run, options: list[str]) -> None:
    result = run("ask", *options, "[[both:401]] hi")
    assert result.exit_code == 1
    assert "The model simulator-large gave no answer: refused (HTTP 401)." in result.stderr
    assert "Traceback" not in result.output


def test_ask_is_in_the_same_books_as_the_service(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    run("ask", ACCEPTED, LEDGER_URL=url)
    assert ",command-line,1,1," in run("usage", "export", LEDGER_URL=url).stdout
    (line,) = run("usage", "export", "--json", LEDGER_URL=url).stdout.splitlines()
    told = json.loads(line)
    assert (told["key"], told["queries"], told["accepted"]) == ("command-line", 1, 1)


def test_ask_stays_within_the_budget(run: Run) -> None:
    result = run("ask", ACCEPTED, DAILY_BUDGET="0.0001")
    assert result.exit_code == 1
    assert "budget" in result.stderr


def test_ask_wants_a_question(run: Run) -> None:
    result = run("ask", " ")
    assert result.exit_code == 1
    assert "The question is empty." in result.stderr


def test_ask_needs_no_key_to_try(run: Run) -> None:
    result = run("ask", ACCEPTED, CASCADE_FILE=str(CASCADE), SIMULATOR="auto")
    assert result.exit_code == 0
    assert "simulator" in result.stdout.splitlines()[0]


# --- serve ----------------------------------------------------------------------------------------


def test_a_wrong_option_is_refused(run: Run) -> None:
    assert run("serve", "--workers", "0").exit_code == 2
    assert run("serve", "--port", "70000").exit_code == 2


def test_serve_answers_until_sigterm_ends_it_with_0(cascade_file: Path) -> None:
    with served(cascade_file) as service, client_of(service.url) as client:
        assert client.post("/api/query", json={"query": ACCEPTED}).status_code == 200
        service.terminate()
        told = time.monotonic()
        assert service.ended() == 0
        # Nothing was in flight, so there was nothing to wait for.
        assert time.monotonic() - told < 5
    assert "Traceback" not in service.log
