"""What cascadeflow is shown of a text: enough to judge it, and never more than it can read quickly.

Ordinary texts are shown as they are. Its patterns take quadratic time over long unbroken runs, and
linear but noticeable time over very long texts; the upstream and the client get the real thing.
"""

import re
from collections.abc import Sequence

from app.cascade.types import Message

QUERY_CHARS = 4_000
ANSWER_CHARS = 8_000
DETECTED_CHARS = 32_000
"""The complexity of a single question is told from this much of it: RE2 reads faster."""

# Numbers, gaps and words of such a length are no language, and patterns walk them again and again.
LONG = 64
_RUNS = (
    re.compile(rf"(?<!\d)(\d{{{LONG}}})\d+"),
    re.compile(rf"(?<!\s)(\s{{{LONG}}})\s+"),
    re.compile(r"(?<!\w)(\w{256})\w+"),
)


def of_query(text: str) -> str:
    """A question for the estimators: its beginning and its end, where people put what they want."""
    if len(text) > QUERY_CHARS:
        head = QUERY_CHARS * 3 // 4
        text = f"{text[:head]}\n{text[head - QUERY_CHARS :]}"
    return _without_runs(text)


def of_conversation(messages: Sequence[Message]) -> tuple[str, list[dict[str, str]] | None]:
    """A single question as text; a conversation as its latest turns, roles kept."""
    if len(messages) == 1:
        return of_query(messages[0].content), None
    shown: list[dict[str, str]] = []
    left = QUERY_CHARS
    for message in reversed(messages):
        # cascadeflow writes "Role: text" on a line of its own: ten thousand empty turns are long.
        left -= len(message.role) + len(": \n")
        if left <= 0:
            break
        text = of_query(message.content)[:left]
        left -= len(text)
        shown.append({"role": message.role, "content": text})
    return "", shown[::-1]


def of_answer(text: str) -> str:
    """A draft for the estimators."""
    return _without_runs(text[:ANSWER_CHARS])


def _without_runs(text: str) -> str:
    words = text.split()
    if len(text) - len(" ".join(words)) < LONG and max(map(len, words), default=0) <= LONG:
        return text
    for run in _RUNS:
        text = run.sub(r"\1", text)
    return text
