"""What a call costs: reported tokens times the prices of `cascade.toml`, in decimal."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal

from app.cascade.config import Model
from app.cascade.types import Query, Usage

PER_MILLION = Decimal(1_000_000)
FRAMING = 4
"""Tokens that a chat template adds to each message."""
UNSEEN, UNSEEN_WITH_TOOLS = 100, 1000
"""Tokens at most that a provider puts before a prompt and charges for: today's date, who the model
is, how tools are called. Anthropic's reference has up to 530 for tools."""
PIECE = re.compile(
    r" ?[^\W\d_\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,6}"
    r"|\d{1,3}|[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    r"|\n+| ?[^\w\s]{1,2}| +|\S|\s"
)


def cost(model: Model, usage: Usage) -> Decimal:
    """US dollars for one call."""
    fresh = usage.input_tokens - usage.cached_tokens
    said = usage.output_tokens - usage.reasoning_tokens
    return (
        fresh * model.input_price
        + usage.cached_tokens * model.cached_price
        + said * model.output_price
        + usage.reasoning_tokens * model.thinking_price
    ) / PER_MILLION


def estimate(query: Query, text: str) -> Usage:
    """Tokens where the upstream reported none, marked as an estimate."""
    return Usage(prompt_tokens(query), tokens(text), estimated=True)


def fits(query: Query, model: Model) -> bool:
    """Whether prompt and answer fit into the model's context, as far as an estimate can tell."""
    left = model.context - query.max_tokens - FRAMING * len(query.messages)
    # It never is more tokens than characters, which take no time to count.
    return sum(map(len, _texts(query))) <= left or sum(map(tokens, _texts(query))) <= left


def prompt_tokens(query: Query) -> int:
    """About as many tokens as a query has."""
    return sum(map(tokens, _texts(query))) + FRAMING * len(query.messages)


def tokens(text: str) -> int:
    """About as many tokens as the common vocabularies make of a text.

    A vocabulary would have to be fetched at run time. They agree on the pieces, though: words of
    up to about six letters, three digits, one ideograph, one mark.
    """
    return PIECE.subn("", text)[1]


def worst_case(query: Query, models: tuple[Model, ...]) -> Decimal:
    """An upper bound in US dollars for asking every one of `models` once.

    No tokenizer makes more tokens than the text has bytes.
    """
    size = sum(len(text.encode()) for text in _texts(query))
    unseen = UNSEEN_WITH_TOOLS if query.tools else UNSEEN
    prompt = size + 2 * FRAMING * len(query.messages) + unseen
    worst = Decimal(0)
    for model in models:
        a_token_read, a_token_said = model.dearest
        worst += prompt * a_token_read + query.max_tokens * a_token_said
    return worst / PER_MILLION


def _texts(query: Query) -> Iterator[str]:
    """Whatever of a query becomes tokens."""
    for message in query.messages:
        yield message.content
        for call in message.tool_calls:
            yield f"{call.name}{call.arguments}"
    for schema in (*query.tools, *query.options.values()):
        yield json.dumps(schema, ensure_ascii=False)
