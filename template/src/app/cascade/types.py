"""The words the service speaks: queries, answers and events, with nothing of cascadeflow."""

import json
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from typing import Literal

from pydantic import JsonValue

from app.values import value

Json = JsonValue

Role = Literal["drafter", "verifier"]
Speaker = Literal["system", "user", "assistant", "tool"]
Outcome = Literal["accepted", "rejected", "direct", "failed", "cancelled"]
EventType = Literal["routing", "chunk", "draft_decision", "switch", "complete", "error"]


@value
class ToolCall:
    """A function that a model wants called; `arguments` is JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str

    @property
    def input(self) -> dict[str, Json]:
        """The object in `arguments`; a model may have written none, or something else."""
        try:
            found: Json = json.loads(self.arguments)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@value
class Message:
    """One turn of a conversation."""

    role: Speaker
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """What an assistant's turn asked for."""
    tool_call_id: str | None = None
    """Which call a tool's turn answers."""


@value
class Query:
    """What a client asks: a conversation whose last turn is the user's, and how to answer it."""

    messages: tuple[Message, ...]
    max_tokens: int = 100
    temperature: float = 0.7
    force_direct: bool = False
    """Ask the verifier at once."""
    undrafted: bool = False
    """Ask the drafter alone, and let nobody judge what it says."""
    options: Mapping[str, Json] = field(default_factory=dict)
    """Further sampling fields (`top_p`, `stop`, `seed`, …), sent upstream as they are."""
    tools: tuple[dict[str, Json], ...] = ()
    """Functions that a model may ask for, in OpenAI's form."""
    tool_choice: Json = None
    deadline: float | None = None
    """Seconds that the client will wait; can only shorten the service's own deadline."""

    @classmethod
    def ask(
        cls,
        text: str,
        *,
        max_tokens: int = 100,
        temperature: float = 0.7,
        force_direct: bool = False,
        deadline: float | None = None,
    ) -> "Query":
        """A conversation of a single question."""
        return cls(
            (Message("user", text),), max_tokens, temperature, force_direct, deadline=deadline
        )


@value
class Usage:
    """Tokens as the upstream reported them, or an estimate where it reported none."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """The part of `input_tokens` that the upstream read from its cache."""
    reasoning_tokens: int = 0
    """The part of `output_tokens` that the model thought and did not say."""
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
        )


Vector = list[float] | str
"""Numbers, or their bytes in base64."""


@value
class Embedding:
    """Texts of which vectors are wanted."""

    texts: tuple[str, ...]
    options: Mapping[str, Json] = field(default_factory=dict)
    """Further fields, sent upstream as they are."""
    deadline: float | None = None
    """As in `Query`."""


@value
class Embedded:
    """The vectors, a text each. Money is in US dollars."""

    model: str
    vectors: tuple[Vector, ...]
    usage: Usage
    cost: Decimal


@value
class Completion:
    """One model's whole answer, as it came over the wire."""

    text: str
    finish_reason: str | None
    usage: Usage | None
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Natural logarithms, one for each of `tokens`; empty where the upstream gives none."""
    tool_calls: tuple[ToolCall, ...] = ()


@value
class CallReport:
    """One call to one model, all its tries together, for whoever observes the service."""

    role: Role
    model: str
    provider: str
    began: float
    """Seconds since the epoch."""
    seconds: float
    usage: Usage
    faults: tuple[str, ...] = ()
    """What became of the tries that failed, in order: kinds of `UpstreamFault`."""
    finish_reason: str | None = None
    answered: bool = False


@value
class Decision:
    """cascadeflow's verdict on a draft."""

    accepted: bool
    confidence: float
    score: float | None
    reason: str


@value
class Answer:
    """What a query came to. Money is in US dollars, time in milliseconds."""

    content: str
    model_used: str
    cost: Decimal
    baseline_cost: Decimal
    """What the verifier alone would have cost for the same tokens."""
    latency_ms: float
    cascaded: bool
    """Whether a draft was asked for, as opposed to the verifier at once."""
    draft_accepted: bool | None
    """None where there was no draft to judge."""
    complexity: str
    reason: str
    finish_reason: str | None
    usage: Usage
    decision: Decision | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    """As in `Completion`, of the model that answered."""
    degraded: bool = False
    """A rejected draft, sent because the verifier failed and `cascade.toml` prefers that."""

    @property
    def saved(self) -> Decimal:
        """The saving against the verifier alone; negative when a draft was wasted."""
        return self.baseline_cost - self.cost

    @property
    def outcome(self) -> Outcome:
        if not self.cascaded:
            return "direct"
        return "accepted" if self.draft_accepted else "rejected"


@value
class Event:
    """One step of a streamed answer; `data` holds only JSON values."""

    type: EventType
    content: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)
    answer: Answer | None = None
    """Set on `complete` alone."""
    error: Exception | None = None
    """Set on `error` alone."""
