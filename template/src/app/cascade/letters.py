"""cascadeflow's searches, begun only where the letters are that every match has.

To find letters in a text takes Python a hundredth of what it takes to try a pattern at each place.
"""

import re
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from app.cascade.borrowed import borrowed

P = ParamSpec("P")
R = TypeVar("R")

NEEDED: Mapping[str, str] = {
    r"\byes\b": "yes",
    r"\btrue\b": "true",
    r"\bcorrect\b": "correct",
    r"\bcan\b": "can",
    r"^\\s*(def|class)\\s+\\w+": "\\",
}
"""What there must be in a text, by the pattern, for it to match."""


def first(method: Callable[P, R]) -> Callable[P, R]:
    """The same method, whose searches look for letters first."""
    return borrowed(method, re=_Re())


class _Re:
    def __getattr__(self, name: str) -> object:
        return getattr(re, name)

    @staticmethod
    def search(pattern: str, text: str, flags: int = 0) -> re.Match[str] | None:
        return re.search(pattern, text, flags) if NEEDED.get(pattern, "") in text else None
