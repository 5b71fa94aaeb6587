"""Whatever a person answers becomes a working project, or is refused before a file is written."""

import ast
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Render
from tests.processes import run, serving
from tests.variants import FULLEST, QUESTIONS, ROOT, SWITCHES, pairs
from tests.workshop import Workshop, files, rendered, uv

HOSTILE = "Say \"no\" to \\ and 'yes': #1, <%= 7*7 %> {{ 7*7 }} ${HOME} # {% if %} %}"
ALL_PROVIDERS = ["openai", "anthropic", "groq", "together", "ollama", "vllm"]

ANSWERS: dict[str, list[Any]] = {
    "project_name": ["My Cascade", "A", "Ünïcode 猫 🐈", HOSTILE, "class", "null", "x" * 80],
    "project_slug": [None, "class", "a1", "json", "a" + "-b1" * 13],
    "description": [None, HOSTILE, "yes", "猫がいる: 'ja' # nein", "x" * 200],
    "author": [None, HOSTILE, "名前", "x" * 100],
    "license": ["MIT", "Apache-2.0", "BSD-3-Clause", "none"],
    "providers": [*([name] for name in ALL_PROVIDERS), ALL_PROVIDERS],
    "drafter": [None, "acme/Tiny-1.5:free@2+x"],
    "verifier": [None, "acme/Big_2/final"],
    "updates": ["github", "none"],
}
"""Values of every question that is no switch; None leaves the default, models get a provider."""

ROWS = list(pairs(ANSWERS))

SIMULATED = ["openai/simulator-small", "openai/simulator-large"]

REFUSED: dict[str, list[Any]] = {
    "project_name": ["", " x", "x ", "a\nb", "a\x00b", "a\u202eb", "x" * 81],
    "project_slug": [
        *["", "a", "A", "Ab", "a_b", "a.b", "-a", "a-", "a--b", "1a", "ä", "a/b", "../x", "/x"],
        *["a\\b", "a b", 'a"b', "a'b", "a\nb", "ab\n", "<%= 1 %>", "a" * 41],
        *["fastapi", "cascadeflow", "pydantic-core", "pytest", "uvicorn", "python", "uv"],
        *["con", "nul", "com1", "lpt9"],
    ],
    "description": ["", " x", "a\nb", "x" * 201],
    "author": ["", "a\nb", "x" * 101],
    "license": ["GPL-3.0", ""],
    "providers": [[], ["nobody"]],
    "drafter": [
        *["", "gpt-4o-mini", "anthropic/claude", "openai/", 'openai/a"b', "openai/a\nb"],
        *SIMULATED,
    ],
    "verifier": [
        *["gpt-4o", "openai/gpt-4o-mini", "groq/x", "openai/a b", "openai/x\n"],
        *SIMULATED,
    ],
    "updates": ["", "gitlab"],
}


def answers_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as answers."""
    answers = {name: value for name, value in row.items() if value is not None}
    for role, place in (("drafter", 0), ("verifier", -1)):
        if role in answers:
            answers[role] = f"{row['providers'][place]}/{answers[role]}"
    return answers


def toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_every_question_has_its_values() -> None:
    assert ANSWERS.keys() == REFUSED.keys() == QUESTIONS.keys() - set(SWITCHES)


def test_a_question_says_what_it_asks_and_what_it_offers() -> None:
    for question in QUESTIONS.values():
        assert "?" in question["help"]
        assert question["type"] in ("str", "bool")
    offered = {name: list(question.get("choices", {})) for name, question in QUESTIONS.items()}
    assert {name: choices for name, choices in offered.items() if choices} == {
        "license": ["MIT", "Apache 2.0", "BSD, 3 clauses", "None, all rights reserved"],
        "providers": [
            *("OpenAI, or any OpenAI-compatible endpoint", "Anthropic", "Groq", "Together"),
            *("Ollama, on your own machine", "vLLM, on your own machines"),
        ],
        "updates": [
            "A workflow of GitHub opens a pull request each week",
            "I run `make update` now and then",
        ],
    }


def test_a_question_that_is_not_answered_has_a_default(plain: Path, tmp_path: Path) -> None:
    project = rendered(plain, tmp_path / "service", {}, "*", "!.copier-answers.yml")
    kept = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert {name: kept[name] for name in QUESTIONS} == {
        "project_name": "My Cascade",
        "project_slug": "my-cascade",
        "description": "Answers with a cheap model where it can, with a strong one where it must",
        "author": "The My Cascade team",
        "license": "MIT",
        "providers": ["openai"],
        "drafter": "openai/gpt-4o-mini",
        "verifier": "openai/gpt-4o",
        "updates": "github",
        **{switch: switch != "kubernetes" for switch in SWITCHES},
    }


def test_what_is_no_question_is_computed_and_cannot_be_given() -> None:
    described = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    computed = {n: q for n, q in described.items() if n[0] != "_" and n not in QUESTIONS}
    assert computed.keys() == {
        *("catalog", "prices", "taken_names", "asked", "switches"),
        *("slug_of_name", "models", "description_toml", "author_toml"),
    }
    for question in computed.values():
        assert question["validator"].startswith("It is computed")
        assert question["type"] in ("yaml", "str")


@pytest.mark.parametrize("row", ROWS, ids=[f"row{number}" for number in range(len(ROWS))])
def test_answers_are_rendered_as_they_were_typed(
    row: dict[str, Any], plain: Path, tmp_path: Path
) -> None:
    answers = answers_of(row)
    # No answer reaches a Python file: test_any_answer.py.
    project = rendered(plain, tmp_path / "service", {**FULLEST.answers, **answers}, "*.py")
    check_project(project, answers)


def parse(path: Path) -> None:
    """Read a file as what it is named after."""
    text = path.read_text(encoding="utf-8")
    readers: dict[str, Callable[[str], object]] = {
        ".toml": tomllib.loads,
        ".yaml": lambda text: list(yaml.safe_load_all(text)),
        ".json": json.loads,
        ".py": ast.parse,
    }
    readers.get(path.suffix.replace(".yml", ".yaml"), str)(text)


def check_project(project: Path, answers: Mapping[str, Any]) -> None:
    """Every file parses, and says what was typed."""
    for name in files(project):
        parse(project / name)
    check_metadata(project, answers)
    check_models(project, answers)
    kept = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert {name: kept[name] for name in answers} == answers
    slug = kept["project_slug"]
    deployment = yaml.safe_load((project / "deploy/kubernetes/base/deployment.yaml").read_text())
    compose = yaml.safe_load((project / "compose.yaml").read_text())
    assert deployment["metadata"]["name"] == slug
    assert compose["services"]["api"]["image"] == f"{slug}:local"
    assert kept["description"] in (project / "README.md").read_text(encoding="utf-8")
    assert slug in (project / "Makefile").read_text(encoding="utf-8")


def check_metadata(project: Path, answers: Mapping[str, Any]) -> None:
    """The project's metadata says exactly what was typed."""
    told = toml(project / "pyproject.toml")["project"]
    slug = answers.get("project_slug", told["name"])
    assert (told["name"], told["scripts"]) == (slug, {slug: "app.__main__:main"})
    assert told["description"] == answers.get("description", told["description"])
    author = answers.get("author", f"The {answers['project_name']} team")
    assert told["authors"] == [{"name": author}]
    assert (project / "README.md").read_text().startswith(f"# {answers['project_name']}\n")
    licence = project / "LICENSE"
    if answers["license"] == "none":
        assert "license" not in told
        assert not licence.exists()
    else:
        assert told["license"] == answers["license"]
        if answers["license"] != "Apache-2.0":
            assert author in licence.read_text(encoding="utf-8")


def check_models(project: Path, answers: Mapping[str, Any]) -> None:
    """`cascade.toml` names the models that were chosen, and `.env.example` their keys."""
    told = toml(project / "cascade.toml")
    example = (project / ".env.example").read_text(encoding="utf-8").splitlines()
    for role in ("drafter", "verifier"):
        name = told["cascade"][role]
        model = told["models"][name]
        if role in answers:
            assert f"{model['provider']}/{name}" == answers[role]
        assert model["provider"] in answers["providers"]
        assert not model["key"] or f"{model['key']}=" in example


@pytest.mark.parametrize(
    "answers",
    [
        {"project_name": HOSTILE, "description": HOSTILE, "author": HOSTILE, "license": "none"},
        {"project_name": "猫", "project_slug": "class", "providers": ["ollama"]},
        {"project_name": "fastapi", "providers": ALL_PROVIDERS, "license": "Apache-2.0"},
    ],
    ids=["hostile", "keyword", "taken"],
)
def test_such_a_project_installs_is_clean_and_answers(
    answers: dict[str, Any], render: Render, workshop: Workshop
) -> None:
    project = render(answers)
    uv("sync", cwd=project)
    programs = project / ".venv" / "bin"
    run(programs / "ruff", "check", cwd=project)
    run(programs / "ruff", "format", "--check", cwd=project)
    slug = toml(project / "pyproject.toml")["project"]["name"]
    summary = f"from importlib.metadata import metadata; print(metadata({slug!r})['Summary'])"
    told = run(programs / "python", "-c", summary, cwd=project).rstrip("\n")
    assert told == answers.get("description", told)
    with serving(programs / slug, "serve", "--port", "0", cwd=project) as service:
        assert run(programs / slug, "ask", "What is AI?", cwd=project)
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("question", "value"),
    [(question, value) for question, values in REFUSED.items() for value in values],
)
def test_a_bad_answer_is_refused_with_a_sentence_and_nothing_is_written(
    question: str, value: object, plain: Path, tmp_path: Path
) -> None:
    project = tmp_path / "service"
    with pytest.raises(ValueError, match=r"(?s)\w[\w ]+.*\.\Z|not a valid choice|Invalid choice"):
        rendered(plain, project, {question: value})
    assert not project.exists()


def test_every_name_that_the_environment_takes_is_refused(
    render: Render, workshop: Workshop
) -> None:
    """`taken_names` covers the lock of the fullest variant and every command of its environment."""
    project = render(FULLEST.answers)
    workshop.install(project)
    described = toml(project / "pyproject.toml")
    own = described["project"]["name"]
    taken = {package["name"] for package in toml(project / "uv.lock")["package"]} - {own}
    taken |= {program.name for program in (project / ".venv" / "bin").iterdir()} - {own}
    taken |= {requirement.split(">")[0] for requirement in described["build-system"]["requires"]}
    taken |= {"uv", "pip"}
    questions = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    refused = set(yaml.safe_load(questions["taken_names"]["default"]))
    could_be_typed = {name for name in taken if name.replace("-", "").isalnum() and name.islower()}
    assert sorted(could_be_typed - refused) == []
