"""One question and its answer in a terminal: the command line's `ask`."""

from rich.console import Console
from rich.text import Text

from app import runtime
from app.cascade.types import Answer, Event, Query
from app.http import logs
from app.http.problems import from_cascade
from app.http.schemas import to_response
from app.ledger import Account, opening
from app.settings import Settings
from app.terminal import fail, tell

ME = Account("command-line")
"""Who pays for what is asked here."""


async def ask(settings: Settings, query: Query, as_json: bool) -> None:
    """Ask, and show the answer while it is made; or print it as JSON in the end."""
    logs.configure("ERROR")
    models = runtime.configure(settings)
    ledger = opening.choose(settings)
    console = Console(highlight=False, soft_wrap=True)
    if models.simulated and not as_json:
        console.print("The simulator answers; keys bring real models.", style="dim")
    async with (
        ledger.running(),
        runtime.running(settings, models, ledger) as engine,
        engine.open(query, ME) as events,
    ):
        async for event in events:
            if as_json:
                _show_result(event)
            else:
                _show(console, event)


def _show_result(event: Event) -> None:
    """The answer of `POST /api/query`; what is withdrawn is not shown."""
    if event.answer:
        tell(to_response(event.answer))
    elif event.error:
        fail(from_cascade(event.error).detail)


def _show(console: Console, event: Event) -> None:
    match event.type:
        case "chunk":
            style = "cyan" if event.data["phase"] == "draft" else ""
            console.print(Text(event.content, style), end="")
        case "switch":
            console.print()
            models = event.data["from_model"], event.data["to_model"]
            console.print(Text("✗ draft of {} withdrawn; {} answers:".format(*models), "red"))
        case "complete" if event.answer:
            console.print()
            console.print(Text(_summary(event.answer), "dim"))
        case "error" if event.error:
            console.print()
            fail(from_cascade(event.error).detail)
        case _:
            pass


def _summary(answer: Answer) -> str:
    verdict = {"accepted": "draft accepted", "rejected": "draft rejected"}.get(
        answer.outcome, "asked directly"
    )
    balance = f"{'saved' if answer.saved >= 0 else 'lost'} ${abs(answer.saved):.6f}"
    return (
        f"{answer.model_used} · {verdict} · cost ${answer.cost:.6f} · {balance}"
        f" · {answer.latency_ms:.0f} ms"
    )
