"""What each variant consists of and serves, as files whose diff is the review of a change.

    make snapshots

`snapshots/files.txt` names every file and the answers that bring it. `snapshots/openapi.json` holds
the fullest variant's OpenAPI document and, for each set of switches, what goes when these are off.
`snapshots/apart.txt` names the service's tests that no switch can reach (plugins/apart.py).
"""

import itertools
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from tests.processes import run
from tests.variants import FULLEST, ROOT, SWITCHES, Variant
from tests.workshop import APART, DEPLOYING, Workshop, files, rendered, run_watched

FOLDER = ROOT / "tests" / "snapshots"
FILES = FOLDER / "files.txt"
OPENAPI = FOLDER / "openapi.json"
SERVING = tuple(switch for switch in SWITCHES if switch not in DEPLOYING)
"""The switches that change the running service."""
LICENSE = "license"
"""Stands for any licence but none."""
ASKED = "import json; from app.main import create_app; print(json.dumps(create_app().openapi()))"


def listed(on: Collection[str]) -> set[str]:
    """The files that the snapshot gives to a variant; its licence is a switch like the others."""
    lines = [line.split() for line in FILES.read_text(encoding="utf-8").splitlines()]
    return {name for name, *needed in lines if set(needed) <= {*on, LICENSE}}


def served(on: Collection[str]) -> dict[str, Any]:
    """The OpenAPI document that the snapshot gives to a variant, without `info`."""
    snapshot = json.loads(OPENAPI.read_text(encoding="utf-8"))
    document: dict[str, Any] = snapshot["document"]
    off = set(SERVING) - set(on)
    for gone in snapshot["without"]:
        if set(gone["off"]) <= off:
            for path in gone["paths"]:
                remove(document, path)
    return document


def remove(document: dict[str, Any], path: str) -> None:
    """Take away what a JSON pointer (RFC 6901) names, if it is there."""
    *parents, last = [name.replace("~1", "/").replace("~0", "~") for name in path.split("/")[1:]]
    for name in parents:
        document = document.get(name, {})
    document.pop(last, None)


def missing(whole: object, part: object, at: str = "") -> Iterator[str]:
    """JSON pointers to what a document lacks of another.

    Raises:
        ValueError: it differs by more.
    """
    if not (isinstance(whole, dict) and isinstance(part, dict)):
        if whole != part:
            raise ValueError(f"{at} is not the same in all variants")
        return
    if part.keys() - whole.keys():
        raise ValueError(f"{at} has more where less is switched on")
    for name, value in whole.items():
        path = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
        if name in part:
            yield from missing(value, part[name], path)
        else:
            yield path


def parted(documents: Mapping[frozenset[str], object]) -> list[dict[str, list[str]]]:
    """For each set of switches what is missing when these are off, and not when fewer are.

    Args:
        documents: by the switches that are off.
    """
    found: list[dict[str, list[str]]] = []
    for off in sorted(documents, key=lambda off: (len(off), sorted(off))):
        told = {path for fewer in found if set(fewer["off"]) < off for path in fewer["paths"]}
        paths = sorted(set(missing(documents[frozenset()], documents[off])) - told)
        if paths:
            found.append({"off": sorted(off), "paths": paths})
    return found


def needed(present: set[str], without: Mapping[str, set[str]]) -> Iterator[str]:
    """A line for each file: its name and what it goes without."""
    for name in sorted(present):
        yield " ".join(
            [name, *(switch for switch, others in without.items() if name not in others)]
        )


def document(project: Path, python: Path) -> dict[str, Any]:
    """The OpenAPI document of a project's source, without `info`, which the answers fill."""
    told = run(python, "-c", ASKED, cwd=project, env={"PYTHONPATH": str(project / "src")})
    described: dict[str, Any] = json.loads(told.splitlines()[-1])
    del described["info"]
    return described


def subsets(switches: Iterable[str]) -> Iterator[frozenset[str]]:
    """Every subset, the smallest first."""
    every = tuple(switches)
    for size in range(len(every) + 1):
        yield from map(frozenset, itertools.combinations(every, size))


def main() -> None:
    """Write the snapshots anew from the working tree."""
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        plain, made = workshop.plain(), Path(folder, "made")

        def project(off: frozenset[str]) -> Path:
            name = made / ("-".join(sorted(off)) or "all")
            return (
                name if name.exists() else rendered(plain, name, Variant(FULLEST.on - off).answers)
            )

        fullest = project(frozenset())
        without = {switch: files(project(frozenset({switch}))) for switch in SWITCHES}
        unlicensed = rendered(plain, made / LICENSE, {**FULLEST.answers, "license": "none"})
        lines = needed(files(fullest), {**without, LICENSE: files(unlicensed)})
        FILES.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        workshop.install(fullest, "--no-install-project")
        python = fullest / ".venv" / "bin" / "python"
        documents = {off: document(project(off), python) for off in subsets(SERVING)}
        snapshot = {"document": documents[frozenset()], "without": parted(documents)}
        text = json.dumps(snapshot, indent=1, sort_keys=True, ensure_ascii=False)
        OPENAPI.write_text(f"{text}\n", encoding="utf-8")
        workshop.install(fullest)
        run_watched(fullest, python.parent, {"APART_TO": str(APART)})


if __name__ == "__main__":
    typer.run(main)
