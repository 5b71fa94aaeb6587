"""Answers that nobody thought of: hypothesis types them, and the project says exactly the same."""

import contextlib
import email
import json
import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.metadata.spec import get_core_metadata_constructors
from hatchling.plugin.manager import PluginManager
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import Render
from tests.processes import run
from tests.test_answers import ALL_PROVIDERS, ANSWERS, HOSTILE, check_project
from tests.variants import FULLEST, QUESTIONS, ROOT
from tests.workshop import Workshop, files, rendered

LENGTHS = {"project_name": 80, "description": 200, "author": 100}
"""Questions of free text, and how long an answer may be."""

TOKENS = (
    *("<%=", "%>", "# {%", "%}", "# {#", "#}", "{{", "}}", "<%= 7*7 %>", "# {% endif %}"),
    *('"', "'", '"""', "'''", "\\", "\\u0041", "\\N", "\\x", "`", "${HOME}", "$(id)"),
    *("&&", ";", "|", ">", "<", "&a", "*a", "!!python", "?", "- ", ": ", " #", "%", "@", "~", ","),
    *("[", "]", "{", "}", "---", "...", "<<", "=", "null", "yes", "no", "true", ".inf", "0x1"),
    *("1e3", "2001-01-01", "1:20", "<script>", "&amp;", "=?utf-8?q?x?=", "a <b@c>", "Author: x"),
    *(
        "e\u0301",
        "\u0301",
        "שלום",
        "سلام",
        "猫",
        "ß",
        "İ",
        "ﷺ",
        "🐈",
        "\U0001f3f4",
    ),
    *(
        "class",
        "None",
        "json",
        "fastapi",
        "CON",
        "nul.txt",
        "../x",
        "/etc",
        "C:\\",
        "1st",
        "%PATH%",
    ),
)
INVISIBLE = "\0\a\t\n\r\x1b\x7f\x85\xa0\xad\u061c\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e"
INVISIBLE += "\u2066\u2069\u3000\ue000\ufeff\uffff\U000e0001"

printable = st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" ")
"""What can be seen: no control, no bidirectional override, no unassigned or private character."""


def free(longest: int) -> st.SearchStrategy[str]:
    """What may be typed as one line: text, what syntaxes mean by it, and as much as is allowed."""
    pieces = st.lists(st.sampled_from(TOKENS) | st.text(printable, max_size=5), max_size=30)
    return (
        pieces.map(lambda parts: "".join(parts)[:longest].strip())
        .filter(bool)
        .filter(str.isprintable)
    )


DESCRIBED: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
TAKEN: set[str] = set(yaml.safe_load(DESCRIBED["taken_names"]["default"]))
SLUG = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
NAMES = sorted({*sys.stdlib_module_names, *keyword.kwlist, "null", "yes", "on", "off", "y"})


def is_slug(text: str) -> bool:
    """Whether a name may be a slug, were it not taken."""
    return bool(re.fullmatch(SLUG, text)) and 2 <= len(text) <= 40


slugs = (st.from_regex(rf"\A{SLUG}\Z") | st.sampled_from(NAMES)).filter(
    lambda text: is_slug(text) and text not in TAKEN
)
models = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}\Z").filter(
    lambda name: not name.endswith(("simulator-small", "simulator-large"))
)


@st.composite
def typed(draw: st.DrawFn) -> dict[str, Any]:
    """An answer to every question that is no switch."""
    chosen = draw(st.lists(st.sampled_from(ALL_PROVIDERS), min_size=1, unique=True))
    drafter, verifier = draw(st.lists(models, min_size=2, max_size=2, unique=True))
    return {
        **{question: draw(free(longest)) for question, longest in LENGTHS.items()},
        "project_slug": draw(slugs),
        "license": draw(st.sampled_from(ANSWERS["license"])),
        "providers": [name for name in ALL_PROVIDERS if name in chosen],
        "drafter": f"{draw(st.sampled_from(chosen))}/{drafter}",
        "verifier": f"{draw(st.sampled_from(chosen))}/{verifier}",
    }


WORST: dict[str, Any] = {
    **{question: (HOSTILE * 3)[:longest].strip() for question, longest in LENGTHS.items()},
    "project_slug": "null",
    "license": "MIT",
    "providers": ["vllm"],
    "drafter": "vllm/9." + ":/@+-" * 19,
    "verifier": "vllm/0",
}


@st.composite
def refused(draw: st.DrawFn) -> tuple[str, object]:
    """A question and an answer that it cannot have."""
    question = draw(st.sampled_from([*LENGTHS, "project_slug", "drafter", "verifier"]))
    if question in LENGTHS:
        text = draw(free(LENGTHS[question]))
        bad = draw(st.sampled_from(INVISIBLE))
        place = draw(st.integers(0, len(text)))
        longer = (text * LENGTHS[question])[: LENGTHS[question]] + "x"
        return question, draw(
            st.sampled_from(["", f" {text}", f"{text} ", longer, text[:place] + bad + text[place:]])
        )
    if question == "project_slug":
        anything = st.text(max_size=50) | free(40)
        wrong = anything.filter(lambda text: not is_slug(text))
        return question, draw(wrong | st.sampled_from(sorted(TAKEN)))
    name = draw(models)
    good = f"openai/{name}"
    bad = draw(st.sampled_from(INVISIBLE + "\"'\\ #{}<>%$"))
    place = draw(st.integers(0, len(good)))
    wrong_models = [name, f"nobody/{name}", f"OpenAI/{name}", good[:place] + bad + good[place:]]
    return question, draw(st.sampled_from([*wrong_models, f"{good}{'x' * 100}", "openai/-x"]))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new place for each of many examples."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def install_metadata(project: Path, answers: Mapping[str, Any]) -> None:
    """What the build backend makes of a project, in `metadata/`, without building it."""
    described = ProjectMetadata(str(project), PluginManager())
    slug = described.core.name
    written = get_core_metadata_constructors()["2.4"](described)
    place = project / "metadata" / f"{slug.replace('-', '_')}-{described.version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(written, encoding="utf-8")
    scripts = "".join(f"{name} = {target}\n" for name, target in described.core.scripts.items())
    (place / "entry_points.txt").write_text(f"[console_scripts]\n{scripts}", encoding="utf-8")
    told = email.message_from_string(written)
    assert told["Name"] == answers["project_slug"]
    assert (told["Summary"], told["Author"]) == (answers["description"], answers["author"])


def test_whatever_is_typed_becomes_a_project_that_says_it_and_boots(
    plain: Path, render: Render, workshop: Workshop, tmp_path: Path
) -> None:
    """Python files are rendered for the first one only: no answer reaches them (see below)."""
    services: dict[Path, dict[str, Any]] = {}

    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @example(WORST)
    @given(typed())
    def each(answers: dict[str, Any]) -> None:
        left_out = ["*.py"] if services else []
        project = tmp_path / f"service{len(services)}"
        rendered(plain, project, {**FULLEST.answers, **answers}, *left_out)
        check_project(project, answers)
        run(sys.executable, "-m", "ruff", "check", "--no-cache", cwd=project)
        shutil.copy(project / ".env.example", project / ".env")
        install_metadata(project, answers)
        services[project] = answers

    each()
    home = render(FULLEST.answers)
    workshop.install(home, "--no-install-project")
    script = (home / ".venv" / "bin" / "python", ROOT / "tests" / "boot_many.py", *services)
    told = run(*script, cwd=home, env={"PYTHONPATH": str(home / "src")}).splitlines()
    lines = [json.loads(line) for line in told if line.startswith("{")]
    assert lines == [
        {
            "statuses": [200, 200],
            "name": answers["project_slug"],
            "description": answers["description"],
            "models": [answers[role].split("/", 1)[1] for role in ("drafter", "verifier")],
        }
        for answers in services.values()
    ]
    workshop.tell(f"hostile answers: {len(services)} projects rendered, checked and booted")


def test_no_answer_reaches_a_python_file(plain: Path, tmp_path: Path) -> None:
    one = rendered(plain, tmp_path / "one", FULLEST.answers)
    other = rendered(plain, tmp_path / "other", {**FULLEST.answers, **WORST})
    names = {name for name in files(one) if name.endswith(".py")}
    assert names == {name for name in files(other) if name.endswith(".py")}
    assert [n for n in names if (one / n).read_bytes() != (other / n).read_bytes()] == []


def test_what_cannot_be_an_answer_is_refused_and_nothing_is_written(
    plain: Path, workshop: Workshop
) -> None:
    tried = 0

    @settings(
        max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(refused())
    def each(wrong: tuple[str, object]) -> None:
        nonlocal tried
        tried += 1
        question, value = wrong
        with folder() as place:
            project = place / "service"
            with pytest.raises(ValueError, match=rf"(?s)'{question}': [A-Z]\w*[^\n]* .*\.\Z"):
                rendered(plain, project, {question: value})
            assert not project.exists()

    each()
    workshop.tell(f"hostile answers: {tried} refused with a sentence, nothing written")


def test_secrets_are_never_asked_for() -> None:
    assert "_secret_questions" not in DESCRIBED
    secret = re.compile(r"secret|password|token|api[ _-]?key|credential", re.IGNORECASE)
    for name, question in QUESTIONS.items():
        assert "secret" not in question
        assert not secret.search(f"{name} {question['help']}"), name
