"""Who answers a request that comes alone sooner? All are asked in turn, request by request.

    python benchmarks/in_turn.py httpx SERVICE… [--restarts 5] [--requests 300]

Each is a contender by its name, or a rendered and installed project by its path; ratios are to the
first. `compare.py` asks one for three seconds and then the next, as people would; a machine that is
faster now and slower then does not come between two requests, and what a change of one part in a
hundred buys can be seen by the clock.
"""

import contextlib
import os
import re
import socket
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import contenders
import typer
from compare import Session
from contenders import ALL, Contender

THINKS = 0.01
"""Seconds that the model takes."""
PAUSE = 0.006
"""Seconds between an answer and the next question."""


def contender(name: str) -> Contender:
    """One by its name, or a project by its path."""
    if name in ALL:
        return ALL[name]
    home = Path(name).resolve()
    return ALL.setdefault(home.name, Contender(home.name, "a project", "leanest", home=home))


def request(asked: Contender, port: int, number: int) -> bytes:
    """A question with a word of its own, its number, as HTTP."""
    told = contenders.request(asked, 100)
    body = str(told["body"]).replace(contenders.OTHER, f"{number:0{len(contenders.OTHER)}}")
    lines = (
        f"POST {told['path']} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{header}: {value}" for header, value in asked.headers.items()),
    )
    return "\r\n".join((*lines, "", body)).encode()


def answered(connection: socket.socket, question: bytes) -> float:
    """Milliseconds from the question to the end of its answer."""
    began = time.perf_counter()
    connection.sendall(question)
    head, _, body = _received(connection).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        raise typer.BadParameter(head.decode())
    while len(body) < int(length[1]):
        body += connection.recv(2**16)
    return 1000 * (time.perf_counter() - began)


def _received(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        part = connection.recv(2**16)
        if not part:
            raise typer.BadParameter("a contender has closed the connection")
        found += part
    return found


def started_anew(session: Session, asked: list[Contender], requests: int) -> list[float]:
    """Of each, milliseconds in the middle beyond what the model takes, in new processes."""
    took: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        connections = {}
        for each in asked:
            server = stack.enter_context(session.anew(each.name, stream=False))
            address = ("127.0.0.1", session.upstream if each.name == "direct" else server.port)
            connections[each.name] = stack.enter_context(socket.create_connection(address))
        session.set(delay=THINKS)
        for number in range(requests):
            for each in asked:
                connection = connections[each.name]
                question = request(each, connection.getpeername()[1], number)
                time.sleep(PAUSE)
                took[each.name].append(answered(connection, question))
    return [statistics.median(took[each.name]) - 1000 * THINKS for each in asked]


def main(
    names: list[str], restarts: Annotated[int, typer.Option(min=2)] = 5, requests: int = 300
) -> None:
    """Print what each adds to the model's time, and its ratio to the first's with its error."""
    asked = [contender(name) for name in names]
    contenders.install({each.name for each in asked if each.home is None})
    if contenders.OTHERS_CORE:
        os.sched_setaffinity(0, contenders.OTHERS_CORE)
    rounds = []
    with contextlib.ExitStack() as stack:
        session = Session(stack, quick=False)
        session.start_upstream()
        for number in range(restarts):
            order = number % len(asked)
            turned = [*asked[order:], *asked[:order]]
            found = started_anew(session, turned, requests)
            rounds.append([found[turned.index(each)] for each in asked])
    typer.echo(
        f"| one request at a time | added ms | ratio to {asked[0].name}'s |\n|---|---:|---:|"
    )
    for column, each in enumerate(asked):
        ratios = [row[column] / row[0] for row in rounds]
        error = statistics.stdev(ratios) / len(ratios) ** 0.5
        added = statistics.fmean(row[column] for row in rounds)
        typer.echo(f"| {each.name} | {added:.2f} | {statistics.fmean(ratios):.3f} ({error:.3f}) |")


if __name__ == "__main__":
    typer.run(main)
