"""Deployment files with one word changed: a path, a port, a name, a variable or an image."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.mutation.mutants import Mutant

TESTS = {
    "template/Dockerfile": ("tests/test_container.py",),
    "template/compose.yaml": ("tests/test_container.py",),
    "template/deploy/kubernetes/*/**/*.yaml": (
        "tests/test_manifests.py",
        "tests/test_manifests_prometheus.py",
    ),
}
"""Files, and the tests of the service that should know them."""
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
    (r"(app.kubernetes.io/name: )(.+)$", r"\1other"),
    (r"(^ +image: )(.+)$", r"\1other"),
]
"""Patterns of lines, and what becomes of them."""


def changes(root: Path) -> Iterator[tuple[Mutant, tuple[str, ...]]]:
    """Each change, with the tests that should turn red."""
    for files, tests in TESTS.items():
        for path in sorted(root.glob(files)):
            lines = path.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines):
                for pattern, becomes in CHANGES:
                    if not line.lstrip().startswith("#") and re.search(pattern, line):
                        other = re.sub(pattern, becomes, line)
                        text = "\n".join([*lines[:number], other, *lines[number + 1 :], ""])
                        what = f"{number + 1}: {other.strip()}"
                        yield Mutant(path.relative_to(root).as_posix(), what, text), tests
