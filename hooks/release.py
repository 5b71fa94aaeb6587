# /// script
# requires-python = ">=3.11"
# dependencies = ["packaging>=24", "typer>=0.20"]
# ///
"""`make release VERSION=0.4.0`: record what Copier renders from, so that tests always can.

A tag may be missing from a clone and a history may be squashed; `releases/` is neither. The same
commit gives the same archive, byte for byte.
"""

import io
import lzma
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Annotated

import typer
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
RENDERED_FROM = ("copier.yml", "licenses", "template")
"""All that Copier reads of this repository."""


def main(
    version: Annotated[str, typer.Argument(help="Such as 0.4.0; CHANGELOG.md tells of it.")],
    commit: Annotated[str, typer.Option(help="What is released.")] = "HEAD",
) -> None:
    """Write releases/VERSION.tar.xz from a commit."""
    try:
        canonical = str(Version(version))
    except InvalidVersion:
        canonical = ""
    if version != canonical:
        _fail(f"{version} is no version as PEP 440 writes it; such as 0.4.0, or 0.4.0rc1.")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)}$", changelog, re.MULTILINE):
        _fail(f"CHANGELOG.md has no section `## {version}`: write there what its users must do.")
    record = ROOT / "releases" / f"{version}.tar.xz"
    if record.exists():
        _fail(f"{record.relative_to(ROOT)} exists: what was released stays as it is.")
    record.write_bytes(archive(commit))
    typer.echo(f"{record.relative_to(ROOT)} is written. Now, on {commit}:\n")
    typer.echo(f"  git add releases && git commit --message 'Release {version}'")
    typer.echo(f"  git tag v{version} && git push --tags")


def archive(commit: str, root: Path = ROOT) -> bytes:
    """What Copier reads of a commit, as a compressed archive that depends on nothing else."""
    git = ["git", "-C", str(root), "archive", "--format=tar", commit, *RENDERED_FROM]
    made = subprocess.run(git, capture_output=True, check=False)
    if made.returncode:
        _fail(f"git knows no {commit} with {', '.join(RENDERED_FROM)}: {made.stderr.decode()}")
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(made.stdout)) as source,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            # git's umask, owner and clock are no part of a release.
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size = member.type, member.size
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            target.addfile(plain, source.extractfile(member) if member.isreg() else None)
    return lzma.compress(packed.getvalue(), preset=9)


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
