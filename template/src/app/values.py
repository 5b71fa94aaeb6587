"""Values: dataclasses whose fields stay as they were made, as the type checker sees to.

At run time nothing does: `dataclass(frozen=True)` sets each field by a call, and takes four times
as long to make what a query is made of, a hundred fields each time.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

ValueT = TypeVar("ValueT")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[ValueT]) -> type[ValueT]:
    """A class decorator; values are equal if their fields are, and have a hash: none is changed."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
