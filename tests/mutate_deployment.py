"""Run in a rendered project with its Python: its own tests against wrong deployment files.

Each line of them that names a path, a port, a variable, a selector or an image is changed, one at a
time. Prints every change that no test of the project noticed, and how many changes there were.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

TESTS = {
    "Dockerfile": ["tests/test_container.py"],
    "compose.yaml": ["tests/test_container.py"],
    "deploy/kubernetes/*/**/*.yaml": [
        "tests/test_manifests.py",
        "tests/test_manifests_prometheus.py",
    ],
}
"""Files, and the tests that should know them."""
CHANGES = [
    (r"(\bpath: )(/\S+)$", r"\1/elsewhere"),
    (r"(GET', ')(/\w+)", r"\1/elsewhere"),
    (r"(\b(?:port|targetPort): )(\w+)$", r"\g<1>other"),
    (r"(\bcontainerPort: )(\d+)$", r"\g<1>9999"),
    (r"(\"--port\", \"|--port, \")(\d+)", r"\g<1>9999"),
    (r"(EXPOSE )(\d+)", r"\g<1>9999"),
    (r"('127.0.0.1', )(\d+)", r"\g<1>9999"),
    (r"(:)(8000)\"$", r'\g<1>9999"'),
    (r"(^ +- )([A-Z_]{4,})(?==)", r"\1OTHER"),
    # Grafana's own are not known here.
    (r"(^ +)((?!GF_)[A-Z_]{4,})(?=: )", r"\1OTHER"),
    (r"(^ENV )(LEDGER_URL)(?==)", r"\1OTHER"),
    (r"(app.kubernetes.io/name: )(\S+)$", r"\1other"),
    (r"(^ +image: )(\S+)$", r"\1other"),
]
"""Patterns of lines, and what becomes of them."""


def changed(line: str) -> Iterator[str]:
    for pattern, becomes in CHANGES:
        if not line.lstrip().startswith("#") and re.search(pattern, line):
            yield re.sub(pattern, becomes, line)


def noticed(tests: Sequence[str]) -> bool:
    """Whether a test fails; in a child, so that everything is read anew."""
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        # What the parent has imported cannot be rewritten; pytest warns of it.
        options = (
            "-x",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        )
        code = 99
        with suppress(BaseException):
            code = pytest.main([*options, *tests])
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1), f"pytest ended with {code}"
    return code == 1


def main() -> None:
    # Imported before the children are born: they share it, and are twice as fast.
    sys.path[:0] = ["src", "."]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in ("app.cli", "tests.conftest", "yaml"):
        __import__(name)
    count = 0
    for pattern, tests in TESTS.items():
        assert not noticed(tests), "the tests fail with nothing changed"
        for file in sorted(Path().glob(pattern)):
            text = file.read_text(encoding="utf-8")
            lines = text.splitlines()
            for number, line in enumerate(lines):
                for other in changed(line):
                    count += 1
                    file.write_text("\n".join([*lines[:number], other, *lines[number + 1 :], ""]))
                    if not noticed(tests):
                        sys.stdout.write(f"unnoticed: {file}:{number + 1}: {other.strip()}\n")
            file.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{count} changes\n")


main()
