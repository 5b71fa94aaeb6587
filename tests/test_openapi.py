"""Schemathesis, with all of its checks, against every service that differs in its routes."""

import re
import sys
from itertools import combinations
from pathlib import Path

import pytest

from tests.conftest import Render
from tests.drive import API
from tests.processes import run, serving
from tests.variants import LEANEST, ROOT, Variant
from tests.workshop import Workshop

ROUTERS = sorted(API.keys() - {""})
SETS = [on for size in range(len(ROUTERS) + 1) for on in combinations(ROUTERS, size)]


@pytest.mark.parametrize("on", SETS, ids=lambda on: "+".join(on) or LEANEST.name)
def test_the_service_does_what_its_document_says(
    render: Render, workshop: Workshop, on: tuple[str, ...]
) -> None:
    project = render(Variant(frozenset(on)).answers)
    workshop.install(project)
    program = project / ".venv" / "bin" / "my-cascade"
    made = run(program, "keys", "create", "tests", "--role", "admin", cwd=project)
    (key,) = re.findall(r"key: +(\S+)", made)
    with serving(program, "serve", "--port", "0", cwd=project) as service:
        run(
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={ROOT / 'tests' / 'schemathesis.toml'}",
            "run",
            f"--header=Authorization: Bearer {key}",
            "--checks=all",
            "--no-color",
            f"{service.url}/openapi.json",
            cwd=project,
        )
        assert service.stop() == 0, service.log
        assert "unexpected" not in service.log
