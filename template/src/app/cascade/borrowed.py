"""cascadeflow's own functions, with something else behind a name that they look up.

What they make or search with is then ours, and no line of theirs is copied.
"""

from collections.abc import Callable
from types import FunctionType
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def borrowed(function: Callable[P, R], **instead: object) -> Callable[P, R]:
    """The same function, which finds these among the names of its module; the module keeps its own.

    `instead` are the names and what they stand for.
    """
    known = cast(FunctionType, function)
    same = FunctionType(
        known.__code__,
        {**known.__globals__, **instead},
        known.__name__,
        known.__defaults__,
        known.__closure__,
    )
    same.__kwdefaults__ = known.__kwdefaults__
    return cast(Callable[P, R], same)
