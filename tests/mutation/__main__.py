"""`make mutants`: try every mutant against the tests that should see it, and report the survivors.

    python -m tests.mutation [PATTERN…]

What was found is kept in build/mutants, so that a run that was interrupted goes on where it was; a
mutant is tried again when its file has changed, or with --again if it survived.
"""

import hashlib
import json
import os
import queue
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
import yaml

from tests.mutation.mutants import Mutant, mutants
from tests.processes import environment
from tests.variants import FULLEST, ROOT
from tests.workshop import Workshop, rendered, snapshot

EXPLAINED = ROOT / "tests" / "mutation" / "explained.yml"
FOLDER = ROOT / "build" / "mutants"
FORKS = ROOT / "tests" / "mutation" / "forks.py"
IMPORTED = "ignore::pytest.PytestAssertRewriteWarning"
PYTEST = ("-q", "-x", "-p", "no:cacheprovider", "-W", IMPORTED)
PLACES: dict[str, tuple[str, ...]] = {
    "template": ("copier", "httpx", "hypothesis", "jinja2_ansible_filters", "kubernetes_validate"),
    "service": ("app.main", "app.cli", "httpx", "hypothesis", "yaml"),
    "source": ("aiohttp.web", "cascadeflow", "fastapi", "httpx", "hypothesis", "uvicorn"),
}
"""Where tests run, and what they share there: in this repository, or in `template/` in place, the
service's own modules imported once, or anew each time because they are what is changed."""
DEPLOYED = "prometheus+docker+kubernetes"

Stage = tuple[str, ...]
"""A place, and pytest's arguments there."""

_MANIFESTS: tuple[Stage, ...] = (
    ("template", "tests/test_policy.py"),
    ("service", "tests/test_manifests.py", "tests/test_manifests_prometheus.py"),
    ("template", "tests/test_deploy.py", "-k", f"{DEPLOYED} and manifests"),
)
_IMAGE: tuple[Stage, ...] = (
    ("service", "tests/test_container.py"),
    ("template", "tests/test_shipped.py", "-k", "compose or image or build"),
    ("template", "tests/test_deploy.py", "-k", f"{DEPLOYED} and image"),
)
_WORKFLOWS: tuple[Stage, ...] = (("template", "tests/test_ci.py"),)
_SERVICE: tuple[Stage, ...] = (
    ("source", "tests/test_settings.py", "tests/features", "tests/test_main.py"),
    ("source", "tests"),
)
STAGES: dict[str, tuple[Stage, ...]] = {
    "copier.yml": (
        ("template", "tests/test_snapshots.py"),
        ("template", "tests/test_answers.py", "-k", "refused or question"),
        ("template", "tests/test_switches.py"),
        ("template", "tests/test_command_line.py"),
        ("template", "tests/test_shipped.py", "-k", "models"),
        ("template", "tests/test_in_place.py", "-k", "not itself"),
        ("template", "tests/test_answers.py", "-k", "typed"),
        ("template", "tests/test_copier.py", "-k", "owner"),
        ("template", "tests/test_any_answer.py"),
    ),
    "template/Dockerfile": _IMAGE,
    "template/.dockerignore": _IMAGE,
    "template/compose.yaml": _IMAGE,
    "template/deploy/*": _MANIFESTS,
    "template/.github/*": (*_WORKFLOWS, ("template", "tests/test_shipped.py", "-k", "ci")),
    ".github/*": _WORKFLOWS,
    "template/src/*": _SERVICE,
    "template/README.md": (("template", "tests/test_switches.py"),),
    "template/.gitattributes": (("template", "tests/test_in_place.py", "-k", "lines"),),
    "template/.gitignore": (("template", "tests/test_shipped.py", "-k", "git"),),
    "template/.pre-commit-config.yaml": (("template", "tests/test_shipped.py", "-k", "commit"),),
    "template/*": (
        ("template", "tests/test_shipped.py"),
        ("template", "tests/test_switches.py"),
        ("template", "tests/test_answers.py", "-k", "typed"),
    ),
}
"""The tests that should see a mutant, by its file; the fast ones and the likely ones first."""


@dataclass(frozen=True)
class Result:
    """How one mutant fared."""

    name: str
    original: str
    """A digest of the file that it was made of."""
    killed_by: str
    """The tests that turned red; empty for a survivor."""
    seconds: float


def stages_of(file: str) -> tuple[Stage, ...]:
    return next(stages for pattern, stages in STAGES.items() if fnmatchcase(file, pattern))


def digest(file: str) -> str:
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]


class Copy:
    """A copy of the working tree, with a process for each place that tests run in."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        snapshot(folder)
        self._python = python
        self._started: dict[str, subprocess.Popen[str]] = {}

    def _process(self, place: str) -> subprocess.Popen[str]:
        if place not in self._started:
            service = self.folder / "template"
            here = place == "template"
            self._started[place] = subprocess.Popen(
                [sys.executable if here else self._python, FORKS, *PLACES[place]],
                cwd=self.folder if here else service,
                env=environment(PYTHONPATH=str(service / "src")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self._started[place]

    def passes(self, stage: Stage) -> bool:
        """Whether pytest ends with 0; whatever else happens, something was seen.

        Raises:
            ValueError: the process is gone.
        """
        place, *arguments = stage
        process = self._process(place)
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.dumps([*PYTEST, f"--basetemp={self.folder}.tmp", *arguments])
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return int(process.stdout.readline()) == 0

    def close(self) -> None:
        for process in self._started.values():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait()
            process.stdout.close()


class Laboratory:
    """Copies in which mutants are tried, one after the other in each."""

    def __init__(self, folder: Path, python: Path, copies: int = 1) -> None:
        self._green: set[Stage] = set()
        self._free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        self._copies = [Copy(folder / f"copy{number}", python) for number in range(copies)]
        for copy in self._copies:
            self._free.put(copy)

    def close(self) -> None:
        for copy in self._copies:
            copy.close()

    def attempt(self, mutant: Mutant, stages: Sequence[Stage]) -> Result:
        """Run the stages until one turns red.

        Raises:
            ValueError: a stage is red without any mutant; it would kill every one.
        """
        started = time.perf_counter()
        copy = self._free.get()
        try:
            killers = (" ".join(stage) for stage in stages if not self._passes(stage, mutant, copy))
            killed_by = next(killers, "")
        finally:
            self._free.put(copy)
        seconds = round(time.perf_counter() - started, 1)
        return Result(mutant.name, digest(mutant.file), killed_by, seconds)

    def _passes(self, stage: Stage, mutant: Mutant, copy: Copy) -> bool:
        if stage not in self._green:
            if not copy.passes(stage):
                raise ValueError(f"red without any mutant: {' '.join(stage)}")
            self._green.add(stage)
        path = copy.folder / mutant.file
        original = path.read_bytes()
        path.write_text(mutant.text, encoding="utf-8")
        try:
            return copy.passes(stage)
        finally:
            path.write_bytes(original)


def read(file: Path) -> dict[str, Result]:
    """What earlier runs found, by name; a later line wins."""
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return {result.name: result for result in (Result(**json.loads(line)) for line in lines)}


def explained() -> dict[str, str]:
    """Why some mutants may survive, by pattern of their names."""
    listed: dict[str, str] = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8")) or {}
    return listed


def reason(name: str, reasons: Mapping[str, str]) -> str | None:
    """Why a mutant may survive. In its pattern only `*` is special: names hold brackets."""
    for pattern, why in reasons.items():
        if fnmatchcase(name, pattern.replace("[", "[[]")):
            return why
    return None


def report(results: Iterable[Result]) -> bool:
    """Print a line for each file and each survivor; whether all is killed or explained."""
    reasons = explained()
    found = list(results)
    survivors = [result.name for result in found if not result.killed_by]
    unexplained = [name for name in survivors if reason(name, reasons) is None]
    tried = Counter(result.name.split(": ")[0] for result in found)
    lived = Counter(name.split(": ")[0] for name in survivors)
    for file, number in tried.items():
        typer.echo(
            f"{number:>5} tried {number - lived[file]:>5} killed {lived[file]:>4} survived  {file}"
        )
    for name in unexplained:
        typer.echo(f"SURVIVED {name}")
    for result in found:
        if result.killed_by and reason(result.name, reasons) is not None:
            typer.echo(f"explained, but killed: {result.name}")
    typer.echo(
        f"{len(found)} mutants: {len(found) - len(survivors)} killed,"
        f" {len(survivors) - len(unexplained)} explained, {len(unexplained)} survived"
    )
    return not unexplained


def main(
    patterns: Annotated[list[str] | None, typer.Argument(help="Names, with * for any.")] = None,
    again: Annotated[bool, typer.Option(help="Try survivors again.")] = False,
    workers: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    only_list: Annotated[bool, typer.Option("--list", help="Print the names.")] = False,
) -> None:
    """Try every mutant, or those named."""
    wanted = [
        mutant
        for mutant in mutants(ROOT)
        if not patterns
        or any(fnmatchcase(mutant.name, f"{p.replace('[', '[[]')}*") for p in patterns)
    ]
    if only_list:
        typer.echo("\n".join(mutant.name for mutant in wanted))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    notes = FOLDER / "results.jsonl"
    known = {
        name: result
        for name, result in read(notes).items()
        if result.original == digest(name.split(": ")[0]) and (result.killed_by or not again)
    }
    rest = [mutant for mutant in wanted if mutant.name not in known]
    if rest:
        started = FOLDER / f"{int(time.time())}"
        workshop = Workshop(started)
        started.mkdir()
        home = rendered(workshop.plain(), started / "home", FULLEST.answers)
        workshop.install(home, "--no-install-project")
        laboratory = Laboratory(started, home / ".venv" / "bin" / "python", workers)
        with ThreadPoolExecutor(workers) as pool, notes.open("a", encoding="utf-8") as log:
            done = pool.map(lambda mutant: laboratory.attempt(mutant, stages_of(mutant.file)), rest)
            for number, result in enumerate(done, 1):
                known[result.name] = result
                log.write(json.dumps(asdict(result)) + "\n")
                log.flush()
                how = "killed  " if result.killed_by else "SURVIVED"
                typer.echo(f"{number}/{len(rest)} {how} {result.seconds:>5} s  {result.name}")
        laboratory.close()
    if not report(known[mutant.name] for mutant in wanted):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
