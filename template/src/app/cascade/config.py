"""`cascade.toml`: the models, who drafts, who verifies, at what price and how strictly."""

import tomllib
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, model_validator
from pydantic_core import ErrorDetails

from app.cascade.errors import ConfigurationError
from app.cascade.types import Role
from app.values import value

Provider = Literal["openai", "anthropic", "groq", "together", "ollama", "vllm", "simulator"]
WITHOUT_EMBEDDINGS: frozenset[Provider] = frozenset({"anthropic", "simulator"})
LOGPROBS: frozenset[Provider] = frozenset({"openai", "vllm", "simulator"})
Complexity = Literal["trivial", "simple", "moderate", "hard", "expert"]
Price = Annotated[Decimal, Field(ge=0, le=10_000, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Table):
    """One `[models.NAME]` table. Prices are US dollars per million tokens."""

    provider: Provider
    """Whose protocol the endpoint speaks."""
    endpoint: HttpUrl | None = None
    """Where it is; the simulator has none."""
    key: str = ""
    """The environment variable that holds the key, never the key itself; empty for no key."""
    input_price: Price
    """US dollars per million tokens, as all prices."""
    output_price: Price
    """Of what the model says."""
    cached_input_price: Price | None = None
    """Of input that the provider had kept; `input_price` unless given."""
    reasoning_price: Price | None = None
    """Of what the model thinks; `output_price` unless given."""
    context: Annotated[int, Field(gt=0)]
    """Tokens that prompt and answer may have together."""
    name: str = ""
    """What the upstream calls the model; the table's name unless said otherwise."""
    logprobs: bool | None = None
    """Ask for token probabilities, which sharpen the verdict; some endpoints refuse them."""

    @property
    def asks_logprobs(self) -> bool:
        return self.provider in LOGPROBS if self.logprobs is None else self.logprobs

    @cached_property
    def dearest(self) -> tuple[Decimal, Decimal]:
        """The most that a token of input and one of output can cost."""
        return max(self.input_price, self.cached_price), max(self.output_price, self.thinking_price)

    @property
    def cached_price(self) -> Decimal:
        return self.input_price if self.cached_input_price is None else self.cached_input_price

    @property
    def thinking_price(self) -> Decimal:
        return self.output_price if self.reasoning_price is None else self.reasoning_price

    @model_validator(mode="after")
    def _needs_an_endpoint(self) -> Self:
        if self.endpoint is None and self.provider != "simulator":
            raise ValueError("endpoint is missing")
        return self


class Pair(_Table):
    """Who drafts and who verifies, by the names of their tables."""

    drafter: str
    """The table of the model that drafts."""
    verifier: str
    """The table of the model that answers when a draft is not good enough."""


class Cascade(Pair):
    """The `[cascade]` table."""

    strictness: Literal["balanced", "careful", "strict"] = "balanced"
    """How good a draft must be to be sent."""
    on_verifier_failure: Literal["error", "draft"] = "error"
    """After a rejected draft: fail, or send the draft marked as degraded."""
    adaptive: bool = False
    """Let each worker move its thresholds with its traffic, as cascadeflow does by default."""
    thresholds: dict[Complexity, Threshold] = {}
    """The confidence a draft needs, by complexity; what is not named follows `strictness`."""


class Embeddings(_Table):
    """The `[embeddings]` table, if there is one."""

    model: str
    """The table of the model that makes them."""


class CascadeFile(_Table):
    """The whole of `cascade.toml`."""

    cascade: Cascade
    embeddings: Embeddings | None = None
    simulator: Pair
    models: dict[str, Model]

    @model_validator(mode="after")
    def _roles_name_models(self) -> Self:
        for table, pair in (("cascade", self.cascade), ("simulator", self.simulator)):
            for role, name in (("drafter", pair.drafter), ("verifier", pair.verifier)):
                if name not in self.models:
                    raise ValueError(f'[{table}] {role} is "{name}", and there is no such model')
                if (self.models[name].provider == "simulator") != (table == "simulator"):
                    raise ValueError(
                        f'[{table}] {role} is "{name}": models of provider "simulator" belong to'
                        " [simulator], and no others do"
                    )
        return self

    @model_validator(mode="after")
    def _embeddings_name_a_model(self) -> Self:
        if self.embeddings:
            name = self.embeddings.model
            if name not in self.models:
                raise ValueError(f'[embeddings] model is "{name}", and there is no such model')
            if (provider := self.models[name].provider) in WITHOUT_EMBEDDINGS:
                raise ValueError(f'[embeddings] model is "{name}": {provider} has no embeddings')
        return self

    @property
    def embedder(self) -> Model | None:
        return self.models[self.embeddings.model] if self.embeddings else None

    def live_keys(self) -> tuple[str, ...]:
        """The key variables that the models in use need."""
        pair = (self.models[self.cascade.drafter], self.models[self.cascade.verifier])
        used = (*pair, self.embedder) if self.embedder else pair
        return tuple(dict.fromkeys(model.key for model in used if model.key))


@value
class ActiveCascade:
    """The two models in use, live or simulated, and how strictly drafts are judged."""

    drafter: Model
    verifier: Model
    strictness: Literal["balanced", "careful", "strict"]
    adaptive: bool
    thresholds: dict[Complexity, float]
    on_verifier_failure: Literal["error", "draft"]
    simulated: bool
    embedder: Model | None = None
    """Who makes embeddings; nobody where the models are simulated."""

    def model(self, role: Role) -> Model:
        return self.drafter if role == "drafter" else self.verifier


def load(path: Path) -> CascadeFile:
    """Read and check `cascade.toml`.

    Raises:
        ConfigurationError: names the file and the line or key, and says what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({type(error).__name__}); CASCADE_FILE says where it is"
        ) from None
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    for name, table in _models(tables).items():
        table.setdefault("name", name)
    try:
        return CascadeFile.model_validate(tables)
    except ValidationError as error:
        problems = (f"{path}: {_sentence(detail)}" for detail in error.errors(include_url=False))
        raise ConfigurationError("\n".join(problems)) from None


def activate(file: CascadeFile, *, simulated: bool) -> ActiveCascade:
    """The models to use."""
    pair = file.simulator if simulated else file.cascade
    return ActiveCascade(
        drafter=file.models[pair.drafter],
        verifier=file.models[pair.verifier],
        strictness=file.cascade.strictness,
        adaptive=file.cascade.adaptive,
        thresholds=dict(file.cascade.thresholds),
        on_verifier_failure=file.cascade.on_verifier_failure,
        simulated=simulated,
        embedder=None if simulated else file.embedder,
    )


def _models(tables: dict[str, object]) -> dict[str, dict[str, object]]:
    models = tables.get("models")
    if not isinstance(models, dict):
        return {}
    return {name: table for name, table in models.items() if isinstance(table, dict)}


def _sentence(detail: ErrorDetails) -> str:
    *table, key = [str(part) for part in detail["loc"]] or [""]
    place = f"[{'.'.join(table)}] {key}" if table else key
    match detail["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            return f"{place} is not a known key"
        case "value_error":
            message = detail["msg"].removeprefix("Value error, ")
            return f"[{'.'.join([*table, key])}] {message}" if key else message
        case _:
            return f"{place}: {detail['msg']}"
