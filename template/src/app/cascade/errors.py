"""How a query can fail. None of these carries a prompt, an answer, a key or an address."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

FaultKind = Literal[
    "unreachable",  # refused, reset, name or TLS failure
    "timeout",
    "refused",  # 4xx: the upstream will not answer this request
    "overloaded",  # 429 and 529
    "unavailable",  # other 5xx
    "malformed",  # 200 that is not an answer
    "empty",  # an answer without text
    "interrupted",  # a stream that ended before its end
    "open",  # not asked: its breaker is open
]


class CascadeError(Exception):
    """A query that has no answer, for a reason that the service can name."""


class ConfigurationError(CascadeError):
    """The service cannot start as configured; the message says what to change, and where."""


@dataclass(eq=False)
class UpstreamFault(CascadeError):
    """One call to one model failed.

    `status` is the upstream's HTTP status where there was one; `retry_after` is in seconds.
    """

    kind: FaultKind
    status: int | None = None
    retry_after: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}" if self.status is None else f"{self.kind} (HTTP {self.status})"


@dataclass(eq=False)
class UpstreamFailed(CascadeError):
    """No model is left that could answer; `fault` is the last one's."""

    model: str
    fault: UpstreamFault

    def __str__(self) -> str:
        return f"{self.model}: {self.fault}"


@dataclass(eq=False)
class DeadlineExceeded(CascadeError):
    """The whole query took longer than it may, in seconds."""

    seconds: float

    def __str__(self) -> str:
        return f"no answer within {self.seconds:g} s"


@dataclass(eq=False)
class BudgetExceeded(CascadeError):
    """The query could cost more than is left of a budget, in US dollars."""

    remaining: Decimal
    resets_in: float
    """Seconds until the budget is whole again; 0 for that of a query, which never changes."""
    scope: Literal["service", "account", "query"] = "service"
    """Whose budget it is: everybody's, the API key's, or each query's."""

    def __str__(self) -> str:
        return f"{self.remaining} US dollars are left of the budget ({self.scope})"


class LedgerUnavailable(CascadeError):
    """The books are out of reach, so nobody knows what is left of a budget."""


@dataclass(eq=False)
class ContextExceeded(CascadeError):
    """Prompt and answer together would not fit into the verifier, in tokens."""

    model: str
    context: int

    def __str__(self) -> str:
        return f"{self.model} takes {self.context} tokens"


class NotReady(CascadeError):
    """The service is starting or draining."""
