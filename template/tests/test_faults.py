"""Every fault of every upstream: the policy of `faults.py`, held against the service."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pytest

from app.cascade.types import Role
from app.settings import Settings
from tests import faults
from tests.conftest import every_log_line
from tests.faults import ERRORS, FAILURES, FAULTS, PLACES, bills, outcome
from tests.faulty import ANSWER, GOOD, POOR, RETRY_AFTER, SECRETS, Cell, Told, crowd

COSTS: dict[Role, Decimal] = {"drafter": Decimal("0.00021"), "verifier": Decimal("0.0035")}
"""US dollars for what the stub reports."""
MODELS: dict[Role, str] = {"drafter": "simulator-small", "verifier": "simulator-large"}

CELLS = [
    Cell(fault, where, stream, failure)
    for fault, where, stream, failure in itertools.product(FAULTS, PLACES, (False, True), FAILURES)
]
TWICE = [
    Cell(fault, "direct", stream, "error", tries=2)
    for fault, stream in itertools.product(FAULTS, (False, True))
]


@dataclass
class Seen:
    """What became of all queries, and what was logged meanwhile."""

    told: dict[Cell, Told]
    logged: list[str]


@pytest.fixture(scope="module")
def seen(make_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Asks the whole matrix at once."""
    folder = tmp_path_factory.mktemp("faults")
    with every_log_line() as lines:
        return Seen(asyncio.run(crowd(make_settings, folder, [*CELLS, *TWICE])), lines)


@pytest.fixture(params=CELLS, ids=str)
def told(request: pytest.FixtureRequest, seen: Seen) -> Told:
    """What became of one cell."""
    return seen.told[request.param]


def test_a_cell_comes_to_what_the_policy_says(told: Told) -> None:
    cell = told.cell
    expected = outcome(cell.fault, cell.where, cell.failure)
    assert told.status == expected.status, told.body
    assert told.calls == list(bills(cell.fault, cell.where, stream=cell.stream))
    if not expected.answers:
        assert told.body["error"] == ERRORS[expected.status]
        assert told.headers.get("Retry-After") == retry_after(cell)
        return
    draft = GOOD if cell.where == "drafter" else POOR
    assert told.body["content"].strip() == (ANSWER if expected.answers == "verifier" else draft)
    assert told.body["model_used"] == MODELS[expected.answers]
    assert told.body["degraded"] is expected.degraded
    kind, _ = cell.fault.of(stream=cell.stream)
    if cell.where == "drafter" and kind:
        assert told.body["reason"] == f"the drafter failed: {kind}"


def retry_after(cell: Cell) -> str | None:
    """The header that goes with the status."""
    if cell.fault.status != 503:
        return None
    return str(RETRY_AFTER) if cell.fault.name == "429-after" else "1"


def test_a_cell_is_in_the_books_once_at_what_it_cost(told: Told) -> None:
    cell = told.cell
    charged = bills(cell.fault, cell.where, stream=cell.stream)
    (entry,) = told.entries
    assert entry.outcome == outcome_in_books(cell)
    reported = sum((COSTS[role] for role, bill in charged.items() if bill == "reported"), Decimal())
    estimated = "estimated" in charged.values()
    assert entry.usage.estimated is estimated
    assert entry.cost > reported if estimated else entry.cost == reported
    if told.status == 200:
        assert told.body["cost"] == float(entry.cost)
        assert told.body["usage"]["estimated"] is estimated
        if told.body["degraded"]:
            assert told.body["saved"] < 0


def outcome_in_books(cell: Cell) -> str:
    expected = outcome(cell.fault, cell.where, cell.failure)
    if not expected.answers:
        return "failed"
    if cell.where == "direct":
        return "direct"
    return "accepted" if expected.answers == "drafter" and not expected.degraded else "rejected"


def test_a_cell_tells_no_secret(told: Told) -> None:
    assert [secret for secret in SECRETS if secret in told.everything] == []
    if told.status != 200 and not told.cell.stream:
        assert POOR not in told.everything


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.stream], ids=str)
def test_a_stream_tells_the_same_and_ends(seen: Seen, cell: Cell) -> None:
    told = seen.told[cell]
    types = [event.type for event in told.events]
    ends = Counter(each for each in types if each in ("complete", "error"))
    assert ends == {"complete" if told.status == 200 else "error": 1}
    assert types[-1] in ends
    assert types[0] == "routing"
    if told.status == 200:
        assert told.shown == told.body["content"]
    steps = ["draft_decision"] if cell.where != "direct" else []
    if len(told.calls) > 1:
        steps.append("switch")
    if told.body.get("degraded"):
        steps.append("switch")
    assert [each for each in types if each in ("draft_decision", "switch")] == steps


def test_no_log_line_tells_a_secret(seen: Seen) -> None:
    answers = (GOOD, POOR, ANSWER)
    told = [line for line in seen.logged if any(each in line for each in (*SECRETS, *answers))]
    assert told == []
    # The lines are there: each HTTP query has one of its own, and nothing is logged as unforeseen.
    queries = [line for line in seen.logged if "POST /api/query" in line]
    assert len(queries) == sum(not cell.stream for cell in seen.told)
    assert [line for line in seen.logged if line.startswith(("ERROR", "CRITICAL"))] == []


@pytest.mark.parametrize("cell", TWICE, ids=str)
def test_only_what_may_pass_is_tried_again(seen: Seen, cell: Cell) -> None:
    told = seen.told[cell]
    assert len(told.calls) == 1 + cell.fault.retried
    assert len(told.entries) == 1
    if cell.fault.name == "429-after":
        assert told.seconds >= RETRY_AFTER


def test_the_page_for_people_is_up_to_date() -> None:
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(), (
        "write it: python -m tests.faults"
    )
