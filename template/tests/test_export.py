"""`usage export`: the books as CSV and JSON Lines."""

import asyncio
import csv
import io
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cascade.types import Usage
from app.cli import cli
from app.ledger import Account, Budgets, Entry, Ledger
from app.ledger.days import utc_now
from app.ledger.opening import store

NOW = utc_now()
TODAY = NOW.date().isoformat()
YESTERDAY = (NOW.date() - timedelta(days=1)).isoformat()


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queries of ann and a failure of bob yesterday, a query of ann today."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    monkeypatch.setenv("LEDGER_URL", url)

    async def spend(ledger: Ledger, name: str, cost: str, **changes: Any) -> None:  # noqa: ANN401
        usual = {"outcome": "accepted", "model": "small", "models": ("small",)}
        entry = Entry(
            cost=Decimal(cost),
            saved=Decimal("0.5"),
            latency_ms=12.5,
            usage=Usage(3, 4),
            complexity="simple",
            **{**usual, **changes},
        )
        await ledger.settle(await ledger.reserve(Decimal(1), Account(name)), entry)

    async def go() -> None:
        before = Ledger(store(url), Budgets(Decimal(9)), clock=lambda: NOW - timedelta(days=1))
        async with before.running():
            await spend(before, "ann", "0.0000001")
            await spend(before, "ann", "0.25", outcome="rejected", models=("small", "large"))
            await spend(before, "bob", "0", outcome="failed", model=None)
        after = Ledger(store(url), Budgets(Decimal(9)), clock=lambda: NOW)
        async with after.running():
            await spend(after, "ann", "0.125")

    asyncio.run(go())


def export(*options: str) -> Result:
    return CliRunner().invoke(cli, ["usage", "export", *options])


@pytest.mark.usefixtures("books")
def test_csv_is_by_day_and_key() -> None:
    result = export("--format", "csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["day"], row["key"], row["queries"]) for row in rows] == [
        (YESTERDAY, "ann", "2"),
        (YESTERDAY, "bob", "1"),
        (TODAY, "ann", "1"),
    ]
    assert rows[0] | {"day": ""} == {
        "day": "",
        "key": "ann",
        "queries": "2",
        "accepted": "1",
        "rejected": "1",
        "direct": "0",
        "failed": "0",
        "cancelled": "0",
        "input_tokens": "6",
        "output_tokens": "8",
        "cost": "0.2500001",
        "saved": "1",
    }
    assert rows[1]["failed"] == "1"


@pytest.mark.usefixtures("books")
def test_json_lines_say_the_same_in_numbers() -> None:
    rows = [json.loads(line) for line in export("--format", "jsonl").stdout.splitlines()]
    assert [row["cost"] for row in rows] == [0.2500001, 0, 0.125]
    assert rows[0]["accepted"] == 1


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    ("options", "days"),
    [
        (["--from", TODAY], [TODAY]),
        (["--to", YESTERDAY], [YESTERDAY, YESTERDAY]),
        (["--from", YESTERDAY, "--to", YESTERDAY], [YESTERDAY, YESTERDAY]),
        (["--from", "2001-01-01", "--to", "2001-01-02"], []),
    ],
)
def test_days_are_chosen_by_their_ends(options: list[str], days: list[str]) -> None:
    lines = export("--format", "jsonl", *options).stdout.splitlines()
    assert [json.loads(line)["day"] for line in lines] == days


@pytest.mark.usefixtures("books")
def test_single_queries_can_be_exported_too() -> None:
    rows = list(csv.DictReader(io.StringIO(export("--by", "query").stdout)))
    assert len({row["id"] for row in rows}) == 4
    # Those of one moment are in no particular order.
    assert rows[3]["time"] == NOW.isoformat()
    by_cost = {row["cost"]: row for row in rows}
    assert by_cost["0.0000001"]["outcome"] == "accepted"
    assert by_cost["0.25"]["models"] == "small large"
    assert (by_cost["0"]["outcome"], by_cost["0"]["model"]) == ("failed", "")


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    "options", [["--format", "xml"], ["--from", "yesterday"], ["--from", TODAY, "--to", YESTERDAY]]
)
def test_what_cannot_be_exported_is_refused(options: list[str]) -> None:
    assert export(*options).exit_code != 0


def test_books_in_memory_cannot_be_read_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_URL", "memory://")
    result = export()
    assert result.exit_code == 1
    assert "memory://" in result.stderr
