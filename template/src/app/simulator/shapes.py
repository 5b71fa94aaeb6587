"""Answers of another shape than prose: a tool call, and JSON by a schema.

They are examples and not thoughts, made of the schema alone, so that a client's tools and
structured outputs can be tried before anyone has bought a key.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.values import value

DEEPEST = 8
"""Levels of a schema that are filled; a recursive one has no last."""
_WORD = re.compile(r"[^\W\d_]{4,}")
_NAME = re.compile(r"(?<!^)\b[A-ZÀ-Þ]\w+")


@value
class Call:
    """A function that the model wants called."""

    name: str
    arguments: str


def call(tools: Sequence[Mapping[str, Any]], choice: object, question: str) -> Call | None:
    """The tool that the client demands; else the first that the question seems to be about."""
    functions = [found for tool in tools if isinstance(found := tool.get("function"), dict)]
    if isinstance(choice, dict):
        demanded = (choice.get("function") or {}).get("name")
        functions = [each for each in functions if each.get("name") == demanded]
    elif choice == "none":
        return None
    elif choice != "required":
        functions = [each for each in functions if _is_about(each, question)]
    if not functions:
        return None
    schema = functions[0].get("parameters") or {}
    return Call(str(functions[0].get("name")), json.dumps(example(schema, question)))


def structured(response_format: Mapping[str, Any] | None, question: str) -> str | None:
    """The JSON that is asked for, if it is."""
    match (response_format or {}).get("type"):
        case "json_schema":
            named = (response_format or {}).get("json_schema") or {}
            return json.dumps(example(named.get("schema") or {}, question), ensure_ascii=False)
        case "json_object":
            return json.dumps({"answer": question}, ensure_ascii=False)
        case _:
            return None


def example(schema: Mapping[str, Any], question: str) -> object:
    """A value that the schema allows, in its common words."""
    return _example(schema, schema, question, DEEPEST)


def _example(schema: object, root: Mapping[str, Any], question: str, depth: int) -> object:
    if not isinstance(schema, dict) or depth == 0:
        return None
    if isinstance(place := schema.get("$ref"), str):
        return _example(_resolved(place, root), root, question, depth - 1)
    for word in ("anyOf", "oneOf", "allOf"):
        if schema.get(word):
            return _example(schema[word][0], root, question, depth - 1)
    if "const" in schema or schema.get("enum"):
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            fields = schema.get("properties") or {}
            return {
                name: _example(each, root, question, depth - 1) for name, each in fields.items()
            }
        case "array":
            count = max(1, int(schema.get("minItems") or 0))
            return [_example(schema.get("items") or {}, root, question, depth - 1)] * count
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            names = _NAME.findall(question)
            return names[-1] if names else question


def _resolved(place: str, root: Mapping[str, Any]) -> object:
    found: object = root
    for part in place.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _is_about(function: Mapping[str, Any], question: str) -> bool:
    told = f"{function.get('name', '')} {function.get('description') or ''}".replace("_", " ")
    words = {word.lower() for word in _WORD.findall(told)}
    return not words.isdisjoint(word.lower() for word in _WORD.findall(question))
