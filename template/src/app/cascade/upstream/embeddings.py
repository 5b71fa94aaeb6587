"""`/embeddings`, as OpenAI's API reference defines it and as most endpoints have it."""

import aiohttp
from pydantic import BaseModel, ValidationError

from app.cascade.config import Model
from app.cascade.errors import UpstreamFault
from app.cascade.types import Embedding, Json, Usage, Vector
from app.cascade.upstream import wire
from app.values import value


class _Vector(BaseModel):
    index: int
    embedding: list[float] | str


class _Usage(BaseModel):
    prompt_tokens: int


class _Body(BaseModel):
    data: list[_Vector]
    usage: _Usage | None = None


@value
class EmbeddingUpstream:
    """One model for embeddings behind one endpoint."""

    session: aiohttp.ClientSession
    model: Model
    endpoint: str
    key: str | None

    async def embed(self, asked: Embedding) -> tuple[tuple[Vector, ...], Usage | None]:
        """A vector for each text, in their order, and the tokens if they are reported.

        Raises:
            UpstreamFault: whatever went wrong, without the upstream's text or address.
        """
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        body: dict[str, Json] = {
            "model": self.model.name,
            "input": [*asked.texts],
            **asked.options,
        }
        url = f"{self.endpoint}/embeddings"
        async with wire.request(self.session, "POST", url, headers, body) as response:
            try:
                found = _Body.model_validate_json(await wire.body(response))
            except ValidationError:
                raise UpstreamFault("malformed") from None
        by_index = {each.index: each.embedding for each in found.data}
        if by_index.keys() != set(range(len(asked.texts))):
            raise UpstreamFault("malformed")
        usage = Usage(found.usage.prompt_tokens, 0) if found.usage else None
        return tuple(by_index[index] for index in range(len(asked.texts))), usage
