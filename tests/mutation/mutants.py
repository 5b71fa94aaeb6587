"""Every mutant, derived from the files themselves: each is a file with one thing taken away."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

_TAG = re.compile(r"^\s*# {%-? *(if|endif)\b(.*?)%}\s*$")
_CLAUSE = re.compile(r"\s+(and|or) (?!.*( else |%>|%}|\(\s*$)).*")


@dataclass(frozen=True)
class Mutant:
    """One file with one thing less."""

    file: str
    what: str
    """What is taken away, and where; unique in a file."""
    text: str
    """The whole file without it."""

    @property
    def name(self) -> str:
        return f"{self.file}: {self.what}"


Cut = tuple[str, str]
"""What is taken away, and the text without it."""


def mutants(root: Path) -> Iterator[Mutant]:
    """All of them, file by file."""
    for pattern, ways in WAYS.items():
        for path in sorted(root.glob(pattern)):
            # The alerts' own tests would be missed by none.
            left_out = {".venv", "__pycache__", "alerts_test.yaml"}
            if not path.is_file() or left_out & set(path.parts):
                continue
            file, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
            seen: Counter[str] = Counter()
            for way in ways:
                for what, without in way(text):
                    seen[what] += 1
                    which = what if seen[what] == 1 else f"{what} ({seen[what]})"
                    yield Mutant(file, which, without)


# --- text -----------------------------------------------------------------------------------------


def conditions(text: str) -> Iterator[Cut]:
    """Each `if` of the template: once always true, once never."""
    lines = text.splitlines(keepends=True)
    opened: list[int] = []
    for number, line in enumerate(lines):
        if found := _TAG.match(line):
            if found[1] == "if":
                opened.append(number)
                continue
            first = opened.pop()
            asked = " ".join(lines[first].strip().removeprefix("# {%").removesuffix("%}").split())
            inside = lines[first + 1 : number]
            yield f"{asked}, always", "".join([*lines[:first], *inside, *lines[number + 1 :]])
            yield f"{asked}, never", "".join([*lines[:first], *lines[number + 1 :]])


def clauses(text: str) -> Iterator[Cut]:
    """Each line of a longer condition that an `and` or an `or` begins."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if _CLAUSE.fullmatch(line.rstrip("\n")):
            yield line.strip(), "".join([*lines[:number], *lines[number + 1 :]])


def lines(text: str) -> Iterator[Cut]:
    """Each line that is neither blank nor a comment."""
    every = text.splitlines(keepends=True)
    for number, line in enumerate(every):
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip(), "".join([*every[:number], *every[number + 1 :]])


def instructions(text: str) -> Iterator[Cut]:
    """Each instruction of a Dockerfile, and each of its further lines."""
    every = text.splitlines(keepends=True)
    begins = True
    for number, line in enumerate(every):
        if not line.strip() or line.startswith("#"):
            continue
        end = number + 1
        if begins:
            while every[end - 1].rstrip().endswith("\\"):
                end += 1
            yield line.strip().removesuffix("\\").strip(), "".join([*every[:number], *every[end:]])
        begins = not line.rstrip().endswith("\\")
        if (number and not begins) or (number and every[number - 1].rstrip().endswith("\\")):
            yield from _further(every, number)


def _further(every: list[str], number: int) -> Iterator[Cut]:
    """A line that continues another; before the end no backslash is left over."""
    if not every[number - 1].rstrip().endswith("\\"):
        return
    before, rest = every[:number], every[number + 1 :]
    if not every[number].rstrip().endswith("\\"):
        before[-1] = before[-1].rstrip().removesuffix("\\").rstrip() + "\n"
    yield every[number].strip().removesuffix("\\").strip(), "".join([*before, *rest])


# --- YAML -----------------------------------------------------------------------------------------


def keys(text: str) -> Iterator[Cut]:
    """Each key and each item of a YAML file, with all that is in it; each line of a longer text."""
    node = yaml.compose(text)
    if node is not None:
        yield from _inside(text, node, "")


def _inside(text: str, node: yaml.Node, at: str) -> Iterator[Cut]:
    if isinstance(node, yaml.MappingNode):
        pairs = [(key, value, f"{at}.{key.value}".lstrip(".")) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        names = [f"{at}[{_called(item, i)}]" for i, item in enumerate(node.value)]
        pairs = [(item, item, name) for item, name in zip(node.value, names, strict=True)]
    else:
        yield from _long_text(text, node, at)
        return
    for number, (first, last, name) in enumerate(pairs):
        following = pairs[number + 1][0] if number + 1 < len(pairs) else None
        if node.flow_style:
            yield name, _without_flow(text, first, last, following, number)
        else:
            yield name, _without_block(text, first, last, following)
        yield from _inside(text, last, name)


def _called(item: yaml.Node, number: int) -> str:
    """An item by its value or its name, so that others may come before it."""
    if isinstance(item, yaml.ScalarNode):
        return str(item.value) if "\n" not in item.value else str(number)
    if isinstance(item, yaml.MappingNode):
        for key, value in item.value:
            if key.value in ("name", "id", "uses", "topologyKey"):
                return str(value.value)
    return str(number)


def _end(text: str, node: yaml.Node) -> int:
    """The number of the line after a node."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        every = text.splitlines()
        end: int = node.end_mark.line
        while end and not every[end - 1].strip():
            end -= 1
        return end
    return int(node.end_mark.line) + 1


def _without_block(text: str, first: yaml.Node, last: yaml.Node, next_: yaml.Node | None) -> str:
    every = text.splitlines(keepends=True)
    start, column, end = first.start_mark.line, first.start_mark.column, _end(text, last)
    if end <= start:
        # An alias: its value is where the anchor is.
        end = start + 1
    before = every[start][:column]
    if first is not last and "-" in before and next_ is not None:
        # A key behind the dash of an item: the next one takes its place.
        at = next_.start_mark.line
        every[at] = before + every[at][next_.start_mark.column :]
        return "".join([*every[:start], *every[end:]])
    if first is not last and "-" in before:
        every[start] = before.rstrip() + " {}\n"
        return "".join([*every[: start + 1], *every[end:]])
    return "".join([*every[:start], *every[end:]])


def _without_flow(
    text: str, first: yaml.Node, last: yaml.Node, next_: yaml.Node | None, number: int
) -> str:
    start, end = first.start_mark.index, last.end_mark.index
    if next_ is not None:
        end = next_.start_mark.index
    elif number:
        start = text.rindex(",", 0, start)
    return text[:start] + text[end:]


def _long_text(text: str, node: yaml.Node, at: str) -> Iterator[Cut]:
    """Each line of a block of text that holds no expression of the template."""
    if not isinstance(node, yaml.ScalarNode) or node.style != "|":
        return
    if "<%=" in node.value and "patch" not in at:
        return
    every = text.splitlines(keepends=True)
    for number in range(node.start_mark.line + 1, _end(text, node)):
        line = every[number].strip()
        if line and not line.startswith("#"):
            yield f"{at} / {line}", "".join([*every[:number], *every[number + 1 :]])


# --- Python ---------------------------------------------------------------------------------------


def registrations(text: str) -> Iterator[Cut]:
    """What a feature registers: each field of its `Feature`, its name aside."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Feature":
            for keyword in node.keywords:
                if keyword.arg and keyword.arg != "name":
                    yield f"Feature({keyword.arg}=…)", _without(text, keyword)


def composition(text: str) -> Iterator[Cut]:
    """What `create_app` puts together: each call that is a statement, each item of a list."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
            yield ast.unparse(node), _without(text, node, "pass")
        elif isinstance(node, ast.List):
            for item in node.elts:
                yield f"[{ast.unparse(item)}]", _without(text, item)


def settings(text: str) -> Iterator[Cut]:
    """Each variable of the environment: its field under another name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings"):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    name = field.target.id
                    renamed = re.sub(rf"\b{name}\b", f"{name}_x", text)
                    yield name.upper(), renamed


def _without(text: str, node: ast.expr | ast.stmt | ast.keyword, instead: str = "") -> str:
    every = text.splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    before = every[node.lineno - 1].encode()[: node.col_offset].decode()
    after = every[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    if not instead:
        after = after.lstrip().removeprefix(",")
    return "".join([*every[: node.lineno - 1], before + instead + after, *every[node.end_lineno :]])


Way = Callable[[str], Iterator[Cut]]
WAYS: dict[str, tuple[Way, ...]] = {
    "copier.yml": (keys, conditions, clauses),
    "template/**/*.yaml": (keys, conditions),
    "template/**/*.yml": (keys,),
    "template/Dockerfile": (instructions,),
    "template/.dockerignore": (lines,),
    "template/.gitattributes": (lines,),
    "template/.gitignore": (lines,),
    "template/.env.example": (lines, conditions),
    "template/cascade.toml": (lines,),
    "template/pyproject.toml": (lines, conditions),
    "template/Makefile": (lines,),
    "template/README.md": (conditions,),
    "template/src/app/features/**/*.py": (registrations, settings),
    "template/src/app/main.py": (composition,),
    "template/src/app/settings.py": (settings,),
    ".github/workflows/*.yml": (keys,),
}
"""By file pattern, what is taken away from such a file."""
