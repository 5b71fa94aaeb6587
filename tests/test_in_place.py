"""`template/` as it stands is the everything-on project, with few conditions and none in Python."""

import re
import shutil
from pathlib import Path, PurePosixPath

import pytest
from jinja2 import UndefinedError

from tests.conftest import Render
from tests.processes import run
from tests.variants import FULLEST, ROOT, VARIANTS
from tests.workshop import (
    APART,
    Workshop,
    check_lint,
    check_types,
    commit,
    files,
    rendered,
    run_watched,
)

CONDITIONS = {
    ".env.example": 5,
    "README.md": 2,
    "compose.yaml": 1,
    "pyproject.toml": 5,
}
"""How many tags of a file hold an `if`. Before one is added: can it be a file in the manifest?"""

TAG = re.compile(r"# {%.*?%}|<%=.*?%>", re.DOTALL)
ILLEGAL_ON_WINDOWS = re.compile(
    r'[<>:"\\|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE
)


def tags(name: str) -> list[str]:
    return TAG.findall((ROOT / "template" / name).read_text(encoding="utf-8"))


def template_files(template: Path) -> set[str]:
    return files(template / "template")


def test_conditions_are_few(template: Path) -> None:
    counted = {
        name: sum(bool(re.search(r"\bif\b", tag)) for tag in tags(name))
        for name in template_files(template)
    }
    assert {name: count for name, count in counted.items() if count} == CONDITIONS


def test_no_python_file_is_rendered(template: Path) -> None:
    assert [name for name in template_files(template) if name.endswith(".py") and tags(name)] == []


def test_every_file_belongs_to_a_variant(template: Path, render: Render) -> None:
    assert files(render(FULLEST.answers)) == template_files(template)


def test_nothing_that_was_made_in_place_is_copied(plain: Path, tmp_path: Path) -> None:
    used, names = tmp_path / "used", files(plain / "template")
    shutil.copytree(plain, used)
    made = [
        *(".venv/bin/python", "dist/x.whl", "uv.lock", ".coverage", ".hypothesis/x", ".env"),
        *("src/app/main.pyc", "src/app/__pycache__/x", ".mypy_cache/x", ".pytest_cache/x"),
        *(".ruff_cache/x", "ledger.sqlite3", "ledger.sqlite3-wal", "mine.replay.jsonl"),
    ]
    for name in made:
        (used / "template" / name).parent.mkdir(parents=True, exist_ok=True)
        (used / "template" / name).write_text("made\n", encoding="utf-8")
    project = rendered(used, tmp_path / "service", FULLEST.answers)
    found = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert found == names


# Copier leaves a folder open where it fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_name_that_nobody_has_set_is_a_mistake(plain: Path, tmp_path: Path) -> None:
    used = shutil.copytree(plain, tmp_path / "used")
    (used / "template" / "other.txt").write_text("<%= no_such_name %>\n", encoding="utf-8")
    with pytest.raises(UndefinedError, match="no_such_name"):
        rendered(used, tmp_path / "service", FULLEST.answers)


def test_a_tag_leaves_no_line_behind(template: Path, render: Render) -> None:
    def blank(file: Path) -> int:
        return file.read_text(encoding="utf-8").split("\n").count("")

    project = render(FULLEST.answers)
    for name in CONDITIONS:
        assert blank(project / name) <= blank(template / "template" / name), name


def test_what_others_write_in_braces_stays(plain: Path, tmp_path: Path) -> None:
    used = shutil.copytree(plain, tmp_path / "used")
    text = "${{ github.ref }} {% raw %} ${#files[@]} {# note #}\n"
    (used / "template" / "other.txt").write_text(text, encoding="utf-8")
    project = rendered(used, tmp_path / "service", FULLEST.answers)
    assert (project / "other.txt").read_text(encoding="utf-8") == text


def test_no_tag_is_left_in_a_rendered_file(render: Render) -> None:
    for variant in (VARIANTS[0], FULLEST):
        project = render(variant.answers)
        for name in files(project):
            text = (project / name).read_text(encoding="utf-8")
            assert "<%=" not in text, name
            assert "# {%" not in text, name


def test_file_names_are_legal_everywhere(template: Path) -> None:
    names = run("git", "ls-files", cwd=template).splitlines()
    assert [n for n in names if any(ILLEGAL_ON_WINDOWS.search(p) for p in n.split("/"))] == []
    assert len({name.lower() for name in names}) == len(names)
    # Folders too: `Docs/a` beside `docs/b` would be one folder on macOS.
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    assert len({folder.lower() for folder in folders}) == len(folders)
    # Windows takes 260 characters, those of the folder that a project is in included.
    assert max(map(len, template_files(template))) <= 100


def test_lines_end_the_same_on_every_machine(
    template: Path, render: Render, tmp_path: Path
) -> None:
    """A checkout by a git that would write carriage returns, as on Windows."""
    project = render(FULLEST.answers)
    commit(project)
    for repository in (template, project):
        clone = tmp_path / repository.name
        options = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")
        run("git", *options, "clone", "--quiet", repository, clone, cwd=tmp_path)
        for name in files(clone):
            content = (clone / name).read_bytes()
            # git's own test of what is no text.
            assert b"\0" in content or b"\r" not in content, name
            assert (clone / name).read_bytes() == (repository / name).read_bytes(), name


def test_what_can_be_executed_says_by_what(template: Path, render: Render) -> None:
    for folder in (template, render(FULLEST.answers)):
        for name in files(folder):
            path = folder / name
            executable = bool(path.stat().st_mode & 0o111)
            assert executable == path.read_bytes().startswith(b"#!"), name


@pytest.fixture
def programs(render: Render, workshop: Workshop) -> Path:
    """Those of the fullest project's environment."""
    environment = render(FULLEST.answers)
    workshop.install(environment)
    return environment / ".venv" / "bin"


def test_the_template_itself_is_clean(template: Path, programs: Path, workshop: Workshop) -> None:
    check_lint(template / "template", programs)
    check_types(template / "template", programs, workshop)


def test_the_template_itself_passes_its_tests(
    template: Path, programs: Path, tmp_path: Path
) -> None:
    noted = tmp_path / "apart.txt"
    run_watched(template / "template", programs, {"APART_TO": str(noted)})
    # What other variants leave out is still out of the reach of every switch.
    left_out = set(APART.read_text().splitlines())
    assert left_out <= set(noted.read_text().splitlines()), "as meant? then `make snapshots`"
