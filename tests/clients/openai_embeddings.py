"""OpenAI's own package asks for embeddings: numbers, bytes, fewer dimensions, errors, async."""

import asyncio
import sys

import openai
from openai import AsyncOpenAI, OpenAI

MODEL = "tiny"
TEXTS = ["What is AI?", "Who is Ada Lovelace?"]
VECTORS = [[float(len(text)), 0.5, -1.0] for text in TEXTS]
"""As the upstream makes them."""


def check_embeddings(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()][-1] == MODEL
    # The package asks for bytes unless it is told not to, and makes numbers of them.
    for told in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model=MODEL, input=TEXTS, **told)
        assert [each.embedding for each in found.data] == VECTORS
        assert [each.index for each in found.data] == [0, 1]
        assert found.usage.prompt_tokens == found.usage.total_tokens == 7
        assert found.model_extra["cascade"]["cost"] > 0
    one = client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=2)
    assert [each.embedding for each in one.data] == [VECTORS[0][:2]]


def check_errors(client: OpenAI) -> None:
    for kind, fields in (
        (openai.NotFoundError, {"model": "cascade"}),
        (openai.BadRequestError, {"input": [1, 2, 3]}),
        (openai.InternalServerError, {"input": "[[500]]"}),
    ):
        try:
            client.embeddings.create(**{"model": MODEL, "input": TEXTS, **fields})
        except kind as error:
            assert error.request_id
        else:
            raise AssertionError(f"no {kind.__name__}")


async def check_async(url: str, key: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        asked = (client.embeddings.create(model=MODEL, input=text) for text in TEXTS * 5)
        vectors = [found.data[0].embedding for found in await asyncio.gather(*asked)]
    assert vectors == VECTORS * 5


def main(url: str, key: str) -> None:
    with OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        check_embeddings(client)
        check_errors(client)
    asyncio.run(check_async(url, key))


if __name__ == "__main__":
    main(*sys.argv[1:])
