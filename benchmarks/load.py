"""The load of the benchmark: one HTTP/1.1 request, sent again and again, and what came of it.

    python benchmarks/load.py < JOB

JOB is JSON: `port`, `path`, `headers` and `body` of the request, `expected`, a text that each
answer must hold, `other`, a word in place of which each request has one of its own, and what to do:

    {"mode": "closed", "connections", "seconds", "warm"}   each connection asks once it is answered
    {"mode": "count", "connections", "requests"}           the same, until so many are answered
    {"mode": "open", "rate", "seconds", "warm", "times"}   requests at random times, the same for
                                                           the same number `times`, whatever becomes
                                                           of the others; latency from then on
    {"mode": "streams", "connections", "seconds", "warm"}  streams that all run at once, pieces of
                                                           which are told by MARK

Prints JSON: `requests`, `seconds`, `failed`, `cpu` (seconds of this process), `latency`, `first`
(time to the first MARK) and `gap` (between two MARKs), each {p50, p99} in milliseconds.
"""

import asyncio
import json
import random
import sys
import time
from collections import deque
from typing import Any

import uvloop

MARK = b"~"


class Client(asyncio.Protocol):
    """One connection that has at most one request under way."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.done: asyncio.Event | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.busy = False
        self.load.connected(self)

    def ask(self, due: float | None = None) -> None:
        self.busy = True
        self.began = time.perf_counter() if due is None else due
        self.marked = 0.0
        self.length = -1  # unknown
        self.parts: list[bytes] = []
        self.transport.write(self.load.new_request())

    def data_received(self, data: bytes) -> None:
        marks = data.count(MARK)
        if marks:
            self.mark(marks)
        self.parts.append(data)
        if self.length < 0 or len(self.parts) == 1:
            received = b"".join(self.parts)
            at = received.find(b"\r\n\r\n")
            if at < 0:
                return
            self.parts = [received]
            _, _, length = received[:at].lower().partition(b"content-length:")
            self.length = at + 4 + int(length.partition(b"\r\n")[0]) if length else 0
        if self.length:
            if sum(map(len, self.parts)) >= self.length:
                self.finish()
        elif data.endswith(b"0\r\n\r\n") or b"".join(self.parts[-2:]).endswith(b"0\r\n\r\n"):
            self.finish()

    def mark(self, marks: int) -> None:
        now = time.perf_counter()
        if self.load.begin <= now <= self.load.end:
            self.load.pieces += marks
            if self.marked:
                self.load.gaps.append(now - self.marked)
                self.load.gaps.extend([0.0] * (marks - 1))
            else:
                self.load.firsts.append(now - self.began)
        self.marked = now

    def finish(self) -> None:
        answer = b"".join(self.parts)
        self.busy = False
        self.load.finished(self, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost(self)


class Load:
    """What is to be done, and what was measured while `begin` <= now <= `end`."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        body = job["body"].encode()
        lines = [
            f"POST {job['path']} HTTP/1.1",
            f"Host: 127.0.0.1:{job['port']}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in job["headers"].items()),
        ]
        if not body:
            lines = [lines[0].replace("POST", "GET"), lines[1], *lines[4:]]
        request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.before, _, self.after = request.partition(job["other"].encode())
        # No run asks what one before it has asked.
        self.number = 7_000_000 * job.get("times", 0)
        self.letters = len(job["other"])
        self.expected = job["expected"].encode()
        self.mode = job["mode"]
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.gaps: list[float] = []
        self.requests = self.failed = self.pieces = self.asked = 0
        self.why = ""
        self.begin = self.end = float("inf")
        self.idle: deque[Client] = deque()
        self.waiting: deque[float] = deque()
        self.stopping = False
        self.all_done = asyncio.Event()
        self.opening: set[asyncio.Task[None]] = set()

    def new_request(self) -> bytes:
        """The request with a word of its own, of as many letters."""
        self.number = left = self.number + 7
        word = bytearray()
        for _ in range(self.letters):
            left, letter = divmod(left, 26)
            word.append(97 + letter)
        return b"%s%s%s" % (self.before, word, self.after)

    def connected(self, client: Client) -> None:
        if self.mode == "open":
            if self.waiting:
                client.ask(self.waiting.popleft())
            else:
                self.idle.append(client)
        elif self.mode != "streams":
            self.next(client)

    def next(self, client: Client) -> None:
        if self.stopping or (self.mode == "count" and self.asked >= self.job["requests"]):
            return
        self.asked += 1
        client.ask()

    def finished(self, client: Client, answer: bytes) -> None:
        now = time.perf_counter()
        if not answer.startswith(b"HTTP/1.1 200") or self.expected not in answer:
            self.failed += 1
            self.why = self.why or answer[:2000].decode(errors="replace")
        if self.begin <= now <= self.end:
            self.requests += 1
            self.latencies.append(now - client.began)
        elif self.mode == "count":
            self.requests += 1
            if self.requests >= self.job["requests"]:
                self.all_done.set()
        if b"connection: close" in answer[:500].lower():
            client.transport.close()
        elif self.mode == "open":
            if self.waiting:
                client.ask(self.waiting.popleft())
            else:
                self.idle.append(client)
        elif self.mode == "streams":
            self.failed += self.begin <= now <= self.end
        else:
            self.next(client)

    def lost(self, client: Client) -> None:
        if client in self.idle:
            self.idle.remove(client)
        if client.busy and not self.stopping:
            self.failed += 1
            self.why = self.why or "the connection was lost"
        if not self.stopping and self.mode != "streams":
            self.open()

    def open(self) -> None:
        task = asyncio.ensure_future(self.connect())
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            try:
                await loop.create_connection(lambda: Client(self), "127.0.0.1", self.job["port"])
                return
            except OSError:
                await asyncio.sleep(0.05)
        self.failed += 1
        self.why = self.why or "no connection"

    async def run(self) -> dict[str, Any]:
        await {
            "closed": self.closed,
            "count": self.count,
            "open": self.at_random_times,
            "streams": self.streams,
        }[self.mode]()
        self.stopping = True
        return {
            "requests": self.requests,
            "seconds": self.end - self.begin,
            "failed": self.failed,
            "why": self.why,
            "pieces": self.pieces,
            "cpu": time.process_time(),
            "latency": percentiles(self.latencies),
            "first": percentiles(self.firsts),
            "gap": percentiles(self.gaps),
        }

    async def window(self) -> None:
        self.begin = time.perf_counter() + self.job["warm"]
        self.end = self.begin + self.job["seconds"]
        await asyncio.sleep(self.job["warm"])
        print("begin", flush=True)  # noqa: T201
        await asyncio.sleep(self.job["seconds"])
        print("end", flush=True)  # noqa: T201

    async def closed(self) -> None:
        await asyncio.gather(*(self.connect() for _ in range(self.job["connections"])))
        await self.window()

    async def count(self) -> None:
        began = time.perf_counter()
        await asyncio.gather(*(self.connect() for _ in range(self.job["connections"])))
        await self.all_done.wait()
        self.begin, self.end = began, time.perf_counter()

    async def at_random_times(self) -> None:
        for _ in range(8):
            await self.connect()
        measured = asyncio.ensure_future(self.window())
        # Every 25 ms, each third request would come just when the first is answered after 50 ms.
        gaps = random.Random(self.job["times"])  # noqa: S311 -- the same times for all
        due = time.perf_counter()
        while not measured.done():
            due += gaps.expovariate(self.job["rate"])
            await asyncio.sleep(due - time.perf_counter())
            if self.idle:
                self.idle.popleft().ask(due)
            else:
                self.waiting.append(due)
                self.open()
        await measured

    async def streams(self) -> None:
        loop = asyncio.get_running_loop()
        count = self.job["connections"]
        measured = asyncio.ensure_future(self.window())
        clients = []
        for _ in range(count):
            try:
                _, client = await loop.create_connection(
                    lambda: Client(self), "127.0.0.1", self.job["port"]
                )
            except OSError:
                self.failed += 1
                continue
            clients.append(client)
            client.ask()
            # Over most of the time to get warm: a thousand do not begin in the same moment.
            await asyncio.sleep(0.7 * self.job["warm"] / count)
        await measured
        self.stopping = True
        for client in clients:
            client.transport.abort()


def percentiles(found: list[float]) -> dict[str, float]:
    if not found:
        return {"p50": float("nan"), "p99": float("nan")}
    found.sort()
    return {
        name: 1000 * found[min(len(found) - 1, int(share * len(found)))]
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


async def main() -> None:
    print(json.dumps(await Load(json.load(sys.stdin)).run()))  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main())
