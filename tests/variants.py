"""What `copier.yml` asks, and the variants that its switches produce, for the tests and for CI."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

ROOT = Path(__file__).parent.parent
TEST = "tests/test_variants.py::test_a_variant_passes_every_stage"


def _questions() -> dict[str, dict[str, Any]]:
    configuration = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    return {
        name: question
        for name, question in configuration.items()
        if not name.startswith("_") and question.get("when") is not False
    }


QUESTIONS = _questions()
"""What a person is asked, in the order of `copier.yml`."""
SWITCHES = tuple(name for name, question in QUESTIONS.items() if question["type"] == "bool")


def manifest(switch: str) -> list[str]:
    """The paths that `copier.yml` gives to a switch."""
    text = (ROOT / "copier.yml").read_text(encoding="utf-8")
    (block,) = re.findall(rf"# {{% if not {switch} %}}\n(.*?)# {{% endif %}}", text, re.DOTALL)
    return [line.strip().removeprefix("/") for line in block.splitlines() if line.strip()]


def belongs(file: str, paths: list[str]) -> bool:
    """Whether a file is one of the paths or in one."""
    return any(file == path or file.startswith(f"{path}/") for path in paths)


@dataclass(frozen=True)
class Variant:
    """One setting of all switches."""

    on: frozenset[str]

    @property
    def name(self) -> str:
        """`none`, `all`, or the switches that are on."""
        if self == FULLEST:
            return "all"
        return "+".join(switch for switch in SWITCHES if switch in self.on) or "none"

    @property
    def answers(self) -> dict[str, bool]:
        return {switch: switch in self.on for switch in SWITCHES}

    def without(self, switch: str) -> "Variant":
        return Variant(self.on - {switch})


LEANEST = Variant(frozenset())
FULLEST = Variant(frozenset(SWITCHES))
VARIANTS = tuple(
    Variant(frozenset(on))
    for size in range(len(SWITCHES) + 1)
    for on in itertools.combinations(SWITCHES, size)
)


def pairs(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Rows in which every value of every question meets every value of every other question."""
    names = list(values)
    missing = {
        frozenset({(a, i), (b, j)})
        for a, b in itertools.combinations(names, 2)
        for i in range(len(values[a]))
        for j in range(len(values[b]))
    }
    while missing:
        # Begin with a pair that is still missing; then take what covers most, question by question.
        row = dict(min(missing, key=sorted))
        for name in names:
            if name not in row:
                row[name] = max(
                    range(len(values[name])),
                    key=lambda i: sum(frozenset({(name, i), c}) in missing for c in row.items()),
                )
        missing -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        yield {name: values[name][row[name]] for name in names}


def main(
    github: Annotated[bool, typer.Option(help="The matrix for GitHub's workflow.")] = False,
    feature: Annotated[str | None, typer.Option(help="The tests of one switch.")] = None,
) -> None:
    """Print the variants: their names, a matrix, or the tests of one switch."""
    if feature is not None:
        if feature not in SWITCHES:
            raise typer.BadParameter(f"NAME is one of {', '.join(SWITCHES)}")
        chosen = (Variant(frozenset({feature})), FULLEST)
        typer.echo(" ".join(f"{TEST}[{variant.name}]" for variant in chosen))
    elif github:
        typer.echo(json.dumps({"variant": [variant.name for variant in VARIANTS]}))
    else:
        typer.echo("\n".join(variant.name for variant in VARIANTS))


if __name__ == "__main__":
    typer.run(main)
