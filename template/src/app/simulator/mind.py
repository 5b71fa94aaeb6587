"""From a prompt to the tokens of an answer: a pure function, without clock, chance or network."""

import math
import re
import zlib
from collections.abc import Sequence

from app.simulator.knowledge import LESSONS, TOPICS
from app.values import value

# Like a real tokenizer in what matters: a word is one or two tokens, a CJK character is one, and
# the tokens joined are the text again. Linear in the length of any text.
_TOKEN = re.compile(
    r"\s?[\u3040-\u9fff\uac00-\ud7a3]|\s?[^\W\u3040-\u9fff\uac00-\ud7a3]{1,10}|\s?[^\w\s]|\s"
)
_LONG = 300  # characters; such a prompt is beyond the small model, and no lesson's question
_QUOTED = 120  # characters of the prompt that come back at most
_PLAIN_QUESTION = 12  # words

_AROUND = """
    a about an and are briefly can could define describe do does explain for give how in is it me
    mean of our please s short simple simply solar system tell terms the to was what who work works
    world you
"""
_PLAIN = frozenset(_AROUND.split())  # what may stand around the name of a topic
# Signs that a question wants judgement rather than a fact: the small model does not trust itself.
_DEMANDING = re.compile(
    r"\b(?:advantage|analy|architect|best|better|compar|contract|contrast|debug|deriv|design|detail"
    r"|diagnos|differ|drawback|error|essay|ethic|evaluat|fix|implic|invest|law|legal|medic|optimi"
    r"|philosoph|proof|pros|prov|refactor|should|strateg|sue|symptom|tax|trade|treat|versus|vs|why"
    r"|por qué)|为什么|比较|证明|设计|分析"
)

_POOR = "I'm not sure about that one, perhaps it depends. Maybe someone else can say."
_SKETCH = (
    "This is a placeholder from the offline simulator, which knows only a few topics. With an API "
    "key set, a real small model answers here in a sentence or two."
)
_OUTLINE = (
    "The offline simulator has no knowledge of this and does not invent any. With an API key set, "
    "a real large model answers here in full: the facts, the reasons for them and an example."
)


@value
class Token:
    """One token of an answer, with the natural logarithm of its probability."""

    text: str
    logprob: float


@value
class Thought:
    """An answer before it is sent. `finish_reason` is "stop" or "length"."""

    tokens: tuple[Token, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


def think(
    prompt: str,
    *,
    strong: bool,
    manner: str = "",
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    given: str | None = None,
) -> Thought:
    """Answer a prompt.

    `strong` is the large model, which knows more and is always sure of itself. A `manner` of
    "poor" or "good" overrules what is known; `given` overrules both. The answer ends before the
    first text of `stop`.
    """
    text, sure = _answer(prompt, strong, manner) if given is None else (given, True)
    ends = [text.find(mark) for mark in stop if mark and mark in text]
    texts = _TOKEN.findall(text[: min(ends, default=None)])
    kept = texts[:max_tokens]
    low, high = (0.93, 0.995) if sure else (0.12, 0.42)
    seed = zlib.crc32(text.encode("utf-8", "replace"))
    tokens = tuple(
        Token(piece, round(math.log(low + (high - low) * _fraction(seed + place)), 4))
        for place, piece in enumerate(kept)
    )
    return Thought(tokens, "stop" if len(kept) == len(texts) else "length")


def count_tokens(text: str) -> int:
    """Tokens of one message, with a few for its framing."""
    return sum(1 for _ in _TOKEN.finditer(text)) + 4


def _answer(prompt: str, strong: bool, manner: str) -> tuple[str, bool]:
    """What the model says, and whether it is sure of it."""
    if manner == "poor":
        return _POOR, False
    question = " ".join(prompt[:_LONG].split())
    words = re.findall(r"[\w+]+", question.lower()) if len(prompt) < _LONG else []
    strong = strong or manner == "good"
    known = _recall(words, strong)
    if known:
        return known, True
    if strong or _is_plain(words):
        quote = question if len(question) <= _QUOTED else f"{question[: _QUOTED - 1]}…"
        return f"“{quote}” {_OUTLINE if strong else _SKETCH}", True
    return _POOR, False


def _recall(words: list[str], strong: bool) -> str | None:
    """The written answer to a question, if this model knows it."""
    for lesson in LESSONS:
        if (strong or not lesson.hard) and all(
            any(word.startswith(tuple(stem.split("|"))) for word in words) for stem in lesson.stems
        ):
            return lesson.text
    for topic in TOPICS:
        for name in topic.names:
            before, found, after = f" {' '.join(words)} ".partition(f" {name} ")
            if found and _PLAIN.issuperset([*before.split(), *after.split()]):
                return f"{topic.short} {topic.more}".rstrip() if strong else topic.short
    return None


def _is_plain(words: list[str]) -> bool:
    """Whether the small model dares to answer what it knows nothing about."""
    return 0 < len(words) <= _PLAIN_QUESTION and not _DEMANDING.search(" ".join(words))


def _fraction(seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the seed."""
    return zlib.crc32(seed.to_bytes(5, "big")) / 2**32
