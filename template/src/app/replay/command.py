"""What the command line's `replay` does: asks what is missing, keeps it, and reports."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app import runtime
from app.cascade.config import ActiveCascade
from app.cascade.errors import ConfigurationError
from app.http import logs
from app.ledger import opening
from app.replay import html, read, sheet, table
from app.replay.read import BadLine, Prompt
from app.replay.report import Report, money
from app.replay.results import Result, Results, opened
from app.replay.run import Run, note
from app.settings import Settings, load_settings
from app.terminal import explained, tell
from app.values import value

INCOMPLETE, STOPPED = 3, 4
TOLD = 20
"""Bad lines that are told one by one."""


def replay(
    file: Path,
    place: Path,
    *,
    limit: int | None,
    budget: Decimal | None,
    concurrency: int,
    max_tokens: int,
    temperature: float,
    csv_file: Path | None,
    html_file: Path | None,
    texts: bool,
    as_json: bool,
) -> None:
    """Replay a file into results at a place, and report. The command's help says the rest.

    Raises:
        Exit: with the code that the command ends with, if that is not 0.
    """
    with explained():
        settings = load_settings(Settings)
        models = runtime.configure(settings)
        prompts = read.read(file, max_tokens=max_tokens, temperature=temperature)
        asked = prompts.good[:limit]
        bad = prompts.bad if limit is None else _before(prompts.bad, prompts.good, limit)
        _tell_bad(file, bad)
        if not prompts.good:
            raise ConfigurationError(f"{file}: there is no prompt in it; {read.FORM}, one a line")
        _check_apart(file, place, csv_file, html_file)
        with opened(place, models) as kept:
            ended = asyncio.run(_run(settings, models, asked, kept, budget, concurrency))
            report = Report(
                source=file.name,
                drafter=models.drafter.name,
                verifier=models.verifier.name,
                simulated=models.simulated,
                prompts=len(asked),
                bad=bad,
                results=tuple(
                    kept.by_key[prompt.key] for prompt in asked if prompt.key in kept.by_key
                ),
            )
        if csv_file:
            _write(csv_file, sheet.sheet(report))
        if html_file:
            _write(html_file, html.page(report, texts=texts))
    if as_json:
        tell(report.to_json())
    else:
        table.show(Console(highlight=False), report)
    if ended:
        typer.echo(f"{ended.why}; the same command goes on from {place}", err=True)
        raise typer.Exit(ended.code)
    if not report.complete:
        raise typer.Exit(INCOMPLETE)


@value
class _Ended:
    """Why a run ended early, and the exit code for it."""

    why: str
    code: int


async def _run(
    settings: Settings,
    models: ActiveCascade,
    prompts: Sequence[Prompt],
    kept: Results,
    budget: Decimal | None,
    concurrency: int,
) -> _Ended | None:
    """Ask what has no answer yet."""
    logs.configure("ERROR")
    answered = {key for key, result in kept.by_key.items() if result.answered}
    missing = [prompt for prompt in prompts if prompt.key not in answered]
    _tell_state(prompts, kept, len(missing))
    if not missing:
        return None
    ledger = opening.choose(settings)
    async with ledger.running(), runtime.running(settings, models, ledger, [note]) as engine:
        with _progress(len(prompts), len(prompts) - len(missing)) as shown:
            run = Run(engine, kept, shown, budget)
            work = asyncio.ensure_future(run.answer(missing, concurrency))
            with _interruptible(run, work) as caught:
                await asyncio.wait([work])
            if not work.cancelled():
                work.result()
    if caught:
        return _Ended("Interrupted", 128 + caught[0])
    return _Ended(f"Stopped: {run.stopped}", STOPPED) if run.stopped else None


@contextmanager
def _interruptible(run: Run, work: "asyncio.Future[None]") -> Iterator[list[int]]:
    """After the first signal what is being asked is answered and kept, after the second not."""
    caught: list[int] = []

    def stop(number: int) -> None:
        if caught:
            work.cancel()
        else:
            typer.echo("Ending: answers that are under way are kept; again to drop them.", err=True)
            run.stop("interrupted")
        caught.append(number)

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    # Windows ends at once; what is answered is kept all the same.
    with suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, stop, number)
    try:
        yield caught
    finally:
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[Result], None]]:
    """Shows a bar in a terminal, and a line for each tenth elsewhere; yields what hears results."""
    seen: list[Result] = []
    console = Console(stderr=True, highlight=False)

    def words() -> str:
        accepted = sum(result.outcome == "accepted" for result in seen)
        failed = sum(not result.answered for result in seen)
        saved = sum((result.saved for result in seen), start=Decimal(0))
        told = f"{accepted} drafts accepted, {money(saved)} saved"
        return f"{told}, {failed} failed" if failed else told

    if not console.is_terminal:
        tenth = max(total // 10, 1)

        def tell(result: Result) -> None:
            seen.append(result)
            if (done + len(seen)) % tenth == 0:
                typer.echo(f"{done + len(seen)} of {total}: {words()}", err=True)

        yield tell
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(words(), total=total, completed=done)

        def draw(result: Result) -> None:
            seen.append(result)
            progress.update(bar, advance=1, description=words())

        yield draw


def _tell_bad(file: Path, bad: Sequence[BadLine]) -> None:
    for each in bad[:TOLD]:
        typer.echo(f"{file}, line {each.line}: {each.why}", err=True)
    if len(bad) > TOLD:
        typer.echo(f"{file}: and {len(bad) - TOLD} more lines that are no prompts", err=True)


def _tell_state(prompts: Sequence[Prompt], kept: Results, missing: int) -> None:
    if kept.mended:
        typer.echo(f"{kept.path}: its last line was cut short, and is asked again", err=True)
    known = {prompt.key for prompt in prompts}
    if gone := len(kept.by_key.keys() - known):
        typer.echo(
            f"{kept.path}: {gone} of its results are of no prompt in this replay; they stay,"
            " and are not reported",
            err=True,
        )
    if missing < len(prompts):
        typer.echo(f"{len(prompts) - missing} are answered already; {missing} to ask", err=True)


def _before(bad: Sequence[BadLine], good: Sequence[Prompt], limit: int) -> tuple[BadLine, ...]:
    """The bad lines before the first prompt beyond the limit."""
    end = good[limit].line if limit < len(good) else sys.maxsize
    return tuple(each for each in bad if each.line < end)


def _check_apart(*paths: Path | None) -> None:
    """What is read must not be written over.

    Raises:
        ConfigurationError: two of the files are one.
    """
    found = [path.resolve() for path in paths if path]
    if len(set(found)) < len(found):
        raise ConfigurationError("FILE, --results, --csv and --html are four different files")


def _write(path: Path, text: str) -> None:
    """Readable by its user alone, as the results are."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from None
    typer.echo(f"{path}: written", err=True)
