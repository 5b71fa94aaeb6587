"""The command line's `replay`: its options. What it does is imported when it is asked to."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from app.terminal import AsJson, dollars


def replay(
    file: Annotated[Path, typer.Argument(help="Prompts, as JSON Lines.", dir_okay=False)],
    results: Annotated[
        Path | None,
        typer.Option(help="Kept here, and gone on from: FILE with .replay.jsonl if not given."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Only the first so many.")] = None,
    budget: Annotated[
        Decimal | None,
        typer.Option(parser=dollars, metavar="USD", help="For all runs into the same results."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=100, help="Asked at a time.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, max=4000)] = 1000,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a line a prompt.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page to read.")] = None,
    texts: Annotated[bool, typer.Option(help="Prompts and answers are in the page.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run your own prompts through the cascade; see what it saves, and which drafts fail.

    Ends with 0 if every prompt is answered, 3 if some failed or could not be read, 4 if the budget
    or a fault stopped it, 130 after Ctrl+C. The same command goes on from there.
    """
    # Whoever serves starts sooner without it.
    from app.replay import command

    command.replay(
        file,
        results or file.with_suffix(".replay.jsonl"),
        limit=limit,
        budget=budget,
        concurrency=concurrency,
        max_tokens=max_tokens,
        temperature=temperature,
        csv_file=csv_file,
        html_file=html_file,
        texts=texts,
        as_json=as_json,
    )
