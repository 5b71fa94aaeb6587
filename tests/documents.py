"""The fenced blocks of Markdown pages, carried out as a reader would."""

import os
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.processes import run, serving

_BLOCK = re.compile(
    r'^(?P<fence>```+)(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^(?P=fence)$',
    re.DOTALL | re.MULTILINE,
)
_INLINE = re.compile(r"(?<!`)`((?:docker|git|kubectl|make|promtool|uv|uvx) [^`]+)`(?!`)")
CURL = """\
#!{python}
import argparse, sys
import httpx
parser = argparse.ArgumentParser()
parser.add_argument("-N", action="store_true")
parser.add_argument("-H", action="append", default=[])
parser.add_argument("-d")
parser.add_argument("url")
told = parser.parse_args()
headers = dict(header.split(": ", 1) for header in told.H)
method = "POST" if told.d else "GET"
with httpx.stream(method, told.url, headers=headers, content=told.d, trust_env=False) as response:
    for text in response.iter_text():
        print(text, end="")
sys.exit(response.is_error)
"""
"""Fewer options than the real one, an error for every status that is one, and always there."""


@dataclass(frozen=True)
class Block:
    """What stands between two fences; its title is the file that it is the content of."""

    page: str
    language: str
    title: str | None
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell, those that go on joined."""
        return [line for line in self.text.replace("\\\n", "").splitlines() if line]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    return [
        Block(page.name, found["language"], found["title"], found["text"])
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def in_sentences(page: Path) -> list[Block]:
    """The commands that stand in a page's sentences, without those that a block of it has too."""
    shown = {line.split("#")[0].strip() for block in blocks(page) for line in block.commands}
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    found = dict.fromkeys(" ".join(command.split()) for command in _INLINE.findall(prose))
    return [Block(page.name, "bash", None, command) for command in found if command not in shown]


class Reader:
    """Somebody who does what the pages say, in one folder and one shell's environment.

    `instead` are words that a reader would replace, such as a port that is taken; `serves` are the
    ends of commands that go on until the reader is done.
    """

    def __init__(self, folder: Path, bin: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.instead: dict[str, str] = {}
        self.serves: tuple[str, ...] = (" serve",)
        self._env = {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", **env}
        self._running = ExitStack()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def follow(self, block: Block) -> str:
        """Write the file, or run the commands; what these print.

        Raises:
            AssertionError: a command failed; holds its output.
        """
        if block.title:
            (self.folder / block.title).write_text(block.text, encoding="utf-8")
            return ""
        if block.language == "diff":
            patch = self.folder / "block.diff"
            patch.write_text(block.text, encoding="utf-8")
            run("git", "apply", "--recount", "--unidiff-zero", patch, cwd=self.folder)
            patch.unlink()
            return ""
        assert block.language == "bash", f"{block.page}: who can carry out\n{block.text}"
        script = block.text.rstrip()
        for word, other in self.instead.items():
            script = script.replace(word, other)
        shell = ("bash", "-euo", "pipefail", "-c", script)
        if not script.endswith(self.serves):
            return run(*shell, cwd=self.folder, env=self._env)
        service = serving(*shell, cwd=self.folder, env=self._env, timeout=300)
        self._running.enter_context(service)
        return ""


def put(folder: Path, name: str, script: str) -> None:
    """A program that stands in for another."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(script.replace("{python}", sys.executable), encoding="utf-8")
    (folder / name).chmod(0o755)
