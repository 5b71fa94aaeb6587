"""The import of cascadeflow without what a service has no use for: providers, and drawing."""

import importlib
import sys
from typing import cast

DRAWING = "rich.console"
"""What cascadeflow imports where it is installed."""
PROVIDERS = "PROVIDER_REGISTRY"
"""All of them, which cascadeflow imports when it is asked for this; `provider.py` is ours."""


def import_cascadeflow() -> None:
    """Import it, and so sooner.

    Whoever asks for the rest afterwards finds it.
    """
    modules = cast(dict[str, object], sys.modules)
    hidden = DRAWING not in modules
    if hidden:
        modules[DRAWING] = None
    try:
        providers = importlib.import_module("cascadeflow.providers")
        setattr(providers, PROVIDERS, {})
        importlib.import_module("cascadeflow.agent")
        delattr(providers, PROVIDERS)
    finally:
        if hidden:
            del modules[DRAWING]
