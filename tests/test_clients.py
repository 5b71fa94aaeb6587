"""Real clients, each in an environment of its own, against a service that was rendered.

What each of them does is its script in `clients`, which ends with 0 if all of it worked. The one in
JavaScript takes node and npm; where there is none the end of the run says that it was not run.
"""

import base64
import json
import os
import re
import shutil
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run, serving
from tests.test_deploy import SCRIPTS
from tests.variants import ROOT, Variant
from tests.workshop import Workshop, rendered

CLIENTS = ROOT / "tests" / "clients"
PYTHON = sorted(path.stem for path in CLIENTS.glob("with_*.py"))
SLUG = "my-cascade"


EMBEDDINGS = """
[embeddings]
model = "tiny"

[models.tiny]
provider = "openai"
endpoint = "{url}"
input_price = 1.0
output_price = 0
context = 100
"""


@pytest.fixture(scope="module")
def project(plain: Path, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    answers = Variant(frozenset({"openai_api"})).answers
    made = rendered(plain, tmp_path_factory.mktemp("clients") / "service", answers)
    workshop.install(made, "--no-dev")
    return made


@contextmanager
def served(
    project: Path, name: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """A service's base URL and a key for it; it stops without a fault, and logs no prompt."""
    program = project / ".venv" / "bin" / SLUG
    made = run(program, "keys", "create", name, cwd=project)
    (key,) = re.findall(r"^key: +(\S+)$", made, re.MULTILINE)
    with serving(program, "serve", "--port", "0", cwd=project, env=env) as service:
        yield f"{service.url}/v1", key
        assert service.stop() == 0, service.log
    for word in ("Traceback", "NoSQL", "weather", "Lovelace", key):
        assert word not in service.log


@pytest.fixture(scope="module")
def access(project: Path) -> Iterator[tuple[str, str]]:
    with served(project, "clients") as found:
        yield found


class Embedder(BaseHTTPRequestHandler):
    """A model for embeddings behind OpenAI's API; one text it fails on."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = asked["input"]
        data = [{"index": i, "embedding": self.vector(text, asked)} for i, text in enumerate(texts)]
        tokens = sum(len(text.split()) for text in texts)
        body = json.dumps({"data": data, "usage": {"prompt_tokens": tokens}}).encode()
        self.send_response(500 if "[[500]]" in texts else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def vector(text: str, asked: Mapping[str, Any]) -> list[float] | str:
        numbers = [float(len(text)), 0.5, -1.0][: asked.get("dimensions")]
        if asked.get("encoding_format") != "base64":
            return numbers
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def embedder() -> Iterator[str]:
    """The base URL of one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Embedder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_every_client_has_its_pins() -> None:
    assert [path.stem for path in sorted(CLIENTS.glob("with_*.txt"))] == PYTHON
    assert len(PYTHON) == 4


@pytest.mark.parametrize("client", PYTHON)
def test_a_client_in_python_finds_all_it_needs(client: str, access: tuple[str, str]) -> None:
    run_script(client, f"{client}.txt", access)


def test_openais_own_package_gets_the_embeddings_of_an_upstream(project: Path) -> None:
    with embedder() as url:
        text = (project / "cascade.toml").read_text(encoding="utf-8")
        # Nobody else is asked, nor could be.
        text = re.sub(r'^endpoint = ".*"$', f'endpoint = "{url}"', text, flags=re.MULTILINE)
        text = re.sub(r'^key = ".*"$', 'key = ""', text, flags=re.MULTILINE)
        file = project / "with-embeddings.toml"
        file.write_text(text + EMBEDDINGS.format(url=url), encoding="utf-8")
        env = {"CASCADE_FILE": str(file), "SIMULATOR": "off"}
        with served(project, "embeddings", env) as access:
            run_script("openai_embeddings", "with_openai.txt", access)


def run_script(name: str, pins: str, access: tuple[str, str]) -> None:
    with_it = ("--with-requirements", CLIENTS / pins)
    script = CLIENTS / f"{name}.py"
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
