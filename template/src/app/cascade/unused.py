"""The import of cascadeflow without what a service has no use for: providers, and drawing."""

import importlib
import sys
from typing import cast

DRAWING = ("pygments", "rich.console")
"""What cascadeflow imports where it is installed."""
PROVIDERS = "PROVIDER_REGISTRY"
"""All of them, which cascadeflow imports when it is asked for this; `provider.py` is ours."""


def import_cascadeflow() -> None:
    """Import it, and so sooner.

    Whoever asks for the rest afterwards finds it.
    """
    modules = cast(dict[str, object], sys.modules)
    hidden = [name for name in DRAWING if name not in modules]
    modules.update(dict.fromkeys(hidden))
    providers = importlib.import_module("cascadeflow.providers")
    setattr(providers, PROVIDERS, {})
    try:
        importlib.import_module("cascadeflow.agent")
    finally:
        delattr(providers, PROVIDERS)
        for name in hidden:
            del modules[name]
