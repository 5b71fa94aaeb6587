"""Real OpenAI clients, each in an environment of its own, against a service that was rendered.

What each of them does is its script in `clients`, which ends with 0 if all of it worked. The one in
JavaScript takes node and npm; where there is none the end of the run says that it was not run.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import run, serving
from tests.test_deploy import SCRIPTS
from tests.variants import ROOT, Variant
from tests.workshop import Workshop, rendered

CLIENTS = ROOT / "tests" / "clients"
PYTHON = sorted(path.stem for path in CLIENTS.glob("with_*.py"))
SLUG = "my-cascade"


@pytest.fixture(scope="module")
def access(
    plain: Path, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A service's base URL and a key for it; it stops without a fault, and logs no prompt."""
    answers = Variant(frozenset({"openai_api"})).answers
    project = rendered(plain, tmp_path_factory.mktemp("clients") / "service", answers)
    workshop.install(project, "--no-dev")
    program = project / ".venv" / "bin" / SLUG
    made = run(program, "keys", "create", "clients", cwd=project)
    (key,) = re.findall(r"^key: +(\S+)$", made, re.MULTILINE)
    with serving(program, "serve", "--port", "0", cwd=project) as service:
        yield f"{service.url}/v1", key
        assert service.stop() == 0, service.log
    for word in ("Traceback", "NoSQL", "weather", key):
        assert word not in service.log


def test_every_client_has_its_pins() -> None:
    assert [path.stem for path in sorted(CLIENTS.glob("with_*.txt"))] == PYTHON
    assert len(PYTHON) == 3


@pytest.mark.parametrize("client", PYTHON)
def test_a_client_in_python_finds_all_it_needs(client: str, access: tuple[str, str]) -> None:
    with_it = ("--with-requirements", CLIENTS / f"{client}.txt")
    script = CLIENTS / f"{client}.py"
    run(SCRIPTS / "uv", "run", "--quiet", "--no-project", *with_it, script, *access, cwd=CLIENTS)


def test_the_vercel_ai_sdk_finds_all_it_needs(access: tuple[str, str], workshop: Workshop) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        missing = "no node and npm: install them"
        if os.environ.get("GITHUB_ACTIONS"):
            pytest.fail(missing)
        workshop.tell(f"NOT RUN: {Path(__file__).name}, Vercel's AI SDK, {missing}")
        pytest.skip(missing)

    def make(folder: Path) -> None:
        shutil.copy(CLIENTS / "package.json", folder)
        quiet = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
        run(npm, "install", *quiet, cwd=folder)

    folder = workshop.once("ai-sdk", make)
    shutil.copy(CLIENTS / "with_ai_sdk.mjs", folder)
    run(node, "with_ai_sdk.mjs", *access, cwd=folder)
