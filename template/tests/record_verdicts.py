"""What cascadeflow itself thinks of the drafts in `verdicts.jsonl`: the measure of our engine.

    python -m tests.record_verdicts

asks the library for every verdict anew and writes them down, with its version in the first line. A
release of cascadeflow may change verdicts: look at the difference before you commit it.
"""

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cascadeflow.agent import CascadeAgent
from cascadeflow.providers import PROVIDER_REGISTRY
from cascadeflow.providers.base import ModelResponse
from cascadeflow.quality.confidence import ProductionConfidenceEstimator
from cascadeflow.quality.quality import AdaptiveThreshold, QualityConfig, ValidationResult
from cascadeflow.schema.config import ModelConfig

from app.cascade.routing import STRICTNESS
from app.cascade.types import Completion, Message, Query, Usage

FILE = Path(__file__).with_name("verdicts.jsonl")
TEMPERATURE = 0.7
VERIFIED = "This is what the verifier says."

# Natural logarithms that tokens take in turn.
LOGPROBS: dict[str, tuple[float, ...]] = {
    "none": (),
    "sure": (-0.001, -0.02, -0.05, -0.01),
    "fair": (-0.2, -0.05, -0.6, -0.3),
    "mixed": (-0.01, -0.02, -3.5, -0.01, -0.1),
    "unsure": (-0.9, -2.0, -0.4, -1.5),
    "lost": (-4.0, -6.5, -3.0),
    "impossible": (-0.05, -9999.0, -0.4),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided on one draft; a query that goes to the verifier at once has no draft."""

    outcome: str
    complexity: str
    confidence: float | None
    score: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """A question or a conversation, a draft of its answer, and how sure the drafter was."""

    topic: str
    ask: str | list[list[str]]
    draft: str
    logprobs: str
    temperature: float = TEMPERATURE
    finish: str = "stop"
    verdict: Verdict | None = None

    @property
    def query(self) -> Query:
        turns = [["user", self.ask]] if isinstance(self.ask, str) else self.ask
        messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
        return Query(messages, temperature=self.temperature)

    @property
    def completion(self) -> Completion:
        """The draft as it comes over the wire."""
        tokens = tuple(re.findall(r"\s*\S+", self.draft))
        profile = LOGPROBS[self.logprobs]
        logprobs = tuple(profile[n % len(profile)] for n in range(len(tokens) if profile else 0))
        return Completion(
            self.draft, self.finish, Usage(10, 10), tokens if profile else (), logprobs
        )


def read() -> tuple[str, list[Case]]:
    """The version of cascadeflow that gave the verdicts, and the cases."""
    first, *lines = FILE.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    cases = [Case(**{**row, "verdict": Verdict(**row["verdict"])}) for row in rows]
    return json.loads(first)["cascadeflow"], cases


def write(cases: Iterable[Case]) -> None:
    """Record the verdicts as those of the cascadeflow that is installed."""
    rows: list[dict[str, Any]] = [{"cascadeflow": version("cascadeflow")}]
    usual = {"temperature": TEMPERATURE, "finish": "stop"}
    for case in cases:
        row = asdict(case)
        rows.append({key: row[key] for key in row if row[key] != usual.get(key)})
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    FILE.write_text("".join(lines), encoding="utf-8")


async def stock_verdicts(cases: Sequence[Case], quality: QualityConfig) -> list[Verdict]:
    """The verdicts of cascadeflow as it is, its thresholds kept from drifting between cases."""
    drafts = _Drafts()
    agent = _agent(drafts, quality)
    thresholds = dict(quality.confidence_thresholds)
    validations: list[ValidationResult] = []
    validate = agent.cascade.quality_validator.validate

    def validating(*args: Any, **options: Any) -> ValidationResult:  # noqa: ANN401
        validations.append(validate(*args, **options))
        return validations[-1]

    agent.cascade.quality_validator.validate = validating  # type: ignore[method-assign]
    verdicts = []
    for case in cases:
        drafts.case = case
        agent.cascade.adaptive_threshold = AdaptiveThreshold(dict(thresholds))
        text, messages = _asked(case)
        result = await agent.run(text, messages=messages, temperature=case.temperature)
        if not result.cascaded:
            verdicts.append(Verdict("direct", result.complexity, None, None, result.reason))
            continue
        verdicts.append(
            Verdict(
                "accepted" if result.draft_accepted else "rejected",
                result.complexity,
                result.draft_confidence,
                result.quality_score,
                validations[-1].reason,
            )
        )
    return verdicts


def _asked(case: Case) -> tuple[str, list[dict[str, str]] | None]:
    if isinstance(case.ask, str):
        return case.ask, None
    return "", [{"role": role, "content": text} for role, text in case.ask]


class _Drafts:
    """A provider that says what the case says, confident as `OpenAIProvider.complete` would be."""

    def __init__(self) -> None:
        self.case: Case | None = None
        self._estimator = ProductionConfidenceEstimator("openai")

    async def complete(
        self, prompt: str, model: str, temperature: float, **_: object
    ) -> ModelResponse:
        assert self.case
        said = self.case.completion
        content = said.text if model == "drafter" else VERIFIED
        found = self._estimator.estimate(
            response=content,
            query=prompt,
            logprobs=list(said.logprobs) or None,
            tokens=list(said.tokens) or None,
            temperature=temperature,
            metadata={"finish_reason": said.finish_reason},
        )
        return ModelResponse(
            content=content,
            model=model,
            provider="custom",
            cost=0.0,
            tokens_used=20,
            confidence=found.final_confidence,
            metadata={"confidence_method": found.method_used},
        )


def _agent(provider: _Drafts, quality: QualityConfig) -> CascadeAgent:
    logging.getLogger("cascadeflow").setLevel(logging.CRITICAL)
    PROVIDER_REGISTRY["custom"] = lambda **_: provider
    try:
        models = [
            ModelConfig(name, provider="custom", cost=cost)
            for name, cost in (("drafter", 1.0), ("verifier", 2.0))
        ]
        return CascadeAgent(models, quality_config=quality)
    finally:
        del PROVIDER_REGISTRY["custom"]


def main() -> None:
    """Ask cascadeflow again about every case."""
    _, cases = read()
    verdicts = asyncio.run(stock_verdicts(cases, STRICTNESS["balanced"]()))
    write(replace(case, verdict=verdict) for case, verdict in zip(cases, verdicts, strict=True))
    changed = sum(case.verdict != verdict for case, verdict in zip(cases, verdicts, strict=True))
    print(f"{len(cases)} verdicts of cascadeflow {version('cascadeflow')}, {changed} changed")  # noqa: T201


if __name__ == "__main__":
    main()
