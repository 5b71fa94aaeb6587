"""Wire protocols: each asks one model over HTTP and returns what it said, or an `UpstreamFault`."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp
from pydantic import SecretStr

from app.cascade.config import Model
from app.cascade.types import Completion, Query
from app.cascade.upstream.openai import OpenAICompatible

OnText = Callable[[str], Awaitable[None]]


class Upstream(Protocol):
    """One model behind one endpoint."""

    async def answer(self, query: Query, on_text: OnText | None = None) -> Completion:
        """Ask the model; with `on_text` as a stream, each piece handed over as it arrives.

        Raises:
            UpstreamFault: whatever went wrong, without the upstream's text or address.
        """
        ...

    async def reach(self) -> None:
        """Prove that endpoint and key work, spending no tokens.

        Raises:
            UpstreamFault: when they do not.
        """
        ...


def connect(
    session: aiohttp.ClientSession, model: Model, endpoint: str, key: SecretStr | None
) -> Upstream:
    """The upstream for a model, by its provider's wire protocol."""
    secret = key.get_secret_value() if key else None
    if model.provider == "anthropic":
        # Services without it start sooner.
        from app.cascade.upstream.anthropic import Anthropic

        return Anthropic(session, model, endpoint.rstrip("/"), secret)
    return OpenAICompatible(session, model, endpoint.rstrip("/"), secret)
