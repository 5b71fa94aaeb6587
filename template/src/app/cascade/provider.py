"""The one provider object that cascadeflow calls, for every model.

cascadeflow knows the models by their roles, so each call reaches the right endpoint with the right
key, in streams too. The prompt it hands over is its flattened view; what goes upstream is the
conversation as the client sent it.
"""

import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import suppress

from cascadeflow.providers.base import ModelResponse
from cascadeflow.quality.confidence import ProductionConfidenceEstimator

from app.cascade import letters, view
from app.cascade.config import ActiveCascade
from app.cascade.estimators import Alignment, Difficulty
from app.cascade.exchange import CURRENT, Judgement
from app.cascade.types import Json, Role, ToolCall

IMPOSSIBLE, VANISHING, CERTAIN = -10_000.0, -700.0, 0.001
"""Natural logarithms: OpenAI's least, the least whose exponential is above 0, and just over 1."""


class _Estimator(ProductionConfidenceEstimator):
    _analyze_semantic_quality = letters.first(
        ProductionConfidenceEstimator._analyze_semantic_quality
    )


class CascadeProvider:
    """Hands cascadeflow what the upstreams say, with confidence as its own providers compute it."""

    def __init__(self, models: ActiveCascade, difficulty: Difficulty, alignment: Alignment) -> None:
        provider = models.drafter.provider
        self.estimator = _Estimator("openai" if provider == "simulator" else provider)
        self.estimator.query_estimator = difficulty
        self.estimator.alignment_scorer = alignment

    async def complete(
        self, prompt: str, model: Role, temperature: float, **_: object
    ) -> ModelResponse:
        """Ask the model with that role.

        Raises:
            UpstreamFault: cascadeflow turns a drafter's into a call to the verifier.
        """
        if model == "drafter":
            loop = asyncio.get_running_loop()
            # Twice, since the request is written by a task: so it comes first, and this meanwhile.
            loop.call_soon(loop.call_soon, self._read_ahead, prompt)
        completion = await CURRENT.get().call(model)
        shown = view.of_answer(completion.text)
        if model == "verifier":
            # Nobody judges its answers: what cascadeflow thinks of them decides nothing.
            return _response(model, shown, 1.0, "not judged")
        found = self.estimator.estimate(
            response=shown,
            query=prompt,
            logprobs=_computable(completion.logprobs),
            tokens=list(completion.tokens) or None,
            temperature=temperature,
            metadata={"finish_reason": completion.finish_reason},
        )
        return _response(model, shown, found.final_confidence, found.method_used)

    def _read_ahead(self, prompt: str) -> None:
        """Have answered what will be asked about the prompt alone."""
        # Whoever asks later is told what is wrong.
        with suppress(Exception):
            self.estimator.query_estimator.estimate(prompt)
            # Asked one of `questions.py`, the prompt is read for all of them.
            self.estimator._is_creative_query(prompt)

    async def complete_with_tools(
        self, model: Role, temperature: float, **_: object
    ) -> ModelResponse:
        """Ask the model with that role, which may ask for tools.

        Raises:
            UpstreamFault: as above.
        """
        exchange = CURRENT.get()
        completion = await exchange.call(model)
        shown = view.of_answer(completion.text)
        if not completion.tool_calls:
            if model == "drafter":
                exchange.judged(0.7, Judgement(0.7, "text, although tools were offered"))
            return _response(model, shown, 0.7, "tool-available-text-chosen")
        confidence = 0.95 if temperature == 0 else 0.85 if temperature > 1 else 0.9
        response = _response(model, shown, confidence, "tool-call-present")
        response.tool_calls = [
            parsed for call in completion.tool_calls if (parsed := _parsed(call))
        ]
        return response


def _response(model: Role, content: str, confidence: float, method: str) -> ModelResponse:
    return ModelResponse(
        content=content,
        model=model,
        provider="custom",
        cost=0.0,
        tokens_used=0,
        confidence=confidence,
        metadata={"confidence_method": method},
    )


def _computable(logprobs: Sequence[float]) -> list[float] | None:
    """What the estimator can compute with: it divides by the probabilities above 0.

    OpenAI reports -9999.0 for a very unlikely token, whose probability is 0 as far as a float goes.
    """
    # Of numbers among which is one that is none, the least and the greatest say nothing.
    if not logprobs or not math.isfinite(sum(logprobs)):
        return None
    sound = min(logprobs) >= IMPOSSIBLE and VANISHING < max(logprobs) <= CERTAIN
    return list(logprobs) if sound else None


def _parsed(call: ToolCall) -> dict[str, Json] | None:
    """A call as cascadeflow's validator reads it; one whose arguments are no object it never sees.

    Measured: cascadeflow 1.2.0 raises TypeError on others.
    """
    try:
        arguments: Json = json.loads(call.arguments or "{}")
    except ValueError:
        return None
    if not isinstance(arguments, dict):
        return None
    return {"id": call.id, "type": "function", "name": call.name, "arguments": arguments}
