"""The scripts around Copier, as a person runs them: `make demo` and `hooks/after_copy.py`."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

import httpx
import pytest

from tests.conftest import Render
from tests.drive import ACCEPTED, REJECTED, answer, events
from tests.processes import environment, free_ports, run, wait_for
from tests.variants import ROOT

IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "tests"), ("EMAIL", "tests@example.com"))
}
OPTIONS = {
    "after_copy": "--no-sync",
    "demo": "--port",
    "release": "--commit",
    "update": "--trust",
}
AFTER_COPY = ROOT / "hooks" / "after_copy.py"


@contextmanager
def demonstrated(*command: str, clone: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """The demo while it runs, its URL, and what it has printed; by whichever command."""
    (port,) = free_ports(1)
    url, printed = f"http://127.0.0.1:{port}", clone.with_suffix(f".{port}.log")
    with printed.open("wb") as log:
        demo = subprocess.Popen(
            [part.format(port=port) for part in command],
            cwd=clone,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: f"{url} is ready" in printed.read_text() or demo.poll() is not None, 180)
        assert demo.poll() is None, printed.read_text()
        yield demo, url, printed
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGTERM)
            demo.wait(30)


def test_the_demo_of_a_fresh_clone_serves_until_ctrl_c(template: Path, tmp_path: Path) -> None:
    run("git", "clone", "--quiet", template, "clone", cwd=tmp_path)
    clone = tmp_path / "clone"
    make = ("make", "demo", "PORT={port}", f"PYTHON={sys.executable}")
    with demonstrated(*make, clone=clone) as (demo, url, printed):
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            assert answer(client.post("/api/query", json={"query": ACCEPTED}))["draft_accepted"]
            rejected = answer(client.post("/api/query", json={"query": REJECTED}))
            assert rejected["draft_accepted"] is False
            with client.stream("GET", "/api/query/stream", params={"query": ACCEPTED}) as stream:
                assert list(events(stream))[-1]["type"] == "complete"
        # A terminal sends Ctrl-C to make and to all that it started.
        os.killpg(demo.pid, signal.SIGINT)
        # make ends by the signal, or by its recipe's 0 where that is faster.
        assert demo.wait(30) in (-signal.SIGINT, 0)
        told = printed.read_text()
        assert told.count(f"curl {url}/api/query") == 2
        assert f"{url}/api/query/stream" in told
        check_end(url, told)
    script = (".venv/bin/python", "hooks/demo.py", "--port", "{port}")
    with demonstrated(*script, clone=clone) as (demo, url, printed):
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0
        check_end(url, printed.read_text())


def check_end(url: str, told: str) -> None:
    """Nothing listens any more, and the end was an orderly one."""
    assert "Traceback" not in told
    assert "Error" not in told
    assert "Application shutdown complete" in told
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, ROOT / "hooks" / "demo.py", "--port", str(number)],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
    assert ended.returncode == 1
    assert ended.stderr == f"Port {number} is taken; choose another: make demo PORT={number + 1}\n"


def after_copy(*arguments: str | Path, path: str | None = None) -> tuple[int, str]:
    """Run the script with our own uv, or with the PATH given."""
    ended = subprocess.run(
        [sys.executable, AFTER_COPY, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment(
            PATH=path or f"{Path(sys.executable).parent}:{os.environ['PATH']}", **IDENTITY
        ),
    )
    return ended.returncode, ended.stdout


def test_after_copy_makes_a_repository_a_lock_and_an_environment(render: Render) -> None:
    project = render({})
    code, told = after_copy(project)
    assert code == 0, told
    committed = run("git", "ls-tree", "-r", "--name-only", "HEAD", cwd=project).splitlines()
    assert {"uv.lock", ".copier-answers.yml"} <= set(committed)
    assert run("git", "status", "--porcelain", cwd=project) == ""
    assert (project / ".venv" / "bin" / "my-cascade").is_file()
    following = told.partition("Next:")[2].strip().splitlines()
    assert [line.strip().split()[0] for line in following] == ["cd", "uv", "uv", "make"]


def test_after_copy_leaves_out_what_is_not_wanted(render: Render) -> None:
    project = render({})
    code, told = after_copy(project, "--no-git", "--no-lock", "--no-sync", path="")
    assert code == 0, told
    assert not [name for name in (".git", "uv.lock", ".venv") if (project / name).exists()]


def test_after_copy_makes_no_repository_inside_another(render: Render) -> None:
    project = render({})
    run("git", "init", "--quiet", cwd=project.parent)
    assert after_copy(project, "--no-lock", "--no-sync")[0] == 0
    assert not (project / ".git").exists()


@pytest.mark.parametrize(
    ("options", "missing"), [(["--no-git"], "uv"), (["--no-lock", "--no-sync"], "git")]
)
def test_after_copy_says_what_is_missing(
    options: list[str], missing: str, render: Render, tmp_path: Path
) -> None:
    code, told = after_copy(render({}), *options, path=str(tmp_path))
    assert code == 1
    assert told.startswith(f"{missing} is not installed")


def test_after_copy_refuses_a_folder_without_a_project(tmp_path: Path) -> None:
    code, told = after_copy(tmp_path)
    assert (code, told) == (1, f"{tmp_path} holds no project: copy the template there first.\n")


@pytest.mark.parametrize("script", sorted(ROOT.glob("hooks/*.py")), ids=attrgetter("stem"))
def test_a_script_explains_itself_and_needs_nothing_installed(script: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    # `make demo` runs that one, in the environment that make installs.
    demo = script.stem == "demo"
    runner: list[str | Path] = [sys.executable] if demo else [uv, "run", "--quiet", "--script"]
    told = run(*runner, script, "--help", cwd=ROOT)
    assert "Usage:" in told
    assert OPTIONS[script.stem] in told
