"""The service as its own process, started by its command as a user starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import CASCADE, eventually

SOURCE = CASCADE.parents[1] / "src"


@dataclass
class Served:
    """A service that runs, and what it has written to standard error."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    stopping: bool = False

    @property
    def url(self) -> str:
        found = (re.search(r"running on (http://[\w.:]+)", line) for line in self.lines)
        return next((match[1] for match in found if match), "")

    @property
    def started(self) -> int:
        """How many of its processes serve."""
        return self.log.count("Application startup complete.") if self.url else 0

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def workers(self) -> list[int]:
        """The processes that have served, whether they live or not."""
        return [int(number) for number in re.findall(r"Started server process \[(\d+)\]", self.log)]

    def terminate(self) -> None:
        """Tell it to stop, as an orchestrator does."""
        self.stopping = True
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Its exit code."""
        return self.process.wait(timeout=20)


def _listens(url: str) -> bool:
    _, host, port = url.replace("//", "").split(":")
    with closing(socket.socket()) as asking:
        return asking.connect_ex((host, int(port))) == 0


@contextmanager
def served(cascade_file: Path, *options: str, **variables: str) -> Iterator[Served]:
    """Runs `serve` on a free port, without the simulator; it is killed if it has not ended."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "CASCADE_FILE": str(cascade_file),
        "SIMULATOR": "off",
        **variables,
    }
    command = [sys.executable, "-m", "app", "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        found = Served(process)
        assert process.stderr
        # Read as it comes: a full pipe would stop the service.
        reading = threading.Thread(target=found.lines.extend, args=(process.stderr,))
        reading.start()
        try:
            count = int(options[1]) if "--workers" in options else 1
            assert eventually(lambda: found.started >= count or process.poll() is not None)
            assert found.started >= count, found.log
            # Under a parent a process says that it has started before it listens.
            assert eventually(lambda: _listens(found.url))
            yield found
        finally:
            # Its workers too, which hold the pipe open.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reading.join()
