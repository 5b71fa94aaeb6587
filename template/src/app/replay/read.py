"""Prompts from JSON Lines. A line that cannot be used is told by its number; the others go on."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.cascade.errors import ConfigurationError
from app.cascade.types import Json, Message, Query
from app.values import value

FORM = 'write {"query": "…"}, {"messages": […]} or a text in quotes'


@value
class Prompt:
    """One line of the file."""

    line: int
    name: str
    """The line's own id; empty if it has none."""
    query: Query
    key: str
    """A digest of all that is asked: the same again is the same prompt, wherever its line is."""

    @property
    def question(self) -> str:
        return self.query.messages[-1].content


@value
class BadLine:
    """A line that is no prompt, and what to do about it."""

    line: int
    why: str


@value
class Prompts:
    """What a file has."""

    good: tuple[Prompt, ...]
    bad: tuple[BadLine, ...]


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    def to_message(self) -> Message:
        role = "system" if self.role == "developer" else self.role
        parts = self.content
        return Message(role, parts if isinstance(parts, str) else "".join(x.text for x in parts))


class _Line(BaseModel):
    """Our own fields, or those of OpenAI's chat completions; any other is of no matter here."""

    model_config = ConfigDict(strict=True)

    query: str | None = None
    prompt: str | None = None
    messages: list[_Turn] | None = None
    tools: list[Json] | None = None
    id: str | int | None = None
    custom_id: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=4000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=4000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    body: "_Line | None" = None
    """Of a line in the form of OpenAI's batches."""


def read(path: Path, *, max_tokens: int, temperature: float) -> Prompts:
    """The prompts of a file; a line may have its own `max_tokens` and `temperature`.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({type(error).__name__})") from None
    return parse(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), max_tokens, temperature)


def parse(lines: Iterable[bytes], max_tokens: int, temperature: float) -> Prompts:
    """The same, of lines that have been read."""
    good: list[Prompt] = []
    bad: list[BadLine] = []
    seen: Counter[str] = Counter()
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            name, query = _prompt(raw, max_tokens, temperature)
            digest = _digest(query)
        except ValueError as error:
            bad.append(BadLine(number, str(error)))
            continue
        # A file may ask the same twice, to hear two answers.
        seen[digest] += 1
        good.append(Prompt(number, name, query, f"{digest}-{seen[digest]}"))
    return Prompts(tuple(good), tuple(bad))


def _prompt(raw: bytes, max_tokens: int, temperature: float) -> tuple[str, Query]:
    found = _line(raw)
    asked = found.body or found
    if asked.tools:
        raise ValueError("tools are not replayed: take the line out, or its tools")
    text = asked.query if asked.query is not None else asked.prompt
    if text is not None:
        messages: tuple[Message, ...] = (Message("user", text.strip()),)
    elif asked.messages:
        messages = tuple(turn.to_message() for turn in asked.messages)
    else:
        raise ValueError(f"there is no question in it: {FORM}")
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise ValueError("the last message must be the user's, and not empty")
    name = found.id if found.id is not None else found.custom_id
    query = Query(
        messages,
        asked.max_completion_tokens or asked.max_tokens or max_tokens,
        temperature if asked.temperature is None else asked.temperature,
    )
    return "" if name is None else str(name), query


def _line(raw: bytes) -> _Line:
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError:
        raise ValueError("this is not UTF-8: save the file so") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON from column {error.colno} on: {FORM}") from None
    except RecursionError:
        raise ValueError("this is nested too deeply") from None
    if isinstance(value, str):
        return _Line(query=value)
    if not isinstance(value, dict):
        raise ValueError(f"this is neither an object nor a text: {FORM}")
    try:
        return _Line.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}") from None


def _digest(query: Query) -> str:
    turns = [(message.role, message.content) for message in query.messages]
    asked = json.dumps([turns, query.max_tokens, query.temperature], ensure_ascii=False)
    try:
        return hashlib.sha256(asked.encode()).hexdigest()[:24]
    except UnicodeEncodeError:
        raise ValueError("it has half a surrogate pair, which no model can be sent") from None
