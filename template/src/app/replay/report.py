"""What the results come to. Money is in US dollars, time in milliseconds."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import get_args

from app.cascade.config import Complexity
from app.cascade.types import Json
from app.replay.read import BadLine
from app.replay.results import Result
from app.values import value

DETAILS = re.compile(r"\s*\(.*\)$")
CHECKS = "Failed checks: "
"""How cascadeflow begins to say which of its checks a draft has failed."""


@value
class Group:
    """Some results under a name."""

    name: str
    results: tuple[Result, ...]

    def count(self, outcome: str) -> int:
        return sum(result.outcome == outcome for result in self.results)

    @property
    def answered(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.answered)

    @property
    def acceptance(self) -> float | None:
        """Of the drafts that were asked for; None where there were none."""
        accepted = self.count("accepted")
        drafts = accepted + self.count("rejected")
        return accepted / drafts if drafts else None

    @property
    def cost(self) -> Decimal:
        """Of what was answered."""
        return sum((result.cost for result in self.answered), start=Decimal(0))

    @property
    def baseline(self) -> Decimal:
        """What the verifier alone would have cost for the same."""
        return sum((result.baseline for result in self.answered), start=Decimal(0))

    @property
    def saved(self) -> Decimal:
        return self.baseline - self.cost

    @property
    def saved_share(self) -> float | None:
        return float(self.saved / self.baseline) if self.baseline else None


@value
class Latency:
    """How long some answers took."""

    name: str
    times: tuple[float, ...]
    """In order."""

    def at(self, share: float) -> float:
        """The percentile that `share` of them do not exceed."""
        return self.times[min(int(share * len(self.times)), len(self.times) - 1)]


@value
class Report:
    """All results of a file's prompts, and what is missing."""

    source: str
    drafter: str
    verifier: str
    simulated: bool
    prompts: int
    bad: tuple[BadLine, ...]
    results: tuple[Result, ...]
    """In the order of the lines."""

    @property
    def all(self) -> Group:
        return Group("all", self.results)

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if not result.answered)

    @property
    def rejected(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "rejected")

    @property
    def left(self) -> int:
        """Prompts that were not asked yet."""
        return self.prompts - len(self.results)

    @property
    def complete(self) -> bool:
        return not (self.bad or self.failed or self.left)

    def by_complexity(self) -> list[Group]:
        names = [*get_args(Complexity), "unknown"]
        groups = (
            Group(name, tuple(result for result in self.results if result.complexity == name))
            for name in names
        )
        return [group for group in groups if group.results]

    def latencies(self) -> list[Latency]:
        """Of the cascade, of its parts, and of the verifier where it was asked."""
        parts: list[tuple[str, Callable[[Result], float | None]]] = [
            ("cascade", lambda result: result.latency_ms if result.answered else None),
            ("draft accepted", lambda result: _if("accepted", result)),
            ("draft rejected", lambda result: _if("rejected", result)),
            ("asked directly", lambda result: _if("direct", result)),
            ("verifier's part", lambda result: result.verifier_ms),
        ]
        return [
            Latency(name, times)
            for name, time_of in parts
            if (times := _sorted(map(time_of, self.results)))
        ]

    def reasons(self) -> list[tuple[str, int]]:
        """Why drafts were rejected, the commonest first; a draft may fail several checks."""
        return Counter(why for each in self.rejected for why in _reasons(each.reason)).most_common()

    def to_json(self) -> dict[str, Json]:
        """Numbers, lines and reasons; no prompt and no answer."""
        return {
            "file": self.source,
            "drafter": self.drafter,
            "verifier": self.verifier,
            "simulated": self.simulated,
            "complete": self.complete,
            "prompts": self.prompts,
            "not_asked": self.left,
            **_numbers(self.all),
            "bad_lines": [{"line": each.line, "why": each.why} for each in self.bad],
            "by_complexity": {group.name: _numbers(group) for group in self.by_complexity()},
            "latency_ms": {
                each.name: {"count": len(each.times), "p50": each.at(0.5), "p95": each.at(0.95)}
                for each in self.latencies()
            },
            "rejection_reasons": dict(self.reasons()),
            "rejected_drafts": [
                {
                    "line": each.line,
                    "id": each.name,
                    "complexity": each.complexity,
                    "confidence": each.confidence,
                    "reason": each.reason,
                }
                for each in self.rejected
            ],
            "failures": [
                {"line": each.line, "id": each.name, "reason": each.reason} for each in self.failed
            ],
        }


def _numbers(group: Group) -> dict[str, Json]:
    return {
        "answered": len(group.answered),
        "failed": group.count("failed"),
        "accepted": group.count("accepted"),
        "rejected": group.count("rejected"),
        "direct": group.count("direct"),
        "acceptance": group.acceptance,
        "cost": float(group.cost),
        "baseline_cost": float(group.baseline),
        "saved": float(group.saved),
        "saved_share": group.saved_share,
    }


def _reasons(reason: str) -> list[str]:
    found = DETAILS.sub("", reason)
    if not found.startswith(CHECKS):
        return [found]
    return [check.replace("_", " ") for check in found.removeprefix(CHECKS).split(", ")]


def _if(outcome: str, result: Result) -> float | None:
    return result.latency_ms if result.outcome == outcome else None


def _sorted(times: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(sorted(time for time in times if time is not None))


def verdict(report: Report) -> str:
    """The answer to the question that everybody has, in a sentence."""
    whole = report.all
    share = whole.saved_share
    if share is None:
        return "No prompt is answered yet."
    if share < 0:
        return (
            f"The cascade would cost {-share:.0%} more than {report.verifier} alone:"
            f" {money(whole.cost)} instead of {money(whole.baseline)}."
        )
    return (
        f"The cascade would save {share:.0%} of what {report.verifier} alone costs:"
        f" {money(whole.cost)} instead of {money(whole.baseline)}."
    )


def money(dollars: Decimal) -> str:
    """With as many places as it needs to be told from nothing."""
    size = abs(dollars)
    places = 2 if size >= 1 else 4 if size >= Decimal("0.05") else 6
    return f"{'-' if dollars < 0 else ''}${size:.{places}f}"


def share(part: float | None) -> str:
    return "-" if part is None else f"{part:.0%}"


def duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def complexity_rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """For the tables of a terminal and of a page alike."""
    return [
        (
            group.name,
            str(len(group.results)),
            *(str(group.count(outcome)) for outcome in ("accepted", "rejected", "direct")),
            share(group.acceptance),
            money(group.cost),
            money(group.saved),
        )
        for group in groups
    ]
