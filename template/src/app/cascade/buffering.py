"""A stream that shows nothing which may be withdrawn."""

from collections.abc import AsyncIterator
from dataclasses import replace

from app.cascade.types import Event


async def buffered(events: AsyncIterator[Event], *, verifier_stands: bool) -> AsyncIterator[Event]:
    """Hold text until it stands, and drop it when it is withdrawn; `discard` is always 0.

    A draft stands once it is accepted, a direct answer as it comes. So does the verifier's after a
    draft if `verifier_stands`, which it does unless the draft is preferred to an error. Any text
    stands when the answer is complete.
    """
    held: list[Event] = []
    stands = False
    async for event in events:
        if event.type == "chunk" and not stands:
            held.append(event)
            continue
        if event.type == "switch":
            held.clear()
            event = replace(event, data={**event.data, "discard": 0})
        if event.type == "complete" and held:
            yield _joined(held)
        yield event
        stands = stands or _stands_after(event, verifier_stands)
        if stands and held:
            yield _joined(held)
            held.clear()


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
