"""Updates: from every release, with its owner's changes in it; flips of a switch; what is lost."""

import difflib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import copier
import pytest
from packaging.version import Version

from tests.conftest import Copied
from tests.processes import environment, run
from tests.releases import EARLIER, PRESENT, Tally
from tests.test_variants import pass_every_stage
from tests.variants import FULLEST, LEANEST, SWITCHES, VARIANTS, Variant, pairs
from tests.workshop import Extent, Workshop, checked, commit, files

Tree = dict[str, tuple[bool, bytes]]
"""What each file of a project holds, and whether it is executable."""

# How a file merges depends on its content in both versions, and a variant is a choice of files:
# every pair of switches shows what there is. All variants from all releases: `make test-updates`.
SAMPLE = [
    Variant(frozenset(name for name, on in row.items() if on))
    for row in pairs(dict.fromkeys(SWITCHES, (False, True)))
]
SAMPLE = list(dict.fromkeys([LEANEST, FULLEST, *SAMPLE]))
UPDATES = [
    *((release, variant) for release in EARLIER[:-1] for variant in (LEANEST, FULLEST)),
    *((EARLIER[-1], variant) for variant in SAMPLE),
]
if os.environ.get("EVERY_VARIANT"):
    UPDATES = list(itertools.product(EARLIER, VARIANTS))
FLIPS = [
    (*row["flip"], frozenset(name for name in SWITCHES if row[name]) - {row["flip"][0]})
    for row in pairs(
        {
            "flip": list(itertools.product(SWITCHES, (True, False))),
            **dict.fromkeys(SWITCHES, (True, False)),
        }
    )
]
"""A switch, whether it is turned on or off, and which others are on: every other is, and is not."""


def tree(project: Path) -> Tree:
    return {
        name: (os.access(project / name, os.X_OK), (project / name).read_bytes())
        for name in files(project)
    }


def folders(project: Path) -> set[str]:
    made = {path for path in project.rglob("*") if path.is_dir() and ".git" not in path.parts}
    return {path.relative_to(project).as_posix() for path in made}


# --------------------------------------------------------------------------------- the changes


def replace(project: Path, name: str, old: str, new: str) -> None:
    text = (project / name).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{name} has no single {old!r}"
    (project / name).write_text(text.replace(old, new), encoding="utf-8")


def append(project: Path, name: str, line: str) -> None:
    with (project / name).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def change_settings(project: Path) -> None:
    replace(
        project,
        "src/app/settings.py",
        "breaker_failures: Annotated[int, Field(ge=1)] = 5",
        "breaker_failures: Annotated[int, Field(ge=1)] = 8",
    )
    replace(project, ".env.example", "BREAKER_FAILURES=5", "BREAKER_FAILURES=8\nREGION=eu")


ROUTE = """\
\"\"\"A route of our own.\"\"\"

from fastapi import APIRouter

router = APIRouter()


@router.get("/api/hello", include_in_schema=False)
async def hello() -> str:
    \"\"\"Be polite.\"\"\"
    return "hello"
"""
ITS_TEST = """\
from tests.conftest import Serve


def test_it_is_polite(serve: Serve) -> None:
    assert serve().get("/api/hello").json() == "hello"
"""


def add_route(project: Path) -> None:
    (project / "src/app/routes/hello.py").write_text(ROUTE, encoding="utf-8")
    (project / "tests/test_hello.py").write_text(ITS_TEST, encoding="utf-8")
    main = "src/app/main.py"
    settings = "from app.settings import Settings, load_settings\n"
    replace(project, main, settings, f"from app.routes.hello import router as hello\n{settings}")
    replace(project, main, "(query.router, stats.router)", "(query.router, stats.router, hello)")


def edit_readme(project: Path) -> None:
    replace(
        project,
        "README.md",
        "\n## The API\n",
        "\n## Who to ask\n\nThe platform team.\n\n## The API\n",
    )


def edit_dockerfile(project: Path) -> None:
    replace(
        project,
        "Dockerfile",
        "\nSTOPSIGNAL SIGTERM\n",
        '\nSTOPSIGNAL SIGTERM\nLABEL team="platform"\n',
    )


def add_dependency(project: Path) -> None:
    replace(
        project,
        "pyproject.toml",
        '  "fastapi>=0.165.0",\n',
        '  "fastapi>=0.165.0",\n  "humanize>=4.12",\n',
    )


def rename_test(project: Path) -> None:
    (project / "tests/test_config.py").rename(project / "tests/test_our_models.py")


@dataclass(frozen=True)
class Edit:
    """What owners typically do to a project."""

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]


EDITS = [
    Edit("settings", change_settings, ("src/app/settings.py", ".env.example")),
    Edit(
        "new route",
        add_route,
        ("src/app/main.py", "src/app/routes/hello.py", "tests/test_hello.py"),
    ),
    Edit("readme", edit_readme, ("README.md",)),
    Edit("dockerfile", edit_dockerfile, ("Dockerfile",)),
    Edit("dependency", add_dependency, ("pyproject.toml",)),
    Edit("renamed test", rename_test, ("tests/test_config.py", "tests/test_our_models.py")),
]


def edit(project: Path, variant: Variant) -> list[Edit]:
    """Make all changes that the variant has a file for."""
    made = [change for change in EDITS if "docker" in variant.on or change.name != "dockerfile"]
    for change in made:
        change.make(project)
    return made


def clash(project: Path, new: Tree) -> str:
    """Change a line that the template has changed since, and return its file."""
    edited = {name for change in EDITS for name in change.files}
    for name in sorted(
        files(project) & new.keys() - edited - {".copier-answers.yml", "cascade.toml"}
    ):
        old = (project / name).read_text(encoding="utf-8").splitlines(keepends=True)
        after = new[name][1].decode().splitlines(keepends=True)
        for tag, start, *_ in difflib.SequenceMatcher(a=old, b=after).get_opcodes():
            if tag == "replace" and old[start].strip():
                old[start] = old[start].rstrip("\n") + "  # ours\n"
                (project / name).write_text("".join(old), encoding="utf-8")
                return name
    raise AssertionError("the template has changed no line of any file")


def check_conflict(text: str, new: str) -> None:
    """One conflict, with the owner's line in it; the template's side of it is the new file."""
    before, _, rest = text.partition("<<<<<<< before updating\n")
    ours, _, rest = rest.partition("=======\n")
    theirs, _, after = rest.partition(">>>>>>> after updating\n")
    assert "  # ours\n" in ours
    assert before + theirs + after == new


# --------------------------------------------------------------------------------- the updates


def update(project: Path, answers: Mapping[str, Any] | None = None) -> None:
    """As `copier update --defaults` does it, without trust."""
    copier.run_update(
        project, data=checked(answers or {}), defaults=True, overwrite=True, quiet=True
    )


@pytest.mark.parametrize(
    ("release", "variant"), UPDATES, ids=[f"{release}-{each.name}" for release, each in UPDATES]
)
def test_an_update_keeps_what_its_owner_changed(
    release: Version, variant: Variant, copied: Copied, workshop: Workshop
) -> None:
    fresh = copied(PRESENT, variant)
    new = tree(fresh)
    project = copied(release, variant)
    edits = edit(project, variant)
    clashing = clash(project, new)
    mine = tree(project)
    commit(project)
    update(project)

    updated = tree(project)
    edit(fresh, variant)
    expected = tree(fresh)
    # Whoever renames a file gets no more news of it.
    expected["tests/test_our_models.py"] = mine["tests/test_our_models.py"]
    # Theirs since the first copy.
    expected["cascade.toml"] = mine["cascade.toml"]
    conflicted = updated.pop(clashing, (False, b""))[1].decode()
    expected.pop(clashing)
    wrong = {name for name in updated | expected if updated.get(name) != expected.get(name)}
    tally = Tally(workshop.folder / "updates")
    for change in edits:
        tally.add(release, variant.name, change.name, not wrong & set(change.files))
    tally.add(release, variant.name, "clash", conflicted.count("<<<<<<<") == 1)
    assert wrong == set()
    check_conflict(conflicted, new[clashing][1].decode())
    unmerged = run("git", "diff", "--name-only", "--diff-filter=U", cwd=project)
    assert unmerged.split() == [clashing]


def test_an_update_leaves_the_owners_models_alone(copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    append(project, "cascade.toml", "# ours")
    mine = (project / "cascade.toml").read_text(encoding="utf-8")
    commit(project)
    update(project, {"verifier": "openai/gpt-5"})
    assert "verifier: openai/gpt-5\n" in (project / ".copier-answers.yml").read_text()
    assert (project / "cascade.toml").read_text(encoding="utf-8") == mine


def test_copying_again_leaves_the_owners_models_alone(copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    append(project, "cascade.toml", "# ours")
    append(project, "README.md", "Ours.")
    mine = tree(project)
    copier.run_recopy(project, defaults=True, overwrite=True, quiet=True)
    assert tree(project)["cascade.toml"] == mine["cascade.toml"]
    assert tree(project)["README.md"] != mine["README.md"]


@pytest.mark.parametrize("release", [*EARLIER, PRESENT], ids=str)
def test_an_update_does_not_bring_back_what_owners_rename(release: Version, copied: Copied) -> None:
    project = copied(release, LEANEST)
    (project / "cascade.toml").rename(project / "models.toml")
    commit(project)
    mine = tree(project)
    update(project, {"verifier": "openai/gpt-5"})
    after = tree(project)
    assert "cascade.toml" not in after
    assert after["models.toml"] == mine["models.toml"]


def test_the_sample_covers_every_pair_of_switches() -> None:
    wanted = 4 * len(SWITCHES) * (len(SWITCHES) - 1) // 2
    met = {
        (one, one in variant.on, other, other in variant.on)
        for variant in SAMPLE
        for one in SWITCHES
        for other in SWITCHES
        if one < other
    }
    assert len(met) == wanted
    flips = {
        (switch, on, other, other in others)
        for switch, on, others in FLIPS
        for other in SWITCHES
        if other != switch
    }
    assert len(flips) == 2 * wanted


@pytest.mark.parametrize(
    ("release", "variant"),
    [(EARLIER[0], LEANEST), (EARLIER[-1], FULLEST)],
    ids=["oldest-none", "newest-all"],
)
def test_an_updated_project_passes_every_stage(
    release: Version, variant: Variant, copied: Copied, workshop: Workshop, kustomize: list[str]
) -> None:
    project = copied(release, variant)
    edit(project, variant)
    commit(project)
    update(project)
    assert run("git", "diff", "--name-only", "--diff-filter=U", cwd=project) == ""
    pass_every_stage(project, variant, Extent.REACHED, workshop, kustomize)


# ----------------------------------------------------------------------------------- the flips


@pytest.mark.parametrize(
    ("switch", "on", "others"),
    FLIPS,
    ids=[f"{Variant(others).name}{'+-'[not on]}{switch}" for switch, on, others in FLIPS],
)
def test_a_flip_equals_a_fresh_copy(
    switch: str, on: bool, others: frozenset[str], copied: Copied
) -> None:
    before, after = Variant(others), Variant(others | {switch})
    if not on:
        before, after = after, before
    project, fresh = copied(PRESENT, before), copied(PRESENT, after)
    commit(project)
    update(project, {switch: on})
    assert tree(project) == tree(fresh)
    assert folders(project) == folders(fresh)


@pytest.mark.parametrize(
    ("release", "before", "after"),
    [(EARLIER[0], FULLEST, LEANEST), (EARLIER[-1], LEANEST, FULLEST)],
    ids=["oldest-all-off", "newest-all-on"],
)
def test_a_release_and_flips_at_once_equal_a_fresh_copy(
    release: Version, before: Variant, after: Variant, copied: Copied
) -> None:
    project, fresh = copied(release, before), tree(copied(PRESENT, after))
    models = tree(project)["cascade.toml"]
    commit(project)
    update(project, after.answers)
    assert tree(project) == {**fresh, "cascade.toml": models}


# ---------------------------------------------------------------------------- Copier's versions


@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_the_oldest_and_the_newest_copier_update_alike(
    age: str, copied: Copied, workshop: Workshop
) -> None:
    newest = Path(sys.executable).with_name("copier")
    program = workshop.oldest_copier() if age == "oldest" else newest
    project, fresh = copied(EARLIER[0], FULLEST), tree(copied(PRESENT, FULLEST))
    models = tree(project)["cascade.toml"]
    commit(project)
    assert check_update(program, project) == 2
    told = run(program, "update", "--defaults", cwd=project)
    assert "`git diff` shows how" in told
    assert tree(project) == {**fresh, "cascade.toml": models}
    assert check_update(program, project) == 0


def check_update(program: Path, project: Path) -> int:
    """2 if there is a newer release, else 0."""
    command = [str(program), "check-update", "--quiet"]
    return subprocess.run(command, cwd=project, env=environment(), check=False).returncode


# ------------------------------------------------------------------------------ what is refused


def try_commit(project: Path, **env: str) -> tuple[int, str]:
    """Commit everything, with the hooks of the project that need nothing installed."""
    skipped = ",".join(["ruff-check", "ruff-format", "mypy", env.pop("skip", "")])
    home = str(project.parent / "pre-commit")
    hooked = {"PRE_COMMIT_HOME": home, "SKIP": skipped, "HOME": home, **env}
    run(Path(sys.executable).with_name("pre-commit"), "install", cwd=project, env=hooked)
    run("git", "add", "--all", cwd=project)
    ended = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-m", "update"],
        cwd=project,
        env=environment(**hooked),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_a_conflict_is_not_committed(copied: Copied) -> None:
    project = copied(EARLIER[-1], LEANEST)
    name = clash(project, tree(copied(PRESENT, LEANEST)))
    commit(project)
    update(project)
    code, told = try_commit(project)
    assert code == 1
    assert f"{name}:" in told.partition("no conflict markers")[2]
    (project / name).write_text("resolved\n", encoding="utf-8")
    assert try_commit(project)[0] == 0


def test_a_lost_edit_is_not_committed_without_a_word(copied: Copied) -> None:
    project = copied(PRESENT, FULLEST)
    commit(project)
    mine = project / "docs/streaming.md"
    append(project, "docs/streaming.md", "Ours.")
    commit(project)
    update(project, {"streaming": False})
    assert not mine.exists()
    code, told = try_commit(project)
    assert code == 1
    lost = told.partition("files that were changed here:\n")[2].partition("To keep one:")[0]
    assert lost == "  docs/streaming.md\n"
    run("sh", "-c", "git show HEAD:docs/streaming.md > docs/streaming.md.kept", cwd=project)
    assert try_commit(project)[0] == 0


def test_an_edit_of_what_a_release_replaces_is_not_lost_without_a_word(copied: Copied) -> None:
    """0.3.0 has a package where 0.2.0 had the module `features/rate_limit.py`."""
    project = copied(Version("0.2.0"), FULLEST)
    commit(project)
    mine = "src/app/features/rate_limit.py"
    append(project, mine, "OURS = 1")
    commit(project)
    update(project)
    # Python would prefer the package, and never run the module.
    assert not (project / mine).exists()
    assert (project / "src/app/features/rate_limit/__init__.py").is_file()
    code, told = try_commit(project)
    assert code == 1
    assert f"files that were changed here:\n  {mine}\nTo keep one:" in told
    assert try_commit(project, skip="lost-edits")[0] == 0


def test_a_file_that_both_sides_added_is_a_conflict(copied: Copied) -> None:
    project = copied(Version("0.2.0"), LEANEST)
    mine = project / "docs/keys.md"
    mine.write_text("# Our keys\n")
    commit(project)
    update(project)
    text = mine.read_text()
    assert "# Our keys\n" in text
    assert text.count("<<<<<<< before updating") == 1
    assert run("git", "diff", "--name-only", "--diff-filter=U", cwd=project) == "docs/keys.md\n"
