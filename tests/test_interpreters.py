"""The leanest and the fullest variant on every Python from 3.11 up, and on the oldest releases."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Render
from tests.drive import RATE_LIMIT, check_log, drive
from tests.processes import environment, run, serving
from tests.variants import FULLEST, LEANEST, Variant
from tests.workshop import APART, run_watched, uv

OLDEST = (3, 11)
ENDS = pytest.mark.parametrize("variant", [LEANEST, FULLEST], ids=lambda variant: variant.name)


def interpreters() -> dict[str, Path]:
    """One CPython of each minor version from 3.11 up, by version; never empty."""
    places = [Path(sys.executable), *Path("/usr/bin").glob("python3.*")]
    places += [*Path("/usr/local/bin").glob("python3.*"), *Path("/opt").glob("*/bin/python3.*")]
    places += Path.home().glob(".pyenv/versions/*/bin/python3.*")
    places += Path.home().glob(".local/share/uv/python/*/bin/python3.*")
    found: dict[str, Path] = {}
    for place in places:
        if place.name != Path(sys.executable).name and not re.fullmatch(
            r"python3\.\d+", place.name
        ):
            continue
        asked = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
        told = subprocess.run(
            [place, "-c", asked], capture_output=True, text=True, check=False, env=environment()
        ).stdout.split()
        if told[:1] == ["cpython"] and (int(told[1]), int(told[2])) >= OLDEST:
            found.setdefault(f"{told[1]}.{told[2]}", place)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def others() -> dict[str, Path]:
    """The interpreters that the other tests do not use; our own where there is no other."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = interpreters()
    return {version: path for version, path in found.items() if version != own} or found


def check_service(project: Path, variant: Variant) -> None:
    """A project's own tests, then the running service."""
    programs = project / ".venv" / "bin"
    # The fullest runs what no switch can reach for both.
    left_out = {} if variant == FULLEST else {"APART_FROM": str(APART)}
    run_watched(project, programs, left_out)
    command = (programs / "my-cascade", "serve", "--port", "0")
    with serving(*command, cwd=project, env={"RATE_LIMIT": str(RATE_LIMIT)}) as service:
        drive(service.url, variant.on)
        assert service.stop() == 0, service.log
        check_log(service.log)


@ENDS
@pytest.mark.parametrize("version", others())
def test_a_variant_runs_on(version: str, variant: Variant, render: Render) -> None:
    project = render(variant.answers)
    uv("sync", cwd=project, python=interpreters()[version])
    told = run(project / ".venv" / "bin" / "python", "--version", cwd=project)
    assert told.startswith(f"Python {version}.")
    check_service(project, variant)


@ENDS
def test_the_lowest_versions_declared_will_do(variant: Variant, render: Render) -> None:
    project = render(variant.answers)
    uv("sync", "--resolution", "lowest-direct", cwd=project)
    check_service(project, variant)
