"""`make mutants`: try every mutant against the tests that should see it, and report the survivors.

    python -m tests.mutation [PATTERN…]

What was found is kept in build/mutants, so that a run that was interrupted goes on where it was; a
mutant is tried again when its file has changed, or with --again if it survived.
"""

import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
import yaml

from tests.mutation.mutants import Mutant, mutants
from tests.processes import environment
from tests.variants import FULLEST, ROOT, VARIANTS
from tests.workshop import FRESH, Workshop, rendered, snapshot

EXPLAINED = ROOT / "tests" / "mutation" / "explained.yml"
FOLDER = ROOT / "build" / "mutants"
FORKS = ROOT / "tests" / "mutation" / "forks.py"
IMPORTED = "ignore::pytest.PytestAssertRewriteWarning"
PYTEST = ("-q", "-x", "-p", "no:cacheprovider", "-W", IMPORTED)
PLACES: dict[str, tuple[str, ...]] = {
    "template": ("copier", "httpx", "hypothesis", "jinja2_ansible_filters", "kubernetes_validate"),
    "questions": ("copier", "httpx", "hypothesis", "jinja2_ansible_filters", "kubernetes_validate"),
    "service": ("app.main", "app.cli", "httpx", "hypothesis", "yaml"),
    "source": ("aiohttp.web", "cascadeflow", "fastapi", "httpx", "hypothesis", "uvicorn"),
}
"""Where tests run, and what they share there: in this repository, or in `template/` in place."""
ANEW = ("questions", "source")
"""The places whose tests are collected anew each time: they import what is changed."""

Stage = tuple[str, ...]
"""A place, and pytest's arguments there."""

TYPED = "tests/test_answers.py::test_answers_are_rendered_as_they_were_typed[row0]"
_MODELS: Stage = ("questions", "tests/test_shipped.py", "-k", "models")
_OWNERS: Stage = ("questions", "tests/test_updates.py", "-k", "owners")
_MADE: Stage = ("questions", "tests/test_in_place.py", "-k", "made_in_place")
_MANIFEST: tuple[Stage, ...] = (
    ("questions", "tests/test_snapshots.py"),
    ("questions", "tests/test_switches.py"),
    ("questions", "tests/test_update_workflow.py", "-k", "left_out"),
    _OWNERS,
)
_QUESTIONS: tuple[Stage, ...] = (
    ("questions", "tests/test_answers.py", "-k", "question"),
    ("questions", "tests/test_answers.py", "-k", "refused and not environment"),
    _MODELS,
    ("questions", TYPED),
    ("questions", "tests/test_command_line.py", "-k", "computed or knows or no_question"),
    ("questions", "tests/test_in_place.py", "-k", "tag or braces or nobody"),
    *_MANIFEST,
)
_MANIFESTS: tuple[Stage, ...] = (
    ("template", "tests/test_policy.py"),
    ("service", "tests/test_manifests.py", "tests/test_manifests_prometheus.py"),
    ("template", "tests/test_deploy.py", "-k", "valid"),
)
_MONITORING: tuple[Stage, ...] = (
    ("service", "tests/test_manifests_prometheus.py", "tests/test_monitoring.py"),
    ("template", "tests/test_shipped.py", "-k", "monitoring"),
    ("template", "tests/test_monitoring.py", "-k", "query or promtool"),
)
_IMAGE: tuple[Stage, ...] = (
    ("template", "tests/test_shipped.py", "-k", "compose or image or build"),
    ("service", "tests/test_container.py"),
    ("template", "tests/test_deploy.py", "-k", "valid"),
)
_WORKFLOWS: tuple[Stage, ...] = (
    ("template", "tests/test_ci.py", "-k", "not valid"),
    ("template", "tests/test_ci.py", "-k", "valid"),
)
_SERVICE: tuple[Stage, ...] = (
    ("source", "tests/test_settings.py", "tests/test_hosts.py", "tests/test_browsers.py"),
    ("source", "tests/test_main.py", "tests/test_health.py", "tests/test_contract.py"),
    ("source", "tests"),
)
STAGES: dict[str, tuple[Stage, ...]] = {
    "copier.yml: taken_names*": (
        ("questions", "tests/test_answers.py", "-k", "refused and project_slug"),
        ("questions", "tests/test_answers.py", "-k", "environment"),
        ("questions", "tests/test_answers.py", "-k", "question"),
    ),
    "copier.yml: _message*": (
        ("questions", "tests/test_command_line.py", "-k", "file_of_answers"),
        ("questions", "tests/test_command_line.py", "-k", "older_release"),
    ),
    "copier.yml: _min*": (("questions", "tests/test_copier.py", "-k", "oldest"),),
    "copier.yml: if*": _MANIFEST,
    "copier.yml: _exclude*/cascade.toml": (_OWNERS,),
    "copier.yml: _exclude[[]*] / *": _MANIFEST,
    "copier.yml: _exclude*": (_MADE, *_MANIFEST),
    "copier.yml: _skip*": (_OWNERS,),
    "copier.yml: catalog.default / *": (_MODELS, *_QUESTIONS),
    "copier.yml: prices.default / *": (_MODELS, *_QUESTIONS),
    "copier.yml": _QUESTIONS,
    "template/Dockerfile": _IMAGE,
    "template/.dockerignore": _IMAGE,
    "template/compose.yaml": (*_IMAGE, ("template", "tests/test_switches.py")),
    "template/deploy/kubernetes/.checkov.yaml": (
        ("template", "tests/test_deploy.py", "-k", "checkov"),
    ),
    "template/deploy/kubernetes/components/prometheus/*": (_MONITORING[0], *_MANIFESTS),
    "template/deploy/monitoring/*": _MONITORING,
    "template/deploy/*": _MANIFESTS,
    "template/.github/workflows/ci.yml": (
        *_WORKFLOWS,
        ("template", "tests/test_shipped.py", "-k", "ci"),
    ),
    "template/.github/workflows/update.yml": (
        *_WORKFLOWS,
        ("template", "tests/test_update_workflow.py"),
    ),
    ".github/*": _WORKFLOWS,
    "template/src/app/features/openai_api/*": (
        ("source", "tests/features/test_openai_api.py"),
        ("source", "tests/features/test_openai_embeddings.py"),
        *_SERVICE,
    ),
    "template/src/app/features/streaming/*": (
        ("source", "tests/features/test_streaming.py", "tests/features/test_playground.py"),
        *_SERVICE,
    ),
    "template/src/app/features/prometheus/*": (
        ("source", "tests/features/test_prometheus.py", "tests/features/test_traces.py"),
        *_SERVICE,
    ),
    "template/src/app/features/rate_limit/*": (
        ("source", "tests/features/test_rate_limit.py", "-k", "not share"),
        ("source", "tests/features/test_rate_limit_places.py"),
        *_SERVICE,
    ),
    "template/src/*": _SERVICE,
    "template/README.md": (
        ("template", "tests/test_switches.py"),
        ("template", "tests/test_examples.py"),
    ),
    "template/Makefile": (
        ("template", "tests/test_shipped.py", "-k", "make"),
        ("template", TYPED),
        ("template", "tests/test_update_hook.py", "-k", "make"),
    ),
    "template/pyproject.toml": (
        ("template", "tests/test_shipped.py"),
        ("template", TYPED),
        ("template", "tests/test_switches.py"),
        ("template", "tests/test_answers.py", "-k", "typed"),
        ("template", "tests/test_in_place.py", "-k", "is_clean"),
    ),
    "template/.gitattributes": (("template", "tests/test_in_place.py", "-k", "lines"),),
    "template/.gitignore": (("template", "tests/test_shipped.py", "-k", "git"),),
    "template/.pre-commit-config.yaml": (("template", "tests/test_shipped.py", "-k", "commit"),),
    "template/.env.example": (
        ("template", "tests/test_shipped.py", "-k", "example"),
        ("template", TYPED),
        ("template", "tests/test_switches.py"),
    ),
    "template/cascade.toml": (
        ("template", "tests/test_shipped.py", "-k", "models"),
        ("template", TYPED),
    ),
    "template/*": (
        ("template", "tests/test_shipped.py"),
        ("template", TYPED),
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
    """The first test that turned red; empty for a survivor."""
    seconds: float


def stages_of(mutant: Mutant) -> tuple[Stage, ...]:
    return next(
        stages
        for pattern, stages in STAGES.items()
        if fnmatchcase(mutant.file, pattern) or fnmatchcase(mutant.name, pattern)
    )


def digest(file: str) -> str:
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]


class Copy:
    """A copy of the working tree, with a process for each stage."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        snapshot(folder)
        self._python = python
        self._started: dict[Stage, subprocess.Popen[str]] = {}

    def _process(self, stage: Stage) -> subprocess.Popen[str]:
        if stage not in self._started:
            place, *arguments = stage
            inside = place in ("service", "source")
            service = self.folder / "template"
            asked = {
                "modules": PLACES[place],
                "anew": place in ANEW,
                "arguments": [
                    *PYTEST,
                    f"--basetemp={self.folder}-{len(self._started)}.tmp",
                    *arguments,
                ],
            }
            self._started[stage] = subprocess.Popen(
                [self._python if inside else sys.executable, FORKS, json.dumps(asked)],
                cwd=service if inside else self.folder,
                env=environment(PYTHONPATH=str(service / "src")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self._started[stage]

    def red(self, stage: Stage, workshop: Path) -> str:
        """The test that failed first, or how else pytest ended; empty if it ended with 0.

        Raises:
            ValueError: there are no such tests.
        """
        process = self._process(stage)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{json.dumps({'WORKSHOP': str(workshop)})}\n")
            process.stdin.flush()
            code, first = json.loads(process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise ValueError(f"cannot be collected: {' '.join(stage)}") from None
        return f"{stage[0]} {first or f'exit {code}'}" if code else ""

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
        self._folder = folder
        self._green: dict[Stage, Path] = {}
        self._one_at_a_time = threading.Lock()
        self._seconds = 0
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
            killed_by = next(filter(None, (self._red(stage, mutant, copy) for stage in stages)), "")
        finally:
            self._free.put(copy)
        seconds = round(time.perf_counter() - started, 1)
        return Result(mutant.name, digest(mutant.file), killed_by, seconds)

    def _red(self, stage: Stage, mutant: Mutant, copy: Copy) -> str:
        with self._one_at_a_time:
            if stage not in self._green:
                made = Path(tempfile.mkdtemp(dir=self._folder))
                if red := copy.red(stage, made):
                    raise ValueError(f"red without any mutant: {' '.join(stage)}: {red}")
                self._green[stage] = made
        path = copy.folder / mutant.file
        original = path.read_bytes()
        path.write_text(mutant.text, encoding="utf-8")
        # Python believes a compiled file that is of the same second and as long.
        self._seconds += 1
        os.utime(path, (self._seconds, self._seconds))
        workshop = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            if mutant.file.startswith("template/"):
                prepare(workshop, self._green[stage], copy.folder, mutant.file)
            return copy.red(stage, workshop)
        finally:
            path.write_bytes(original)
            shutil.rmtree(workshop)


def prepare(workshop: Path, made: Path, template: Path, file: str) -> None:
    """Of the variants that a stage reads, make anew what a changed file becomes."""
    one, rendering = workshop / "one", workshop / "rendering"
    name = file.removeprefix("template/")
    (one / file).parent.mkdir(parents=True)
    for path in ("copier.yml", file):
        shutil.copy(template / path, one / path)
    for variant in VARIANTS:
        before = made / f"{FRESH}{variant.name}"
        if before.exists():
            # If it cannot be rendered, the tests are to see it.
            with suppress(Exception):
                rendered(one, rendering, variant.answers)
                mine = shutil.copytree(before, workshop / before.name, copy_function=os.link)
                (mine / name).unlink(missing_ok=True)
                if (rendering / name).exists():
                    (rendering / name).rename(mine / name)
            shutil.rmtree(rendering, ignore_errors=True)


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
    found, known = read(notes), {}
    for mutant in wanted:
        before = found.get(mutant.name)
        if before and before.original == digest(mutant.file) and (before.killed_by or not again):
            known[mutant.name] = before
    rest = [mutant for mutant in wanted if mutant.name not in known]
    if rest:
        started = FOLDER / f"{int(time.time())}"
        workshop = Workshop(started)
        started.mkdir()
        home = rendered(workshop.plain(), started / "home", FULLEST.answers)
        workshop.install(home, "--no-install-project")
        laboratory = Laboratory(started, home / ".venv" / "bin" / "python", workers)
        with ThreadPoolExecutor(workers) as pool, notes.open("a", encoding="utf-8") as log:
            done = pool.map(lambda mutant: laboratory.attempt(mutant, stages_of(mutant)), rest)
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
