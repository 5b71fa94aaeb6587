"""An entry as the stores keep it, sums by name and a line of JSON, and back."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

from pydantic import BaseModel
from pydantic_core import to_json

from app.cascade.types import Outcome, Usage
from app.ledger import latency, money
from app.ledger.store import EVERYBODY, Posting
from app.ledger.types import Entry, Record, Totals, UsageOfDay

ANSWERED = ("accepted", "rejected", "direct")
TOKENS = 10**12
"""What one query can count for, whatever an upstream reports."""


class Line(BaseModel):
    """A record's JSON; money is in whole units of `money.py`."""

    id: str
    at: str
    account: str
    outcome: Outcome
    model: str | None
    models: list[str]
    cost: int
    saved: int
    latency_ms: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated: bool
    complexity: str


def posting(record: Record, day: str, *, unbacked: bool) -> Posting:
    """What a record adds to the books on that day."""
    entry = record.entry
    cost, saved = money.of_query(entry.cost), money.of_query(entry.saved)
    return Posting(
        id=record.id,
        day=day,
        totals=_totals(entry, cost, saved),
        usage=_usage(entry, record.account, cost, saved),
        record=_line(record, cost, saved),
        unbacked=unbacked,
    )


def _totals(entry: Entry, cost: int, saved: int) -> dict[str, int]:
    added = {"cost": cost, "saved": saved, f"outcome/{entry.outcome}": 1}
    if entry.model:
        added[f"model/{entry.model}"] = 1
    if entry.outcome in ANSWERED:
        added[f"latency/{latency.bucket(entry.latency_ms)}"] = 1
    return added


def _usage(entry: Entry, account: str, cost: int, saved: int) -> dict[str, int]:
    """The cost also as everybody's, which the budget is held to."""
    return {
        f"{EVERYBODY}/cost": cost,
        f"{account}/cost": cost,
        f"{account}/saved": saved,
        f"{account}/input_tokens": min(entry.usage.input_tokens, TOKENS),
        f"{account}/output_tokens": min(entry.usage.output_tokens, TOKENS),
        f"{account}/outcome/{entry.outcome}": 1,
    }


def _line(record: Record, cost: int, saved: int) -> str:
    """A `Line`, without the time that pydantic takes to look at our own words."""
    entry, usage = record.entry, record.entry.usage
    fields = {
        "id": record.id,
        "at": record.at.isoformat(),
        "account": record.account,
        "outcome": entry.outcome,
        "model": entry.model,
        "models": entry.models,
        "cost": cost,
        "saved": saved,
        "latency_ms": round(entry.latency_ms, 3),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "estimated": usage.estimated,
        "complexity": entry.complexity,
    }
    return to_json(fields).decode()


def read_record(text: str) -> Record:
    """The record in a line of JSON."""
    line = Line.model_validate_json(text)
    usage = Usage(
        line.input_tokens,
        line.output_tokens,
        line.cached_tokens,
        line.reasoning_tokens,
        line.estimated,
    )
    entry = Entry(
        line.outcome,
        line.model,
        money.dollars(line.cost),
        money.dollars(line.saved),
        line.latency_ms,
        usage,
        line.complexity,
        tuple(line.models),
    )
    return Record(line.id, datetime.fromisoformat(line.at), line.account, entry)


def read_totals(sums: Mapping[str, int], day: Mapping[str, int], budget: Decimal) -> Totals:
    """The totals in their sums, and today's spending in its."""
    outcomes = _beneath("outcome/", sums)
    since = sums.get("since")
    return Totals(
        queries=sum(outcomes.values()),
        cost=money.dollars(sums.get("cost", 0)),
        saved=money.dollars(sums.get("saved", 0)),
        by_model=_beneath("model/", sums),
        by_outcome=outcomes,
        spent_today=money.dollars(day.get(f"{EVERYBODY}/cost", 0)),
        budget=budget,
        since=None if since is None else datetime.fromtimestamp(since, UTC),
        latency={int(name): count for name, count in _beneath("latency/", sums).items()},
    )


def read_usage(day: date, sums: Mapping[str, int]) -> list[UsageOfDay]:
    """What each account used in a day, by its name."""
    accounts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, value in sums.items():
        account, _, rest = name.partition("/")
        if account != EVERYBODY:
            accounts[account][rest] = value
    return [
        UsageOfDay(
            day,
            account,
            _beneath("outcome/", own),
            own.get("input_tokens", 0),
            own.get("output_tokens", 0),
            money.dollars(own.get("cost", 0)),
            money.dollars(own.get("saved", 0)),
        )
        for account, own in sorted(accounts.items())
    ]


def _beneath(prefix: str, sums: Mapping[str, int]) -> dict[str, int]:
    found = {name.removeprefix(prefix): n for name, n in sums.items() if name.startswith(prefix)}
    return dict(sorted(found.items()))
