"""A report in a terminal; plain columns where it is piped."""

import io
from collections.abc import Iterable, Sequence

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.replay.report import Report, complexity_rows, duration, share, verdict

HEAD = ("complexity", "prompts", "accepted", "rejected", "direct", "acceptance", "cost", "saved")
SHOWN = 20
"""Rejected drafts and failures; the other outputs have all."""


def show(console: Console, report: Report) -> None:
    """Print it. No prompt and no answer is in it: what a terminal shows may end in a CI's log."""
    if console.is_terminal:
        _show(console, report)
        return
    plain = Console(file=io.StringIO(), width=200, highlight=False)
    with plain.capture() as caught:
        _show(plain, report)
    for line in caught.get().rstrip().split("\n"):
        typer.echo(line.rstrip())


def _show(console: Console, report: Report) -> None:
    whole = report.all
    console.print(Text(verdict(report), "bold"))
    console.print(
        f"{len(whole.answered)} of {report.prompts} prompts answered"
        f" · {share(whole.acceptance)} of drafts accepted"
        f" · drafter {report.drafter}, verifier {report.verifier}",
        markup=False,
    )
    if report.simulated:
        console.print(
            Text("The simulator answered: these numbers show the report, no more.", "dim")
        )
    console.print()
    rows = complexity_rows([*report.by_complexity(), whole])
    _print(console, HEAD, rows, numbers=True)
    times = [
        (each.name, str(len(each.times)), duration(each.at(0.5)), duration(each.at(0.95)))
        for each in report.latencies()
    ]
    _print(console, ("latency", "answers", "median", "95 %"), times, numbers=True)
    reasons = [(reason, str(count)) for reason, count in report.reasons()]
    _print(console, ("why drafts were rejected", "drafts"), reasons, numbers=True)
    rejected = [
        (str(each.line), each.name, each.complexity, each.reason) for each in report.rejected
    ]
    _print(console, ("rejected in line", "id", "complexity", "reason"), rejected)
    failed = [(str(each.line), each.name, each.reason) for each in report.failed]
    _print(console, ("failed in line", "id", "reason"), failed)


def _print(
    console: Console,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: bool = False,
) -> None:
    found = list(rows)
    if not found:
        return
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for place, name in enumerate(head):
        right = numbers and place > 0
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in found[:SHOWN]:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(found) > SHOWN:
        console.print(f"and {len(found) - SHOWN} more, in --json, --csv and --html", style="dim")
    console.print()
