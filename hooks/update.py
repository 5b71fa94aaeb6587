# /// script
# requires-python = ">=3.11"
# dependencies = ["copier>=9.18,<10", "packaging>=24", "pyyaml>=6.0", "typer>=0.20"]
# ///
"""`copier update` with what belongs before and after it; `make update` of a project runs it.

    uv run --script hooks/update.py my-service
    uv run --script hooks/update.py my-service --data streaming=false

Before: whatever would stop Copier half-way, or mislead it, is refused with a sentence. After: what
Copier would have deleted with your changes in it is kept, the lock is renewed, and it is told what
is new and what is left to do. If the update fails, the project is as it was.

Nothing of this is needed: plain `copier update` does the update itself.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import copier
import typer
import yaml
from packaging.version import InvalidVersion, Version

ANSWERS = ".copier-answers.yml"
KEPT = ".kept"
"""Ends the name of what an update would have deleted with its owner's changes."""


@dataclass(frozen=True)
class Project:
    """What a project says of its template."""

    path: Path
    source: str
    """Where the template is, as Copier was told."""
    commit: str
    """The version that it was last updated to."""
    answers: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an update has done."""

    came_from: str
    now: str
    conflicts: list[str]
    kept: list[str]
    lock: str | None
    """What there is to say of uv.lock."""
    news: str


def main(
    project: Annotated[Path, typer.Argument(help="The project to update.")] = Path(),
    data: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An answer to change.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Not to the newest release, but to this.")
    ] = None,
    trust: Annotated[bool, typer.Option(help="Let the template's migrations run.")] = False,
    lock: Annotated[bool, typer.Option(help="Renew uv.lock, if there is one.")] = True,
    report: Annotated[
        Path | None, typer.Option(help="Write what was done to this file as well, as Markdown.")
    ] = None,
) -> None:
    """Bring a project up to the newest release of its template, or change its answers."""
    report = report.absolute() if report else None
    current = _read(project.resolve())
    # A template beside the project, `../template`, is found from there.
    os.chdir(current.path)
    with tempfile.TemporaryDirectory(prefix="update.") as scratch:
        template = _fetch(current, Path(scratch) / "template")
        target = _target(current, template, to)
        answers = _parse(data or [], template, target)
        if target == current.commit and not answers:
            told = f"This project is of {target}, the newest release of its template.\n"
        else:
            mine = _changed(current, Path(scratch) / "before")
            with _restored_on_failure(current.path):
                _update(current.path, target, answers, trust)
                outcome = _finish(current, template, mine, lock)
            told = _tell(outcome)
    if report:
        report.write_text(told, encoding="utf-8")
    typer.echo(told, nl=False)


# ------------------------------------------------------------------------------------ before


def _read(path: Path) -> Project:
    """The project, if it can be updated."""
    if shutil.which("git") is None:
        _fail("git is not installed; an update needs it.")
    # 1: not ignored. 0: ignored, as in the build folder of another repository. 128: in none.
    if _git(path, "check-ignore", "--quiet", ANSWERS).returncode != 1:
        _fail(
            f"No git repository has {path}, which an update needs to tell your changes from the"
            " template's: `git init && git add --all && git commit` there, and update again."
        )
    file = path / ANSWERS
    if not file.is_file():
        _fail(
            f"{file} is missing: only it knows the template and the answers. If it was deleted,"
            f" `git log --diff-filter=D -- {ANSWERS}` finds the commit,"
            f" and `git restore --source=COMMIT~1 {ANSWERS}` brings it back."
        )
    try:
        text = file.read_text(encoding="utf-8")
        answers = yaml.safe_load(text)
        source, commit = str(answers.pop("_src_path")), str(answers.pop("_commit"))
    except (UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        _fail(
            f"{file} was edited and tells the template and its version no longer:"
            f" `git log --patch -- {ANSWERS}` shows what it was, and"
            f" `git restore --source=COMMIT {ANSWERS}` brings it back."
        )
    if not _untouched(text):
        _fail(
            f"{file} was edited by hand, and Copier believes that the project was made from what it"
            f" says: `git log --patch -- {ANSWERS}` shows what it was; put it back, commit, and"
            " give a new answer with --data NAME=VALUE instead. If it is right as it is, which a"
            " merge of two branches can lead to, delete its line `# sha256 …` and commit that."
        )
    # Whatever the owner has git show: what is not committed is lost if the update fails.
    if changes := _git(path, "status", "--porcelain", "--untracked-files", "--", ".").stdout:
        _fail(
            "There are changes that are not committed, which an update would mix with its own:"
            f" commit them, or `git stash --include-untracked`, and update again.\n{changes}"
        )
    return Project(path, source, commit, answers)


def _untouched(text: str) -> bool:
    """Whether the answers are what Copier wrote; of before 0.3.0 nobody knows.

    The address is left out, since it is the owner's to change when the template moves.
    """
    written = re.search(r"^# sha256 of the lines below: (\w{64})$", text, re.MULTILINE)
    kept = re.sub(r"^(#|_src_path:).*\n", "", text, flags=re.MULTILINE)
    return not written or written[1] == hashlib.sha256(kept.encode()).hexdigest()


def _fetch(project: Project, folder: Path) -> Path:
    """A clone of the template, which knows the version that the project is of."""
    address = re.sub(r"^git\+", "", project.source)
    for short, long in (("gh:", "https://github.com/"), ("gl:", "https://gitlab.com/")):
        if address.startswith(short):
            address = long + address.removeprefix(short).lstrip("/")
    address = os.path.expanduser(address)  # noqa: PTH111 (of a path; an address has no ~)
    cloned = _git(project.path, "clone", "--quiet", "--no-checkout", address, str(folder))
    if cloned.returncode:
        _fail(
            f"The template cannot be read from {project.source}. If it has moved, write where it is"
            f" as `_src_path` in {ANSWERS}, commit that, and update again. git said:\n"
            f"{cloned.stderr}"
        )
    if not _known(folder, project.commit):
        newest = _newest(folder)
        mine = _version(project.commit)
        if newest and mine and mine > Version(newest):
            _fail(
                f"The template at {project.source} is older than this project: it ends at {newest},"
                f" and the project is of {project.commit}. Fetch it there, with its tags, and"
                " update again."
            )
        _fail(
            f"The template at {project.source} has no {project.commit}, of which this project is."
            " If it is a fork, push the tags of the original to it; or write the address of the"
            f" original as `_src_path` in {ANSWERS}, and commit that. Then update again."
        )
    return folder


def _target(project: Project, template: Path, to: str | None) -> str:
    """The tag to update to; without any release it is what the template has come to."""
    if to is None:
        return _newest(template) or "HEAD"
    for tag in (to, f"v{to}"):
        if _known(template, tag):
            return tag
    _fail(
        f"The template at {project.source} has no {to}; its newest release is {_newest(template)}"
    )


def _parse(data: list[str], template: Path, target: str) -> dict[str, Any]:
    """The answers to change. Copier itself takes any name, and any word as true."""
    text = _git(template, "show", f"{target}:copier.yml").stdout
    asked = {
        name: question
        for name, question in yaml.safe_load(text).items()
        if not name.startswith("_") and question.get("when") is not False
    }
    answers = {}
    for pair in data:
        name, equals, value = pair.partition("=")
        if not equals or name not in asked:
            _fail(f"{pair} answers no question. Write NAME=VALUE, with one of {', '.join(asked)}.")
        answers[name] = yaml.safe_load(value) if asked[name]["type"] != "str" else value
        if asked[name]["type"] == "bool" and not isinstance(answers[name], bool):
            _fail(f"{name} is true or false, not {value}.")
    return answers


def _changed(project: Project, folder: Path) -> dict[str, bytes]:
    """What the template had rendered and the owner has changed since, by name."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            copier.run_copy(
                project.source,
                folder,
                data=dict(project.answers),
                vcs_ref=project.commit,
                defaults=True,
                quiet=True,
            )
    except Exception as error:
        _fail(
            f"From the answers in {ANSWERS} no project of {project.commit} can be made, so what you"
            f" changed since cannot be told: `git log --patch -- {ANSWERS}` shows what they were;"
            f" put them back, commit, and update again. Copier said: {error}"
        )
    changed = {}
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        mine = project.path / name
        if file.is_file() and mine.is_file() and name != ANSWERS:
            text = mine.read_bytes()
            # git may have written other line ends than the template has.
            if text.replace(b"\r\n", b"\n") != file.read_bytes():
                changed[name] = text
    return changed


# ------------------------------------------------------------------------------------ update


@contextlib.contextmanager
def _restored_on_failure(path: Path) -> Iterator[None]:
    """There was nothing uncommitted before: whatever differs from the commit is the update's."""
    try:
        yield
    except BaseException:
        _git(path, "reset", "--quiet", "--", ".")
        _git(path, "restore", "--source=HEAD", "--staged", "--worktree", "--", ".")
        _git(path, "clean", "--force", "-d", "--quiet", "--", ".")
        raise


def _update(path: Path, target: str, answers: dict[str, Any], trust: bool) -> None:
    noise = io.StringIO()
    try:
        with contextlib.redirect_stderr(noise):
            copier.run_update(
                path,
                data=answers,
                vcs_ref=target,
                defaults=True,
                overwrite=True,
                unsafe=trust,
                quiet=True,
            )
    except Exception as error:
        said = str(error) or noise.getvalue()
        _fail(f"Copier refused, and the project is as it was. It said: {said}")


# ------------------------------------------------------------------------------------- after


def _finish(project: Project, template: Path, mine: Mapping[str, bytes], lock: bool) -> Outcome:
    """Keep what the update took away, and renew the lock."""
    path = project.path
    kept = sorted(name for name in mine if not (path / name).exists())
    for name in kept:
        copy = path / f"{name}{KEPT}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(mine[name])
    unmerged = _git(path, "diff", "--name-only", "--diff-filter=U", "--relative", "--", ".")
    conflicts = unmerged.stdout.splitlines()
    now = str(yaml.safe_load((path / ANSWERS).read_text(encoding="utf-8"))["_commit"])
    return Outcome(
        project.commit,
        now,
        conflicts,
        kept,
        _lock(path, conflicts) if lock and (path / "uv.lock").is_file() else None,
        _news(template, project.commit, now),
    )


def _lock(path: Path, conflicts: list[str]) -> str:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None or "pyproject.toml" in conflicts:
        return "renew it with `uv lock`, which could not be run yet"
    if subprocess.run([uv, "lock", "--quiet"], cwd=path, check=False).returncode:
        return "renew it with `uv lock`, which has failed; its own words are above"
    return "is renewed"


def _news(template: Path, came_from: str, now: str) -> str:
    """The changelog's sections of the versions that were crossed, newest first."""
    changelog = _git(template, "show", f"{now}:CHANGELOG.md").stdout
    since, until = _version(came_from), _version(now)
    if since is None or until is None:
        return ""
    sections = re.split(r"^## (\S+)\n", changelog, flags=re.MULTILINE)
    crossed = [
        f"## {number}\n\n{text.strip()}\n"
        for number, text in zip(sections[1::2], sections[2::2], strict=True)
        if (version := _version(number)) and since < version <= until
    ]
    return "\n".join(crossed)


def _tell(outcome: Outcome) -> str:
    """What was done and what is left, in Markdown."""
    now, came_from = outcome.now, outcome.came_from
    lines = [f"Updated from {came_from} to {now}." if now != came_from else f"Still of {now}."]
    if outcome.conflicts:
        lines += [
            "",
            "You and the template changed the same lines; choose, then `git add`:",
            "",
        ]
        lines += [f"* `{name}`" for name in outcome.conflicts]
    if outcome.kept:
        lines += ["", "You had changed these files, and the project has them no longer. Yours is"]
        lines += [f"kept beside it, as `NAME{KEPT}`: carry over what you need, then delete it.", ""]
        lines += [f"* `{name}`" for name in outcome.kept]
    if outcome.lock:
        lines += ["", f"`uv.lock`: {outcome.lock}."]
    if outcome.news:
        lines += ["", outcome.news.rstrip()]
    lines += ["", "Look at it with `git diff`, run `make check`, and commit it."]
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------------------------- helpers


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _known(template: Path, commit: str) -> bool:
    # Copier writes what `git describe` does: a tag, or v0.1.0-3-gabcdef0.
    name = f"{commit}^{{commit}}"
    return _git(template, "rev-parse", "--verify", "--quiet", name).returncode == 0


def _newest(template: Path) -> str | None:
    """The tag of the newest release, as Copier chooses it."""
    tags = _git(template, "tag").stdout.split()
    releases = {tag: version for tag in tags if (version := _version(tag))}
    final = [tag for tag, version in releases.items() if not version.is_prerelease]
    return max(final, key=lambda tag: releases[tag], default=None)


def _version(tag: str) -> Version | None:
    try:
        return Version(re.sub(r"-(\d+)-g\w+$", r".post\1", tag))
    except InvalidVersion:
        return None


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
