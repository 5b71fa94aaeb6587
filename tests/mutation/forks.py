"""Pytest many times over, in forks of one process that has imported what the runs share.

    forks.py MODULE…

Reads a JSON list of pytest's arguments from each line of its input, and answers with the exit code.
"""

import importlib
import json
import os
import signal
import sys

import pytest

SECONDS = 900
"""A run that takes longer is killed, which counts as red."""


def run(arguments: list[str]) -> int:
    """The exit code of pytest in a fork; negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        os._exit(pytest.main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    # As `python -m pytest` has it: not the folder of this script.
    sys.path[0] = os.getcwd()  # noqa: PTH109
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        sys.stdout.write(f"{run(json.loads(line))}\n")
        sys.stdout.flush()
