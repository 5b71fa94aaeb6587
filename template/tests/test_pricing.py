"""What calls cost, to the last digit."""

from dataclasses import replace
from decimal import Decimal

import pytest

from app.cascade import pricing
from app.cascade.config import Model
from app.cascade.types import Json, Query, Usage


def model(**changes: object) -> Model:
    fields = {"provider": "simulator", "input_price": "2.5", "output_price": "10", "context": 1000}
    return Model.model_validate(fields | changes)


def test_input_and_output_are_priced_apart() -> None:
    assert pricing.cost(model(), Usage(1000, 100)) == Decimal("0.0035")


def test_cached_input_has_its_own_price() -> None:
    cost = pricing.cost(model(cached_input_price="1.25"), Usage(1000, 0, cached_tokens=800))
    assert cost == Decimal("0.0015")


def test_a_million_small_costs_add_up_exactly() -> None:
    one = pricing.cost(model(input_price="0.15"), Usage(1, 0))
    assert one * 1_000_000 == Decimal("0.15")


def test_an_estimate_says_that_it_is_one() -> None:
    estimate = pricing.estimate(Query.ask("What is AI?"), "A field of study.")
    assert estimate == Usage(4 + pricing.FRAMING, 5, estimated=True)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("internationalization", 4),
        ("什么是人工智能", 7),
        ("1234567", 3),
        ("a + b == c", 5),
        ("def f(x):\n    return x\n", 10),
        ("🙂🙂", 1),
    ],
)
def test_tokens_are_counted_as_the_common_vocabularies_cut_them(text: str, tokens: int) -> None:
    assert pricing.tokens(text) == tokens


def test_reasoning_and_cached_tokens_have_prices_of_their_own() -> None:
    priced = model(input_price=10, cached_input_price=1, output_price=100, reasoning_price=50)
    usage = Usage(1000, 100, cached_tokens=400, reasoning_tokens=60)
    dollars = Decimal(600 * 10 + 400 * 1 + 40 * 100 + 60 * 50) / 1_000_000
    assert pricing.cost(priced, usage) == dollars


def test_the_worst_case_covers_one_token_for_each_byte() -> None:
    text = "中文" * 10
    worst = pricing.worst_case(Query.ask(text, max_tokens=50), (model(),))
    assert worst >= pricing.cost(model(), Usage(len(text.encode()), 50))


def test_the_worst_case_covers_what_providers_add_to_a_prompt() -> None:
    """Anthropic's reference: up to 530 tokens where tools are offered, however small they are."""
    query = Query.ask("hi", max_tokens=1)
    tool: dict[str, Json] = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for asked, added in ((query, 80), (replace(query, tools=(tool,)), 530)):
        cost = pricing.cost(model(), Usage(pricing.prompt_tokens(asked) + added, 1))
        assert pricing.worst_case(asked, (model(),)) >= cost


def test_the_worst_case_covers_every_model_that_may_be_asked() -> None:
    one = pricing.worst_case(Query.ask("hi"), (model(),))
    assert pricing.worst_case(Query.ask("hi"), (model(), model())) == 2 * one


def test_the_worst_case_covers_tools_and_the_dearest_tokens() -> None:
    query = Query.ask("hi", max_tokens=50)
    tool: dict[str, Json] = {"type": "function", "function": {"description": "long " * 100}}
    dear = model(output_price=1, reasoning_price=5)
    without = pricing.worst_case(query, (dear,))
    assert without >= pricing.cost(dear, Usage(2, 50, reasoning_tokens=50))
    assert pricing.worst_case(replace(query, tools=(tool,)), (dear,)) > without
    assert pricing.prompt_tokens(replace(query, tools=(tool,))) > pricing.prompt_tokens(query) + 100
