"""Pytest many times over, in forks of one process that has imported what the runs share.

    forks.py '{"modules": […], "anew": false, "arguments": […]}'

Each line of its input is a JSON object of variables of the environment: a run. The answer is the
exit code and the first test that failed. A run begins with the tests collected, or, `anew`, before.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

SECONDS = 900
"""A run that takes longer is killed, which counts as red."""


class Forks:
    """Answers requests, each in a fork; a plugin of pytest that does so before the first test."""

    def __init__(self) -> None:
        # Pytest takes the standard streams for itself.
        self._requests: TextIO = os.fdopen(os.dup(0))
        self._answers: TextIO = os.fdopen(os.dup(1), "w")
        self._pipe: int | None = None
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)

    def children(self) -> Iterator[None]:
        """Yields in each fork, once; in the process itself it ends with the requests."""
        for line in self._requests:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                signal.alarm(SECONDS)
                os.environ.update(json.loads(line))
                self._pipe = writer
                yield
                return
            os.close(writer)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            self._answers.write(f"{json.dumps([code, os.read(reader, 4096).decode()])}\n")
            self._answers.flush()
            os.close(reader)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """In the process itself there is nothing to run."""
        if self._pipe is None and not any(True for _ in self.children()):
            return True
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tell(report.nodeid, failed=report.failed)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._tell(report.nodeid, failed=report.failed)

    def _tell(self, name: str, *, failed: bool) -> None:
        if failed and self._pipe:
            os.write(self._pipe, name.encode())
            self._pipe = 0


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    # As `python -m pytest` has it: not the folder of this script.
    sys.path[0] = os.getcwd()  # noqa: PTH109
    for module in asked["modules"]:
        importlib.import_module(module)
    forks = Forks()
    if not asked["anew"] or any(True for _ in forks.children()):
        os._exit(pytest.main(asked["arguments"], plugins=[forks]))
