"""`cascade.toml`: what it may say, and how it is refused."""

from decimal import Decimal
from pathlib import Path

import pytest

from app.cascade.config import CascadeFile, activate, load
from app.cascade.errors import ConfigurationError
from tests.conftest import cascade_toml

ENDPOINT = "https://upstream.example/v1"
GOOD = cascade_toml(ENDPOINT, ENDPOINT)


def read(tmp_path: Path, text: str) -> CascadeFile:
    path = tmp_path / "cascade.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path, text)
    return str(refused.value).replace(str(tmp_path), "")


def test_prices_are_exact(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).models["small"].input_price == Decimal("0.15")


def test_a_model_is_called_by_its_tables_name_unless_it_has_another(tmp_path: Path) -> None:
    unnamed = GOOD.replace('name = "simulator-large"', "")
    models = read(tmp_path, unnamed).models
    assert (models["small"].name, models["large"].name) == ("simulator-small", "large")


def test_log_probabilities_are_asked_of_those_who_have_them(tmp_path: Path) -> None:
    models = read(tmp_path, GOOD).models
    assert models["small"].asks_logprobs
    models = read(tmp_path, GOOD.replace('"openai"', '"groq"')).models
    assert not models["small"].asks_logprobs


def test_log_probabilities_can_be_switched_off(tmp_path: Path) -> None:
    text = GOOD.replace("[models.large]", "logprobs = false\n[models.large]")
    assert not read(tmp_path, text).models["small"].asks_logprobs


def test_cached_input_costs_as_much_as_fresh_unless_said_otherwise(tmp_path: Path) -> None:
    cheaper = GOOD.replace("[models.large]", "cached_input_price = 0.075\n[models.large]")
    models = read(tmp_path, cheaper).models
    assert models["small"].cached_price == Decimal("0.075")
    assert models["large"].cached_price == Decimal("2.50")


def test_live_keys_are_those_of_the_cascades_models(tmp_path: Path) -> None:
    text = cascade_toml(ENDPOINT, ENDPOINT, keys=True)
    assert read(tmp_path, text).live_keys() == ("DRAFTER_KEY", "VERIFIER_KEY")


def test_a_model_may_do_without_a_key(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).live_keys() == ()


def test_a_key_that_both_models_need_is_one_key(tmp_path: Path) -> None:
    text = cascade_toml(ENDPOINT, ENDPOINT, keys=True).replace("DRAFTER_KEY", "VERIFIER_KEY")
    assert read(tmp_path, text).live_keys() == ("VERIFIER_KEY",)


def test_the_active_models_are_the_live_ones_or_the_simulators(tmp_path: Path) -> None:
    file = read(tmp_path, GOOD)
    assert activate(file, simulated=False).drafter.provider == "openai"
    assert activate(file, simulated=True).drafter.provider == "simulator"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[cascade]", "[cascades]", "cascade is missing"),
        ("[cascade]", "[cascades]", "cascades is not a known key"),
        ('drafter = "small"', "", "[cascade] drafter is missing"),
        (
            'drafter = "small"',
            'drafter = "tiny"',
            '[cascade] drafter is "tiny", and there is no such model',
        ),
        (
            'drafter = "small"',
            'drafter = "pretend-small"',
            '[cascade] drafter is "pretend-small": models of provider "simulator" belong to'
            " [simulator], and no others do",
        ),
        (
            'verifier = "pretend-large"',
            'verifier = "large"',
            '[simulator] verifier is "large": models of provider "simulator" belong to'
            " [simulator], and no others do",
        ),
        ("context = 16_000", "", "[models.small] context is missing"),
        (
            "context = 16_000",
            "context = 0",
            "[models.small] context: Input should be greater than 0",
        ),
        (
            "context = 16_000",
            "context = 1\nspeed = 3",
            "[models.small] speed is not a known key",
        ),
        ("input_price = 0.15", "", "[models.small] input_price is missing"),
        (
            "input_price = 0.15",
            "input_price = -1",
            "[models.small] input_price: Input should be greater than or equal to 0",
        ),
        (
            "input_price = 0.15",
            "input_price = nan",
            "[models.small] input_price: Input should be a finite number",
        ),
        (
            "input_price = 0.15",
            "input_price = 15000",
            "[models.small] input_price: Input should be less than or equal to 10000",
        ),
        (f'endpoint = "{ENDPOINT}"', "", "[models.small] endpoint is missing"),
        (
            f'endpoint = "{ENDPOINT}"',
            'endpoint = "ftp://x"',
            "[models.small] endpoint: URL scheme should be 'http' or 'https'",
        ),
        ('provider = "openai"', 'provider = "acme"', "[models.small] provider: Input should be"),
        ('provider = "openai"', "", "[models.small] provider is missing"),
    ],
)
def test_a_mistake_is_refused_with_file_and_key(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert f"/cascade.toml: {sentence}" in refusal(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('strictness = "lax"', "[cascade] strictness: Input should be"),
        (
            "thresholds = {simple = 1.5}",
            "[cascade.thresholds] simple: Input should be less than or equal to 1",
        ),
        ("thresholds = {easy = 0.5}", "[cascade.thresholds.easy]"),
        ("budget = 3", "[cascade] budget is not a known key"),
    ],
)
def test_an_impossible_strictness_is_refused(tmp_path: Path, more: str, sentence: str) -> None:
    assert f"/cascade.toml: {sentence}" in refusal(
        tmp_path, cascade_toml(ENDPOINT, ENDPOINT, more=more)
    )


def test_a_key_that_is_no_table_is_refused(tmp_path: Path) -> None:
    assert "/cascade.toml: models: " in refusal(tmp_path, "models = 3\n")


def test_several_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("input_price = 0.15", "", 1).replace("context = 16_000", "", 1)
    assert len(refusal(tmp_path, text).splitlines()) == 2


def test_what_is_not_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path, "[cascade]\ndrafter = \n")
    assert said.startswith("/cascade.toml: ")
    assert "at line 2" in said


def test_a_missing_file_is_refused_with_the_variable_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read.*CASCADE_FILE"):
        load(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cascade.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(path)


TINY = """
[embeddings]
model = "tiny"
[models.tiny]
provider = "openai"
endpoint = "https://upstream.example/v1"
key = "TINY_KEY"
input_price = 0.02
output_price = 0
context = 8191
"""


def test_a_model_for_embeddings_is_one_of_the_models(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD + TINY)
    assert found.live_keys() == ("TINY_KEY",)
    live, simulated = activate(found, simulated=False), activate(found, simulated=True)
    assert live.embedder == found.models["tiny"]
    assert simulated.embedder is None
    assert activate(read(tmp_path, GOOD), simulated=False).embedder is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[models.tiny]", "[models.small-one]", 'model is "tiny", and there is no such model'),
        ('"openai"', '"anthropic"', 'model is "tiny": anthropic has no embeddings'),
    ],
)
def test_a_model_that_makes_no_embeddings_is_refused(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert sentence in refusal(tmp_path, GOOD + TINY.replace(old, new))
