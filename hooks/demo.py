"""`make demo`: render the default service from the working tree and run it until Ctrl-C."""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent
SERVICE = ROOT / "build" / "demo"
PROGRAMS = Path(sys.executable).parent

ASK = 'curl {url}/api/query -H "Content-Type: application/json"'
COMMANDS = """
{url} is ready. In another shell, a draft that is accepted, one that is rejected, and a stream:

  {ask} -d '{{"query": "What is AI?"}}'
  {ask} -d '{{"query": "Compare SQL and NoSQL databases"}}'
  curl -N "{url}/api/query/stream?query=What+is+AI%3F"

A page to watch the cascade on: {url}/playground
Every endpoint, to try in a browser: {url}/docs
Ctrl-C stops it; the project stays in {project}.
"""


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Render, install and run the default service."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    if not _free(port):
        _fail(f"Port {port} is taken; choose another: make demo PORT={port + 1}")
    typer.echo(f"Rendering the default service to {SERVICE.relative_to(ROOT)} …")
    shutil.rmtree(SERVICE, ignore_errors=True)
    # HEAD, not the newest release: what is demonstrated is the working tree.
    _run(PROGRAMS / "copier", "copy", "--defaults", "--quiet", "--vcs-ref=HEAD", ROOT, SERVICE)
    typer.echo("Installing it …")
    _run(PROGRAMS / "uv", "sync", "--quiet", "--python", sys.executable, "--project", SERVICE)
    program = SERVICE / ".venv" / "bin" / "my-cascade"
    # A session of its own: Ctrl-C reaches this script alone, which stops the service in good order.
    service = subprocess.Popen(
        [program, "serve", "--port", str(port)], cwd=SERVICE, start_new_session=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(service, f"{url}/readiness")
        ask = ASK.format(url=url)
        typer.echo(COMMANDS.format(url=url, ask=ask, project=SERVICE.relative_to(ROOT)))
        code = service.wait()
    finally:
        service.terminate()
        service.wait()
    raise typer.Exit(code)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _run(*command: str | Path) -> None:
    if code := subprocess.run(command, check=False).returncode:
        raise typer.Exit(code)


def _wait_for(service: subprocess.Popen[bytes], url: str, seconds: float = 30) -> None:
    # Without the proxies that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and service.poll() is None:
        try:
            with opener.open(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    _fail("The service did not start.")


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _leave(_: int, __: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    typer.run(main)
