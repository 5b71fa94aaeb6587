"""What must become of a query whose upstreams fail: the policy, as data.

The tests hold every cell of it against the service. `python -m tests.faults` writes it for people,
to `docs/faults.md`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.cascade.errors import FaultKind
from app.cascade.types import Role

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"

Where = Literal["drafter", "verifier", "both", "direct"]
"""Who has the fault. `direct`: the verifier, of a question that has no draft."""
Failure = Literal["error", "draft"]
"""`on_verifier_failure` of cascade.toml."""
Bill = Literal["nothing", "reported", "estimated"]
"""What a call with the fault costs: nothing, its usage, or an estimate of what it has done."""

PLACES: tuple[Where, ...] = ("drafter", "verifier", "both", "direct")
FAILURES: tuple[Failure, ...] = ("error", "draft")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an upstream, and how the service takes it."""

    name: str
    says: str
    """The fault as the end of "The upstream …"."""
    kind: FaultKind | None
    """None: it is an answer all the same."""
    retried: bool
    status: int = 200
    """What the client gets if nobody else can answer."""
    bill: Bill = "nothing"
    streamed: tuple[FaultKind | None, Bill] | None = None
    """Kind and bill where the answer is streamed, if they are others."""
    lasting: bool = False
    """Only a deadline ends it."""

    def of(self, *, stream: bool) -> tuple[FaultKind | None, Bill]:
        return self.streamed if self.streamed and stream else (self.kind, self.bill)


ERRORS = {502: "upstream_error", 503: "upstream_overloaded", 504: "timeout"}

# fmt: off
FAULTS = (
    Fault("refused", "refuses the connection", "unreachable", True, 502),
    Fault("tls", "fails the TLS handshake", "unreachable", True, 502),
    Fault("closed", "closes the connection without a word", "unreachable", True, 502),
    Fault("connect", "does not take the connection in time", "timeout", True, 504),
    Fault("hang", "takes the request and says nothing", "timeout", False, 504,
          "estimated", lasting=True),
    Fault("dribble", "speaks too slowly for the deadline", "timeout", False, 504,
          "estimated", lasting=True),
    Fault("slow", "speaks slowly, and ends in time", None, False, bill="reported"),
    Fault("400", "answers 400", "refused", False, 502),
    Fault("401", "answers 401", "refused", False, 502),
    Fault("403", "answers 403", "refused", False, 502),
    Fault("404", "answers 404", "refused", False, 502),
    Fault("408", "answers 408", "timeout", True, 504),
    Fault("409", "answers 409", "refused", False, 502),
    Fault("413", "answers 413", "refused", False, 502),
    Fault("429", "answers 429", "overloaded", True, 503),
    Fault("429-after", "answers 429 with `Retry-After`", "overloaded", True, 503),
    Fault("500", "answers 500", "unavailable", True, 502),
    Fault("502", "answers 502", "unavailable", True, 502),
    Fault("503", "answers 503", "unavailable", True, 502),
    Fault("529", "answers 529", "overloaded", True, 503),
    Fault("malformed", "sends JSON that is broken", "malformed", False, 502),
    Fault("html", "sends HTML with status 200", "malformed", False, 502,
          streamed=("interrupted", "nothing")),
    Fault("no-choices", "sends no `choices`", "malformed", False, 502,
          streamed=("empty", "nothing")),
    Fault("no-usage", "sends no `usage`", None, False, bill="estimated"),
    Fault("no-content", "sends no `content`", "empty", False, 502, "reported"),
    Fault("null-content", "sends `content` that is null", "empty", False, 502, "reported"),
    Fault("empty-content", "sends `content` that is empty", "empty", False, 502, "reported"),
    Fault("blank-content", "sends `content` that is blank", "empty", False, 502, "reported"),
    Fault("empty-body", "sends nothing with status 200", "malformed", False, 502,
          streamed=("interrupted", "nothing")),
    Fault("cut-early", "breaks off before the first word", "interrupted", False, 502),
    Fault("cut-late", "breaks off after the first word", "interrupted", False, 502,
          streamed=("interrupted", "estimated")),
    Fault("unfinished", "ends in the middle of the answer", "malformed", False, 502,
          streamed=("interrupted", "estimated")),
    Fault("no-done", "sends a whole answer without its end mark", None, False, bill="reported"),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who answers, or with which status the query ends."""

    answers: Role | None
    status: int
    degraded: bool = False


def outcome(fault: Fault, where: Where, failure: Failure) -> Outcome:
    """The policy. Where a draft is made and its model is well, it is rejected for `verifier`."""
    if fault.kind is None:
        return Outcome("drafter" if where == "drafter" else "verifier", 200)
    if where == "drafter":
        return Outcome("verifier", 200)
    if where == "verifier" and failure == "draft":
        return Outcome("drafter", 200, degraded=True)
    return Outcome(None, fault.status)


def bills(fault: Fault, where: Where, *, stream: bool) -> dict[Role, Bill]:
    """What each call costs; the models that are not asked are not there."""
    kind, bill = fault.of(stream=stream)
    match where:
        case "drafter":
            return {"drafter": bill, "verifier": "reported"} if kind else {"drafter": bill}
        case "verifier":
            return {"drafter": "reported", "verifier": bill}
        case "both":
            return {"drafter": bill, "verifier": bill}
        case "direct":
            return {"verifier": bill}


# --- for people -----------------------------------------------------------------------------------

INTRO = """\
# When a model fails

A client never gets an empty answer, and never a rejected draft for a good one. If the drafter
fails, the verifier answers. If the verifier fails as well, or alone after a draft was rejected, the
query ends with an error: `502` the model gave no answer, `503` it takes no queries now
(`Retry-After` says when it will), `504` the deadline passed. With `on_verifier_failure = "draft"`
in `cascade.toml` a rejected draft is sent instead, marked `degraded: true`; that is wherever the
column *verifier* below has an error.

A call that is *tried again* is tried up to `UPSTREAM_ATTEMPTS` times while the deadline leaves
time: after as long as its `Retry-After` says, else after a random wait that grows, and never once a
client has been sent some of its text. A model whose calls fail `BREAKER_FAILURES` times in a row is
left alone for ten seconds; requests that it refuses do not count. Half of the deadline is the
drafter's, so that one that hangs leaves the verifier time to answer.

Cost is what the upstreams report. Where one reports nothing for what it said, or is stopped at its
work, the tokens are estimated and `usage.estimated` is true.

| the upstream … | tried again | drafter | verifier | both | asked directly |
|---|---|---|---|---|---|
"""
END = """
*drafter*, *verifier*, *both*: whose upstream does so; the other is well. The tests hold each cell,
and fail when this page says anything else: `uv run python -m tests.faults` writes it.
"""


def page() -> str:
    """`docs/faults.md`."""
    return "\n".join([INTRO.rstrip(), *(_row(fault) for fault in FAULTS), END])


def _row(fault: Fault) -> str:
    again = "yes" if fault.retried else "no"
    return f"| {' | '.join([fault.says, again, *(_told(fault, where) for where in PLACES)])} |"


def _told(fault: Fault, where: Where) -> str:
    found = outcome(fault, where, "error")
    if not found.answers:
        return f"{found.status} `{ERRORS[found.status]}`"
    return "the draft" if found.answers == "drafter" else "the verifier's answer"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
