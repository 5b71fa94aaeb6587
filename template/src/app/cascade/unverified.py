"""aiohttp's import, without the certificates of authorities for whoever asks for none."""

import importlib
from ssl import CERT_NONE, SSLContext

READ = "set_default_verify_paths"
"""How a context comes to the authorities' certificates."""


def import_aiohttp() -> None:
    """Import it, and so sooner.

    It makes two contexts for TLS, one of which verifies nobody, and reads every authority for each.
    """
    read = SSLContext.set_default_verify_paths

    def read_if_asked(context: SSLContext) -> None:
        if context.verify_mode != CERT_NONE:
            read(context)

    # Found before what the class inherits, until it is taken away again.
    setattr(SSLContext, READ, read_if_asked)
    try:
        importlib.import_module("aiohttp")
    finally:
        delattr(SSLContext, READ)
