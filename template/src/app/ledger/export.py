"""Usage as CSV or JSON Lines, by key and day, or query by query. Cost is in US dollars."""

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Literal, get_args

from app.cascade.types import Outcome
from app.ledger.books import Ledger
from app.ledger.types import Record, UsageOfDay

Format = Literal["csv", "jsonl"]
By = Literal["day", "query"]
Row = Mapping[str, str | int | float | Decimal | None]

DAY_COLUMNS = (
    "day",
    "key",
    "queries",
    *get_args(Outcome),
    "input_tokens",
    "output_tokens",
    "cost",
    "saved",
)
QUERY_COLUMNS = (
    "id",
    "time",
    "key",
    "outcome",
    "model",
    "models",
    "input_tokens",
    "output_tokens",
    "cost",
    "saved",
    "latency_ms",
    "complexity",
)


async def lines(
    ledger: Ledger, first: date, last: date, format: Format, by: By
) -> AsyncIterator[str]:
    """The lines of an export, of the days from the first to the last.

    Raises:
        LedgerUnavailable: the books are out of reach.
    """
    if format == "csv":
        yield _csv_line(DAY_COLUMNS if by == "day" else QUERY_COLUMNS)
    async for row in _rows(ledger, first, last, by):
        if format == "csv":
            yield _csv_line(tuple(map(_text, row.values())))
        else:
            yield json.dumps(row, default=float, ensure_ascii=False)


async def _rows(ledger: Ledger, first: date, last: date, by: By) -> AsyncIterator[Row]:
    if by == "day":
        async for usage in ledger.usage(first, last):
            yield _of_day(usage)
    else:
        async for record in ledger.records(first, last):
            yield _of_query(record)


def _of_day(usage: UsageOfDay) -> Row:
    outcomes = (usage.outcomes.get(outcome, 0) for outcome in get_args(Outcome))
    values = (
        usage.day.isoformat(),
        usage.account,
        usage.queries,
        *outcomes,
        usage.input_tokens,
        usage.output_tokens,
        usage.cost,
        usage.saved,
    )
    return dict(zip(DAY_COLUMNS, values, strict=True))


def _of_query(record: Record) -> Row:
    entry = record.entry
    values = (
        record.id,
        record.at.isoformat(),
        record.account,
        entry.outcome,
        entry.model,
        " ".join(entry.models),
        entry.usage.input_tokens,
        entry.usage.output_tokens,
        entry.cost,
        entry.saved,
        entry.latency_ms,
        entry.complexity,
    )
    return dict(zip(QUERY_COLUMNS, values, strict=True))


def _text(value: str | int | float | Decimal | None) -> str:
    if isinstance(value, Decimal):
        # Never 1E-7, which some spreadsheets read as text.
        return f"{value:f}"
    return "" if value is None else str(value)


def _csv_line(cells: tuple[str, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
