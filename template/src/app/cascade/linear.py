"""Many patterns over one text in one pass, in time linear in its length, whatever the text.

cascadeflow searches a prompt with 455 patterns one by one, and some backtrack: prompts of a few
thousand characters can take seconds. RE2 answers for all of them at once and cannot backtrack.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial

import re2

from app.values import value

Match = Callable[[str], list[int]]
FoundIn = Callable[[str], frozenset[int]]
Narrow = Callable[[Iterable[str]], None]
# A plain number: Python makes an object of the result of each `&` of its flags.
IGNORECASE = int(re.IGNORECASE)
MAX_MEMORY = 256 * 2**20

LETTERS_END = 0x40000
"""No letter, digit or space lies beyond the planes 0 to 3 of Unicode."""
# Four letters outside ASCII that Python takes for an `i`, `s` or `k` where case does not matter.
_CASELESS = str.maketrans("\u0130\u0131\u017f\u212a", "iisk")
# Spaces to Python, but not to RE2.
_ASCII = re.sub(r"[^\S \t\n\r\f]", " ", "".join(map(chr, range(128))))
_CLASSES = ((r"[^\w\s]+", "\x01"), (r"\d+", "0"), (r"[^\W0]+", "_"), (r"\s+", " "))


@cache
def _to_ascii() -> str:
    """For each character, an ASCII one of the same class: RE2 knows only ASCII's classes.

    Digits, letters, spaces and the rest stay apart, as Python's `\\d`, `\\w` and `\\s` see them.
    """
    codes = array("I", range(len(_ASCII), LETTERS_END))
    table = codes.tobytes().decode("utf-32", "surrogatepass")
    for run, one in _CLASSES:
        table = re.sub(run, partial(_filled, one), table)
    return _ASCII + table


def _filled(one: str, run: re.Match[str]) -> str:
    return one * len(run[0])


@value
class Uncompiled:
    """A pattern that only RE2 is asked for: Python would take milliseconds to compile it."""

    pattern: str
    flags: int = 0

    def compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, self.flags)

    def findall(self, text: str) -> list[str | tuple[str, ...]]:
        return self.compiled().findall(text)


Pattern = re.Pattern[str] | Uncompiled


class Late:
    """`re` for whoever compiles patterns to hand them to `linearize`."""

    compile = Uncompiled
    escape = staticmethod(re.escape)
    IGNORECASE = re.IGNORECASE
    MULTILINE = re.MULTILINE


class PatternSet:
    """Answers which of many patterns occur in a text.

    By their numbers: Python reads a pattern from end to end whenever it looks one up.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._match = _compile(patterns)
        self._caseless = frozenset(
            number for number, each in enumerate(patterns) if int(each.flags) & IGNORECASE
        )
        self._empty = frozenset({len(patterns)})

    def found_in(self, text: str) -> frozenset[int]:
        """The numbers of the patterns that occur in the text."""
        if text.isascii():
            return self._matches(text.translate(_ASCII))
        table = _to_ascii()
        found = self._matches(text.translate(table))
        folded = text.translate(_CASELESS)
        if folded == text:
            return found
        caseless = self._matches(folded.translate(table)) & self._caseless
        return found - self._caseless | caseless

    def _matches(self, view: str) -> frozenset[int]:
        matches = self._match(view)
        # The empty pattern matches any text: without it RE2 has given up, and does not say so.
        if not matches:
            raise MemoryError("RE2 has not enough memory for this text")
        return frozenset(matches) - self._empty


class _Answered:
    """A pattern whose `search` is answered by its set; all else is the pattern's own."""

    def __init__(self, number: int, pattern: Pattern, found_in: FoundIn) -> None:
        self.number = number
        self._found_in = found_in
        self.findall = pattern.findall
        self.pattern = pattern.pattern

    def search(self, text: str) -> bool:
        return self.number in self._found_in(text)


def linearize(holder: object) -> Narrow:
    """Let a set answer for every pattern among the attributes of an object.

    Returns what leaves of its lists only the patterns that occur in some texts: whoever searches
    these texts for all of them, one after the other, finds the same and asks little.
    """
    attributes = vars(holder)
    patterns = [pattern for held in attributes.values() for pattern in _patterns(held)]
    suited = [*dict.fromkeys(pattern for pattern in patterns if _suits(pattern))]
    # The text and its lower-case form are asked for many times each, in turn.
    found_in = lru_cache(maxsize=4)(PatternSet(suited).found_in)
    answered = {
        pattern: _Answered(number, pattern, found_in) for number, pattern in enumerate(suited)
    }
    for name, held in attributes.items():
        attributes[name] = _replace(held, answered)
    return _narrowing(attributes, found_in)


@dataclass(eq=False, slots=True)
class _List:
    """A list of which those patterns are left that were found, and whatever else is in it."""

    place: dict[str, object]
    name: str
    items: list[object]
    unasked: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)

    def leave(self) -> None:
        self.place[self.name] = [self.items[index] for index in sorted(self.unasked + self.found)]
        self.found = []


def _narrowing(attributes: dict[str, object], found_in: FoundIn) -> Narrow:
    places = (attributes, *(each for each in attributes.values() if isinstance(each, dict)))
    lists = [
        _List(place, name, items)
        for place in places
        for name, items in place.items()
        if isinstance(items, list)
    ]
    asked: dict[int, list[tuple[_List, int]]] = {}
    for kept in lists:
        for index, item in enumerate(kept.items):
            number = _asked(item)
            if number is None:
                kept.unasked.append(index)
            else:
                asked.setdefault(number, []).append((kept, index))
    narrowed = [kept for kept in lists if len(kept.unasked) < len(kept.items)]

    def narrow(texts: Iterable[str]) -> None:
        last, narrowed[:] = narrowed[:], ()
        for number in frozenset[int]().union(*map(found_in, texts)):
            for kept, index in asked.get(number, ()):
                kept.found.append(index)
                narrowed.append(kept)
        for kept in {*last, *narrowed}:
            kept.leave()

    return narrow


def _asked(item: object) -> int | None:
    """The number of the pattern in an item of a list, alone or behind its name, if it has one."""
    match item:
        case (_Answered() as each) | (str(), (_Answered() as each)):
            return each.number
        case _:
            return None


def _suits(pattern: Pattern) -> bool:
    """`$` means something else to RE2, and a letter outside ASCII would be taken for another."""
    return pattern.pattern.isascii() and "$" not in pattern.pattern


def _compile(patterns: Sequence[Pattern]) -> Match:
    """What returns the numbers of those that match a text, and one more, of the empty pattern."""
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    found = re2.Set.SearchSet(options)
    for pattern in patterns:
        found.Add(f"{_flags(int(pattern.flags))}{pattern.pattern}")
    found.Add("")
    found.Compile()
    match: Match = found.Match
    return match


@cache
def _flags(flags: int) -> str:
    """As a pattern begins that has these of Python's."""
    known = (("i", re.IGNORECASE), ("m", re.MULTILINE), ("s", re.DOTALL))
    letters = "".join(letter for letter, flag in known if flags & flag)
    return f"(?{letters})" if letters else ""


def _patterns(held: object) -> list[Pattern]:
    match held:
        case re.Pattern() | Uncompiled():
            return [held]
        case list() | tuple():
            return [pattern for item in held for pattern in _patterns(item)]
        case dict():
            return [pattern for item in held.values() for pattern in _patterns(item)]
        case _:
            return []


def _replace(held: object, answered: dict[Pattern, _Answered]) -> object:
    match held:
        case re.Pattern() | Uncompiled() if held in answered:
            return answered[held]
        case Uncompiled():
            return held.compiled()
        case list():
            return [_replace(item, answered) for item in held]
        case tuple():
            return tuple(_replace(item, answered) for item in held)
        case dict():
            return {key: _replace(item, answered) for key, item in held.items()}
        case _:
            return held
