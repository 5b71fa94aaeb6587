"""cascadeflow's import, without what it can draw with: nobody sees it in a service."""

import importlib
import sys
from typing import cast

DRAWING = ("pygments", "rich.console")
"""What cascadeflow, and httpx for it, import where it is installed."""


def import_cascadeflow() -> None:
    """Import it while these cannot be found, which both allow for, and so sooner.

    Whoever asks for them afterwards finds them.
    """
    modules = cast(dict[str, object], sys.modules)
    hidden = [name for name in DRAWING if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        importlib.import_module("cascadeflow.agent")
    finally:
        for name in hidden:
            del modules[name]
