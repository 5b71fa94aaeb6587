"""What a run of the tests makes once and its workers share: the template, locks, check results."""

import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from pathlib import Path
from typing import Any

import copier
import yaml
from filelock import FileLock
from plumbum import local

from tests.processes import run
from tests.variants import QUESTIONS, ROOT, Variant, belongs, manifest

VERSION = "v1.0.0"
DEPLOYING = ("docker", "kubernetes")
"""The switches whose files are not part of the running service."""
APART = ROOT / "tests" / "snapshots" / "apart.txt"
"""The tests of the service that run in the leanest and the fullest variant only."""
FRESH = "fresh-"
_GIT = ("git", "-c", "user.name=tests", "-c", "user.email=tests@example.com")


class Workshop:
    """A folder that all workers share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder of that name, made by whoever comes first."""
        folder = self.folder / name
        with FileLock(f"{folder}.lock"):
            if folder.exists():
                return folder
            scratch = self.folder / f"{name}.part"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            make(scratch)
            scratch.rename(folder)
            return folder

    def tell(self, line: str) -> None:
        """Have a line printed at the end of the run."""
        lines = self.folder / "lines"
        lines.mkdir(exist_ok=True)
        (lines / hashlib.sha256(line.encode()).hexdigest()).write_text(line, encoding="utf-8")

    def lines(self) -> list[str]:
        """What is to be printed at the end of the run."""
        return sorted(file.read_text(encoding="utf-8") for file in self.folder.glob("lines/*"))

    def template(self) -> Path:
        """The working tree as a repository with a released version: dirty files are part of it."""
        return self.once("template", snapshot)

    def oldest_copier(self) -> Path:
        """The command of the oldest Copier that the template asks for."""
        configuration = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
        oldest = configuration["_min_copier_version"]

        def make(folder: Path) -> None:
            # Its scripts name their interpreter by its path, which is to last.
            home = folder.with_name(f"copier-{oldest}-home")
            uv("venv", "--clear", str(home), cwd=folder)
            uv("pip", "install", "--python", str(home), f"copier=={oldest}", cwd=folder)
            (folder / "copier").symlink_to(home / "bin" / "copier")

        program = self.once(f"copier-{oldest}", make) / "copier"
        assert oldest in run(program, "--version", cwd=self.folder)
        return program

    def plain(self) -> Path:
        """The template without its repository, which Copier need not clone."""
        return self.once("plain", copy_working_tree)

    def fresh(self, variant: Variant) -> Path:
        """What a variant is rendered into, for tests that only read it."""

        def make(folder: Path) -> None:
            rendered(self.plain(), folder, variant.answers)

        return self.once(f"{FRESH}{variant.name}", make)

    def install(self, project: Path, *more: str) -> None:
        """Give a project its own environment, by the lock that all of its dependencies share."""
        digest = fingerprint(project, ["pyproject.toml"])

        def make(folder: Path) -> None:
            # In its own place, online: afterwards uv's cache has all that the lock names.
            copy = folder / "project"
            shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".venv"))
            uv("lock", cwd=copy)
            uv("sync", "--frozen", "--all-extras", cwd=copy)
            shutil.copy(copy / "uv.lock", folder)
            shutil.rmtree(copy)

        shutil.copy(self.once(f"lock-{digest}", make) / "uv.lock", project)
        uv("sync", "--frozen", "--offline", *more, cwd=project)


def snapshot(folder: Path) -> None:
    """The working tree as a repository with a release."""
    copy_working_tree(folder)
    commit(folder, VERSION)


def copy_working_tree(folder: Path) -> None:
    """Copy what git does not ignore, dirty files as they are."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def commit(folder: Path, tag: str | None = None) -> None:
    """Commit all that is in a folder; make it a repository if it is none."""
    if not (folder / ".git").exists():
        run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run(*_GIT, "commit", "--quiet", "--message", tag or "work", cwd=folder)
    if tag:
        run("git", "tag", tag, cwd=folder)


def uv(*arguments: str, cwd: Path, python: str | Path = sys.executable) -> str:
    """Run the uv of our own environment on a project."""
    own = Path(sys.executable).with_name("uv")
    return run(own, "--quiet", *arguments, cwd=cwd, env={"UV_PYTHON": str(python)})


def checked(answers: Mapping[str, Any]) -> dict[str, Any]:
    """The answers, if they answer questions; Copier itself takes any key without a word.

    Raises:
        KeyError: names what `copier.yml` does not ask.
    """
    if unknown := sorted(answers.keys() - QUESTIONS.keys()):
        raise KeyError(f"copier.yml does not ask: {', '.join(unknown)}")
    return dict(answers)


def rendered(source: Path, project: Path, answers: Mapping[str, Any], *left_out: str) -> Path:
    """What Copier itself makes of a folder and some answers, any key and file name left out.

    Raises:
        ValueError: an answer is refused.
    """
    # Copier starts git once for each file where it finds one: a third of the time that this takes.
    with local.env(PATH=""):
        copier.run_copy(
            str(source),
            project,
            data=dict(answers),
            exclude=left_out,
            defaults=True,
            unsafe=False,
            quiet=True,
        )
    return project


def files(project: Path) -> set[str]:
    """The files of a project by their relative names, without what was made in it."""
    caches = {f".{name}_cache" for name in ("mypy", "pytest", "ruff")}
    made = {".venv", ".git", ".hypothesis", "__pycache__", *caches}
    return {
        path.relative_to(project).as_posix()
        for path in project.rglob("*")
        if path.is_file() and not made & set(path.relative_to(project).parts)
    }


def fingerprint(project: Path, names: Iterable[str]) -> str:
    """A digest of some files, their names included."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0".encode() + (project / name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class Extent(Enum):
    """How many of a service's own tests are run (docs/decisions/0011)."""

    WHOLE = "all of them"
    REACHED = "those that a switch can reach"
    OWN = "those of the switches that are on"


def check_tests(project: Path, on: Set[str], extent: Extent, workshop: Workshop) -> bool:
    """Run a project's own tests; whether most of them were left to a variant of the same content.

    Switches that only deploy change no Python file but tests of their own, which no other file
    knows. These run in every variant; the rest run once for each content of all other files, the
    README and the answers aside, which name the switches.
    """
    programs = project / ".venv" / "bin"
    deploying = of_switches(project, DEPLOYING)
    own = tests_in(deploying)
    content = files(project) - deploying - {"README.md", ".copier-answers.yml", "uv.lock"}
    name = f"tests-{extent.name}-{fingerprint(project, content)}"
    rest = [f"--ignore={name}" for name in own]
    if extent is Extent.OWN:
        rest = tests_in(of_switches(project, on) - deploying)
    left_out = {"APART_FROM": str(APART)} if extent is Extent.REACHED else {}
    shared = True

    def run_rest(_: Path) -> None:
        nonlocal shared
        shared = False
        run_watched(project, programs, left_out, *rest)

    workshop.once(name, run_rest)
    if own:
        run(programs / "pytest", "-q", *own, cwd=project)
    return shared


def of_switches(project: Path, switches: Iterable[str]) -> set[str]:
    """The files that a project has because of these switches."""
    paths = [path for switch in switches for path in manifest(switch)]
    return {name for name in files(project) if belongs(name, paths)}


def tests_in(names: Set[str]) -> list[str]:
    """Those of some files that hold tests."""
    return sorted(name for name in names if re.fullmatch(r"tests/(.*/)?test_\w+\.py", name))


def run_watched(
    project: Path, programs: Path, what: Mapping[str, str], *arguments: str, timeout: float = 900
) -> None:
    """Run a project's tests with the plugin that knows which no switch can reach."""
    options = ("-q", "-p", "apart", "-p", "no:cacheprovider", *arguments)
    env = {"PYTHONPATH": str(ROOT / "tests" / "plugins"), **what}
    run(programs / "pytest", *options, cwd=project, env=env, timeout=timeout)


def check_lint(project: Path, programs: Path) -> None:
    """What a project's own ruff says of its style and format."""
    run(programs / "ruff", "check", cwd=project)
    run(programs / "ruff", "format", "--check", cwd=project)


def check_types(project: Path, programs: Path, workshop: Workshop) -> None:
    """What a project's own mypy says.

    The cache is one for each pyproject.toml, and one run's at a time: mypy looks at the content of
    every module before it believes it, so only what differs between variants is checked anew.
    """
    cache = workshop.folder / f"mypy-{fingerprint(project, ['pyproject.toml'])}"
    with FileLock(f"{cache}.lock"):
        run(programs / "mypy", "--cache-dir", cache, cwd=project)
