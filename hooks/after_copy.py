# /// script
# requires-python = ">=3.11"
# dependencies = ["typer>=0.20"]
# ///
"""What a new project may want after `copier copy`: a git repository, a lock, a first commit.

    uv run --script hooks/after_copy.py my-service

Nothing of this is needed: a project is complete when Copier has rendered it.
"""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Annotated

import typer

UV = "uv is not installed; see https://docs.astral.sh/uv/, or leave it out with --no-lock --no-sync"


def main(
    project: Annotated[Path, typer.Argument(help="The folder that Copier has written.")],
    git: Annotated[
        bool, typer.Option(help="Make it a git repository with a first commit, if it is in none.")
    ] = True,
    lock: Annotated[bool, typer.Option(help="Resolve its dependencies to uv.lock.")] = True,
    sync: Annotated[bool, typer.Option(help="Install them in .venv.")] = True,
) -> None:
    """Prepare a new project, and say what to do next."""
    command = _command(project)
    if git:
        _need("git", "git is not installed; install it, or leave it out with --no-git")
    if lock or sync:
        _need("uv", UV)
    new = git and not _in_a_repository(project)
    if new:
        _run(project, "git", "init", "--quiet")
    if lock:
        _run(project, "uv", "lock")
    if sync:
        _run(project, "uv", "sync")
    if new:
        # An update compares with what was committed: the first commit is the template's alone.
        _run(project, "git", "add", "--all")
        _run(project, "git", "commit", "--quiet", "--message", "From the template")
    typer.echo("\nNext:\n")
    typer.echo(f'  cd "{project}"')
    typer.echo(f"  uv run {command} serve")
    typer.echo(f'  uv run {command} ask "What is AI?"')
    typer.echo("  make update    # now and then: what is new in the template")


def _command(project: Path) -> str:
    """The project's name, which is its command's."""
    try:
        described = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        return str(described["project"]["name"])
    except (OSError, ValueError, KeyError):
        _fail(f"{project} holds no project: copy the template there first.")
        raise


def _need(program: str, otherwise: str) -> None:
    if shutil.which(program) is None:
        _fail(otherwise)


def _in_a_repository(project: Path) -> bool:
    asked = ["git", "-C", str(project), "rev-parse", "--is-inside-work-tree"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _run(project: Path, *command: str) -> None:
    typer.echo(f"$ {' '.join(command)}")
    if code := subprocess.run(command, cwd=project, check=False).returncode:
        _fail(f"`{' '.join(command)}` ended with {code}; its own words are above.")


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
