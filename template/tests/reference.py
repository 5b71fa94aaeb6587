"""Every setting as a table, from the models that read it.

`python -m tests.reference` writes the tables into the pages: those of the environment and of
`cascade.toml` to `docs/configuration.md`, a feature's own to the feature's page.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app import features
from app.cascade.config import Cascade, Model
from app.settings import EnvSettings, Settings

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Table:
    """One model, and the page and heading that its table follows."""

    page: Path
    heading: str
    model: type[BaseModel]


def tables() -> Iterator[Table]:
    """One for the service, one for each feature that has settings, two for `cascade.toml`."""
    page = DOCS / "configuration.md"
    yield Table(page, "The environment, and `.env`", Settings)
    yield Table(page, "`[cascade]`", Cascade)
    yield Table(page, "`[models.NAME]`", Model)
    for name, module in features.modules():
        for kind in _settings(module):
            yield Table(DOCS / f"{name}.md", "Settings", kind)


def _settings(module: ModuleType) -> Iterator[type[EnvSettings]]:
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, EnvSettings) and found.__module__ == module.__name__:
            yield found


def text(model: type[BaseModel]) -> str:
    """The table of one model."""
    schemas = model.model_json_schema()["properties"]
    said = docstrings(model)
    rows = [
        f"| `{_name(model, name)}` | {_values(schemas[name])} | {_default(field)} | {said[name]} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(["| name | takes | default | what |", "|---|---|---|---|", *rows])


def docstrings(model: type[BaseModel]) -> Mapping[str, str]:
    """The text below each attribute, in one line.

    Raises:
        AssertionError: an attribute has none.
    """
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind.__module__.startswith("app."):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            assert isinstance(tree, ast.ClassDef)
            found |= _documented(tree)
    missing = model.model_fields.keys() - found
    assert not missing, f"{model.__name__}: say what these are: {sorted(missing)}"
    return found


def _documented(tree: ast.ClassDef) -> dict[str, str]:
    return {
        attribute.target.id: " ".join(below.value.value.split())
        for attribute, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(attribute, ast.AnnAssign)
        and isinstance(attribute.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _name(model: type[BaseModel], name: str) -> str:
    return name.upper() if issubclass(model, EnvSettings) else name


def _values(schema: Mapping[str, Any]) -> str:
    choices = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    first = next((each for each in choices if each.get("type") == "number"), choices[0])
    if "enum" in first:
        return ", ".join(f"`{each}`" for each in first["enum"])
    match first.get("type"), first.get("format"):
        case ("integer" | "number") as kind, _:
            return " ".join(["whole number" if kind == "integer" else "number", *_bounds(first)])
        case "boolean", _:
            return "`true`, `false`"
        case "array", _:
            return "list, with commas"
        case "object", _:
            return "a table"
        case _, "password":
            return "text, kept secret"
        case _, "path":
            return "path"
        case _, "uri":
            return "URL"
        case _:
            return "text"


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "from",
        "exclusiveMaximum": "below",
        "maximum": "to",
    }
    for key, word in words.items():
        if key in schema:
            yield (
                f"{word} {schema[key]:,g}" if schema[key] < 10**6 else f"{word} {schema[key]:,.0f}"
            )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value or value == 0 else ""


def written(page: str, table: Table) -> str:
    """A page with its table as it should be.

    Raises:
        AssertionError: the page has no such heading with a table below it.
    """
    pattern = rf"(^## {re.escape(table.heading)}\n(?:(?!#|\|).*\n)*)(\|.*\n)+"
    made, count = re.subn(
        pattern, lambda found: f"{found[1]}{text(table.model)}\n", page, flags=re.MULTILINE
    )
    assert count == 1, f"{table.page.name}: write `## {table.heading}`, and `| |` below it"
    return made


if __name__ == "__main__":
    for each in tables():
        old = each.page.read_text(encoding="utf-8")
        each.page.write_text(written(old, each), encoding="utf-8")
