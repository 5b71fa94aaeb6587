"""Names of attributes: OpenTelemetry's semantic conventions for generative AI, and our own.

The conventions are still in development, so nothing else spells them.
"""

from app.cascade.types import CallReport
from app.ledger import Entry

Value = str | int | float | tuple[str, ...]

OPERATION = "chat"


def span_name(call: CallReport) -> str:
    """`{operation} {model}`."""
    return f"{OPERATION} {call.model}"


def of_call(call: CallReport) -> dict[str, Value]:
    """What a span says of one call to a model; nothing that was asked or answered."""
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": call.provider,
        "gen_ai.request.model": call.model,
        "gen_ai.usage.input_tokens": call.usage.input_tokens,
        "gen_ai.usage.output_tokens": call.usage.output_tokens,
        "cascade.role": call.role,
    }
    if call.finish_reason:
        attributes["gen_ai.response.finish_reasons"] = (call.finish_reason,)
    if call.faults:
        attributes["cascade.faults"] = call.faults
    if not call.answered:
        attributes["error.type"] = call.faults[-1] if call.faults else "cancelled"
    return attributes


def of_query(entry: Entry) -> dict[str, Value]:
    """What the request's own span says of its query."""
    return {
        "cascade.outcome": entry.outcome,
        "cascade.complexity": entry.complexity,
        "cascade.cost_dollars": float(entry.cost),
        "cascade.saved_dollars": float(entry.saved),
    }
