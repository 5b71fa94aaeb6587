"""aiohttp's import, without the certificates of authorities for whoever asks for none."""

import importlib
from ssl import CERT_NONE, SSLContext


def import_aiohttp() -> None:
    """Import it, and so sooner.

    It makes two contexts for TLS, one of which verifies nobody, and reads every authority for each.
    """
    read = SSLContext.set_default_verify_paths

    def read_if_asked(context: SSLContext) -> None:
        if context.verify_mode != CERT_NONE:
            read(context)

    SSLContext.set_default_verify_paths = read_if_asked  # type: ignore[assignment, method-assign]
    try:
        importlib.import_module("aiohttp")
    finally:
        SSLContext.set_default_verify_paths = read  # type: ignore[method-assign]
