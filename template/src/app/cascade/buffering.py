"""A stream that shows nothing which may be withdrawn."""

from dataclasses import replace

from app.cascade.exchange import Emit
from app.cascade.types import Event


def buffered(emit: Emit, *, verifier_stands: bool) -> Emit:
    """Hold text until it stands, and drop it when it is withdrawn; `discard` is always 0.

    A draft stands once it is accepted, a direct answer as it comes. So does the verifier's after a
    draft if `verifier_stands`, which it does unless the draft is preferred to an error. Any text
    stands when the answer is complete.
    """
    held: list[Event] = []
    stands = False

    async def tell(event: Event) -> None:
        nonlocal stands
        if event.type == "chunk" and not stands:
            held.append(event)
            return
        if event.type == "switch":
            held.clear()
            event = replace(event, data={**event.data, "discard": 0})
        if event.type == "complete" and held:
            await emit(_joined(held))
        await emit(event)
        stands = stands or _stands_after(event, verifier_stands)
        if stands and held:
            await emit(_joined(held))
            held.clear()

    return tell


def _joined(chunks: list[Event]) -> Event:
    """One model's text as one event: thousands at once would hold up the loop."""
    return replace(chunks[0], content="".join(chunk.content for chunk in chunks))


def _stands_after(event: Event, verifier_stands: bool) -> bool:
    match event.type:
        case "routing":
            return event.data["strategy"] == "direct"
        case "switch":
            return verifier_stands
        case "draft_decision":
            return event.data["accepted"] is True
        case _:
            return False
