"""The models of the benchmark: an OpenAI-compatible server that does nothing but answer.

    python benchmarks/upstream.py PORT

Every answer is a constant, chosen by a search for a few bytes in the request. `small` answers well,
and badly where the prompt has `poor:` in it; `large` always answers well. GET /set?… changes how it
behaves from then on and resets its counts, GET /counts tells how often each model was asked:

    delay    seconds before an answer begins
    cadence  seconds between two pieces of a stream
    pieces   how many pieces a stream has
"""

import asyncio
import json
import sys
import time
from urllib.parse import parse_qsl

import uvloop

GOOD = (
    "Machine learning is a way to build software that learns patterns from data instead of "
    "following rules that people write by hand, and it is used in practice to predict and classify."
)
BEST = GOOD.replace("Machine learning is", "In short, machine learning is")
POOR = "I don't know, maybe. It is possibly unclear, I'm not sure."
MARK = "~"
"""One in each piece of a stream that is paced, and nowhere else."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def tokens(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def logprobs(pieces: list[str], sure: bool, others: bool) -> dict[str, object]:
    """What the API adds if it is asked to; five alternatives for each token with `others`."""
    value = -0.02 if sure else -2.5

    def entry(token: str, logprob: float) -> dict[str, object]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    return {
        "content": [
            {
                **entry(token, value),
                "top_logprobs": [entry(token, value - i) for i in range(5)] if others else [],
            }
            for token in pieces
        ]
    }


def envelope(model: str, kind: str, **fields: object) -> dict[str, object]:
    known = {"id": "chatcmpl-1", "object": kind, "created": 1767225600, "model": model}
    return {**known, **fields}


def whole(model: str, text: str, probable: int) -> bytes:
    """A response; `probable` is 0 without logprobs, 1 with, 2 with the alternatives too."""
    pieces = tokens(text)
    choice: dict[str, object] = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "finish_reason": "stop",
        "logprobs": logprobs(pieces, text is not POOR, probable > 1) if probable else None,
    }
    usage = {
        "prompt_tokens": 40,
        "completion_tokens": len(pieces),
        "total_tokens": 40 + len(pieces),
    }
    body = json.dumps(envelope(model, "chat.completion", choices=[choice], usage=usage)).encode()
    return HEAD % (len(body), body)


def event(model: str, data: dict[str, object] | str) -> bytes:
    """One server-sent event as one HTTP chunk."""
    if isinstance(data, dict):
        data = json.dumps(envelope(model, "chat.completion.chunk", **data))
    line = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(line), line)


def piece(model: str, token: str, probable: int, sure: bool = True) -> bytes:
    delta: dict[str, object] = {"index": 0, "delta": {"content": token}, "finish_reason": None}
    if probable:
        delta["logprobs"] = logprobs([token], sure, probable > 1)
    return event(model, {"choices": [delta]})


def end(model: str, count: int) -> bytes:
    usage = {"prompt_tokens": 40, "completion_tokens": count, "total_tokens": 40 + count}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return (
        event(model, {"choices": [last]})
        + event(model, {"choices": [], "usage": usage})
        + event(model, "[DONE]")
        + b"0\r\n\r\n"
    )


MODELS = ("small", "large")
TEXTS = {
    ("small", False): GOOD,
    ("small", True): POOR,
    ("large", False): BEST,
    ("large", True): BEST,
}
WHOLE = {
    (model, poor, probable): whole(model, text, probable)
    for (model, poor), text in TEXTS.items()
    for probable in range(3)
}
AT_ONCE = {
    (model, poor, probable): STREAM
    + b"".join(piece(model, token, probable, text is not POOR) for token in tokens(text))
    + end(model, len(tokens(text)))
    for (model, poor), text in TEXTS.items()
    for probable in range(3)
}
PIECES = {
    (model, probable): [piece(model, f"{token}{MARK}", probable) for token in tokens(GOOD)]
    for model in MODELS
    for probable in range(3)
}

settings = {"delay": 0.0, "cadence": 0.0, "pieces": 0.0}
counts = dict.fromkeys(MODELS, 0)


class Upstream(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        while (at := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:at].lower()
            _, _, length = head.partition(b"content-length:")
            size = int(length.partition(b"\r\n")[0]) if length else 0
            if b"transfer-encoding: chunked" in head:
                size = self.received.find(b"\r\n0\r\n\r\n", at) + 7 - at - 4
                if size < 0:
                    return
            if len(self.received) < at + 4 + size:
                return
            body = self.received[at + 4 : at + 4 + size]
            self.received = self.received[at + 4 + size :]
            if head.startswith(b"get"):
                self.tell(head.split(b" ", 2)[1].decode())
            else:
                self.answer(body)

    def tell(self, path: str) -> None:
        path, _, query = path.partition("?")
        found = json.dumps({**counts, "cpu": time.process_time()}).encode()
        if path == "/set":
            settings.update({name: float(value) for name, value in parse_qsl(query)})
            counts.update(dict.fromkeys(MODELS, 0))
        self.transport.write(HEAD % (len(found), found))

    def answer(self, body: bytes) -> None:
        model = "large" if b'"large"' in body else "small"
        counts[model] += 1
        probable = 2 if b'"top_logprobs"' in body else 1 if b'"logprobs"' in body else 0
        streams = b'"stream":true' in body or b'"stream": true' in body
        key = model, b"poor:" in body, probable
        if streams and settings["cadence"]:
            begin = self.loop.time() + settings["delay"]
            self.loop.call_at(begin, self.pace, begin, model, probable, 0)
            return
        answer = AT_ONCE[key] if streams else WHOLE[key]
        if settings["delay"]:
            self.loop.call_later(settings["delay"], self.transport.write, answer)
        else:
            self.transport.write(answer)

    def pace(self, begin: float, model: str, probable: int, sent: int) -> None:
        if self.transport.is_closing():
            return
        if sent >= settings["pieces"]:
            self.transport.write(end(model, sent))
            return
        pieces = PIECES[model, probable]
        one = pieces[sent % len(pieces)]
        self.transport.write(one if sent else STREAM + one)
        due = begin + (sent + 1) * settings["cadence"]
        self.loop.call_at(due, self.pace, begin, model, probable, sent + 1)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        Upstream, "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
