"""aiohttp's import, without the certificates of authorities until somebody is verified."""

import importlib
from ssl import CERT_NONE, MemoryBIO, SSLContext, SSLObject, SSLSession

READ = "set_default_verify_paths"
"""How a context comes to the authorities' certificates."""


def import_aiohttp() -> None:
    """Import it, and so sooner.

    It makes two contexts for TLS, one of which verifies nobody, and reads every authority for each.
    """

    def read_later(context: SSLContext) -> None:
        if context.verify_mode != CERT_NONE:
            context.__class__ = _Unread

    # Found before what the class inherits, until it is taken away again.
    setattr(SSLContext, READ, read_later)
    try:
        importlib.import_module("aiohttp")
    finally:
        delattr(SSLContext, READ)


class _Unread(SSLContext):
    """A context that reads the authorities' certificates when it is first used, once and for all.

    Event loops use one by `wrap_bio` alone.
    """

    def wrap_bio(
        self,
        incoming: MemoryBIO,
        outgoing: MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: SSLSession | None = None,
    ) -> SSLObject:
        context: SSLContext = self
        context.__class__ = SSLContext
        context.set_default_verify_paths()
        return context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
