"""The command line for API keys."""

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from app.http import keys
from app.http.keyring import Keyring
from tests.conftest import key_and_entry
from tests.test_ledger import SHARED, Place, new_place

Run = Callable[..., Result]


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return new_place(request, tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, place: Place) -> Run:
    """Runs a command on the keys of the place; keywords set variables."""
    monkeypatch.setenv("LEDGER_URL", place.url)

    def invoke(*arguments: str, **variables: str) -> Result:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(cli, ["keys", *arguments])

    return invoke


def ring(place: Place) -> Keyring:
    """What a service finds there."""

    async def read() -> Keyring:
        store = place.store()
        async with store.running():
            found = Keyring((), store.keys)
            await found.look()
            return found

    return asyncio.run(read())


def key_of(result: Result) -> str:
    """The key that a command has printed."""
    assert result.exit_code == 0, result.output
    (key,) = re.findall(r"^key: +(\S{43})$", result.stdout, re.MULTILINE)
    return str(key)


def test_a_key_is_made_with_all_that_it_may_have(run: Run, place: Place) -> None:
    options = ("--role", "admin", "--budget", "2.5", "--limit", "30", "--expires", "2100-01-31")
    key = key_of(run("create", "ann", *options))
    found = ring(place).find(key)
    assert found
    assert (found.name, found.role, found.budget, found.limit) == (
        "ann",
        "admin",
        Decimal("2.5"),
        30,
    )
    assert found.expires == datetime(2100, 1, 31, tzinfo=UTC)


def test_a_key_needs_only_a_name(run: Run, place: Place) -> None:
    key = key_of(run("create", "ann"))
    found = ring(place).find(key)
    assert found
    assert (found.role, found.budget, found.limit, found.expires) == ("use", None, None, None)


@pytest.mark.parametrize(
    ("when", "moment"),
    [
        ("2100-01-31T12:30", datetime(2100, 1, 31, 12, 30, tzinfo=UTC)),
        ("2100-01-31T12:30+02:00", datetime(2100, 1, 31, 10, 30, tzinfo=UTC)),
        ("2100-01-31T12:30Z", datetime(2100, 1, 31, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_key_expires_at_a_moment(run: Run, place: Place, when: str, moment: datetime) -> None:
    key = key_of(run("create", "ann", "--expires", when))
    found = ring(place).find(key)
    assert found
    assert found.expires == moment


@pytest.mark.parametrize(("when", "hours"), [("90d", 90 * 24), ("12h", 12), ("3600s", 1)])
def test_a_key_expires_after_a_time(run: Run, place: Place, when: str, hours: int) -> None:
    key = key_of(run("create", "ann", "--expires", when))
    found = ring(place).find(key)
    assert found
    assert found.created
    assert found.expires
    assert abs(found.expires - found.created - timedelta(hours=hours)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "options",
    [
        ["--role", "root"],
        ["--budget", "0"],
        ["--budget", "much"],
        ["--budget", "NaN"],
        ["--budget", "1e9"],
        ["--limit", "0"],
        ["--expires", "never"],
        ["--expires", "2000-01-01"],
        ["--expires", "0s"],
        ["--expires", "999999d999"],
        ["--expires", "999999999d"],
        ["--expires", "9999-12-31T23:59-10:00"],
    ],
)
def test_an_impossible_option_is_refused_and_makes_no_key(
    run: Run, place: Place, options: list[str]
) -> None:
    result = run("create", "ann", *options)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert ring(place).keys == ()


def test_a_name_that_cannot_be_one_is_refused(run: Run) -> None:
    result = run("create", "ann smith")
    assert result.exit_code == 1
    assert "name" in result.stderr


def test_a_name_is_given_once(run: Run, place: Place) -> None:
    key = key_of(run("create", "ann"))
    again = run("create", "ann")
    assert again.exit_code == 1
    assert "There is a key with the name ann" in again.stderr
    assert ring(place).find(key)
    assert run("create", "bob", API_KEYS=key_and_entry("bob")[1]).exit_code == 1


def test_the_list_has_every_key_and_no_secret(run: Run) -> None:
    made = [
        key_of(run("create", "ann", "--role", "admin", "--budget", "2.50", "--limit", "30")),
        key_of(run("create", "bob", "--expires", "2100-01-31")),
    ]
    configured, entry = key_and_entry("cleo")
    result = run("list", API_KEYS=entry)
    assert result.exit_code == 0, result.output
    head, *lines = (re.split(r"  +", line) for line in result.stdout.splitlines())
    assert head == ["NAME", "ROLE", "BUDGET", "LIMIT", "CREATED", "EXPIRES", "KEPT IN"]
    days = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ")
    assert all(days.fullmatch(line[4]) for line in lines[1:])
    assert [line[:4] + line[5:] for line in lines] == [
        ["cleo", "use", "-", "-", "-", "API_KEYS"],
        ["ann", "admin", "$2.50", "30/min", "-", "ledger"],
        ["bob", "use", "-", "-", "2100-01-31T00:00Z", "ledger"],
    ]
    for key in (*made, configured):
        assert key not in result.output
        assert keys.digest(key) not in result.output


def test_scripts_get_keys_and_the_list_in_json(run: Run, place: Place) -> None:
    key = json.loads(run("create", "ann", "--budget", "2.5", "--json").stdout)["key"]
    assert ring(place).find(key)
    entry = json.loads(run("create", "bob", "--entry", "--json").stdout)["entry"]
    assert entry.startswith("bob:use:")
    listed = json.loads(run("list", "--json", API_KEYS=entry).stdout)
    assert [(each["name"], each["budget"], each["kept_in"]) for each in listed] == [
        ("bob", None, "API_KEYS"),
        ("ann", 2.5, "ledger"),
    ]
    assert not any(each["expired"] for each in listed)
    assert key not in json.dumps(listed)


def test_the_list_says_what_has_expired(run: Run, place: Place) -> None:
    _, made = keys.make("old", "use", expires=datetime(2020, 1, 1, tzinfo=UTC))

    async def add() -> None:
        store = place.store()
        async with store.running():
            assert store.keys
            await store.keys.add("old", keys.write(made))

    asyncio.run(add())
    assert "2020-01-01T00:00Z (expired)" in run("list").stdout


def test_a_revoked_key_is_gone(run: Run, place: Place) -> None:
    ann, bob = key_of(run("create", "ann")), key_of(run("create", "bob"))
    result = run("revoke", "ann")
    assert result.exit_code == 0, result.output
    assert "ann: revoked" in result.stdout
    found = ring(place)
    assert found.find(ann) is None
    assert found.find(bob)
    assert "ann" not in run("list").stdout


def test_a_key_that_is_not_there_cannot_be_revoked(run: Run) -> None:
    result = run("revoke", "ann")
    assert result.exit_code == 1
    assert "There is no key with the name ann." in result.stderr


def test_a_key_of_the_environment_cannot_be_revoked_here(run: Run) -> None:
    result = run("revoke", "ann", API_KEYS=key_and_entry("ann")[1])
    assert result.exit_code == 1
    assert "ann is in API_KEYS: take it out there" in result.stderr


@pytest.mark.parametrize("how", ["--entry", "memory"])
@pytest.mark.parametrize("role", ["use", "admin"])
def test_an_entry_for_the_environment_is_printed_and_not_kept(
    run: Run, place: Place, how: str, role: str
) -> None:
    if how == "memory":
        result = run("create", "ann", "--role", role, LEDGER_URL="memory://")
    else:
        result = run("create", "ann", "--role", role, how)
    (accepted,) = keys.parse(result.stdout.split()[-1])
    assert (accepted.name, accepted.role) == ("ann", role)
    assert accepted.digest == keys.digest(key_of(result))
    assert ring(place).keys == ()


def test_an_entry_has_no_budget(run: Run) -> None:
    result = run("create", "ann", "--entry", "--budget", "1")
    assert result.exit_code == 1
    assert "An entry of API_KEYS has no budget" in result.stderr


@pytest.mark.parametrize("command", [["create", "ann"], ["list"], ["revoke", "ann"]])
def test_keys_out_of_reach_are_said_to_be(run: Run, command: list[str]) -> None:
    result = run(*command, LEDGER_URL="redis://:secret@127.0.0.1:1/0")
    assert result.exit_code == 1
    assert "ledger" in result.stderr
    assert "secret" not in result.output
    assert "Traceback" not in result.output
    assert "key:" not in result.output
